// The npm package as it is published: packed, installed into empty projects of each kind, built by their own tools with
// nothing configured, opened in a browser under a strict policy.

import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { extname, join } from "node:path";
import { after, before, describe, test } from "node:test";
import { bundle, clip, dist, launch, launchArgs, root } from "./harness.js";
import { startServer } from "./shop.js";

const scratch = mkdtempSync(join(tmpdir(), "okyeame-package-"));
const POLICY = "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'";
const run = (command, args, cwd) => execFileSync(command, args, { cwd, stdio: ["ignore", "pipe", "pipe"], env: { ...process.env, NODE_ENV: "" } });
const npm = (args, cwd) => run("npm", [...args, "--no-fund", "--no-audit", "--silent"], cwd);

/** What a shop would write: an engine, and the element. */
const PAGE = `
import { LocalEngine, Okyeame } from "okyeame";
import "okyeame/mic";
window.ready = LocalEngine.load("/model/manifest.json", { device: "wasm" });
window.Okyeame = Okyeame;
document.body.append(document.createElement("okyeame-mic"));
`;
const html = (script) => `<!doctype html><html lang="tw"><meta charset="utf-8"><title>Shop</title><body>${script}</body></html>`;

let tarball, browser;
before(async () => {
  const [{ filename }] = JSON.parse(run("npm", ["pack", "--json", "--pack-destination", scratch], join(root, "js-sdk")));
  tarball = join(scratch, filename);
  browser = await launch(launchArgs.microphone);
});
after(async () => {
  await browser?.close();
  rmSync(scratch, { recursive: true, force: true });
});

/** An empty project with the package, and what builds it. */
function project(name, packages = []) {
  const folder = join(scratch, name);
  mkdirSync(folder);
  writeFileSync(join(folder, "package.json"), JSON.stringify({ name, private: true, type: "module" }));
  npm(["install", tarball, ...packages], folder);
  return folder;
}

const TYPES = { ".html": "text/html", ".js": "text/javascript", ".wasm": "application/wasm", ".json": "application/json" };

