// The choice as a table: what is known, and where the command is answered, and why.
import { describe, expect, test } from "vitest";
import { choose, chooseSecond, DEFAULT_LIMITS, downloadsUnasked, POLICIES, type Situation } from "../src/policy.js";

type Changes = { [Key in keyof Situation]?: Situation[Key] extends object ? Partial<Situation[Key]> : Situation[Key] };

/** A phone on Wi-Fi that has agreed, with the model here: all is well. */
function situation(changes: Changes = {}): Situation {
  const well: Situation = {
    policy: "local-first",
    server: true,
    consent: "given",
    capabilities: { wasm: true, webgpu: "this browser has no WebGPU", softwareGpu: false, memoryGiB: 4, storageBytes: 1e9 },
    network: { online: true, saveData: false, metered: false, rttMs: 50 },
    battery: undefined,
    model: { known: true, ready: true, missingBytes: 0, failed: undefined },
    history: { localMs: [], remoteMs: [], remoteFailures: 0 },
    limits: DEFAULT_LIMITS,
  };
  const merged = Object.entries(changes).map(([key, value]) => {
    const before = well[key as keyof Situation];
    return [key, typeof value === "object" && typeof before === "object" ? { ...before, ...value } : value];
  });
  return { ...well, ...Object.fromEntries(merged) };
}

const notHere = { ready: false, missingBytes: 11e6 };
const offline = { online: false };
const slow = { localMs: [2000, 2100, 1900] };

const TABLE: [string, Changes, string][] = [
  // local-only: nothing is ever sent
  ["local-only, model here", { policy: "local-only" }, "local policy"],
  ["local-only, model on its way", { policy: "local-only", model: notHere }, "local model_loading"],
  ["local-only, no vectors", { policy: "local-only", capabilities: { wasm: false } }, "none device_cannot"],
  ["local-only, offline with the model here", { policy: "local-only", network: offline }, "local policy"],
  ["local-only, offline with the model in the cache", { policy: "local-only", network: offline, model: { ready: false, missingBytes: 0 } }, "local model_loading"],
  ["local-only, offline without the model", { policy: "local-only", network: offline, model: notHere }, "none offline"],
  ["local-only, no model given", { policy: "local-only", model: { known: false, ready: false } }, "none no_model"],
  ["local-only, slow", { policy: "local-only", history: slow }, "local policy"],
  ["local-only, loading failed", { policy: "local-only", model: { ...notHere, failed: "checksum_mismatch" } }, "none model_failed"],
  ["local-only, half a gigabyte", { policy: "local-only", model: notHere, capabilities: { memoryGiB: 0.5 } }, "none not_enough_memory"],
  // local-first
  ["local-first, model here", {}, "local policy"],
  ["local-first, model on its way, agreed", { model: notHere }, "remote model_not_local"],
  ["local-first, model on its way, not asked", { model: notHere, consent: "not_asked" }, "local model_loading"],
  ["local-first, model on its way, refused", { model: notHere, consent: "refused" }, "local model_loading"],
  ["local-first, model on its way, no server", { model: notHere, server: false }, "local model_loading"],
  ["local-first, no vectors", { capabilities: { wasm: false } }, "remote device_cannot"],
  ["local-first, no vectors, not asked", { capabilities: { wasm: false }, consent: "not_asked" }, "remote? device_cannot"],
  ["local-first, no vectors, refused", { capabilities: { wasm: false }, consent: "refused" }, "none device_cannot"],
  ["local-first, no vectors, offline", { capabilities: { wasm: false }, network: offline }, "none device_cannot"],
  ["local-first, little memory", { model: notHere, capabilities: { memoryGiB: 0.5 } }, "remote not_enough_memory"],
  ["local-first, loading failed", { model: { ...notHere, failed: "checksum_mismatch" } }, "remote model_failed"],
  ["local-first, no model given", { model: { known: false, ready: false } }, "remote no_model"],
  ["local-first, offline, model here", { network: offline }, "local policy"],
  ["local-first, offline, model not here", { network: offline, model: notHere }, "none offline"],
  ["local-first, measured slow", { history: slow }, "remote device_slow"],
  ["local-first, measured slow, not asked", { history: slow, consent: "not_asked" }, "local policy"],
  ["local-first, one slow answer proves nothing", { history: { localMs: [9000] } }, "local policy"],
  ["local-first, slow, and the server slower", { history: { ...slow, remoteMs: [3000, 3000, 3000] } }, "local policy"],
  // remote-first
  ["remote-first", { policy: "remote-first" }, "remote policy"],
  ["remote-first, not asked", { policy: "remote-first", consent: "not_asked" }, "remote? policy"],
  ["remote-first, refused", { policy: "remote-first", consent: "refused" }, "local consent_refused"],
  ["remote-first, offline", { policy: "remote-first", network: offline }, "local offline"],
  ["remote-first, offline without the model", { policy: "remote-first", network: offline, model: notHere }, "none offline"],
  ["remote-first, the server keeps failing", { policy: "remote-first", history: { remoteFailures: 2 } }, "local server_failing"],
  ["remote-first, the server failed once", { policy: "remote-first", history: { remoteFailures: 1 } }, "remote policy"],
  ["remote-first, failing, and the model not here", { policy: "remote-first", history: { remoteFailures: 9 }, model: notHere }, "remote policy"],
  ["remote-first, no server", { policy: "remote-first", server: false }, "local no_server"],
  // remote-only: nothing is ever downloaded
  ["remote-only", { policy: "remote-only" }, "remote policy"],
  ["remote-only, not asked", { policy: "remote-only", consent: "not_asked" }, "remote? policy"],
  ["remote-only, refused", { policy: "remote-only", consent: "refused" }, "none consent_refused"],
  ["remote-only, offline", { policy: "remote-only", network: offline }, "none offline"],
  ["remote-only, no server", { policy: "remote-only", server: false }, "none no_server"],
];

