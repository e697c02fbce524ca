// Where a command begins and ends in a stream of frames. A state machine over "voice or not": no audio, no clock.

import { FRAME_MS, FRAME_SAMPLES } from "./frames.js";

export interface EndpointOptions {
  /** Silence that ends a command, ms: less cuts people off who think, more makes everybody wait. */
  endSilenceMs?: number;
  /** The longest command, ms. */
  maxMs?: number;
}

/** A command begins when this much of the last 160 ms is voice: a click or a cough is shorter. */
const START_FRAMES = 5;
const START_WINDOW = 8;
/** What was heard before that belongs to it: a first consonant is no voice, ms. */
const PRE_ROLL_MS = 400;

export type EndpointEvent = { type: "start" } | { type: "end"; samples: Float32Array<ArrayBuffer> } | undefined;

export class Endpointer {
  readonly #endFrames: number;
  readonly #maxFrames: number;
  #frames: Float32Array[] = [];
  #voice: boolean[] = [];
  #speaking = false;
  #silence = 0;

  constructor({ endSilenceMs = 700, maxMs = 12_000 }: EndpointOptions = {}) {
    this.#endFrames = Math.max(1, Math.round(endSilenceMs / FRAME_MS));
    this.#maxFrames = Math.max(1, Math.round(maxMs / FRAME_MS));
  }

  /** Whether a command is being heard. */
  get speaking(): boolean {
    return this.#speaking;
  }

  push(frame: Float32Array, isVoice: boolean): EndpointEvent {
    this.#frames.push(frame);
    if (!this.#speaking) {
      this.#voice = [...this.#voice.slice(1 - START_WINDOW), isVoice];
      if (this.#voice.filter(Boolean).length >= START_FRAMES) {
        this.#speaking = true;
        this.#silence = 0;
        return { type: "start" };
      }
      const kept = Math.round(PRE_ROLL_MS / FRAME_MS);
      if (this.#frames.length > kept) this.#frames.shift();
      return undefined;
    }
    this.#silence = isVoice ? 0 : this.#silence + 1;
    if (this.#silence < this.#endFrames && this.#frames.length < this.#maxFrames) return undefined;
    return { type: "end", samples: this.take() };
  }

  /** What was heard so far, and from the beginning again. */
  take(): Float32Array<ArrayBuffer> {
    const samples = new Float32Array(this.#frames.length * FRAME_SAMPLES);
    this.#frames.forEach((frame, at) => samples.set(frame, at * FRAME_SAMPLES));
    this.#frames = [];
    this.#voice = [];
    this.#speaking = false;
    this.#silence = 0;
    return samples;
  }
}
