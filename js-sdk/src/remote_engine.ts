// Recognition by a server: `okyeame server`'s HTTP API, from a page or from Node.

import { type Catalogue, checkOptions, type ProgressOptions, type RecognizeOptions, type Sound, type SpeechEngine, type TextOptions } from "./engine.js";
import { OkyeameError } from "./errors.js";
import type { Recognition } from "./recognition.js";
import { clipOf, fileOf, type Upload } from "./sound.js";

export interface RemoteOptions {
  /** The server's address, such as `https://voice.shop.example`; in a page also `/`. */
  server: string | URL;
  /**
   * What opens a server that asks for a key: in a page a token, never a key. A function fetches one from the shop's own
   * server, which mints it with `POST /v1/tokens`; it is asked again when the token has ended.
   */
  token?: string | (() => string | Promise<string>);
  /** Sent with every request. */
  headers?: Record<string, string>;
  /** The shop's own names; without them the server's are used. */
  catalogue?: Catalogue;
  language?: string;
  /** How samples, such as the microphone's, are sent: `opus` if nothing is said. Files go as they are. */
  upload?: Upload;
  /** After this the answer is not waited for, ms. */
  timeoutMs?: number;
  /** How often a server that is full or starting is asked again, after the time that it says. */
  retries?: number;
}

/** The longest that a server's `Retry-After` is waited for; a customer is waiting too. */
const MAX_WAIT_S = 5;

export class RemoteEngine implements SpeechEngine {
  readonly #server: URL;
  readonly #options: RemoteOptions;
  readonly #disposed = new AbortController();
  #token: Promise<string | undefined> | undefined;

  constructor(options: RemoteOptions) {
    this.#options = options;
    this.#server = addressOf(options.server);
  }

  /** Resolves when the server can answer: a server that is loading its model is waited for. */
  async ready({ signal }: ProgressOptions = {}): Promise<void> {
    await this.#asked("health", {}, 60, signal);
  }

  async recognize(sound: Sound, options: RecognizeOptions = {}): Promise<Recognition> {
    checkOptions(options);
    const { topK, language, words = false, catalogue, filename, requestId, signal } = options;
    const form = new FormData();
    const file = await fileOf(await clipOf(sound, options.sampleRate), this.#options.upload);
    form.append("file", file, filename ?? (sound as File).name ?? "command");
    const names = catalogue ?? this.#options.catalogue;
    const fields = {
      top_k: topK,
      language: language ?? this.#options.language,
      transcribe: words,
      catalogue: names && JSON.stringify(names),
    };
    for (const [name, value] of Object.entries(fields)) if (value !== undefined) form.append(name, String(value));
    const init = { method: "POST", body: form, ...(requestId && { headers: { "x-request-id": requestId } }) };
    const answer = await this.#asked("test-intent", init, this.#options.retries ?? 1, signal);
    return this.#recognition(answer);
  }

  async recognizeText(text: string, options: TextOptions = {}): Promise<Recognition> {
    checkOptions(options);
    const { topK, language = this.#options.language, catalogue = this.#options.catalogue, requestId, signal } = options;
    const headers = { "content-type": "application/json", ...(requestId && { "x-request-id": requestId }) };
    const body = JSON.stringify({ text, top_k: topK, language, catalogue });
    return this.#recognition(await this.#asked("text-intent", { method: "POST", body, headers }, this.#options.retries ?? 1, signal));
  }

  async #recognition(answer: Response): Promise<Recognition> {
    return (await answer.json().catch((cause: unknown) => {
      throw new OkyeameError("http_error", `${this.#server.host} gave an answer that is no JSON`, { cause });
    })) as Recognition;
  }

  dispose(): void {
    this.#disposed.abort(new OkyeameError("disposed", "the engine was disposed of"));
  }

  async #asked(path: string, init: RequestInit, retries: number, signal: AbortSignal | undefined): Promise<Response> {
    for (;;) {
      const had = this.#token;
      try {
        return await this.#once(path, init, signal);
      } catch (error) {
        const { status, retryAfterS = status === 503 ? 1 : undefined } = error as OkyeameError;
        // Neither a token that has ended nor one that never came is used again; one that was new and is refused stays refused.
        if (!status || status === 401) this.#token = undefined;
        if (status === 401 && had) continue;
        if (retries-- <= 0 || retryAfterS === undefined || retryAfterS > MAX_WAIT_S) throw error;
        await this.#pause(1000 * retryAfterS, signal);
      }
    }
  }

