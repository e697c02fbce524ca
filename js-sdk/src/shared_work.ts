// Work that several wait for at the same time: done once, watched by all, given up when the last of them gives up.

import type { Progress, ProgressOptions } from "./engine.js";
import { OkyeameError } from "./errors.js";

export class SharedWork {
  #promise: Promise<void> | undefined;
  #givingUp = new AbortController();
  #waiting = 0;
  #watchers = new Set<(progress: Progress) => void>();

  /** Waits for the work, and begins it if nobody has. After a failure the next one begins it again. */
  async join(begin: (options: Required<ProgressOptions>) => Promise<void>, { onProgress, signal }: ProgressOptions): Promise<void> {
    if (onProgress) this.#watchers.add(onProgress);
    this.#waiting++;
    try {
      await orAborted((this.#promise ??= this.#begin(begin)), signal);
    } finally {
      if (onProgress) this.#watchers.delete(onProgress);
      if (--this.#waiting === 0 && signal?.aborted) this.#givingUp.abort(signal.reason);
    }
  }

  /** From now on it was never done. */
  forget(): void {
    this.#promise = undefined;
  }

  #begin(begin: (options: Required<ProgressOptions>) => Promise<void>): Promise<void> {
    this.#givingUp = new AbortController();
    const onProgress = (progress: Progress) => this.#watchers.forEach((watch) => watch(progress));
    const promise = begin({ signal: this.#givingUp.signal, onProgress });
    promise.catch(() => {
      if (this.#promise === promise) this.forget();
    });
    return promise;
  }
}

/** A promise that is given up with a signal; what it waits for goes on. */
function orAborted<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (!signal) return promise;
  return new Promise<T>((resolve, reject) => {
    const onAbort = () => reject(OkyeameError.of(signal.reason));
    if (signal.aborted) onAbort();
    signal.addEventListener("abort", onAbort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", onAbort));
  });
}
