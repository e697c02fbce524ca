// What a customer finds again at the next visit. What comes out of a browser's storage may be old or forged, and is
// checked piece by piece: a piece that does not fit is left out, the rest is kept.

import { DEMO_COUPON } from "./buying.js";
import { MAX_QUANTITY } from "./finding.js";

const VERSION = 1;
const MAX_EACH = 200;

/** The part of the state that is kept: no views, no payment. */
export function kept({ cart, wishlist, addresses, defaultAddress, orders, serial, orderUpdates, priceAlerts, coupon }) {
  return JSON.stringify({ version: VERSION, cart, wishlist, addresses, defaultAddress, orders, serial, orderUpdates, priceAlerts, coupon: coupon !== null });
}

const isText = (value) => typeof value === "string" && value.length <= 300;
const list = (value) => (Array.isArray(value) ? value.slice(0, MAX_EACH) : null);

/** `fresh` with what was kept. */
export function restored(fresh, written) {
  let saved;
  try { saved = JSON.parse(written ?? "null"); } catch { return fresh; }
  if (saved?.version !== VERSION) return fresh;
  const find = (id) => fresh.products.find((product) => product.id === id);
  const isLine = (line) => {
    const product = find(line?.product);
    return product && Number.isInteger(line.quantity) && line.quantity >= 1 && line.quantity <= MAX_QUANTITY &&
      (line.color === null || product.colors.includes(line.color)) && (line.size === null || product.sizes.includes(line.size));
  };
  const isAddress = (each) => /^a\d{1,6}$/.test(each?.id) && isText(each.label) && isText(each.line);
  const isAmount = (value) => Number.isFinite(value) && value >= 0;
  const isOrder = (order) =>
    isText(order?.id) && Array.isArray(order.lines) && order.lines.every((line) => isLine(line) && isAmount(line.price)) &&
    ["confirmed", "on_the_way", "delivered", "cancelled", "returning", "exchanging"].includes(order.status) &&
    order.sums && ["items", "discount", "delivery", "total"].every((part) => isAmount(order.sums[part])) &&
    isAddress(order.address) && ["card", "mobile_money"].includes(order.payment?.method) && typeof order.late === "boolean" &&
    (order.at === null || !Number.isNaN(Date.parse(order.at))) && (order.refund === null || isAmount(order.refund?.amount));
  const pick = ({ product, color, size, quantity }) => ({ product, color, size, quantity });
  const addresses = list(saved.addresses)?.filter(isAddress) ?? fresh.addresses;
  const cart = list(saved.cart)?.filter(isLine).map(pick) ?? [];
  const isOn = (value, otherwise) => (typeof value === "boolean" ? value : otherwise);
  return {
    ...fresh,
    cart,
    wishlist: [...new Set(list(saved.wishlist)?.filter(find) ?? [])],
    addresses,
    defaultAddress: addresses.some(({ id }) => id === saved.defaultAddress) ? saved.defaultAddress : (addresses[0]?.id ?? null),
    orders: list(saved.orders)?.filter(isOrder) ?? fresh.orders,
    serial: Number.isSafeInteger(saved.serial) ? Math.max(saved.serial, fresh.serial) : fresh.serial,
    orderUpdates: isOn(saved.orderUpdates, fresh.orderUpdates),
    priceAlerts: { all: isOn(saved.priceAlerts?.all, false), products: [...new Set(list(saved.priceAlerts?.products)?.filter(find) ?? [])] },
    coupon: saved.coupon === true && cart.length > 0 ? DEMO_COUPON : null,
  };
}
