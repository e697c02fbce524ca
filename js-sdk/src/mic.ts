// `<okyeame-mic>`: a shop's voice as one element, without a framework.
//
//     <script type="module">import "okyeame/mic";</script>
//     <okyeame-mic server="https://voice.shop.example"></okyeame-mic>
//     mic.addEventListener("okyeame-action", ({ detail }) => shop.act(detail.recognition));
//
// It asks before audio is sent, acts by risk (`actions.ts`), can be used by keyboard and without a voice, and says what it
// does to those who do not see it.

import { Actions, type Step } from "./actions.js";
import { play } from "./element/sounds.js";
import { STYLE } from "./element/style.js";
import { fill, nameOf, TEXTS, type Texts } from "./element/texts.js";
import { type Catalogue, type Consent, type Listening, type ListeningState, Okyeame, OkyeameError, type Policy, type Progress, type Recognition } from "./index.js";

export type { Texts } from "./element/texts.js";
export { COMMANDS, TEXTS } from "./element/texts.js";

export type MicState = "idle" | "failed" | Exclude<ListeningState, "ended">;

export interface MicEvents {
  /** Do it now. For what costs money or loses data, the customer has said or touched yes. */
  "okyeame-action": { recognition: Recognition };
  /** Take the last action back. */
  "okyeame-undo": { recognition: Recognition };
  /** Every answer, also to what was no command. */
  "okyeame-recognition": { recognition: Recognition };
  /** The same command with its words: attribute `words`. */
  "okyeame-words": { recognition: Recognition };
  "okyeame-error": { error: OkyeameError };
  "okyeame-progress": Progress;
  "okyeame-state": { state: MicState };
}

/** How long an action can be taken back by the button, ms. */
const UNDO_MS = 10_000;

const MARKUP = `
<button part="button" type="button"><span part="level"></span>
  <svg viewBox="0 0 24 24" aria-hidden="true"><path d="M12 15a4 4 0 0 0 4-4V6a4 4 0 0 0-8 0v5a4 4 0 0 0 4 4Zm7-4h-2a5 5 0 0 1-10 0H5a7 7 0 0 0 6 6.9V21H8v2h8v-2h-3v-3.1A7 7 0 0 0 19 11Z"/></svg>
</button>
<progress part="progress" max="1" hidden></progress>
<p part="status" role="status" aria-live="polite"></p>
<div part="question" role="group" aria-live="assertive" hidden><p></p>
  <div part="choices"><button part="yes" type="button"></button><button part="no" type="button"></button></div></div>
<button part="undo" type="button" hidden></button>
<button part="type" type="button" aria-expanded="false"></button>
<form part="typed" hidden><input part="input" enterkeyhint="send" autocomplete="off" maxlength="300"><button part="send"></button></form>`;

export class OkyeameMic extends HTMLElement {
  static readonly observedAttributes = ["server", "model", "policy", "lang", "texts", "mode"];

  readonly #root = this.attachShadow({ mode: "open" });
  readonly #actions = new Actions();
  #okyeame: Promise<Okyeame> | undefined;
  #ready: Okyeame | undefined;
  /** Whether the engine was made here: a page's own is its own to end. */
  #isOwn = true;
  #listening: Listening | undefined;
  #catalogue: Catalogue | undefined;
  #ownTexts: Partial<Texts> = {};
  #undoTimer: ReturnType<typeof setTimeout> | undefined;
  /** What the button for taking back would take back. */
  #undoable: Recognition | undefined;
  /** Answers the open question for consent. */
  #consented: ((yes: boolean) => void) | undefined;

