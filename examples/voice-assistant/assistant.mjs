// A dialogue, a turn for each recording: acts above a confidence, asks again in Twi below it.   node assistant.mjs turn1.wav turn2.wav
import { spawnSync } from "node:child_process";
import { readFile } from "node:fs/promises";
import { basename } from "node:path";
import { parseArgs } from "node:util";
import { OkyeameError, RemoteEngine } from "okyeame";
import { THRESHOLDS, turn } from "./decide.mjs";

const HELP = `A shop's assistant: a turn for each recording, or for each text with --text.

  node assistant.mjs [options] FILE…
  node assistant.mjs --text "Fa yei to cart no mu" "Pepa cart no" "Aane"

  --server URL    the server                                  (http://localhost:8000)
  --act-above P   acts on commands that are as sure as this, 0 to 1   (${THRESHOLDS.actAbove})
  --speak         says its sentences with espeak-ng
  --text          the turns are texts, not files
  --help

It says what it does (act, confirm, choose, ask_again, drop, person) and the sentence for the customer. A question is
answered by aane or daabi, or by saying the same again. Start a server with  make demo  or  okyeame server.`;

const options = { server: { type: "string", default: "http://localhost:8000" }, "act-above": { type: "string", default: String(THRESHOLDS.actAbove) }, speak: { type: "boolean" }, text: { type: "boolean" }, help: { type: "boolean" } };

function read() {
  try {
    const { values: args, positionals: turns } = parseArgs({ options, allowPositionals: true });
    // Number("") is 0, and would act on everything.
    const actAbove = args["act-above"].trim() === "" ? NaN : Number(args["act-above"]);
    if (!(actAbove >= 0 && actAbove <= 1)) throw new Error(`--act-above: a number from 0 to 1, not '${args["act-above"]}'`);
    return { args, turns, actAbove };
  } catch (error) {
    console.error(`${error.message}\n\n${HELP}`);
    process.exit(2);
  }
}

/** The code to branch on and the sentence to act on. */
function why(error) {
  if (error instanceof OkyeameError) return `${error.code}: ${error.message}`;
  return error.code ? error.message : `failed: ${error.message}`; // a file's: Node's message begins with its code
}

let silent = false;
function speak(sentence) {
  if (silent) return;
  // espeak-ng has no Twi; Swahili's vowels are the nearest.
  const { error } = spawnSync("espeak-ng", ["-v", "sw", "--", sentence], { stdio: "ignore" });
  silent = Boolean(error);
  if (silent) console.error("--speak: espeak-ng is not here (apt-get install espeak-ng); the sentences are only written");
}

async function talk(engine, { args, turns, actAbove }) {
  let state = {};
  let failed = 0;
  for (const said of turns) {
    try {
      // The words cost time, and only a yes or a no is looked for in them.
      const sound = { words: state.open !== undefined, filename: basename(said) };
      const recognition = await (args.text ? engine.recognizeText(said) : engine.recognize(await readFile(said), sound));
      const { decision, state: next } = turn(state, recognition, { actAbove });
      state = next;
      console.log(`${said}\n  ${decision.do}${decision.intent ? ` ${decision.intent}` : ""}: ${decision.say}`);
      if (args.speak) speak(decision.say);
    } catch (error) {
      failed++; // the shop's trouble, not an attempt of the customer's
      console.error(`${said}: ${why(error)}`);
    }
  }
  return failed;
}

async function main() {
  const { args, turns, actAbove } = read();
  if (args.help || !turns.length) {
    console.log(HELP);
    return args.help ? 0 : 2;
  }
  let engine;
  try {
    engine = new RemoteEngine({ server: args.server, retries: 5 });
    await engine.ready();
    return (await talk(engine, { args, turns, actAbove })) ? 1 : 0;
  } catch (error) {
    console.error(`${args.server}: ${why(error)}`);
    return 1;
  } finally {
    engine?.dispose();
  }
}

process.exitCode = await main();
