// Fetching and keeping of parts, against a network and a cache that are told what to do.
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { fetchParts, manifestOf, moduleOf, Tally } from "../src/delivery.js";
import type { Progress } from "../src/engine.js";
import { ModelCache, partsOf, type Part } from "../src/model_cache.js";

const BASE = "https://shop.example/models/default/manifest.json";
const bytesOf = (n: number, value = 7) => new Uint8Array(n).fill(value);
const parts: Part[] = [1, 2, 3, 4, 5, 6].map((at) => ({ file: `intent-${at}.bin`, bytes: 1000 * at, sha256: `${at}`.repeat(64) }));
const total = 21_000;

/** Cache Storage in memory. */
class FakeCache {
  entries = new Map<string, Response>();
  full = false;
  match = async (key: string | { url: string }) => this.entries.get(typeof key === "string" ? key : key.url)?.clone();
  put = async (key: string, response: Response) => {
    if (this.full) throw new DOMException("full", "QuotaExceededError");
    this.entries.set(key, response);
  };
  delete = async (key: string) => this.entries.delete(key);
  keys = async () => [...this.entries.keys()].map((url) => ({ url }));
}

let store: FakeCache;
let calls: { url: string; range: string | null }[];
/** What the network does with a request: its bytes, sent in pieces; `cut`: so many bytes, and then nothing more. */
let network: (url: string) => { status?: number; body?: Uint8Array; cut?: number; ignoresRange?: boolean };

beforeEach(() => {
  store = new FakeCache();
  calls = [];
  network = (url) => ({ body: bytesOf(parts.find(({ file }) => url.endsWith(file))?.bytes ?? 3) });
  vi.stubGlobal("caches", { open: async () => store, delete: async () => store.entries.clear() });
  vi.stubGlobal("fetch", async (url: string, init: RequestInit = {}) => {
    init.signal?.throwIfAborted();
    const range = new Headers(init.headers).get("range");
    calls.push({ url, range });
    const from = Number(range?.match(/bytes=(\d+)-/)?.[1] ?? 0);
    const { status = 200, body, cut, ignoresRange } = network(url);
    if (status === 0) throw new TypeError("Failed to fetch");
    if (!body) return new Response(null, { status });
    const sent = ignoresRange ? body : body.subarray(from);
    const end = Math.min(sent.length, cut ?? sent.length);
    let at = 0;
    const stream = new ReadableStream({
      // piece by piece: an error would take back what waits in the queue
      pull(controller) {
        if (at < end) controller.enqueue(sent.slice(at, Math.min((at += 400), end)));
        else if (cut === undefined) controller.close();
        else controller.error(new TypeError("network error"));
      },
    });
    return new Response(stream, { status: from && !ignoresRange ? 206 : status });
  });
  const { setTimeout } = globalThis;
  vi.stubGlobal("setTimeout", (run: () => void) => setTimeout(run, 0)); // pauses take no time here
});
afterEach(() => {
  vi.unstubAllGlobals();
});

async function fetched(wanted = parts, check = (bytes: Uint8Array, n: number) => bytes.length === n) {
  const progress: Progress[] = [];
  const tally = new Tally((each) => progress.push(each));
  wanted.forEach(({ bytes }) => tally.expect(bytes));
  const got = new Map<string, Uint8Array>();
  const add = (file: string, bytes: Uint8Array) => {
    if (!check(bytes, wanted.find((part) => part.file === file)!.bytes)) throw Object.assign(new Error("damaged"), { code: "checksum_mismatch" });
    got.set(file, bytes);
  };
  const controller = new AbortController();
  await fetchParts(BASE, wanted, add, { signal: controller.signal, tally });
  return { got, progress };
}
const grows = (progress: Progress[]) => progress.every(({ loaded }, at) => at === 0 || loaded >= progress[at - 1]!.loaded);

