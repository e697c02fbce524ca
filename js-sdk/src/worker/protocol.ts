// What a page and its worker say to each other.
//
// Every request has an `id`; the answer has the same and either `value` or `error`. `load` and `words` also send `progress`.

import type { Progress } from "../engine.js";
import type { ModelInfo, Recognition } from "../recognition.js";

export interface LoadRequest {
  manifest: string;
  words: boolean;
  dtype: "auto" | "f32" | "int8";
  /** Bytes that may come over the network. */
  byteBudget: number | undefined;
}

export interface RecognizeRequest {
  samples?: Float32Array<ArrayBuffer>;
  sampleRate?: number;
  bytes?: ArrayBuffer;
  options: Record<string, unknown>;
}

export type Loaded = { info: ModelInfo; device: { name: "wasm" | "webgpu"; reason: string } };

/** What can be asked, and what it gives. */
export interface Work {
  load(request: LoadRequest): Loaded;
  recognize(request: RecognizeRequest): Recognition;
  text(request: { text: string; options: Record<string, unknown> }): Recognition;
  words(request: { byteBudget: number | undefined }): ModelInfo;
  memory(request: Record<string, never>): { wasmBytes: number };
}

export type Request =
  | { [Name in keyof Work]: { id: number; type: Name } & Parameters<Work[Name]>[0] }[keyof Work]
  | { type: "cancel"; of: number };

export type Answer =
  | { id: number; value: unknown }
  | { id: number; error: { code: string; message: string } }
  | { id: number; progress: Progress }
  /** All is fetched; from now on the device has to answer. */
  | { id: number; starting: true };
