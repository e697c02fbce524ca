// From an open microphone to answers: one command (`push`) or one after the other (`hands-free`).

import type { RecognizeOptions, SpeechEngine } from "../engine.js";
import { OkyeameError } from "../errors.js";
import type { Recognition } from "../recognition.js";
import { type Capture, openMicrophone } from "./capture.js";
import { Endpointer, type EndpointOptions } from "./endpoint.js";
import type { Vad } from "./vad.js";

export type ListeningState = "starting" | "listening" | "hearing" | "thinking" | "ended";

export interface ListenOptions extends EndpointOptions, Omit<RecognizeOptions, "sampleRate"> {
  /**
   * `push` (if nothing is said): one command, which ends with `stop()` or when the customer stops speaking.
   * `hands-free`: command after command, until `stop()` or a long silence.
   */
  mode?: "push" | "hands-free";
  /** Without a word for so long, the microphone is given back, ms; 8 s in `push`, 60 s in `hands-free`. */
  idleMs?: number;
  /** The microphone, as `navigator.mediaDevices.enumerateDevices` names it. */
  deviceId?: string;
}

export interface ListeningEvents {
  state: ListeningState;
  /** 0 to 1, 50 times a second: for a meter. */
  level: number;
  /** The answer to a command; the words are not in it yet. */
  intent: Recognition;
  /** The same command with its words, where they were asked for. */
  words: Recognition;
  error: OkyeameError;
  /** The microphone is released, and no event follows. */
  end: undefined;
}

export class Listening extends EventTarget {
  #state: ListeningState = "starting";
  #capture: Capture | undefined;
  #vad: Vad | undefined;
  #endpointer: Endpointer;
  #quietSince = performance.now();
  /** Commands that are being recognised. */
  #pending = new Set<Promise<void>>();
  #released = false;
  readonly #cancelled = new AbortController();

  /** Resolves when the microphone is released and the last answer is there. */
  readonly ended: Promise<void>;
  #end!: () => void;

  constructor(
    private readonly engine: SpeechEngine,
    private readonly options: ListenOptions,
  ) {
    super();
    this.#endpointer = new Endpointer(options);
    this.ended = new Promise((resolve) => (this.#end = resolve));
    const { signal } = options;
    signal?.addEventListener("abort", this.#onAbort, { once: true });
    globalThis.document?.addEventListener("visibilitychange", this.#onVisibility);
    if (signal?.aborted) queueMicrotask(() => this.cancel());
    else void this.#open();
  }

  get state(): ListeningState {
    return this.#state;
  }

  /** Listens to an event; gives the function that ends this. */
  on<Name extends keyof ListeningEvents>(name: Name, listener: (detail: ListeningEvents[Name]) => void): () => void {
    const onEvent = (event: Event) => listener((event as CustomEvent).detail);
    this.addEventListener(name, onEvent);
    return () => this.removeEventListener(name, onEvent);
  }

  /** Releases the microphone; what was said until now is still recognised. */
  stop(): void {
    const push = this.options.mode !== "hands-free";
    if (!this.#released && (push || this.#endpointer.speaking)) {
      const samples = this.#endpointer.take();
      if (samples.length) this.#recognize(samples); // nothing was heard before the microphone was open
    }
    this.#release();
  }

  /** Releases the microphone and gives up what is under way. */
  cancel(): void {
    this.#cancelled.abort(new OkyeameError("aborted", "it was given up"));
    this.#release();
  }

  async #open(): Promise<void> {
    try {
      // Without the detector a command ends with `stop()`: better than none.
      const vad = import("./vad_bundle.js").then(({ loadVad }) => loadVad()).catch(() => undefined);
      const events = { onFrame: this.#onFrame, onLost: (error: OkyeameError) => this.#fail(error) };
      const capture = await openMicrophone(events, this.options.deviceId);
      if (this.#released) {
        void vad.then((detector) => detector?.dispose());
        return capture.release();
      }
      this.#capture = capture;
      this.#vad = await vad;
      if (this.#released) return this.#vad?.dispose();
      this.#quietSince = performance.now();
      this.#set("listening");
    } catch (error) {
      this.#fail(OkyeameError.of(error));
    }
  }

  #onFrame = (frame: Float32Array<ArrayBuffer>) => {
    if (this.#released) return;
    const power = frame.reduce((sum, sample) => sum + sample * sample, 0) / frame.length;
    // -60 dB is nothing, -10 dB is loud
    this.#emit("level", Math.max(0, Math.min(1, (10 * Math.log10(power + 1e-9) + 60) / 50)));
    const event = this.#endpointer.push(frame, this.#vad?.isVoice(frame) ?? false);
    if (event?.type === "start") this.#set("hearing");
    if (this.#endpointer.speaking || this.#pending.size) this.#quietSince = performance.now();
    if (event?.type === "end") {
      this.#recognize(event.samples);
      if (this.options.mode !== "hands-free") this.#release();
    }
    const idleMs = this.options.idleMs ?? (this.options.mode === "hands-free" ? 60_000 : 8_000);
    if (performance.now() - this.#quietSince > idleMs) this.stop();
  };

  #recognize(samples: Float32Array<ArrayBuffer>): void {
    const work = this.#answer(samples)
      .catch((error) => {
        if (!this.#cancelled.signal.aborted) this.#emit("error", OkyeameError.of(error));
      })
      .finally(() => {
        this.#pending.delete(work);
        if (!this.#released && !this.#pending.size && !this.#endpointer.speaking) this.#set("listening");
      });
    this.#pending.add(work);
    this.#set("thinking");
  }

  async #answer(samples: Float32Array<ArrayBuffer>): Promise<void> {
    const { mode: _m, idleMs: _i, deviceId: _d, endSilenceMs: _e, maxMs: _x, words, signal: _s, ...options } = this.options;
    const asked = { ...options, sampleRate: 16_000, signal: this.#cancelled.signal };
    this.#emit("intent", await this.engine.recognize(samples, asked));
    if (words) this.#emit("words", await this.engine.recognize(samples, { ...asked, words: true }));
  }

  #release(): void {
    if (this.#released) return;
    this.#released = true;
    this.#capture?.release();
    this.#vad?.dispose();
    this.options.signal?.removeEventListener("abort", this.#onAbort);
    globalThis.document?.removeEventListener("visibilitychange", this.#onVisibility);
    void Promise.all(this.#pending).then(() => {
      this.#set("ended");
      this.#emit("end", undefined);
      this.#end();
    });
  }

  #fail(error: OkyeameError): void {
    if (this.#released) return;
    this.#emit("error", error);
    this.#release();
  }

  /** A page that nobody sees hears nobody. */
  #onVisibility = () => {
    if (document.visibilityState === "hidden") this.#fail(new OkyeameError("page_hidden", "the page was hidden, and the microphone given back"));
  };

  #onAbort = () => this.cancel();

  #set(state: ListeningState): void {
    if (this.#state === state || this.#state === "ended") return;
    this.#state = state;
    this.#emit("state", state);
  }

  #emit<Name extends keyof ListeningEvents>(name: Name, detail: ListeningEvents[Name]): void {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }
}
