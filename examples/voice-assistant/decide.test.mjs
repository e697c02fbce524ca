import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { decide } from "./decide.mjs";
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
  ["predictions with holes", rejected("ambiguous", 0.4, { top_predictions: [null, { confidence: "x" }] }), {}, "ask_again"],
];
for (const [name, recognition, state, expected] of CASES) {
  test(name, () => {
    const decision = decide(recognition, state);
    assert.equal(decision.do, expected);
    assert.ok(decision.say.length > 5);
  });
}

test("every intent has a phrase, and none has one too many", () => {
  const { labels } = JSON.parse(readFileSync(new URL("../../models/twi-shop/intent_labels.json", import.meta.url)));
  assert.deepEqual(Object.keys(PHRASES).sort(), [...labels].sort());
});
