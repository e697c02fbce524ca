// `useOkyeame`: a shop's voice as a React hook. React is the page's own; nothing of it is in this package.

import { useCallback, useEffect, useRef, useState } from "react";
import { Actions, type Step } from "./actions.js";
import { type Listening, type ListeningState, Okyeame, OkyeameError, type OkyeameOptions, type ListenOptions, type Progress, type Recognition } from "./index.js";

export interface UseOkyeameOptions extends Omit<OkyeameOptions, "signal" | "onProgress"> {
  /** Do it now. For what costs money or loses data, the customer has said or touched yes. */
  onAction?: (recognition: Recognition, info: { undo: boolean }) => void;
  /** How it listens. */
  listen?: ListenOptions;
}

export interface UseOkyeame {
  /** `idle`, or what the microphone is at. */
  state: "idle" | Exclude<ListeningState, "ended">;
  /** The last answer, also to what was no command. */
  recognition: Recognition | undefined;
  /** The command that waits for a yes or a no. */
  question: Recognition | undefined;
  error: OkyeameError | undefined;
  /** The model's download. */
  progress: Progress | undefined;
  listen(): void;
  stop(): void;
  /** Answers `question`. */
  answer(yes: boolean): void;
  recognize(sound: Blob): Promise<void>;
  recognizeText(text: string): Promise<void>;
}

/** Options are read when the component is first shown; `onAction` and `onConsent` always as they are now. */
export function useOkyeame(options: UseOkyeameOptions): UseOkyeame {
  const latest = useRef(options);
  latest.current = options;
  const engine = useRef<Promise<Okyeame>>(undefined);
  const listening = useRef<Listening>(undefined);
  const actions = useRef(new Actions());
  const [state, setState] = useState<UseOkyeame["state"]>("idle");
  const [recognition, setRecognition] = useState<Recognition>();
  const [question, setQuestion] = useState<Recognition>();
  const [error, setError] = useState<OkyeameError>();
  const [progress, setProgress] = useState<Progress>();

  useEffect(() => {
    const { onAction: _a, listen: _l, onConsent, ...rest } = latest.current;
    const created = Okyeame.create({
      ...rest,
      onProgress: setProgress,
      ...(onConsent && { onConsent: () => latest.current.onConsent?.() ?? false }),
    });
    engine.current = created;
    created.catch((thrown: unknown) => setError(OkyeameError.of(thrown)));
    return () => {
      listening.current?.cancel();
      void created.then((okyeame) => okyeame.dispose(), () => {});
    };
  }, []);

  const take = useCallback((steps: Step[]) => {
    for (const step of steps) if (step.do === "act") latest.current.onAction?.(step.recognition, { undo: step.undo });
    setQuestion(actions.current.question);
  }, []);
  const heard = useCallback(
    (answer: Recognition) => {
      setError(undefined);
      setRecognition(answer);
      take(actions.current.hear(answer));
    },
    [take],
  );
  const ask = useCallback(
    async (command: (okyeame: Okyeame) => Promise<Recognition>) => {
      setState("thinking");
      try {
        heard(await command(await engine.current!));
      } catch (thrown) {
        setError(OkyeameError.of(thrown));
      } finally {
        setState("idle");
      }
    },
    [heard],
  );

  return {
    state,
    recognition,
    question,
    error,
    progress,
    listen: useCallback(() => {
      setError(undefined);
      void engine.current?.then((okyeame) => {
        if (listening.current) return;
        const now = (listening.current = okyeame.listen(latest.current.listen));
        setState("starting");
        now.on("state", (next) => setState(next === "ended" ? "idle" : next));
        now.on("intent", heard);
        now.on("words", setRecognition);
        now.on("error", setError);
        now.on("end", () => (listening.current = undefined));
      }, () => {});
    }, [heard]),
    stop: useCallback(() => listening.current?.stop(), []),
    answer: useCallback((yes: boolean) => take(actions.current.answer(yes)), [take]),
    recognize: useCallback((sound: Blob) => ask((okyeame) => okyeame.recognize(sound)), [ask]),
    recognizeText: useCallback((text: string) => ask((okyeame) => okyeame.recognizeText(text)), [ask]),
  };
}
