// Recognition on this device, in a Web Worker: nothing that is said leaves it.

import { type Capabilities, probeCapabilities } from "./capabilities.js";
import { type Catalogue, checkOptions, type ProgressOptions, type RecognizeOptions, type Sound, type SpeechEngine, type TextOptions } from "./engine.js";
import { OkyeameError } from "./errors.js";
import type { ModelInfo, Recognition } from "./recognition.js";
import { SharedWork } from "./shared_work.js";
import { clipOf } from "./sound.js";
import type { Answer, Loaded, Work } from "./worker/protocol.js";

export interface LocalOptions {
  /** The address of a web bundle's `manifest.json`, as `okyeame export-web` makes it. */
  model: string | URL;
  /** `auto`: WebGPU if there is an adapter that is no software and answers a known sound as it should, else the CPU. */
  device?: "auto" | "wasm" | "webgpu";
  /**
   * In which numbers linear layers are multiplied: `int8`, on the CPU only, is faster than `f32`, takes less memory and moves
   * confidences a little. `auto` (if nothing is said) is `int8` on the CPU and `f32` on a GPU; with `int8`, `device: "auto"` is
   * the CPU. What it became stands in `info.dtype`.
   */
  dtype?: "auto" | "f32" | "int8";
  /** The words' stage at once; without it, it is fetched when words are first asked for. */
  words?: boolean;
  /** Bytes that may be fetched for a stage; more is refused before the first of them. */
  byteBudget?: number;
  /** The shop's own names. */
  catalogue?: Catalogue;
  language?: string;
}

type Device = NonNullable<LocalOptions["device"]>;
type Dtype = NonNullable<LocalOptions["dtype"]>;

interface Waiting {
  resolve: (value: unknown) => void;
  reject: (error: unknown) => void;
  onProgress: ProgressOptions["onProgress"];
  onStarting: (() => void) | undefined;
}

/** A GPU that takes longer to start, its shaders compiled and a known sound heard, is not worth waiting for. */
const GPU_START_MS = 30_000;
const tooSlow = () => new OkyeameError("device_unavailable", `webgpu did not answer within ${GPU_START_MS / 1000} s`);

/** After these the CPU may do better. */
const GPU_ERRORS = ["device_unavailable", "device_failed", "not_finite", "engine_stopped"];

export class LocalEngine implements SpeechEngine {
  #options: LocalOptions;
  #worker: Worker | undefined;
  #nextId = 1;
  #waiting = new Map<number, Waiting>();
  #loading = new SharedWork();
  #loadingWords = new SharedWork();
  #words = false;
  #disposed = false;
  #info: ModelInfo | undefined;
  #device: Loaded["device"] | undefined;
  /** Why the GPU is not asked any more. */
  #gpuFailure: string | undefined;

  constructor(options: LocalOptions) {
    const { device = "auto", dtype = "auto" } = options;
    oneOf("device", device, "auto", "wasm", "webgpu");
    oneOf("dtype", dtype, "auto", "f32", ...(device === "webgpu" ? [] : ["int8"])); // integers are the CPU's
    const base = globalThis.document?.baseURI ?? globalThis.location?.href;
    this.#options = { ...options, model: new URL(options.model, base) };
  }

  /** An engine that is ready. */
  static async load(model: string | URL, options: Omit<LocalOptions, "model"> & ProgressOptions = {}): Promise<LocalEngine> {
    const { onProgress, signal, ...rest } = options;
    const engine = new LocalEngine({ ...rest, model });
    try {
      await engine.ready({ ...(onProgress && { onProgress }), ...(signal && { signal }) });
    } catch (error) {
      engine.dispose();
      throw error;
    }
    return engine;
  }

  /** What the model is, as `GET /model-info` tells it; `undefined` until it is loaded. */
  get info() {
    return this.#info;
  }

  /** Whether words can be written without fetching anything before. */
  get hasWords() {
    return this.#words;
  }

  /** Where it computes and why there; `undefined` until it is loaded. */
  get device() {
    return this.#device;
  }

