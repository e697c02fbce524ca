// The shop with its voice, as a customer meets it: the real server, a microphone that speaks, Debian's Chromium.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, before, describe, test } from "node:test";
import { SOFTWARE_WEBGPU, clip, launch, root } from "./harness.js";
import { cartCount, door, launchSpeaking, localReady, openShop, spoken, startServer } from "./shop.js";

const TO_CART = spoken(["Fa yei to cart no mu"]);
const policy = (name) => ({ "dwaso.policy": name });
const agreed = { "okyeame.consent": "given" };

let server, quiet, speaking;
before(async () => {
  [server, quiet, speaking] = await Promise.all([startServer(), launch(), launchSpeaking(TO_CART)]);
});
after(async () => {
  await Promise.all([quiet?.close(), speaking?.close()]);
  await server?.stop();
});

/** Runs `run` on the shop in a profile of its own. */
const inShop = (options, run) => async () => {
  const { from = () => quiet, at = () => server.url, ...rest } = options;
  const page = await openShop(from(), at(), rest);
  try {
    await run(page);
  } finally {
    await page.context().close();
  }
};

/** On a product's page, presses the microphone and waits for what the shop makes of what it hears. */
async function speakOnProduct(page) {
  await page.evaluate(() => document.querySelector("okyeame-mic").recognize("Hwehwɛ ɛmo"));
  await page.waitForSelector('[data-view="product"]');
  await page.locator("okyeame-mic").getByRole("button", { name: /kasa|speak/i }).first().click();
  await page.waitForFunction(() => Number(document.querySelector('[data-testid="cart-count"]').textContent) > 0, null, { timeout: 30_000 });
}

const last = (page) => page.evaluate(() => window.lastRecognition);
const keepLast = (page) =>
  page.evaluate(() => document.addEventListener("okyeame-recognition", (event) => (window.lastRecognition = event.detail.recognition)));

describe("a spoken command changes the cart", () => {
  test("on this device, with nothing sent, on a page without cross-origin isolation", inShop({ from: () => speaking, settings: policy("local-only") }, async (page) => {
    const posts = [];
    page.on("request", (request) => request.method() !== "GET" && posts.push(request.url()));
    assert.equal(await page.evaluate(() => crossOriginIsolated), false);
    await keepLast(page);
    await localReady(page);
    await speakOnProduct(page);
    assert.equal(await cartCount(page), 1);
    const { run, intent } = await last(page);
    assert.equal(intent, "add_to_cart");
    assert.deepEqual([run.where, run.device, run.reason, run.bytes_sent], ["local", "wasm", "policy", 0]);
    assert.deepEqual(posts, []);
    // the microphone is given back
    await page.waitForFunction(() => document.querySelector("okyeame-mic").state === "idle");
  }));

  test("by the server, after the customer has agreed and not before", inShop({ from: () => speaking, settings: policy("remote-only") }, async (page) => {
    const posts = [];
    page.on("request", (request) => request.method() === "POST" && posts.push(request.url()));
    await keepLast(page);
    const mic = page.locator("okyeame-mic");
    await page.getByRole("searchbox").fill("ɛmo");
    await page.keyboard.press("Enter");
    await page.waitForSelector('[data-view="product"]');
    await mic.getByRole("button", { name: /kasa|speak/i }).first().click();
    await mic.getByRole("group").waitFor({ timeout: 20_000 });
    assert.deepEqual(posts, []);
    await mic.getByRole("button", { name: "Mepene so" }).click();
    await page.waitForFunction(() => Number(document.querySelector('[data-testid="cart-count"]').textContent) > 0, null, { timeout: 30_000 });
    const { run } = await last(page);
    assert.deepEqual([run.where, run.reason], ["remote", "policy"]);
    assert.ok(run.bytes_sent > 2_000 && run.bytes_sent < 60_000, `${run.bytes_sent}`);
    assert.equal(posts.length, 1);
  }));

  test("with words, that follow the intent", inShop({ settings: { ...policy("remote-only"), ...agreed, "dwaso.words": "yes" }, from: () => speaking }, async (page) => {
    await page.evaluate(() => {
      window.order = [];
      for (const name of ["okyeame-recognition", "okyeame-words"]) document.addEventListener(name, (event) => window.order.push([name, event.detail.recognition.transcription]));
    });
    await page.locator("okyeame-mic").getByRole("button", { name: /kasa|speak/i }).first().click();
    await page.waitForFunction(() => window.order.length === 2, null, { timeout: 60_000 });
    const [[first, none], [second, words]] = await page.evaluate(() => window.order);
    assert.deepEqual([first, none, second], ["okyeame-recognition", null, "okyeame-words"]);
    assert.match(words, /\w+/);
  }));

  test("hands-free, one command after the other", async () => {
    const browser = await launchSpeaking(spoken(["Fa yei to cart no mu", "Kɔ cart no mu"]));
    const page = await openShop(browser, server.url, { settings: { ...policy("local-only"), "dwaso.mode": "hands-free" } });
    try {
      await localReady(page);
      await page.evaluate(() => {
        window.heard = [];
        document.addEventListener("okyeame-recognition", (event) => window.heard.push(event.detail.recognition.top_predictions[0]?.intent));
      });
      await page.evaluate(() => document.querySelector("okyeame-mic").listen());
      await page.waitForFunction(() => window.heard.length >= 2, null, { timeout: 40_000 });
      assert.deepEqual((await page.evaluate(() => window.heard)).slice(0, 2), ["add_to_cart", "show_cart"]);
      assert.notEqual(await page.evaluate(() => document.querySelector("okyeame-mic").state), "idle");
    } finally {
      await browser.close();
    }
  });
});

