// This project beside transformers.js, in one browser, on the same clips and the same weights.
//
//   node run.js [--ours DTYPE]... [--only-ours] [--bundle DELIVERY] [--rounds N] [--skip-webgpu] [--out FOLDER]
//               [--onnx FOLDER_WITH_whisper-base]
//
// --ours f32 --ours int8 measures this project's engine on wasm in both; without it, in f32. --only-ours leaves transformers.js and
// WebGPU out, and needs neither its files nor Python. --bundle: f16, int8 or int4.
// Each engine has a fresh browser: its first answer is a customer's first visit, with an empty cache. Then the engines
// answer the same clips, several times each; a median counts. Bytes are what the server sent, uncompressed.

import { execFileSync } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { cpus } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { SOFTWARE_WEBGPU, bundle, launch, okyeame, root, serve, target } from "../../tests/browser/harness.js";

const { values: args } = parseArgs({
  options: {
    ours: { type: "string", multiple: true, default: ["f32"] },
    "only-ours": { type: "boolean", default: false },
    bundle: { type: "string", default: "int4" },
    rounds: { type: "string", default: "5" },
    "skip-webgpu": { type: "boolean", default: false },
    out: { type: "string", default: join(root, "bench", "results") },
    onnx: { type: "string", default: join(target, "web-bench") },
  },
});
for (const dtype of args.ours) {
  if (!["f32", "int8", "auto"].includes(dtype)) throw new Error(`--ours ${dtype}: f32, int8 or auto`);
}
if (!["f16", "int8", "int4"].includes(args.bundle)) throw new Error(`--bundle ${args.bundle}: f16, int8 or int4`);
const ROUNDS = Number(args.rounds);
const CLIPS = [
  { clip: "en_short", language: "en", whisper: "english" },
  { clip: "tw_shoes", language: "tw", whisper: "swahili" }, // Whisper has no Twi; this project writes it as Swahili too
];

const modules = join(root, "bench", "web", "node_modules");
const transformers = join(modules, "@huggingface", "transformers");
const ort = join(modules, "onnxruntime-web", "dist");

/** What runs in the page: `start()` until the engine is ready, then `answer(clip)`. */
const ENGINES = {
  okyeame: ({ device, words, dtype = "auto" }) => ({
    setup: `const { LocalEngine } = await import("/okyeame/index.js");
      window.start = () => LocalEngine.load("/bundles/base-${args.bundle}/manifest.json", { device: "${device}", words: ${words}, dtype: "${dtype}" });
      window.computesIn = (engine) => engine.info.dtype;
      window.wasmBytes = (engine) => engine.memory();
      window.answer = (engine, sound, { language }) => engine.recognize(sound.slice(0), ${
        words ? "{ words: true, language }" : "{}"
      });
      window.said = (a) => ${words ? "a.transcription" : "a.top_predictions[0].intent"};
      window.decode = async (bytes) => bytes;`,
  }),
  transformers: ({ device, dtype }) => ({
    setup: `const { pipeline, env } = await import("/transformers/dist/transformers.min.js");
      env.allowRemoteModels = false;
      env.allowLocalModels = true;
      env.localModelPath = "/onnx/";
      env.backends.onnx.wasm.numThreads = 1;
      env.backends.onnx.wasm.wasmPaths = "/ort/";
      window.start = () => pipeline("automatic-speech-recognition", "whisper-base", { device: "${device}", dtype: "${dtype}" });
      window.answer = (engine, sound, { whisper }) => engine(sound, { language: whisper, task: "transcribe" });
      window.said = (a) => a.text;
      window.decode = async (bytes) =>
        (await new OfflineAudioContext(1, 1, 16000).decodeAudioData(bytes.slice(0))).getChannelData(0);`,
  }),
};

const CASES = [
  ...args.ours.flatMap((dtype) => [
    { name: `Okyeame, intent, wasm, ${dtype}`, dtype, ours: true, engine: ENGINES.okyeame({ device: "wasm", words: false, dtype }) },
    { name: `Okyeame, words, wasm, ${dtype}`, dtype, ours: true, engine: ENGINES.okyeame({ device: "wasm", words: true, dtype }) },
  ]),
  { name: "transformers.js, words, wasm, q8", engine: ENGINES.transformers({ device: "wasm", dtype: "q8" }) },
  { name: "transformers.js, words, wasm, fp32", engine: ENGINES.transformers({ device: "wasm", dtype: "fp32" }) },
  { name: "Okyeame, intent, WebGPU (software)", engine: ENGINES.okyeame({ device: "webgpu", words: false }), gpu: true, rounds: 1 },
  { name: "transformers.js, words, WebGPU (software), fp32", engine: ENGINES.transformers({ device: "webgpu", dtype: "fp32" }), gpu: true, rounds: 1 },
];

const median = (values) => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)];

/** The most memory that the browser's page process has had, in bytes. */
async function peakMemory(browser) {
  const session = await browser.newBrowserCDPSession();
  const { processInfo } = await session.send("SystemInfo.getProcessInfo");
  const peaks = processInfo
    .filter(({ type }) => type === "renderer")
    .map(({ id }) => Number(/VmHWM:\s+(\d+)/.exec(readFileSync(`/proc/${id}/status`, "utf8"))?.[1] ?? 0) * 1024);
  return Math.max(...peaks);
}

