// What the microphone heard, sent as Ogg Opus: a tenth of the bytes, the same answers; read by two decoders that are not ours.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, before, test } from "node:test";
import { launch } from "./harness.js";
import { spoken, startServer } from "./shop.js";

const SENTENCES = [
  "Fa yei to cart no mu", "Kɔ cart no mu", "Me pɛ sɛ me tua ka", "Hwehwɛ mpaboa", "Boa me", "Kɔ checkout", "San kɔ akyi", "Ne boɔ yɛ sɛn",
];
let server, browser, page;
before(async () => {
  [server, browser] = await Promise.all([startServer(), launch()]);
  page = await (await browser.newContext()).newPage();
  await page.goto(server.url);
});
after(async () => {
  await browser?.close();
  await server?.stop();
});

test("answers are those of WAV, for a fraction of the bytes", async () => {
  const rows = [];
  for (const sentence of SENTENCES) {
    const bytes = [...readFileSync(spoken([sentence], { pauseMs: 300 }))];
    rows.push(await page.evaluate(async (bytes) => {
      const { RemoteEngine, AutoEngine } = await import("/okyeame/index.js");
      const sound = await new OfflineAudioContext(1, 1, 16_000).decodeAudioData(new Uint8Array(bytes).buffer);
      const ask = async (upload) => {
        const engine = new AutoEngine({ server: "/", policy: "remote-only", consent: "given", upload });
        const { top_predictions: [{ intent, confidence }], run } = await engine.recognize(sound);
        return { intent, confidence, sent: run.bytes_sent };
      };
      return { wav: await ask("wav"), opus: await ask("opus"), seconds: sound.duration, remote: typeof RemoteEngine };
    }, bytes));
  }
  rows.forEach(({ wav, opus, seconds }, at) => console.log(`# ${SENTENCES[at]}: ${wav.intent} ${wav.confidence.toFixed(2)}, ${opus.intent} ${opus.confidence.toFixed(2)}; ${wav.sent} and ${opus.sent} bytes for ${seconds.toFixed(1)} s`));
  const sure = rows.filter(({ wav }) => wav.confidence > 0.6);
  assert.ok(sure.length >= 4, "most sentences are understood");
  for (const { wav, opus } of sure) assert.equal(opus.intent, wav.intent);
  for (const { wav, opus } of rows) assert.ok(wav.sent > 6 * opus.sent, `${wav.sent} and ${opus.sent}`);
});

test("the file is as long as the sound, for the browser's own decoder", async () => {
  for (const seconds of [0.02, 0.5, 1, 3.21, 12]) {
    const n = Math.round(16_000 * seconds);
    const [type, length, loudest] = await page.evaluate(async (n) => {
      let sent;
      const fetch = window.fetch;
      window.fetch = async (url, init) => {
        sent = init.body.get("file");
        return new Response("{}");
      };
      const { RemoteEngine } = await import("/okyeame/index.js");
      await new RemoteEngine({ server: "/" }).recognize(Float32Array.from({ length: n }, (_, at) => 0.5 * Math.sin(at / 6)));
      window.fetch = fetch;
      const decoded = await new OfflineAudioContext(1, 1, 48_000).decodeAudioData(await sent.arrayBuffer());
      return [sent.type, decoded.length / 3, Math.max(...decoded.getChannelData(0).subarray(-4800))];
    }, n);
    assert.match(type, /audio\/ogg/);
    assert.ok(Math.abs(length - n) <= 320, `${n} samples came out as ${length}`);
    assert.ok(loudest > 0.2, "the end of the sound is there");
  }
});

test("a browser that encodes no Opus sends WAV; files go as they are", async () => {
  const types = await page.evaluate(async () => {
    const types = [];
    const fetch = window.fetch;
    window.fetch = async (url, init) => {
      types.push(init.body.get("file").type);
      return new Response("{}");
    };
    const { RemoteEngine } = await import("/okyeame/index.js");
    const engine = new RemoteEngine({ server: "/" });
    const samples = new Float32Array(8000).fill(0.1);
    await engine.recognize(new Blob(["x"], { type: "audio/webm" }));
    await engine.recognize(new Float32Array([NaN]));
    const { isConfigSupported } = AudioEncoder;
    AudioEncoder.isConfigSupported = async () => ({ supported: false });
    await engine.recognize(samples);
    AudioEncoder.isConfigSupported = async () => Promise.reject(new TypeError("broken"));
    await engine.recognize(samples);
    AudioEncoder.isConfigSupported = isConfigSupported;
    const Encoder = window.AudioEncoder;
    delete window.AudioEncoder;
    await engine.recognize(samples);
    window.AudioEncoder = Encoder;
    window.fetch = fetch;
    return types;
  });
  assert.deepEqual(types, ["audio/webm", "audio/wav", "audio/wav", "audio/wav", "audio/wav"]);
});