describe("parts", () => {
  test("come once, in the right size, and progress grows to the whole", async () => {
    const { got, progress } = await fetched();
    expect(got.size).toBe(6);
    expect(grows(progress)).toBe(true);
    expect(progress.at(-1)).toEqual({ loaded: total, total, fromCache: 0 });
    expect(calls.length).toBe(6);
  });

  test("come from the cache the second time", async () => {
    await fetched();
    calls = [];
    const { progress } = await fetched();
    expect(calls).toEqual([]);
    expect(progress.at(-1)).toEqual({ loaded: total, total, fromCache: total });
  });

  test("what a cache holds and is not what it should be is fetched anew", async () => {
    await fetched();
    const [key] = [...store.entries.keys()];
    store.entries.set(key!, new Response(bytesOf(5)));
    calls = [];
    const { got, progress } = await fetched();
    expect([calls.length, got.size]).toEqual([1, 6]);
    expect(progress.at(-1)!.loaded).toBe(total);
    expect((await store.match(key!))!.headers.get("x-bytes")).not.toBe("5");
  });

  test("a transfer that is cut goes on where it was", async () => {
    let cuts = 3;
    network = (url) => {
      const body = bytesOf(parts.find(({ file }) => url.endsWith(file))!.bytes);
      return url.endsWith("intent-6.bin") && cuts-- > 0 ? { body, cut: 1200 } : { body };
    };
    const { got, progress } = await fetched();
    expect(got.get("intent-6.bin")!.length).toBe(6000);
    expect(calls.filter(({ url }) => url.endsWith("6.bin")).map(({ range }) => range)).toEqual([null, "bytes=1200-", "bytes=2400-", "bytes=3600-"]);
    expect(grows(progress)).toBe(true);
    expect(progress.at(-1)!.loaded).toBe(total);
  });

  test("a server without ranges begins anew, and nothing is counted twice", async () => {
    let cuts = 1;
    network = (url) => {
      const body = bytesOf(parts.find(({ file }) => url.endsWith(file))!.bytes);
      return url.endsWith("intent-6.bin") && cuts-- > 0 ? { body, cut: 5000, ignoresRange: true } : { body, ignoresRange: true };
    };
    const { got, progress } = await fetched();
    expect([...got.get("intent-6.bin")!]).toEqual([...bytesOf(6000)]);
    expect(grows(progress)).toBe(true);
    expect(progress.at(-1)!.loaded).toBe(total);
  });

  test("a network that brings nothing ends with an error, and what came is kept", async () => {
    network = (url) => (url.endsWith("intent-6.bin") ? { status: 0 } : { body: bytesOf(parts.find(({ file }) => url.endsWith(file))!.bytes) });
    await expect(fetched()).rejects.toMatchObject({ code: "network", retryable: true });
    expect(calls.filter(({ url }) => url.endsWith("6.bin")).length).toBe(3);
    expect(store.entries.size).toBe(5);
  });

  test.each([[404, "model_not_found", 1], [403, "network", 1], [500, "network", 3]])("HTTP %d: %s after %d tries", async (status, code, tries) => {
    network = () => ({ status });
    await expect(fetched(parts.slice(0, 1))).rejects.toMatchObject({ code });
    expect(calls.length).toBe(tries);
  });

  test("a damaged part is refused and not kept; a longer one is not read to its end", async () => {
    network = (url) => ({ body: bytesOf(url.endsWith("intent-2.bin") ? 1 << 20 : 1000) });
    await expect(fetched(parts.slice(0, 2))).rejects.toMatchObject({ code: "checksum_mismatch" });
    expect([...store.entries.keys()].some((key) => key.includes("intent-2"))).toBe(false);
  });

  test("a full disk, or a browser without a cache, is no reason to fail", async () => {
    store.full = true;
    expect((await fetched()).got.size).toBe(6);
    vi.stubGlobal("caches", undefined);
    expect((await fetched()).got.size).toBe(6);
    vi.stubGlobal("caches", { open: () => Promise.reject(new DOMException("no", "SecurityError")) });
    expect((await fetched()).got.size).toBe(6);
  });

  test("given up in the middle, it ends at once", async () => {
    const controller = new AbortController();
    const tally = new Tally(() => controller.abort(new DOMException("stop", "AbortError")));
    parts.forEach(({ bytes }) => tally.expect(bytes));
    await expect(fetchParts(BASE, parts, () => {}, { signal: controller.signal, tally })).rejects.toThrow("stop");
  });
});

describe("manifest and module", () => {
  test("the manifest comes from the network, and from the cache without one", async () => {
    network = () => ({ body: new TextEncoder().encode("{}") });
    expect(new TextDecoder().decode(await manifestOf(BASE))).toBe("{}");
    network = () => ({ status: 0 });
    expect(new TextDecoder().decode(await manifestOf(BASE))).toBe("{}");
    network = () => ({ status: 404 });
    await expect(manifestOf(BASE)).rejects.toMatchObject({ code: "model_not_found" });
  });

  test("a module is held against its digest", async () => {
    const sha256 = "4e2f9ba2b9f6c2ef9c5d8f9b7a3a9f9a"; // not that of these bytes
    network = () => ({ body: bytesOf(10) });
    const part = { file: "okyeame", bytes: 10, sha256, url: "https://shop.example/okyeame_bg.wasm" };
    const options = () => ({ signal: new AbortController().signal, tally: new Tally(undefined) });
    await expect(moduleOf(part, options())).rejects.toMatchObject({ code: "damaged_part" });
    const digest = Buffer.from(await crypto.subtle.digest("SHA-256", bytesOf(10))).toString("hex");
    expect((await moduleOf({ ...part, sha256: digest }, options())).length).toBe(10);
    expect(await new ModelCache().size()).toBe(10);
  });
});

describe("what is kept", () => {
  const manifest = { stages: [{ name: "intent", parts: parts.slice(0, 3) }, { name: "words", parts: parts.slice(3) }] };
  const keep = () => store.put(BASE, new Response(JSON.stringify(manifest)));

  test("has, missing, size, clear", async () => {
    const cache = new ModelCache();
    expect([await cache.has(BASE), await cache.missing(BASE)]).toEqual([false, undefined]);
    await keep();
    expect(await cache.missing(BASE)).toBe(6000);
    await fetched(parts.slice(0, 3));
    expect([await cache.has(BASE), await cache.has(BASE, { words: true }), await cache.missing(BASE, { words: true })]).toEqual([true, false, 15_000]);
    expect(await cache.size()).toBe(6000);
    await cache.clear();
    expect([await cache.size(), await cache.has(BASE)]).toEqual([0, false]);
  });

  test("parts of earlier versions go, those of other models stay", async () => {
    await fetched();
    await store.put("https://shop.example/models/other/intent-1.bin?sha256=1", new Response("x"));
    await new ModelCache().evict("https://shop.example/models/default/", parts.slice(0, 2));
    expect([...store.entries.keys()].map((key) => key.split("/").slice(-2).join("/").slice(0, 20)).sort()).toEqual(["default/intent-1.bin", "default/intent-2.bin", "other/intent-1.bin?s"]);
  });

  test.each([undefined, null, 7, "x", {}, { stages: 1 }, { stages: [null, { name: "intent", parts: "x" }, { name: "intent", parts: [null, { file: 1 }] }] }])("a manifest that is none has no parts", (nonsense) => {
    expect(partsOf(nonsense, ["intent"])).toEqual([]);
  });
});
