// The engine in a real browser, on wasm: its answers are the native program's, and nothing that goes wrong leaves harm.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { bundle, clip, launch, native, serve } from "./harness.js";
import { agrees, newPage } from "./pages.js";

const MIB = 1 << 20;
/** A shop's own names. */
const CATALOGUE = { products: [{ value: "shoes", names: ["mpaboa", "sukyer"] }] };
const catalogueFile = join(mkdtempSync(join(tmpdir(), "okyeame-")), "catalogue.json");
writeFileSync(catalogueFile, JSON.stringify(CATALOGUE));
let browser, server;

before(async () => {
  for (const dtype of ["f16", "int8", "int4"]) bundle("tiny", dtype);
  bundle("base", "int4");
  [browser, server] = await Promise.all([launch(), serve()]);
});
after(async () => {
  await browser?.close();
  server?.close();
});

/** Runs `test` on a page of its own. */
const onPage = (run) => async () => {
  const page = await newPage(browser, server);
  try {
    await run(page);
  } finally {
    await page.context().close();
  }
};

describe("answers", () => {
  for (const dtype of ["f16", "int8", "int4"]) {
    test(`a tiny model as ${dtype} answers as natively, with its words`, onPage(async (page) => {
      const answer = await page.evaluate(async (dtype) => {
        const engine = await load(`tiny-${dtype}`, { device: "wasm", dtype: "f32", words: true });
        return engine.recognize(await sound("tw_cart"), { words: true, language: "tw", topK: 5 });
      }, dtype);
      agrees(answer, native("tiny", dtype, clip("tw_cart"), ["--language", "tw"]));
    }));
  }

  test("whisper-base hears Twi and English commands as it does natively", onPage(async (page) => {
    const names = ["tw_cart", "tw_go_cart", "tw_shoes", "en_short"];
    const device = await page.evaluate(async () => (await load("base-int4", { dtype: "f32" })).device);
    assert.deepEqual(device.name, "wasm");
    assert.match(device.reason, /WebGPU|adapter/);
    for (const name of names) {
      const answer = await page.evaluate(async (name) => engine.recognize(await sound(name), { words: false, topK: 5 }), name);
      agrees(answer, native("base", "int4", clip(name), ["--no-transcribe"]));
    }
    // The second stage follows, and the encoder is not fetched again.
    const n = server.fetched.length;
    const { progress, words } = await page.evaluate(async (catalogue) => {
      const progress = [];
      await engine.loadWords({ onProgress: (p) => progress.push(p) });
      const options = { words: true, language: "tw", topK: 5, catalogue };
      return { progress, words: await engine.recognize(await sound("tw_cart"), options) };
    }, CATALOGUE);
    assert.ok(server.fetched.slice(n).every((path) => !path.includes("intent-")), server.fetched.slice(n).join());
    assert.equal(progress.at(-1).loaded, progress.at(-1).total);
    agrees(words, native("base", "int4", clip("tw_cart"), ["--language", "tw", "--catalogue", catalogueFile]));
    const english = await page.evaluate(async () => engine.recognize(await sound("en_short"), { words: true, language: "en", topK: 5 }));
    agrees(english, native("base", "int4", clip("en_short"), ["--language", "en"]));
    assert.ok(english.transcription.length > 5, english.transcription);
  }));

  test("samples at another rate are the same sound", onPage(async (page) => {
    const [bytes, samples] = await page.evaluate(async () => {
      await load("tiny-int8");
      const options = { words: false, topK: 5 };
      const file = await sound("tw_cart");
      const decoded = await new OfflineAudioContext(1, 1, 48000).decodeAudioData(file.slice(0));
      return [await engine.recognize(file, options), await engine.recognize(decoded, options)];
    });
    assert.equal(samples.top_predictions[0].intent, bytes.top_predictions[0].intent);
    assert.ok(Math.abs(samples.top_predictions[0].confidence - bytes.top_predictions[0].confidence) < 0.05);
  }));

  test("silence is rejected, and nothing is acted on", onPage(async (page) => {
    const answer = await page.evaluate(async () => {
      await load("base-int4");
      return engine.recognize(new Float32Array(32_000), { topK: 3 });
    });
    assert.equal(answer.accepted, false);
    assert.equal(answer.rejection, "no_speech");
  }));

  test("many at once are answered, each with its own", onPage(async (page) => {
    const answers = await page.evaluate(async () => {
      await load("tiny-int4");
      const clips = await Promise.all(["tw_cart", "tw_shoes", "en_short"].map(sound));
      return Promise.all([...Array(12).keys()].map((at) => engine.recognize(clips[at % 3], { words: false, requestId: `${at}` })));
    });
    answers.forEach((answer, at) => {
      assert.equal(answer.request_id, `${at}`);
      assert.deepEqual(answer.top_predictions, answers[at % 3].top_predictions);
    });
  }));
});

