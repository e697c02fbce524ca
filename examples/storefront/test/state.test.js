// The shop's state, without a browser: `node --test examples/storefront/test/`.

import assert from "node:assert/strict";
import { readFileSync, readdirSync, existsSync } from "node:fs";
import { test } from "node:test";
import { CATEGORIES, MAX_QUANTITY, findProduct, listed, plain, sums } from "../finding.js";
import { SAYINGS, sentence } from "../sayings.js";
import { HANDLERS, act, initialState, startSession, step, takeBack } from "../state.js";
import { isPaid } from "../steps.js";
import { kept, restored } from "../storage.js";

const here = (file) => new URL(`../${file}`, import.meta.url);
const json = (file) => JSON.parse(readFileSync(here(file), "utf8"));
const { products } = json("products.json");
const catalogue = json("catalogue.json");
const { intents } = json("../../core/data/intents.json");

/** Frozen to the last value: a handler that writes into a state throws. */
function frozen(value) {
  if (value && typeof value === "object" && !Object.isFrozen(value)) {
    Object.freeze(value);
    Object.values(value).forEach(frozen);
  }
  return value;
}
const fresh = () => frozen(initialState(products));
const asList = (slots) => Object.entries(slots ?? {}).map(([slot, value]) => ({ slot, value, text: String(value) }));

/** Does commands one after the other, as [intent, slots]; gives the last answer. */
function play(state, ...commands) {
  let answer = { state };
  for (const [intent, slots] of commands) answer = frozen(act(answer.state, { intent, slots: asList(slots), at: "2026-01-02T03:04:05Z" }));
  return answer;
}
const says = (answer, key) => assert.equal(answer.say.key, key);
const SHIRT = ["search", { product: "shirt" }];
const FILLED = [["add_to_cart", { product: "shirt", quantity: 2 }], ["add_to_cart", { product: "rice" }]];
/** States of many kinds, in each of which every command must be safe. */
const states = () => [
  fresh(),
  play(fresh(), SHIRT).state,
  play(fresh(), ["search", { category: "shoes" }]).state,
  play(fresh(), ["search", { product: "spaceship" }]).state,
  play(fresh(), ...FILLED, ["show_cart"]).state,
  play(fresh(), ...FILLED, ["apply_coupon"], ["checkout"], ["make_payment", { payment_method: "card" }]).state,
  play(fresh(), ["remove_address"], ["open_orders"], ["track_order"]).state,
  frozen({ ...initialState(products), orders: [], addresses: [], defaultAddress: null }),
  frozen(initialState([])),
];

test("each of the 49 intents has a handler, and nothing else has", () => {
  assert.equal(intents.length, 49);
  assert.deepEqual(Object.keys(HANDLERS).sort(), intents.map(({ intent }) => intent).sort());
});

