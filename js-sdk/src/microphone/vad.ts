// Whether somebody speaks in a frame: WebRTC's voice-activity detector (libfvad as WebAssembly, BSD-3-Clause).
//
// Why this one: 20 kB, no model to download, microseconds a frame, and made for what follows a browser's own noise
// suppression. Silero's network is better in loud rooms, and brings onnxruntime-web: 10 MB and more on a data budget,
// several times this package's own engine. The recogniser rejects what is no command either way.

import createModule from "@echogarden/fvad-wasm";
import { FRAME_SAMPLES } from "./frames.js";

export interface Vad {
  /** Whether the frame, `FRAME_SAMPLES` at 16 kHz, holds voice. */
  isVoice(frame: Float32Array): boolean;
  dispose(): void;
}

/** 0 (hears the most) to 3 (is the surest): 2 lets neither breath nor a fan begin a command. */
const MODE = 2;

export async function createVad(wasmBinary: Uint8Array): Promise<Vad> {
  const module = await createModule({ wasmBinary });
  const detector = module._fvad_new();
  module._fvad_set_mode(detector, MODE);
  module._fvad_set_sample_rate(detector, 16_000);
  const frame16 = module._malloc(2 * FRAME_SAMPLES);
  return {
    isVoice(frame) {
      // made anew each time: memory that grows leaves old views empty
      const samples = new Int16Array(module.HEAP8.buffer, frame16, FRAME_SAMPLES);
      frame.forEach((sample, at) => (samples[at] = 32767 * Math.max(-1, Math.min(1, sample))));
      return module._fvad_process(detector, frame16, FRAME_SAMPLES) === 1;
    },
    dispose() {
      module._free(frame16);
      module._fvad_free(detector);
    },
  };
}
