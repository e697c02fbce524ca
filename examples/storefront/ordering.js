// After buying: orders, where they are, and what comes back. Handlers of `state.js`.

import { SETTLED, UNDO, answer, open } from "./steps.js";

/** Two orders of the customer who was here before, so that "where is my order" has an answer in a demo. */
export const DEMO_ORDERS = [
  {
    id: "OK-1002", status: "on_the_way", at: null, late: false, refund: null,
    lines: [{ product: "lamp", color: "yellow", size: null, quantity: 1, price: 120 }],
    sums: { items: 120, discount: 0, delivery: 25, total: 145 },
    address: { id: "a1", label: "Fie", line: "12 Oxford Street, Osu, Accra" }, payment: { method: "mobile_money" },
  },
  {
    id: "OK-1001", status: "delivered", at: null, late: false, refund: null,
    lines: [
      { product: "shirt", color: "white", size: "medium", quantity: 1, price: 180 },
      { product: "rice", color: null, size: null, quantity: 2, price: 95 },
    ],
    sums: { items: 370, discount: 0, delivery: 25, total: 395 },
    address: { id: "a1", label: "Fie", line: "12 Oxford Street, Osu, Accra" }, payment: { method: "card" },
  },
];

/** The steps of an order that goes well. */
export const STAGES = ["confirmed", "on_the_way", "delivered"];

/** The order that is meant: named, else open, else the newest that suits. `undefined`: there is none. */
function orderMeant(state, slots, suits = () => true) {
  if (slots.order !== undefined) return state.orders.find(({ id }) => id === slots.order);
  if (state.view.name === "order") return state.orders.find(({ id }) => id === state.view.order);
  return state.orders.find(suits) ?? state.orders[0];
}

const orderView = (state, order, section = null) => open(state, { name: "order", order: order.id, section });
const update = (state, order, change) => ({
  ...state,
  orders: state.orders.map((each) => (each.id === order.id ? { ...each, ...change } : each)),
});
const said = ({ id, status }) => ({ order: id, status });

/** Opens an order at a section and says its status. */
const look = (sectionOf, key, suits) => (state, slots) => {
  const order = orderMeant(state, slots, suits);
  return order ? answer(orderView(state, order, sectionOf(slots)), key, said(order)) : answer(state, "noOrders");
};

const isUnderWay = ({ status }) => status === "confirmed" || status === "on_the_way";
const isDelivered = ({ status }) => status === "delivered";

/** Changes an order that suits; says why not otherwise. What a shop's staff has been told is not taken back by a word. */
const change = (suits, whyNot, changeOf, key) => (state, slots) => {
  const order = orderMeant(state, slots, suits);
  if (!order) return answer(state, "noOrders");
  const seen = orderView(state, order);
  if (!suits(order)) return answer(seen, whyNot, said(order));
  const next = changeOf(order);
  return answer(update(seen, order, next), key, { ...said({ ...order, ...next }), total: order.sums.total }, SETTLED);
};

const refundOf = (order) => ({ amount: order.sums.total, stage: "asked" });

function orderNotArrived(state, slots) {
  const order = orderMeant(state, slots, isUnderWay);
  if (!order) return answer(state, "noOrders");
  const seen = orderView(state, order, "late");
  if (order.status === "cancelled") return answer(seen, "orderStatus", said(order));
  if (order.late) return answer(seen, "lateAlready", said(order));
  return answer(update(seen, order, { late: true }), "lateNoted", said(order), UNDO);
}

function refundStatus(state, slots) {
  const meant = orderMeant(state, slots);
  const order = meant?.refund ? meant : state.orders.find(({ refund }) => refund !== null);
  if (!order) return answer(state, "noRefund");
  return answer(orderView(state, order, "refund"), "refundAsked", { ...said(order), amount: order.refund.amount });
}

const ordersView = (state) => open(state, { name: "orders" });

export const ordering = {
  open_orders: (state) => answer(ordersView(state), state.orders.length ? "orders" : "noOrders"),
  show_orders: (state) => answer(ordersView(state), state.orders.length ? "ordersListed" : "noOrders", { n: state.orders.length }),
  show_order_status: look(({ context }) => (context === "receipt" ? "receipt" : "status"), "orderStatus"),
  track_order: look(() => "track", "orderTracked", isUnderWay),
  order_not_arrived: orderNotArrived,
  cancel_order: change(isUnderWay, "cannotCancel", (order) => ({ status: "cancelled", refund: refundOf(order) }), "orderCancelled"),
  return_item: change(isDelivered, "cannotReturn", (order) => ({ status: "returning", refund: refundOf(order) }), "itemReturned"),
  exchange_item: change(isDelivered, "cannotExchange", () => ({ status: "exchanging" }), "itemExchanged"),
  refund_status: refundStatus,
};
