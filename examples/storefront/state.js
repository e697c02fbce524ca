// The shop as a pure state: no DOM, no clock, no network. A touch and a spoken command both become
// `act(state, {intent, slots})`, so that they cannot come to do different things.
//
// Read next: `steps.js` (the small steps), `buying.js` and `ordering.js` (the rest of the 49 intents), `finding.js`.

import { buying } from "./buying.js";
import { CATEGORIES, PAGE_SIZE, QUALIFIERS, SIZES, SORT_KEYS, findCategory, findProduct, listed, plain, similar } from "./finding.js";
import { DEMO_ORDERS, ordering } from "./ordering.js";
import { UNDO, answer, isPaid, open, openProduct, productMeant, readSlots, shown, showing } from "./steps.js";

const MAX_PAST = 20;
const HOME = { name: "home" };
const ALL = { name: "list", query: {}, filters: {}, sort: null, pages: 1 };

/** A customer who was here before: one order on its way, one that has come, one address. */
export function initialState(products) {
  return {
    products,
    view: HOME,
    trail: [], // views to go back to
    ahead: [], // views that were gone back from
    cart: [], // {product, color, size, quantity}
    lastLine: null, // the line that "one more" means
    coupon: null,
    wishlist: [],
    addresses: [{ id: "a1", label: "Fie", line: "12 Oxford Street, Osu, Accra" }],
    defaultAddress: "a1",
    payment: null,
    orders: DEMO_ORDERS.filter(({ lines }) => lines.every((line) => products.some(({ id }) => id === line.product))),
    serial: 1003, // of the next order
    orderUpdates: true,
    priceAlerts: { all: false, products: [] },
  };
}

/** Of the asked-for words, those that are values of the slot; undefined for what no filter knows. */
const oneOf = (known, value) => (known.includes(value) ? value : undefined);

/** What a search asks for, and the words of it that nothing in the shop is called by. */
function readQuery(state, slots) {
  const query = {};
  const typed = [slots.text].filter((text) => plain(text));
  for (const [slot, known] of [["category", Object.keys(CATEGORIES)], ["size", SIZES]]) {
    if (slots[slot] === undefined) continue;
    if (known.includes(slots[slot])) query[slot] = slots[slot];
    else typed.push(slots[slot]);
  }
  if (slots.brand !== undefined && plain(slots.brand)) query.brand = String(slots.brand);
  if (slots.color !== undefined && plain(slots.color)) query.color = plain(slots.color);
  if (slots.product !== undefined && plain(slots.product)) {
    const category = findCategory(slots.product);
    const product = category ? undefined : findProduct(state.products, slots.product);
    if (category) query.category ??= category;
    else if (product) query.product = product.id;
    else typed.push(slots.product);
  }
  if (typed.length > 0) query.text = typed.join(" ").slice(0, 100);
  return query;
}

function search(state, slots) {
  const query = readQuery(state, slots);
  const qualifier = oneOf(QUALIFIERS, slots.qualifier);
  if (Object.keys(query).length === 0 && !qualifier) return answer(open(state, ALL), "askSearch");
  const view = { ...ALL, query, filters: qualifier ? { qualifier } : {} };
  const found = listed(state.products, view);
  // One find is opened: whoever asks for rice wants to see the rice, not a list of it.
  if (found.length === 1) return answer(openProduct(state, found[0]), "foundOne", { product: found[0].id });
  return answer(open(state, view), found.length === 0 ? "foundNone" : "found", { n: found.length });
}

/** The list to filter or sort: the open one, or all there is. */
const listOf = (state) => (state.view.name === "list" ? state : open(state, ALL));

function applyFilter(state, slots) {
  const asked = {
    price_range: oneOf(["low", "high"], slots.price_range),
    rating: oneOf(["high"], slots.rating),
    qualifier: oneOf(QUALIFIERS, slots.qualifier),
  };
  const filters = Object.fromEntries(Object.entries(asked).filter(([, value]) => value !== undefined));
  const list = listOf(state);
  if (Object.keys(filters).length === 0) return answer(list, "askFilter");
  const next = showing(list, { filters: { ...list.view.filters, ...filters }, pages: 1 });
  const n = listed(next.products, next.view).length;
  return answer(next, n === 0 ? "foundNone" : "filtered", { n });
}

function clearFilter(state, slots) {
  if (state.view.name !== "list" || Object.keys(state.view.filters).length === 0) return answer(state, "noFilter");
  const { [slots.filter]: _, ...others } = state.view.filters;
  return answer(showing(state, { filters: slots.filter ? others : {}, pages: 1 }), "filtersCleared");
}

function sortItems(state, slots) {
  const sort = oneOf(SORT_KEYS, slots.sort_key);
  if (!sort) return answer(listOf(state), "askSort");
  return answer(showing(listOf(state), { sort, pages: 1 }), "sorted", { sort });
}

/** Opens a section of a product's page and says its gist. */
const section = (name, key, valuesOf) => (state, slots) => {
  const { product, why, values } = productMeant(state, slots);
  if (!product) return answer(state, why, values);
  return answer(openProduct(state, product, name), key, { product: product.id, ...valuesOf(product, state) });
};

const describeProduct = section("description", "description", () => ({}));