  constructor() {
    super();
    const sheet = new CSSStyleSheet();
    sheet.replaceSync(STYLE);
    this.#root.adoptedStyleSheets = [sheet];
    this.#root.innerHTML = MARKUP;
    this.#part("button").addEventListener("click", () => this.toggle());
    this.#part("yes").addEventListener("click", () => this.#said(true));
    this.#part("no").addEventListener("click", () => this.#said(false));
    this.#part("undo").addEventListener("click", () => this.#undo());
    this.#part("type").addEventListener("click", () => this.#showTyped());
    this.#part("typed").addEventListener("submit", (event) => {
      event.preventDefault();
      void this.#typed();
    });
  }

  connectedCallback(): void {
    this.#state("idle");
    this.#write();
    if (this.#namesSomebody) void this.#start();
  }

  disconnectedCallback(): void {
    // Moved within the page: not gone.
    queueMicrotask(() => {
      if (!this.isConnected) this.#reset();
    });
  }

  attributeChangedCallback(name: string, before: string | null, after: string | null): void {
    if (before === after || !this.isConnected) return;
    if (name === "policy" && this.#ready) {
      this.#attempt(() => (this.#ready!.policy = (after ?? "local-first") as Policy));
    } else if (name === "mode") {
      this.#listening?.stop();
    } else if (name === "server" || name === "model") {
      this.#reset();
      if (this.#namesSomebody) void this.#start();
    }
    this.#write();
  }

  /** The engine; a page may give its own. */
  get engine(): Okyeame | undefined {
    return this.#ready;
  }
  set engine(engine: Okyeame | undefined) {
    this.#reset();
    this.#ready = engine;
    this.#okyeame = engine && Promise.resolve(engine);
    this.#isOwn = false;
  }

  /** The shop's own names. */
  get catalogue(): Catalogue | undefined {
    return this.#catalogue;
  }
  set catalogue(catalogue: Catalogue | undefined) {
    this.#catalogue = catalogue;
  }

  /** Own texts, over those of the language. */
  get texts(): Texts {
    return { ...TEXTS.en!, ...TEXTS[this.language], ...this.#ownTexts };
  }
  set texts(texts: Partial<Texts>) {
    this.#ownTexts = texts;
    this.#write();
  }

  /** The language of the texts: the attribute `lang` of the element or of what it stands in. */
  get language(): string {
    const lang = (this.closest("[lang]")?.getAttribute("lang") ?? "tw").toLowerCase().split("-")[0]!;
    return lang === "ak" ? "tw" : lang;
  }

  get state(): MicState {
    return (this.getAttribute("state") ?? "idle") as MicState;
  }

  /** What the button does: listen, or stop. */
  toggle(): void {
    if (this.#listening && this.#listening.state !== "thinking") this.#listening.stop();
    else void this.listen();
  }

  /** Opens the microphone. */
  async listen(): Promise<void> {
    if (this.#listening) return;
    try {
      const okyeame = await this.#start();
      if (!okyeame || this.#listening) return;
      const options = {
        mode: this.#handsFree ? ("hands-free" as const) : ("push" as const),
        words: this.hasAttribute("words"),
        ...(this.#catalogue && { catalogue: this.#catalogue }),
      };
      const listening = (this.#listening = okyeame.listen(options));
      this.#state("starting");
      listening.on("state", (state) => {
        if (state !== "ended") this.#state(state);
        if (state === "listening") this.#sound("listening");
      });
      listening.on("level", (level) => this.#part("level").style.setProperty("--level", level.toFixed(2)));
      listening.on("intent", (recognition) => this.#heard(recognition));
      listening.on("words", (recognition) => this.#emit("okyeame-words", { recognition }));
      listening.on("error", (error) => this.#failed(error));
      listening.on("end", () => {
        if (this.#listening === listening) this.#listening = undefined;
        if (this.state !== "failed") this.#state("idle", false);
      });
    } catch (error) {
      this.#failed(OkyeameError.of(error));
    }
  }

  /** Has a recording or a typed command answered as if it had been spoken here. */
  async recognize(command: Blob | string): Promise<void> {
    const okyeame = await this.#start();
    if (!okyeame) return;
    this.#state("thinking");
    try {
      const options = this.#catalogue ? { catalogue: this.#catalogue } : {};
      this.#heard(await (typeof command === "string" ? okyeame.recognizeText(command, options) : okyeame.recognize(command, options)));
      this.#state("idle", false);
    } catch (error) {
      this.#failed(OkyeameError.of(error));
    }
  }

  async #start(): Promise<Okyeame | undefined> {
    const [server, model, policy, device] = ["server", "model", "policy", "device"].map((name) => this.getAttribute(name));
    if (!this.#okyeame && !this.#namesSomebody) {
      this.#failed(new OkyeameError("no_engine", "<okyeame-mic> has nobody to ask: give it a server, a model, or an engine"));
      return undefined;
    }
    this.#okyeame ??= Okyeame.create({
      ...(server && { server }),
      ...(model && { model }),
      ...(policy && { policy: policy as Policy }),
      ...(device && { device: device as "auto" | "wasm" | "webgpu" }),
      onConsent: () => this.#askConsent(),
      onProgress: (progress) => this.#progress(progress),
    });
    const starting = this.#okyeame;
    try {
      const okyeame = await starting;
      if (starting === this.#okyeame) this.#ready = okyeame;
      return okyeame;
    } catch (error) {
      if (starting === this.#okyeame) this.#okyeame = undefined;
      this.#failed(OkyeameError.of(error));
      return undefined;
    }
  }

  #reset(): void {
    this.#listening?.cancel();
    this.#listening = undefined;
    if (this.#isOwn) void this.#okyeame?.then((okyeame) => okyeame.dispose()).catch(() => {});
    this.#isOwn = true;
    this.#okyeame = this.#ready = undefined;
    this.#part("progress").hidden = true;
    this.#closeQuestion();
  }

  #heard(recognition: Recognition): void {
    this.#emit("okyeame-recognition", { recognition });
    this.#closeQuestion();
    this.#actions.hear(recognition).forEach((step) => this.#take(step));
  }

  #take(step: Step): void {
    const { texts } = this;
    const { recognition } = step;
    const command = nameOf(recognition.intent, this.language);
    switch (step.do) {
      case "act":
        this.#sound("done");
        this.#say(fill(texts.done, { command }));
        this.#emit("okyeame-action", { recognition });
        this.#offerUndo(step.undo ? recognition : undefined);
        break;
      case "ask":
        this.#sound("ask");
        this.#say("");
        this.#ask(recognition);
        // hands are free, or would be reached for: the answer may be spoken
        if (!this.#handsFree) queueMicrotask(() => this.#listenForAnswer());
        break;
      case "drop":
        this.#say(texts.dropped);
        break;
      case "reject":
        this.#sound("rejected");
        this.#say(texts[recognition.rejection ?? "out_of_scope"]);
        if (this.#actions.question) this.#ask(this.#actions.question);
        break;
    }
  }

  /** Shows the question for a yes. */
  #ask({ intent }: Recognition): void {
    const { texts } = this;
    this.#openQuestion(fill(texts.ask, { command: nameOf(intent, this.language) }), texts.yes, texts.no);
  }

  /** Once what is being heard is done with: the microphone opens again for a yes or a no. */
  #listenForAnswer(): void {
    const listening = this.#listening;
    void (listening?.ended ?? Promise.resolve()).then(() => {
      if (listening && this.#actions.question && this.isConnected) void this.listen();
    });
  }

  #said(yes: boolean): void {
    const consented = this.#consented;
    this.#consented = undefined;
    this.#closeQuestion();
    if (consented) return consented(yes);
    this.#listening?.cancel();
    this.#actions.answer(yes).forEach((step) => this.#take(step));
  }

  #askConsent(): Promise<boolean> {
    const { texts } = this;
    this.#openQuestion(texts.consent, texts.allow, texts.refuse);
    return new Promise((resolve) => (this.#consented = resolve));
  }

  /** What the customer said about sending; a page's settings may change it. */
  get consent(): Consent | undefined {
    return this.#ready?.consent;
  }

  #openQuestion(text: string, yes: string, no: string): void {
    const question = this.#part("question");
    question.hidden = false;
    question.querySelector("p")!.textContent = text;
    this.#part("yes").textContent = yes;
    this.#part("no").textContent = no;
  }

  #closeQuestion(): void {
    if (!this.#consented) this.#part("question").hidden = true;
  }

  #offerUndo(recognition: Recognition | undefined): void {
    clearTimeout(this.#undoTimer);
    const button = this.#part("undo");
    button.hidden = !recognition;
    this.#undoable = recognition;
    if (recognition) this.#undoTimer = setTimeout(() => (button.hidden = true), UNDO_MS);
  }

  #undo(): void {
    const recognition = this.#undoable;
    this.#offerUndo(undefined);
    if (!recognition) return;
    this.#emit("okyeame-undo", { recognition });
    this.#say(this.texts.undone);
  }

  #showTyped(): void {
    const form = this.#part("typed");
    form.hidden = !form.hidden;
    this.#part("type").setAttribute("aria-expanded", `${!form.hidden}`);
    if (!form.hidden) this.#input.focus();
  }

  async #typed(): Promise<void> {
    const text = this.#input.value.trim();
    if (!text) return;
    this.#input.value = "";
    await this.recognize(text);
  }

  #progress(progress: Progress): void {
    const bar = this.#part("progress") as HTMLProgressElement;
    const share = progress.total ? progress.loaded / progress.total : 0;
    bar.hidden = share >= 1;
    bar.value = share;
    bar.setAttribute("aria-label", fill(this.texts.loading, { percent: Math.floor(100 * share) }));
    this.#emit("okyeame-progress", progress);
  }

  #failed(error: OkyeameError): void {
    if (["aborted", "disposed", "page_hidden"].includes(error.code)) {
      this.#state("idle");
      return;
    }
    this.#state("failed", false);
    this.#sound("rejected");
    const { texts } = this;
    const own: Record<string, string> = {
      microphone_denied: texts.microphone_denied,
      microphone_missing: texts.microphone_missing,
      network: texts.offline,
      consent_missing: texts.dropped,
    };
    this.#say(own[error.code] ?? texts.failed);
    this.#emit("okyeame-error", { error });
  }

  #attempt(change: () => void): void {
    try {
      change();
    } catch (error) {
      this.#failed(OkyeameError.of(error));
    }
  }

  #state(state: MicState, says = true): void {
    this.setAttribute("state", state);
    const { texts } = this;
    const button = this.#part("button");
    const open = ["starting", "listening", "hearing"].includes(state);
    button.setAttribute("aria-label", open ? texts.stop : texts.speak);
    button.setAttribute("aria-pressed", `${open}`);
    const line: Partial<Record<MicState, string>> = { listening: texts.listening, hearing: texts.hearing, thinking: texts.thinking, idle: "" };
    if (says && line[state] !== undefined) this.#say(line[state]);
    this.#emit("okyeame-state", { state });
  }

  #say(text: string): void {
    this.#part("status").textContent = text;
  }

  /** Every text that stands there now, in the language of now. */
  #write(): void {
    const given = this.getAttribute("texts");
    if (given) this.#attempt(() => (this.#ownTexts = parsed(given)));
    const { texts } = this;
    this.#part("undo").textContent = texts.undo;
    this.#part("type").textContent = texts.type;
    this.#part("send").textContent = texts.send;
    this.#input.placeholder = texts.placeholder;
    this.#input.setAttribute("aria-label", texts.type);
    this.#part("button").setAttribute("aria-label", texts.speak);
  }

  #sound(name: Parameters<typeof play>[0]): void {
    if (!this.hasAttribute("quiet")) play(name);
  }

  /** Whether the page says who answers. */
  get #namesSomebody(): boolean {
    return Boolean(this.getAttribute("server") || this.getAttribute("model"));
  }

  get #handsFree(): boolean {
    return this.getAttribute("mode") === "hands-free";
  }

  get #input(): HTMLInputElement {
    return this.#part("input") as HTMLInputElement;
  }

  #part(name: string): HTMLElement {
    return this.#root.querySelector<HTMLElement>(`[part~="${name}"]`)!;
  }

  #emit<Name extends keyof MicEvents>(name: Name, detail: MicEvents[Name]): void {
    this.dispatchEvent(new CustomEvent(name, { detail, bubbles: true, composed: true }));
  }
}

function parsed(json: string): Partial<Texts> {
  try {
    return JSON.parse(json) as Partial<Texts>;
  } catch (cause) {
    throw new OkyeameError("invalid_parameter", "texts: a JSON object such as {\"speak\": \"…\"}", { cause });
  }
}

declare global {
  interface HTMLElementTagNameMap {
    "okyeame-mic": OkyeameMic;
  }
  interface HTMLElementEventMap {
    "okyeame-action": CustomEvent<MicEvents["okyeame-action"]>;
    "okyeame-undo": CustomEvent<MicEvents["okyeame-undo"]>;
    "okyeame-recognition": CustomEvent<MicEvents["okyeame-recognition"]>;
    "okyeame-words": CustomEvent<MicEvents["okyeame-words"]>;
    "okyeame-error": CustomEvent<MicEvents["okyeame-error"]>;
    "okyeame-progress": CustomEvent<MicEvents["okyeame-progress"]>;
    "okyeame-state": CustomEvent<MicEvents["okyeame-state"]>;
  }
}

if (!customElements.get("okyeame-mic")) customElements.define("okyeame-mic", OkyeameMic);