  /** Fetches the model and starts it; once, however often it is called. What was fetched before a failure is kept. */
  async ready(options: ProgressOptions = {}): Promise<void> {
    if (this.#disposed) throw disposed();
    await this.#loading.join((shared) => this.#start(shared), options);
  }

  async recognize(sound: Sound, options: RecognizeOptions = {}): Promise<Recognition> {
    checkOptions(options);
    const clip = await clipOf(sound, options.sampleRate);
    const stop = options.signal ? { signal: options.signal } : {};
    return this.#answeredBy(async () => {
      await this.ready(stop);
      if (options.words) await this.loadWords(stop);
      return this.#ask("recognize", { ...clip, options: this.#parameters(options) }, stop);
    });
  }

  async recognizeText(text: string, options: TextOptions = {}): Promise<Recognition> {
    checkOptions(options);
    const stop = options.signal ? { signal: options.signal } : {};
    return this.#answeredBy(async () => {
      await this.ready(stop);
      return this.#ask("text", { text, options: this.#parameters(options) }, stop);
    });
  }

  /** What `ask` gives, by another worker where the first one is lost. */
  async #answeredBy(ask: () => Promise<Recognition>): Promise<Recognition> {
    try {
      return await ask();
    } catch (error) {
      const { code, message } = error as OkyeameError;
      const onGpu = this.#device?.name === "webgpu";
      const another = code === "engine_restarting" || (onGpu && GPU_ERRORS.includes(code));
      if (this.#disposed || (!another && code !== "engine_stopped")) throw error;
      // A lost GPU is left for the CPU, now and from now on. An engine that stopped is started anew; what stopped it on
      // the CPU is not asked again.
      if (code !== "engine_restarting") this.#restart(message, onGpu);
      if (!another) throw error;
      return ask();
    }
  }

  /** Fetches the second stage: what words need. */
  async loadWords(options: ProgressOptions = {}): Promise<void> {
    await this.ready(options);
    if (this.#words) return;
    await this.#loadingWords.join(async (shared) => {
      const { byteBudget } = this.#options;
      this.#info = await this.#ask("words", { byteBudget }, shared);
      this.#words = true;
    }, options);
  }

  /** Bytes of WebAssembly memory that the engine has taken. */
  async memory(): Promise<number> {
    return (await this.#ask("memory", {})).wasmBytes;
  }

  dispose(): void {
    this.#disposed = true;
    this.#end(disposed());
  }

  #parameters({ topK, language, words, beamSize, catalogue, filename, requestId }: RecognizeOptions) {
    const names = catalogue ?? this.#options.catalogue;
    const all = {
      top_k: topK,
      language: language ?? this.#options.language,
      transcribe: words ?? false,
      beam_size: beamSize,
      catalogue: names && JSON.stringify(names),
      filename,
      request_id: requestId,
    };
    return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined));
  }

  /** On the GPU if that can be trusted, else on the CPU. */
  async #start(shared: Required<ProgressOptions>): Promise<void> {
    const { device = "auto", dtype = "auto" } = this.#options;
    const capabilities = await probeCapabilities();
    if (!capabilities.wasm) {
      throw new OkyeameError("wasm_simd_missing", "this browser has no WebAssembly with 128-bit vectors; a server can answer for it");
    }
    let reason = this.#gpuFailure ?? whyNoGpu(device, dtype, capabilities);
    if (!reason) {
      try {
        return await this.#startOn("webgpu", device === "auto", shared);
      } catch (error) {
        // The bundle's own faults are the same on every device.
        if (device === "webgpu" || shared.signal.aborted || !GPU_ERRORS.includes((error as OkyeameError).code)) throw error;
        reason = (error as Error).message;
      }
    } else if (device === "webgpu" && !this.#gpuFailure) {
      throw new OkyeameError("device_unavailable", `the device 'webgpu' cannot be used: ${reason}`);
    }
    await this.#startOn("wasm", false, shared);
    this.#device = { name: "wasm", reason };
  }

  async #startOn(device: "wasm" | "webgpu", watched: boolean, shared: Required<ProgressOptions>): Promise<void> {
    const worker =
      device === "webgpu"
        ? new Worker(new URL("./worker_webgpu.js", import.meta.url), { type: "module" })
        : new Worker(new URL("./worker_cpu.js", import.meta.url), { type: "module" });
    worker.onmessage = ({ data }: MessageEvent<Answer>) => this.#answered(data);
    worker.onerror = (event) => {
      event.preventDefault();
      if (this.#worker !== worker) return; // another has taken its place
      this.#end(new OkyeameError("engine_stopped", event.message || `the worker ${device} cannot be loaded`));
    };
    this.#worker = worker;
    let timer: ReturnType<typeof setTimeout> | undefined;
    // A broken driver may never answer, and a worker that waits for it cannot be asked.
    const onStarting = () => {
      if (watched) timer = setTimeout(() => this.#end(tooSlow()), GPU_START_MS);
    };
    const { model, words = false, byteBudget, dtype = "auto" } = this.#options;
    const request = { manifest: String(model), words: words || this.#words, byteBudget, dtype };
    try {
      const { info, device } = await this.#ask("load", request, shared, onStarting);
      this.#info = info;
      this.#device = device;
      this.#words = request.words;
    } catch (error) {
      if (this.#worker === worker) this.#end(error); // a worker that could not load is of no use
      throw error;
    } finally {
      clearTimeout(timer);
    }
  }

  #restart(cause: string, onGpu: boolean) {
    this.#end(new OkyeameError("engine_restarting", cause));
    if (onGpu) this.#gpuFailure = `webgpu failed: ${cause}`;
    this.#loading.forget();
    this.#loadingWords.forget();
    this.ready().catch(() => {}); // whoever asks next is told
  }

  #ask<Name extends keyof Work>(
    type: Name,
    message: Parameters<Work[Name]>[0],
    { onProgress, signal }: ProgressOptions = {},
    onStarting?: () => void,
  ): Promise<ReturnType<Work[Name]>> {
    if (this.#disposed) return Promise.reject(disposed());
    if (!this.#worker) return Promise.reject(new OkyeameError("engine_restarting", "the engine is being restarted"));
    if (signal?.aborted) return Promise.reject(OkyeameError.of(signal.reason));
    const id = this.#nextId++;
    const { promise, resolve, reject } = withResolvers<ReturnType<Work[Name]>>();
    const onAbort = () => {
      // What runs already runs to its end; nobody waits for it.
      this.#worker?.postMessage({ type: "cancel", of: id });
      this.#waiting.delete(id);
      reject(OkyeameError.of(signal!.reason));
    };
    signal?.addEventListener("abort", onAbort, { once: true });
    this.#waiting.set(id, { resolve: resolve as (value: unknown) => void, reject, onProgress, onStarting });
    this.#worker.postMessage({ ...message, id, type });
    return promise.finally(() => signal?.removeEventListener("abort", onAbort));
  }

  #answered(answer: Answer) {
    const waiting = this.#waiting.get(answer.id);
    if (!waiting) return;
    if ("progress" in answer) return waiting.onProgress?.(answer.progress);
    if ("starting" in answer) return waiting.onStarting?.();
    this.#waiting.delete(answer.id);
    if ("error" in answer) waiting.reject(new OkyeameError(answer.error.code, answer.error.message));
    else waiting.resolve(answer.value);
  }

  #end(reason: unknown) {
    this.#worker?.terminate();
    this.#worker = undefined;
    const waiting = [...this.#waiting.values()];
    this.#waiting.clear();
    waiting.forEach(({ reject }) => reject(reason));
  }
}

function oneOf(name: string, value: string, ...choices: string[]) {
  if (!choices.includes(value)) throw new OkyeameError("invalid_parameter", `${name}: ${choices.join(", ")}`);
}

/** Why the GPU is not to be tried; nothing if it is. A software adapter is slower than this project's own CPU kernels. */
function whyNoGpu(device: Device, dtype: Dtype, { webgpu, softwareGpu }: Capabilities): string | undefined {
  if (device === "wasm") return "asked for";
  if (dtype === "int8") return "8-bit integers are for the CPU";
  if (webgpu !== true) return webgpu;
  if (device === "auto" && softwareGpu) return "only a software adapter is there, which is slower than the CPU";
  return undefined;
}

const disposed = () => new OkyeameError("disposed", "the engine was disposed of");

/** `Promise.withResolvers`, which phones of 2023 do not have. */
function withResolvers<T>() {
  let resolve!: (value: T) => void;
  let reject!: (error: unknown) => void;
  const promise = new Promise<T>((yes, no) => ([resolve, reject] = [yes, no]));
  return { promise, resolve, reject };
}
