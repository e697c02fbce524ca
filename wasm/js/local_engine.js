// Recognition in this browser, in a Web Worker:
//
//   import { LocalEngine } from "./local_engine.js";
//   const engine = await LocalEngine.load("model/manifest.json");
//   const answer = await engine.recognize(await recording.arrayBuffer());
//   console.log(answer.top_predictions[0].intent, answer.accepted);
//
// Nothing that is said leaves the device.

import { engineError } from "./delivery.js";

/**
 * @typedef {object} LoadOptions
 * @property {"auto" | "wasm" | "webgpu"} [device] "auto": WebGPU if there is an adapter that answers a known sound as it
 *   should, else the CPU
 * @property {boolean} [words] also load the words' stage at once; it may follow by `loadWords`
 * @property {(progress: {loaded: number, total: number, from_cache: number}) => void} [onProgress] bytes
 * @property {AbortSignal} [signal]
 */

/**
 * @typedef {object} RecognizeOptions as the HTTP API's parameters
 * @property {number} [top_k]
 * @property {string} [language]
 * @property {boolean} [transcribe] the words too, if their stage is loaded
 * @property {number} [beam_size]
 * @property {string} [catalogue] the shop's own names, JSON
 * @property {string} [filename]
 * @property {string} [request_id]
 */

export class LocalEngine {
  #worker;
  #nextId = 1;
  /** @type {Map<number, {resolve: Function, reject: Function, onProgress?: Function}>} */
  #waiting = new Map();
  #load;
  #words = false;
  /** A restart after a lost device, while it is under way. */
  #restarting;
  #disposed = false;

  /** What the model is, as `GET /model-info` tells it. */
  info;
  /** Where it computes and why there: `{name: "wasm" | "webgpu", reason}`. */
  device;

  /**
   * Starts a worker, fetches the intent stage of a bundle, and waits until it is ready to answer.
   *
   * @param {string | URL} manifest the address of `manifest.json`
   * @param {LoadOptions} [options]
   */
  static async load(manifest, { device = "auto", words = false, onProgress, signal } = {}) {
    if (!["auto", "wasm", "webgpu"].includes(device)) {
      throw engineError("invalid_parameter", "device: 'auto', 'wasm' or 'webgpu'");
    }
    const engine = new LocalEngine();
    engine.#load = { manifest: new URL(manifest, document.baseURI).href, device, words };
    try {
      await engine.#start({ onProgress, signal });
    } catch (error) {
      engine.dispose();
      throw error;
    }
    return engine;
  }

