// What every engine of this package is, wherever it computes.

import { OkyeameError } from "./errors.js";
import type { Recognition } from "./recognition.js";

/** A sound: a file's bytes (WAV, FLAC, MP3, Ogg, WebM, M4A), decoded audio, or samples of one channel with `sampleRate`. */
export type Sound = Blob | ArrayBuffer | ArrayBufferView<ArrayBuffer> | AudioBuffer | Float32Array<ArrayBuffer>;

/** A shop's own names: what products, brands, categories, sizes and colours are called, in Twi and English. */
export interface Catalogue {
  products?: CatalogueValue[];
  brands?: CatalogueValue[];
  categories?: CatalogueValue[];
  sizes?: CatalogueValue[];
  colors?: CatalogueValue[];
  slots?: Record<string, CatalogueValue[]>;
}
/** A value and the names that customers call it by; a text alone is its own name. */
export type CatalogueValue = string | { value: string; names: string[] };

export interface RecognizeOptions {
  /** Hz of a `Float32Array`; 16000 if nothing is said. */
  sampleRate?: number;
  /** How many candidates `top_predictions` holds, 1 to 49; 5 if nothing is said. */
  topK?: number;
  /** `tw`, or one of Whisper's codes such as `en`, or `auto`. */
  language?: string;
  /** The words as well: slower, and on this device a second download. */
  words?: boolean;
  /** Beams of the words' search; 1 is greedy. */
  beamSize?: number;
  /** The shop's own names, over those given at the start. */
  catalogue?: Catalogue;
  /** What the answer and the server's log call the clip. */
  filename?: string;
  requestId?: string;
  signal?: AbortSignal;
}

export type TextOptions = Pick<RecognizeOptions, "topK" | "language" | "catalogue" | "requestId" | "signal">;

/** Bytes of a download. `loaded` only grows and ends at `total`. */
export interface Progress {
  loaded: number;
  total: number;
  /** Of `loaded`: what did not come over the network. */
  fromCache: number;
}

export interface ProgressOptions {
  onProgress?: (progress: Progress) => void;
  signal?: AbortSignal;
}

/** Recognises commands. Implemented by `LocalEngine`, `RemoteEngine` and `AutoEngine`. */
export interface SpeechEngine {
  /** Resolves when the next command is answered without loading anything before; rejects if it never will be. */
  ready(options?: ProgressOptions): Promise<void>;
  /**
   * The answer to one command.
   *
   * @throws OkyeameError with a `code`; what is no command is no error but an answer with `accepted: false`
   */
  recognize(sound: Sound, options?: RecognizeOptions): Promise<Recognition>;
  /** The answer to a command that was typed: matched from the words, with the same result. */
  recognizeText(text: string, options?: TextOptions): Promise<Recognition>;
  /** Gives memory and connections back. What is under way is rejected with `disposed`. */
  dispose(): void;
}

const KNOWN = ["sampleRate", "topK", "language", "words", "beamSize", "catalogue", "filename", "requestId", "signal"];

/** A misspelt option is an error, not an option that does nothing. */
export function checkOptions(options: object): void {
  const unknown = Object.keys(options).filter((name) => !KNOWN.includes(name));
  if (unknown.length) throw new OkyeameError("invalid_parameter", `${unknown.join(", ")}: no such option; there are ${KNOWN.join(", ")}`);
}
