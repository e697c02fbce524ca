// What the tests of the shop stand on: the real server, a browser whose microphone plays a file, spoken commands.

import { execFileSync, spawn } from "node:child_process";
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer, connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { bundle, dist, launch, okyeame, root } from "./harness.js";

const scratch = mkdtempSync(join(tmpdir(), "okyeame-shop-"));
process.on("exit", () => rmSync(scratch, { recursive: true, force: true }));

/** The folder that a server serves: the shop, the npm package, the model. */
export function layOut() {
  const dir = join(scratch, "demo");
  if (!existsSync(dir)) {
    cpSync(join(root, "examples", "storefront"), join(dir, "site"), { recursive: true });
    cpSync(dist, join(dir, "site", "okyeame"), { recursive: true });
    mkdirSync(join(dir, "models"));
    cpSync(bundle("base", "int4"), join(dir, "models", "default"), { recursive: true });
    cpSync(bundle("tiny", "int8"), join(dir, "models", "tiny"), { recursive: true });
  }
  return dir;
}

/** Starts `okyeame server` with the shop, and waits until it answers. It computes with the very weights that browsers get, if
 * no other model is named. */
export async function startServer(args = [], model = join(layOut(), "models", "default")) {
  const dir = layOut();
  const options = ["server", "--port", "0", "--site", join(dir, "site"), "--models", join(dir, "models"), "--huggingface", model, "--dtype", "int8"]; // as the browser computes
  const process_ = spawn(okyeame, [...options, "--catalogue", join(dir, "site", "catalogue.json"), ...args], { cwd: scratch, stdio: ["ignore", "ignore", "pipe"] });
  const ended = new Promise((resolve) => process_.once("exit", resolve));
  let log = "";
  const url = await new Promise((resolve, reject) => {
    process_.stderr.on("data", (chunk) => {
      log += chunk;
      const found = /listening on (http:\/\/[^/\s]+)/.exec(log);
      if (found && /ready: curl/.test(log)) resolve(found[1].replace("0.0.0.0", "127.0.0.1"));
    });
    process_.on("exit", (code) => reject(new Error(`okyeame server ended with ${code}:\n${log}`)));
  });
  return { url, stop: () => (process_.kill("SIGKILL"), ended) };
}

/** A door to a server: once `bytes` have gone through, it slams shut once (`cut`), or is held until `open()` is called. */
export async function door(url, { cut = Infinity, hold = Infinity }) {
  const { hostname, port } = new URL(url);
  const state = { cuts: 0, passed: 0 };
  const held = [];
  const proxy = createServer((client) => {
    const upstream = connect(Number(port), hostname);
    client.on("error", () => upstream.destroy());
    upstream.on("error", () => client.destroy());
    client.pipe(upstream);
    const pass = (chunk) => {
      if (state.cuts === 0 && state.passed >= cut) {
        state.cuts++;
        client.destroy();
        upstream.destroy();
      } else client.write(chunk);
    };
    upstream.on("data", (chunk) => {
      state.passed += chunk.length;
      if (state.passed >= hold) held.push(() => pass(chunk));
      else pass(chunk);
    });
    upstream.on("end", () => (state.passed >= hold ? held.push(() => client.end()) : client.end()));
  });
  await new Promise((resolve) => proxy.listen(0, "127.0.0.1", resolve));
  const open = () => {
    hold = Infinity;
    held.splice(0).forEach((pass) => pass());
  };
  return { url: `http://127.0.0.1:${proxy.address().port}`, state, open, close: () => proxy.close() };
}

/** Sentences with a pause before, between and after, as one recording: what a microphone hears. */
export function spoken(sentences, { pauseMs = 1500 } = {}) {
  const pieces = sentences.map((sentence, at) => {
    const file = join(scratch, `piece-${at}.wav`);
    execFileSync("espeak-ng", ["-v", "sw", "-s", "150", "-w", file, sentence]);
    const bytes = readFileSync(file);
    return { rate: bytes.readUInt32LE(24), samples: bytes.subarray(bytes.indexOf("data") + 8) };
  });
  const { rate } = pieces[0];
  const pause = Buffer.alloc(2 * Math.round((pauseMs / 1000) * rate));
  const data = Buffer.concat([pause, ...pieces.flatMap(({ samples }) => [samples, pause, pause])]);
  const head = Buffer.alloc(44);
  head.write("RIFF", 0);
  head.writeUInt32LE(36 + data.length, 4);
  head.write("WAVEfmt ", 8);
  head.writeUInt32LE(16, 16);
  head.writeUInt16LE(1, 20);
  head.writeUInt16LE(1, 22);
  head.writeUInt32LE(rate, 24);
  head.writeUInt32LE(2 * rate, 28);
  head.writeUInt16LE(2, 32);
  head.writeUInt16LE(16, 34);
  head.write("data", 36);
  head.writeUInt32LE(data.length, 40);
  const name = join(scratch, `${sentences.join("-").replaceAll(/\W+/g, "_").slice(0, 80)}.wav`);
  writeFileSync(name, Buffer.concat([head, data]));
  return name;
}

/** A browser whose microphone plays `recording` once from when it is opened. */
export const launchSpeaking = (recording, args = []) =>
  launch(["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream", `--use-file-for-fake-audio-capture=${recording}%noloop`, ...args]);

/** The shop in a profile of its own. `settings`: what is kept from an earlier visit. */
export async function openShop(browser, url, { settings = {}, viewport = { width: 390, height: 844 }, ...options } = {}) {
  const context = await browser.newContext({ viewport, ...options });
  await context.addInitScript((settings) => Object.entries(settings).forEach(([key, value]) => localStorage.setItem(key, value)), settings);
  const page = await context.newPage();
  page.on("pageerror", (error) => console.log(`# page error: ${error.message}`));
  await page.goto(url);
  await page.waitForFunction(() => customElements.get("okyeame-mic") && window.shop?.state);
  return page;
}

/** Waits until the model computes on this device. */
export const localReady = (page) => page.waitForFunction(() => document.querySelector("okyeame-mic").engine?.device, null, { timeout: 60_000 });
export const cartCount = (page) => page.getByTestId("cart-count").first().textContent().then((text) => Number(/\d+/.exec(text ?? "")?.[0] ?? 0));
