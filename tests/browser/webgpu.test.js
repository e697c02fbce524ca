// The engine on WebGPU, on Chromium's software adapter: trusted only when it answers a known sound as it should, and left
// for the CPU, with a reason, when it does not.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { agrees, newPage } from "./pages.js";
import { SOFTWARE_WEBGPU, bundle, clip, launch, native, serve } from "./harness.js";

let browser, server;

before(async () => {
  bundle("tiny", "int8");
  [browser, server] = await Promise.all([launch(SOFTWARE_WEBGPU), serve()]);
});
after(async () => {
  await browser?.close();
  server?.close();
});

/** A page that, as its worker, runs `before` ahead of its own code: the page looks for a GPU, the worker uses it. */
const onPage = (before, run) => async () => {
  const page = await newPage(browser, server);
  try {
    await page.evaluate((before) => (0, eval)(`{${before}}`), before);
    await page.route("**/worker_webgpu.js", async (route) => {
      const response = await route.fetch();
      await route.fulfill({ response, body: `${before}\n${await response.text()}` });
    });
    await run(page);
  } finally {
    await page.context().close();
  }
};

/** A software adapter passes for a GPU. */
const HARDWARE = "Object.defineProperty(GPUAdapterInfo.prototype, 'isFallbackAdapter', { get: () => false });";

describe("WebGPU", () => {
  test("answers as the native program does", onPage("", async (page) => {
    const { device, answer } = await page.evaluate(async () => {
      const { device } = await load("tiny-int8", { device: "webgpu", words: true });
      return { device, answer: await engine.recognize(await sound("tw_cart"), { words: true, language: "tw", topK: 5 }) };
    });
    assert.equal(device.name, "webgpu");
    agrees(answer, native("tiny", "int8", clip("tw_cart"), ["--language", "tw"]));
    assert.equal(answer.run.device, "webgpu");
  }));

  test("is not chosen by itself where it is software", onPage("", async (page) => {
    const device = await page.evaluate(async () => (await load("tiny-int8")).device);
    assert.equal(device.name, "wasm");
    assert.match(device.reason, /software adapter/);
  }));

  test("is chosen by itself where it is hardware and right", onPage(HARDWARE, async (page) => {
    const device = await page.evaluate(async () => (await load("tiny-int8")).device);
    assert.equal(device.name, "webgpu", device.reason);
  }));

  test("is left out where 8-bit integers are asked for", onPage(HARDWARE, async (page) => {
    const { device, dtype } = await page.evaluate(async () => {
      const { device, info } = await load("tiny-int8", { dtype: "int8" });
      return { device, dtype: info.dtype };
    });
    assert.deepEqual([device.name, dtype], ["wasm", "int8"]);
    assert.match(device.reason, /8-bit integers/);
  }));

  const broken = {
    "computes something else": `const create = GPUDevice.prototype.createShaderModule;
      GPUDevice.prototype.createShaderModule = function (d) {
        return create.call(this, { ...d, code: d.code.replaceAll("exp(", "sin(") });
      };`,
    "does not compile": `const create = GPUDevice.prototype.createShaderModule;
      GPUDevice.prototype.createShaderModule = function (d) { return create.call(this, { ...d, code: d.code + " nonsense" }); };`,
    "gives no device": `GPUAdapter.prototype.requestDevice = async () => { throw new Error("no device today"); };`,
    "has too small buffers": `Object.defineProperty(GPUSupportedLimits.prototype, "maxBufferSize", { get: () => 1 << 20 });`,
    "never answers": `GPUQueue.prototype.submit = () => {}; GPUBuffer.prototype.mapAsync = () => new Promise(() => {});
      GPUQueue.prototype.onSubmittedWorkDone = () => new Promise(() => {});`,
    "gives no adapter": `GPU.prototype.requestAdapter = async () => null;`,
  };
  for (const [what, code] of Object.entries(broken)) {
    test(`a GPU that ${what} is left for the CPU, with a reason`, { timeout: 120_000 }, onPage(HARDWARE + code, async (page) => {
      const { device, answer } = await page.evaluate(async () => {
        const { device } = await load("tiny-int8", { dtype: "f32" });
        return { device, answer: await engine.recognize(await sound("tw_cart"), { words: false, topK: 5 }) };
      });
      assert.equal(device.name, "wasm");
      console.log(`# ${what}: ${device.reason}`);
      assert.ok(device.reason.length > 10 && device.reason !== "asked for", device.reason);
      agrees(answer, native("tiny", "int8", clip("tw_cart"), ["--no-transcribe"]));
    }));
  }

  // The device is kept where the test can end it, as a driver's crash would.
  const KEEP = `const request = GPUAdapter.prototype.requestDevice;
    let kept;
    GPUAdapter.prototype.requestDevice = async function (...given) { return (kept = await request.apply(this, given)); };
    self.addEventListener("message", (event) => {
      if (event.data.type !== "lose") return;
      event.stopImmediatePropagation();
      kept.destroy();
    });`;
  test("a device that is lost in the middle is replaced by the CPU, and the command is answered", onPage(KEEP, async (page) => {
    const result = await page.evaluate(async () => {
      const Plain = window.Worker;
      let worker;
      window.Worker = function (...given) { return (worker = new Plain(...given)); };
      await load("tiny-int8", { device: "webgpu", dtype: "f32" });
      const clip = await sound("tw_cart");
      const first = await engine.recognize(clip, { words: false, topK: 5 });
      worker.postMessage({ type: "lose" });
      const answers = await Promise.all([1, 2, 3].map(() => engine.recognize(clip, { words: false, topK: 5 })));
      return { first, answers, device: engine.device };
    });
    assert.equal(result.first.run.device, "webgpu");
    assert.equal(result.device.name, "wasm");
    assert.match(result.device.reason, /webgpu failed/);
    result.answers.forEach((answer) => {
      assert.equal(answer.run.device, "wasm");
      agrees(answer, result.first);
    });
  }));
});
