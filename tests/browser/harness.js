// What the tests stand on: bundles made by `okyeame export-web`, a file server that can be told to misbehave, a browser.

import { execFileSync } from "node:child_process";
import { createServer } from "node:http";
import { existsSync, mkdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";

export const root = fileURLToPath(new URL("../..", import.meta.url));
export const target = process.env.CARGO_TARGET_DIR ?? join(root, "target");
export const okyeame = process.env.OKYEAME ?? join(target, "debug", "okyeame");
/** The npm package, as it is built. */
export const dist = join(root, "js-sdk", "dist");
const bundles = join(target, "web-bundles");
const clips = join(root, "tests", "golden", "clips");

const BROWSERS = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
const QUIET = [
  "--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync",
];
/** WebGPU on SwiftShader, which computes on the CPU. */
export const SOFTWARE_WEBGPU = ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader"];

/** Other devices for a browser. */
export const launchArgs = { microphone: ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"] };

/** Starts Debian's Chromium. */
export function launch(args = []) {
  const executablePath = process.env.CHROMIUM ?? BROWSERS.find(existsSync);
  if (!executablePath) throw new Error("no Chromium is here: apt-get install chromium, or set CHROMIUM");
  return chromium.launch({ executablePath, args: [...QUIET, ...args] });
}

/** What a bundle is made of. */
const MODELS = {
  base: [join(root, "models", "twi-shop"), "--base", join(root, "models", "whisper-base")],
  tiny: [
    join(root, "tests", "golden", "heads", "head-only"),
    "--base", join(root, "tests", "golden", "tiny-multilingual"),
  ],
};

const changed = (file) => statSync(file).mtimeMs;

/** Makes a bundle, unless it is newer than the model and the program that makes it. */
export function bundle(model, dtype) {
  const out = join(bundles, `${model}-${dtype}`);
  const manifest = join(out, "manifest.json");
  if (!existsSync(manifest) || [okyeame, join(MODELS[model][0], "model.safetensors")].some((file) => changed(file) > changed(manifest))) {
    rmSync(out, { recursive: true, force: true });
    mkdirSync(bundles, { recursive: true });
    execFileSync(okyeame, ["export-web", ...MODELS[model], "--out", out, "--dtype", dtype, "--clips", "4"], { stdio: "pipe" });
  }
  return out;
}

/** The native program's answer, computed from the same bundle; in f32 if nothing else is asked. */
export function native(model, dtype, file, args = []) {
  const options = ["recognize", "--json", "--top-k", "5", "--model", bundle(model, dtype)];
  if (!args.includes("--dtype")) options.push("--dtype", "f32");
  return JSON.parse(execFileSync(okyeame, [...options, ...args, file], { stdio: ["ignore", "pipe", "pipe"] }));
}

export const clip = (name) => join(clips, `${name}.flac`);

const TYPES = {
  ".html": "text/html", ".js": "text/javascript", ".mjs": "text/javascript",
  ".wasm": "application/wasm", ".json": "application/json",
};

/** What may be wrong with a bundle's files, by the first part of the path `/faulty/KIND/BUNDLE/FILE`. */
const FAULTS = {
  missing: (file, bytes) => (isSecondPart(file) ? null : bytes),
  cut: (file, bytes) => (isSecondPart(file) ? bytes.subarray(0, bytes.length - 100) : bytes),
  longer: (file, bytes) => (isSecondPart(file) ? Buffer.concat([bytes, Buffer.alloc(1 << 20)]) : bytes),
  altered: (file, bytes) => {
    if (!isSecondPart(file)) return bytes;
    const other = Buffer.from(bytes);
    other[1000] ^= 1;
    return other;
  },
  newer: inManifest((manifest) => ({ ...manifest, version: manifest.version + 1 })),
  // A stored answer that no device gives: none is to be trusted.
  doubtful: inManifest((manifest) => ({
    ...manifest,
    check: { ...manifest.check, probabilities: manifest.check.probabilities.map(() => 0.9) },
  })),
  nonsense: (file, bytes) => (file === "manifest.json" ? Buffer.from("<html>not here</html>") : bytes),
};
const isSecondPart = (file) => file.startsWith("intent-01");
function inManifest(change) {
  return (file, bytes) => (file === "manifest.json" ? Buffer.from(JSON.stringify(change(JSON.parse(bytes)))) : bytes);
}

/** Serves the engine, the bundles, the clips and more folders on 127.0.0.1. `server.fetched` lists what was
 * asked for, `server.sent` counts. */
export async function serve(folders = {}) {
  const places = { okyeame: dist, bundles, clips, ...folders };
  const fetched = [];
  const sent = { bytes: 0 };
  const server = createServer((request, response) => {
    const path = decodeURIComponent(new URL(request.url, "http://localhost").pathname);
    fetched.push(path);
    let [, place, ...rest] = normalize(path).split("/");
    let fault = (_, bytes) => bytes;
    if (place === "faulty") {
      fault = FAULTS[rest.shift()];
      place = "bundles";
    }
    if (path === "/") return send(response, ".html", Buffer.from("<!doctype html><title>test</title>"));
    const file = join(places[place] ?? "/nowhere", ...rest);
    const bytes = existsSync(file) && statSync(file).isFile() ? fault(rest.at(-1), readFileSync(file)) : null;
    if (!bytes) return response.writeHead(404).end();
    send(response, extname(file), bytes);
  });
  const send = (response, extension, bytes) => {
    sent.bytes += bytes.length;
    response.writeHead(200, { "content-type": TYPES[extension] ?? "application/octet-stream" }).end(bytes);
  };
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    fetched,
    sent,
    close: () => {
      server.closeAllConnections();
      server.close();
    },
  };
}
