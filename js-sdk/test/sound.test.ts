import { describe, expect, test } from "vitest";
import { OkyeameError } from "../src/errors.js";
import { resample, Resampler } from "../src/resample.js";
import { clipOf, fileOf, wav } from "../src/sound.js";

const tone = (hz: number, rate: number, n: number) => Float32Array.from({ length: n }, (_, at) => Math.sin((2 * Math.PI * hz * at) / rate));
const rms = (samples: Float32Array) => Math.sqrt(samples.reduce((sum, s) => sum + s * s, 0) / samples.length);

describe("resampling", () => {
  test.each([8000, 22_050, 44_100, 48_000, 96_000])("a tone at %d Hz is the same tone at 16 kHz", (rate) => {
    const out = resample(tone(440, rate, rate), rate);
    expect(Math.abs(out.length - 16_000)).toBeLessThanOrEqual(1);
    const ideal = tone(440, 16_000, out.length);
    const middle = out.subarray(500, -500).map((s, at) => s - ideal[at + 500]!);
    expect(rms(middle)).toBeLessThan(2e-3);
  });

  test("what 16 kHz cannot hold does not fold into the voice", () => {
    expect(rms(resample(tone(12_000, 48_000, 48_000), 48_000).subarray(200, -200))).toBeLessThan(1e-3);
  });

  test("in blocks as in one", () => {
    const whole = tone(300, 44_100, 10_000);
    const resampler = new Resampler(44_100);
    const blocks: number[] = [];
    for (let at = 0; at < whole.length; at += 128) blocks.push(...resampler.push(whole.subarray(at, at + 128)));
    blocks.push(...resampler.flush());
    const once = resample(whole, 44_100);
    expect(blocks.length).toBeGreaterThanOrEqual(once.length);
    once.forEach((s, at) => expect(blocks[at]).toBeCloseTo(s, 5));
  });

  test("nothing in, nothing out; no rate, no resampler", () => {
    expect(resample(new Float32Array(0), 48_000).length).toBe(0);
    expect(() => new Resampler(0)).toThrow(RangeError);
    expect(() => new Resampler(NaN)).toThrow(RangeError);
  });
});

describe("what a page may hand over", () => {
  test("bytes in each form", async () => {
    const bytes = new Uint8Array([1, 2, 3, 4]);
    for (const sound of [bytes, bytes.buffer, new Blob([bytes]), new DataView(bytes.buffer)]) {
      const clip = await clipOf(sound);
      expect("bytes" in clip && [...new Uint8Array(clip.bytes)]).toEqual([1, 2, 3, 4]);
    }
    const part = await clipOf(new Uint8Array(bytes.buffer, 1, 2));
    expect("bytes" in part && [...new Uint8Array(part.bytes)]).toEqual([2, 3]);
  });

  test.each([null, undefined, 7, "a.wav", {}, [1, 2]])("%s is no sound", async (sound) => {
    await expect(clipOf(sound as never)).rejects.toMatchObject({ name: "OkyeameError", code: "invalid_parameter" });
  });

  test("samples want a rate", async () => {
    await expect(clipOf(new Float32Array(3), 0)).rejects.toBeInstanceOf(OkyeameError);
    await expect(clipOf(new Float32Array(3), NaN)).rejects.toBeInstanceOf(OkyeameError);
  });

  test("samples are sent as WAV, at 16 kHz at most", async () => {
    const file = await fileOf(await clipOf(tone(440, 48_000, 48_000) as Float32Array<ArrayBuffer>, 48_000));
    expect(file.type).toBe("audio/wav");
    expect(file.size).toBeLessThanOrEqual(44 + 2 * 16_001);
  });

  test("WAV says what it holds, and clips what is too loud", async () => {
    const view = new DataView(await wav(new Float32Array([0, 0.5, 2, -2, NaN]), 8000).arrayBuffer());
    expect(view.getUint32(24, true)).toBe(8000);
    expect([0, 1, 2, 3, 4].map((at) => view.getInt16(44 + 2 * at, true))).toEqual([0, 16384, 32767, -32767, 0]);
  });
});