describe("what needs a yes", () => {
  test("is done when the command is spoken once more, and not before", async () => {
    const browser = await launchSpeaking(spoken(["Pepa me cart no mu nnoɔma nyinaa", "Pepa me cart no mu nnoɔma nyinaa"]));
    const page = await openShop(browser, server.url, { settings: { ...policy("local-only"), "dwaso.mode": "hands-free" } });
    try {
      await localReady(page);
      await page.evaluate(async () => {
        const mic = document.querySelector("okyeame-mic");
        await mic.recognize("Hwehwɛ ɛmo");
        await mic.recognize("Fa yei to cart no mu");
        window.counts = [];
        document.addEventListener("okyeame-recognition", () => window.counts.push(document.querySelector('[data-testid="cart-count"]').textContent));
        await mic.listen();
      });
      await page.waitForFunction(() => document.querySelector('[data-testid="cart-count"]').textContent === "0", null, { timeout: 40_000 });
      assert.deepEqual(await page.evaluate(() => window.counts), ["1", "1"]);
    } finally {
      await browser.close();
    }
  });
});

describe("when things fail", () => {
  test("the server is stopped after the page has loaded: the shop still hears, also after a reload without a network", async () => {
    const own = await startServer();
    const page = await openShop(speaking, own.url);
    try {
      await keepLast(page);
      await localReady(page);
      await page.evaluate(() => navigator.serviceWorker.ready);
      await own.stop();
      await speakOnProduct(page);
      assert.equal((await last(page)).run.where, "local");
      // what the service worker and the model's cache hold is a whole shop
      await page.waitForTimeout(500);
      await page.reload();
      await page.waitForFunction(() => customElements.get("okyeame-mic") && window.shop?.state);
      await localReady(page);
      await page.evaluate(() => document.querySelector("okyeame-mic").recognize("Kɔ cart no mu"));
      await page.waitForSelector('[data-view="cart"]');
    } finally {
      await page.context().close();
      await own.stop();
    }
  });

  test("the server dies in the middle of a visit: this device takes over", async () => {
    const own = await startServer();
    const page = await openShop(quiet, own.url, { settings: { ...policy("remote-first"), ...agreed } });
    try {
      await keepLast(page);
      await page.evaluate(() => document.querySelector("okyeame-mic").engine.load());
      const bytes = [...readFileSync(clip("tw_cart"))];
      const ask = () => page.evaluate((bytes) => document.querySelector("okyeame-mic").recognize(new Blob([new Uint8Array(bytes)])), bytes);
      await ask();
      assert.deepEqual(Object.values((await last(page)).run).slice(0, 1), ["remote"]);
      await own.stop();
      await ask();
      const { run, intent } = await last(page);
      assert.deepEqual([run.where, run.reason], ["local", "server_failed"]);
      assert.ok(run.bytes_sent >= bytes.length, "what may have been sent is on the receipt");
      assert.ok(intent.length > 0);
    } finally {
      await page.context().close();
      await own.stop();
    }
  });

  test("a download that is cut goes on where it was", async () => {
    const unsteady = await door(server.url, { cut: 12e6 }); // in the middle of the model's parts
    const page = await openShop(quiet, unsteady.url, { settings: policy("local-only") });
    try {
      const ranges = [];
      page.on("request", (request) => request.headers().range && ranges.push(request.headers().range));
      const progress = await page.evaluate(async () => {
        const { LocalEngine } = await import("/okyeame/index.js");
        const seen = [];
        const engine = await LocalEngine.load("/models/default/manifest.json", { onProgress: (p) => seen.push(p) });
        const { intent } = await engine.recognizeText("Kɔ cart no mu");
        return { seen: seen.map(({ loaded, total }) => [loaded, total]), intent };
      });
      assert.equal(unsteady.state.cuts, 1);
      assert.equal(progress.intent, "show_cart");
      progress.seen.forEach(([loaded], at) => assert.ok(at === 0 || loaded >= progress.seen[at - 1][0]));
      assert.equal(progress.seen.at(-1)[0], progress.seen.at(-1)[1]);
    } finally {
      await page.context().close();
      unsteady.close();
    }
  });

  test("while the model is on its way the server answers whoever has agreed, and this device from then on", inShop({ settings: { ...policy("local-first"), ...agreed } }, async (page) => {
    const slow = await door(server.url, { hold: 4e6 });
    try {
      const runs = await page.evaluate(async ({ model, server }) => {
        const { Okyeame } = await import("/okyeame/index.js");
        const okyeame = (window.okyeame = await Okyeame.create({ model, server }));
        return [(await okyeame.recognizeText("Kɔ cart no mu")).run, await okyeame.choice()];
      }, { model: `${slow.url}/models/default/manifest.json`, server: server.url });
      assert.deepEqual([runs[0].where, runs[0].reason, runs[1].where], ["remote", "model_not_local", "remote"]);
      slow.open();
      const after = await page.evaluate(async () => {
        await okyeame.load();
        return (await okyeame.recognizeText("Kɔ cart no mu")).run;
      });
      assert.deepEqual([after.where, after.reason, after.bytes_sent], ["local", "policy", 0]);
    } finally {
      slow.close();
    }
  }));

  test("an element with nobody to ask says so; one that is given an engine leaves it to its owner", inShop({ settings: policy("local-only") }, async (page) => {
    const [code, intent, alive] = await page.evaluate(async () => {
      const { Okyeame } = await import("/okyeame/index.js");
      const mic = document.createElement("okyeame-mic");
      document.body.append(mic);
      const failed = new Promise((resolve) => mic.addEventListener("okyeame-error", ({ detail }) => resolve(detail.error.code), { once: true }));
      await mic.listen();
      const code = await failed;
      const okyeame = await Okyeame.create({ server: "/", policy: "remote-only", consent: "given" });
      mic.engine = okyeame;
      const heard = new Promise((resolve) => mic.addEventListener("okyeame-recognition", ({ detail }) => resolve(detail.recognition.intent)));
      await mic.recognize("Boa me");
      const intent = await heard;
      mic.remove();
      await new Promise((resolve) => setTimeout(resolve));
      return [code, intent, (await okyeame.recognizeText("Boa me")).intent];
    });
    assert.deepEqual([code, intent, alive], ["no_engine", "help", "help"]);
  }));

  test("words that are not here yet are written by the server, and their part of the model follows", inShop({ settings: { ...policy("local-first"), ...agreed } }, async (page) => {
    const bytes = [...readFileSync(clip("en_short"))];
    const runs = await page.evaluate(async (bytes) => {
      const { Okyeame } = await import("/okyeame/index.js");
      const okyeame = await Okyeame.create({ server: "/" });
      await okyeame.load();
      const ask = async (words) => {
        const { run, transcription } = await okyeame.recognize(new Uint8Array(bytes), { words, language: "en" });
        return [run.where, run.reason, typeof transcription];
      };
      const runs = [await ask(false), await ask(true)];
      while ((await okyeame.situation({ words: true })).model.ready === false) await new Promise((resolve) => setTimeout(resolve, 100));
      return [...runs, await ask(true)];
    }, bytes);
    assert.deepEqual(runs, [["local", "policy", "object"], ["remote", "model_not_local", "string"], ["local", "policy", "string"]]);
  }));

  test("no microphone, or one that is not allowed, is said, and typing still works", inShop({ settings: policy("local-only") }, async (page) => {
    await localReady(page);
    const mic = page.locator("okyeame-mic");
    await page.evaluate(() => {
      window.errors = [];
      document.addEventListener("okyeame-error", (event) => window.errors.push(event.detail.error.code));
    });
    await mic.getByRole("button", { name: /kasa|speak/i }).first().click();
    await page.waitForFunction(() => window.errors.length === 1);
    assert.match((await page.evaluate(() => window.errors))[0], /^microphone_(denied|missing)$/);
    await mic.getByRole("button", { name: /Twerɛ mmom|Type/ }).click();
    await mic.getByRole("textbox").fill("Boa me");
    await page.keyboard.press("Enter");
    await page.waitForSelector('[data-view="help"]');
  }));

  test("a page that is hidden gives the microphone back", inShop({ from: () => speaking, settings: policy("local-only") }, async (page) => {
    await localReady(page);
    const code = await page.evaluate(async () => {
      const listening = document.querySelector("okyeame-mic").engine.listen({ mode: "hands-free" });
      const failed = new Promise((resolve) => listening.on("error", resolve));
      await new Promise((resolve) => listening.on("state", (state) => state === "listening" && resolve()));
      Object.defineProperty(document, "visibilityState", { get: () => "hidden", configurable: true });
      document.dispatchEvent(new Event("visibilitychange"));
      const { code } = await failed;
      await listening.ended;
      return code;
    });
    assert.equal(code, "page_hidden");
  }));

  test("a microphone that is unplugged is said", inShop({ from: () => speaking, settings: policy("local-only") }, async (page) => {
    const code = await page.evaluate(async () => {
      const get = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
      let track;
      navigator.mediaDevices.getUserMedia = async (wanted) => {
        const stream = await get(wanted);
        [track] = stream.getTracks();
        return stream;
      };
      await customElements.whenDefined("okyeame-mic");
      const listening = document.querySelector("okyeame-mic").engine.listen({ mode: "hands-free" });
      const failed = new Promise((resolve) => listening.on("error", resolve));
      await new Promise((resolve) => listening.on("state", (state) => state === "listening" && resolve()));
      track.dispatchEvent(new Event("ended"));
      return (await failed).code;
    });
    assert.equal(code, "microphone_lost");
  }));

  test("pressed again before anything was heard, it stops and complains of nothing", inShop({ from: () => speaking, settings: policy("local-only") }, async (page) => {
    const events = await page.evaluate(async () => {
      const listening = document.querySelector("okyeame-mic").engine.listen({ mode: "push" });
      const events = [];
      for (const name of ["intent", "error"]) listening.on(name, (detail) => events.push(detail.code ?? detail.intent));
      listening.stop();
      await listening.ended;
      return events;
    });
    assert.deepEqual(events, []);
  }));

  test("a microphone that hears nobody is given back", inShop({ from: () => speaking, settings: policy("local-only") }, async (page) => {
    const live = await page.evaluate(async () => {
      const get = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
      let track;
      navigator.mediaDevices.getUserMedia = async (wanted) => {
        const silent = new AudioContext();
        await get(wanted).then((stream) => stream.getTracks().forEach((each) => each.stop()));
        const { stream } = silent.createMediaStreamDestination();
        [track] = stream.getTracks();
        return stream;
      };
      const listening = document.querySelector("okyeame-mic").engine.listen({ mode: "hands-free", idleMs: 700 });
      await listening.ended;
      return [track.readyState, listening.state];
    });
    assert.deepEqual(live, ["ended", "ended"]);
  }));

  test("on WebGPU a recording is heard as well", async () => {
    const browser = await launch(SOFTWARE_WEBGPU);
    const page = await openShop(browser, server.url, { settings: policy("local-only") });
    try {
      // A tiny model: the software adapter takes half a minute for a command with the real one (make bench-web).
      const bytes = [...readFileSync(clip("tw_cart"))];
      const [run, heard] = await page.evaluate(async (bytes) => {
        const mic = document.createElement("okyeame-mic");
        for (const [name, value] of Object.entries({ model: "/models/tiny/manifest.json", policy: "local-only", device: "webgpu" })) mic.setAttribute(name, value);
        document.querySelector("okyeame-mic").replaceWith(mic);
        const answered = new Promise((resolve, reject) => {
          mic.addEventListener("okyeame-recognition", ({ detail }) => resolve(detail.recognition));
          mic.addEventListener("okyeame-error", ({ detail }) => reject(detail.error));
        });
        await mic.recognize(new Blob([new Uint8Array(bytes)]));
        const { run, top_predictions } = await answered;
        return [run, top_predictions.length];
      }, bytes);
      assert.deepEqual([run.where, run.device, run.bytes_sent, heard], ["local", "webgpu", 0, 5]);
    } finally {
      await browser.close();
    }
  });

  test("with WebGPU on a software adapter the shop hears as well, on the CPU, and says why", async () => {
    const browser = await launch(SOFTWARE_WEBGPU);
    const page = await openShop(browser, server.url, { settings: policy("local-only") });
    try {
      await localReady(page);
      assert.match(await page.evaluate(() => document.querySelector("okyeame-mic").engine.device.reason), /software/);
      await page.evaluate(() => document.querySelector("okyeame-mic").recognize("Kɔ cart no mu"));
      await page.waitForSelector('[data-view="cart"]');
    } finally {
      await browser.close();
    }
  });
});