describe("8-bit integers on the CPU", () => {
  test("are the default, hear what floating point hears, in less memory, and write words", onPage(async (page) => {
    const names = ["tw_cart", "tw_go_cart", "tw_shoes", "en_short"];
    const ask = (dtype) => page.evaluate(async ({ dtype, names }) => {
      const { info, device } = await load("base-int4", { dtype });
      const answers = [];
      for (const name of names) answers.push(await engine.recognize(await sound(name), { words: false, topK: 49 }));
      const memory = await engine.memory();
      await engine.loadWords();
      const options = { words: true, language: "en" };
      const { transcription } = await engine.recognize(await sound("en_short"), options);
      const dtypes = [info.dtype, engine.info.dtype];
      engine.dispose();
      return { dtypes, device, answers, memory, transcription };
    }, { dtype, names });
    const [float, int8] = [await ask("f32"), await ask("auto")];
    assert.deepEqual([float.dtypes, int8.dtypes], [["f32", "f32"], ["int8", "int8"]]);
    assert.deepEqual([float.device.name, int8.device.name], ["wasm", "wasm"]);
    let nAccepted = 0, farthest = 0;
    names.forEach((name, at) => {
      const [a, b] = [float.answers[at], int8.answers[at]];
      const by = Object.fromEntries(b.top_predictions.map(({ intent, confidence }) => [intent, confidence]));
      for (const { intent, confidence } of a.top_predictions) farthest = Math.max(farthest, Math.abs(confidence - (by[intent] ?? 0)));
      if (!a.accepted) return;
      nAccepted++;
      assert.equal(b.top_predictions[0].intent, a.top_predictions[0].intent, name);
      // The native program in 8-bit integers, from the same bundle.
      const expected = native("base", "int4", clip(name), ["--no-transcribe", "--device", "cpu", "--dtype", "int8"]);
      assert.equal(b.top_predictions[0].intent, expected.top_predictions[0].intent, name);
    });
    assert.ok(nAccepted > 0, "none is accepted in f32");
    assert.ok(farthest > 0 && farthest < 0.35, `a confidence is off by ${farthest}`);
    assert.match(int8.transcription, /shoes/);
    console.log(`# int8: ${(int8.memory / MIB).toFixed(0)} MiB of wasm memory, f32 ${(float.memory / MIB).toFixed(0)}; a confidence is off by ${farthest.toFixed(3)} at most`);
    assert.ok(int8.memory < float.memory, `${int8.memory} is not less than ${float.memory}`);
  }));

  for (const delivery of ["f16", "int8", "int4"]) {
    test(`a tiny model as ${delivery} passes the check that its bundle brings`, onPage(async (page) => {
      const dtype = await page.evaluate(async (delivery) => (await load(`tiny-${delivery}`, { device: "wasm", dtype: "int8" })).info.dtype, delivery);
      assert.equal(dtype, "int8");
    }));
  }

  test("an answer that is another is found out all the same", onPage(async (page) => {
    const { error } = await page.evaluate(async () => {
      const { LocalEngine } = await import("/okyeame/index.js");
      return outcome(LocalEngine.load("/faulty/doubtful/base-int4/manifest.json", { dtype: "int8" }));
    });
    assert.equal(error?.code, "device_failed", JSON.stringify(error));
  }));

  test("a dtype that there is not, and int8 on WebGPU, are refused before anything is fetched", onPage(async (page) => {
    const n = server.fetched.length;
    const errors = await page.evaluate(async () => {
      const attempts = [{ dtype: "int3" }, { dtype: "f16" }, { dtype: 8 }, { dtype: "int8", device: "webgpu" }];
      return Promise.all(attempts.map((options) => outcome(load("tiny-int8", options))));
    });
    for (const { error } of errors) assert.equal(error?.code, "invalid_parameter", JSON.stringify(errors));
    assert.match(errors[3].error.message, /dtype: auto, f32$/);
    assert.ok(!server.fetched.slice(n).some((path) => path.startsWith("/bundles/")));
  }));
});

