// A bundle's files: from the cache if they are there, else from the network, and nothing into the cache that is bad.

/** Parts that are fetched at the same time. */
const AT_ONCE = 4;
const CACHE = "okyeame";

/** An error as every part of this package throws it: an `OkyeameError` with a `code`. */
export function engineError(code, message) {
  return Object.assign(new Error(message), { name: "OkyeameError", code });
}

/** The cache, where the browser has one: not in private windows of all browsers, and not without https. */
async function openCache() {
  try {
    return await globalThis.caches?.open(CACHE);
  } catch {
    return undefined;
  }
}

async function get(url, signal) {
  let response;
  try {
    response = await fetch(url, { signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw engineError("network", `${url} cannot be fetched: ${error.message}`);
  }
  if (response.status === 404) throw engineError("model_not_found", `${url} is not there (404)`);
  if (!response.ok) throw engineError("network", `${url} cannot be fetched: HTTP ${response.status}`);
  return response;
}

const bytesOf = async (response) => new Uint8Array(await response.arrayBuffer());

/** The manifest: from the network, so that a new version is seen; from the cache if there is no network. */
export async function manifestOf(url, signal) {
  const cache = await openCache();
  try {
    const bytes = await bytesOf(await get(url, signal));
    await cache?.put(url, new Response(bytes)).catch(() => {});
    return bytes;
  } catch (error) {
    const kept = error.code === "network" && (await cache?.match(url));
    if (!kept) throw error;
    return bytesOf(kept);
  }
}

/**
 * Gets parts and hands each to `add`, which throws if it is not what the manifest says.
 *
 * @param {URL} base of the manifest
 * @param {{file: string, bytes: number, sha256: string}[]} parts
 * @param {(file: string, bytes: Uint8Array) => void} add
 * @param {{signal?: AbortSignal, onProgress?: (progress: {loaded: number, total: number, from_cache: number}) => void}} options
 */
export async function fetchParts(base, parts, add, { signal, onProgress } = {}) {
  const cache = await openCache();
  const progress = { loaded: 0, total: parts.reduce((sum, part) => sum + part.bytes, 0), from_cache: 0 };
  const count = (n) => {
    // A server may send more than was announced; the part is refused then, and progress stays true.
    progress.loaded = Math.min(progress.total, progress.loaded + n);
    onProgress?.({ ...progress });
  };
  // One failure ends the others.
  const ended = new AbortController();
  const onAbort = () => ended.abort(signal.reason);
  if (signal?.aborted) onAbort();
  signal?.addEventListener("abort", onAbort);

  const one = async (part) => {
    ended.signal.throwIfAborted();
    const url = new URL(part.file, base);
    // The digest names the content: a part of another version is another entry.
    const key = `${url}?sha256=${part.sha256}`;
    const kept = await cache?.match(key);
    if (kept) {
      try {
        add(part.file, await bytesOf(kept));
        progress.from_cache += part.bytes;
        return count(part.bytes);
      } catch (error) {
        if (error instanceof WebAssembly.RuntimeError) throw error;
        await cache.delete(key);
      }
    }
    const bytes = await received(await get(url, ended.signal), part.bytes, count);
    add(part.file, bytes);
    await cache?.put(key, new Response(bytes)).catch(() => {}); // a full disk is no reason to fail
  };

  const queue = [...parts];
  const lane = async () => {
    for (let part = queue.shift(); part; part = queue.shift()) await one(part);
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
    signal?.removeEventListener("abort", onAbort);
  }
}

/** A body of `n` bytes, counted as it arrives. What is longer is cut off after one byte too many: it is refused anyway. */
async function received(response, n, count) {
  const bytes = new Uint8Array(n + 1);
  let at = 0;
  const reader = response.body.getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      const piece = value.subarray(0, bytes.length - at);
      bytes.set(piece, at);
      at += piece.length;
      count(Math.min(piece.length, Math.max(0, n - at + piece.length)));
      if (at > n) {
        await reader.cancel();
        break;
      }
    }
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw engineError("network", `${response.url} was cut off after ${at} of ${n} bytes`);
  }
  return bytes.subarray(0, at);
}
