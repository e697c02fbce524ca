import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { test } from "node:test";
import { decide, turn } from "./decide.mjs";
import { PHRASES } from "./phrases_tw.mjs";

const answer = (intent, confidence, more = {}) => ({
  accepted: true, rejection: null, risk: "none", intent, confidence,
  top_predictions: [{ intent, confidence }, { intent: "show_cart", confidence: (1 - confidence) / 2 }], ...more,
});
const rejected = (rejection, confidence, more = {}) => answer("search", confidence, { accepted: false, rejection, intent: "unknown", ...more });

const CASES = [
  ["sure", answer("show_price", 0.9), {}, "act"],
  ["sure, can be undone", answer("add_to_cart", 0.8, { risk: "undo" }), {}, "act"],
  ["sure, and money moves", answer("make_payment", 0.99, { risk: "confirm" }), {}, "confirm"],
  ["accepted, but less sure than this shop wants", answer("show_price", 0.5), {}, "confirm"],
  ["accepted, and the shop is bold", answer("show_price", 0.5), { actAbove: 0.4 }, "act"],
  ["low, but worth naming", rejected("low_confidence", 0.4), {}, "confirm"],
  ["low, and not worth naming", rejected("low_confidence", 0.1), {}, "ask_again"],
  ["two fit", rejected("ambiguous", 0.4), {}, "choose"],
  ["two fit, and nobody says which", rejected("ambiguous", 0.4, { top_predictions: [] }), {}, "ask_again"],
  ["talk", rejected("out_of_scope", 0.5), {}, "ask_again"],
  ["silence", rejected("no_speech", 0), {}, "ask_again"],
  ["a third time in vain", rejected("out_of_scope", 0.2), { attempts: 2 }, "person"],
  ["sure at last", answer("show_price", 0.9), { attempts: 5 }, "act"],
  ["nothing at all", undefined, {}, "ask_again"],
  ["null", null, {}, "ask_again"],
  ["a confidence that is none", answer("show_price", NaN), {}, "ask_again"],
  ["infinitely sure", answer("show_price", Infinity), {}, "ask_again"],
  ["accepted that is a text", answer("make_payment", 0.9, { accepted: "true" }), {}, "ask_again"],
  ["risk that is unknown is a risk", answer("make_payment", 0.99, { risk: "CONFIRM" }), {}, "confirm"],
  ["risk that is missing is a risk", answer("make_payment", 0.99, { risk: undefined }), {}, "confirm"],
  ["accepted and rejected", answer("show_price", 0.9, { rejection: "no_speech" }), {}, "ask_again"],
  ["accepted, but unknown", answer("unknown", 0.9), {}, "ask_again"],
  ["an intent that is no label", answer({ toString: () => "show_price" }, 0.9), {}, "ask_again"],
  ["an intent with a tag in it", answer("<img src=x>", 0.9), {}, "ask_again"],
  ["surer than sure", answer("show_price", 5), {}, "ask_again"],
  ["a confidence that is a text", answer("show_price", "0.9"), {}, "ask_again"],
  ["not a number, and a shop that acts on everything", answer("show_price", NaN), { actAbove: 0 }, "ask_again"],
  ["a threshold that is none", answer("show_price", 0.9), { actAbove: NaN }, "confirm"],
  ["predictions that are null", rejected("ambiguous", 0.4, { top_predictions: null }), {}, "ask_again"],
  ["predictions that are a text", rejected("ambiguous", 0.4, { top_predictions: "search" }), {}, "ask_again"],
  ["two that are the same", rejected("ambiguous", 0.4, { top_predictions: [{ intent: "search", confidence: 0.4 }, { intent: "search", confidence: 0.4 }] }), {}, "ask_again"],
  ["attempts that are no number", rejected("out_of_scope", 0.2), { attempts: "5" }, "ask_again"],
  ["attempts below none", rejected("out_of_scope", 0.2), { attempts: -9 }, "ask_again"],
  ["a state that is null", answer("show_price", 0.9), null, "act"],
  ["a text", "act", {}, "ask_again"],
  ["exactly sure enough", answer("show_price", 0.6), {}, "act"],
  ["predictions with holes", rejected("ambiguous", 0.4, { top_predictions: [null, { confidence: "x" }] }), {}, "ask_again"],
];
for (const [name, recognition, state, expected] of CASES) {
  test(name, () => {
    const decision = decide(recognition, state);
    assert.equal(decision.do, expected);
    assert.ok(decision.say.length > 5);
  });
}

