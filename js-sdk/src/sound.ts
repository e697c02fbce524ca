// The forms in which a page may hand over a sound, as the two engines take it.

import type { Sound } from "./engine.js";
import { OkyeameError } from "./errors.js";
import { resample, SAMPLE_RATE_HZ } from "./resample.js";

/** A file's bytes, or samples of one channel. */
export type Clip = { bytes: ArrayBuffer; mimeType: string } | { samples: Float32Array<ArrayBuffer>; sampleRate: number };

/** What an engine is sent. The caller keeps what is theirs: nothing is transferred or changed. */
export async function clipOf(sound: Sound, sampleRate = SAMPLE_RATE_HZ): Promise<Clip> {
  if (sound instanceof Float32Array) {
    if (!(sampleRate > 0)) throw new OkyeameError("invalid_parameter", "sampleRate: a number of Hz above 0");
    return { samples: sound, sampleRate };
  }
  if (typeof AudioBuffer !== "undefined" && sound instanceof AudioBuffer) {
    return { samples: oneChannel(sound), sampleRate: sound.sampleRate };
  }
  if (typeof Blob !== "undefined" && sound instanceof Blob) return { bytes: await sound.arrayBuffer(), mimeType: sound.type };
  if (sound instanceof ArrayBuffer) return { bytes: sound, mimeType: "" };
  if (ArrayBuffer.isView(sound)) {
    return { bytes: sound.buffer.slice(sound.byteOffset, sound.byteOffset + sound.byteLength) as ArrayBuffer, mimeType: "" };
  }
  throw new OkyeameError(
    "invalid_parameter",
    "sound: a Blob, a File, an ArrayBuffer, a typed array of bytes, an AudioBuffer or a Float32Array with its sampleRate",
  );
}

/** How samples are sent: Ogg Opus where the browser encodes it (2 kB a second), else WAV with 16 bits (32 kB a second). */
export type Upload = "opus" | "wav";

/** As a file that a server takes: bytes as they are, samples as 16 kHz at most. */
export async function fileOf(clip: Clip, upload: Upload = "opus"): Promise<Blob> {
  if ("bytes" in clip) return new Blob([clip.bytes], { type: clip.mimeType || "application/octet-stream" });
  const down = clip.sampleRate > SAMPLE_RATE_HZ;
  const samples = down ? resample(clip.samples, clip.sampleRate) : clip.samples;
  const rate = down ? SAMPLE_RATE_HZ : clip.sampleRate;
  // What is not finite, or nothing at all, is for the server to refuse by name.
  const plain = rate === SAMPLE_RATE_HZ && samples.length > 0 && samples.every(Number.isFinite);
  if (upload === "opus" && plain && typeof AudioEncoder !== "undefined") {
    const file = await (await import("./opus.js")).opusFile(samples);
    if (file) return file;
  }
  return wav(samples, rate);
}

/** The mean of an AudioBuffer's channels. */
function oneChannel(buffer: AudioBuffer): Float32Array<ArrayBuffer> {
  const mean = new Float32Array(buffer.length);
  for (let channel = 0; channel < buffer.numberOfChannels; channel++) {
    const samples = buffer.getChannelData(channel);
    for (let at = 0; at < mean.length; at++) mean[at]! += samples[at]! / buffer.numberOfChannels;
  }
  return mean;
}

/** RIFF WAVE, one channel, 16-bit PCM. */
export function wav(samples: Float32Array, sampleRateHz: number): Blob {
  const HEADER = 44;
  const bytes = new ArrayBuffer(HEADER + 2 * samples.length);
  const view = new DataView(bytes);
  const text = (at: number, name: string) => [...name].forEach((letter, k) => view.setUint8(at + k, letter.charCodeAt(0)));
  const rate = Math.round(sampleRateHz);
  text(0, "RIFF");
  view.setUint32(4, bytes.byteLength - 8, true);
  text(8, "WAVEfmt ");
  view.setUint32(16, 16, true); // length of this chunk
  view.setUint16(20, 1, true); // PCM
  view.setUint16(22, 1, true); // channels
  view.setUint32(24, rate, true);
  view.setUint32(28, 2 * rate, true); // bytes a second
  view.setUint16(32, 2, true); // bytes a frame
  view.setUint16(34, 16, true); // bits
  text(36, "data");
  view.setUint32(40, 2 * samples.length, true);
  samples.forEach((sample, at) => {
    const clipped = Math.max(-1, Math.min(1, sample)); // NaN stays NaN, and is written as 0
    view.setInt16(HEADER + 2 * at, Math.round(clipped * 32767), true);
  });
  return new Blob([bytes], { type: "audio/wav" });
}
