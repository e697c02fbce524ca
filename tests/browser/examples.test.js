// The small examples, run as their READMEs say, against the real server.

import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { clip, root, target } from "./harness.js";
import { startServer } from "./shop.js";

const example = (name) => join(root, "examples", name);
const nonsense = join(target, "no-sound.wav");
let server;
before(async () => {
  writeFileSync(nonsense, "this is not a sound file, it is a sentence");
  server = await startServer();
});
after(() => server?.stop());

/** Runs a program; the examples' own tests meet the server where these variables name one. */
function run(command, args, cwd) {
  const { NODE_TEST_CONTEXT: _, ...env } = { ...process.env, OKYEAME_SERVER: server.url, OKYEAME_CLIP: clip("tw_cart") };
  const { status, stdout, stderr } = spawnSync(command, args, { cwd, env, encoding: "utf8", timeout: 120_000 });
  return { status, stdout, stderr };
}

for (const name of ["node-client", "voice-assistant"]) {
  before(() => execFileSync("npm", ["install", "--no-fund", "--no-audit", "--silent", "--no-package-lock"], { cwd: example(name), stdio: "pipe" }));
}

for (const name of ["node-client", "voice-assistant"]) {
  test(`${name}'s own tests pass, against the real server too`, () => {
    const { status, stdout, stderr } = run("node", ["--test"], example(name));
    assert.equal(status, 0, stdout + stderr);
    assert.match(stdout, /# skipped 0/);
  });
}

test("node-client answers files, and says what is wrong with one", () => {
  const ask = (...args) => run("node", ["client.mjs", "--server", server.url, ...args], example("node-client"));
  const good = ask(clip("tw_cart"), clip("tw_shoes"));
  assert.equal(good.status, 0, good.stderr);
  assert.equal(good.stdout.trim().split("\n").length, 2);
  const json = JSON.parse(ask("--json", "--words", clip("en_short")).stdout);
  assert.ok(json.transcription.length > 3);
  const bad = ask(clip("tw_cart"), nonsense, "/nowhere.wav");
  assert.equal(bad.status, 1);
  assert.match(bad.stderr, /no-sound\.wav: unsupported_audio/);
  assert.match(bad.stderr, /nowhere\.wav: ENOENT/);
  assert.equal(bad.stdout.trim().split("\n").length, 1);
  assert.match(run("node", ["client.mjs", "--help"], example("node-client")).stdout, /--server/);
  assert.equal(run("node", ["client.mjs", "--nonsense"], example("node-client")).status, 2);
});

test("voice-assistant acts, asks first, and asks again", () => {
  const { stdout, status, stderr } = run("node", ["assistant.mjs", "--server", server.url, "--text", "Fa yei to cart no mu", "Pepa cart no", "Pepa cart no", "The weather in Kumasi is nice today and everybody is happy"], example("voice-assistant"));
  assert.equal(status, 0, stderr);
  assert.deepEqual([...stdout.matchAll(/^ {2}(\w+( \w+)?):/gm)].map(([, what]) => what), ["act add_to_cart", "confirm clear_cart", "act clear_cart", "ask_again"]);
  const spoken = run("node", ["assistant.mjs", "--server", server.url, clip("tw_cart"), nonsense], example("voice-assistant"));
  assert.equal(spoken.status, 1);
  assert.match(spoken.stdout, /^ {2}(act|confirm|choose|ask_again)/m);
});

test("python-client is right about a server's refusals, and answers files", () => {
  const venv = join(target, "python-client");
  const python = join(venv, "bin", "python");
  if (!existsSync(python)) execFileSync("python3", ["-m", "venv", venv], { stdio: "pipe" });
  execFileSync(python, ["-m", "pip", "install", "--quiet", "-r", "requirements.txt"], { cwd: example("python-client"), stdio: "pipe" });
  const units = run(python, ["-m", "unittest"], example("python-client"));
  assert.equal(units.status, 0, units.stderr);
  const ask = (...args) => run(python, ["okyeame_client.py", "--server", server.url, ...args], example("python-client"));
  const good = ask("--json", clip("tw_cart"));
  assert.equal(good.status, 0, good.stderr);
  assert.equal(JSON.parse(good.stdout).filename, "tw_cart.flac");
  const bad = ask(nonsense);
  assert.equal(bad.status, 1);
  assert.match(bad.stderr, /unsupported_audio/);
});
