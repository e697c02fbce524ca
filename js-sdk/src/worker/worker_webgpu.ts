// The worker whose module computes on the browser's GPU.
import init, * as module from "#module-webgpu";
import { serve } from "./serve.js";

const url = new URL("./okyeame_webgpu_bg.wasm", import.meta.url).href;
serve({ ...module, init }, "webgpu", { ...MODULE_WEBGPU, url });