test("each intent changes what is shown or says in a sentence why not, in every state, and writes into none", () => {
  for (const state of states()) {
    for (const { intent } of intents) {
      const answer = act(state, { intent, slots: [] });
      assert.ok(Object.hasOwn(SAYINGS, answer.say.key), `${intent} says ${answer.say.key}`);
      for (const language of ["tw", "en"]) {
        const said = sentence(language, answer.say, products);
        assert.ok(said.length > 3 && !/[{}]|undefined|null|NaN|\[object/.test(said), `${intent}: ${said}`);
      }
      assert.equal(typeof answer.undo, "boolean");
      if (answer.undo) assert.notDeepEqual(answer.state, state, `${intent} can be taken back but did nothing`);
    }
  }
});

test("with its slots each intent does something in some state", () => {
  const values = {
    category: "gifts", brand: "Adom", product: "drum", qualifier: "new", price_range: "low", rating: "high", sort_key: "price_asc",
    color: "black", size: "large", delta: 2, quantity: 4, payment_method: "card", context: "receipt",
  };
  const extra = [
    play(fresh(), SHIRT, ["go_back"]).state,
    play(fresh(), ["apply_filter", { rating: "high" }]).state,
    play(fresh(), ["cancel_order"], ["go_home"]).state,
    play(fresh(), ["disable_order_updates"], ["enable_price_alert"]).state,
    play(fresh(), ["add_address"], ["go_home"]).state,
    play(fresh(), ["add_to_cart", { product: "drum" }], ["apply_coupon"]).state,
  ];
  for (const { intent, slots = [] } of intents) {
    const asked = Object.fromEntries(slots.map((slot) => [slot, values[slot]]));
    const changed = [...states(), ...extra].some((state) => act(state, { intent, slots: asList(asked) }).state !== state);
    assert.ok(changed, intent);
  }
});

test("undo gives back the very state before, for all that can be taken back", () => {
  for (const state of states()) {
    for (const { intent, risk } of intents) {
      const { session, undo } = step(startSession(state), { intent, slots: [] });
      const back = takeBack(session);
      if (undo) {
        // To report an order as late is a note that the customer may take back; the intent itself only looks.
        if (intent !== "order_not_arrived") assert.notEqual(risk, "none", intent);
        assert.equal(back.session.state, state);
        says(back, "undone");
      } else says(back, "nothingToUndo");
    }
  }
});

test("undo takes back one after the other, past what cannot be, but never an order", () => {
  let session = startSession(fresh());
  const run = (intent, slots) => ({ session } = step(session, { intent, slots }));
  run("add_to_cart", { product: "rice" });
  const one = session.state;
  run("show_cart", {});
  run("change_quantity", { delta: 5 });
  run("go_home", {});
  assert.equal(session.state.cart[0].quantity, 6);
  ({ session } = takeBack(session));
  assert.equal(session.state.cart[0].quantity, 1);
  assert.equal(session.state.cart[0].product, one.cart[0].product);
  ({ session } = takeBack(session));
  assert.deepEqual(session.state.cart, []);
  run("add_to_cart", { product: "rice" });
  run("make_payment", { payment_method: "card" });
  run("confirm_order", {});
  says(takeBack(session), "nothingToUndo");
});

test("hostile slot values are survived by every intent", () => {
  const evil = [
    "", " ", "__proto__", "constructor", "toString", "<img src=x onerror=alert(1)>", "x".repeat(100_000), "\u0000\uD800", "-1", "1e9", "NaN",
    0, -0, -1, 1.5, 1e308, Number.MAX_SAFE_INTEGER, NaN, Infinity, null, undefined, true, false, {}, [], [1], { toString: null }, () => 1, Symbol.iterator,
  ];
  const slots = ["category", "brand", "product", "qualifier", "price_range", "rating", "sort_key", "color", "size", "delta", "quantity",
    "payment_method", "context", "line", "order", "address", "coupon", "filter", "text", "label", "address_line", "off"];
  for (const state of states()) {
    for (const { intent } of intents) {
      for (const value of evil) {
        const { state: next, say } = act(state, { intent, slots: slots.map((slot) => ({ slot, value })) });
        assert.ok(Object.hasOwn(SAYINGS, say.key), say.key);
        assert.equal(typeof sentence("tw", say, products), "string");
        for (const { quantity, product } of next.cart) {
          assert.ok(Number.isInteger(quantity) && quantity >= 1 && quantity <= MAX_QUANTITY);
          assert.ok(products.some(({ id }) => id === product));
        }
        assert.equal(Object.prototype.polluted, undefined);
      }
    }
  }
  for (const slots of [null, undefined, 7, "quantity", [null], [7], [{}], [{ slot: {}, value: 1 }]]) {
    for (const { intent } of intents) act(fresh(), { intent, slots });
  }
});

test("what is no intent says so and changes nothing", () => {
  const state = fresh();
  for (const intent of ["unknown", "", "__proto__", "constructor", undefined, null, 7, "ADD_TO_CART"]) {
    const answer = act(state, { intent, slots: [] });
    says(answer, "notKnown");
    assert.equal(answer.state, state);
  }
  assert.equal(act(state).state, state);
});

test("search: by category, by product, by brand and colour, by qualifier, by words, by none", () => {
  const shoes = play(fresh(), ["search", { category: "shoes" }]);
  assert.equal(shoes.say.values.n, 4);
  assert.equal(shoes.state.view.name, "list");
  assert.equal(play(fresh(), SHIRT).state.view.product, "shirt");
  // A value of the phrase table, for a recogniser that was given no catalogue.
  assert.equal(play(fresh(), ["search", { product: "shoes" }]).say.values.n, 4);
  assert.equal(play(fresh(), ["search", { brand: "adom", color: "white" }]).say.values.n, 2);
  assert.ok(listed(products, play(fresh(), ["search", { qualifier: "new" }]).state.view).every(({ isNew }) => isNew));
  assert.equal(play(fresh(), ["search", { text: "ɛmo" }]).state.view.product, "rice");
  assert.equal(play(fresh(), ["search", { text: "emo" }]).state.view.product, "rice");
  says(play(fresh(), ["search", { product: "spaceship" }]), "foundNone");
  says(play(fresh(), ["search"]), "askSearch");
  assert.equal(play(fresh(), ["search", { size: "xsmall", category: "shoes" }]).say.values.n, 2);
});

test("filters add up, and are taken off one by one or all; a sort stays", () => {
  const low = play(fresh(), ["search", { category: "clothing" }], ["apply_filter", { price_range: "low" }]);
  assert.equal(low.say.values.n, 2);
  const both = play(low.state, ["sort_items", { sort_key: "price_desc" }], ["apply_filter", { qualifier: "discounts" }]);
  assert.deepEqual(listed(products, both.state.view).map(({ id }) => id), ["headwrap"]);
  const one = play(both.state, ["clear_filter", { filter: "qualifier" }]);
  assert.deepEqual(listed(products, one.state.view).map(({ id }) => id), ["tshirt", "headwrap"]);
  assert.deepEqual(play(both.state, ["clear_filter"]).state.view.filters, {});
  says(play(fresh(), ["clear_filter"]), "noFilter");
  says(play(fresh(), ["apply_filter", { qualifier: "gold-plated" }]), "askFilter");
  const sorted = (key) => listed(products, play(fresh(), ["sort_items", { sort_key: key }]).state.view);
  assert.equal(sorted("price_asc")[0].id, "sugar");
  assert.equal(sorted("price_desc")[0].id, "laptop");
  assert.equal(sorted("popular")[0].id, "rice");
  assert.ok(sorted("newest")[0].isNew);
  assert.equal(Math.max(...products.map(({ rating }) => rating)), sorted("rating_desc")[0].rating);
});

test("a product's page: its parts by voice, from the page or by name", () => {
  const shown = play(fresh(), SHIRT).state;
  for (const [intent, section] of [["show_reviews", "reviews"], ["show_description", "description"], ["show_price", "price"], ["show_similar_items", "similar"]]) {
    assert.equal(play(shown, [intent]).state.view.section, section);
    says(play(fresh(), [intent]), "whichProduct");
  }
  assert.equal(play(fresh(), ["show_price"]).state.view.name, "home");
  assert.deepEqual(play(shown, ["show_price"]).say.values, { product: "shirt", price: 180 });
  // A section keeps what was chosen.
  assert.equal(play(shown, ["select_size", { size: "large" }], ["show_reviews"]).state.view.size, "large");
  assert.equal(play(fresh(), ["show_description", { context: "receipt" }]).state.view.section, "receipt");
  assert.equal(play(fresh(), ["show_description", { context: "order_details" }]).state.view.name, "order");
  says(play(fresh(), ["show_description", { context: "page" }]), "pageIs");
});

test("colour and size: chosen, changed, missing, of the page and of the line in the cart", () => {
  const shown = play(fresh(), SHIRT).state;
  assert.equal(play(shown, ["select_color", { color: "black" }]).state.view.color, "black");
  assert.equal(play(shown, ["select_color", { color: "light" }]).state.view.color, "white");
  says(play(shown, ["select_color", { color: "purple" }]), "colorMissing");
  says(play(shown, ["select_color"]), "askColor");
  assert.equal(play(shown, ["change_size"], ["change_size"]).state.view.size, "small");
  says(play(fresh(), ["search", { product: "rice" }], ["select_size", { size: "large" }]), "noSizes");
  says(play(fresh(), ["search", { product: "rice" }], ["change_color"]), "noColors");
  says(play(fresh(), ["change_size", { size: "large" }]), "cartEmpty");
  const { state } = play(fresh(), SHIRT, ["add_to_cart"], ["show_cart"], ["change_size", { size: "xlarge" }], ["change_color", { color: "blue" }]);
  assert.deepEqual(state.cart, [{ product: "shirt", color: "blue", size: "xlarge", quantity: 1 }]);
});

test("two lines that become alike are one", () => {
  const { state } = play(fresh(), SHIRT, ["add_to_cart"], ["select_size", { size: "large" }], ["add_to_cart", { quantity: 2 }], ["show_cart"], ["change_size", { size: "medium" }]);
  assert.deepEqual(state.cart.map(({ size, quantity }) => [size, quantity]), [["medium", 3]]);
});

test("the cart: added by page, by name and with a number; what is chosen on the page goes with it", () => {
  says(play(fresh(), ["add_to_cart"]), "whichProduct");
  says(play(fresh(), ["add_to_cart", { product: "spaceship" }]), "unknownProduct");
  const page = play(fresh(), SHIRT, ["select_color", { color: "blue" }], ["set_quantity", { quantity: 3 }], ["add_to_cart"]);
  assert.deepEqual(page.state.cart, [{ product: "shirt", color: "blue", size: "medium", quantity: 3 }]);
  assert.equal(play(page.state, ["add_to_cart", { product: "ɛmo" }]).state.cart[1].product, "rice");
  assert.equal(play(fresh(), ["add_to_cart", { product: "rice", quantity: "4" }]).state.cart[0].quantity, 4);
  for (const quantity of [0, -3, 1.5, "many"]) says(play(fresh(), ["add_to_cart", { product: "rice", quantity }]), "badQuantity");
});

test("quantities: set, changed, one line among several, never above 99, gone at none", () => {
  const { state } = play(fresh(), ...FILLED, ["show_cart"]);
  const quantities = (answer) => answer.state.cart.map(({ quantity }) => quantity);
  assert.deepEqual(quantities(play(state, ["set_quantity", { quantity: 7 }])), [2, 7]);
  assert.deepEqual(quantities(play(state, ["change_quantity", { delta: 3, product: "shirt" }])), [5, 1]);
  assert.deepEqual(quantities(play(state, ["change_quantity"])), [2, 2]);
  assert.deepEqual(quantities(play(state, ["change_quantity", { delta: -1 }])), [2]);
  assert.deepEqual(quantities(play(state, ["set_quantity", { quantity: 1e15 }])), [2, 99]);
  says(play(state, ["change_quantity", { delta: 1e15 }]), "mostReached");
  says(play(state, ["set_quantity"]), "askQuantity");
  says(play(fresh(), ["add_to_cart", { product: "rice", quantity: 99 }], ["add_to_cart", { product: "rice" }]), "mostReached");
  says(play(fresh(), SHIRT, ["change_quantity", { delta: -1 }]), "atLeastOne");
  says(play(fresh(), ["set_quantity", { quantity: 2 }]), "cartEmpty");
});

test("removing and clearing", () => {
  const { state } = play(fresh(), ...FILLED, ["show_cart"]);
  assert.deepEqual(play(state, ["remove_from_cart", { product: "shirt" }]).state.cart.map((line) => line.product), ["rice"]);
  assert.deepEqual(play(state, ["remove_from_cart"]).state.cart.map((line) => line.product), ["shirt"]);
  says(play(state, ["remove_from_cart", { product: "drum" }]), "notInCart");
  says(play(state, ["search", { product: "drum" }], ["remove_from_cart"]), "notInCart");
  says(play(fresh(), ["remove_from_cart"]), "cartEmpty");
  assert.deepEqual(play(state, ["clear_cart"]).state.cart, []);
  says(play(fresh(), ["clear_cart"]), "cartEmpty");
});

test("the wishlist: from the page, moved from the cart, taken off", () => {
  const saved = play(fresh(), SHIRT, ["save_for_later"]);
  assert.deepEqual(saved.state.wishlist, ["shirt"]);
  says(play(saved.state, ["save_for_later"]), "alreadySaved");
  assert.deepEqual(play(saved.state, ["save_for_later", { product: "shirt", off: true }]).state.wishlist, []);
  const moved = play(fresh(), ...FILLED, ["show_cart"], ["save_for_later"]);
  assert.deepEqual([moved.state.wishlist, moved.state.cart.length], [["rice"], 1]);
  assert.equal(play(fresh(), ["open_wishlist"]).state.view.name, "wishlist");
});

test("coupon, delivery and the sum", () => {
  const { state } = play(fresh(), ...FILLED, ["apply_coupon"]);
  assert.deepEqual(sums(products, state.cart, state.coupon), { items: 455, discount: 45.5, delivery: 25, total: 434.5 });
  says(play(state, ["apply_coupon"]), "couponAlready");
  says(play(state, ["apply_coupon", { coupon: "FREE" }]), "couponUnknown");
  assert.equal(play(state, ["remove_coupon"]).state.coupon, null);
  says(play(fresh(), ["remove_coupon"]), "noCoupon");
  says(play(fresh(), ["apply_coupon"]), "cartEmpty");
  assert.equal(sums(products, [{ product: "laptop", quantity: 1 }], null).delivery, 0);
});

test("addresses: added, made the default, removed down to none", () => {
  const two = play(fresh(), ["add_address"]).state;
  assert.deepEqual([two.addresses.length, two.defaultAddress], [2, "a1"]);
  assert.equal(play(two, ["set_default_address"]).state.defaultAddress, "a2");
  assert.equal(play(two, ["set_default_address"], ["remove_address", { address: "a2" }]).state.defaultAddress, "a1");
  const none = play(two, ["remove_address"], ["remove_address"]);
  assert.deepEqual([none.state.addresses, none.state.defaultAddress], [[], null]);
  says(play(none.state, ["remove_address"]), "noAddress");
  const typed = play(none.state, ["add_address", { label: "Shop", address_line: "1 High Street" }]).state;
  assert.deepEqual([typed.addresses[0].line, typed.defaultAddress], ["1 High Street", typed.addresses[0].id]);
});

test("checkout, payment, order: each step asks for what it lacks; a changed sum is paid anew", () => {
  for (const intent of ["checkout", "make_payment", "confirm_order"]) says(play(fresh(), [intent]), "cartEmpty");
  const { state } = play(fresh(), ...FILLED, ["checkout"]);
  says(play(state, ["confirm_order"]), "askPayment");
  says(play(state, ["make_payment"]), "askPayment");
  const paid = play(state, ["make_payment", { payment_method: "mobile_money" }]).state;
  assert.ok(isPaid(paid));
  const dearer = play(paid, ["change_quantity", { delta: 1 }]).state;
  assert.ok(!isPaid(dearer));
  says(play(dearer, ["confirm_order"]), "askPayment");
  says(play(paid, ["remove_address"], ["confirm_order"]), "askAddress");
  const done = play(paid, ["confirm_order"]);
  says(done, "ordered");
  assert.deepEqual([done.state.cart, done.state.payment, done.state.orders.length, done.state.view.order], [[], null, 3, "OK-1003"]);
  assert.equal(done.state.orders[0].at, "2026-01-02T03:04:05Z");
  says(play(done.state, ["confirm_order"]), "cartEmpty");
});

test("`continue` walks to the checkout and never pays", () => {
  const walk = play(fresh(), ...FILLED, ["show_cart"], ["continue"]);
  assert.equal(walk.state.view.name, "checkout");
  says(play(walk.state, ["continue"]), "nextPay");
  const paid = play(walk.state, ["make_payment", { payment_method: "card" }], ["continue"]);
  says(paid, "nextConfirm");
  assert.equal(paid.state.orders.length, 2);
  const more = play(fresh(), ["continue"], ["continue"]);
  assert.equal(more.state.view.pages, 2);
  says(play(more.state, ["continue"]), "noNext");
});

test("back, home and forward", () => {
  says(play(fresh(), ["go_back"]), "noBack");
  const { state } = play(fresh(), ["search", { category: "gifts" }], SHIRT, ["open_account"]);
  const back = play(state, ["go_back"], ["go_back"]);
  assert.equal(back.state.view.query.category, "gifts");
  assert.equal(play(back.state, ["continue"]).state.view.product, "shirt");
  assert.equal(play(back.state, ["go_home"]).state.view.name, "home");
  assert.deepEqual(play(back.state, ["go_home"]).state.ahead, []);
  const long = play(fresh(), ...Array.from({ length: 300 }, (_, i) => [i % 2 ? "help" : "open_account"]));
  assert.ok(long.state.trail.length <= 50);
});

test("orders: what can be done to each, and what cannot", () => {
  assert.equal(play(fresh(), ["track_order"]).state.view.order, "OK-1002");
  assert.equal(play(fresh(), ["order_not_arrived"]).state.orders[0].late, true);
  says(play(fresh(), ["order_not_arrived"], ["order_not_arrived"]), "lateAlready");
  const cancelled = play(fresh(), ["cancel_order"]).state;
  assert.equal(cancelled.orders[0].status, "cancelled");
  says(play(cancelled, ["cancel_order"]), "cannotCancel");
  says(play(cancelled, ["go_home"], ["refund_status"]), "refundAsked");
  says(play(fresh(), ["refund_status"]), "noRefund");
  assert.equal(play(fresh(), ["return_item"]).state.orders[1].status, "returning");
  assert.equal(play(fresh(), ["exchange_item"]).state.orders[1].status, "exchanging");
  says(play(fresh(), ["track_order"], ["return_item"]), "cannotReturn");
  says(play(fresh(), ["cancel_order", { order: "OK-9" }]), "noOrders");
  assert.equal(play(fresh(), ["show_orders"]).say.values.n, 2);
});

test("alerts and updates: on, off, and saying so when they are already", () => {
  const alerted = play(fresh(), SHIRT, ["enable_price_alert"]).state;
  assert.deepEqual(alerted.priceAlerts.products, ["shirt"]);
  says(play(alerted, ["enable_price_alert"]), "alertAlreadyOn");
  assert.deepEqual(play(alerted, ["disable_price_alert"]).state.priceAlerts.products, []);
  assert.equal(play(fresh(), ["enable_price_alert"]).state.priceAlerts.all, true);
  says(play(fresh(), ["disable_price_alert"]), "alertAlreadyOff");
  assert.equal(play(fresh(), ["disable_order_updates"]).state.orderUpdates, false);
  says(play(fresh(), ["enable_order_updates"]), "updatesAlreadyOn");
});

test("what is kept comes back; what is forged does not", () => {
  const { state } = play(fresh(), ...FILLED, ["apply_coupon"], ["save_for_later", { product: "drum" }], ["add_address"], ["cancel_order"]);
  const back = restored(fresh(), kept(state));
  for (const part of ["cart", "wishlist", "addresses", "orders", "coupon", "priceAlerts"]) assert.deepEqual(back[part], state[part], part);
  const forged = (change) => restored(fresh(), JSON.stringify({ ...JSON.parse(kept(state)), ...change }));
  assert.deepEqual(forged({ cart: [{ product: "shirt", color: "white", size: "medium", quantity: 1e9 }, { product: "x" }, null, 7] }).cart, []);
  assert.deepEqual(forged({ orders: [{}, null, { id: "OK-1", lines: [{}] }] }).orders, []);
  for (const written of [null, "", "{", "[]", "7", "null", '{"version":2}', '{"version":1}', '{"version":1,"cart":{},"orders":7,"addresses":"a"}']) {
    const survived = restored(fresh(), written);
    for (const { intent } of intents) act(survived, { intent, slots: [] });
  }
});

test("products and catalogue agree, and each product has its picture", () => {
  assert.equal(products.length, 24);
  assert.deepEqual(catalogue.products.map(({ value }) => value).sort(), products.map(({ id }) => id).sort());
  assert.deepEqual(catalogue.categories.map(({ value }) => value).sort(), Object.keys(CATEGORIES).sort());
  for (const product of products) {
    assert.ok(existsSync(here(`pictures/${product.id}.svg`)), product.id);
    assert.ok(catalogue.brands.includes(product.brand), product.brand);
    const known = (list) => list.map(({ value }) => value);
    assert.ok(product.colors.every((color) => known(catalogue.colors).includes(color)), product.id);
    assert.ok(product.sizes.every((size) => known(catalogue.sizes).includes(size)), product.id);
    assert.equal(findProduct(products, product.id), product);
    assert.equal(findProduct(products, product.name.tw), product);
  }
  // A name that meant two products would be heard as either.
  const owner = new Map();
  for (const { value, names } of catalogue.products) {
    for (const name of names.map(plain)) assert.equal(owner.set(name, owner.get(name) ?? value).get(name), value, name);
  }
});

test("each file of the shop is kept offline, and each that is kept is there", () => {
  const listedFiles = [...readFileSync(here("sw.js"), "utf8").matchAll(/"([\w.-]+\.(?:js|css|html|json|svg|webmanifest))"/g)].map((match) => match[1]);
  const served = readdirSync(here(".")).filter((file) => /\.(js|css|html|json|svg|webmanifest)$/.test(file) && !["sw.js", "package.json"].includes(file));
  assert.deepEqual(listedFiles.filter((file) => file !== "sw.js").sort(), served.sort());
  const source = readFileSync(here("sw.js"), "utf8");
  for (const picture of readdirSync(here("pictures"))) assert.ok(source.includes(`"${picture.replace(".svg", "")}"`), picture);
});