describe("loading", () => {
  test("progress only grows, ends at the whole, and comes from the cache the second time, also without a network", onPage(async (page) => {
    const [first, second] = await page.evaluate(async () => {
      const seen = [[], []];
      await load("base-int4", { onProgress: (p) => seen[0].push(p) });
      engine.dispose();
      return seen;
    });
    assert.ok(first.length > 3);
    first.forEach((p, at) => assert.ok(at === 0 || p.loaded >= first[at - 1].loaded));
    assert.equal(first.at(-1).loaded, first.at(-1).total);
    assert.equal(first.at(-1).fromCache, 0);
    assert.equal(second.length, 0);
    const wait = page.context().waitForEvent("requestfailed", { timeout: 2000 }).catch(() => null);
    const again = await page.evaluate(async () => {
      const seen = [];
      const fetched = performance.getEntriesByType("resource").length;
      await load("base-int4", { onProgress: (p) => seen.push(p) });
      return { seen, fetched };
    });
    await wait;
    assert.equal(again.seen.at(-1).fromCache, again.seen.at(-1).total);
  }));

  const faults = {
    missing: "model_not_found",
    cut: "damaged_weights",
    longer: "damaged_weights",
    altered: "checksum_mismatch",
    newer: "unsupported_bundle",
    nonsense: "invalid_config",
    doubtful: "device_failed",
  };
  for (const [fault, code] of Object.entries(faults)) {
    test(`a bundle that is ${fault} is ${code}, and nothing bad is kept`, onPage(async (page) => {
      const result = await page.evaluate(async (fault) => {
        const { LocalEngine } = await import("/okyeame/index.js");
        const { error } = await outcome(LocalEngine.load(`/faulty/${fault}/base-int4/manifest.json`));
        const cache = await caches.open("okyeame");
        const kept = await Promise.all((await cache.keys()).map(async ({ url }) => {
          const bytes = await (await cache.match(url)).arrayBuffer();
          const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
          return { url, digest: [...digest].map((b) => b.toString(16).padStart(2, "0")).join("") };
        }));
        // The same page loads a good bundle afterwards.
        await load("tiny-int8");
        return { error, kept };
      }, fault);
      assert.equal(result.error.name, "OkyeameError");
      assert.equal(result.error.code, code, result.error.message);
      for (const { url, digest } of result.kept.filter(({ url }) => url.includes("sha256="))) {
        assert.ok(url.endsWith(digest), url);
      }
    }));
  }

  test("giving up ends the fetching at once", onPage(async (page) => {
    const result = await page.evaluate(async () => {
      const controller = new AbortController();
      const onProgress = () => controller.abort();
      const { error } = await outcome(load("base-int4", { signal: controller.signal, onProgress }));
      return { error, early: await outcome(load("base-int4", { signal: AbortSignal.abort() })) };
    });
    assert.equal(result.error.code, "aborted");
    assert.equal(result.early.error.code, "aborted");
  }));

  test("a browser without vectors is told so before anything is fetched", onPage(async (page) => {
    const n = server.fetched.length;
    const { error } = await page.evaluate(() => {
      WebAssembly.validate = () => false;
      return outcome(load("tiny-int8"));
    });
    assert.equal(error.code, "wasm_simd_missing");
    assert.ok(!server.fetched.slice(n).some((path) => path.startsWith("/bundles/")));
  }));

  test("too little memory is an error with a code", async () => {
    const small = await launch(["--js-flags=--wasm-max-mem-pages=1600"]); // 100 MiB
    try {
      const page = await newPage(small, server);
      const { error } = await page.evaluate(() => outcome(load("base-int4")));
      assert.ok(["out_of_memory", "engine_stopped"].includes(error.code), JSON.stringify(error));
      // A model that fits still loads.
      await page.evaluate(() => load("tiny-int8"));
    } finally {
      await small.close();
    }
  });

  test("a budget is kept before the first byte of it is spent; what is here costs nothing", onPage(async (page) => {
    const n = server.fetched.length;
    const [small, enough, again] = await page.evaluate(async () => {
      const small = await outcome(load("tiny-int8", { byteBudget: 10_000 }));
      const enough = await outcome(load("tiny-int8", { byteBudget: 20_000_000 }).then(() => true));
      return [small, enough, await outcome(load("tiny-int8", { byteBudget: 0 }).then(() => true))];
    });
    assert.equal(small.error?.code, "budget_exceeded");
    assert.equal(server.fetched.slice(n).filter((path) => path.includes("manifest.json")).length, 3);
    assert.deepEqual([enough.value, again.value], [true, true], JSON.stringify([enough, again]));
  }));

  test("WebGPU that was asked for and is not there is an error", onPage(async (page) => {
    const { error } = await page.evaluate(() => outcome(load("tiny-int8", { device: "webgpu" })));
    assert.equal(error.code, "device_unavailable");
  }));
});

