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

Start a server with  make demo  or  okyeame server.  The exit code is 1 if a file could not be answered.`;

/** Files that are asked at the same time: a server with two cores is kept busy by that, and no shop is starved. */
const AT_ONCE = 4;

const options = { server: { type: "string", default: "http://localhost:8000" }, words: { type: "boolean" }, json: { type: "boolean" }, help: { type: "boolean" } };
const { values: args, positionals: files } = read();
if (args.help || !files.length) {
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
let failed = 0;

async function ask(file) {
  try {
    const answer = await engine.recognize(await readFile(file), { filename: basename(file), words: args.words ?? false });
    console.log(args.json ? JSON.stringify(answer) : line(file, answer));
  } catch (error) {
    failed++;
    const { code, message } = error instanceof OkyeameError ? error : { code: error.code ?? "failed", message: error.message };
    console.error(`${file}: ${code}: ${message}`);
  }
}

function line(file, { intent, confidence, rejection, slots, transcription, processing_time_ms }) {
  const values = slots.map(({ slot, value }) => `${slot}=${value}`).join(" ");
  const parts = [intent, rejection && `(${rejection})`, `${Math.round(100 * confidence)} %`, values, transcription && `“${transcription}”`, `${Math.round(processing_time_ms)} ms`];
  return `${file}: ${parts.filter(Boolean).join("  ")}`;
}

const queue = [...files];
const lane = async () => {
  for (let file = queue.shift(); file; file = queue.shift()) await ask(file);
};
await Promise.all(Array.from({ length: AT_ONCE }, lane));
engine.dispose();
process.exit(failed ? 1 : 0);
