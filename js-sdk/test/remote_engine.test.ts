// Against a server that says what servers say. (tests/browser and examples/node-client meet the real one.)
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, describe, expect, test } from "vitest";
import { AutoEngine, OkyeameError, RemoteEngine } from "../src/index.js";

const ANSWER = { intent: "add_to_cart", accepted: true, rejection: null, run: { where: "remote", device: "cpu", reason: "sent_to_server", bytes_sent: 1 }, processing_time_ms: 3 };
type Reply = (response: ServerResponse, body: Buffer, request: IncomingMessage) => void;
const say = (status: number, body: unknown, headers = {}): Reply => (response) => void response.writeHead(status, { "content-type": "application/json", ...headers }).end(typeof body === "string" ? body : JSON.stringify(body));

let server: Server | undefined;
afterEach(() => {
  server?.closeAllConnections();
  server?.close();
});

/** Starts a server that answers its requests one after the other with `replies`, the last one again and again. */
async function serving(...replies: Reply[]) {
  const seen: { path: string; body: Buffer; headers: IncomingMessage["headers"] }[] = [];
  server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on("data", (chunk) => chunks.push(chunk)).on("end", () => {
      seen.push({ path: request.url!, body: Buffer.concat(chunks), headers: request.headers });
      (replies.length > 1 ? replies.shift()! : replies[0]!)(response, seen.at(-1)!.body, request);
    });
  });
  await new Promise<void>((resolve) => server!.listen(0, "127.0.0.1", resolve));
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, seen };
}
const clip = new Uint8Array([82, 73, 70, 70]);

describe("a server's answers", () => {
  test("the form holds the clip and the options; the base path stays", async () => {
    const { url, seen } = await serving(say(200, ANSWER));
    const engine = new RemoteEngine({ server: `${url}/voice`, headers: { authorization: "Bearer k" } });
    const answer = await engine.recognize(clip, { topK: 3, words: true, language: "tw", filename: "a.wav", catalogue: { products: ["ɛmo"] }, requestId: "r1" });
    expect(answer.intent).toBe("add_to_cart");
    const [{ path, body, headers }] = seen as [(typeof seen)[0]];
    expect(path).toBe("/voice/test-intent");
    expect(headers).toMatchObject({ authorization: "Bearer k", "x-request-id": "r1" });
    const form = body.toString();
    for (const part of ['name="file"; filename="a.wav"', 'name="top_k"\r\n\r\n3', 'name="transcribe"\r\n\r\ntrue', 'name="language"\r\n\r\ntw', '{"products":["ɛmo"]}']) expect(form).toContain(part);
  });

  test("a token is fetched once, shared, and fetched again when it has ended", async () => {
    const ended = say(401, { code: "token_expired", detail: "ended" });
    const { url, seen } = await serving(say(200, ANSWER), ended, say(200, ANSWER), ended);
    let fetched = 0;
    const engine = new RemoteEngine({ server: url, token: async () => `t${++fetched}` });
    await engine.recognize(clip);
    await engine.recognize(clip);
    expect(seen.map(({ headers }) => headers.authorization)).toEqual(["Bearer t1", "Bearer t1", "Bearer t2"]);
    // A server that takes none is not asked for ever.
    await expect(engine.recognize(clip)).rejects.toMatchObject({ code: "token_expired", status: 401 });
    expect([fetched, seen.length]).toEqual([3, 5]);
  });

  test("a token that cannot be had, or does not come, is an error; the next call tries again", async () => {
    const { url, seen } = await serving(say(200, ANSWER));
    const answers = [() => { throw new Error("logged out"); }, () => new Promise<string>(() => {})];
    const failing = new RemoteEngine({ server: url, token: () => (answers.shift() ?? (() => "t"))(), timeoutMs: 300 });
    await expect(failing.recognize(clip)).rejects.toMatchObject({ code: "network", message: expect.stringContaining("logged out") });
    await expect(failing.recognize(clip)).rejects.toMatchObject({ code: "timeout" });
    expect(seen).toEqual([]);
    await failing.recognize(clip);
    expect(seen[0]!.headers.authorization).toBe("Bearer t");
  });

  test("a key that the server does not take is not sent again", async () => {
    const { url, seen } = await serving(say(401, { code: "invalid_key", detail: "not known" }));
    await expect(new RemoteEngine({ server: url, token: "t" }).recognize(clip)).rejects.toMatchObject({ code: "invalid_key" });
    expect(seen.map(({ headers }) => headers.authorization)).toEqual(["Bearer t"]);
  });

  test("a text goes as JSON", async () => {
    const { url, seen } = await serving(say(200, ANSWER));
    await new RemoteEngine({ server: url }).recognizeText("Fa yei to cart no mu", { topK: 2 });
    expect(seen[0]!.path).toBe("/text-intent");
    expect(JSON.parse(seen[0]!.body.toString())).toEqual({ text: "Fa yei to cart no mu", top_k: 2 });
  });

  test("what the server refuses comes with its own code", async () => {
    const { url } = await serving(say(400, { code: "malformed_audio", detail: "the audio is damaged", request_id: "r7" }));
    await expect(new RemoteEngine({ server: url }).recognize(clip)).rejects.toMatchObject({
      name: "OkyeameError", code: "malformed_audio", message: "the audio is damaged", status: 400, requestId: "r7", retryable: false,
    });
  });

  test("a full server is asked again after the time that it says, and no oftener than allowed", async () => {
    const full = say(429, { code: "overloaded", detail: "full" }, { "retry-after": "0" });
    const { url, seen } = await serving(full, say(200, ANSWER));
    expect((await new RemoteEngine({ server: url }).recognize(clip)).intent).toBe("add_to_cart");
    expect(seen.length).toBe(2);
    const again = await serving(full);
    await expect(new RemoteEngine({ server: again.url, retries: 2 }).recognize(clip)).rejects.toMatchObject({ code: "overloaded", retryable: true, retryAfterS: 0 });
    expect(again.seen.length).toBe(3);
  });

  test("a long wait is the caller's to decide", async () => {
    const { url, seen } = await serving(say(429, { code: "overloaded", detail: "full" }, { "retry-after": "120" }));
    await expect(new RemoteEngine({ server: url }).recognize(clip)).rejects.toMatchObject({ retryAfterS: 120 });
    expect(seen.length).toBe(1);
  });

  test("a server that is loading is waited for", async () => {
    const { url, seen } = await serving(say(503, { status: "loading" }, { "retry-after": "0" }), say(200, { status: "healthy" }));
    await new RemoteEngine({ server: url }).ready();
    expect(seen.map(({ path }) => path)).toEqual(["/health", "/health"]);
  });

  test.each([
    ["no okyeame at all", say(404, "<html>not here</html>", { "content-type": "text/html" }), "http_error"],
    ["no JSON", say(200, "<html>"), "http_error"],
    ["cut off", ((response) => void response.destroy()) as Reply, "network"],
    ["a code that is no text", say(500, { code: 7, detail: {} }), "http_error"],
  ])("%s is an error with a code", async (_, reply, code) => {
    const { url } = await serving(reply);
    await expect(new RemoteEngine({ server: url }).recognize(clip)).rejects.toMatchObject({ name: "OkyeameError", code });
  });

  test("silence from the server ends after the time limit", async () => {
    const { url } = await serving(() => {});
    await expect(new RemoteEngine({ server: url, timeoutMs: 50 }).recognize(clip)).rejects.toMatchObject({ code: "timeout", retryable: true });
  });

  test("nobody there", async () => {
    const { url } = await serving(say(200, ANSWER));
    server!.close();
    await expect(new RemoteEngine({ server: url }).recognize(clip)).rejects.toMatchObject({ code: "network", retryable: true });
  });

  test("given up, by a signal or for good", async () => {
    const { url } = await serving(() => {});
    const engine = new RemoteEngine({ server: url });
    await expect(engine.recognize(clip, { signal: AbortSignal.abort() })).rejects.toMatchObject({ code: "aborted" });
    const waiting = engine.recognize(clip);
    engine.dispose();
    await expect(waiting).rejects.toMatchObject({ code: "disposed" });
    await expect(engine.recognize(clip)).rejects.toMatchObject({ code: "disposed" });
  });

  test.each(["", "not an address", "//"])("the address '%s' is none", (server) => {
    expect(() => new RemoteEngine({ server })).toThrow(OkyeameError);
  });
});

