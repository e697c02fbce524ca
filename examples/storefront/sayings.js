// What the shop answers to a command: one sentence a key, in Twi and English. The keys are those of `state.js`.

import { fill, money, text } from "./texts.js";

export const SAYINGS = {
  notKnown: ["Mente saa asɛm no ase.", "I do not know that command."],
  // looking
  home: ["Yɛaba fie.", "Home."],
  askSearch: ["Wohwehwɛ deɛn? Ka anaa kyerɛw.", "What are you looking for? Say it or type it."],
  found: ["Mahunu nnoɔma {n}.", "{n} things found."],
  foundOne: ["{product} nie.", "Here is {product}."],
  foundNone: ["Manhunu biribiara a ɛte saa.", "Nothing like that was found."],
  askFilter: ["Filter bɛn? Paw baako.", "Which filter? Choose one."],
  filtered: ["Nnoɔma {n} na aka.", "{n} things are left."],
  filtersCleared: ["Mayi filter no.", "The filter is off."],
  noFilter: ["Filter biara nni so.", "No filter is set."],
  askSort: ["Menhyehyɛ no sɛn? Paw baako.", "Sorted how? Choose one."],
  sorted: ["Mahyehyɛ no: {sort}.", "Sorted: {sort}."],
  shownMore: ["Ebi nie.", "Here are more."],
  wentBack: ["Yɛasan aba {view}.", "Back: {view}."],
  wentOn: ["Yɛakɔ so: {view}.", "On: {view}."],
  noBack: ["Yɛntumi nsan nkɔ akyi bio.", "There is nothing to go back to."],
  noNext: ["Baabiara nni hɔ a yɛbɛkɔ so akɔ.", "There is nothing further on from here."],
  pageIs: ["Yei yɛ {view} page no.", "This page is: {view}."],
  // a product
  whichProduct: ["Adeɛ bɛn? Bue bi anaa ka ne din.", "Which product? Open one or say its name."],
  unknownProduct: ["Yɛnni “{asked}”.", "We do not have “{asked}”."],
  description: ["{product} ho nsɛm nie.", "About {product}."],
  price: ["{product} boɔ yɛ {price}.", "{product} costs {price}."],
  reviews: ["{product}: nsoroma {rating}, nkurɔfoɔ {n} akyerɛw.", "{product}: {rating} stars, {n} reviews."],
  similar: ["Nnoɔma {n} a ɛte sɛ {product}.", "{n} things like {product}."],
  askColor: ["Ahosuo bɛn? Yɛwɔ {colors}.", "Which colour? There is {colors}."],
  colorIs: ["{product}: {color}.", "{product}: {color}."],
  colorMissing: ["Saa ahosuo no nni hɔ. Yɛwɔ {colors}.", "Not in that colour. There is {colors}."],
  noColors: ["{product} nni ahosuo ahodoɔ.", "{product} comes in one colour only."],
  askSize: ["Size bɛn? Yɛwɔ {sizes}.", "Which size? There is {sizes}."],
  sizeIs: ["{product}: {size}.", "{product}: {size}."],
  sizeMissing: ["Saa size no nni hɔ. Yɛwɔ {sizes}.", "Not in that size. There is {sizes}."],
  noSizes: ["{product} nni size ahodoɔ.", "{product} has no sizes."],
  // the cart
  cart: ["Nnoɔma {n} wɔ cart no mu: {total}.", "{n} in the cart: {total}."],
  cartEmpty: ["Hwee nni cart no mu.", "The cart is empty."],
  added: ["{product} {quantity} akɔ cart no mu.", "{quantity} × {product} put in the cart."],
  removed: ["Mayi {product} afiri cart no mu.", "{product} taken out of the cart."],
  notInCart: ["Ɛno nni cart no mu.", "That is not in the cart."],
  cartCleared: ["Mayi biribiara afiri cart no mu.", "The cart is empty now."],
  askQuantity: ["Ahe? Ka dodow no.", "How many? Say a number."],
  badQuantity: ["Mante dodow no. Ka number a ɛfiri baako.", "That is no number I can use. Say one or more."],
  atLeastOne: ["Dodow no ntumi nsua nkyɛn baako.", "It cannot be fewer than one."],
  quantityIs: ["{product}: {quantity}.", "{product}: {quantity}."],
  mostReached: ["{product} {quantity} na ɛdɔɔso paa.", "{quantity} × {product} is the most there can be."],
  saved: ["Masie {product} ama wo wɔ wishlist no mu.", "{product} is on the wishlist."],
  unsaved: ["Mayi {product} afiri wishlist no mu.", "{product} is off the wishlist."],
  alreadySaved: ["{product} wɔ wishlist no mu dada.", "{product} is on the wishlist already."],
  wishlist: ["Nnoɔma {n} wɔ wo wishlist no mu.", "{n} on your wishlist."],
  wishlistEmpty: ["Hwee nni wo wishlist no mu.", "The wishlist is empty."],
  couponOn: ["Coupon {code} ate boɔ no so {percent}%.", "Coupon {code} takes {percent}% off."],
  couponOff: ["Mayi coupon no.", "The coupon is off."],
  couponUnknown: ["Mennim saa coupon no.", "I do not know that coupon."],
  couponAlready: ["Coupon {code} wɔ so dada.", "Coupon {code} is on already."],
  noCoupon: ["Coupon biara nni so.", "There is no coupon on."],
  // addresses, paying
  addresses: ["Wo addresses {n} nie.", "Your {n} addresses."],
  noAddress: ["Saa address no nni ha.", "There is no such address."],
  askAddress: ["Kyerɛw address a yɛmfa mmra.", "Type an address to deliver to."],
  addressAdded: ["Mede {address} aka ho.", "{address} added."],
  addressRemoved: ["Mapopa {address}.", "{address} removed."],
  defaultIs: ["{address} na ɛdi kan seesei.", "{address} is the default now."],
  defaultAlready: ["{address} na ɛdi kan dada.", "{address} is the default already."],
  checkout: ["Checkout: ne nyinaa yɛ {total}.", "Checkout: {total} in all."],
  askPayment: ["Wode card anaa mobile money bɛtua?", "Pay by card or mobile money?"],
  paymentReady: ["Wode {method} retua {total}. Pintim order no.", "{total} by {method}. Now place the order."],
  nextPay: ["Tua ansa: card anaa mobile money.", "Pay first: card or mobile money."],
  nextConfirm: ["Ka sɛ “pintim order no” na yɛabɔ aseɛ.", "Say “confirm the order” to finish."],
  ordered: ["Medaase! Order {order}, {total}, yɛagye.", "Thank you! Order {order}, {total}, is placed."],
  // orders
  orders: ["Wo orders nie.", "Your orders."],
  ordersListed: ["Woayɛ orders {n}.", "You have {n} orders."],
  noOrders: ["Order biara nni hɔ.", "There is no such order."],
  orderStatus: ["Order {order}: {status}.", "Order {order}: {status}."],
  orderTracked: ["Order {order}: {status}.", "Order {order}: {status}."],
  lateNoted: ["Kosɛ. Yɛrehwehwɛ order {order} mu.", "Sorry. We are looking into order {order}."],
  lateAlready: ["Yɛnim dada: yɛrehwehwɛ order {order} mu.", "We know already: order {order} is being looked for."],
  orderCancelled: ["Matwa order {order} mu. {total} bɛsan aba.", "Order {order} is cancelled. {total} comes back."],
  cannotCancel: ["Order {order} ntumi ntwa mu: {status}.", "Order {order} cannot be cancelled: {status}."],
  itemReturned: ["Yɛbɛba abɛfa order {order}. {total} bɛsan aba.", "We will fetch order {order}. {total} comes back."],
  cannotReturn: ["Order {order} ntumi nsan mma: {status}.", "Order {order} cannot be returned: {status}."],
  itemExchanged: ["Yɛbɛsesa order {order} ama wo.", "Order {order} will be exchanged."],
  cannotExchange: ["Yɛntumi nsesa order {order}: {status}.", "Order {order} cannot be exchanged: {status}."],
  refundAsked: ["Order {order}: {amount} reba wo nkyɛn.", "Order {order}: {amount} is on its way to you."],
  noRefund: ["Refund biara nni hɔ.", "There is no refund."],
  // account, help
  account: ["Wo account nie.", "Your account."],
  help: ["Deɛ wobɛtumi aka nie.", "Here is what you can say."],
  faqs: ["Nsɛm a wɔbisa daa nie.", "Frequent questions."],
  chat: ["Obi bɛba abɛbua wo.", "A person will answer you."],
  alertOn: ["{product} boɔ te so a, mɛka akyerɛ wo.", "I will tell you when {product} gets cheaper."],
  alertOnAll: ["Boɔ biara te so a, mɛka akyerɛ wo.", "I will tell you when prices drop."],
  alertAlreadyOn: ["Boɔ ho nkra wɔ so dada.", "Price alerts are on already."],
  alertOff: ["Magyae {product} boɔ ho nkra.", "No more price alerts for {product}."],
  alertsOff: ["Magyae boɔ ho nkra nyinaa.", "All price alerts are off."],
  alertAlreadyOff: ["Boɔ ho nkra nni so.", "Price alerts are off already."],
  updatesOn: ["Mɛbɔ wo order ho amaneɛ.", "Order updates are on."],
  updatesOff: ["Magyae order ho nkra.", "Order updates are off."],
  updatesAlreadyOn: ["Order ho nkra wɔ so dada.", "Order updates are on already."],
  updatesAlreadyOff: ["Order ho nkra nni so dada.", "Order updates are off already."],
  undone: ["Masan ayi deɛ yɛyɛeɛ no.", "Taken back."],
  nothingToUndo: ["Hwee nni hɔ a yɛbɛsan ayi.", "There is nothing to take back."],
  // of the voice itself
  no_speech: ["Mante hwee. San ka.", "I heard nothing. Say it again."],
  out_of_scope: ["Ɛno nyɛ shop asɛm.", "That is not something the shop can do."],
  ambiguous: ["Mente ase yie. San ka no kwan foforɔ so.", "That could be two things. Say it another way."],
  low_confidence: ["Mante no yie. San ka brɛoo.", "I am not sure what you said. Say it again slowly."],
  voiceMissing: ["Nne no nni ha mprempren. Mia bɔtɔm no.", "Voice is not here just now. Use the buttons."],
  voiceError: ["Nne no anyɛ yie. Mia bɔtɔm no, anaa san hwɛ.", "The voice failed. Use the buttons, or try again."],
  forgotten: ["Mapepa ne nyinaa.", "All is forgotten."],
};

