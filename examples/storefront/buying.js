// From the shelf to the till: choosing, the cart, the wishlist, coupons, addresses, checkout. Handlers of `state.js`.

import { MAX_QUANTITY, SIZES, findColor, sums, wholeNumber } from "./finding.js";
import { SETTLED, UNDO, answer, isPaid, keyOf, lineMeant, open, productMeant, productOf, replaceLine, showing } from "./steps.js";

export const DEMO_COUPON = { code: "AKWAABA10", percent: 10 };
const DEMO_ADDRESSES = [
  { label: "Adwuma", line: "4 Harper Road, Adum, Kumasi" },
  { label: "Maame fie", line: "GW-0123-4567, Market Circle, Takoradi" },
];
const METHODS = ["card", "mobile_money"];

const isNamed = (slots) => slots.product !== undefined || slots.line !== undefined;
const whyNoLine = (state, slots) =>
  answer(state, state.cart.length === 0 ? "cartEmpty" : isNamed(slots) || state.view.name === "product" ? "notInCart" : "whichProduct");
const cartView = (state) => open(state, { name: "cart" });

function addToCart(state, slots) {
  const { product, why, values } = productMeant(state, slots);
  if (!product) return answer(state, why, values);
  const { view } = state;
  const onPage = view.name === "product" && view.product === product.id;
  const asked = slots.quantity === undefined ? (onPage ? view.quantity : 1) : wholeNumber(slots.quantity);
  if (asked === undefined || asked < 1) return answer(state, "badQuantity");
  const color = findColor(product, slots.color) ?? (onPage ? view.color : null) ?? product.colors[0] ?? null;
  const size = [slots.size, onPage && view.size, product.sizes.includes("medium") && "medium", product.sizes[0]]
    .find((each) => product.sizes.includes(each)) ?? null;
  const line = { product: product.id, color, size, quantity: Math.min(asked, MAX_QUANTITY) };
  const there = state.cart.find((each) => keyOf(each) === keyOf(line));
  if (there?.quantity === MAX_QUANTITY) return answer(state, "mostReached", { product: product.id, quantity: MAX_QUANTITY });
  const quantity = Math.min(MAX_QUANTITY, (there?.quantity ?? 0) + line.quantity);
  const cart = there
    ? state.cart.map((each) => (each === there ? { ...there, quantity } : each))
    : [...state.cart, line];
  const capped = (there?.quantity ?? 0) + asked > MAX_QUANTITY;
  const said = { product: product.id, quantity: capped ? MAX_QUANTITY : asked };
  return answer({ ...state, cart, lastLine: keyOf(line) }, capped ? "mostReached" : "added", said, UNDO);
}

function removeFromCart(state, slots) {
  const line = lineMeant(state, slots);
  if (!line) return whyNoLine(state, slots);
  return answer(replaceLine(state, line, undefined), "removed", { product: line.product }, UNDO);
}

/** Sets how many: of the line that is meant, or of the page that is open if its product is not in the cart yet. */
function setTo(state, slots, next) {
  const line = lineMeant(state, slots);
  const onPage = state.view.name === "product" && !isNamed(slots);
  if (!line && !onPage) return whyNoLine(state, slots);
  const wanted = next(line?.quantity ?? state.view.quantity);
  const quantity = Math.min(MAX_QUANTITY, wanted);
  const product = line?.product ?? state.view.product;
  if (quantity < 1) {
    if (!line) return answer(state, "atLeastOne");
    return answer(replaceLine(state, line, undefined), "removed", { product }, UNDO);
  }
  const changed = line ? replaceLine(state, line, { ...line, quantity }) : state;
  const key = wanted > MAX_QUANTITY ? "mostReached" : "quantityIs";
  return answer(onPage ? showing(changed, { quantity }) : changed, key, { product, quantity }, UNDO);
}

function setQuantity(state, slots) {
  if (slots.quantity === undefined) return answer(state, "askQuantity");
  const quantity = wholeNumber(slots.quantity);
  return quantity === undefined || quantity < 1 ? answer(state, "badQuantity") : setTo(state, slots, () => quantity);
}

function changeQuantity(state, slots) {
  const delta = slots.delta === undefined ? 1 : wholeNumber(slots.delta);
  return delta === undefined || delta === 0 ? answer(state, "badQuantity") : setTo(state, slots, (now) => now + delta);
}

