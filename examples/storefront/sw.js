// The shop without a network: its own files and the voice package are kept. A page's code comes from the network while
// there is one, so that a new version is seen at once; pictures come from the cache. What is not listed here is never
// touched: not the API, not /models/ (the engine has a cache of its own), and nothing but GET.

const CACHE = "dwaso-1";
const VOICE_CACHE = "dwaso-voice-1";
/** How long the network may take before a kept file is shown in its place, ms. A phone on one bar never says that it is offline. */
const PATIENCE_MS = 4000;

const PAGES = [
  "index.html", "style.css", "shop.js", "state.js", "steps.js", "buying.js", "ordering.js", "finding.js", "storage.js", "views.js",
  "pages.js", "panel.js", "dom.js", "help.js", "texts.js", "sayings.js", "products.json", "catalogue.json", "manifest.webmanifest", "icon.svg",
];
const PICTURES = [
  "asanka", "bag", "beads", "blanket", "chocolate", "dress", "drum", "earphones", "headwrap", "lamp", "laptop", "oil", "phone",
  "plantain", "pot", "rice", "sandals", "school-shoes", "shirt", "slippers", "sneakers", "stool", "sugar", "tshirt",
].map((name) => `pictures/${name}.svg`);

const base = new URL("./", self.location).pathname;
const pages = new Set(["", ...PAGES].map((file) => base + file));
const pictures = new Set(PICTURES.map((file) => base + file));

self.addEventListener("install", (event) => {
  event.waitUntil((async () => {
    const cache = await caches.open(CACHE);
    // Past the browser's own cache, which may hold files of an older version.
    await cache.addAll(["", ...PAGES, ...PICTURES].map((file) => new Request(base + file, { cache: "reload" })));
    await keepVoice();
    await self.skipWaiting();
  })());
});

/** The voice package names its own files. A shop without a voice is a shop all the same. */
async function keepVoice() {
  try {
    const files = await (await fetch("/okyeame/files.json", { cache: "reload" })).json();
    await (await caches.open(VOICE_CACHE)).addAll(files.map((file) => `/okyeame/${file}`));
  } catch { /* the files are kept as they are fetched */ }
}

self.addEventListener("activate", (event) => {
  event.waitUntil((async () => {
    const old = (await caches.keys()).filter((name) => name.startsWith("dwaso-") && ![CACHE, VOICE_CACHE].includes(name));
    await Promise.all(old.map((name) => caches.delete(name)));
    await self.clients.claim();
  })());
});

async function networkFirst(event, name) {
  const cache = await caches.open(name);
  const fetched = fetch(event.request).then(async (response) => {
    if (response.ok && response.status === 200) await cache.put(event.request, response.clone());
    return response;
  });
  event.waitUntil(fetched.catch(() => {}));
  const kept = await cache.match(event.request, { ignoreSearch: true });
  if (!kept) return fetched;
  const late = new Promise((resolve) => setTimeout(resolve, PATIENCE_MS, kept));
  return Promise.race([fetched.then((response) => (response.status >= 500 ? kept : response)).catch(() => kept), late]);
}

async function cacheFirst(event) {
  return (await caches.match(event.request, { ignoreSearch: true })) ?? fetch(event.request);
}

self.addEventListener("fetch", (event) => {
  const { request } = event;
  const { origin, pathname } = new URL(request.url);
  if (request.method !== "GET" || origin !== self.location.origin) return;
  if (pages.has(pathname)) event.respondWith(networkFirst(event, CACHE));
  else if (pictures.has(pathname)) event.respondWith(cacheFirst(event));
  else if (pathname.startsWith("/okyeame/")) event.respondWith(networkFirst(event, VOICE_CACHE));
});