describe("AutoEngine without a browser", () => {
  test("asks the server, and its answer has a receipt", async () => {
    const { url } = await serving(say(200, ANSWER));
    const engine = new AutoEngine({ server: url, policy: "remote-only" });
    const { run } = await engine.recognize(clip);
    expect(run).toMatchObject({ where: "remote", reason: "policy", bytes_sent: clip.length });
  });

  test("with local-only nothing is sent, whatever else is given", async () => {
    const { url, seen } = await serving(say(200, ANSWER));
    const engine = new AutoEngine({ server: url, model: `${url}/manifest.json`, policy: "local-only", consent: "given" });
    await expect(engine.recognize(clip)).rejects.toMatchObject({ code: "no_engine" });
    await expect(engine.ready()).rejects.toMatchObject({ code: "no_engine" });
    expect(seen).toEqual([]);
  });

  test("consent that nobody can give is none; one that is given is remembered by the engine", async () => {
    const { url, seen } = await serving(say(200, ANSWER));
    const asked: number[] = [];
    const silent = new AutoEngine({ server: url, policy: "remote-only", consent: "ask" });
    await expect(silent.recognize(clip)).rejects.toMatchObject({ code: "consent_missing" });
    const refusing = new AutoEngine({ server: url, policy: "remote-only", consent: "ask", onConsent: () => (asked.push(1), false) });
    await expect(refusing.recognize(clip)).rejects.toMatchObject({ code: "consent_missing" });
    await expect(refusing.recognize(clip)).rejects.toMatchObject({ code: "consent_missing" });
    expect([asked.length, seen.length]).toEqual([1, 0]);
    const agreeing = new AutoEngine({ server: url, policy: "remote-only", consent: "ask", onConsent: () => Promise.resolve(asked.push(1) > 0) });
    const both = await Promise.all([agreeing.recognize(clip), agreeing.recognize(clip)]);
    expect(both.map(({ run }) => run.where)).toEqual(["remote", "remote"]);
    expect(asked.length).toBe(2); // once for the two
  });

  test("an answer that is unsure, or fails, stays what it is where nobody else may be asked", async () => {
    const { url } = await serving(say(200, { ...ANSWER, accepted: false, rejection: "low_confidence" }));
    expect((await new AutoEngine({ server: url }).recognize(clip)).rejection).toBe("low_confidence");
    const bad = await serving(say(400, { code: "malformed_audio", detail: "damaged" }));
    await expect(new AutoEngine({ server: bad.url }).recognize(clip)).rejects.toMatchObject({ code: "malformed_audio" });
  });

  test("nothing given is refused at once", () => {
    expect(() => new AutoEngine({})).toThrow(/model, server/);
    expect(() => new AutoEngine({ server: "http://x", policy: "cloud" as never })).toThrow(/policy/);
  });
});
