// The detector with its 20 kB of WebAssembly in the file: loaded when the microphone is first opened.
import wasm from "@echogarden/fvad-wasm/fvad.wasm";
import { createVad, type Vad } from "./vad.js";

export const loadVad = (): Promise<Vad> => createVad(wasm);