/** Serves a built folder under the policy, and the model. */
async function serveStrictly(folder) {
  const missing = [];
  const server = createServer((request, response) => {
    const { pathname } = new URL(request.url, "http://localhost");
    const [base, rest] = pathname.startsWith("/model/") ? [bundle("tiny", "int8"), pathname.slice(7)] : [folder, pathname === "/" ? "index.html" : pathname.slice(1)];
    try {
      const bytes = readFileSync(join(base, rest));
      response.writeHead(200, { "content-type": TYPES[extname(rest)] ?? "application/octet-stream", "content-security-policy": POLICY }).end(bytes);
    } catch {
      missing.push(pathname);
      response.writeHead(404).end();
    }
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return { url: `http://127.0.0.1:${server.address().port}`, missing, close: () => (server.closeAllConnections(), server.close()) };
}

/** The page recognises a command, shows the element, and hears its microphone. */
async function works(url, missing) {
  const page = await (await browser.newContext()).newPage();
  const wrong = [];
  page.on("console", (message) => /Content Security Policy/.test(message.text()) && wrong.push(message.text()));
  page.on("pageerror", (error) => wrong.push(error.message));
  try {
    await page.goto(url);
    await page.waitForFunction(() => window.ready, null, { timeout: 60_000 });
    const bytes = [...readFileSync(clip("tw_cart"))];
    const { predictions, states } = await page.evaluate(async (bytes) => {
      const engine = await window.ready;
      const { top_predictions } = await engine.recognize(new Uint8Array(bytes), { topK: 3 });
      const okyeame = await window.Okyeame.create({ model: "/model/manifest.json", policy: "local-only" });
      const listening = okyeame.listen({ mode: "hands-free" });
      const states = [];
      let frames = 0;
      const heard = new Promise((resolve) => {
        listening.on("state", (state) => states.push(state));
        listening.on("level", () => ++frames === 20 && resolve());
        listening.on("error", (error) => (states.push(error.code), resolve()));
      });
      await heard;
      listening.cancel();
      return { predictions: top_predictions.length, states };
    }, bytes);
    assert.equal(predictions, 3);
    assert.ok(states.includes("listening"), states.join());
    assert.ok(await page.locator("okyeame-mic").getByRole("button").first().isVisible());
    assert.deepEqual(wrong, []);
    if (missing) assert.deepEqual(missing.filter((path) => path !== "/favicon.ico"), []);
  } finally {
    await page.context().close();
  }
}

describe("the packed package", () => {
  test("holds what it needs and nothing else", () => {
    const files = run("tar", ["tzf", tarball], scratch).toString().trim().split("\n").map((file) => file.replace("package/", ""));
    for (const file of ["README.md", "LICENSE-MIT", "LICENSE-APACHE", "THIRD_PARTY.md", "dist/index.js", "dist/index.d.ts", "dist/mic.js", "dist/react.js", "dist/worker_cpu.js", "dist/capture_worklet.js", "dist/okyeame_bg.wasm"]) {
      assert.ok(files.includes(file), file);
    }
    assert.deepEqual(files.filter((file) => /^(src|test|node_modules)\/|\.map$|tsconfig|build\.mjs/.test(file)), []);
    const { dependencies, exports, sideEffects } = JSON.parse(readFileSync(join(root, "js-sdk", "package.json"), "utf8"));
    assert.equal(dependencies, undefined, "nothing is needed at run time");
    for (const entry of Object.values(exports).filter((entry) => typeof entry === "object")) assert.equal(Object.keys(entry)[0], "types");
    assert.ok(!sideEffects.includes("./dist/index.js"));
    for (const file of readdirSync(dist).filter((file) => file.endsWith(".js"))) {
      assert.doesNotMatch(readFileSync(join(dist, file), "utf8"), /\beval\(|new Function\(/, `${file} would need 'unsafe-eval'`);
    }
  });

  test("a plain page, straight from the package", async () => {
    const folder = project("plain");
    writeFileSync(join(folder, "index.html"), html('<script type="module" src="page.js"></script>'));
    writeFileSync(join(folder, "page.js"), PAGE.replaceAll('"okyeame"', '"./node_modules/okyeame/dist/index.js"').replaceAll('"okyeame/mic"', '"./node_modules/okyeame/dist/mic.js"'));
    const server = await serveStrictly(folder);
    try {
      await works(server.url, server.missing);
    } finally {
      server.close();
    }
  });

  test("Vite, built and in development", async () => {
    const folder = project("vite", ["vite@8"]);
    writeFileSync(join(folder, "index.html"), html('<script type="module" src="/page.js"></script>'));
    writeFileSync(join(folder, "page.js"), PAGE);
    mkdirSync(join(folder, "public"));
    cpSync(bundle("tiny", "int8"), join(folder, "public", "model"), { recursive: true });
    run("npx", ["vite", "build"], folder);
    const server = await serveStrictly(join(folder, "dist"));
    try {
      await works(server.url, server.missing);
    } finally {
      server.close();
    }
    const vite = spawn(process.execPath, [join(folder, "node_modules/vite/bin/vite.js"), "--port", "0", "--host", "127.0.0.1"], { cwd: folder, stdio: ["ignore", "pipe", "inherit"], env: { ...process.env, NO_COLOR: "1" } });
    try {
      const url = await new Promise((resolve, reject) => {
        let log = "";
        vite.stdout.on("data", (chunk) => {
          const found = /http:\/\/127\.0\.0\.1:\d+/.exec((log += chunk));
          if (found) resolve(found[0]);
        });
        vite.on("exit", () => reject(new Error(log)));
      });
      await works(url);
    } finally {
      vite.kill();
    }
  });

  test("webpack", async () => {
    const folder = project("webpack", ["webpack@5", "webpack-cli@6"]);
    mkdirSync(join(folder, "src"));
    writeFileSync(join(folder, "src/index.js"), PAGE);
    run("npx", ["webpack", "--mode", "production"], folder);
    writeFileSync(join(folder, "dist/index.html"), html('<script src="main.js"></script>'));
    const server = await serveStrictly(join(folder, "dist"));
    try {
      await works(server.url, server.missing);
    } finally {
      server.close();
    }
  });

  test("TypeScript knows its types, React its hook", () => {
    const folder = project("typed", ["typescript@5", "react@19", "@types/react@19"]);
    writeFileSync(join(folder, "tsconfig.json"), JSON.stringify({ compilerOptions: { strict: true, module: "nodenext", target: "es2022", lib: ["es2023", "dom"], noEmit: true, jsx: "react-jsx", skipLibCheck: false, types: [] } }));
    writeFileSync(join(folder, "shop.tsx"), `
import { Okyeame, OkyeameError, RemoteEngine, type Recognition, type SpeechEngine } from "okyeame";
import { OkyeameMic } from "okyeame/mic";
import { useOkyeame } from "okyeame/react";
export async function ask(sound: Blob): Promise<Recognition> {
  const okyeame = await Okyeame.create({ server: "https://voice.shop.example", policy: "local-first" });
  const listening = okyeame.listen({ mode: "push" });
  listening.on("intent", ({ intent, slots, risk }) => [intent satisfies string, slots[0]?.value satisfies string | number | undefined, risk satisfies "none" | "undo" | "confirm"]);
  const engine: SpeechEngine = new RemoteEngine({ server: "/" });
  try { return await engine.recognize(sound, { topK: 3, signal: new AbortController().signal }); }
  catch (error) { if (error instanceof OkyeameError && error.retryable) return okyeame.recognize(sound); throw error; }
}
// @ts-expect-error no such policy
void Okyeame.create({ server: "/", policy: "cloud" });
new OkyeameMic().addEventListener("okyeame-action", ({ detail }) => detail.recognition.intent satisfies string);
export function Mic() {
  const { state, listen, question, answer } = useOkyeame({ server: "/", onAction: ({ intent }) => void intent });
  return <button onClick={question ? () => answer(true) : listen}>{state}</button>;
}
`);
    run("npx", ["tsc", "-p", "."], folder);
  });

  test("Node asks a server", async () => {
    const folder = project("node");
    const server = await startServer();
    try {
      writeFileSync(join(folder, "ask.js"), `
import { readFile } from "node:fs/promises";
import { Okyeame, RemoteEngine } from "okyeame";
const engine = new RemoteEngine({ server: process.argv[2] });
await engine.ready();
const { top_predictions, run } = await engine.recognize(await readFile(process.argv[3]), { topK: 2 });
const okyeame = await Okyeame.create({ server: process.argv[2] });
const typed = await okyeame.recognizeText("Fa yei to cart no mu");
console.log(JSON.stringify({ n: top_predictions.length, where: run.where, typed: typed.intent, why: typed.run.reason }));
okyeame.dispose();
`);
      const said = JSON.parse(run("node", ["ask.js", server.url, clip("tw_cart")], folder).toString());
      assert.deepEqual(said, { n: 2, where: "remote", typed: "add_to_cart", why: "no_model" });
    } finally {
      await server.stop();
    }
  });
});
