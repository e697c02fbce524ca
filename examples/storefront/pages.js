// The other side of the till: cart, checkout, orders, account, help. Views like those of `views.js`.

import { DEMO_COUPON } from "./buying.js";
import { button, counter, h } from "./dom.js";
import { sums } from "./finding.js";
import { STAGES } from "./ordering.js";
import { FAQS, HELP } from "./help.js";
import { colorName, sizeName } from "./sayings.js";
import { isPaid, keyOf } from "./steps.js";
import { money } from "./texts.js";

const head = (title) => h("h1", { tabindex: -1 }, title);
const nameOf = (state, id, lang) => state.products.find((product) => product.id === id)?.name[lang] ?? id;
const traits = ({ color, size }, lang) => [color && colorName(lang, color), size && sizeName(lang, size)].filter(Boolean).join(", ");
const thumb = (id) => h("img", { src: `pictures/${id}.svg`, alt: "", width: 400, height: 400, class: "thumb" });

const bill = ({ items, discount, delivery, total }, t) => h("dl", { class: "bill" },
  h("dt", {}, t("items")), h("dd", {}, money(items)),
  discount > 0 && [h("dt", {}, t("discount")), h("dd", {}, `− ${money(discount)}`)],
  h("dt", {}, t("delivery")), h("dd", {}, delivery ? money(delivery) : t("free")),
  h("dt", { class: "sum" }, t("total")), h("dd", { class: "sum" }, money(total)));

function cart({ state, lang, t }) {
  if (state.cart.length === 0) {
    return [head(t("cart")), h("p", { class: "empty" }, t("emptyCart")), h("p", {}, button(t("goShopping"), "search", {}, { class: "button main" }))];
  }
  const lines = state.cart.map((line) => {
    const named = nameOf(state, line.product, lang);
    const slots = { line: keyOf(line) };
    const { price } = state.products.find(({ id }) => id === line.product);
    return h("li", { class: `line ${keyOf(line) === state.lastLine ? "touched" : ""}` },
      thumb(line.product),
      h("div", { class: "what" },
        button(named, "search", { product: line.product }, { class: "link name" }),
        h("p", { class: "quiet" }, traits(line, lang)),
        h("div", { class: "row wrap" }, counter(line.quantity, named, t, slots), h("strong", {}, money(price * line.quantity))),
        h("div", { class: "row start" },
          button(t("save"), "save_for_later", slots, { class: "link", "aria-label": `${t("save")}: ${named}` }),
          button(t("remove"), "remove_from_cart", slots, { class: "link", "aria-label": `${t("remove")}: ${named}` }))));
  });
  return [
    head(t("cart")),
    h("div", { class: "columns" },
      h("ul", { class: "lines" }, lines),
      h("section", { class: "till", "aria-label": t("total") },
        bill(sums(state.products, state.cart, state.coupon), t),
        couponForm(state, t),
        button(t("toCheckout"), "checkout", {}, { class: "button main" }),
        button(t("clearCart"), "clear_cart", {}, { class: "link", ask: "sureClear" }))),
  ];
}

const couponForm = (state, t) => state.coupon
  ? h("p", { class: "row" }, `${t("coupon")}: ${state.coupon.code}`, button(t("removeCoupon"), "remove_coupon", {}, { class: "link" }))
  : h("form", { class: "coupon", "data-form": "apply_coupon" },
      h("label", { for: "coupon" }, t("couponCode")),
      h("div", { class: "row" }, h("input", { id: "coupon", name: "coupon", autocomplete: "off", maxlength: 30, required: true, "aria-describedby": "coupon-hint" }),
        h("button", { class: "button" }, t("apply"))),
      h("p", { class: "quiet", id: "coupon-hint" }, t("demoCoupon", { code: DEMO_COUPON.code })));

