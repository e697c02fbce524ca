import { describe, expect, test } from "vitest";
import { Actions } from "../src/actions.js";
import type { Recognition, Risk } from "../src/recognition.js";

const heard = (intent: string, risk: Risk = "none", transcription: string | null = null) =>
  ({ intent, accepted: intent !== "unknown", rejection: intent === "unknown" ? "out_of_scope" : null, risk, transcription }) as Recognition;
const steps = (actions: Actions, ...said: Recognition[]) => said.flatMap((each) => actions.hear(each)).map((step) => `${step.do} ${step.recognition.intent}`);

describe("actions by risk", () => {
  test("what harms nothing is done at once, what can be undone offers that", () => {
    const actions = new Actions();
    expect(actions.hear(heard("show_cart"))).toMatchObject([{ do: "act", undo: false }]);
    expect(actions.hear(heard("add_to_cart", "undo"))).toMatchObject([{ do: "act", undo: true }]);
  });

  test("money moves after a yes only", () => {
    for (const yes of [heard("confirm_order", "confirm"), heard("continue"), heard("make_payment", "confirm"), heard("unknown", "none", "Aane."), heard("unknown", "none", "yes")]) {
      const actions = new Actions();
      expect(steps(actions, heard("make_payment", "confirm"))).toEqual(["ask make_payment"]);
      expect(steps(actions, yes)).toEqual(["act make_payment"]);
      expect(actions.question).toBeUndefined();
    }
  });

  test("to place the order is no yes to something else", () => {
    expect(steps(new Actions(), heard("clear_cart", "confirm"), heard("confirm_order", "confirm"))).toEqual(["ask clear_cart", "drop clear_cart", "ask confirm_order"]);
    expect(steps(new Actions(), heard("checkout", "confirm"), heard("confirm_order", "confirm"))).toEqual(["ask checkout", "act checkout"]);
  });

  test("a no, by voice or touch, leaves it", () => {
    for (const no of [heard("go_back"), heard("unknown", "none", "Daabi"), heard("unknown", "none", "no!")]) {
      expect(steps(new Actions(), heard("clear_cart", "confirm"), no)).toEqual(["ask clear_cart", "drop clear_cart"]);
    }
    const actions = new Actions();
    actions.hear(heard("clear_cart", "confirm"));
    expect(actions.answer(false)).toMatchObject([{ do: "drop" }]);
    expect(actions.answer(true)).toEqual([]); // nothing is open any more
  });

  test("noise neither confirms nor drops", () => {
    const actions = new Actions();
    expect(steps(actions, heard("make_payment", "confirm"), heard("unknown"), heard("unknown", "none", "aane na me ne no kɔɔ"))).toEqual(["ask make_payment", "reject unknown", "reject unknown"]);
    expect(actions.question?.intent).toBe("make_payment");
  });

  test("another command leaves the question behind; a risky one asks its own", () => {
    expect(steps(new Actions(), heard("make_payment", "confirm"), heard("show_cart"))).toEqual(["ask make_payment", "drop make_payment", "act show_cart"]);
    expect(steps(new Actions(), heard("make_payment", "confirm"), heard("cancel_order", "confirm"))).toEqual(["ask make_payment", "drop make_payment", "ask cancel_order"]);
  });
});
