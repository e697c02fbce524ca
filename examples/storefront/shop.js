// Where it all meets: a touch, a typed word and a spoken command become an action of `state.js`, and the new state is drawn.

import { createPanel } from "./panel.js";
import { sentence } from "./sayings.js";
import { initialState, startSession, step, takeBack } from "./state.js";
import { kept, restored } from "./storage.js";
import { LANGUAGES, text } from "./texts.js";
import { render } from "./views.js";

const STATE_KEY = "dwaso.state";
const LANGUAGE_KEY = "dwaso.language";
const $ = (selector) => document.querySelector(selector);
const main = $("#view");
const mic = $("okyeame-mic");
const dialog = $("#ask");

let session;
let products = [];
let lang = LANGUAGES.includes(read(LANGUAGE_KEY)) ? read(LANGUAGE_KEY) : "tw";
let lastSay = null;
/** Whether what was done last can be taken back: the button stands beside the sentence that it is about. */
let canUndo = false;
/** A step back that this page asked of the browser's history itself, not the customer. */
let isOwnPop = false;

/** Storage may be forbidden or full: the shop works without it. */
function read(key) {
  try { return localStorage.getItem(key); } catch { return null; }
}
function write(key, value) {
  try {
    if (value === null) localStorage.removeItem(key);
    else localStorage.setItem(key, value);
  } catch { /* kept for this visit only */ }
}

const t = (key, values) => text(lang, key, values);
const panel = createPanel($("#panel-body"), mic, { read, write });

function say(said) {
  lastSay = said;
  $(".say").textContent = said ? sentence(lang, said, products) : "";
}

/** The fixed parts of the page in the chosen language. */
function translate() {
  document.documentElement.lang = lang;
  mic.setAttribute("lang", lang);
  document.title = t("shop");
  for (const element of document.querySelectorAll("[data-t]")) element.textContent = t(element.dataset.t);
  for (const element of document.querySelectorAll("[data-t-label]")) element.setAttribute("aria-label", t(element.dataset.tLabel));
  for (const element of document.querySelectorAll("[data-t-placeholder]")) element.setAttribute("placeholder", t(element.dataset.tPlaceholder));
  for (const each of document.querySelectorAll("[data-language]")) each.setAttribute("aria-pressed", String(each.dataset.language === lang));
  panel.draw(lang);
}

/** Draws the state. The focus stays where it was, or goes to the heading of a view that has just opened. */
function draw({ isNewView = false, moveFocus = true } = {}) {
  const { state } = session;
  const key = document.activeElement?.dataset?.key;
  const hadFocus = main.contains(document.activeElement);
  render(main, state, lang);
  const count = state.cart.reduce((sum, { quantity }) => sum + quantity, 0);
  $(".count").textContent = count;
  for (const part of document.querySelectorAll("[data-for]")) {
    part.setAttribute("aria-current", part.dataset.for === state.view.name ? "page" : "false");
  }
  $("#undo").hidden = !canUndo;
  if (isNewView) {
    scrollTo(0, 0);
    if (moveFocus) main.querySelector("h1")?.focus({ preventScroll: true });
  } else if (hadFocus) {
    const again = key && [...main.querySelectorAll("[data-key]")].find((element) => element.dataset.key === key);
    (again || main.querySelector("h1"))?.focus({ preventScroll: true });
  }
  if (state.view.section && !isNewView) main.querySelector(".section, .told")?.scrollIntoView({ block: "nearest" });
}

/** Two views are one page if only a choice on them differs. */
const page = ({ name, product, order, query }) => JSON.stringify([name, product, order, query]);

function become(next, said, { fromHistory = false, moveFocus = true, undo: undoable = false } = {}) {
  canUndo = undoable;
  const before = session.state;
  session = next;
  const { state } = session;
  const isNewView = page(before.view) !== page(state.view);
  if (!fromHistory && state.trail.length > before.trail.length) history.pushState({ depth: state.trail.length }, "");
  else if (!fromHistory && state.trail.length < before.trail.length) {
    isOwnPop = true;
    history.go(state.trail.length - before.trail.length);
  }
  write(STATE_KEY, kept(state));
  draw({ isNewView, moveFocus });
  say(said);
}

