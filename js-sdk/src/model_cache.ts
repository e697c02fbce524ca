// What this device keeps of models: Cache Storage, an entry for each part, named by its content.
//
// Nothing is kept that was not verified, and what is kept is verified again by whoever reads it. Where a browser has no
// Cache Storage (private windows of some, pages without https), everything works, and nothing is kept.

const NAME = "okyeame";

/** A part as a manifest names it. */
export interface Part {
  file: string;
  bytes: number;
  sha256: string;
  /** Where it comes from, if that is not beside the manifest. */
  url?: string;
}

/** The parts of a bundle's stage, as far as a manifest can be read; the engine itself reads it strictly. */
export function partsOf(manifest: unknown, stages: string[]): Part[] {
  const all = (manifest as { stages?: unknown })?.stages;
  if (!Array.isArray(all)) return [];
  return all
    .filter((stage) => stages.includes(stage?.name))
    .flatMap((stage) => (Array.isArray(stage.parts) ? stage.parts : []))
    .filter((part) => typeof part?.file === "string" && part.bytes >= 0 && typeof part.sha256 === "string");
}

/** The address under which a part is kept: a part of another version is another entry. */
export const keyOf = (base: string | URL, { file, sha256 }: Part) => `${new URL(file, base).href}?sha256=${sha256}`;

export class ModelCache {
  /** What a disk that is full, or a browser that forbids it, cannot keep is not kept. */
  async #open(): Promise<Cache | undefined> {
    try {
      return await globalThis.caches?.open(NAME);
    } catch {
      return undefined;
    }
  }

  async get(key: string): Promise<Uint8Array<ArrayBuffer> | undefined> {
    const kept = await (await this.#open())?.match(key);
    return kept && new Uint8Array(await kept.arrayBuffer());
  }

  async put(key: string, bytes: Uint8Array<ArrayBuffer>): Promise<void> {
    await (await this.#open())?.put(key, new Response(bytes, { headers: { "x-bytes": `${bytes.length}` } })).catch(() => {});
  }

  async delete(key: string): Promise<void> {
    await (await this.#open())?.delete(key);
  }

  /** Whether a model answers without a network: its manifest and every part of its first stage are here. */
  async has(manifest: string | URL, { words = false } = {}): Promise<boolean> {
    return (await this.missing(manifest, { words })) === 0;
  }

  /** Bytes that a model still needs from the network; `undefined` if its manifest was never here. */
  async missing(manifest: string | URL, { words = false } = {}): Promise<number | undefined> {
    const cache = await this.#open();
    manifest = new URL(manifest, globalThis.location?.href);
    const kept = await cache?.match(manifest.href);
    if (!cache || !kept) return undefined;
    const parts = partsOf(await kept.json().catch(() => undefined), words ? ["intent", "words"] : ["intent"]);
    if (!parts.length) return undefined;
    return this.missingOf(manifest, parts);
  }

  /** Bytes of the parts that are not here. */
  async missingOf(base: string | URL, parts: Part[]): Promise<number> {
    const cache = await this.#open();
    const there = await Promise.all(parts.map((part) => cache?.match(keyOf(base, part))));
    return parts.reduce((sum, part, at) => sum + (there[at] ? 0 : part.bytes), 0);
  }

  /** Bytes that are kept, of all models. */
  async size(): Promise<number> {
    const cache = await this.#open();
    const kept = await Promise.all(((await cache?.keys()) ?? []).map((request) => cache!.match(request)));
    return kept.reduce((sum, response) => sum + Number(response?.headers.get("x-bytes") ?? 0), 0);
  }

  /** Forgets everything, of all models. */
  async clear(): Promise<void> {
    await globalThis.caches?.delete(NAME).catch(() => {});
  }

  /** Forgets what lies under an address and is not in `wanted`: the parts of earlier versions. */
  async evict(under: string, wanted: Part[], base = under): Promise<void> {
    const cache = await this.#open();
    const keep = new Set(wanted.map((part) => keyOf(base, part)));
    const old = ((await cache?.keys()) ?? []).map(({ url }) => url);
    const gone = old.filter((url) => url.startsWith(under) && url.includes("?sha256=") && !keep.has(url));
    await Promise.all(gone.map((url) => cache!.delete(url)));
  }
}
