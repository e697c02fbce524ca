// Finding things among the products: by name, by filter, by order. Pure; reads no state but what it is given.
// Not a search engine: a shop of a few hundred products is looked through from end to end.

export const MAX_QUANTITY = 99;
export const PAGE_SIZE = 12;
const MAX_ASKED_CHARS = 100; // the longest name that okyeame's catalogue takes
const GOOD_RATING = 4.5;
const DELIVERY_GHS = 25;
const FREE_DELIVERY_FROM_GHS = 500;

/** What customers call a category when they type; voice has `catalogue.json`. */
export const CATEGORIES = {
  clothing: "clothes clothing ntadeɛ ataadeɛ",
  shoes: "shoes mpaboa",
  electronics: "electronics mfidie",
  home_items: "home household efie",
  groceries: "groceries food nnuane aduane",
  gifts: "gifts akyɛdeɛ",
};
export const QUALIFIERS = ["new", "cheap", "deals", "discounts", "flash_sale", "fast_delivery"];
export const SORT_KEYS = ["popular", "newest", "price_asc", "price_desc", "rating_desc"];
export const SIZES = ["xsmall", "small", "medium", "large", "xlarge"];
/** "Light" and "dark" are no colours of a product: they choose among those that it has. */
const SHADES = { light: ["white", "yellow", "silver", "gold"], dark: ["black", "brown", "blue", "purple"] };

/** Lower case, without punctuation; ɛ and ɔ may be typed as e and o. Anything that is no text or number becomes "". */
export function plain(text) {
  if (typeof text !== "string" && typeof text !== "number") return "";
  return String(text).slice(0, MAX_ASKED_CHARS).toLowerCase().normalize("NFC")
    .replace(/ɛ/g, "e").replace(/ɔ/g, "o").replace(/[^\p{L}\p{N}]+/gu, " ").trim();
}

const words = (text) => plain(text).split(" ").filter(Boolean);

/** Everything that a typed word may match. */
function described(product) {
  const { name, brand, category, colors } = product;
  return ` ${[name.en, name.tw, product.id, brand, CATEGORIES[category] ?? category, ...colors].map(plain).join(" ")} `;
}

/** The one product that is meant: by its id, by its name, or by words that only its name has. */
export function findProduct(products, asked) {
  const wanted = plain(asked);
  if (!wanted) return undefined;
  const exact = products.find(({ id, name }) => [id, name.en, name.tw].some((known) => plain(known) === wanted));
  if (exact) return exact;
  const asWords = words(asked);
  const named = products.filter(({ id, name }) => {
    const known = ` ${[id, name.en, name.tw].map(plain).join(" ")} `;
    return asWords.every((word) => known.includes(` ${word} `));
  });
  return named.length === 1 ? named[0] : undefined;
}

/** The category that a word names: without a catalogue, a recogniser calls "shoes" a product. */
export const findCategory = (asked) =>
  Object.keys(CATEGORIES).find((category) => words(CATEGORIES[category]).includes(plain(asked)));

/** The colour of a product that a customer means, or undefined. */
export function findColor(product, asked) {
  const wanted = plain(asked);
  if (product.colors.includes(wanted)) return wanted;
  const shades = Object.hasOwn(SHADES, wanted) ? SHADES[wanted] : [];
  return product.colors.find((color) => shades.includes(color));
}

/** Cheap and dear are what the other half of the list is not: 50 GHS is much for sugar and little for a phone. */
function medianPrice(products) {
  const prices = products.map(({ price }) => price).sort((a, b) => a - b);
  return prices[Math.floor((prices.length - 1) / 2)] ?? 0;
}

const KEEPS = {
  new: (p) => p.isNew,
  cheap: (p, median) => p.price <= median,
  deals: (p) => p.deal !== null || p.was !== null,
  discounts: (p) => p.was !== null,
  flash_sale: (p) => p.deal === "flash_sale",
  fast_delivery: (p) => p.fast,
};

const ORDERS = {
  popular: (a, b) => b.sold - a.sold,
  newest: (a, b) => Number(b.isNew) - Number(a.isNew),
  price_asc: (a, b) => a.price - b.price,
  price_desc: (a, b) => b.price - a.price,
  rating_desc: (a, b) => b.rating - a.rating,
};

/** The products of a list view, filtered and sorted. */
export function listed(products, { query = {}, filters = {}, sort = null }) {
  const asked = words(query.text);
  const pool = products.filter((product) =>
    (!query.category || product.category === query.category) &&
    (!query.brand || plain(product.brand) === plain(query.brand)) &&
    (!query.product || product.id === query.product) &&
    (!query.color || findColor(product, query.color) !== undefined) &&
    (!query.size || product.sizes.includes(query.size)) &&
    asked.every((word) => described(product).includes(` ${word}`)));
  const median = medianPrice(pool);
  const kept = pool.filter((product) =>
    (filters.price_range !== "low" || product.price <= median) &&
    (filters.price_range !== "high" || product.price >= median) &&
    (filters.rating !== "high" || product.rating >= GOOD_RATING) &&
    (!filters.qualifier || KEEPS[filters.qualifier](product, median)));
  return sort ? kept.sort(ORDERS[sort]) : kept;
}

/** Others of its category, the nearest in price first. */
export function similar(products, product, most = 4) {
  return products
    .filter(({ id, category }) => id !== product.id && category === product.category)
    .sort((a, b) => Math.abs(a.price - product.price) - Math.abs(b.price - product.price))
    .slice(0, most);
}

/** What a cart costs, GHS. */
export function sums(products, lines, coupon) {
  const items = lines.reduce((sum, line) => sum + line.quantity * products.find(({ id }) => id === line.product).price, 0);
  const discount = coupon ? Math.round(items * coupon.percent) / 100 : 0;
  const delivery = items === 0 || items - discount >= FREE_DELIVERY_FROM_GHS ? 0 : DELIVERY_GHS;
  return { items, discount, delivery, total: items - discount + delivery };
}

/** A whole number that a slot holds, or undefined: 3, "3", not 1.5, "many" or NaN. */
export function wholeNumber(value) {
  if (typeof value !== "number" && !(typeof value === "string" && /^\s*[+-]?\d{1,15}\s*$/.test(value))) return undefined;
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : undefined;
}
