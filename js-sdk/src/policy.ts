// Where a command is answered, and why: pure functions of what is known. No clock, no network, no state.

import type { Battery, Capabilities, Network } from "./capabilities.js";

/**
 * - `local-only`: on this device, or not at all. Nothing is ever sent.
 * - `local-first`: on this device; by the server while that cannot answer yet, or cannot answer well.
 * - `remote-first`: by the server; on this device when that cannot be reached.
 * - `remote-only`: by the server. Nothing is ever downloaded.
 */
export type Policy = "local-only" | "local-first" | "remote-first" | "remote-only";
export const POLICIES: readonly Policy[] = ["local-only", "local-first", "remote-first", "remote-only"];

/** What the customer said about sending what they say. */
export type Consent = "given" | "refused" | "not_asked";

/** All that a choice is made of. */
export interface Situation {
  policy: Policy;
  /** Whether there is a server to ask. */
  server: boolean;
  consent: Consent;
  capabilities: Capabilities;
  network: Network;
  battery: Battery | undefined;
  model: {
    /** Whether it answers at once. */
    ready: boolean;
    /** Bytes that would have to be fetched; `undefined` if nobody knows. */
    missingBytes: number | undefined;
    /** Whether a bundle's address is known. */
    known: boolean;
    /** The code of the error that loading it ended with. */
    failed: string | undefined;
  };
  /** The last answers, ms, newest last. */
  history: { localMs: number[]; remoteMs: number[]; remoteFailures: number };
  limits: Limits;
}

export interface Limits {
  /** A device that takes longer than this for a command, measured, is slow, ms. */
  slowMs: number;
  /** Bytes that may be fetched for the model on a connection that is paid for by the byte, without being asked for. */
  meteredBytes: number;
}
export const DEFAULT_LIMITS: Limits = { slowMs: 1500, meteredBytes: 0 };

/** Why it is so: stable, for receipts and tests. */
export type Reason =
  | "policy" // the first place of the policy, and it can answer
  | "model_loading" // this device will answer, once the model is there
  | "model_not_local" // the model is not here yet: the server answers meanwhile
  | "device_cannot" // no WebAssembly with vectors here
  | "device_slow" // measured
  | "not_enough_memory"
  | "model_failed"
  | "no_model"
  | "offline"
  | "server_failing"
  | "server_failed"
  | "no_server"
  | "consent_missing"
  | "consent_refused"
  | "unsure" // the other side gave no answer to act on
  | "local_failed";

export interface Choice {
  /** `none`: nobody can answer. */
  where: "local" | "remote" | "none";
  why: Reason;
  /** Whether the customer has to be asked before anything is sent. */
  ask: boolean;
}

/** GiB below which a model of 150 MB is not loaded. */
const MIN_MEMORY_GIB = 1;
/** After so many failures in a row a server is not the first choice. */
const FAILING = 2;

const median = (values: number[]) => [...values].sort((a, b) => a - b)[values.length >> 1];

/** Why this device cannot answer, now or at all; nothing if it can, once its model is loaded. */
function localTrouble({ capabilities, model }: Situation): Reason | undefined {
  if (!model.known) return "no_model";
  if (!capabilities.wasm) return "device_cannot";
  if (model.ready) return undefined;
  if (capabilities.memoryGiB !== undefined && capabilities.memoryGiB < MIN_MEMORY_GIB) return "not_enough_memory";
  if (model.failed) return "model_failed";
  return undefined;
}

/** A model that is not here and cannot be fetched is none. */
const isOutOfReach = ({ model, network }: Situation) => !model.ready && !network.online && model.missingBytes !== 0;

/** Why the server cannot be asked; nothing if it can. */
function remoteTrouble({ server, consent, network }: Situation): Reason | undefined {
  if (!server) return "no_server";
  if (consent === "refused") return "consent_refused";
  if (!network.online) return "offline";
  return undefined;
}

/** The median of at least three commands: one slow answer proves nothing. */
function isSlow({ history: { localMs, remoteMs }, limits }: Situation): boolean {
  if (localMs.length < 3) return false;
  const local = median(localMs)!;
  return local > limits.slowMs && !(remoteMs.length >= 3 && median(remoteMs)! >= local);
}

/** Where the next command is answered. */
export function choose(situation: Situation): Choice {
  const { policy, model, consent, history } = situation;
  const local = localTrouble(situation);
  const remote = remoteTrouble(situation);
  const here = (why: Reason): Choice => ({ where: "local", why, ask: false });
  const there = (why: Reason): Choice => ({ where: "remote", why, ask: consent === "not_asked" });
  const nobody = (why: Reason): Choice => ({ where: "none", why, ask: false });

  const hereOrNot = local ?? (isOutOfReach(situation) ? "offline" : undefined);

  switch (policy) {
    case "local-only":
      if (hereOrNot) return nobody(hereOrNot);
      return here(model.ready ? "policy" : "model_loading");
    case "remote-only":
      return remote ? nobody(remote) : there("policy");
    case "local-first":
      if (hereOrNot) return remote ? nobody(hereOrNot) : there(hereOrNot);
      if (remote) return here(model.ready ? "policy" : "model_loading");
      if (model.ready) return isSlow(situation) && consent === "given" ? there("device_slow") : here("policy");
      // Waiting costs seconds, asking a question costs trust: only whoever has agreed is answered by the server meanwhile.
      return consent === "given" ? there("model_not_local") : here("model_loading");
    case "remote-first":
      if (remote) return hereOrNot ? nobody(remote) : here(remote);
      if (history.remoteFailures >= FAILING && !hereOrNot && model.ready) return here("server_failing");
      return there("policy");
  }
}

/** What an engine's answer or failure was. */
export type Outcome = "answered" | "unsure" | "failed";

/** Whether the other side is asked as well, after the first answer or failure. */
export function chooseSecond(situation: Situation, first: "local" | "remote", outcome: Outcome): Choice | undefined {
  const { policy, consent } = situation;
  if (outcome === "answered" || policy === "local-only" || policy === "remote-only") return undefined;
  if (first === "local") {
    if (remoteTrouble(situation)) return undefined;
    // What could not be answered here may be worth a question; what was merely unsure is not.
    if (consent !== "given" && outcome === "unsure") return undefined;
    return { where: "remote", why: outcome === "unsure" ? "unsure" : "local_failed", ask: consent === "not_asked" };
  }
  if (localTrouble(situation)) return undefined;
  // A second opinion is had for nothing if the model is here; for a failure it is worth loading.
  if (outcome === "unsure") return undefined; // the server has the words as well: this device knows no better
  return isOutOfReach(situation) ? undefined : { where: "local", why: "server_failed", ask: false };
}

/** Whether the model is fetched before anybody asks for it. */
export function downloadsUnasked(situation: Situation): boolean {
  const { policy, capabilities, network, battery, model, limits } = situation;
  if (policy === "remote-only" || model.ready || localTrouble(situation)) return false;
  if (model.missingBytes === 0) return true; // all is here: it only has to be started
  if (policy === "remote-first" || !network.online) return false;
  if (battery && !battery.charging && battery.level < 0.15) return false;
  const bytes = model.missingBytes ?? Infinity;
  if ((network.saveData || network.metered) && bytes > limits.meteredBytes) return false;
  return capabilities.storageBytes === undefined || capabilities.storageBytes > (model.missingBytes ?? 0);
}