test("a name of every object is a label like any other, and no function is spoken", () => {
  const { say } = decide(answer("constructor", 0.9));
  assert.equal(say, "Yoo, mɛconstructor.");
});

test("a verb after the first takes its a- in the future only", () => {
  assert.equal(decide(answer("add_to_cart", 0.9)).say, "Yoo, mɛfa adeɛ yi ato cart no mu.");
  assert.equal(decide(answer("add_to_cart", 0.9, { risk: "confirm" })).say, "Wopɛ sɛ mefa adeɛ yi to cart no mu? Ka aane anaa daabi.");
});

const words = (transcription) => rejected("out_of_scope", 0.1, { transcription });
const pay = answer("make_payment", 0.9, { risk: "confirm" });
const noise = rejected("out_of_scope", 0.1);
const guess = rejected("low_confidence", 0.4);
// Each: what is heard, turn by turn, and what is done.
const DIALOGUES = [
  ["yes", [pay, words("Aane.")], ["confirm make_payment", "act make_payment"]],
  ["yes, please", [pay, words("aane, mepa wo kyɛw")], ["confirm make_payment", "act make_payment"]],
  ["no", [pay, words("Daabi"), words("Aane")], ["confirm make_payment", "drop make_payment", "ask_again"]],
  ["a yes within other words is none", [pay, words("aane na me nua no aba")], ["confirm make_payment", "confirm make_payment"]],
  ["a yes to nothing", [words("aane")], ["ask_again"]],
  ["the same again", [pay, pay], ["confirm make_payment", "act make_payment"]],
  ["the same, but hardly heard", [pay, answer("make_payment", 0.4, { risk: "confirm" })], ["confirm make_payment", "confirm make_payment"]],
  ["go on", [pay, answer("continue", 0.9)], ["confirm make_payment", "act make_payment"]],
  ["go back", [pay, answer("go_back", 0.9)], ["confirm make_payment", "drop make_payment"]],
  ["placing an order is no yes to emptying the cart", [answer("clear_cart", 0.9, { risk: "confirm" }), answer("confirm_order", 0.9, { risk: "confirm" })], ["confirm clear_cart", "confirm confirm_order"]],
  ["another command leaves the question", [pay, answer("show_cart", 0.9), words("aane")], ["confirm make_payment", "act show_cart", "ask_again"]],
  ["noise leaves it open, until a person comes", [pay, noise, noise, noise], ["confirm make_payment", "confirm make_payment", "confirm make_payment", "person start_live_chat"]],
  ["three in vain", [noise, noise, noise, noise], ["ask_again", "ask_again", "person start_live_chat", "ask_again"]],
  ["guesses are attempts too", [guess, guess, guess], ["confirm search", "confirm search", "person start_live_chat"]],
  ["a success starts anew", [noise, noise, answer("show_cart", 0.9), noise], ["ask_again", "ask_again", "act show_cart", "ask_again"]],
];
for (const [name, heard, expected] of DIALOGUES) {
  test(`dialogue: ${name}`, () => {
    let state = {};
    const done = heard.map((recognition) => {
      const { decision, state: next } = turn(state, recognition);
      state = next;
      return [decision.do, decision.intent].filter(Boolean).join(" ");
    });
    assert.deepEqual(done, expected);
  });
}

test("every intent has a phrase, and none has one too many", () => {
  const { labels } = JSON.parse(readFileSync(new URL("../../models/twi-shop/intent_labels.json", import.meta.url)));
  assert.deepEqual(Object.keys(PHRASES).sort(), [...labels].sort());
});

// The list that the shop's front end agreed on lies beside the repository where this is developed, and nowhere else.
const agreed = new URL("../../../shared/intents.json", import.meta.url);
test("every agreed intent has a phrase, and what is a risk there is asked", { skip: existsSync(agreed) ? false : "no ../shared/intents.json" }, () => {
  const { intents } = JSON.parse(readFileSync(agreed));
  assert.equal(intents.length, 49);
  for (const { intent, risk } of intents) {
    assert.ok(Object.hasOwn(PHRASES, intent), intent);
    assert.equal(decide(answer(intent, 0.99, { risk })).do, risk === "confirm" ? "confirm" : "act", intent);
  }
});