describe("choose", () => {
  test.each(TABLE)("%s", (_, changes, expected) => {
    const { where, why, ask } = choose(situation(changes));
    expect(`${where}${ask ? "?" : ""} ${why}`).toBe(expected);
  });
});

const SECOND: [string, Changes, "local" | "remote", "answered" | "unsure" | "failed", string | undefined][] = [
  ["an answer is enough", {}, "local", "answered", undefined],
  ["unsure here: the server knows the words", {}, "local", "unsure", "remote unsure"],
  ["unsure here, not agreed: no question for that", { consent: "not_asked" }, "local", "unsure", undefined],
  ["failed here, not asked: worth a question", { consent: "not_asked" }, "local", "failed", "remote? local_failed"],
  ["failed here", {}, "local", "failed", "remote local_failed"],
  ["failed here, offline", { network: offline }, "local", "failed", undefined],
  ["failed there", {}, "remote", "failed", "local server_failed"],
  ["failed there, model only in the cache, offline", { network: offline, model: { ready: false, missingBytes: 0 } }, "remote", "failed", "local server_failed"],
  ["failed there, no model and offline", { network: offline, model: notHere }, "remote", "failed", undefined],
  ["unsure there: this device knows no better", {}, "remote", "unsure", undefined],
  ["local-only never sends", { policy: "local-only" }, "local", "failed", undefined],
  ["remote-only never computes here", { policy: "remote-only" }, "remote", "failed", undefined],
];

test.each(SECOND)("second: %s", (_, changes, first, outcome, expected) => {
  const second = chooseSecond(situation(changes), first, outcome);
  expect(second && `${second.where}${second.ask ? "?" : ""} ${second.why}`).toBe(expected);
});

const DOWNLOADS: [string, Changes, boolean][] = [
  ["Wi-Fi", { model: notHere }, true],
  ["nobody knows the size yet", { model: { ready: false, missingBytes: undefined } }, true],
  ["all is in the cache, even where data is saved", { model: { ready: false, missingBytes: 0 }, network: { saveData: true } }, true],
  ["the customer saves data", { model: notHere, network: { saveData: true } }, false],
  ["paid for by the byte", { model: notHere, network: { metered: true } }, false],
  ["paid for by the byte, and the shop allows it", { model: notHere, network: { metered: true }, limits: { meteredBytes: 20e6 } }, true],
  ["the battery is nearly empty", { model: notHere, battery: { charging: false, level: 0.1 } }, false],
  ["nearly empty, on the charger", { model: notHere, battery: { charging: true, level: 0.1 } }, true],
  ["no room", { model: notHere, capabilities: { storageBytes: 1e6 } }, false],
  ["offline", { model: notHere, network: offline }, false],
  ["it failed before", { model: { ...notHere, failed: "checksum_mismatch" } }, false],
  ["remote-first waits until it is needed", { policy: "remote-first", model: notHere }, false],
  ["remote-only", { policy: "remote-only", model: notHere }, false],
  ["no vectors", { model: notHere, capabilities: { wasm: false } }, false],
  ["it is here", {}, false],
];
test.each(DOWNLOADS)("download unasked: %s", (_, changes, expected) => expect(downloadsUnasked(situation(changes))).toBe(expected));

describe("promises, over every combination", () => {
  const all: Situation[] = [];
  for (const policy of POLICIES)
    for (const consent of ["given", "refused", "not_asked"] as const)
      for (const server of [true, false])
        for (const online of [true, false])
          for (const wasm of [true, false])
            for (const model of [{}, notHere, { ready: false, missingBytes: 0 }, { ...notHere, failed: "x" }, { known: false, ready: false }])
              for (const history of [{}, slow, { remoteFailures: 5 }])
                all.push(situation({ policy, consent, server, network: { online }, capabilities: { wasm }, model, history }));

  test("local-only never sends, remote-only never computes here", () => {
    for (const each of all) {
      const choices = [choose(each), chooseSecond(each, "local", "failed"), chooseSecond(each, "remote", "failed")];
      for (const choice of choices) {
        if (each.policy === "local-only") expect(choice?.where).not.toBe("remote");
        if (each.policy === "remote-only") expect(choice?.where).not.toBe("local");
      }
      if (each.policy === "remote-only") expect(downloadsUnasked(each)).toBe(false);
    }
  });

  test("nothing is sent without consent, without a server or without a network", () => {
    for (const each of all) {
      for (const choice of [choose(each), chooseSecond(each, "local", "failed"), chooseSecond(each, "local", "unsure")]) {
        if (choice?.where !== "remote") continue;
        expect(each.consent).not.toBe("refused");
        expect(choice.ask).toBe(each.consent === "not_asked");
        expect(each.server && each.network.online).toBe(true);
      }
    }
  });

  test("nobody is asked to compute who cannot", () => {
    for (const each of all) {
      if (choose(each).where === "local") expect(each.capabilities.wasm && each.model.known).toBe(true);
    }
  });
});
