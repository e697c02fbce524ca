// What becomes of a recognised command, by its risk: `none` is done at once, `undo` is done and can be taken back,
// `confirm` is done once the customer has said or touched yes. A state machine: no page, no clock.

import type { Recognition } from "./recognition.js";

export type Step =
  /** Do it now. */
  | { do: "act"; recognition: Recognition; undo: boolean }
  /** Ask the customer; their next answer, by voice or touch, settles it. */
  | { do: "ask"; recognition: Recognition }
  /** The question that was open is answered with no, or left. */
  | { do: "drop"; recognition: Recognition }
  /** Not a command: say so, by why. */
  | { do: "reject"; recognition: Recognition };

// What says yes and no to an open question: commands with that meaning, and plain words where there are words.
// "Place the order" is a yes on the way to the till, and to nothing else: said while the cart is about to be emptied, it is
// a command of its own.
const YES = new Set(["continue"]);
const TO_THE_TILL = new Set(["checkout", "make_payment", "confirm_order"]);
const NO = new Set(["go_back"]);
const YES_WORDS = /^(aane|ane|yiw|yoo|yes|yeah|ok|okay|ɛyɛ|eye)[.!,]*$/iu;
const NO_WORDS = /^(daabi|dabi|no|nope|gyae|stop)[.!,]*$/iu;

export class Actions {
  #open: Recognition | undefined;

  /** The command that waits for a yes. */
  get question(): Recognition | undefined {
    return this.#open;
  }

  /** What a new answer leads to. */
  hear(recognition: Recognition): Step[] {
    const open = this.#open;
    if (open) {
      const said = recognition.transcription?.trim() ?? "";
      const { accepted, intent } = recognition;
      // The same command once more is a yes; it is also what people say who think that they were not heard.
      if (YES_WORDS.test(said) || (accepted && (YES.has(intent) || intent === open.intent || (intent === "confirm_order" && TO_THE_TILL.has(open.intent))))) return this.answer(true);
      if (NO_WORDS.test(said) || (accepted && NO.has(intent))) return this.answer(false);
      // What was not understood leaves the question open; another command leaves it behind.
      if (!accepted) return [{ do: "reject", recognition }];
      this.#open = undefined;
      return [{ do: "drop", recognition: open }, ...this.hear(recognition)];
    }
    if (!recognition.accepted) return [{ do: "reject", recognition }];
    if (recognition.risk === "confirm") {
      this.#open = recognition;
      return [{ do: "ask", recognition }];
    }
    return [{ do: "act", recognition, undo: recognition.risk === "undo" }];
  }

  /** The customer touched yes or no. */
  answer(yes: boolean): Step[] {
    const open = this.#open;
    this.#open = undefined;
    if (!open) return [];
    return [yes ? { do: "act", recognition: open, undo: false } : { do: "drop", recognition: open }];
  }
}
