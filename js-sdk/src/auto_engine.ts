// On this device or by a server: as the policy says, with a receipt in every answer.

import { probeBattery, probeCapabilities, probeNetwork } from "./capabilities.js";
import type { ProgressOptions, RecognizeOptions, Sound, SpeechEngine, TextOptions } from "./engine.js";
import { OkyeameError } from "./errors.js";
import { LocalEngine, type LocalOptions } from "./local_engine.js";
import { ModelCache } from "./model_cache.js";
import {
  type Choice, choose, chooseSecond, type Consent, DEFAULT_LIMITS, downloadsUnasked, type Limits, type Outcome, POLICIES,
  type Policy, type Reason, type Situation,
} from "./policy.js";
import type { Recognition } from "./recognition.js";
import { RemoteEngine, type RemoteOptions } from "./remote_engine.js";
import { clipOf, fileOf } from "./sound.js";

export interface AutoOptions extends Omit<LocalOptions, "model" | "words">, Omit<RemoteOptions, "server"> {
  /** The address of a web bundle's `manifest.json`; without it nothing is computed here. */
  model?: string | URL;
  /** The server's address; without it nothing is sent. */
  server?: string | URL;
  /** `local-first` if nothing is said. */
  policy?: Policy;
  /** `ask` (in a browser, if nothing is said): nothing is sent before the customer has agreed. `given`: they have. */
  consent?: "ask" | "given";
  /** Asks the customer, and resolves to what they say. Without it, a consent that was not given is none. */
  onConsent?: () => Promise<boolean> | boolean;
  limits?: Partial<Limits>;
  /** The model's download, whenever it happens. */
  onProgress?: ProgressOptions["onProgress"];
}

/** How each side is asked; `sent` counts what goes to the server. */
interface Sides {
  here(): Promise<Recognition>;
  there(sent: { bytes: number }): Promise<Recognition>;
  words?: boolean;
  signal?: AbortSignal;
}

/** Commands whose times are remembered. */
const REMEMBERED = 5;
const CONSENT_KEY = "okyeame.consent";

const SENTENCES: Partial<Record<Reason, string>> = {
  no_model: "no model is given, and the policy allows no server",
  no_server: "no server is given, and this device cannot answer",
  offline: "there is no network, and what is here cannot answer",
  device_cannot: "this browser has no WebAssembly with 128-bit vectors, and no server may be asked",
  consent_refused: "the customer does not want their voice to be sent, and this device cannot answer",
  consent_missing: "the customer has not agreed to their voice being sent, and this device cannot answer",
  not_enough_memory: "this device has too little memory for the model, and no server may be asked",
};

export class AutoEngine implements SpeechEngine {
  readonly #options: AutoOptions;
  readonly #local: LocalEngine | undefined;
  readonly #remote: RemoteEngine | undefined;
  readonly #cache = new ModelCache();
  readonly #capabilities = probeCapabilities();
  #policy: Policy;
  #loading: Promise<void> | undefined;
  #localReady = false;
  #localFailed: string | undefined;
  #asking: Promise<boolean> | undefined;
  #history: Situation["history"] = { localMs: [], remoteMs: [], remoteFailures: 0 };
  #consent: Consent;
  #disposed = false;

