// Elements without markup in strings: what a customer or a shop wrote is only ever text, never HTML.

/** `h("p", {class: "price"}, "GH₵ 5")`. `true` is an empty attribute, `false` none; those of ARIA are written out. */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null) continue;
    if (name.startsWith("aria-")) element.setAttribute(name, String(value));
    else if (value !== false) element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat(2).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** What an element does when it is pressed: the click is caught in `shop.js`. `key` finds it again after a redraw. */
export function does(intent, slots = {}, ask) {
  const written = JSON.stringify(slots);
  return { "data-intent": intent, "data-slots": written, "data-key": `${intent} ${written}`, "data-ask": ask };
}

/** A button that does an intent. */
export const button = (label, intent, slots = {}, { ask, ...properties } = {}) =>
  h("button", { type: "button", class: "button", ...does(intent, slots, ask), ...properties }, label);

/** How many, with the two buttons beside it. `slots` names the line in a cart. */
export const counter = (quantity, label, t, slots = {}) =>
  h("div", { class: "counter", role: "group", "aria-label": label },
    h("button", { type: "button", "aria-label": `${t("fewer")}: ${label}`, ...does("change_quantity", { ...slots, delta: -1 }) }, "−"),
    h("output", {}, quantity),
    h("button", { type: "button", "aria-label": `${t("more")}: ${label}`, ...does("change_quantity", { ...slots, delta: 1 }) }, "+"));