describe("acting by risk", () => {
  test("what can be undone is undone; what costs money waits for a yes", inShop({ settings: policy("local-only") }, async (page) => {
    await localReady(page);
    const say = (text) => page.evaluate((text) => document.querySelector("okyeame-mic").recognize(text), text);
    await say("Hwehwɛ ɛmo");
    await say("Fa yei to cart no mu");
    assert.equal(await cartCount(page), 1);
    await page.locator("#undo").click();
    assert.equal(await cartCount(page), 0);
    await say("Fa yei to cart no mu");
    await say("Pepa cart no");
    const question = page.locator("okyeame-mic").getByRole("group");
    await question.waitFor();
    assert.equal(await cartCount(page), 1, "nothing is done before the yes");
    await page.locator("okyeame-mic").getByRole("button", { name: "Daabi" }).click();
    await question.waitFor({ state: "hidden" });
    assert.equal(await cartCount(page), 1);
    await say("Pepa cart no");
    await say("Pepa cart no"); // once more is a yes
    assert.equal(await cartCount(page), 0);
  }));

  test("each of the 49 intents moves the shop or says why not", inShop({ settings: policy("local-only") }, async (page) => {
    const { labels } = JSON.parse(readFileSync(`${root}/models/twi-shop/intent_labels.json`, "utf8"));
    assert.equal(labels.length, 49);
    const unseen = await page.evaluate((labels) => {
      const mic = document.querySelector("okyeame-mic");
      const [said, view] = ["say", "view"].map((id) => document.querySelector(`[data-testid="${id}"]`));
      return labels.filter((intent) => {
        said.textContent = "";
        const before = view.innerHTML;
        const recognition = { intent, accepted: true, rejection: null, risk: "none", slots: [], confidence: 1, top_predictions: [], run: {}, timings_ms: {} };
        mic.dispatchEvent(new CustomEvent("okyeame-action", { detail: { recognition }, bubbles: true }));
        return !said.textContent && before === view.innerHTML;
      });
    }, labels);
    assert.deepEqual(unseen, []);
  }));
});