/** Chooses a colour or a size: on the open page, else of the line touched last. */
function choose(state, slots, { trait, list, keys, find, change }) {
  const onPage = state.view.name === "product" && !isNamed(slots);
  const line = onPage ? undefined : lineMeant(state, slots);
  if (!onPage && !line) return whyNoLine(state, slots);
  const product = productOf(state, line?.product ?? state.view.product);
  const there = product[list];
  const now = (line ?? state.view)[trait];
  if (there.length === 0) return answer(state, keys.none, { product: product.id });
  const asked = slots[trait] !== undefined;
  // "Change the size" without a size goes to the next one; "choose a size" without a size asks which.
  if (!asked && !change) return answer(state, keys.ask, { [list]: there });
  const next = asked ? find(product, slots[trait]) : there[(there.indexOf(now) + 1) % there.length];
  if (next === undefined) return answer(state, keys.missing, { [list]: there });
  const said = { product: product.id, [trait]: next };
  if (line) return answer(replaceLine(state, line, { ...line, [trait]: next }, MAX_QUANTITY), keys.chosen, said, UNDO);
  return answer(showing(state, { [trait]: next }), keys.chosen, said, UNDO);
}

const COLOR = {
  trait: "color", list: "colors", find: findColor,
  keys: { none: "noColors", ask: "askColor", missing: "colorMissing", chosen: "colorIs" },
};
const SIZE = {
  trait: "size", list: "sizes",
  find: (product, asked) => (SIZES.includes(asked) && product.sizes.includes(asked) ? asked : undefined),
  keys: { none: "noSizes", ask: "askSize", missing: "sizeMissing", chosen: "sizeIs" },
};

/** Keeps for later. From the cart it moves: what is kept for later is not bought now. */
function saveForLater(state, slots) {
  const line = state.view.name === "cart" ? lineMeant(state, slots) : undefined;
  const { product, why, values } = line ? { product: productOf(state, line.product) } : productMeant(state, slots);
  if (!product) return answer(state, state.view.name === "cart" ? "cartEmpty" : why, values);
  const said = { product: product.id };
  const saved = state.wishlist.includes(product.id);
  if (slots.off) return answer({ ...state, wishlist: state.wishlist.filter((id) => id !== product.id) }, "unsaved", said, UNDO);
  if (saved && !line) return answer(state, "alreadySaved", said);
  const next = line ? replaceLine(state, line, undefined) : state;
  return answer({ ...next, wishlist: saved ? state.wishlist : [...state.wishlist, product.id] }, "saved", said, UNDO);
}

function applyCoupon(state, slots) {
  const asked = slots.coupon === undefined ? DEMO_COUPON.code : String(slots.coupon).trim().toUpperCase();
  if (asked !== DEMO_COUPON.code) return answer(state, "couponUnknown");
  if (state.coupon) return answer(state, "couponAlready", state.coupon);
  if (state.cart.length === 0) return answer(state, "cartEmpty");
  const here = ["cart", "checkout"].includes(state.view.name) ? state : cartView(state);
  return answer({ ...here, coupon: DEMO_COUPON }, "couponOn", DEMO_COUPON, UNDO);
}

const addressesView = (state) => open(state, { name: "addresses" });

function addAddress(state, slots) {
  const typed = typeof slots.address_line === "string" && slots.address_line.trim();
  const free = DEMO_ADDRESSES.find(({ line }) => state.addresses.every((each) => each.line !== line));
  const place = typed ? { label: String(slots.label ?? "").trim() || "Address", line: typed } : free;
  if (!place) return answer(addressesView(state), "askAddress");
  // One more than the largest number so far: ids of removed ones are not used again while others stand.
  const id = `a${1 + Math.max(0, ...state.addresses.map((each) => Number(each.id.slice(1)) || 0))}`;
  const next = { ...state, addresses: [...state.addresses, { id, ...place }], defaultAddress: state.defaultAddress ?? id };
  return answer(addressesView(next), "addressAdded", { address: place.label }, UNDO);
}

function removeAddress(state, slots) {
  const address = slots.address === undefined ? state.addresses.at(-1) : state.addresses.find(({ id }) => id === slots.address);
  if (!address) return answer(addressesView(state), "noAddress");
  const addresses = state.addresses.filter((each) => each !== address);
  const defaultAddress = state.defaultAddress === address.id ? (addresses[0]?.id ?? null) : state.defaultAddress;
  return answer(addressesView({ ...state, addresses, defaultAddress }), "addressRemoved", { address: address.label }, UNDO);
}

