// @vitest-environment happy-dom
import { act, createElement } from "react";
import { createRoot, type Root } from "react-dom/client";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { Okyeame, OkyeameError, type Recognition } from "../src/index.js";
import { useOkyeame, type UseOkyeame, type UseOkyeameOptions } from "../src/react.js";

(globalThis as { IS_REACT_ACT_ENVIRONMENT?: boolean }).IS_REACT_ACT_ENVIRONMENT = true;

const answer = (intent: string, risk: Recognition["risk"] = "none") => ({ intent, risk, accepted: true, rejection: null, transcription: null }) as Recognition;

/** A microphone that says what it is told. */
class FakeListening extends EventTarget {
  on(name: string, listener: (detail: never) => void) {
    this.addEventListener(name, (event) => listener((event as CustomEvent).detail as never));
    return () => {};
  }
  say(name: string, detail: unknown) {
    act(() => void this.dispatchEvent(new CustomEvent(name, { detail })));
  }
  stop = vi.fn();
  cancel = vi.fn();
}

let listening: FakeListening;
const engine = { listen: vi.fn(() => listening), dispose: vi.fn(), recognizeText: vi.fn(async () => answer("help")), recognize: vi.fn(async () => Promise.reject(new OkyeameError("timeout", "late"))) };
let hook: UseOkyeame;
let root: Root;
const acted: string[] = [];

function Shop(options: UseOkyeameOptions) {
  hook = useOkyeame(options);
  return createElement("p", null, hook.state);
}

beforeEach(async () => {
  listening = new FakeListening();
  acted.length = 0;
  vi.spyOn(Okyeame, "create").mockResolvedValue(engine as never);
  root = createRoot(document.createElement("div"));
  await act(async () => root.render(createElement(Shop, { server: "/", onAction: ({ intent }, { undo }) => acted.push(`${intent}${undo ? " undo" : ""}`) })));
});
afterEach(() => vi.restoreAllMocks());

test("one engine, that goes with the component", async () => {
  await act(async () => root.render(createElement(Shop, { server: "/other" })));
  expect(Okyeame.create).toHaveBeenCalledTimes(1);
  await act(async () => root.unmount());
  expect(engine.dispose).toHaveBeenCalled();
});

test("what is heard is acted on by its risk", async () => {
  await act(async () => hook.listen());
  await act(async () => hook.listen()); // a second press opens no second microphone
  expect(engine.listen).toHaveBeenCalledTimes(1);
  listening.say("state", "hearing");
  expect(hook.state).toBe("hearing");
  listening.say("intent", answer("add_to_cart", "undo"));
  listening.say("intent", answer("make_payment", "confirm"));
  expect(acted).toEqual(["add_to_cart undo"]);
  expect(hook.question?.intent).toBe("make_payment");
  act(() => hook.answer(true));
  expect(acted).toEqual(["add_to_cart undo", "make_payment"]);
  expect(hook.question).toBeUndefined();
  listening.say("error", new OkyeameError("microphone_lost", "gone"));
  expect(hook.error?.code).toBe("microphone_lost");
  listening.say("end", undefined);
  listening.say("state", "ended");
  expect(hook.state).toBe("idle");
});

test("a typed command, and one that fails", async () => {
  await act(async () => hook.recognizeText("Boa me"));
  expect([acted, hook.recognition?.intent, hook.state]).toEqual([["help"], "help", "idle"]);
  await act(async () => hook.recognize(new Blob()));
  expect([hook.error?.code, hook.state]).toEqual(["timeout", "idle"]);
});