function checkout({ state, lang, t }) {
  const address = state.addresses.find(({ id }) => id === state.defaultAddress);
  const paid = isPaid(state);
  return [
    head(t("checkout")),
    h("div", { class: "columns" },
      h("div", {},
        h("section", { class: "panel" }, h("h2", {}, `1. ${t("deliverTo")}`),
          address ? h("p", {}, h("strong", {}, address.label), h("br"), address.line) : h("p", {}, t("noAddresses")),
          button(t("yourAddresses"), "show_addresses", {}, { class: "link" })),
        h("section", { class: "panel" }, h("h2", {}, `2. ${t("payWith")}`),
          h("div", { class: "actions" }, ["mobile_money", "card"].map((method) =>
            button(t(method), "make_payment", { payment_method: method }, { "aria-pressed": paid && state.payment.method === method }))),
          h("p", { class: "quiet" }, t("demoPay"))),
        h("section", { class: "panel" }, h("h2", {}, `3. ${t("place")}`),
          h("p", {}, paid ? t("paid", { method: t(state.payment.method) }) : t("payFirst")),
          button(t("place"), "confirm_order", {}, { class: "button main", ask: paid ? "surePlace" : undefined }))),
      h("section", { class: "till", "aria-label": t("total") },
        h("ul", { class: "brief" }, state.cart.map((line) => h("li", {}, `${line.quantity} × ${nameOf(state, line.product, lang)}`))),
        bill(sums(state.products, state.cart, state.coupon), t), couponForm(state, t),
        button(t("cart"), "show_cart", {}, { class: "link" }))),
  ];
}

function wishlist({ state, t, card }) {
  const kept = state.wishlist.map((id) => state.products.find((product) => product.id === id)).filter(Boolean);
  return [head(t("wishlist")),
    kept.length ? h("section", { "aria-label": t("wishlist") }, h("ul", { class: "cards" }, kept.map(card))) : h("p", { class: "empty" }, t("noWishes")),
    kept.length === 0 && button(t("goShopping"), "search", {}, { class: "button main" })];
}

function orders({ state, lang, t }) {
  return [head(t("orders")),
    state.orders.length === 0 && h("p", { class: "empty" }, t("noOrdersYet")),
    h("ul", { class: "orders" }, state.orders.map((order) => h("li", { class: "panel" },
      h("div", { class: "row" }, h("strong", {}, order.id), h("span", { class: `status ${order.status}` }, t(order.status))),
      h("div", { class: "thumbs" }, order.lines.map(({ product }) => thumb(product))),
      h("p", { class: "quiet" }, order.lines.map((line) => `${line.quantity} × ${nameOf(state, line.product, lang)}`).join(", ")),
      h("div", { class: "row" }, h("strong", {}, money(order.sums.total)),
        button(t("order"), "show_order_status", { order: order.id }, { class: "button small", "aria-label": `${t("order")} ${order.id}` })))))];
}

function order({ state, view, lang, t }) {
  const it = state.orders.find(({ id }) => id === view.order);
  const slots = { order: it.id };
  const at = STAGES.indexOf(it.status);
  const underWay = it.status === "confirmed" || it.status === "on_the_way";
  return [
    head(`${t("order")} ${it.id}`),
    h("p", {}, h("span", { class: `status ${it.status}` }, t(it.status)), it.at && ` ${new Date(it.at).toLocaleDateString("en-GB")}`),
    at >= 0 && h("section", { class: `panel ${view.section === "track" ? "told" : ""}` }, h("h2", {}, t("track")),
      h("ol", { class: "track" }, STAGES.map((stage, i) =>
        h("li", { class: i <= at ? "done" : "", "aria-current": i === at ? "step" : false }, t(stage))))),
    it.late && h("p", { class: "note" }, t("lateText")),
    it.refund && h("p", { class: "note" }, h("strong", {}, `${t("refund")}: `), t("refundText", { price: money(it.refund.amount) })),
    h("section", { class: `panel ${view.section === "receipt" ? "told" : ""}` }, h("h2", {}, t("receipt")),
      h("ul", { class: "brief" }, it.lines.map((line) => h("li", { class: "row" },
        h("span", {}, `${line.quantity} × ${nameOf(state, line.product, lang)}`, traits(line, lang) && h("span", { class: "quiet" }, ` (${traits(line, lang)})`)),
        h("span", {}, money(line.price * line.quantity))))),
      bill(it.sums, t),
      h("p", { class: "quiet" }, `${t(it.payment.method)} · ${it.address.label}, ${it.address.line}`)),
    h("div", { class: "actions" },
      underWay && button(t("notArrived"), "order_not_arrived", slots),
      underWay && button(t("cancelOrder"), "cancel_order", slots, { ask: "sureCancel" }),
      it.status === "delivered" && button(t("returnItem"), "return_item", slots, { ask: "sureReturn" }),
      it.status === "delivered" && button(t("exchangeItem"), "exchange_item", slots, { ask: "sureExchange" }),
      button(t("chat"), "start_live_chat", {}, { class: "link" })),
  ];
}

