// The assistant as a program, against a stand-in server whose answers are written in the clips.
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

let skip = false;
try {
  await import("okyeame");
} catch (error) {
  if (error.code !== "ERR_MODULE_NOT_FOUND") throw error; // one that is here and broken is no reason to test nothing
  skip = "the package okyeame is not here: make sdk, then npm install in this folder";
}

const program = fileURLToPath(new URL("assistant.mjs", import.meta.url));
const run = (args, env = {}) =>
  new Promise((resolve) => execFile(process.execPath, [program, ...args], { timeout: 60_000, env: { ...process.env, ...env } }, (error, stdout, stderr) => resolve({ code: error ? error.code : 0, stdout, stderr })));

async function standIn(t) {
  const forms = [];
  const server = createServer(async (request, response) => {
    let form = "";
    for await (const part of request) form += part;
    const said = /^\{.*\}$/m.exec(form)?.[0];
    if (request.url !== "/health") forms.push(form);
    const known = request.url === "/health" || said;
    response.writeHead(known ? 200 : 415, { "content-type": "application/json" }).end(said ?? JSON.stringify({ code: "unsupported_audio", detail: "no audio that is known" }));
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  const folder = await mkdtemp(join(tmpdir(), "okyeame-assistant-"));
  t.after(() => (server.closeAllConnections(), server.close(), rm(folder, { recursive: true })));
  const clip = async (name, answer) => (await writeFile(join(folder, name), answer ? JSON.stringify(answer) : "no sound"), join(folder, name));
  return { url: `http://127.0.0.1:${server.address().port}`, forms, clip };
}

const pay = { accepted: true, rejection: null, risk: "confirm", intent: "make_payment", confidence: 0.9, top_predictions: [] };
const yes = { accepted: false, rejection: "out_of_scope", risk: "none", intent: "unknown", confidence: 0.1, top_predictions: [], transcription: "Aane." };

test("a question, a file that is no sound in between, and a yes; the words are asked for only while a question is open", { skip }, async (t) => {
  const { url, forms, clip } = await standIn(t);
  const { code, stdout, stderr } = await run(["--server", url, await clip("1.wav", pay), await clip("2.wav"), await clip("3.wav", yes)]);
  assert.equal(code, 1);
  assert.match(stderr, /2\.wav: unsupported_audio: /);
  assert.deepEqual([...stdout.matchAll(/^ {2}(\w+ \w+): (.+)$/gm)].map(([, what, say]) => `${what}: ${say}`), [
    "confirm make_payment: Wopɛ sɛ metua ka no? Ka aane anaa daabi.",
    "act make_payment: Yoo, mɛtua ka no.",
  ]);
  assert.deepEqual(forms.map((form) => /name="transcribe"\s+(\w+)/.exec(form)[1]), ["false", "true", "true"]);
});

test("--speak without espeak-ng says so once, and goes on", { skip }, async (t) => {
  const { url, clip } = await standIn(t);
  const file = await clip("1.wav", pay);
  const { code, stdout, stderr } = await run(["--server", url, "--speak", file, file], { PATH: "/nowhere" });
  assert.equal(code, 0);
  assert.equal(stderr.match(/espeak-ng is not here/g).length, 1);
  assert.match(stdout, /act make_payment/);
});

test("wrong use and a wrong address are said without a stack", { skip }, async () => {
  for (const args of [["--act-above", "", "x"], ["--act-above", "2", "x"], ["--nonsense"]]) {
    const { code, stderr } = await run(args);
    assert.equal(code, 2);
    assert.match(stderr, /^(--act-above: a number from 0 to 1|Unknown option)/);
  }
  for (const address of ["no address", "http://127.0.0.1:9"]) {
    const { code, stderr } = await run(["--server", address, "x.wav", "y.wav"]);
    assert.equal(code, 1);
    assert.equal(stderr.trim().split("\n").length, 1);
  }
});
