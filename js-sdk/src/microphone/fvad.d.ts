declare module "@echogarden/fvad-wasm" {
  interface Fvad {
    HEAP8: Int8Array;
    _malloc(bytes: number): number;
    _free(at: number): void;
    _fvad_new(): number;
    _fvad_free(detector: number): void;
    _fvad_set_mode(detector: number, mode: number): number;
    _fvad_set_sample_rate(detector: number, hz: number): number;
    _fvad_process(detector: number, frame: number, samples: number): number;
  }
  export default function create(options: { wasmBinary: Uint8Array }): Promise<Fvad>;
}
declare module "@echogarden/fvad-wasm/fvad.wasm" {
  const bytes: Uint8Array<ArrayBuffer>;
  export default bytes;
}