/** Does an action, whoever asked for it. A spoken one leaves the focus where it is: on the microphone, most likely. */
function act(action, options) {
  const { session: next, say: said, undo: undoable } = step(session, { ...action, at: new Date().toISOString() });
  become(next, said, { ...options, undo: undoable });
}

function undo(options) {
  const { session: next, say: said } = takeBack(session);
  become(next, said, options);
}

/** Asks yes or no; resolves to whether it was yes. */
function sure(key) {
  $("#ask-text").textContent = t(key);
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true }));
}

document.addEventListener("click", async (event) => {
  const pressed = event.target.closest?.("button");
  if (!pressed || !session) return;
  const { intent, slots, ask, language, forget } = pressed.dataset;
  if (pressed.id === "undo") undo();
  else if (language) {
    lang = language;
    write(LANGUAGE_KEY, lang);
    translate();
    draw();
    say(lastSay);
  } else if (forget !== undefined) {
    if (!(await sure("sureForget"))) return;
    become(startSession(initialState(products)), { key: "forgotten" });
    write(STATE_KEY, null);
  } else if (intent && (!ask || (await sure(ask)))) act({ intent, slots: JSON.parse(slots) });
});

document.addEventListener("change", ({ target }) => {
  const { change, slot } = target.dataset ?? {};
  if (change && session) act({ intent: change, slots: { [slot]: target.value } });
});

document.addEventListener("submit", (event) => {
  const form = event.target;
  if (!form.dataset.form) return;
  event.preventDefault();
  if (!session) return;
  const slots = Object.fromEntries(new FormData(form));
  if (form.dataset.form === "chat") {
    form.before(Object.assign(document.createElement("p"), { className: "bubble mine", textContent: slots.message }));
    form.reset();
    say({ key: "chat" });
  } else act({ intent: form.dataset.form, slots });
});

addEventListener("popstate", ({ state }) => {
  if (isOwnPop || !session) {
    isOwnPop = false;
    return;
  }
  const back = session.state.trail.length - (state?.depth ?? 0);
  for (let i = 0; i < back; i++) act({ intent: "go_back" }, { fromHistory: true });
  // What was left by going back can be returned to; "continue" goes there.
  for (let i = 0; i < -back && session.state.ahead.length > 0; i++) act({ intent: "continue" }, { fromHistory: true });
});

// --- voice ---

document.addEventListener("okyeame-action", ({ detail: { recognition } }) => {
  if (session) act({ intent: recognition.intent, slots: recognition.slots }, { moveFocus: false });
});
document.addEventListener("okyeame-undo", () => session && undo({ moveFocus: false }));
document.addEventListener("okyeame-recognition", ({ detail: { recognition } }) => {
  panel.heard(recognition);
  if (!recognition.accepted) say({ key: recognition.rejection ?? "low_confidence" });
});
document.addEventListener("okyeame-words", ({ detail: { recognition } }) => panel.words(recognition));
document.addEventListener("okyeame-progress", ({ detail }) => panel.progress(detail));
document.addEventListener("okyeame-error", ({ detail: { error } }) => {
  panel.failed(error);
  say({ key: "voiceError" });
});

/** The voice comes from the server that serves the shop; without it the shop goes on by touch. */
async function startVoice() {
  try {
    const [catalogue] = await Promise.all([json("catalogue.json"), import("/okyeame/mic.js")]);
    await customElements.whenDefined("okyeame-mic");
    mic.catalogue = catalogue;
  } catch {
    mic.hidden = true;
    panel.missing();
    say({ key: "voiceMissing" });
  }
}

async function json(address) {
  const response = await fetch(address);
  if (!response.ok) throw new Error(`${address}: ${response.status}`);
  return response.json();
}

async function start() {
  translate();
  ({ products } = await json("products.json"));
  session = startSession(restored(initialState(products), read(STATE_KEY)));
  // For tests, and for whoever looks at the shop in the console.
  window.shop = { get state() { return session.state; } };
  history.replaceState({ depth: 0 }, "");
  draw();
}

if ("serviceWorker" in navigator) navigator.serviceWorker.register("sw.js").catch(() => { /* no offline shop, then */ });
startVoice();
start().catch(() => {
  main.replaceChildren(Object.assign(document.createElement("h1"), { textContent: t("noShop") }));
});
