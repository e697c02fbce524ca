// One suite, both engines: what `SpeechEngine` promises holds on this device and by the server, with the same answers.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { launch } from "./harness.js";
import { startServer } from "./shop.js";

let server, browser;
before(async () => {
  [server, browser] = await Promise.all([startServer(["--allow-origin", "*"]), launch()]);
});
after(async () => {
  await browser?.close();
  await server?.stop();
});

const CLIPS = ["tw_cart", "tw_go_cart", "tw_shoes", "en_short"];

/** A page with `engine`, of either kind, over the same weights. */
async function pageWith(kind) {
  const page = await (await browser.newContext()).newPage();
  await page.goto(server.url);
  await page.evaluate(async (kind) => {
    const { LocalEngine, RemoteEngine, OkyeameError } = await import("/okyeame/index.js");
    window.engine = kind === "local" ? new LocalEngine({ model: "/models/default/manifest.json" }) : new RemoteEngine({ server: "/", upload: "wav" });
    await window.engine.ready();
    window.OkyeameError = OkyeameError;
    window.outcome = (promise) => promise.then((value) => ({ value }), (error) => ({ code: error.code, ours: error instanceof OkyeameError, retryable: error.retryable, message: error.message }));
  }, kind);
  return page;
}

const answers = {};

for (const kind of ["local", "remote"]) {
  describe(`${kind} engine`, () => {
    let page;
    before(async () => (page = await pageWith(kind)));
    after(() => page?.context().close());

    test("answers in the schema", async () => {
      // clips are not of the shop: they are handed in
      const { readFileSync } = await import("node:fs");
      const { clip } = await import("./harness.js");
      answers[kind] = {};
      for (const name of CLIPS) {
        const bytes = [...readFileSync(clip(name))];
        const answer = await page.evaluate((bytes) => engine.recognize(new Uint8Array(bytes), { topK: 5 }), bytes);
        for (const field of ["intent", "confidence", "accepted", "rejection", "transcription", "processing_time_ms", "top_predictions", "slots", "risk", "intent_source", "model_type", "whisper_info", "timings_ms", "run", "request_id", "filename"]) {
          assert.ok(field in answer, field);
        }
        assert.equal(answer.run.where, kind);
        assert.equal(answer.top_predictions.length, 5);
        assert.equal(answer.transcription, null, "words that nobody asked for");
        answers[kind][name] = answer;
      }
    });

    test("takes a sound in every form, and leaves it to its owner", async () => {
      const result = await page.evaluate(async () => {
        const samples = Float32Array.from({ length: 16_000 }, (_, at) => 0.3 * Math.sin(at / 9) * Math.sin(at / 900));
        const wav = new Uint8Array(44 + 2 * samples.length);
        const view = new DataView(wav.buffer);
        new TextEncoder().encodeInto("RIFF\0\0\0\0WAVEfmt ", wav);
        [[4, wav.length - 8], [16, 16], [24, 16_000], [28, 32_000], [40, 2 * samples.length]].forEach(([at, value]) => view.setUint32(at, value, true));
        [[20, 1], [22, 1], [32, 2], [34, 16]].forEach(([at, value]) => view.setUint16(at, value, true));
        new TextEncoder().encodeInto("data", wav.subarray(36));
        samples.forEach((s, at) => view.setInt16(44 + 2 * at, Math.round(32767 * s), true));
        const buffer = new AudioBuffer({ length: samples.length, sampleRate: 16_000 });
        buffer.copyToChannel(samples, 0);
        const forms = { bytes: wav, buffer: wav.buffer, blob: new Blob([wav]), file: new File([wav], "a.wav"), view: new DataView(wav.buffer), samples, decoded: buffer };
        const intents = {};
        for (const [name, form] of Object.entries(forms)) intents[name] = (await engine.recognize(form, { topK: 1 })).top_predictions[0]?.intent;
        return { intents, kept: wav.length && samples.length };
      });
      assert.equal(new Set(Object.values(result.intents)).size, 1, JSON.stringify(result.intents));
      assert.equal(result.kept, 16_000);
    });

    test("typed commands mean the same", async () => {
      const said = await page.evaluate(async () => {
        const texts = ["Fa yei to cart no mu", "Kɔ cart no mu", "Boa me", "The president spoke to farmers yesterday about the price of cocoa"];
        const all = await Promise.all(texts.map((text) => engine.recognizeText(text)));
        return all.map(({ intent, transcription, run }) => [intent, transcription, run.where]);
      });
      assert.deepEqual(said, [
        ["add_to_cart", "Fa yei to cart no mu", kind],
        ["show_cart", "Kɔ cart no mu", kind],
        ["help", "Boa me", kind],
        ["unknown", "The president spoke to farmers yesterday about the price of cocoa", kind],
      ]);
    });

    test("a catalogue's values are found", async () => {
      const slots = await page.evaluate(async () => {
        const catalogue = { products: [{ value: "rice", names: ["ɛmo"] }] };
        return (await engine.recognizeText("Hwehwɛ ɛmo ma me", { catalogue })).slots;
      });
      assert.ok(slots.some(({ slot, value }) => slot === "product" && value === "rice"), JSON.stringify(slots));
    });

    test("what is wrong has the same code", async () => {
      const codes = await page.evaluate(async () => {
        const clip = new Float32Array(16_000).fill(0.1);
        const attempts = {
          nothing: () => engine.recognize(new ArrayBuffer(0)),
          rubbish: () => engine.recognize(Uint8Array.from({ length: 5000 }, (_, at) => (at * 73) % 251)),
          text: () => engine.recognize("hello"),
          null: () => engine.recognize(null),
          rate: () => engine.recognize(clip, { sampleRate: 0 }),
          language: () => engine.recognize(clip, { language: "klingon" }),
          topK: () => engine.recognize(clip, { topK: 0 }),
          option: () => engine.recognize(clip, { top_k: 5 }),
          blank: () => engine.recognizeText("  "),
          book: () => engine.recognizeText("ɔ".repeat(1000)),
          givenUp: () => engine.recognize(clip, { signal: AbortSignal.abort() }),
        };
        const codes = {};
        for (const [name, attempt] of Object.entries(attempts)) {
          const { code, ours } = await outcome((async () => attempt())());
          codes[name] = ours ? code : `not ours: ${code}`;
        }
        return codes;
      });
      assert.deepEqual(codes, {
        nothing: "empty_audio", rubbish: "unsupported_audio", text: "invalid_parameter", null: "invalid_parameter", rate: "invalid_parameter",
        language: "unsupported_language", topK: "invalid_parameter", option: "invalid_parameter", blank: "invalid_parameter", book: "invalid_parameter",
        givenUp: "aborted",
      });
    });

    test("silence is an answer, many at once are answered, and after dispose nothing is", async () => {
      const { silence, many, after, twice } = await page.evaluate(async () => {
        const silence = await engine.recognize(new Float32Array(16_000));
        const samples = Float32Array.from({ length: 16_000 }, (_, at) => 0.3 * Math.sin(at / 9) * Math.sin(at / 900));
        const many = await Promise.all([...Array(6).keys()].map((at) => engine.recognize(samples, { requestId: `r${at}` })));
        const waiting = outcome(engine.recognize(samples));
        engine.dispose();
        engine.dispose();
        return { silence, many: many.map(({ top_predictions }) => top_predictions[0]?.intent), after: (await waiting).code, twice: (await outcome(engine.recognize(samples))).code };
      });
      assert.deepEqual([silence.accepted, silence.rejection], [false, "no_speech"]);
      assert.equal(new Set(many).size, 1);
      assert.deepEqual([after, twice], ["disposed", "disposed"]);
    });
  });
}

test("both give the same answers", () => {
  for (const name of CLIPS) {
    const [local, remote] = [answers.local[name], answers.remote[name]];
    assert.equal(local.top_predictions.length, remote.top_predictions.length, name);
    // The browser's integers may put intents in another order that are next to nothing.
    const likely = ({ top_predictions }) => top_predictions.filter(({ confidence }) => confidence >= 0.01).map(({ intent }) => intent);
    assert.deepEqual(likely(local), likely(remote), name);
    local.top_predictions.forEach(({ confidence }, at) => assert.ok(Math.abs(confidence - remote.top_predictions[at].confidence) < 0.01, name));
    for (const field of ["intent", "accepted", "rejection", "risk", "slots", "intent_source"]) assert.deepEqual(local[field], remote[field], `${name}: ${field}`);
  }
});