async function measure({ name, engine, gpu, dtype, rounds = ROUNDS }) {
  const server = await serve({ transformers, ort, onnx: args.onnx });
  const browser = await launch(gpu ? SOFTWARE_WEBGPU : []);
  try {
    const page = await (await browser.newContext()).newPage();
    page.setDefaultTimeout(0);
    await page.goto(server.url);
    const begun = Date.now();
    server.sent.bytes = 0;
    await page.evaluate(`(async () => { ${engine.setup} })()`);
    const first = await page.evaluate(async (clip) => {
      const sound = await decode(await (await fetch(`/clips/${clip.clip}.flac`)).arrayBuffer());
      window.engine = await start();
      return said(await answer(engine, sound, clip));
    }, CLIPS[0]);
    const result = { name, gpu: Boolean(gpu), first_answer_s: (Date.now() - begun) / 1e3, first_bytes: server.sent.bytes, first, clips: {} };
    result.dtype = await page.evaluate(() => window.computesIn?.(engine));
    if (dtype && dtype !== "auto" && result.dtype !== dtype) throw new Error(`it was asked for ${dtype} and computes in ${result.dtype}`);
    for (const clip of gpu ? CLIPS.slice(0, 1) : CLIPS) {
      const { ms, text } = await page.evaluate(async ({ clip, rounds }) => {
        const sound = await decode(await (await fetch(`/clips/${clip.clip}.flac`)).arrayBuffer());
        const ms = [];
        let text;
        for (let at = 0; at < rounds; at++) {
          const begun = performance.now();
          text = said(await answer(engine, sound, clip));
          ms.push(performance.now() - begun);
        }
        return { ms, text };
      }, { clip, rounds });
      result.clips[clip.clip] = { median_ms: median(ms), ms, text };
    }
    result.wasm_bytes = await page.evaluate(() => window.wasmBytes?.(engine));
    result.peak_memory_bytes = await peakMemory(browser);
    return result;
  } finally {
    await browser.close();
    server.close();
  }
}

const mib = (bytes) => (bytes === undefined ? "–" : (bytes / 2 ** 20).toFixed(1));
const ms = (value) => (value === undefined ? "–" : value.toFixed(0));

function table({ results, made }) {
  const clips = CLIPS.map(({ clip }) => clip);
  const rival = (gpu) => results.find((r) => r.name.startsWith("transformers.js") && r.gpu === gpu);
  const ratio = (r, clip) => {
    const [ours, theirs] = [r.clips[clip]?.median_ms, rival(r.gpu)?.clips[clip]?.median_ms];
    return ours && theirs ? `${(theirs / ours).toFixed(1)}×` : "–";
  };
  const rows = results.map((r) => [
    r.name, r.failed ? "failed" : mib(r.first_bytes), r.failed ? "–" : r.first_answer_s.toFixed(1),
    ...clips.flatMap((clip) => [ms(r.clips[clip]?.median_ms), ratio(r, clip)]), mib(r.wasm_bytes), mib(r.peak_memory_bytes),
  ]);
  const head = ["engine", "MiB to the first answer", "s to the first answer", ...clips.flatMap((clip) => [`${clip}, ms`, "faster than theirs"]), "wasm memory, MiB", "peak memory, MiB"];
  const line = (cells) => `| ${cells.join(" | ")} |`;
  return [
    `# In the browser: ${made.cpu}, ${made.cores} cores, ${made.date}`, "",
    `\`make bench-web BENCH_ARGS="${process.argv.slice(2).join(" ")}"\`: ${made.browser}, one wasm thread, ${
      made.transformers ? `transformers.js ${made.transformers}, ` : ""
    }whisper-base (delivery ${args.bundle} for ours), medians of ${ROUNDS}.`,
    "\"Faster than theirs\" is against transformers.js's first row on the same device.", "",
    line(head), line(head.map(() => "---")), ...rows.map(line), "",
    ...results.filter((r) => r.failed).map((r) => `- ${r.name} failed: ${r.failed}`),
    ...results.flatMap((r) => Object.entries(r.clips).map(([clip, { text }]) => `- ${r.name}, ${clip}: ${text}`)), "",
  ].join("\n");
}

bundle("base", args.bundle);
const results = [];
for (const one of CASES.filter(({ gpu, ours }) => (args["only-ours"] ? ours : !(gpu && args["skip-webgpu"])))) {
  console.log(`${one.name} …`);
  try {
    const result = await measure(one);
    results.push(result);
    console.log(`  first answer ${result.first_answer_s.toFixed(1)} s, ${mib(result.first_bytes)} MiB; ` +
      Object.entries(result.clips).map(([clip, { median_ms, text }]) => `${clip} ${median_ms.toFixed(0)} ms (${text})`).join("; "));
  } catch (error) {
    const reason = error.message.split("\n")[0];
    results.push({ name: one.name, gpu: Boolean(one.gpu), failed: reason, clips: {} });
    console.error(`  failed: ${reason}`);
  }
}
const browser = await launch();
const made = {
  date: new Date().toISOString().slice(0, 10),
  cpu: cpus()[0].model,
  cores: cpus().length,
  browser: `Chromium ${browser.version()}`,
  transformers: args["only-ours"] ? undefined : JSON.parse(readFileSync(join(transformers, "package.json"))).version,
  okyeame: execFileSync(okyeame, ["--version"], { encoding: "utf8" }).trim(),
};
await browser.close();
mkdirSync(args.out, { recursive: true });
const stem = join(args.out, `web-${args["only-ours"] ? "ours-" : ""}${made.date}-${made.cpu.replace(/[^A-Za-z0-9]+/g, "-")}-${made.cores}`);
writeFileSync(`${stem}.json`, `${JSON.stringify({ made, results }, null, 1)}\n`);
writeFileSync(`${stem}.md`, table({ results, made }));
console.log(`written: ${stem}.md`);
