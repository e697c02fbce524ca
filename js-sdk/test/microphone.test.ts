import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { Endpointer } from "../src/microphone/endpoint.js";
import { FRAME_SAMPLES } from "../src/microphone/frames.js";
import { createVad } from "../src/microphone/vad.js";

const frame = (value = 0) => new Float32Array(FRAME_SAMPLES).fill(value);
const feed = (endpointer: Endpointer, voices: boolean[]) => voices.map((voice, at) => endpointer.push(frame(at), voice)?.type);
const times = (n: number, voice: boolean) => Array<boolean>(n).fill(voice);

describe("endpoint", () => {
  test("a command begins with voice and ends with silence, and has what was before it", () => {
    const endpointer = new Endpointer({ endSilenceMs: 200 });
    const events = feed(endpointer, [...times(50, false), ...times(40, true), ...times(9, false)]);
    expect(events.filter(Boolean)).toEqual(["start"]);
    expect(events.indexOf("start")).toBe(54); // the fifth frame of voice
    const end = endpointer.push(frame(), false);
    expect(end?.type).toBe("end");
    if (end?.type !== "end") return;
    const frames = end.samples.length / FRAME_SAMPLES;
    expect(frames).toBe(20 + 1 + 35 + 10); // 400 ms before the start, its frame, the voice, the silence
    expect(end.samples[0]).toBe(34); // that frame, and nothing was lost between
  });

  test("a click, or voice in drops, begins nothing", () => {
    const drops = Array.from({ length: 200 }, (_, at) => at % 3 === 0);
    expect(feed(new Endpointer(), [...times(30, false), ...times(4, true), ...times(30, false)]).filter(Boolean)).toEqual([]);
    expect(feed(new Endpointer(), drops).filter(Boolean)).toEqual([]);
  });

  test("a pause in a sentence does not end it", () => {
    const events = feed(new Endpointer({ endSilenceMs: 700 }), [...times(30, true), ...times(34, false), ...times(30, true)]);
    expect(events.filter(Boolean)).toEqual(["start"]);
  });

  test("nobody speaks for ever", () => {
    const events = feed(new Endpointer({ maxMs: 1000 }), times(60, true));
    expect(events.filter(Boolean)).toEqual(["start", "end", "start"]);
  });

  test("one command after the other, each with its own frames", () => {
    const endpointer = new Endpointer({ endSilenceMs: 100 });
    const command = [...times(20, false), ...times(20, true), ...times(5, false)];
    const lengths = [0, 1].map(() => {
      const ends = command.map((voice) => endpointer.push(frame(), voice)).filter((event) => event?.type === "end");
      return ends.length;
    });
    expect(lengths).toEqual([1, 1]);
    expect(endpointer.take().length).toBe(0);
  });
});

describe("voice-activity detection", () => {
  const wasm = readFileSync(new URL("../node_modules/@echogarden/fvad-wasm/fvad.wasm", import.meta.url));
  /** A voice as simple as can be: harmonics of 140 Hz, louder and softer four times a second. */
  const voice = (at: number) => {
    const t = at / 16_000;
    const loudness = 0.5 - 0.5 * Math.cos(2 * Math.PI * 4 * t);
    return 0.3 * loudness * [1, 2, 3, 4, 5, 6, 7, 8].reduce((sum, k) => sum + Math.sin(2 * Math.PI * 140 * k * t) / k, 0);
  };
  const share = async (sample: (at: number) => number) => {
    const vad = await createVad(new Uint8Array(wasm));
    let voiced = 0;
    for (let n = 0; n < 100; n++) voiced += Number(vad.isVoice(Float32Array.from({ length: FRAME_SAMPLES }, (_, at) => sample(n * FRAME_SAMPLES + at))));
    vad.dispose();
    return voiced / 100;
  };

  test("hears a voice, and no silence, no hiss", async () => {
    expect(await share(voice)).toBeGreaterThan(0.6);
    expect(await share(() => 0)).toBe(0);
    let seed = 1;
    const noise = () => (seed = (seed * 16807) % 2147483647) / 2147483647 - 0.5;
    expect(await share(() => 0.002 * noise())).toBeLessThan(0.1);
  });

  test("samples beyond full scale, or none, do no harm", async () => {
    expect(await share((at) => 5 * voice(at))).toBeGreaterThan(0.5);
    expect(await share(() => NaN)).toBe(0);
  });
});
