// The small steps that the handlers of `state.js` are made of. Pure: each makes a new state and leaves the old one be.

import { findProduct, listed, plain, sums } from "./finding.js";

const MAX_TRAIL = 50;
const MAX_SLOT_CHARS = 200;

/** What a handler gives back. `undo`: it may be taken back. `settled`: nothing before it may be taken back any more. */
export function answer(state, key, values = {}, { undo = false, settled = false } = {}) {
  return { state, say: { key, values }, undo, settled };
}

export const UNDO = { undo: true };
export const SETTLED = { settled: true };

/**
 * Slots as an object without a prototype, from `[{slot, value}]` or from `{slot: value}`. What is neither text, number
 * nor truth is dropped, so that no handler meets an object where it expects a word.
 */
export function readSlots(slots) {
  const read = Object.create(null);
  const pairs = Array.isArray(slots)
    ? slots.map((each) => [each?.slot, each?.value])
    : Object.entries(slots ?? {});
  for (const [slot, value] of pairs) {
    if (typeof slot !== "string" || !["string", "number", "boolean"].includes(typeof value)) continue;
    read[slot] = typeof value === "string" ? value.slice(0, MAX_SLOT_CHARS) : value;
  }
  return read;
}

/** Goes to a view. A view that is already open is changed in place: saying "cart" twice needs no two steps back. */
export function open(state, view) {
  if (JSON.stringify(state.view) === JSON.stringify(view)) return state;
  const again = state.view.name === view.name && state.view.product === view.product && state.view.order === view.order;
  if (again && view.name !== "list") return { ...state, view };
  return { ...state, view, trail: [...state.trail, state.view].slice(-MAX_TRAIL), ahead: [] };
}

/** Changes the open view. */
export const showing = (state, change) => ({ ...state, view: { ...state.view, ...change } });

/** Whether the sum that stands now is the one that was paid: a cart that changed must be paid anew. */
export const isPaid = ({ products, cart, coupon, payment }) =>
  payment !== null && payment.total === sums(products, cart, coupon).total;

export const productOf = (state, id) => state.products.find((product) => product.id === id);

/** A product's page as it opens. What has only one colour or size has it chosen. */
export function productView(product, section = null) {
  const only = (list) => (list.length === 1 ? list[0] : null);
  return { name: "product", product: product.id, section, color: only(product.colors), size: only(product.sizes), quantity: 1 };
}

/** Opens a product's page, or a section of the page that is open, with what was chosen there kept. */
export function openProduct(state, product, section = null) {
  const here = state.view.name === "product" && state.view.product === product.id;
  return here ? showing(state, { section }) : open(state, productView(product, section));
}

/** The product that the customer looks at: "this one". */
export function shown(state) {
  const { view } = state;
  if (view.name === "product") return productOf(state, view.product);
  if (view.name === "list") {
    const found = listed(state.products, view);
    return found.length === 1 ? found[0] : undefined;
  }
  if (view.name === "cart") return productOf(state, lineMeant(state, {})?.product);
  return undefined;
}

/** `{product}`: the one that is named, or else the one that is shown; without either, `{why}`, a key of what to say. */
export function productMeant(state, slots) {
  if (slots.product !== undefined && plain(slots.product)) {
    const product = findProduct(state.products, slots.product);
    return product ? { product } : { why: "unknownProduct", values: { asked: String(slots.product) } };
  }
  const product = shown(state);
  return product ? { product } : { why: "whichProduct", values: {} };
}

export const keyOf = ({ product, color, size }) => [product, color ?? "", size ?? ""].join("|");

/** The line of the cart that is meant: named, or of the product that is shown, or the one touched last. */
export function lineMeant(state, slots) {
  const { cart, view } = state;
  const last = (suits) => cart.findLast(suits);
  if (slots.line !== undefined) return cart.find((line) => keyOf(line) === slots.line);
  if (slots.product !== undefined && plain(slots.product)) {
    const product = findProduct(state.products, slots.product);
    return product && last((line) => line.product === product.id);
  }
  if (view.name === "product") {
    return cart.find((line) => keyOf(line) === keyOf(view)) ?? last((line) => line.product === view.product);
  }
  return cart.find((line) => keyOf(line) === state.lastLine) ?? cart.at(-1);
}

/** Puts `next` where `line` was (`undefined`: nothing); lines that have become alike are made one. */
export function replaceLine(state, line, next, most) {
  const key = next && keyOf(next);
  const twin = next && state.cart.find((each) => each !== line && keyOf(each) === key);
  const merged = twin ? { ...next, quantity: Math.min(most, next.quantity + twin.quantity) } : next;
  const cart = state.cart.filter((each) => each !== twin).flatMap((each) => (each === line ? (merged ? [merged] : []) : [each]));
  const last = cart.at(-1);
  return { ...state, cart, lastLine: key ?? (last ? keyOf(last) : null) };
}
