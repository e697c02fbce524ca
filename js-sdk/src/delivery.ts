// A bundle's files: from the cache if they are there, else from the network, and nothing into the cache that is bad.

import type { Progress } from "./engine.js";
import { OkyeameError } from "./errors.js";
import { keyOf, ModelCache, type Part } from "./model_cache.js";

/** Parts that are fetched at the same time. */
const AT_ONCE = 4;
/** A transfer that is cut off is taken up where it was, as long as each try brings bytes; this often without any. */
const TRIES = 3;
const PAUSE_MS = 500;

const cache = new ModelCache();

/** Counts bytes towards a whole, for whoever watches. A number that only grows, and ends at the whole. */
export class Tally {
  #progress: Progress = { loaded: 0, total: 0, fromCache: 0 };
  constructor(private readonly onProgress: ((progress: Progress) => void) | undefined) {}

  expect(bytes: number) {
    this.#progress.total += bytes;
  }

  count(bytes: number, fromCache = false) {
    // A server may send more than was announced: the part is refused then, and progress stays true.
    this.#progress.loaded = Math.min(this.#progress.total, this.#progress.loaded + bytes);
    if (fromCache) this.#progress.fromCache += bytes;
    this.onProgress?.({ ...this.#progress });
  }
}

async function get(url: string, signal: AbortSignal | undefined, { from = 0, cache = "default" as RequestCache } = {}): Promise<Response> {
  let response;
  try {
    response = await fetch(url, { cache, ...(signal && { signal }), ...(from && { headers: { range: `bytes=${from}-` } }) });
  } catch (error) {
    if ((error as Error).name === "AbortError") throw error;
    throw new OkyeameError("network", `${url} cannot be fetched: ${(error as Error).message}`, { cause: error });
  }
  const { status } = response;
  if (status === 404) throw new OkyeameError("model_not_found", `${url} is not there (404)`, { status });
  if (!response.ok) throw new OkyeameError("network", `${url} cannot be fetched: HTTP ${status}`, { status });
  return response;
}

/** The manifest: from the network, so that a new version is seen; from the cache if there is no network. */
export async function manifestOf(url: string, signal?: AbortSignal): Promise<Uint8Array<ArrayBuffer>> {
  try {
    const bytes = new Uint8Array(await (await get(url, signal, { cache: "no-cache" })).arrayBuffer());
    await cache.put(url, bytes);
    return bytes;
  } catch (error) {
    const kept = (error as OkyeameError).code === "network" && (await cache.get(url));
    if (!kept) throw error;
    return kept;
  }
}

/** Gets `parts`, `AT_ONCE` at a time, and hands each to `add`, which throws if it is not what the manifest says. */
export async function fetchParts(
  base: string,
  parts: Part[],
  add: (file: string, bytes: Uint8Array<ArrayBuffer>) => void | Promise<void>,
  { signal, tally }: { signal: AbortSignal; tally: Tally },
): Promise<void> {
  // One failure ends the others.
  const ended = new AbortController();
  const onAbort = () => ended.abort(signal.reason);
  if (signal.aborted) onAbort();
  signal.addEventListener("abort", onAbort);

  const queue = [...parts];
  const lane = async () => {
    for (let part = queue.shift(); part; part = queue.shift()) await onePart(base, part, add, ended.signal, tally);
  };
  const guarded = () =>
    lane().catch((error) => {
      ended.abort(error);
      throw error;
    });
  try {
    await Promise.all(Array.from({ length: AT_ONCE }, guarded));
  } catch {
    throw ended.signal.reason; // the first failure; the others were given up for it
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}

async function onePart(
  base: string,
  part: Part,
  add: (file: string, bytes: Uint8Array<ArrayBuffer>) => void | Promise<void>,
  signal: AbortSignal,
  tally: Tally,
): Promise<void> {
  signal.throwIfAborted();
  const key = keyOf(base, part);
  const kept = await cache.get(key);
  if (kept) {
    try {
      await add(part.file, kept);
      return tally.count(part.bytes, true);
    } catch (error) {
      if (error instanceof WebAssembly.RuntimeError) throw error;
      await cache.delete(key);
    }
  }
  const bytes = await received(part.url ?? new URL(part.file, base).href, part.bytes, signal, tally);
  await add(part.file, bytes);
  await cache.put(key, bytes);
}

/**
 * A file of `n` bytes, counted as it arrives and taken up again where it was cut off. What is longer is cut off after one
 * byte too many: it is refused anyway.
 */
async function received(url: string, n: number, signal: AbortSignal, tally: Tally): Promise<Uint8Array<ArrayBuffer>> {
  const bytes = new Uint8Array(n + 1);
  let at = 0;
  let counted = 0;
  for (let tries = 1; ; tries++) {
    const begun = at;
    try {
      const response = await get(url, signal, { from: at });
      // A server that knows no ranges begins anew; what was counted is not counted again.
      if (response.status !== 206) at = 0;
      const reader = response.body!.getReader();
      for (;;) {
        const { done, value } = await reader.read();
        if (done) break;
        const piece = value.subarray(0, bytes.length - at);
        bytes.set(piece, at);
        at += piece.length;
        const known = Math.min(at, n);
        if (known > counted) tally.count(known - counted);
        counted = Math.max(counted, known);
        if (at > n) {
          await reader.cancel();
          break;
        }
      }
      return bytes.subarray(0, at);
    } catch (error) {
      if (signal.aborted || (error as Error).name === "AbortError") throw error;
      const status = (error as OkyeameError).status;
      const final = status !== undefined && status < 500 && status !== 429;
      if (at > begun) tries = 0;
      if (final || tries >= TRIES) {
        if (error instanceof OkyeameError) throw error;
        throw new OkyeameError("network", `${url} was cut off after ${at} of ${n} bytes`, { cause: error });
      }
      await pause(PAUSE_MS * 2 ** tries, signal);
    }
  }
}

const pause = (ms: number, signal: AbortSignal) =>
  new Promise<void>((resolve, reject) => {
    const onAbort = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal.removeEventListener("abort", onAbort);
      resolve();
    }, ms);
    signal.addEventListener("abort", onAbort, { once: true });
  });

/** Modules are kept under an address of their own: a bundler names the same file anew with each release of a shop. */
export const MODULES = "https://okyeame.invalid/module/";

/** The module that computes: from the cache, else from `part.url`. */
export async function moduleOf(part: Part, options: { signal: AbortSignal; tally: Tally }): Promise<Uint8Array<ArrayBuffer>> {
  let module: Uint8Array<ArrayBuffer> | undefined;
  const check = async (_: string, bytes: Uint8Array<ArrayBuffer>) => {
    // Without https there is no digest to be had; the length stands for it.
    const digest = globalThis.crypto?.subtle && hex(await crypto.subtle.digest("SHA-256", bytes));
    if (bytes.length !== part.bytes || (digest && digest !== part.sha256)) {
      throw new OkyeameError("damaged_part", `${part.url} is damaged, or belongs to another version of this package`);
    }
    module = bytes;
  };
  await fetchParts(MODULES, [part], check, options);
  return module!;
}

const hex = (buffer: ArrayBuffer) => [...new Uint8Array(buffer)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