  async #once(path: string, init: RequestInit, signal: AbortSignal | undefined): Promise<Response> {
    const timeoutMs = this.#options.timeoutMs ?? 30_000;
    const { signal: ended, release } = anyOf([this.#disposed.signal, signal], timeoutMs);
    try {
      const { token } = this.#options;
      this.#token ??= Promise.resolve(token).then((token) => (typeof token === "function" ? token() : token));
      const shown = await Promise.race([this.#token, new Promise<undefined>((_, reject) => ended.addEventListener("abort", reject))]);
      const headers = { ...this.#options.headers, ...(shown && { authorization: `Bearer ${shown}` }), ...(init.headers as Record<string, string>) };
      const response = await fetch(new URL(path, this.#server), { ...init, headers, signal: ended });
      if (response.ok) return response;
      throw await refused(response);
    } catch (error) {
      if (error instanceof OkyeameError) throw error;
      if (this.#disposed.signal.aborted) throw this.#disposed.signal.reason;
      if (signal?.aborted) throw OkyeameError.of(signal.reason);
      if (ended.aborted) throw new OkyeameError("timeout", `${this.#server.host} did not answer within ${timeoutMs / 1000} s`, { cause: error });
      throw new OkyeameError("network", `${this.#server.host} cannot be reached: ${(error as Error).message}`, { cause: error });
    } finally {
      release();
    }
  }

  #pause(ms: number, signal: AbortSignal | undefined): Promise<void> {
    const { signal: ended, release } = anyOf([this.#disposed.signal, signal]);
    return new Promise<void>((resolve, reject) => {
      const timer = setTimeout(resolve, ms);
      ended.addEventListener("abort", () => {
        clearTimeout(timer);
        reject(OkyeameError.of(ended.reason));
      });
    }).finally(release);
  }
}

/** A server's address, under which its routes lie. */
export function addressOf(server: string | URL): URL {
  try {
    const address = new URL(server, globalThis.document?.baseURI);
    if (!address.pathname.endsWith("/")) address.pathname += "/";
    return address;
  } catch (cause) {
    throw new OkyeameError("invalid_parameter", `server: an address such as https://voice.shop.example, not '${server}'`, { cause });
  }
}

/** What a server said no with: its own code and sentence, where it is an okyeame server. */
async function refused(response: Response): Promise<OkyeameError> {
  const { status } = response;
  const body = (await response.json().catch(() => ({}))) as { detail?: unknown; code?: unknown; request_id?: unknown };
  const seconds = Number(response.headers.get("retry-after") ?? NaN);
  return new OkyeameError(
    typeof body.code === "string" ? body.code : "http_error",
    typeof body.detail === "string" ? body.detail : `the server answered ${status}`,
    {
      status,
      ...(typeof body.request_id === "string" && { requestId: body.request_id }),
      ...(seconds >= 0 && { retryAfterS: seconds }),
    },
  );
}

/** Aborted when one of them is, or after a time. (`AbortSignal.any` is not on phones of 2023.) */
function anyOf(signals: (AbortSignal | undefined)[], timeoutMs?: number): { signal: AbortSignal; release: () => void } {
  const controller = new AbortController();
  const timer = timeoutMs === undefined ? undefined : setTimeout(() => controller.abort(), timeoutMs);
  const undo = signals.map((signal) => {
    const onAbort = () => controller.abort(signal!.reason);
    if (signal?.aborted) onAbort();
    signal?.addEventListener("abort", onAbort, { once: true });
    return () => signal?.removeEventListener("abort", onAbort);
  });
  return {
    signal: controller.signal,
    release: () => {
      clearTimeout(timer);
      undo.forEach((each) => each());
    },
  };
}
