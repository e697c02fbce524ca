// The one error of this package. Its `code` is stable: the server's, the wasm engine's, or one of those below.

/** Codes after which the same call may succeed: a moment later, or with a network. */
const RETRYABLE = new Set(["network", "overloaded", "loading", "draining", "model_unavailable", "timeout", "engine_restarting"]);

/** Codes that this package gives by itself; those of the server and of the wasm engine come through as they are. */
export type OwnErrorCode =
  | "aborted"
  | "budget_exceeded"
  | "consent_missing"
  | "damaged_part"
  | "device_unavailable"
  | "disposed"
  | "engine_restarting"
  | "engine_stopped"
  | "http_error"
  | "internal"
  | "invalid_parameter"
  | "microphone_busy"
  | "microphone_denied"
  | "microphone_lost"
  | "microphone_missing"
  | "microphone_unsupported"
  | "model_not_found"
  | "network"
  | "no_engine"
  | "page_hidden"
  | "timeout"
  | "unsupported_model"
  | "wasm_simd_missing";

/** Any code; the known ones complete in an editor. */
export type ErrorCode = OwnErrorCode | (string & {});

export interface OkyeameErrorOptions {
  /** What it came from. */
  cause?: unknown;
  /** The HTTP status, where a server answered. */
  status?: number;
  /** The server's id of the request: for support. */
  requestId?: string;
  /** Seconds after which the server would like to be asked again. */
  retryAfterS?: number;
}

/** Whatever goes wrong: a sentence to act on, a `code` to branch on, and whether trying again makes sense. */
export class OkyeameError extends Error {
  override readonly name = "OkyeameError";
  readonly code: ErrorCode;
  readonly retryable: boolean;
  readonly status: number | undefined;
  readonly requestId: string | undefined;
  readonly retryAfterS: number | undefined;

  constructor(code: ErrorCode, message: string, { cause, status, requestId, retryAfterS }: OkyeameErrorOptions = {}) {
    super(message, cause === undefined ? undefined : { cause });
    this.code = code;
    this.retryable = RETRYABLE.has(code);
    this.status = status;
    this.requestId = requestId;
    this.retryAfterS = retryAfterS;
  }

  /** Any thrown thing as one of these. */
  static of(error: unknown): OkyeameError {
    if (error instanceof OkyeameError) return error;
    if (error instanceof DOMException && error.name === "AbortError") {
      return new OkyeameError("aborted", "it was given up", { cause: error });
    }
    const { code, message } = (error ?? {}) as { code?: unknown; message?: unknown };
    return new OkyeameError(typeof code === "string" ? code : "internal", String(message ?? error), { cause: error });
  }
}
