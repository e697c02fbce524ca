// Runs on the audio thread: what the microphone gives, as 16 kHz frames of 20 ms, sent to the page.
//
// A file of its own, since a worklet is loaded by address. It is kept above 4 KiB (its comments stay): bundlers turn
// smaller files into data: addresses, which a shop's `script-src 'self'` forbids.

import { Resampler } from "../resample.js";
import { FRAME_SAMPLES } from "./frames.js";

// What TypeScript's library does not have.
declare const sampleRate: number;
declare function registerProcessor(name: string, processor: new () => AudioWorkletProcessor): void;
declare class AudioWorkletProcessor {
  readonly port: MessagePort;
}

class Capture extends AudioWorkletProcessor {
  readonly #resampler = new Resampler(sampleRate);
  #frame = new Float32Array(FRAME_SAMPLES);
  #filled = 0;

  /** `inputs`: [source][channel][sample], 128 samples a call; no channel while the microphone is muted by the system. */
  process([source]: Float32Array[][]): boolean {
    const [first, ...others] = source ?? [];
    if (!first) return true;
    const mono = others.length ? first.map((sample, at) => others.reduce((sum, channel) => sum + channel[at]!, sample) / (others.length + 1)) : first;
    for (const sample of this.#resampler.push(mono)) {
      this.#frame[this.#filled++] = sample;
      if (this.#filled < FRAME_SAMPLES) continue;
      this.port.postMessage(this.#frame, [this.#frame.buffer]);
      this.#frame = new Float32Array(FRAME_SAMPLES);
      this.#filled = 0;
    }
    return true;
  }
}

registerProcessor("okyeame-capture", Capture);