  /**
   * Recognises one command: a sound file's bytes, or samples of one channel.
   *
   * @param {ArrayBuffer | ArrayBufferView | Blob | Float32Array | AudioBuffer} sound
   * @param {RecognizeOptions & {sampleRate?: number, signal?: AbortSignal}} [options] `sampleRate` in Hz, for a Float32Array
   * @returns {Promise<object>} the HTTP API's `Recognition`
   */
  async recognize(sound, { sampleRate = 16_000, signal, ...options } = {}) {
    const message = await messageOf(sound, sampleRate);
    const ask = () => this.#ask("recognize", { ...message, options }, { signal });
    await this.#restarting;
    try {
      return await ask();
    } catch (error) {
      const onGpu = this.device.name === "webgpu";
      const another = error.code === "engine_restarting" || (onGpu && GPU_ERRORS.includes(error.code));
      if (this.#disposed || (!another && error.code !== "engine_stopped")) throw error;
      // A lost GPU is left for the CPU, now and from now on. An engine that stopped is started anew; what stopped it on
      // the CPU is not asked again.
      this.#restarting ??= this.#restart(error, onGpu).finally(() => (this.#restarting = undefined));
      await this.#restarting;
      if (!another) throw error;
      return ask();
    }
  }

  /** Fetches the second stage: answers to `transcribe: true` have their words from then on. */
  async loadWords({ onProgress, signal } = {}) {
    if (this.#words) return;
    this.info = await this.#ask("load_words", {}, { onProgress, signal });
    this.#words = true;
  }

  /** Bytes of WebAssembly memory that the engine has taken. */
  async memory() {
    return this.#ask("memory", {});
  }

  /** Ends the worker and gives its memory back. What is under way is rejected. */
  dispose() {
    this.#disposed = true;
    this.#end(engineError("disposed", "the engine was disposed of"));
  }

  async #start(options) {
    const worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
    worker.onmessage = ({ data }) => this.#answered(data);
    worker.onerror = (event) => {
      event.preventDefault();
      this.#end(engineError("engine_stopped", event.message || "the worker cannot be loaded"));
    };
    this.#worker = worker;
    const { onProgress, signal } = options;
    let timer;
    const watched = (progress) => {
      if (!progress.starting) return onProgress?.(progress);
      clearTimeout(timer);
      // A broken driver may never answer, and a worker that waits for it cannot be asked.
      if (progress.starting === "webgpu" && this.#load.device === "auto") timer = setTimeout(() => this.#end(TOO_SLOW), GPU_START_MS);
    };
    const loaded = this.#ask("load", this.#load, { onProgress: watched, signal });
    try {
      const { info, device } = await loaded.finally(() => clearTimeout(timer));
      Object.assign(this, { info, device });
    } catch (error) {
      if (error !== TOO_SLOW) throw error;
      this.#load = { ...this.#load, device: "wasm" };
      await this.#start(options);
      this.device = { ...this.device, reason: error.message };
    }
    this.#words = this.#load.words;
  }

  async #restart(cause, onGpu) {
    this.#end(engineError("engine_restarting", cause.message));
    this.#load = { ...this.#load, device: "wasm", words: this.#words };
    await this.#start({});
    if (onGpu) this.device = { ...this.device, reason: `webgpu failed: ${cause.message}` };
  }

  #ask(type, message, { onProgress, signal } = {}) {
    if (!this.#worker) return Promise.reject(engineError("disposed", "the engine was disposed of"));
    if (signal?.aborted) return Promise.reject(signal.reason);
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      const onAbort = () => {
        // What runs already runs to its end; nobody waits for it.
        this.#worker?.postMessage({ id: 0, type: "cancel", of: id });
        this.#waiting.delete(id);
        reject(signal.reason);
      };
      const settled = (settle) => (value) => {
        signal?.removeEventListener("abort", onAbort);
        settle(value);
      };
      this.#waiting.set(id, { resolve: settled(resolve), reject: settled(reject), onProgress });
      signal?.addEventListener("abort", onAbort, { once: true });
      this.#worker.postMessage({ id, type, ...message });
    });
  }

  #answered({ id, value, error, progress }) {
    const waiting = this.#waiting.get(id);
    if (!waiting) return;
    if (progress) {
      waiting.onProgress?.(progress);
      return;
    }
    this.#waiting.delete(id);
    if (error) waiting.reject(engineError(error.code, error.message));
    else waiting.resolve(value);
  }

  #end(reason) {
    this.#worker?.terminate();
    this.#worker = undefined;
    const waiting = [...this.#waiting.values()];
    this.#waiting.clear();
    waiting.forEach(({ reject }) => reject(reason));
  }
}

/** A GPU that takes longer to start, its shaders compiled and a known sound heard, is not worth waiting for. */
const GPU_START_MS = 30_000;
const TOO_SLOW = engineError("device_unavailable", `webgpu did not answer within ${GPU_START_MS / 1000} s`);

/** After these the CPU may do better. */
const GPU_ERRORS = ["device_failed", "not_finite", "engine_stopped"];

/** What the worker is sent: samples and their rate, or a file's bytes. The caller keeps what is theirs. */
async function messageOf(sound, sampleRate) {
  if (sound instanceof Float32Array) return { samples: sound, sampleRate };
  if (typeof AudioBuffer !== "undefined" && sound instanceof AudioBuffer) {
    return { samples: oneChannel(sound), sampleRate: sound.sampleRate };
  }
  if (sound instanceof Blob) return { bytes: await sound.arrayBuffer() };
  if (sound instanceof ArrayBuffer) return { bytes: sound };
  if (ArrayBuffer.isView(sound)) {
    return { bytes: sound.buffer.slice(sound.byteOffset, sound.byteOffset + sound.byteLength) };
  }
  throw engineError("invalid_parameter", "sound: a Blob, an ArrayBuffer, a typed array of bytes, a Float32Array or an AudioBuffer");
}

/** The mean of an AudioBuffer's channels. */
function oneChannel(buffer) {
  const mean = new Float32Array(buffer.length);
  for (let channel = 0; channel < buffer.numberOfChannels; channel++) {
    const samples = buffer.getChannelData(channel);
    for (let at = 0; at < mean.length; at++) mean[at] += samples[at] / buffer.numberOfChannels;
  }
  return mean;
}