  constructor(options: AutoOptions) {
    this.#options = options;
    this.#policy = checked(options.policy ?? "local-first");
    if (!options.model && !options.server) {
      throw new OkyeameError("invalid_parameter", "model, server: at least one of the two must be given");
    }
    const { model, server, policy: _p, consent: _c, onConsent: _o, limits: _l, onProgress: _g, ...rest } = options;
    const { token, headers, timeoutMs, retries, upload, device, dtype, byteBudget, ...shared } = rest;
    const given = <T extends object>(values: T) => Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined));
    this.#local = model ? new LocalEngine({ ...shared, ...given({ device, dtype, byteBudget }), model }) : undefined;
    this.#remote = server ? new RemoteEngine({ ...shared, ...given({ token, headers, timeoutMs, retries, upload }), server }) : undefined;
    const asks = options.consent ?? (typeof document === "undefined" ? "given" : "ask");
    this.#consent = asks === "given" ? "given" : remembered();
  }

  get policy(): Policy {
    return this.#policy;
  }
  set policy(policy: Policy) {
    this.#policy = checked(policy);
    void this.begin();
  }

  get consent(): Consent {
    return this.#consent;
  }
  /** What the customer said; remembered in this browser. */
  set consent(consent: Consent) {
    this.#consent = consent;
    try {
      if (consent === "not_asked") localStorage.removeItem(CONSENT_KEY);
      else localStorage.setItem(CONSENT_KEY, consent);
    } catch {
      // a browser that keeps nothing: asked again next time
    }
  }

  /** Where the model computes on this device, and why there; `undefined` until it is loaded. */
  get device() {
    return this.#local?.device;
  }

  /** Fetches the model if that costs the customer nothing that they would mind. Never rejects. */
  async begin(): Promise<void> {
    if (downloadsUnasked(await this.situation())) await this.load().catch(() => {});
  }

  /** Fetches the model and starts it, whatever the connection costs: for a button that says so. */
  load({ onProgress, signal }: ProgressOptions = {}): Promise<void> {
    const local = this.#local;
    if (!local) return Promise.reject(new OkyeameError("model_not_found", "no model is given"));
    this.#loading ??= local
      .ready(this.#options.onProgress ? { onProgress: this.#options.onProgress } : {})
      .then(
        () => void ([this.#localReady, this.#localFailed] = [true, undefined]),
        (error: OkyeameError) => {
          // What a better connection mends is tried again at the next command.
          this.#localFailed = error.retryable ? undefined : error.code;
          throw error;
        },
      )
      .finally(() => (this.#loading = undefined));
    this.#loading.catch(() => {});
    return onProgress || signal ? Promise.all([this.#loading, local.ready({ ...(onProgress && { onProgress }), ...(signal && { signal }) })]).then(() => {}) : this.#loading;
  }

  async ready(options: ProgressOptions = {}): Promise<void> {
    const choice = choose(await this.situation());
    if (choice.where === "none") throw noEngine(choice.why);
    return choice.where === "local" ? this.load(options) : this.#remote!.ready(options);
  }

  /** Where the next command would be answered, and why. */
  async choice(): Promise<Choice> {
    return choose(await this.situation());
  }

  /** All that a choice is made of, as it is now. `words`: for a command whose words are wanted, which need more of the model. */
  async situation({ words = false } = {}): Promise<Situation> {
    const { model } = this.#options;
    const address = model && new URL(model, globalThis.document?.baseURI);
    const ready = this.#localReady && (!words || this.#local!.hasWords);
    const [capabilities, battery, missingBytes] = await Promise.all([
      this.#capabilities,
      probeBattery(),
      address && !ready ? this.#cache.missing(address, { words }).catch(() => undefined) : 0,
    ]);
    return {
      policy: this.#policy,
      server: this.#remote !== undefined,
      consent: this.#consent,
      capabilities,
      network: probeNetwork(),
      battery,
      model: { known: this.#local !== undefined, ready, missingBytes, failed: this.#localFailed },
      history: this.#history,
      limits: { ...DEFAULT_LIMITS, ...this.#options.limits },
    };
  }

  async recognize(sound: Sound, options: RecognizeOptions = {}): Promise<Recognition> {
    const clip = await clipOf(sound, options.sampleRate);
    return this.#answeredBy({
      here: async () => {
        const answer = await this.#local!.recognize(sound, options);
        if (!options.words) remember(this.#history.localMs, answer.processing_time_ms);
        return answer;
      },
      there: async (sent) => {
        const file = await fileOf(clip, this.#options.upload);
        sent.bytes += file.size;
        const begun = performance.now();
        const answer = await this.#remote!.recognize(file, options);
        if (!options.words) remember(this.#history.remoteMs, performance.now() - begun);
        return answer;
      },
      words: options.words ?? false,
      ...(options.signal && { signal: options.signal }),
    });
  }

  async recognizeText(text: string, options: TextOptions = {}): Promise<Recognition> {
    return this.#answeredBy({
      here: () => this.#local!.recognizeText(text, options),
      there: (sent) => {
        sent.bytes += new TextEncoder().encode(text).length;
        return this.#remote!.recognizeText(text, options);
      },
      ...(options.signal && { signal: options.signal }),
    });
  }

  /** The answer of the side that is chosen, or of the other, with its receipt. */
  async #answeredBy({ here, there, words = false, signal }: Sides): Promise<Recognition> {
    if (this.#disposed) throw new OkyeameError("disposed", "the engine was disposed of");
    // Counted before it is known to arrive: a receipt may say too much, never too little.
    const sent = { bytes: 0 };
    const ask = async (where: "local" | "remote") => {
      if (where === "local") {
        await this.load(signal ? { signal } : {});
        return here();
      }
      try {
        const answer = await there(sent);
        this.#history.remoteFailures = 0;
        return answer;
      } catch (error) {
        if (!isTheCallers(error)) this.#history.remoteFailures++;
        throw error;
      }
    };

    const situation = await this.situation({ words });
    const first = await this.#agreed(choose(situation));
    if (first.where === "none") throw noEngine(first.why);
    // The words' stage follows where it costs nothing that the customer would mind; the server writes them meanwhile.
    if (words && first.why === "model_not_local" && this.#localReady && downloadsUnasked(situation)) {
      void this.#local!.loadWords().catch(() => {});
    }
    let answer: Recognition | undefined;
    let error: unknown;
    let outcome: Outcome;
    try {
      answer = await ask(first.where);
      if (!isUnsure(answer)) return withReceipt(answer, first.why, sent.bytes);
      outcome = "unsure";
    } catch (thrown) {
      if (isTheCallers(thrown)) throw thrown;
      error = thrown;
      outcome = "failed";
    }
    const second = chooseSecond(await this.situation({ words }), first.where, outcome);
    const other = second && (await this.#agreed(second));
    // Without consent, what is left is often the side that has just been asked.
    if (other && other.where !== "none" && other.where !== first.where) {
      try {
        const better = await ask(other.where);
        if (!answer || !isUnsure(better)) return withReceipt(better, other.why, sent.bytes);
      } catch (thrown) {
        if (isTheCallers(thrown)) throw thrown;
        // the first side's error is the one to tell
      }
    }
    if (!answer) throw error;
    return withReceipt(answer, first.why, sent.bytes);
  }

  dispose(): void {
    this.#disposed = true;
    this.#local?.dispose();
    this.#remote?.dispose();
  }

  /** A choice as the customer lets it be. */
  async #agreed(choice: Choice): Promise<Choice & { where: "local" | "remote" | "none" }> {
    if (!choice.ask) return choice;
    const { onConsent } = this.#options;
    if (onConsent) {
      this.#asking ??= Promise.resolve(onConsent()).finally(() => (this.#asking = undefined));
      this.consent = (await this.#asking) ? "given" : "refused";
      if (this.#consent === "given") return { ...choice, ask: false };
    }
    // As if there were no server.
    const without = choose({ ...(await this.situation()), consent: "refused" });
    return without.why === "consent_refused" && this.#consent === "not_asked" ? { ...without, why: "consent_missing" } : without;
  }
}

const isUnsure = ({ rejection }: Recognition) => rejection === "ambiguous" || rejection === "low_confidence";

/** Errors that the other side would give as well. */
function isTheCallers(error: unknown): boolean {
  const { code, status = 0 } = OkyeameError.of(error);
  const ofTheClip = ["empty_audio", "malformed_audio", "unsupported_audio", "audio_too_long", "invalid_samples", "invalid_parameter", "unsupported_language"];
  return ["aborted", "disposed"].includes(code) || ofTheClip.includes(code) || status === 422;
}

const withReceipt = (answer: Recognition, reason: Reason, bytes_sent: number): Recognition => ({
  ...answer,
  run: { ...answer.run, reason, bytes_sent },
});

function remember(times: number[], ms: number) {
  times.push(ms);
  if (times.length > REMEMBERED) times.shift();
}

const noEngine = (why: Reason) =>
  new OkyeameError(why.startsWith("consent") ? "consent_missing" : "no_engine", SENTENCES[why] ?? `nobody can answer: ${why}`);

function checked(policy: Policy): Policy {
  if (!POLICIES.includes(policy)) throw new OkyeameError("invalid_parameter", `policy: one of ${POLICIES.join(", ")}`);
  return policy;
}

function remembered(): Consent {
  try {
    const said = localStorage.getItem(CONSENT_KEY);
    return said === "given" || said === "refused" ? said : "not_asked";
  } catch {
    return "not_asked";
  }
}
