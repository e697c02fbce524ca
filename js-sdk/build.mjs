// Builds dist/: bundles for browsers and Node, the workers with the engine's modules beside them, and the types.
//
//   node build.mjs            needs wasm/pkg (make wasm)
//
// The engine's modules are put beside the workers, and their sizes and digests into them: what a browser fetches is what
// was built here. Nothing is minified; bundlers do that with a shop's own code.

import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";

process.chdir(fileURLToPath(new URL(".", import.meta.url)));
const PKG = "../wasm/pkg";
/** What a page loads before it is asked anything, compressed. */
const LOADER_BUDGET = 15 * 1024;

/** Bundlers turn scripts below 4 KiB into data: addresses, which a shop's `script-src 'self'` forbids: this is no padding but
 * the file's own explanation, and what comes out is checked to be long enough below. */
const WORKLET_HEAD = `// okyeame: the microphone's part that runs on the browser's audio thread (an AudioWorklet).
//
// It takes what the microphone gives at the device's own rate (44.1 or 48 kHz, one channel or more), brings it to one channel
// at 16 kHz with a band-limited resampler (a sinc under a Blackman window, 16 zero crossings a side), and hands the page
// frames of 20 ms. Nothing is stored here and nothing is sent anywhere: the page decides what becomes of a frame.
//
// It is loaded by its address (new URL("./capture_worklet.js", import.meta.url)), so it has to stay a file of its own.
`;

const MODULES = { cpu: "okyeame", webgpu: "okyeame_webgpu" };
const there = Object.entries(MODULES).filter(([, name]) => existsSync(`${PKG}/${name}_bg.wasm`));
if (!there.some(([flavour]) => flavour === "cpu")) {
  console.error("The engine is not built: make wasm, then this again.");
  process.exit(1);
}

rmSync("dist", { recursive: true, force: true });
mkdirSync("dist");
const common = { bundle: true, format: "esm", target: "es2022", outdir: "dist", logLevel: "warning", legalComments: "inline" };

await build({
  ...common,
  entryPoints: ["src/index.ts", "src/mic.ts", "src/react.ts"],
  splitting: true,
  minifySyntax: true,
  chunkNames: "chunk_[hash]",
  external: ["react"],
  loader: { ".wasm": "binary" },
  // Code for Node inside of the voice detector, which never runs in a browser.
  alias: { module: "./src/microphone/no_node_modules.ts" },
  plugins: [withoutAddress("fvad.js", 'new URL("fvad.wasm",import.meta.url).href')],
});
await build({ ...common, entryPoints: ["src/microphone/capture_worklet.ts"], banner: { js: WORKLET_HEAD } });
for (const [flavour, name] of there) {
  const wasm = readFileSync(`${PKG}/${name}_bg.wasm`);
  const part = { file: name, bytes: wasm.length, sha256: createHash("sha256").update(wasm).digest("hex") };
  await build({
    ...common,
    entryPoints: [`src/worker/worker_${flavour}.ts`],
    alias: { [`#module-${flavour}`]: `${PKG}/${name}.js` },
    define: { [`MODULE_${flavour.toUpperCase()}`]: JSON.stringify(part) },
    plugins: [withoutAddress(`${name}.js`, `new URL('${name}_bg.wasm', import.meta.url)`)],
  });
  cpSync(`${PKG}/${name}_bg.wasm`, `dist/${name}_bg.wasm`);
}
execFileSync("node_modules/.bin/tsc", ["-p", "tsconfig.json"], { stdio: "inherit" });
for (const file of ["LICENSE-MIT", "LICENSE-APACHE"]) cpSync(`../${file}`, file);
writeFileSync("THIRD_PARTY.md", `# Others' work in this package\n\nThe voice-activity detector of WebRTC, as WebAssembly (@echogarden/fvad-wasm):\n\n\`\`\`\n${readFileSync("node_modules/@echogarden/fvad-wasm/LICENSE", "utf8").trim()}\n\`\`\`\n`);

// For service workers: what a page without a network needs of this package. (The engine's modules are kept with the model.)
writeFileSync("dist/files.json", JSON.stringify(readdirSync("dist").filter((file) => file.endsWith(".js") && file !== "react.js")));

const size = loaded("dist/index.js").reduce((sum, file) => sum + gzipSync(readFileSync(file), { level: 9 }).length, 0);
console.log(`dist/index.js and what it imports at once: ${(size / 1024).toFixed(2)} KiB compressed, of ${LOADER_BUDGET / 1024}.`);
if (size > LOADER_BUDGET) throw new Error("the loader is too large");
if (readFileSync("dist/capture_worklet.js").length < 4097) throw new Error("capture_worklet.js would be put into a data: address by bundlers");
console.log(`dist: ${readdirSync("dist").filter((file) => /\.(js|wasm)$/.test(file)).join(" ")}`);
if (there.length < 2) console.log("Without the module for WebGPU: make wasm builds both.");

/** The address of a module that is given as bytes is never used, and would be bundled by shops a second time, or be missed. */
function withoutAddress(file, address) {
  return {
    name: "without-address",
    setup: (build) =>
      build.onLoad({ filter: new RegExp(`/${file}$`) }, ({ path }) => {
        const source = readFileSync(path, "utf8");
        if (!source.includes(address)) throw new Error(`${path} does not name its module as it used to`);
        return { contents: source.replace(address, '""') };
      }),
  };
}

/** A file and all that it imports statically. */
function loaded(file, seen = new Set()) {
  if (seen.has(file)) return [...seen];
  seen.add(file);
  const source = readFileSync(file, "utf8");
  for (const [, name] of source.matchAll(/^(?:import|export)[^;]*? from "\.\/([^"]+)";|^import "\.\/([^"]+)";/gm)) if (name) loaded(`dist/${name}`, seen);
  return [...seen];
}
