// What the shop says, in Twi (Asante spelling, with the English words that customers use) and in English.

const TEXTS = {
  tw: {
    shop: "Dwaso", skip: "Kɔ nsɛm titire no so",
    home: "Fie", all: "Nnoɔma nyinaa", cart: "Cart", wishlist: "Wishlist", orders: "Orders", account: "Me account", help: "Mmoa",
    addresses: "Addresses", checkout: "Checkout", faqs: "Nsɛm a wɔbisa daa", chat: "Kasa kyerɛ obi", order: "Order", list: "Nnoɔma", product: "Adeɛ",
    menu: "Shop no afa ahodoɔ", find: "Hwehwɛ", findLabel: "Hwehwɛ adeɛ wɔ shop no mu", findHint: "ɛmo, phone, mpaboa …",
    voice: "Kasa kyerɛ shop no", undo: "San yi", hero: "Wopɛ deɛn? Ka kyerɛ yɛn.",
    heroText: "Mia microphone no na kasa Twi anaa English: shop no te, na ɛyɛ. Ɛyɛ adwuma wɔ fon no ankasa so, intanɛt nni hɔ mpo a.",
    tryThese: "Ka bi sɛ", categories: "Nnoɔma ahodoɔ", deals: "Deals a ɛwɔ hɔ", newest: "Deɛ aba foforɔ", seeAll: "Hwɛ ne nyinaa",
    clothing: "Ntadeɛ", electronics: "Mfidie", shoes: "Mpaboa", home_items: "Efie nneɛma", groceries: "Nnuane", gifts: "Akyɛdeɛ",
    filters: "Filter", sort: "Sort", sortNone: "Sɛdeɛ ɛte", popular: "Deɛ nkurɔfoɔ pɛ", price_asc: "Deɛ ɛyɛ fo di kan", price_desc: "Deɛ ne boɔ yɛ den di kan",
    rating_desc: "Rating no korɔn", low: "Ne boɔ yɛ fo", high: "Ne boɔ yɛ den", ratingHigh: "Rating a ɛkorɔn", new: "Foforɔ", cheap: "Ne boɔ yɛ fo",
    discounts: "Wɔate boɔ no so", flash_sale: "Flash sale", fast_delivery: "Ɛba ntɛm", clearFilters: "Yi filter no", showMore: "Kyerɛ me bio",
    nItems: "Nnoɔma {n}", nothing: "Biribiara nni ha a ɛte saa. Yi filter no anaa hwehwɛ biribi foforɔ.",
    price: "Boɔ", was: "Kane no na ɛyɛ {price}", color: "Ahosuo", size: "Size", quantity: "Dodow", brand: "Brand", fewer: "Te so baako", more: "Fa baako ka ho",
    add: "Fa to cart no mu", added: "{product} {quantity} akɔ cart no mu.", save: "Sie ma akyire", unsave: "Yi firi wishlist no mu",
    alertMe: "Boɔ no te so a, ma mente", alertStop: "Gyae boɔ ho nkra", description: "Adeɛ no ho nsɛm", reviews: "Deɛ nkurɔfoɔ ka", similar: "Deɛ ɛne yei di nsɛ",
    stars: "nsoroma {n} wɔ 5 mu", remove: "Yi firi mu", emptyCart: "Hwee nni cart no mu.", goShopping: "Kɔhwɛ nnoɔma", clearCart: "Yi ne nyinaa",
    items: "Nnoɔma", discount: "Boɔ so teɛ", delivery: "Delivery", free: "Kwa", total: "Ne nyinaa", coupon: "Coupon", couponCode: "Coupon code", apply: "Fa yɛ adwuma", removeCoupon: "Yi coupon no",
    demoCoupon: "Demo coupon: {code}", toCheckout: "Kɔ checkout", deliverTo: "Yɛde bɛba", payWith: "Tua ka no", card: "Card", mobile_money: "Mobile money",
    place: "Pintim order no", payFirst: "Tua ka no ansa na woapintim order no.", paid: "Wode {method} tuaeɛ. Pintim order no na yɛabɔ aseɛ.", demoPay: "Demo: sika biara nkɔ baabiara.",
    confirmed: "Yɛagye order no", on_the_way: "Ɛwɔ kwan so", delivered: "Ɛduruu wo nkyɛn", cancelled: "Wɔatwa mu", returning: "Ɛresan aba", exchanging: "Yɛresesa",
    receipt: "Receipt", track: "Ɛwɔ he", cancelOrder: "Twa order no mu", returnItem: "Return", exchangeItem: "Exchange", notArrived: "Ɛmmaeɛ ɛ", refund: "Refund", refundText: "{price} bɛsan aba wo nkyɛn wɔ nnafua nnum mu.",
    lateText: "Yɛahyɛ no nsow sɛ order yi nnuruu wo nkyɛn. Yɛrehwehwɛ mu.", noOrdersYet: "Wonyaa order biara yɛeɛ.", noWishes: "Hwee nni wo wishlist no mu.",
    yourAddresses: "Baabi a yɛde bɛba", default: "Deɛ ɛdi kan", makeDefault: "Fa yei di kan", addAddress: "Fa address ka ho", addressLabel: "Edin", addressLine: "Address", noAddresses: "Address biara nni ha.",
    accountText: "Wo cart, wishlist ne orders da wo fon so wɔ ha nko ara.", orderUpdates: "Order ho nkra", priceAlerts: "Boɔ ho nkra", on: "Ɛwɔ so", off: "Ɛnni so", turnOn: "Sɔ", turnOff: "Dum",
    forget: "Pepa me nsɛm nyinaa firi fon yi so", helpText: "Wobɛtumi aka nsɛm yi bi, anaa woamia bɔtɔm biara.", chatText: "Obi bɛba abɛbua wo. Yei yɛ demo, enti obiara nte ha mprempren.", chatWait: "Yɛrefrɛ obi …", chatLabel: "Wo nsɛm", send: "Soma",
    heard: "Deɛ mete", heardNothing: "Mentee hwee ɛ.", intent: "Deɛ wopɛ", sure: "Sɛdeɛ megye di", slotsText: "Nsɛm a ɛka ho", wordsText: "Nsɛmfua", top: "Deɛ ɛbɛtumi ayɛ", where: "Ɛhe na wɔteeɛ", local: "Fon yi so", remote: "Server so", why: "Adɛn", device: "Afidie", sent: "Deɛ ɛkɔeɛ", bytes: "bytes {n}", time: "Berɛ", ms: "ms {n}", modelLoading: "Model no reba", modelCached: "Model no wɔ fon yi so dada",
    policy: "Ɛhe na wɔnte nne no", localOnly: "Fon yi so nko ara", localFirst: "Fon yi so, anaa server", remoteFirst: "Server, anaa fon yi so", remoteOnly: "Server nko ara", listening: "Sɛdeɛ ɛtie", push: "Mia na kasa", handsFree: "Tie daa", words: "Kyerɛw nsɛm a mekaeɛ no nso",
    yes: "Aane", no: "Daabi", sureClear: "Menyi nnoɔma nyinaa mfiri cart no mu?", sureCancel: "Mentwa order no mu?", sureReturn: "Wopɛ sɛ wosan de ba?", sureExchange: "Wopɛ sɛ wosesa?", sureAddress: "Menpopa address no?", surePlace: "Menpintim order no?", sureForget: "Menpepa nsɛm nyinaa?",
    micMissing: "Nne no nni ha mprempren. Mia bɔtɔm no: shop no yɛ adwuma.", noShop: "Shop no ammue. San bue page no.",
  },
  en: {
    shop: "Dwaso", skip: "Skip to the content",
    home: "Home", all: "All things", cart: "Cart", wishlist: "Wishlist", orders: "Orders", account: "My account", help: "Help",
    addresses: "Addresses", checkout: "Checkout", faqs: "Frequent questions", chat: "Talk to a person", order: "Order", list: "Things", product: "Product",
    menu: "Parts of the shop", find: "Search", findLabel: "Search the shop", findHint: "rice, phone, shoes …",
    voice: "Speak to the shop", undo: "Undo", hero: "What would you like? Just say it.",
    heroText: "Press the microphone and speak Twi or English: the shop understands, and does it. It works on this device, even without internet.",
    tryThese: "Try saying", categories: "Departments", deals: "Today's deals", newest: "New arrivals", seeAll: "See all",
    clothing: "Clothing", electronics: "Electronics", shoes: "Shoes", home_items: "For the home", groceries: "Groceries", gifts: "Gifts",
    filters: "Filter", sort: "Sort", sortNone: "As they come", popular: "Most popular", price_asc: "Cheapest first", price_desc: "Dearest first",
    rating_desc: "Best rated", low: "Low price", high: "High price", ratingHigh: "Highly rated", new: "New", cheap: "Cheap",
    discounts: "Discounted", flash_sale: "Flash sale", fast_delivery: "Fast delivery", clearFilters: "Remove filters", showMore: "Show more",
    nItems: "{n} things", nothing: "There is nothing like that here. Remove a filter, or search for something else.",
    price: "Price", was: "It was {price}", color: "Colour", size: "Size", quantity: "Quantity", brand: "Brand", fewer: "One fewer", more: "One more",
    add: "Add to cart", added: "{quantity} × {product} is in the cart.", save: "Save for later", unsave: "Take off the wishlist",
    alertMe: "Tell me when the price drops", alertStop: "Stop price alerts", description: "About it", reviews: "Reviews", similar: "Things like this",
    stars: "{n} of 5 stars", remove: "Remove", emptyCart: "The cart is empty.", goShopping: "Look around", clearCart: "Empty the cart",
    items: "Things", discount: "Discount", delivery: "Delivery", free: "Free", total: "Total", coupon: "Coupon", couponCode: "Coupon code", apply: "Apply", removeCoupon: "Take coupon off",
    demoCoupon: "Demo coupon: {code}", toCheckout: "Go to checkout", deliverTo: "Deliver to", payWith: "Pay", card: "Card", mobile_money: "Mobile money",
    place: "Place the order", payFirst: "Pay first, then place the order.", paid: "You pay by {method}. Place the order and we begin.", demoPay: "A demo: no money goes anywhere.",
    confirmed: "Confirmed", on_the_way: "On its way", delivered: "Delivered", cancelled: "Cancelled", returning: "Coming back", exchanging: "Being exchanged",
    receipt: "Receipt", track: "Where it is", cancelOrder: "Cancel the order", returnItem: "Return", exchangeItem: "Exchange", notArrived: "It has not come", refund: "Refund", refundText: "{price} comes back to you within five days.",
    lateText: "Noted: this order has not reached you. We are looking into it.", noOrdersYet: "You have no orders yet.", noWishes: "The wishlist is empty.",
    yourAddresses: "Where we deliver", default: "Default", makeDefault: "Make default", addAddress: "Add an address", addressLabel: "Name", addressLine: "Address", noAddresses: "There is no address.",
    accountText: "Your cart, wishlist and orders are kept on this device only.", orderUpdates: "Order updates", priceAlerts: "Price alerts", on: "On", off: "Off", turnOn: "Turn on", turnOff: "Turn off",
    forget: "Forget everything on this device", helpText: "You can say things like these, or press any button.", chatText: "A person will answer you here. This is a demo, so nobody sits there now.", chatWait: "Calling somebody …", chatLabel: "Your message", send: "Send",
    heard: "What was heard", heardNothing: "Nothing yet.", intent: "Meaning", sure: "How sure", slotsText: "Details", wordsText: "Words", top: "Could be", where: "Heard on", local: "This device", remote: "The server", why: "Why", device: "Computed by", sent: "Sent", bytes: "{n} bytes", time: "Time", ms: "{n} ms", modelLoading: "The model is coming", modelCached: "The model is on this device already",
    policy: "Where speech is heard", localOnly: "Only on this device", localFirst: "This device, else the server", remoteFirst: "The server, else this device", remoteOnly: "Only the server", listening: "Listening", push: "Press to speak", handsFree: "Hands free", words: "Write down my words too",
    yes: "Yes", no: "No", sureClear: "Take everything out of the cart?", sureCancel: "Cancel this order?", sureReturn: "Send it back?", sureExchange: "Exchange it?", sureAddress: "Remove this address?", surePlace: "Place this order?", sureForget: "Forget everything?",
    micMissing: "Voice is not here just now. The shop works by touch.", noShop: "The shop did not open. Please load the page again.",
  },
};

export const LANGUAGES = Object.keys(TEXTS);
export const textKeys = (language) => Object.keys(TEXTS[language]);

/** Fills `{name}` with what `values` has; what it lacks is left out. */
export const fill = (template, values = {}) =>
  template.replace(/\{(\w+)\}/g, (_, name) => (Object.hasOwn(values, name) ? String(values[name]) : ""));

/** A text of the pages. A missing one shows its key, which a test forbids. */
export const text = (language, key, values) => fill(TEXTS[language][key] ?? key, values);

/** Whole cedis without pesewas, as on a price tag. */
export const money = (amount) => `GH₵ ${Number.isInteger(amount) ? amount.toLocaleString("en") : amount.toFixed(2)}`;