const COLORS = {
  black: "tuntum", white: "fitaa", red: "kɔkɔɔ", blue: "bruu", green: "ahabanmono", yellow: "akokɔsradeɛ", brown: "dodoeɛ",
  grey: "nsonso", gold: "sika kɔkɔɔ", silver: "dwetɛ", purple: "beredum",
};
const SIZE_NAMES = {
  tw: { xsmall: "ketewa paa", small: "ketewa", medium: "mfinimfini", large: "kɛseɛ", xlarge: "kɛseɛ paa" },
  en: { xsmall: "extra small", small: "small", medium: "medium", large: "large", xlarge: "extra large" },
};

export const colorName = (language, color) => (language === "tw" ? (COLORS[color] ?? color) : color);
export const sizeName = (language, size) => SIZE_NAMES[language][size] ?? size;

/** How a value is said. */
const SPOKEN = {
  product: (language, id, products) => products.find((product) => product.id === id)?.name[language] ?? id,
  color: colorName,
  size: sizeName,
  colors: (language, list) => list.map((color) => colorName(language, color)).join(", "),
  sizes: (language, list) => list.map((size) => sizeName(language, size)).join(", "),
  price: (_, amount) => money(amount),
  total: (_, amount) => money(amount),
  amount: (_, amount) => money(amount),
  view: text, sort: (language, key) => text(language, key), method: text, status: text,
};

/** The sentence for `say` of `act`. */
export function sentence(language, { key, values = {} }, products = []) {
  const [tw, en] = SAYINGS[key] ?? [key, key];
  const spoken = Object.entries(values).map(([name, value]) =>
    [name, Object.hasOwn(SPOKEN, name) ? SPOKEN[name](language, value, products) : value]);
  return fill(language === "tw" ? tw : en, Object.fromEntries(spoken));
}
