import { describe, expect, test } from "vitest";
import type { Progress, ProgressOptions } from "../src/engine.js";
import { SharedWork } from "../src/shared_work.js";

/** Work that ends when it is told, and what was asked of it. */
function work() {
  const begun: { options: Required<ProgressOptions>; end: (error?: unknown) => void }[] = [];
  const begin = (options: Required<ProgressOptions>) =>
    new Promise<void>((resolve, reject) => {
      begun.push({ options, end: (error) => (error ? reject(error) : resolve()) });
      options.signal.addEventListener("abort", () => reject(options.signal.reason));
    });
  return { begun, begin };
}

describe("work that several wait for", () => {
  test("is begun once and watched by all", async () => {
    const { begun, begin } = work();
    const shared = new SharedWork();
    const seen: number[][] = [[], []];
    const both = seen.map((loaded) => shared.join(begin, { onProgress: (progress) => loaded.push(progress.loaded) }));
    begun[0]!.options.onProgress({ loaded: 7 } as Progress);
    begun[0]!.end();
    await Promise.all(both);
    await shared.join(begin, {}); // it is done
    expect([begun.length, seen]).toEqual([1, [[7], [7]]]);
  });

  test("goes on while somebody waits, and is given up with the last", async () => {
    const { begun, begin } = work();
    const shared = new SharedWork();
    const [first, second] = [new AbortController(), new AbortController()];
    const waiting = [first, second].map(({ signal }) => shared.join(begin, { signal }).catch((error) => error.code));
    first.abort();
    expect(await waiting[0]).toBe("aborted");
    expect(begun[0]!.options.signal.aborted).toBe(false);
    second.abort();
    expect(await waiting[1]).toBe("aborted");
    expect(begun[0]!.options.signal.aborted).toBe(true);
  });

  test("is begun again after it failed, was given up, or was forgotten", async () => {
    const { begun, begin } = work();
    const shared = new SharedWork();
    const failing = shared.join(begin, {});
    begun[0]!.end(new Error("no network"));
    await expect(failing).rejects.toThrow("no network");
    const controller = new AbortController();
    const givenUp = shared.join(begin, { signal: controller.signal });
    controller.abort();
    await expect(givenUp).rejects.toMatchObject({ code: "aborted" });
    await new Promise((resolve) => setTimeout(resolve));
    const done = shared.join(begin, {});
    begun[2]!.end();
    await done;
    shared.forget();
    const again = shared.join(begin, {});
    begun[3]!.end();
    await again;
    expect(begun.length).toBe(4);
  });

  test("whoever comes with a signal that is spent does not hold others up", async () => {
    const { begun, begin } = work();
    const shared = new SharedWork();
    const waiting = shared.join(begin, {});
    await expect(shared.join(begin, { signal: AbortSignal.abort() })).rejects.toMatchObject({ code: "aborted" });
    begun[0]!.end();
    await waiting;
    expect(begun.length).toBe(1);
  });
});