function showDescription(state, slots) {
  if (slots.context === "order_details" || slots.context === "receipt") {
    return ordering.show_order_status(state, slots);
  }
  const aboutPage = slots.product === undefined && !shown(state);
  return aboutPage && slots.context === "page" ? answer(state, "pageIs", { view: state.view.name }) : describeProduct(state, slots);
}

function goBack(state) {
  if (state.trail.length === 0) return answer(state, "noBack");
  const view = state.trail.at(-1);
  return answer({ ...state, view, trail: state.trail.slice(0, -1), ahead: [...state.ahead, state.view] }, "wentBack", { view: view.name });
}

/** Goes on: to where one came back from, or the next step of buying, or more of the list. It never pays or orders. */
function goOn(state, slots, at) {
  if (state.ahead.length > 0) {
    const view = state.ahead.at(-1);
    const next = { ...state, view, trail: [...state.trail, state.view], ahead: state.ahead.slice(0, -1) };
    return answer(next, "wentOn", { view: view.name });
  }
  const { view } = state;
  if (view.name === "cart") return buying.checkout(state, slots, at);
  if (view.name === "checkout") return answer(state, isPaid(state) ? "nextConfirm" : "nextPay");
  if (view.name === "home") return answer(open(state, ALL), "found", { n: state.products.length });
  if (view.name === "list" && listed(state.products, view).length > view.pages * PAGE_SIZE) {
    return answer(showing(state, { pages: view.pages + 1 }), "shownMore");
  }
  return answer(state, "noNext");
}

function enablePriceAlert(state, slots) {
  const { product } = productMeant(state, slots);
  const { all, products } = state.priceAlerts;
  if (product ? products.includes(product.id) : all) return answer(state, "alertAlreadyOn");
  if (!product) return answer({ ...state, priceAlerts: { all: true, products } }, "alertOnAll", {}, UNDO);
  return answer({ ...state, priceAlerts: { all, products: [...products, product.id] } }, "alertOn", { product: product.id }, UNDO);
}

function disablePriceAlert(state, slots) {
  const { product } = productMeant(state, slots);
  const { all, products } = state.priceAlerts;
  if (!all && products.length === 0) return answer(state, "alertAlreadyOff");
  if (product && products.includes(product.id)) {
    const left = products.filter((id) => id !== product.id);
    return answer({ ...state, priceAlerts: { all, products: left } }, "alertOff", { product: product.id }, UNDO);
  }
  return answer({ ...state, priceAlerts: { all: false, products: [] } }, "alertsOff", {}, UNDO);
}

const orderUpdates = (on) => (state) => {
  if (state.orderUpdates === on) return answer(state, on ? "updatesAlreadyOn" : "updatesAlreadyOff");
  return answer({ ...state, orderUpdates: on }, on ? "updatesOn" : "updatesOff", {}, UNDO);
};

const goTo = (view, key) => (state) => answer(open(state, view), key);

/** One handler an intent, (state, slots, at) → answer. `test/state.test.js` holds these to the 49 of core/data/intents.json. */
export const HANDLERS = {
  ...buying,
  ...ordering,
  search,
  apply_filter: applyFilter,
  clear_filter: clearFilter,
  sort_items: sortItems,
  show_description: showDescription,
  show_price: section("price", "price", ({ price }) => ({ price })),
  show_reviews: section("reviews", "reviews", ({ rating, reviews }) => ({ rating, n: reviews.length })),
  show_similar_items: section("similar", "similar", (product, { products }) => ({ n: similar(products, product).length })),
  go_home: (state) => answer(open(state, HOME), "home"),
  go_back: goBack,
  continue: goOn,
  enable_price_alert: enablePriceAlert,
  disable_price_alert: disablePriceAlert,
  enable_order_updates: orderUpdates(true),
  disable_order_updates: orderUpdates(false),
  open_account: goTo({ name: "account" }, "account"),
  help: goTo({ name: "help" }, "help"),
  show_faqs: goTo({ name: "faqs" }, "faqs"),
  start_live_chat: goTo({ name: "chat" }, "chat"),
};

/**
 * Does what a command says. `at` is when, an ISO date, for the orders: the state has no clock of its own.
 * @returns {{state: object, say: {key: string, values: object}, undo: boolean, settled: boolean}}
 */
export function act(state, { intent, slots, at = null } = {}) {
  if (!Object.hasOwn(HANDLERS, intent)) return answer(state, "notKnown");
  const done = HANDLERS[intent](state, readSlots(slots), at);
  // To ask twice for the same is no second thing to take back.
  return done.undo && same(state, done.state) ? { ...done, undo: false } : done;
}

const same = (a, b) => Object.keys(a).every((part) => a[part] === b[part] || (part !== "products" && JSON.stringify(a[part]) === JSON.stringify(b[part])));

/** A state and the states that can be gone back to. */
export const startSession = (state) => ({ state, past: [] });

/** `act` with a memory: `{session, say, undo}`. */
export function step({ state, past }, action) {
  const done = act(state, action);
  const kept = done.settled ? [] : done.undo ? [...past, state].slice(-MAX_PAST) : past;
  return { session: { state: done.state, past: kept }, say: done.say, undo: done.undo };
}

/** Takes the last action back that can be. */
export function takeBack({ state, past }) {
  const undone = past.length > 0;
  const session = undone ? { state: past.at(-1), past: past.slice(0, -1) } : { state, past };
  return { session, say: { key: undone ? "undone" : "nothingToUndo", values: {} }, undo: false };
}