describe("use", () => {
  test("hostile input is an error with a code, and the engine answers afterwards", onPage(async (page) => {
    const codes = await page.evaluate(async () => {
      await load("tiny-int8");
      const good = await sound("tw_cart");
      const attempts = {
        nothing: [new ArrayBuffer(0)],
        rubbish: [crypto.getRandomValues(new Uint8Array(5000))],
        truncated: [good.slice(0, 60)],
        not_a_number: [new Float32Array(16_000).fill(NaN)],
        no_samples: [new Float32Array(0)],
        an_hour: [new Float32Array(3600 * 16_000)],
        no_rate: [new Float32Array(16_000), { sampleRate: 0 }],
        text: ["hello"],
        language: [good, { language: "klingon" }],
        top_k: [good, { topK: -1 }],
        option: [good, { nonsense: 1 }],
        catalogue: [good, { catalogue: { products: 7 } }],
      };
      const codes = {};
      for (const [name, [sound, options]] of Object.entries(attempts)) {
        codes[name] = (await outcome(engine.recognize(sound, options))).error?.code;
      }
      codes.good = (await outcome(engine.recognize(good, { words: false }))).value?.top_predictions.length > 0;
      return codes;
    });
    assert.deepEqual(codes, {
      nothing: "empty_audio",
      rubbish: "unsupported_audio",
      truncated: codes.truncated,
      not_a_number: "invalid_samples",
      no_samples: "empty_audio",
      an_hour: "audio_too_long",
      no_rate: "invalid_parameter",
      text: "invalid_parameter",
      language: "unsupported_language",
      top_k: "invalid_parameter",
      option: "invalid_parameter",
      catalogue: codes.catalogue,
      good: true,
    });
    for (const name of ["truncated", "catalogue"]) assert.match(codes[name], /^[a-z_]+$/, name);
  }));

  test("an answer that nobody waits for any more does not disturb the next", onPage(async (page) => {
    const result = await page.evaluate(async () => {
      await load("tiny-int8", { words: true });
      const clip = await sound("tw_cart");
      const controller = new AbortController();
      const given_up = [1, 2, 3].map(() => outcome(engine.recognize(clip, { signal: controller.signal })));
      const kept = engine.recognize(clip, { words: false, requestId: "kept" });
      controller.abort();
      return { given_up: await Promise.all(given_up), kept: await kept };
    });
    assert.ok(result.given_up.every(({ error }) => error.code === "aborted"));
    assert.equal(result.kept.request_id, "kept");
  }));

  test("an engine that a command stopped starts anew, and the others are answered", async () => {
    const small = await launch(["--js-flags=--wasm-max-mem-pages=1000"]); // 62 MiB
    try {
      const page = await newPage(small, server);
      const [stopped, queued, later] = await page.evaluate(async () => {
        await load("tiny-int8");
        const clip = await sound("tw_cart");
        const long = new Float32Array(580 * 16_000).map((_, at) => Math.sin(at / 9) / 2);
        const first = outcome(engine.recognize(long));
        const queued = outcome(engine.recognize(clip, { words: false }));
        return [await first, await queued, await outcome(engine.recognize(clip, { words: false }))];
      });
      assert.equal(stopped.error?.code, "engine_stopped");
      assert.ok(queued.value, queued.error?.message);
      assert.deepEqual(queued.value.top_predictions, later.value.top_predictions);
    } finally {
      await small.close();
    }
  });

  test("disposing rejects what waits and what comes after", onPage(async (page) => {
    const codes = await page.evaluate(async () => {
      await load("tiny-int8");
      const clip = await sound("tw_cart");
      const waiting = outcome(engine.recognize(clip));
      engine.dispose();
      engine.dispose();
      return [await waiting, await outcome(engine.recognize(clip))].map(({ error }) => error.code);
    });
    assert.deepEqual(codes, ["disposed", "disposed"]);
  }));

  test("memory after 100 recognitions is what it was after 10", onPage(async (page) => {
    const { ten, hundred, heap } = await page.evaluate(async () => {
      await load("base-int4");
      const clip = await sound("tw_cart");
      const many = async (n) => {
        for (let at = 0; at < n; at++) await engine.recognize(clip, { words: false });
        return engine.memory();
      };
      return { ten: await many(10), hundred: await many(90), heap: performance.memory.usedJSHeapSize };
    });
    assert.equal(hundred, ten);
    console.log(`# intent stage of whisper-base: ${(ten / MIB).toFixed(0)} MiB of wasm memory, page's heap ${(heap / MIB).toFixed(1)} MiB`);
    assert.ok(ten + heap < 350 * MIB, `${ten} + ${heap}`);
  }));
});

