// The looking side of the shop: home, lists, a product. `pages.js` has the rest. Each view is a function of the state.

import { button, counter, does, h } from "./dom.js";
import { CATEGORIES, PAGE_SIZE, QUALIFIERS, SORT_KEYS, listed, similar } from "./finding.js";
import { PAGES } from "./pages.js";
import { colorName, sizeName } from "./sayings.js";
import { money, text } from "./texts.js";

/** Draws the open view into `main`. `lang` is "tw" or "en". */
export function render(main, state, lang) {
  const t = (key, values) => text(lang, key, values);
  const view = (VIEWS[state.view.name] ?? VIEWS.home)({ state, view: state.view, lang, t, card: (product) => card(product, { state, lang, t }) });
  main.dataset.view = state.view.name;
  main.replaceChildren(...view.filter(Boolean));
}

const picture = (product, lang, size = "") =>
  h("img", { src: `pictures/${product.id}.svg`, alt: size ? product.name[lang] : "", width: 400, height: 400, class: `picture ${size}`, loading: size ? false : "lazy" });

const prices = (product, t) => h("p", { class: "price" },
  h("strong", {}, money(product.price)),
  product.was ? [" ", h("s", {}, h("span", { class: "unseen" }, t("was", { price: "" })), money(product.was))] : null);

const stars = (rating, t) => h("span", { class: "stars" },
  h("span", { "aria-hidden": "true" }, `★ ${rating.toFixed(1)}`), h("span", { class: "unseen" }, t("stars", { n: rating })));

function badge(product, t) {
  const kind = product.deal === "flash_sale" ? "flash_sale" : product.deal ? "discounts" : product.isNew ? "new" : null;
  return kind && h("span", { class: `badge ${kind}` }, t(kind));
}

function card(product, { state, lang, t }) {
  const saved = state.wishlist.includes(product.id);
  return h("li", { class: "card" },
    h("button", { type: "button", class: "open", ...does("search", { product: product.id }) },
      picture(product, lang), h("span", { class: "name" }, product.name[lang])),
    badge(product, t),
    h("div", { class: "row" }, prices(product, t), stars(product.rating, t)),
    button(t("add"), "add_to_cart", { product: product.id }, { class: "button small", "aria-label": `${t("add")}: ${product.name[lang]}` }),
    button(saved ? "♥" : "♡", "save_for_later", { product: product.id, off: saved },
      { class: "heart", "data-key": `heart ${product.id}`, "aria-label": `${t(saved ? "unsave" : "save")}: ${product.name[lang]}` }));
}

const shelf = (title, products, more, { t, card: each }) => h("section", { class: "shelf" },
  h("div", { class: "row" }, h("h2", {}, title), more && button(t("seeAll"), "search", more, { class: "link", "aria-label": `${t("seeAll")}: ${title}` })),
  h("ul", { class: "cards" }, products.slice(0, 4).map(each)));

/** Sentences to try, which a touch does too. */
const TRY = [
  ["Hwehwɛ ɛmo", "search", { product: "rice" }],
  ["Kyerɛ me mpaboa", "search", { category: "shoes" }],
  ["Kɔ cart no mu", "show_cart", {}],
  ["Me order no wɔ he?", "track_order", {}],
];

function home(page) {
  const { state, t } = page;
  const of = (qualifier) => listed(state.products, { filters: { qualifier }, sort: "popular" });
  return [
    h("section", { class: "hero" },
      h("h1", { tabindex: -1 }, t("hero")), h("p", {}, t("heroText")),
      h("p", { class: "try", id: "try" }, t("tryThese")),
      h("ul", { class: "chips", "aria-labelledby": "try" }, TRY.map(([said, intent, slots]) =>
        h("li", {}, button(`“${said}”`, intent, slots, { class: "chip", lang: "tw" }))))),
    h("section", {}, h("h2", {}, t("categories")),
      h("ul", { class: "categories" }, Object.keys(CATEGORIES).map((category) =>
        h("li", {}, h("button", { type: "button", class: `category ${category}`, ...does("search", { category }) },
          h("img", { src: `pictures/${state.products.find((p) => p.category === category)?.id}.svg`, alt: "", width: 400, height: 400 }),
          h("span", {}, t(category))))))),
    shelf(t("deals"), of("deals"), { qualifier: "deals" }, page),
    shelf(t("newest"), of("new"), { qualifier: "new" }, page),
  ];
}

/** A filter as a button that is pressed or not. */
const toggle = (label, slot, value, filters) => {
  const on = filters[slot] === value;
  return h("li", {}, button(label, on ? "clear_filter" : "apply_filter", on ? { filter: slot } : { [slot]: value },
    { class: "chip", "aria-pressed": on, "data-key": `filter ${slot} ${value}` }));
};

const isQueried = (query) => Object.keys(query).length > 0;

function titleOf({ query }, { state, lang, t }) {
  const parts = [
    query.text && `“${query.text}”`, query.brand,
    query.product && state.products.find(({ id }) => id === query.product)?.name[lang],
    query.category && t(query.category), query.color && colorName(lang, query.color), query.size && sizeName(lang, query.size),
  ].filter(Boolean);
  return parts.length ? parts.join(" · ") : t("all");
}

