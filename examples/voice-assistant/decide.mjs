// What an assistant does with an answer: act, ask first, let choose, ask again, or call a person. Pure: no sound, no clock.

import { ASK, PHRASES } from "./phrases_tw.mjs";

/** Confidence from which a command is acted on, and from which it is worth naming when asking again. */
export const THRESHOLDS = { actAbove: 0.6, nameAbove: 0.3 };
/** After so many attempts that led nowhere, a person is better. */
const PATIENCE = 3;

const named = (intent) => PHRASES[intent] ?? String(intent).replaceAll("_", " ");
const sure = (value) => (Number.isFinite(value) ? value : 0);

/**
 * @param {object} recognition an answer of the server
 * @param {{attempts?: number, actAbove?: number, nameAbove?: number}} [state] attempts that led nowhere before this one
 * @returns {{do: "act" | "confirm" | "choose" | "ask_again" | "person", say: string, intent?: string, choices?: string[]}}
 */
export function decide(recognition, { attempts = 0, actAbove = THRESHOLDS.actAbove, nameAbove = THRESHOLDS.nameAbove } = {}) {
  const { accepted, intent, risk, rejection, confidence, top_predictions: best = [] } = recognition ?? {};
  if (accepted === true && risk === "confirm") return { do: "confirm", say: ASK.confirm(named(intent)), intent };
  if (accepted === true && sure(confidence) >= actAbove) return { do: "act", say: ASK.act(named(intent)), intent };
  if (attempts + 1 >= PATIENCE) return { do: "person", say: ASK.person, intent: "start_live_chat" };
  if (rejection === "no_speech") return { do: "ask_again", say: ASK.silence };
  const [first, second] = best.filter((each) => sure(each?.confidence) >= nameAbove / 2).map(({ intent }) => intent);
  if (rejection === "ambiguous" && first && second) return { do: "choose", say: ASK.choose(named(first), named(second)), choices: [first, second] };
  // Accepted, but not surely enough for this shop; or the best guess is worth naming: a yes is quicker than saying it all again.
  if (first && (accepted === true || rejection === "low_confidence") && sure(best[0]?.confidence) >= nameAbove) {
    return { do: "confirm", say: ASK.confirm(named(first)), intent: first };
  }
  return { do: "ask_again", say: ASK.again };
}