test("the page of ten lines recognises a recorded command with the network switched off", async () => {
  const folder = new URL("../../examples/offline-page", import.meta.url).pathname;
  const pages = await serve({ page: folder });
  const page = await (await browser.newContext()).newPage();
  try {
    // As its README lays it out: the engine and a bundle beside the page.
    await page.route("**/page/okyeame/**", (route) => route.continue({ url: route.request().url().replace("/page/okyeame/", "/okyeame/") }));
    await page.route("**/page/model/**", (route) => route.continue({ url: route.request().url().replace("/page/model/", "/bundles/base-int4/") }));
    await page.goto(`${pages.url}/page/index.html`);
    await page.waitForSelector("input:enabled", { timeout: 60_000 });
    await page.context().setOffline(true);
    pages.close();
    const buffer = readFileSync(clip("tw_cart"));
    await page.setInputFiles("input", { name: "command.flac", mimeType: "audio/flac", buffer });
    await page.waitForFunction(() => document.querySelector("output").value.includes("%"), null, { timeout: 60_000 });
    assert.match(await page.inputValue("output").catch(() => page.textContent("output")), /add_to_cart/);
    if (process.env.SCREENSHOT) await page.screenshot({ path: process.env.SCREENSHOT });
  } finally {
    await page.context().close();
    pages.close();
  }
});
