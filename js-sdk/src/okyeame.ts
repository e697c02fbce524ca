// A shop's voice: an engine that chooses where it runs, the microphone, and what is kept of models.

import { AutoEngine, type AutoOptions } from "./auto_engine.js";
import { Listening, type ListenOptions } from "./microphone/listening.js";
import { ModelCache } from "./model_cache.js";
import { addressOf } from "./remote_engine.js";

export interface OkyeameOptions extends AutoOptions {
  signal?: AbortSignal;
}

export class Okyeame extends AutoEngine {
  /** What this browser keeps of models. */
  static readonly cache: Pick<ModelCache, "has" | "size" | "clear"> = new ModelCache();
  readonly cache = Okyeame.cache;

  /**
   * A voice that is ready to be asked. The model is fetched behind it where the policy, the connection and the battery
   * allow it; `ready()` tells when the next command is answered at once.
   *
   *     const okyeame = await Okyeame.create({ server: "https://voice.shop.example" });
   *     const { intent, accepted } = await okyeame.recognize(recording);
   */
  static async create({ signal, ...options }: OkyeameOptions): Promise<Okyeame> {
    const okyeame = new Okyeame(withModel(options));
    signal?.addEventListener("abort", () => okyeame.dispose(), { once: true });
    signal?.throwIfAborted();
    void okyeame.begin();
    return okyeame;
  }

  /** Opens the microphone. Errors, such as `microphone_denied`, come as the event `error`. */
  listen(options: ListenOptions = {}): Listening {
    return new Listening(this, options);
  }
}

/** A server brings the model that it serves; a page that wants none says `policy: "remote-only"`. */
function withModel(options: AutoOptions): AutoOptions {
  const { model, server, policy } = options;
  if (model || !server || policy === "remote-only" || typeof document === "undefined") return options;
  return { ...options, model: new URL("models/default/manifest.json", addressOf(server)) };
}
