// What wasm-bindgen makes (wasm/pkg), as the worker uses it. build.mjs says where the modules lie and what they are.

declare module "#module-cpu" {
  export * from "#module";
  export { default } from "#module";
}
declare module "#module-webgpu" {
  export * from "#module";
  export { default } from "#module";
}
declare module "#module" {
  type Part = import("../model_cache.js").Part;
  export default function init(options: { module_or_path: Uint8Array<ArrayBuffer> }): Promise<{ memory: WebAssembly.Memory }>;
  export function decode_audio(bytes: Uint8Array): Float32Array<ArrayBuffer>;
  export class Loader {
    constructor(manifest: Uint8Array);
    parts(stage: string): Part[];
    add(file: string, bytes: Uint8Array): void;
    start(options: { device: string; words: boolean; dtype: string }): Promise<Engine>;
    free(): void;
  }
  export class Engine {
    parts(stage: string): Part[];
    add(file: string, bytes: Uint8Array): void;
    load_words(): void;
    recognize(samples: Float32Array, sampleRate: number, options: object): Promise<import("../recognition.js").Recognition>;
    recognize_text(text: string, options: object): import("../recognition.js").Recognition;
    device(): { name: "wasm" | "webgpu"; reason: string };
    info(): import("../recognition.js").ModelInfo;
  }
}

/** The modules' sizes and digests, put in by build.mjs. */
declare const MODULE_CPU: import("../model_cache.js").Part;
declare const MODULE_WEBGPU: import("../model_cache.js").Part;