function list(page) {
  const { state, view, t } = page;
  const found = listed(state.products, view);
  const shown = found.slice(0, view.pages * PAGE_SIZE);
  const { filters } = view;
  const sort = h("select", { id: "sort", "data-change": "sort_items", "data-slot": "sort_key", "data-key": "sort" },
    h("option", { value: "" }, t("sortNone")),
    SORT_KEYS.map((key) => h("option", { value: key, selected: view.sort === key }, t(key))));
  return [
    h("h1", { tabindex: -1 }, titleOf(view, page)),
    h("div", { class: "row wrap" }, h("p", {}, t("nItems", { n: found.length })),
      h("label", { for: "sort", class: "field inline" }, t("sort"), " ", sort)),
    h("section", { class: "filters", "aria-labelledby": "filters" }, h("h2", { id: "filters" }, t("filters")),
      h("ul", { class: "chips" },
        toggle(t("low"), "price_range", "low", filters), toggle(t("high"), "price_range", "high", filters),
        toggle(t("ratingHigh"), "rating", "high", filters),
        QUALIFIERS.filter((q) => q !== "cheap" || filters.qualifier === q).map((q) => toggle(t(q), "qualifier", q, filters)),
        Object.keys(filters).length > 0 && h("li", {}, button(t("clearFilters"), "clear_filter", {}, { class: "link" })))),
    found.length === 0
      ? h("p", { class: "empty" }, t("nothing"))
      : h("section", { "aria-label": t("list") }, h("h2", { class: "unseen" }, t("list")), h("ul", { class: "cards" }, shown.map(page.card))),
    found.length === 0 && isQueried(view.query) && button(t("all"), "search"),
    found.length > shown.length && h("p", { class: "middle" }, button(t("showMore"), "continue")),
  ];
}

const choices = (label, values, chosen, nameOf, intent, slot) => values.length > 0 &&
  h("fieldset", { class: `choices ${slot}` }, h("legend", {}, label),
    values.map((value) => h("button", {
      type: "button", class: `choice ${slot}-${value}`, "aria-pressed": value === chosen, ...does(intent, { [slot]: value }),
    }, slot === "color" && h("span", { class: "swatch", "aria-hidden": "true" }), nameOf(value))));

const SECTIONS = {
  description: (product, { lang, t }) => [
    h("p", {}, product.description[lang]),
    h("dl", { class: "facts" }, h("dt", {}, t("brand")), h("dd", {}, product.brand), product.fast && [h("dt", {}, t("delivery")), h("dd", {}, t("fast_delivery"))]),
  ],
  reviews: (product, { t }) => h("ul", { class: "reviews" }, product.reviews.map((review) =>
    h("li", {}, h("p", { class: "row" }, h("strong", {}, review.name), stars(review.stars, t)), h("p", { lang: review.lang }, review.text)))),
  similar: (product, page) => h("ul", { class: "cards" }, similar(page.state.products, product).map(page.card)),
};
const SECTION_INTENTS = { description: "show_description", reviews: "show_reviews", similar: "show_similar_items" };

function product(page) {
  const { state, view, lang, t } = page;
  const it = state.products.find(({ id }) => id === view.product);
  const open = Object.hasOwn(SECTIONS, view.section) ? view.section : "description";
  const saved = state.wishlist.includes(it.id);
  const alerted = state.priceAlerts.products.includes(it.id);
  const incart = state.cart.filter((line) => line.product === it.id).reduce((n, line) => n + line.quantity, 0);
  return [
    h("article", { class: "product" },
      h("div", { class: "stage" }, picture(it, lang, "large"), badge(it, t)),
      h("div", { class: "buy" },
        h("p", { class: "over" }, button(t(it.category), "search", { category: it.category }, { class: "link" }), ` · ${it.brand}`),
        h("h1", { tabindex: -1 }, it.name[lang]),
        h("div", { class: `row ${view.section === "price" ? "told" : ""}` }, prices(it, t), stars(it.rating, t)),
        choices(t("color"), it.colors, view.color, (color) => colorName(lang, color), "select_color", "color"),
        choices(t("size"), it.sizes, view.size, (size) => sizeName(lang, size), "select_size", "size"),
        h("div", { class: "row" }, h("span", {}, t("quantity")), counter(view.quantity, it.name[lang], t)),
        h("div", { class: "actions" },
          button(t("add"), "add_to_cart", {}, { class: "button main" }),
          button(`${saved ? "♥" : "♡"} ${t(saved ? "unsave" : "save")}`, "save_for_later", { product: it.id, off: saved }, { "data-key": "save" }),
          button(t(alerted ? "alertStop" : "alertMe"), alerted ? "disable_price_alert" : "enable_price_alert", {}, { class: "link", "data-key": "alert" })),
        incart > 0 && h("p", { class: "incart" }, `${t("cart")}: ${incart}`))),
    h("nav", { class: "tabs", "aria-label": t("description") }, Object.entries(SECTION_INTENTS).map(([name, intent]) =>
      button(t(name), intent, {}, { class: "tab", "aria-current": name === open ? "true" : false }))),
    h("section", { class: "section", "aria-label": t(open) }, h("h2", { class: "unseen" }, t(open)), SECTIONS[open](it, page)),
  ];
}

const VIEWS = { home, list, product, ...PAGES };
