// What an engine on this device tells its worker. (tests/browser meets the real worker.)
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { AutoEngine, LocalEngine, type LocalOptions, OkyeameError } from "../src/index.js";

const MODEL = "https://shop.example/model/manifest.json";
type Message = { id: number; type: string; dtype?: string };
let asked: { worker: string; message: Message }[];

/** A worker whose model is whatever it is asked for; one on a GPU fails if `gpuFails`. */
let gpuFails: boolean;
class FakeWorker {
  onmessage: ((event: { data: unknown }) => void) | undefined;
  readonly #name: string;
  constructor(url: URL) {
    this.#name = url.pathname.split("/").at(-1)!;
  }
  postMessage(message: Message) {
    asked.push({ worker: this.#name, message });
    const device = { name: this.#name === "worker_webgpu.js" ? "webgpu" : "wasm", reason: "it was asked for" };
    const fails = gpuFails && device.name === "webgpu";
    const answer = fails ? { error: { code: "device_failed", message: "no" } } : { value: { info: { dtype: "f32" }, device } };
    queueMicrotask(() => this.onmessage?.({ data: { id: message.id, ...answer } }));
  }
  terminate() {}
}

beforeEach(() => {
  asked = [];
  gpuFails = false;
  vi.stubGlobal("Worker", FakeWorker);
  vi.stubGlobal("navigator", {});
});
afterEach(() => {
  vi.unstubAllGlobals();
});

/** A GPU as large as any. */
function withGpu() {
  const limits = { maxBufferSize: 2 ** 32, maxStorageBufferBindingSize: 2 ** 32, maxComputeInvocationsPerWorkgroup: 1024, maxStorageBuffersPerShaderStage: 16 };
  vi.stubGlobal("navigator", { gpu: { requestAdapter: async () => ({ limits, info: { isFallbackAdapter: false } }) } });
}
const loads = () => asked.filter(({ message }) => message.type === "load").map(({ worker, message }) => [worker, message.dtype]);

describe("dtype", () => {
  test.each([[undefined, "auto"], ["auto", "auto"], ["f32", "f32"], ["int8", "int8"]] as const)("%s is told to the worker as %s", async (dtype, told) => {
    const engine = await LocalEngine.load(MODEL, { ...(dtype && { dtype }) });
    expect(loads()).toEqual([["worker_cpu.js", told]]);
    engine.dispose();
  });

  test("int8 is the CPU's, also where there is a GPU", async () => {
    withGpu();
    const engine = await LocalEngine.load(MODEL, { dtype: "int8" });
    expect(loads()).toEqual([["worker_cpu.js", "int8"]]);
    expect(engine.device).toEqual({ name: "wasm", reason: "8-bit integers are for the CPU" });
    engine.dispose();
  });

  test.each(["auto", "f32"] as const)("%s takes the GPU, and comes along to the CPU where that fails", async (dtype) => {
    withGpu();
    const onGpu = await LocalEngine.load(MODEL, { dtype });
    expect(loads()).toEqual([["worker_webgpu.js", dtype]]);
    onGpu.dispose();
    [asked, gpuFails] = [[], true];
    const onCpu = await LocalEngine.load(MODEL, { dtype });
    expect(loads()).toEqual([["worker_webgpu.js", dtype], ["worker_cpu.js", dtype]]);
    expect(onCpu.device?.name).toBe("wasm");
    onCpu.dispose();
  });

  const refused: [string, object][] = [
    ["a type that there is not", { dtype: "int3" }],
    ["one of the server's", { dtype: "f16" }],
    ["another writing", { dtype: "INT8" }],
    ["a number", { dtype: 8 }],
    ["int8 on the GPU", { dtype: "int8", device: "webgpu" }],
  ];
  test.each(refused)("%s is refused before anything is fetched", (_, options) => {
    for (const begin of [() => new LocalEngine({ model: MODEL, ...(options as Partial<LocalOptions>) }), () => new AutoEngine({ model: MODEL, server: "https://shop.example", ...options })]) {
      let error: unknown;
      try {
        begin();
      } catch (thrown) {
        error = thrown;
      }
      expect(error).toBeInstanceOf(OkyeameError);
      expect(error).toMatchObject({ code: "invalid_parameter", message: expect.stringMatching(/^dtype: /) });
    }
    expect(asked).toEqual([]);
  });
});
