// The client as a program: against a stand-in that says what servers say, and against a real server where there is one:
//   OKYEAME_SERVER=http://localhost:8000 OKYEAME_CLIP=command.wav node --test
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";
import { test } from "node:test";

const { OKYEAME_SERVER: server, OKYEAME_CLIP: clip } = process.env;
const noReal = server && clip ? false : "OKYEAME_SERVER and OKYEAME_CLIP name no real server and clip";
let noPackage = false;
try {
  await import("okyeame");
} catch (error) {
  if (error.code !== "ERR_MODULE_NOT_FOUND") throw error; // one that is here and broken is no reason to test nothing
  noPackage = "the package okyeame is not here: make sdk, then npm install in this folder";
}

const here = (name) => fileURLToPath(new URL(name, import.meta.url));
const run = (...args) =>
  new Promise((resolve) => execFile("node", [here("client.mjs"), ...args], { timeout: 60_000 }, (error, stdout, stderr) => resolve({ code: error ? error.code : 0, stdout, stderr })));

/** What is asked of a server, and how many at once; each clip is answered by `reply(n, filename)` as [status, headers, body, delayMs]. */
async function standIn(t, reply, health = () => 200) {
  const seen = { clips: 0, atOnce: 0, most: 0, health: 0 };
  const stand = createServer(async (request, response) => {
    const say = (status, body, headers = {}) => response.writeHead(status, { "content-type": "application/json", ...headers }).end(JSON.stringify(body));
    if (request.url === "/health") return say(health(seen.health++), {}, { "retry-after": "0" });
    const n = seen.clips++;
    seen.most = Math.max(seen.most, ++seen.atOnce);
    let form = "";
    for await (const part of request) form += part;
    const [status, headers, body, delayMs = 0] = reply(n, /filename="(.*?)"/.exec(form)?.[1]);
    await new Promise((resolve) => setTimeout(resolve, delayMs));
    seen.atOnce--;
    say(status, body, headers);
  }).listen(0, "127.0.0.1");
  await once(stand, "listening");
  t.after(() => (stand.closeAllConnections(), stand.close()));
  return { url: `http://127.0.0.1:${stand.address().port}`, seen };
}

const answer = (intent) => ({ intent, confidence: 0.9, rejection: null, slots: [{ slot: "quantity", value: 3 }], transcription: null, processing_time_ms: 5 });
const files = (n) => Array(n).fill(here("package.json")); // files, whatever they hold

test("four at once at most, and in the order of the files", { skip: noPackage }, async (t) => {
  const folder = await mkdtemp(join(tmpdir(), "okyeame-client-"));
  t.after(() => rm(folder, { recursive: true }));
  const names = Array.from({ length: 10 }, (_, n) => `clip${n}.wav`);
  await Promise.all(names.map((name) => writeFile(join(folder, name), "sound")));
  // The first file's answer comes last.
  const { url, seen } = await standIn(t, (_, name) => [200, {}, answer(name), name === names[0] ? 600 : 30]);
  const { code, stdout } = await run("--server", url, ...names.map((name) => join(folder, name)));
  assert.equal(code, 0);
  assert.equal(seen.most, 4);
  assert.deepEqual([...stdout.matchAll(/: (\S+) {2}90 % {2}quantity=3 {2}5 ms$/gm)].map(([, intent]) => intent), names);
});

test("a file that is missing, and one with no name, cost none of the others", { skip: noPackage }, async (t) => {
  const { url } = await standIn(t, () => [200, {}, answer("search")]);
  const { code, stdout, stderr } = await run("--server", url, "", "", "", "", "", "/nowhere.wav", ...files(3));
  assert.equal(code, 1);
  assert.equal(stdout.trim().split("\n").length, 3);
  assert.match(stderr, /^\/nowhere\.wav: ENOENT: no such file/m);
});

test("refusals have their code; a full server is asked again", { skip: noPackage }, async (t) => {
  const script = [[429, { "retry-after": "0" }, { code: "overloaded", detail: "full" }], [400, {}, { code: "malformed_audio", detail: "the audio is damaged" }], [200, {}, answer("search")]];
  const { url, seen } = await standIn(t, (n) => script[n]);
  const { code, stderr } = await run("--server", url, ...files(1));
  assert.equal(code, 1);
  assert.match(stderr, /malformed_audio: the audio is damaged/);
  assert.equal(seen.clips, 2);
  assert.equal((await run("--server", url, "--json", ...files(1))).stdout, `${JSON.stringify(answer("search"))}\n`);
});

test("a server that loads is waited for", { skip: noPackage }, async (t) => {
  const { url, seen } = await standIn(t, () => [200, {}, answer("search")], (n) => (n < 3 ? 503 : 200));
  assert.equal((await run("--server", url, ...files(1))).code, 0);
  assert.equal(seen.health, 4);
});

test("nobody there, and an address that is none, are said once and without a stack", { skip: noPackage }, async () => {
  for (const [address, code] of [["http://127.0.0.1:9", "network"], ["no address", "invalid_parameter"]]) {
    const { code: exit, stderr } = await run("--server", address, ...files(3));
    assert.equal(exit, 1);
    assert.match(stderr, new RegExp(`${code}: `));
    assert.equal(stderr.trim().split("\n").length, 1);
  }
});

test("--help teaches; no file and a misspelt option are wrong use", { skip: noPackage }, async () => {
  const help = await run("--help");
  assert.equal(help.code, 0);
  for (const word of ["--server", "--words", "--json", "make demo"]) assert.ok(help.stdout.includes(word), word);
  assert.equal((await run()).code, 2);
  assert.equal((await run("--word", "x.wav")).code, 2);
});

test("a real server: a clip, a file that is no audio, a missing file", { skip: noReal || noPackage }, async () => {
  const good = await run("--server", server, "--json", "--words", clip);
  assert.equal(good.code, 0, good.stderr);
  const { filename, intent, transcription } = JSON.parse(good.stdout);
  assert.equal(filename, basename(clip));
  assert.ok(intent && transcription);
  const mixed = await run("--server", server, clip, here("package.json"), "/nowhere.wav");
  assert.equal(mixed.code, 1);
  assert.match(mixed.stderr, /package\.json: unsupported_audio/);
  assert.match(mixed.stderr, /nowhere\.wav: ENOENT/);
  assert.equal(mixed.stdout.trim().split("\n").length, 1);
});
