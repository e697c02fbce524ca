// Samples at any rate as samples at 16 kHz, block by block: what a microphone gives as what an engine hears.
//
// A windowed sinc (Blackman, 16 zero crossings a side), read from a table of 512 phases. Band-limited to the smaller of the
// two rates, so that nothing folds into the voice. Not for music: the pass band ends at 0.9 of half the smaller rate.

const ZERO_CROSSINGS = 16;
const PHASES = 512;
const PASS = 0.9;

export const SAMPLE_RATE_HZ = 16_000;

export class Resampler {
  readonly #step: number;
  readonly #half: number; // input samples on each side of a point
  readonly #table: Float32Array; // [PHASES + 1, 2 * half]
  #held: Float32Array; // input that later outputs still need
  #at: number; // position of the next output in `#held`

  constructor(fromHz: number, toHz = SAMPLE_RATE_HZ) {
    if (!(fromHz > 0 && toHz > 0)) throw new RangeError("a sample rate is a number of Hz above 0");
    this.#step = fromHz / toHz;
    const cutoff = PASS * Math.min(1, toHz / fromHz);
    this.#half = Math.ceil(ZERO_CROSSINGS / cutoff);
    this.#table = kernel(this.#half, cutoff);
    // silence before the first sample, so that the first output is the first sample
    this.#held = new Float32Array(this.#half - 1);
    this.#at = this.#half - 1;
  }

  /** What can be computed by now; the last samples wait for what follows them. */
  push(block: Float32Array): Float32Array<ArrayBuffer> {
    const half = this.#half;
    const taps = 2 * half;
    const input = new Float32Array(this.#held.length + block.length);
    input.set(this.#held);
    input.set(block, this.#held.length);
    const n = Math.max(0, Math.ceil((input.length - half - this.#at) / this.#step));
    const output = new Float32Array(n);
    for (let k = 0; k < n; k++) {
      const position = this.#at + k * this.#step;
      const whole = Math.floor(position);
      const row = Math.round((position - whole) * PHASES) * taps;
      const from = whole - half + 1;
      let sum = 0;
      for (let tap = 0; tap < taps; tap++) sum += input[from + tap]! * this.#table[row + tap]!;
      output[k] = sum;
    }
    const next = this.#at + n * this.#step;
    const drop = Math.min(input.length, Math.max(0, Math.floor(next) - half + 1));
    this.#held = input.slice(drop);
    this.#at = next - drop;
    return output;
  }

  /** The samples that were held back. */
  flush(): Float32Array<ArrayBuffer> {
    return this.push(new Float32Array(this.#half));
  }
}

/** A whole recording at once. */
export function resample(samples: Float32Array, fromHz: number, toHz = SAMPLE_RATE_HZ): Float32Array<ArrayBuffer> {
  if (fromHz === toHz) return new Float32Array(samples);
  const resampler = new Resampler(fromHz, toHz);
  const [start, end] = [resampler.push(samples), resampler.flush()];
  const whole = new Float32Array(Math.min(start.length + end.length, Math.ceil((samples.length * toHz) / fromHz)));
  whole.set(start.subarray(0, whole.length));
  whole.set(end.subarray(0, whole.length - start.length), start.length);
  return whole;
}

function kernel(half: number, cutoff: number): Float32Array {
  const taps = 2 * half;
  const table = new Float32Array((PHASES + 1) * taps);
  for (let phase = 0; phase <= PHASES; phase++) {
    const row = table.subarray(phase * taps, (phase + 1) * taps);
    let sum = 0;
    for (let tap = 0; tap < taps; tap++) {
      const x = tap - half + 1 - phase / PHASES; // distance from the point, input samples
      const w = (Math.PI * x) / half;
      const window = Math.abs(x) >= half ? 0 : 0.42 + 0.5 * Math.cos(w) + 0.08 * Math.cos(2 * w);
      const angle = Math.PI * cutoff * x;
      row[tap] = (angle === 0 ? 1 : Math.sin(angle) / angle) * window;
      sum += row[tap]!;
    }
    for (let tap = 0; tap < taps; tap++) row[tap]! /= sum; // a level that stays is a level that stays
  }
  return table;
}
