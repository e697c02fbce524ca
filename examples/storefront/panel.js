// "What was heard": the last recognition, its receipt, where the model is, and where speech may be heard.

import { h } from "./dom.js";
import { colorName, sizeName } from "./sayings.js";
import { text } from "./texts.js";

const POLICY_KEY = "dwaso.policy";
const MODE_KEY = "dwaso.mode";
const WORDS_KEY = "dwaso.words";
const POLICIES = { "local-only": "localOnly", "local-first": "localFirst", "remote-first": "remoteFirst", "remote-only": "remoteOnly" };
const MODES = { push: "push", "hands-free": "handsFree" };

const percent = (confidence) => `${Math.round(100 * Number(confidence || 0))} %`;

/** Draws into `body`, sets attributes of `mic`; `storage` has `read(key)` and `write(key, value)`. */
export function createPanel(body, mic, { read, write }) {
  let lang = "tw";
  let last = null;
  let loading = null;
  let error = null;
  let isMissing = false;
  const t = (key, values) => text(lang, key, values);

  const wish = (key, known, otherwise) => (Object.hasOwn(known, read(key) ?? "") ? read(key) : otherwise);
  let policy = wish(POLICY_KEY, POLICIES, "local-first");
  let mode = wish(MODE_KEY, MODES, "push");
  let words = read(WORDS_KEY) === "yes";
  mic.setAttribute("policy", policy);
  mic.setAttribute("mode", mode);
  mic.toggleAttribute("words", words);

  // The two halves are kept apart: a new recognition must not take the focus off a switch.
  const heard = h("div", { class: "heard-last" });
  const switches = h("div", { class: "switches" });
  body.replaceChildren(heard, switches);

  const spokenSlot = ({ slot, value }) =>
    `${t(slot)}: ${slot === "color" ? colorName(lang, value) : slot === "size" ? sizeName(lang, value) : value}`;

  function receipt({ run, timings_ms, processing_time_ms, intent_source }) {
    const steps = Object.entries(timings_ms ?? {}).map(([step, ms]) => `${step} ${ms}`).join(", ");
    return h("dl", { class: "receipt", "data-testid": "receipt" },
      h("dt", {}, t("where")), h("dd", {}, t(run?.where === "local" ? "local" : "remote")),
      h("dt", {}, t("device")), h("dd", {}, run?.device ?? "–", intent_source ? ` · ${intent_source}` : ""),
      h("dt", {}, t("why")), h("dd", {}, run?.reason ?? "–"),
      h("dt", {}, t("sent")), h("dd", {}, t("bytes", { n: (run?.bytes_sent ?? 0).toLocaleString("en") })),
      h("dt", {}, t("time")), h("dd", {}, t("ms", { n: processing_time_ms ?? 0 }), steps && h("span", { class: "quiet" }, ` (${steps})`)));
  }

  function drawHeard() {
    const parts = [];
    if (isMissing) parts.push(h("p", { class: "note" }, t("micMissing")));
    if (error) parts.push(h("p", { class: "note" }, `${error.code ?? "error"}: ${error.message ?? ""}`));
    if (loading && !(loading.loaded >= loading.total)) {
      parts.push(h("label", { class: "loading" }, t("modelLoading"), h("progress", { max: loading.total || 1, value: loading.loaded })));
    } else if (loading?.fromCache) parts.push(h("p", { class: "quiet" }, t("modelCached")));
    if (!last) {
      parts.push(h("p", { class: "quiet", "data-testid": "heard-intent" }, t("heardNothing")));
    } else {
      parts.push(
        h("p", { class: "intent" }, h("strong", { "data-testid": "heard-intent" }, last.intent),
          last.rejection && h("span", { class: "quiet" }, ` ${last.rejection}`)),
        h("div", { class: "row" }, h("meter", { min: 0, max: 1, value: last.confidence, "aria-label": t("sure") }), h("span", {}, percent(last.confidence))),
        last.slots?.length > 0 && h("ul", { class: "chips", "aria-label": t("slotsText") }, last.slots.map((slot) => h("li", { class: "chip" }, spokenSlot(slot)))),
        last.transcription && h("p", {}, h("span", { class: "quiet" }, `${t("wordsText")}: `), h("q", { lang: "tw" }, last.transcription)),
        last.top_predictions?.length > 0 && h("ol", { class: "best", "aria-label": t("top") }, last.top_predictions.slice(0, 3).map((each) =>
          h("li", { class: "row" }, h("span", {}, each.intent), h("meter", { min: 0, max: 1, value: each.confidence, "aria-label": each.intent }), h("span", {}, percent(each.confidence))))),
        receipt(last));
    }
    heard.replaceChildren(...parts.filter(Boolean));
  }

  const radios = (legend, name, options, chosen, change) => h("fieldset", {}, h("legend", {}, legend),
    Object.entries(options).map(([value, key]) => {
      const input = h("input", { type: "radio", name, value, checked: value === chosen });
      input.addEventListener("change", () => change(value));
      return h("label", { class: "radio" }, input, ` ${t(key)}`);
    }));

  function drawSwitches() {
    const check = h("input", { type: "checkbox", checked: words });
    check.addEventListener("change", () => {
      words = check.checked;
      write(WORDS_KEY, words ? "yes" : "no");
      mic.toggleAttribute("words", words);
    });
    switches.replaceChildren(
      radios(t("policy"), "policy", POLICIES, policy, (value) => {
        policy = value;
        write(POLICY_KEY, value);
        mic.setAttribute("policy", value);
      }),
      radios(t("listening"), "mode", MODES, mode, (value) => {
        mode = value;
        write(MODE_KEY, value);
        mic.setAttribute("mode", value);
      }),
      h("label", { class: "radio" }, check, ` ${t("words")}`));
  }

  return {
    draw(language) {
      lang = language;
      drawHeard();
      drawSwitches();
    },
    heard(recognition) {
      [last, error] = [recognition, null];
      drawHeard();
    },
    /** The words come later, and only to the command that they are of. */
    words(recognition) {
      if (!last || (last.request_id && recognition.request_id && last.request_id !== recognition.request_id)) return;
      last = { ...last, transcription: recognition.transcription ?? last.transcription, slots: recognition.slots ?? last.slots };
      drawHeard();
    },
    progress(state) {
      loading = state;
      drawHeard();
    },
    failed(what) {
      error = what;
      drawHeard();
    },
    missing() {
      isMissing = true;
      drawHeard();
    },
  };
}
