// The worker in which an engine lives. `local_engine.js` speaks to it; a page does not.
//
// Every message has an `id` and a `type`; the answer has the same `id` and either `value` or `error` ({code, message}).
// `load` also sends `{id, progress}`.

import { engineError, fetchParts, manifestOf } from "./delivery.js";

/** The engine, once it is loaded. @type {import("./okyeame.js").Engine | undefined} */
let engine;
/** Whether the module trapped: nothing of it can be used again. */
let stopped = false;
/** What the engine's module gives beside it. */
let wasm;
/** Where the bundle lies. @type {URL} */
let base;
/** What was begun and can be given up, by id. @type {Map<number, AbortController>} */
const underWay = new Map();

// A module of 16 bytes of instructions: `v128.const; i8x16.popcnt`, which only 128-bit vectors have.
const SIMD = new Uint8Array([
  0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11,
]);

/** What WebGPU must offer: the largest matrix of a model in one buffer, and groups as the kernels have them. */
const LIMITS = {
  maxBufferSize: 256 << 20,
  maxStorageBufferBindingSize: 128 << 20,
  maxComputeInvocationsPerWorkgroup: 256,
  maxStorageBuffersPerShaderStage: 8,
};

/** Why the GPU is not to be tried; nothing if it is. A software adapter is slower than this project's own CPU kernels. */
async function whyNoGpu(device) {
  if (device === "wasm") return "asked for";
  if (!navigator.gpu) return "this browser has no WebGPU";
  const adapter = await navigator.gpu.requestAdapter({ powerPreference: "high-performance" }).catch(() => null);
  if (!adapter) return "this browser offers no graphics adapter";
  if (device === "auto" && (adapter.info?.isFallbackAdapter ?? adapter.isFallbackAdapter)) {
    return "only a software adapter is there, which is slower than the CPU";
  }
  const missing = Object.keys(LIMITS).find((name) => !(adapter.limits[name] >= LIMITS[name]));
  return missing && `the graphics adapter's ${missing} is ${adapter.limits[missing]}, which is too small`;
}

/** The module to take, `{name, reason}`: with `okyeame`, why not the other. */
async function chooseModule(device) {
  if (typeof WebAssembly !== "object" || !WebAssembly.validate(SIMD)) {
    throw engineError("wasm_simd_missing", "this browser has no WebAssembly with 128-bit vectors; a server can answer for it");
  }
  const reason = await whyNoGpu(device);
  if (!reason) return { name: "okyeame_webgpu" };
  if (device === "webgpu") throw engineError("device_unavailable", `the device 'webgpu' cannot be used: ${reason}`);
  return { name: "okyeame", reason };
}

async function importModule(name) {
  const module = await import(`./${name}.js`);
  await module.default();
  return module;
}

/** The parts of a stage, which must be there. */
function partsOf(bundle, stage) {
  const parts = bundle.parts(stage);
  if (!parts.length) throw engineError("unsupported_model", `this bundle has no stage '${stage}'`);
  return parts;
}

/** Starts on the GPU if that can be trusted, else on the CPU, and keeps the reason. */
async function load({ manifest, device, words }, signal, onProgress) {
  if (engine) throw engineError("invalid_parameter", "this engine is loaded already");
  const chosen = await chooseModule(device);
  let fallback = chosen.reason;
  base = new URL(manifest, self.location.href);
  const bytes = await manifestOf(base, signal);
  const stages = words ? ["intent", "words"] : ["intent"];
  /** Parts that one module took, for another. */
  const held = [];
  const begin = async (name, device) => {
    const module = await importModule(name);
    const loader = new module.Loader(bytes);
    try {
      if (held.length) {
        held.forEach(([file, part]) => loader.add(file, part));
      } else {
        const parts = stages.flatMap((stage) => partsOf(loader, stage));
        const add = (file, part) => {
          loader.add(file, part);
          held.push([file, part]);
        };
        await fetchParts(base, parts, add, { signal, onProgress });
      }
    } catch (error) {
      loader.free();
      throw error;
    }
    onProgress({ starting: device });
    engine = await orTrap(loader.start({ device, words })); // uses the loader up, also where it fails
    wasm = module;
  };
  if (chosen.name === "okyeame_webgpu") {
    try {
      await begin("okyeame_webgpu", "webgpu");
    } catch (error) {
      // The bundle's own faults are the same on every device.
      if (device === "webgpu" || signal.aborted || !isOfTheDevice(error)) throw error;
      fallback = error.code ? error.message : `webgpu stopped the engine (${error.message})`;
    }
  }
  if (!engine) await begin("okyeame", "wasm");
  const { name, reason } = engine.device();
  return { info: engine.info(), device: { name, reason: fallback ?? reason } };
}

/** Whether another device may do better. */
const isOfTheDevice = (error) =>
  error instanceof WebAssembly.RuntimeError || ["device_unavailable", "device_failed", "not_finite"].includes(error.code);

const work = {
  load,
  async recognize({ samples, sampleRate, bytes, options }) {
    const loaded = needed();
    const sound = bytes ? wasm.decode_audio(new Uint8Array(bytes)) : samples;
    return orTrap(loaded.recognize(sound, bytes ? 16_000 : sampleRate, options));
  },
  async load_words(_, signal, onProgress) {
    const loaded = needed();
    const add = (file, part) => loaded.add(file, part);
    await fetchParts(base, partsOf(loaded, "words"), add, { signal, onProgress });
    loaded.load_words();
    return loaded.info();
  },
  async memory() {
    return { wasm_bytes: wasm ? (await wasm.default()).memory.buffer.byteLength : 0 };
  },
};

function needed() {
  if (stopped) throw engineError("engine_restarting", "the engine stopped at an earlier command");
  if (!engine) throw engineError("model_not_found", "no model is loaded; call load first");
  return engine;
}

/** A trap inside of an awaited call is nobody's rejection but an error of the whole worker: here it becomes one. */
let onTrap;
self.addEventListener("error", (event) => {
  event.preventDefault();
  onTrap?.(event.error ?? new WebAssembly.RuntimeError(event.message));
});
const orTrap = (promise) => Promise.race([promise, new Promise((_, reject) => (onTrap = reject))]);

/** One after the other: an engine has one thread. */
let last = Promise.resolve();

self.onmessage = ({ data: { id, type, ...message } }) => {
  if (type === "cancel") {
    underWay.get(message.of)?.abort();
    return;
  }
  const controller = new AbortController();
  underWay.set(id, controller);
  const onProgress = (progress) => self.postMessage({ id, progress });
  last = last.then(async () => {
    try {
      controller.signal.throwIfAborted();
      const value = await work[type](message, controller.signal, onProgress);
      self.postMessage({ id, value });
    } catch (error) {
      self.postMessage({ id, error: plain(error) });
    } finally {
      underWay.delete(id);
    }
  });
};

/** An error as a message carries it. */
function plain(error) {
  if (error instanceof WebAssembly.RuntimeError) {
    stopped = true;
    return { code: "engine_stopped", message: `the engine stopped (${error.message}); it may have had too little memory` };
  }
  if (error?.name === "AbortError") return { code: "aborted", message: "it was given up" };
  return { code: error?.code ?? "internal", message: error?.message ?? String(error) };
}
