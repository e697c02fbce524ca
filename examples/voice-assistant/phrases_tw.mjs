// What the assistant says, in Twi. Written without a native speaker at hand; please read and mend.

/**
 * What each command does, to stand in "shall I …?" and "I will …". A verb after the first takes an a- once the first is
 * in the future; ~ marks where: "me|fa adeɛ yi to cart no mu", but "mɛ|fa adeɛ yi ato cart no mu".
 */
export const PHRASES = {
  add_address: "fa address foforɔ ~ka ho", add_to_cart: "fa adeɛ yi ~to cart no mu", apply_coupon: "fa coupon no ~di dwuma",
  apply_filter: "fa filter no ~to so", cancel_order: "twa order no mu", change_color: "sesa ahosuo no", change_quantity: "sesa dodow no",
  change_size: "sesa size no", checkout: "kɔ checkout", clear_cart: "pepa cart no mu nnoɔma nyinaa", clear_filter: "yi filter no ~firi hɔ",
  confirm_order: "pintim order no", continue: "kɔ so", disable_order_updates: "gyae order ho nkra", disable_price_alert: "gyae boɔ ho nkra",
  enable_order_updates: "de order ho nkra ~brɛ wo", enable_price_alert: "de boɔ ho nkra ~brɛ wo", exchange_item: "sesa adeɛ a wotɔeɛ no",
  go_back: "san ~kɔ akyi", go_home: "kɔ fie", help: "boa wo", make_payment: "tua ka no", open_account: "bue wo account",
  open_orders: "bue wo orders", open_wishlist: "bue wo wishlist", order_not_arrived: "hwɛ deɛ nti a order no mmaeɛ",
  refund_status: "hwɛ wo refund no", remove_address: "yi address no ~firi hɔ", remove_coupon: "yi coupon no ~firi hɔ",
  remove_from_cart: "yi adeɛ yi ~firi cart no mu", return_item: "san de adeɛ no ~kɔ", save_for_later: "sie adeɛ yi ~ma akyire",
  search: "hwehwɛ adeɛ no", select_color: "paw ahosuo no", select_size: "paw size no", set_default_address: "fa address yi ~yɛ deɛ ɛdi kan",
  set_quantity: "hyɛ dodow no", show_addresses: "kyerɛ wo wo addresses", show_cart: "kyerɛ wo cart no", show_description: "ka adeɛ no ho nsɛm ~kyerɛ wo",
  show_faqs: "kyerɛ wo nsɛm a nkurɔfoɔ bisa", show_order_status: "hwɛ sɛdeɛ order no te", show_orders: "kyerɛ wo wo orders",
  show_price: "ka ne boɔ ~kyerɛ wo", show_reviews: "kyerɛ wo deɛ nkurɔfoɔ ka", show_similar_items: "kyerɛ wo nnoɔma a ɛte sɛ yei",
  sort_items: "hyehyɛ nnoɔma no", start_live_chat: "ma wo ne obi ~kasa", track_order: "hwɛ baabi a order no wɔ",
};

const now = (what) => `me${what.replaceAll("~", "")}`;
const future = (what) => `mɛ${what.replaceAll("~", "a")}`;

export const ASK = {
  act: (what) => `Yoo, ${future(what)}.`,
  confirm: (what) => `Wopɛ sɛ ${now(what)}? Ka aane anaa daabi.`,
  choose: (one, other) => `Deɛ ɛwɔ he na wopɛ: ${now(one)}, anaa ${now(other)}?`,
  drop: "Yoo, menyɛ.",
  again: "Mepa wo kyɛw, mante aseɛ. San ka bio.",
  silence: "Mante hwee. Kasa bio.",
  person: "Mepa wo kyɛw, mɛma obi akasa akyerɛ wo.",
};
