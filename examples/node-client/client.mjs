// Asks a server what is said in recordings.   node client.mjs command.wav …
import { readFile } from "node:fs/promises";
import { basename } from "node:path";
import { parseArgs } from "node:util";
import { OkyeameError, RemoteEngine } from "okyeame";

const HELP = `What is said in recordings, by an okyeame server.

  node client.mjs [options] FILE…

  --server URL   the server                        (http://localhost:8000)
  --words        also write what was said          (slower)
  --json         the whole answer, a line for each file
  --help

  node client.mjs command.wav other.ogg
  node client.mjs --json --words *.wav | jq -r .transcription

Each line is: the intent, (why it was rejected), confidence, slots, words, time; in the order of the files. An intent
"unknown" is never to be acted on. A server that is starting is waited for a minute. Start one with  make demo  or
okyeame server.  The exit code is 1 if a file got no answer.`;

/** Files that are asked at the same time: a server with two cores is kept busy by that, and no shop is starved. */
const AT_ONCE = 4;

const options = { server: { type: "string", default: "http://localhost:8000" }, words: { type: "boolean" }, json: { type: "boolean" }, help: { type: "boolean" } };

function read() {
  try {
    return parseArgs({ options, allowPositionals: true });
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

function line(file, { intent, confidence, rejection, slots, transcription, processing_time_ms }) {
  const values = slots.map(({ slot, value }) => `${slot}=${value}`).join(" ");
  const parts = [intent, rejection && `(${rejection})`, `${Math.round(100 * confidence)} %`, values, transcription && `“${transcription}”`, `${Math.round(processing_time_ms)} ms`];
  return `${file}: ${parts.filter(Boolean).join("  ")}`;
}

/** Writes what there is to say about each file. Resolves to how many got no answer. */
async function askAll(engine, files, { words = false, json = false }) {
  const said = []; // by place in `files`; written once everything before it is
  let [begun, written, failed] = [0, 0, 0];

  async function ask(file) {
    try {
      const answer = await engine.recognize(await readFile(file), { filename: basename(file), words });
      return () => console.log(json ? JSON.stringify(answer) : line(file, answer));
    } catch (error) {
      failed++;
      return () => console.error(`${file}: ${why(error)}`);
    }
  }
  async function lane() {
    while (begun < files.length) {
      const place = begun++;
      said[place] = await ask(files[place]);
      while (said[written]) said[written++]();
    }
  }
  await Promise.all(Array.from({ length: AT_ONCE }, lane));
  return failed;
}

async function main() {
  const { values: args, positionals: files } = read();
  if (args.help || !files.length) {
    console.log(HELP);
    return args.help ? 0 : 2;
  }
  let engine;
  try {
    engine = new RemoteEngine({ server: args.server, retries: 5 });
    await engine.ready();
    return (await askAll(engine, files, args)) ? 1 : 0;
  } catch (error) {
    // The address is none, nobody is there, or the model never comes: nothing that any one file is to blame for.
    const more = error.status === 503 ? "; it is there, but its model still is not: its log says why" : "";
    console.error(`${args.server}: ${why(error)}${more}`);
    return 1;
  } finally {
    engine?.dispose();
  }
}

// Not process.exit: what was written into a pipe would be cut off on some systems.
process.exitCode = await main();