describe("for everybody", () => {
  for (const [name, viewport] of Object.entries({ phone: { width: 390, height: 844 }, desktop: { width: 1280, height: 900 } })) {
    test(`nothing serious is found by axe on a ${name}, and nothing is cut off`, inShop({ viewport, settings: policy("local-only") }, async (page) => {
      await localReady(page);
      const axe = readFileSync(new URL(import.meta.resolve("axe-core")), "utf8");
      const look = async (what) => {
        await page.waitForTimeout(300); // colours that fade in are not yet what they will be
        await page.evaluate(`${axe};0`); // by the debugger's door: the page's policy forbids eval
        const { violations } = await page.evaluate(() => window.axe.run());
        const serious = violations.filter(({ impact }) => ["serious", "critical"].includes(impact));
        assert.deepEqual(serious.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join(" ")}`), [], what);
        assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), `${what} is wider than the screen`);
        if (process.env.SCREENSHOTS) await page.screenshot({ path: `${process.env.SCREENSHOTS}/${name}-${what}.png` });
      };
      const say = (text) => page.evaluate((text) => document.querySelector("okyeame-mic").recognize(text), text);
      await look("home");
      await say("Hwehwɛ ɛmo");
      await page.locator("#panel summary").click();
      await look("product");
      await say("Fa yei to cart no mu");
      await say("Pepa cart no");
      await look("question");
      await page.locator("okyeame-mic").getByRole("button", { name: "Daabi" }).click();
      await say("Kɔ cart no mu");
      await page.locator("okyeame-mic").getByRole("button", { name: /Twerɛ mmom|Type/ }).click();
      await look("cart");
    }));
  }

  test("by keyboard alone: to the microphone, and a command that is typed", inShop({ settings: policy("local-only") }, async (page) => {
    await localReady(page);
    const focused = () => page.evaluate(() => document.activeElement?.shadowRoot?.activeElement?.getAttribute("part") ?? "");
    for (let tabs = 0; tabs < 120 && (await focused()) !== "type"; tabs++) await page.keyboard.press("Tab");
    assert.equal(await focused(), "type");
    await page.keyboard.press("Enter");
    await page.keyboard.type("Kɔ cart no mu");
    await page.keyboard.press("Enter");
    await page.waitForSelector('[data-view="cart"]');
    assert.equal(await page.evaluate(() => document.querySelector("okyeame-mic").shadowRoot.querySelector('[role="status"]').getAttribute("aria-live")), "polite");
  }));
});
