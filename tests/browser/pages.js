// Pages of the tests, and what their answers are held against.

import assert from "node:assert/strict";

/** A page with `load(bundle, options)` and `sound(clip)`, in a browser profile of its own, with an empty cache. */
export async function newPage(from, at) {
  const context = await from.newContext();
  const page = await context.newPage();
  await page.goto(at.url);
  await page.evaluate(async () => {
    const { LocalEngine } = await import("/okyeame/index.js");
    window.load = async (bundle, options) => (window.engine = await LocalEngine.load(`/bundles/${bundle}/manifest.json`, options));
    window.sound = async (name) => (await fetch(`/clips/${name}.flac`)).arrayBuffer();
    /** A promise's outcome as data: its value, or its error's code and message. */
    window.outcome = (promise) =>
      promise.then((value) => ({ value }), ({ name, code, message }) => ({ error: { name, code, message } }));
  });
  return page;
}

/** The same labels in the same order, and every probability within a hundredth; the same words and slots. */
export function agrees(answer, expected) {
  assert.deepEqual(answer.top_predictions.map((p) => p.intent), expected.top_predictions.map((p) => p.intent));
  answer.top_predictions.forEach((p, at) => {
    assert.ok(Math.abs(p.confidence - expected.top_predictions[at].confidence) < 0.01, `${p.intent}: ${p.confidence}`);
  });
  for (const field of ["transcription", "accepted", "rejection", "slots", "risk", "speech"]) {
    assert.deepEqual(answer[field], expected[field], field);
  }
  assert.equal(answer.run.where, "local");
  assert.equal(answer.run.bytes_sent, 0);
}
