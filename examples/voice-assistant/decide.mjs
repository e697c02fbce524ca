// What an assistant does with an answer: act, ask first, let choose, ask again, or call a person. Pure: no sound, no clock.
// What it is not sure to understand, in an answer too, it never acts on.

import { ASK, PHRASES } from "./phrases_tw.mjs";

/** Confidence from which a command is acted on, and from which a guess is worth a question that a yes answers. */
export const THRESHOLDS = { actAbove: 0.6, askAbove: 0.3 };
/** After so many attempts that led nowhere, a person is better. */
const PATIENCE = 3;

// What people say to a question, as the whole of what they say. Shorter than a command, so the words are looked at.
const POLITE = "([\\s,.!]+(mepa wo kyɛw|please))?[\\s,.!]*$";
const YES = new RegExp(`^(aane|ane|yiw|yoo|ɛyɛ|yes|ok|okay)${POLITE}`, "iu");
const NO = new RegExp(`^(daabi|dabi|gyae|no|nope|stop)${POLITE}`, "iu");

const isLabel = (value) => typeof value === "string" && /^[a-z][a-z0-9_]{0,63}$/.test(value) && value !== "unknown";
/** A model of one's own has other labels: their own words, until PHRASES has them. */
const named = (intent) => (Object.hasOwn(PHRASES, intent) ? PHRASES[intent] : intent.replaceAll("_", " "));
/** A probability, or NaN, which no threshold lets pass. */
const sure = (value) => (typeof value === "number" && value >= 0 && value <= 1 ? value : NaN);
const isClear = (recognition) => recognition?.accepted === true && recognition.rejection == null && isLabel(recognition.intent);

/**
 * @param {object} recognition an answer of the server
 * @param {{attempts?: number, actAbove?: number, askAbove?: number}} [state] attempts that led nowhere before this one
 * @returns {{do: "act" | "confirm" | "choose" | "ask_again" | "person", say: string, attempts: number, intent?: string, undo?: boolean, choices?: string[]}}
 *   `attempts` is for the next call; `undo` says that what is done should come with a way back
 */
export function decide(recognition, state) {
  const { attempts = 0, actAbove = THRESHOLDS.actAbove, askAbove = THRESHOLDS.askAbove } = state ?? {};
  const { intent, risk, rejection, confidence, top_predictions } = recognition ?? {};
  const clear = isClear(recognition);
  const harmless = risk === "none" || risk === "undo";
  // A risk that is not known is a risk.
  if (clear && !harmless) return { do: "confirm", say: ASK.confirm(named(intent)), intent, attempts: 0 };
  if (clear && sure(confidence) >= actAbove) return { do: "act", say: ASK.act(named(intent)), intent, undo: risk === "undo", attempts: 0 };

  const failures = (Number.isInteger(attempts) && attempts > 0 ? attempts : 0) + 1;
  if (failures >= PATIENCE) return { do: "person", say: ASK.person, intent: "start_live_chat", attempts: 0 };
  if (rejection === "no_speech") return { do: "ask_again", say: ASK.silence, attempts: failures };
  const best = (Array.isArray(top_predictions) ? top_predictions : []).filter((each) => isLabel(each?.intent));
  const [first, second] = new Set(best.filter((each) => sure(each.confidence) >= askAbove / 2).map((each) => each.intent));
  if (rejection === "ambiguous" && first && second) {
    return { do: "choose", say: ASK.choose(named(first), named(second)), choices: [first, second], attempts: failures };
  }
  // Accepted, but not surely enough for this shop; or the best guess is worth naming: a yes is quicker than saying it all again.
  const guess = clear ? { intent, confidence } : rejection === "low_confidence" ? best[0] : undefined;
  if (guess && sure(guess.confidence) >= askAbove) return { do: "confirm", say: ASK.confirm(named(guess.intent)), intent: guess.intent, attempts: failures };
  return { do: "ask_again", say: ASK.again, attempts: failures };
}

/**
 * What was said to an open question. The words count where there are words; so do "go on", "go back", and the same
 * command once more. "Place the order" is no yes to another question: it is a command, and one that costs money.
 *
 * @returns {"yes" | "no" | undefined}
 */
function answerTo(open, recognition, actAbove = THRESHOLDS.actAbove) {
  const words = typeof recognition?.transcription === "string" ? recognition.transcription.trim() : "";
  if (YES.test(words)) return "yes";
  if (NO.test(words)) return "no";
  if (!isClear(recognition) || !(sure(recognition.confidence) >= actAbove)) return undefined;
  if (recognition.intent === open || recognition.intent === "continue") return "yes";
  return recognition.intent === "go_back" ? "no" : undefined;
}

/**
 * A turn of a dialogue.
 *
 * @param {{attempts?: number, open?: string}} state of the turn before; `{}` at first. `open` waits for a yes.
 * @returns {{decision: object, state: object}} `decision` as `decide` has it, or `do: "drop"`: the question was answered with no
 */
export function turn({ attempts, open }, recognition, limits = {}) {
  const said = open && answerTo(open, recognition, limits.actAbove);
  if (said === "yes") return { decision: { do: "act", say: ASK.act(named(open)), intent: open }, state: {} };
  if (said === "no") return { decision: { do: "drop", say: ASK.drop, intent: open }, state: {} };
  let decision = decide(recognition, { ...limits, attempts });
  // Another command leaves the question behind; what was not understood does not.
  if (open && decision.attempts > 0) decision = { do: "confirm", say: ASK.confirm(named(open)), intent: open, attempts: decision.attempts };
  return { decision, state: { attempts: decision.attempts, ...(decision.do === "confirm" && { open: decision.intent }) } };
}
