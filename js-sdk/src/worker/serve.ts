// The worker in which an engine lives. `local_engine.ts` speaks to it; a page does not.

import type * as Wasm from "#module";
import { fetchParts, manifestOf, moduleOf, MODULES, Tally } from "../delivery.js";
import { OkyeameError } from "../errors.js";
import { ModelCache, partsOf, type Part } from "../model_cache.js";
import type { Answer, Loaded, LoadRequest, RecognizeRequest, Request, Work } from "./protocol.js";

type Module = Pick<typeof Wasm, "Loader" | "decode_audio"> & { init: typeof Wasm.default };
interface Context {
  signal: AbortSignal;
  tally: Tally;
  starting: () => void;
}

const cache = new ModelCache();

/** Answers a page's requests with `module`, whose bytes are what `modulePart` says. */
export function serve(module: Module, device: "wasm" | "webgpu", modulePart: Part): void {
  let engine: Wasm.Engine | undefined;
  let memory: WebAssembly.Memory | undefined;
  /** Whether the module trapped: nothing of it can be used again. */
  let stopped = false;
  let manifest: { url: string; json: unknown };

  const send = (answer: Answer) => self.postMessage(answer);
  const needed = (): Wasm.Engine => {
    if (stopped) throw new OkyeameError("engine_restarting", "the engine stopped at an earlier command");
    if (!engine) throw new OkyeameError("model_not_found", "no model is loaded; call load first");
    return engine;
  };

  async function load({ manifest: address, words, dtype, byteBudget }: LoadRequest, { signal, tally, starting }: Context): Promise<Loaded> {
    if (engine) throw new OkyeameError("invalid_parameter", "this engine is loaded already");
    const bytes = await manifestOf(address, signal);
    manifest = { url: address, json: json(bytes) };
    const stages = words ? ["intent", "words"] : ["intent"];
    const announced = partsOf(manifest.json, stages);
    await withinBudget(byteBudget, announced, [modulePart]);
    [modulePart, ...announced].forEach(({ bytes }) => tally.expect(bytes));

    ({ memory } = await module.init({ module_or_path: await moduleOf(modulePart, { signal, tally }) }));
    const loader = new module.Loader(bytes);
    try {
      const parts = stages.flatMap((stage) => needParts(loader.parts(stage), stage));
      await fetchParts(address, parts, (file, bytes) => loader.add(file, bytes), { signal, tally });
    } catch (error) {
      loader.free();
      throw error;
    }
    starting();
    engine = await orTrap(loader.start({ device, words, dtype })); // uses the loader up, also where it fails
    await evictOthers();
    return { info: engine.info(), device: engine.device() };
  }

  async function withinBudget(budget: number | undefined, parts: Part[], modules: Part[] = []) {
    if (budget === undefined) return;
    const bytes = (await cache.missingOf(manifest.url, parts)) + (await cache.missingOf(MODULES, modules));
    if (bytes > budget) {
      throw new OkyeameError("budget_exceeded", `the model needs ${bytes} more bytes, and the budget is ${budget}`);
    }
  }

  /** Parts of the bundle's earlier versions, and this package's earlier modules, are of no more use. */
  async function evictOthers() {
    await cache.evict(new URL(".", manifest.url).href, partsOf(manifest.json, ["intent", "words"]));
    await cache.evict(MODULES + modulePart.file, [modulePart], MODULES);
  }

  const work: { [Name in keyof Work]: (request: never, context: Context) => Promise<ReturnType<Work[Name]>> } = {
    load,
    async recognize({ samples, sampleRate, bytes, options }: RecognizeRequest) {
      const loaded = needed();
      const sound = bytes ? module.decode_audio(new Uint8Array(bytes)) : samples!;
      return orTrap(loaded.recognize(sound, bytes ? 16_000 : sampleRate!, options));
    },
    async text({ text, options }: { text: string; options: Record<string, unknown> }) {
      return needed().recognize_text(text, options);
    },
    async words({ byteBudget }: { byteBudget: number | undefined }, { signal, tally }: Context) {
      const loaded = needed();
      const parts = needParts(loaded.parts("words"), "words");
      await withinBudget(byteBudget, parts);
      parts.forEach(({ bytes }) => tally.expect(bytes));
      await fetchParts(manifest.url, parts, (file, bytes) => loaded.add(file, bytes), { signal, tally });
      loaded.load_words();
      return loaded.info();
    },
    async memory() {
      return { wasmBytes: memory?.buffer.byteLength ?? 0 };
    },
  };

  /** A trap inside of an awaited call is nobody's rejection but an error of the whole worker: here it becomes one. */
  let onTrap: ((error: unknown) => void) | undefined;
  self.addEventListener("error", (event) => {
    event.preventDefault();
    onTrap?.(event.error ?? new WebAssembly.RuntimeError(event.message));
  });
  const orTrap = <T>(promise: Promise<T>): Promise<T> =>
    Promise.race([promise, new Promise<never>((_, reject) => (onTrap = reject))]);

  /** An error as a message carries it. */
  function plain(error: unknown): { code: string; message: string } {
    if (error instanceof WebAssembly.RuntimeError) {
      stopped = true;
      return { code: "engine_stopped", message: `the engine stopped (${error.message}); it may have had too little memory` };
    }
    const { code, message } = OkyeameError.of(error);
    return { code, message };
  }

  /** What was begun and can be given up, by id. */
  const underWay = new Map<number, AbortController>();
  /** One after the other: an engine has one thread. */
  let last: Promise<unknown> = Promise.resolve();

  self.onmessage = ({ data: request }: MessageEvent<Request>) => {
    if (request.type === "cancel") {
      underWay.get(request.of)?.abort();
      return;
    }
    const { id, type } = request;
    const controller = new AbortController();
    underWay.set(id, controller);
    const tally = new Tally((progress) => send({ id, progress }));
    const context = { signal: controller.signal, tally, starting: () => send({ id, starting: true }) };
    last = last.then(async () => {
      try {
        controller.signal.throwIfAborted();
        send({ id, value: await work[type](request as never, context) });
      } catch (error) {
        send({ id, error: plain(error) });
      } finally {
        underWay.delete(id);
      }
    });
  };
}

/** The parts of a stage, which must be there. */
function needParts(parts: Part[], stage: string): Part[] {
  if (!parts.length) throw new OkyeameError("unsupported_model", `this bundle has no stage '${stage}'`);
  return parts;
}

function json(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder().decode(bytes));
  } catch {
    return undefined; // the engine says what is wrong with it
  }
}
