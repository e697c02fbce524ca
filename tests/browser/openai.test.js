// OpenAI's official clients, unmodified, against the real server.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { createReadStream, existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import OpenAI from "openai";
import { clip, root, target } from "./harness.js";
import { startServer } from "./shop.js";

let server, client;
before(async () => {
  server = await startServer([], join(root, "models", "whisper-base"));
  client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: "none is needed", maxRetries: 0 });
});
after(() => server?.stop());

const speech = () => createReadStream(clip("en_short"));
const create = (options) => client.audio.transcriptions.create({ file: speech(), model: "whisper-1", language: "en", ...options });

test("Node: every format", async () => {
  const { text } = await create({});
  assert.match(text, /\w+ \w+/);
  assert.equal((await create({ response_format: "text" })).trim(), text);
  assert.match(await create({ response_format: "srt" }), /^1\n00:00:0\d,\d{3} --> 00:00:\d\d,\d{3}\n/);
  assert.match(await create({ response_format: "vtt" }), /^WEBVTT\n\n00:0\d\.\d{3} --> /);
  const verbose = await create({ response_format: "verbose_json", timestamp_granularities: ["word", "segment"] });
  assert.equal(verbose.text, text);
  assert.ok(verbose.duration > 0.5 && verbose.segments.length > 0 && verbose.words.length > 1);
  for (const { start, end } of verbose.words) assert.ok(0 <= start && start <= end && end <= verbose.duration + 0.1);
  assert.equal(verbose.words.map(({ word }) => word).join(" ").toLowerCase().replace(/[^a-z]/g, ""), text.toLowerCase().replace(/[^a-z]/g, ""));
});

test("Node: a stream says in pieces what is said in one", async () => {
  for (const [name, least] of [["en_short", 1], ["en_long", 2]]) {
    const ask = (options) => create({ file: createReadStream(clip(name)), ...options });
    const { text } = await ask({});
    const events = [];
    for await (const event of await ask({ stream: true })) events.push(event);
    assert.deepEqual(events.pop(), { type: "transcript.text.done", text });
    assert.ok(events.length >= least, `${name}: ${events.length} pieces`);
    for (const { type } of events) assert.equal(type, "transcript.text.delta");
    assert.equal(events.map(({ delta }) => delta).join(""), text);
  }
  // Who has heard enough goes; the next one is served.
  for await (const event of await create({ file: createReadStream(clip("en_long")), stream: true })) {
    assert.equal(event.type, "transcript.text.delta");
    break;
  }
  await assert.rejects(create({ stream: true, response_format: "srt" }), (error) => error instanceof OpenAI.UnprocessableEntityError && /response_format/.test(error.message));
  assert.match((await create({})).text, /\w+ \w+/);
});

test("Node: translations, models, a prompt, and errors as its classes", async () => {
  assert.ok(typeof (await client.audio.translations.create({ file: createReadStream(clip("tw_cart")), model: "whisper-1" })).text === "string");
  assert.ok((await client.models.list()).data.some(({ id }) => id === "whisper-1"));
  assert.ok((await create({ prompt: "Kumasi, Accra" })).text.length > 3);
  await assert.rejects(create({ model: "gpt-9" }), (error) => error instanceof OpenAI.NotFoundError && error.code === "unknown_model" && /whisper-1/.test(error.message));
  const nonsense = join(target, "no-sound.wav");
  writeFileSync(nonsense, "this is not a sound file, it is a sentence");
  await assert.rejects(create({ file: createReadStream(nonsense) }), (error) => error instanceof OpenAI.APIError && error.status === 415);
  await assert.rejects(create({ temperature: 7 }), (error) => error instanceof OpenAI.UnprocessableEntityError);
});

test("Python: every format, and errors as its classes", () => {
  const venv = join(target, "openai-client");
  const python = join(venv, "bin", "python");
  if (!existsSync(python)) execFileSync("python3", ["-m", "venv", venv], { stdio: "pipe" });
  execFileSync(python, ["-m", "pip", "install", "--quiet", "openai==3.54.0"], { stdio: "pipe" });
  const said = execFileSync(python, ["-c", `
import json, sys, openai
client = openai.OpenAI(base_url=sys.argv[1] + "/v1", api_key="none is needed", max_retries=0)
def ask(**options):
    with open(sys.argv[2], "rb") as speech:
        return client.audio.transcriptions.create(file=speech, model="whisper-1", language="en", **options)
text = ask().text
assert ask(response_format="text").strip() == text
assert ask(response_format="srt").startswith("1\\n00:00:0")
assert ask(response_format="vtt").startswith("WEBVTT")
verbose = ask(response_format="verbose_json", timestamp_granularities=["word", "segment"])
assert verbose.text == text and verbose.words[0].start >= 0 and verbose.segments[0].id == 0 and verbose.segments[0].seek == 0
events = list(ask(stream=True))
assert events[-1].type == "transcript.text.done" and events[-1].text == text, events
assert {event.type for event in events[:-1]} == {"transcript.text.delta"}
assert "".join(event.delta for event in events[:-1]) == text
assert "whisper-1" in [model.id for model in client.models.list()]
try:
    client.audio.transcriptions.create(file=("x.wav", b"no sound"), model="whisper-1")
    raise SystemExit("no error")
except openai.APIStatusError as error:
    assert error.status_code == 415, error
print(json.dumps(text))
`, server.url, clip("en_short")], { encoding: "utf8" });
  assert.match(JSON.parse(said), /\w+ \w+/);
});
