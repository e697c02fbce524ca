// The worker whose module computes on the CPU.
import init, * as module from "#module-cpu";
import { serve } from "./serve.js";

const url = new URL("./okyeame_bg.wasm", import.meta.url).href;
serve({ ...module, init }, "wasm", { ...MODULE_CPU, url });