function setDefaultAddress(state, slots) {
  const at = state.addresses.findIndex(({ id }) => id === state.defaultAddress);
  const address = slots.address === undefined
    ? state.addresses[(at + 1) % Math.max(1, state.addresses.length)]
    : state.addresses.find(({ id }) => id === slots.address);
  if (!address) return answer(addressesView(state), "noAddress");
  const said = { address: address.label };
  if (address.id === state.defaultAddress) return answer(addressesView(state), "defaultAlready", said);
  return answer(addressesView({ ...state, defaultAddress: address.id }), "defaultIs", said, UNDO);
}

const checkoutView = (state) => open(state, { name: "checkout" });

function checkout(state) {
  if (state.cart.length === 0) return answer(cartView(state), "cartEmpty");
  return answer(checkoutView(state), "checkout", { total: sums(state.products, state.cart, state.coupon).total });
}

function makePayment(state, slots) {
  if (state.cart.length === 0) return answer(cartView(state), "cartEmpty");
  const method = METHODS.includes(slots.payment_method) ? slots.payment_method : state.payment?.method;
  if (!method) return answer(checkoutView(state), "askPayment");
  const { total } = sums(state.products, state.cart, state.coupon);
  return answer(checkoutView({ ...state, payment: { method, total } }), "paymentReady", { method, total }, UNDO);
}

function confirmOrder(state, slots, at) {
  if (state.cart.length === 0) return answer(cartView(state), "cartEmpty");
  const address = state.addresses.find(({ id }) => id === state.defaultAddress);
  if (!address) return answer(addressesView(state), "askAddress");
  if (!isPaid(state)) return answer(checkoutView(state), "askPayment");
  const order = {
    id: `OK-${state.serial}`,
    lines: state.cart.map((line) => ({ ...line, price: productOf(state, line.product).price })),
    sums: sums(state.products, state.cart, state.coupon),
    address, payment: state.payment, status: "confirmed", at, late: false, refund: null,
  };
  const bought = {
    ...state, orders: [order, ...state.orders], serial: state.serial + 1, cart: [], lastLine: null, coupon: null, payment: null,
  };
  // From here no step leads back to a checkout that is done.
  const next = { ...open(bought, { name: "order", order: order.id, section: null }), trail: [{ name: "home" }], ahead: [] };
  return answer(next, "ordered", { order: order.id, total: order.sums.total }, SETTLED);
}

export const buying = {
  add_to_cart: addToCart,
  remove_from_cart: removeFromCart,
  set_quantity: setQuantity,
  change_quantity: changeQuantity,
  clear_cart: (state) =>
    state.cart.length === 0
      ? answer(state, "cartEmpty")
      : answer({ ...state, cart: [], lastLine: null, coupon: null, payment: null }, "cartCleared", {}, UNDO),
  show_cart: (state) => {
    const n = state.cart.reduce((sum, { quantity }) => sum + quantity, 0);
    return n === 0
      ? answer(cartView(state), "cartEmpty")
      : answer(cartView(state), "cart", { n, total: sums(state.products, state.cart, state.coupon).total });
  },
  select_color: (state, slots) => choose(state, slots, { ...COLOR, change: false }),
  change_color: (state, slots) => choose(state, slots, { ...COLOR, change: true }),
  select_size: (state, slots) => choose(state, slots, { ...SIZE, change: false }),
  change_size: (state, slots) => choose(state, slots, { ...SIZE, change: true }),
  save_for_later: saveForLater,
  open_wishlist: (state) =>
    answer(open(state, { name: "wishlist" }), state.wishlist.length === 0 ? "wishlistEmpty" : "wishlist", { n: state.wishlist.length }),
  apply_coupon: applyCoupon,
  remove_coupon: (state) =>
    state.coupon ? answer({ ...state, coupon: null }, "couponOff", {}, UNDO) : answer(state, "noCoupon"),
  add_address: addAddress,
  remove_address: removeAddress,
  set_default_address: setDefaultAddress,
  show_addresses: (state) => answer(addressesView(state), state.addresses.length ? "addresses" : "noAddress", { n: state.addresses.length }),
  checkout,
  make_payment: makePayment,
  confirm_order: confirmOrder,
};
