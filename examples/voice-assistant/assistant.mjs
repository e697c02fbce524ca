// A dialogue, a turn for each recording: acts above a confidence, asks again in Twi below it.   node assistant.mjs turn1.wav turn2.wav
import { spawnSync } from "node:child_process";
import { readFile } from "node:fs/promises";
import { parseArgs } from "node:util";
import { OkyeameError, RemoteEngine } from "okyeame";
import { decide, THRESHOLDS } from "./decide.mjs";

const HELP = `A shop's assistant: a turn for each recording, or for each text with --text.

  node assistant.mjs [options] FILE…
  node assistant.mjs --text "Fa yei to cart no mu" "Pepa cart no"

  --server URL    the server                                  (http://localhost:8000)
  --act-above P   acts on commands that are as sure as this   (${THRESHOLDS.actAbove})
  --speak         says its sentences with espeak-ng
  --text          the turns are texts, not files
  --help`;

const options = { server: { type: "string", default: "http://localhost:8000" }, "act-above": { type: "string" }, speak: { type: "boolean" }, text: { type: "boolean" }, help: { type: "boolean" } };
const { values: args, positionals: turns } = read();
const actAbove = Number(args["act-above"] ?? THRESHOLDS.actAbove);
if (args.help || !turns.length || !(actAbove >= 0 && actAbove <= 1)) {
  console.log(HELP);
  process.exit(args.help ? 0 : 2);
}

function read() {
  try {
    return parseArgs({ options, allowPositionals: true });
  } catch (error) {
    console.error(`${error.message}\n\n${HELP}`);
    process.exit(2);
  }
}

const engine = new RemoteEngine({ server: args.server, retries: 5 });
let attempts = 0;
/** What waits for a yes. */
let open;

for (const turn of turns) {
  let recognition;
  try {
    recognition = await (args.text ? engine.recognizeText(turn) : engine.recognize(await readFile(turn)));
  } catch (error) {
    const { code, message } = error instanceof OkyeameError ? error : { code: error.code ?? "failed", message: error.message };
    console.error(`${turn}: ${code}: ${message}`);
    process.exitCode = 1;
    continue;
  }
  // The same command again, or "go on", is a yes to what was asked.
  const yes = open && recognition.accepted && [open, "continue", "confirm_order"].includes(recognition.intent);
  const decision = yes ? decide({ ...recognition, intent: open, risk: "none", confidence: 1 }) : decide(recognition, { attempts, actAbove });
  attempts = ["act", "confirm"].includes(decision.do) ? 0 : attempts + 1;
  open = decision.do === "confirm" ? decision.intent : undefined;
  console.log(`${turn}\n  ${decision.do}${decision.intent ? ` ${decision.intent}` : ""}: ${decision.say}`);
  if (args.speak) spawnSync("espeak-ng", ["-v", "sw", decision.say], { stdio: "ignore" });
}
engine.dispose();
