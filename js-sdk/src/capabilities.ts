// What this browser can do, found out before anything is downloaded.

/** What WebGPU must offer: the largest matrix of a model in one buffer, and groups as the kernels have them. */
const LIMITS = {
  maxBufferSize: 256 << 20,
  maxStorageBufferBindingSize: 128 << 20,
  maxComputeInvocationsPerWorkgroup: 256,
  maxStorageBuffersPerShaderStage: 8,
} as const;

// A module of 16 bytes of instructions: `v128.const; i8x16.popcnt`, which only 128-bit vectors have.
const SIMD = new Uint8Array([
  0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11,
]);

export interface Capabilities {
  /** WebAssembly with 128-bit vectors, in a Web Worker: without them nothing is computed here. */
  wasm: boolean;
  /** The GPU, or why it is not to be tried. */
  webgpu: true | string;
  /** Whether an adapter that computes on the CPU is all there is. Right, and slow. */
  softwareGpu: boolean;
  /** GiB, as the browser tells it: rounded, and 8 at most. */
  memoryGiB: number | undefined;
  /** Bytes that may still be kept. */
  storageBytes: number | undefined;
}

export interface Network {
  online: boolean;
  /** The customer asked for less data. */
  saveData: boolean;
  /** Paid for by the byte, as far as the browser tells: `undefined` where it does not. */
  metered: boolean | undefined;
  /** Round trip, as the browser estimates it, ms. */
  rttMs: number | undefined;
}

export interface Battery {
  charging: boolean;
  /** 0 to 1. */
  level: number;
}

// What TypeScript's library does not have: experimental, or of one browser.
interface Offered {
  gpu?: { requestAdapter(options?: object): Promise<Adapter | null> };
  deviceMemory?: number;
  connection?: { saveData?: boolean; type?: string; effectiveType?: string; rtt?: number };
  getBattery?: () => Promise<Battery>;
}
interface Adapter {
  limits: Record<string, number>;
  info?: { isFallbackAdapter?: boolean };
  isFallbackAdapter?: boolean;
}

const offered = () => (globalThis.navigator ?? {}) as unknown as Offered & Partial<Pick<Navigator, "onLine">>;

export async function probeCapabilities(): Promise<Capabilities> {
  const [gpu, storage] = await Promise.all([probeGpu(), globalThis.navigator?.storage?.estimate?.().catch(() => undefined)]);
  return {
    wasm: typeof Worker !== "undefined" && typeof WebAssembly === "object" && WebAssembly.validate(SIMD),
    ...gpu,
    memoryGiB: offered().deviceMemory,
    storageBytes: storage?.quota === undefined ? undefined : storage.quota - (storage.usage ?? 0),
  };
}

async function probeGpu(): Promise<Pick<Capabilities, "webgpu" | "softwareGpu">> {
  const no = (webgpu: string, softwareGpu = false) => ({ webgpu, softwareGpu });
  const { gpu } = offered();
  if (!gpu) return no("this browser has no WebGPU");
  const adapter = await gpu.requestAdapter({ powerPreference: "high-performance" }).catch(() => null);
  if (!adapter) return no("this browser offers no graphics adapter");
  const missing = Object.entries(LIMITS).find(([name, least]) => !(adapter.limits[name]! >= least))?.[0];
  if (missing) return no(`the graphics adapter's ${missing} is ${adapter.limits[missing]}, which is too small`);
  return { webgpu: true, softwareGpu: adapter.info?.isFallbackAdapter ?? adapter.isFallbackAdapter ?? false };
}

export function probeNetwork(): Network {
  const { connection, onLine } = offered();
  const type = connection?.type;
  return {
    online: onLine ?? true,
    saveData: connection?.saveData ?? false,
    metered: type === undefined ? undefined : type === "cellular",
    rttMs: connection?.rtt,
  };
}

export async function probeBattery(): Promise<Battery | undefined> {
  try {
    const battery = await offered().getBattery?.();
    return battery && { charging: battery.charging, level: battery.level };
  } catch {
    return undefined;
  }
}