function addresses({ state, t }) {
  return [head(t("yourAddresses")),
    state.addresses.length === 0 && h("p", { class: "empty" }, t("noAddresses")),
    h("ul", { class: "orders" }, state.addresses.map(({ id, label, line }) => h("li", { class: "panel" },
      h("p", {}, h("strong", {}, label), id === state.defaultAddress && h("span", { class: "badge inline" }, t("default")), h("br"), line),
      h("div", { class: "row start" },
        id !== state.defaultAddress && button(t("makeDefault"), "set_default_address", { address: id }, { class: "link", "aria-label": `${t("makeDefault")}: ${label}` }),
        button(t("remove"), "remove_address", { address: id }, { class: "link", ask: "sureAddress", "aria-label": `${t("remove")}: ${label}` }))))),
    h("form", { class: "panel form", "data-form": "add_address" }, h("h2", {}, t("addAddress")),
      h("label", { for: "label" }, t("addressLabel")), h("input", { id: "label", name: "label", maxlength: 40, autocomplete: "off" }),
      h("label", { for: "address-line" }, t("addressLine")), h("input", { id: "address-line", name: "address_line", maxlength: 160, required: true, autocomplete: "street-address" }),
      h("button", { class: "button main" }, t("addAddress")))];
}

const setting = (label, on, enable, disable, t) => h("div", { class: "row panel" },
  h("span", {}, h("strong", {}, label), ` — ${t(on ? "on" : "off")}`),
  button(t(on ? "turnOff" : "turnOn"), on ? disable : enable, {}, { "data-key": enable, "aria-label": `${t(on ? "turnOff" : "turnOn")}: ${label}` }));

function account({ state, t }) {
  const alerts = state.priceAlerts.all || state.priceAlerts.products.length > 0;
  return [head(t("account")), h("p", { class: "quiet" }, t("accountText")),
    h("ul", { class: "tiles" }, [["orders", "open_orders"], ["wishlist", "open_wishlist"], ["addresses", "show_addresses"], ["faqs", "show_faqs"], ["chat", "start_live_chat"], ["help", "help"]]
      .map(([key, intent]) => h("li", {}, button(t(key), intent, {}, { class: "tile" })))),
    setting(t("orderUpdates"), state.orderUpdates, "enable_order_updates", "disable_order_updates", t),
    setting(t("priceAlerts"), alerts, "enable_price_alert", "disable_price_alert", t),
    h("p", {}, h("button", { type: "button", class: "link", "data-forget": true }, t("forget")))];
}

const help = ({ lang, t }) => [head(t("help")), h("p", {}, t("helpText")),
  h("div", { class: "guide" }, HELP.map(({ title, say }) => h("section", { class: "panel" }, h("h2", {}, title[lang]),
    h("ul", {}, say.map(([tw, en]) => h("li", {}, h("q", { lang: "tw" }, tw), " ", h("span", { class: "quiet", lang: "en" }, en))))))),
  h("p", { class: "row start" }, button(t("faqs"), "show_faqs"), button(t("chat"), "start_live_chat"))];

const faqs = ({ lang, t }) => [head(t("faqs")),
  ...FAQS.map(({ question, answer }) => h("details", { class: "panel" }, h("summary", {}, question[lang]), h("p", {}, answer[lang])))];

const chat = ({ t }) => [head(t("chat")), h("section", { class: "panel chat", "aria-label": t("chat") },
  h("p", { class: "bubble" }, t("chatText")), h("p", { class: "quiet" }, t("chatWait")),
  h("form", { class: "form", "data-form": "chat" }, h("label", { for: "message" }, t("chatLabel")),
    h("div", { class: "row" }, h("input", { id: "message", name: "message", maxlength: 300, required: true, autocomplete: "off" }), h("button", { class: "button" }, t("send")))))];

export const PAGES = { cart, checkout, wishlist, orders, order, addresses, account, help, faqs, chat };
