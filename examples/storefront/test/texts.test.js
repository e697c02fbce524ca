// Every word that the shop uses is there in both languages, and none lies about unused.

import assert from "node:assert/strict";
import { readFileSync, readdirSync } from "node:fs";
import { test } from "node:test";
import { SAYINGS } from "../sayings.js";
import { LANGUAGES, fill, money, textKeys } from "../texts.js";

const folder = new URL("../", import.meta.url);
const read = (file) => readFileSync(new URL(file, folder), "utf8");
const code = readdirSync(folder).filter((file) => file.endsWith(".js") && !["texts.js", "sayings.js"].includes(file)).map(read).join("\n");
const html = read("index.html");

test("both languages have the same texts, and all that are used", () => {
  const keys = textKeys("tw");
  assert.deepEqual(LANGUAGES, ["tw", "en"]);
  assert.deepEqual(textKeys("en").sort(), [...keys].sort());
  const used = [...code.matchAll(/\bt\("(\w+)"/g), ...html.matchAll(/data-t(?:-\w+)?="(\w+)"/g)].map((match) => match[1]);
  assert.ok(used.length > 80);
  assert.deepEqual(used.filter((key) => !keys.includes(key)), []);
  assert.deepEqual(keys.filter((key) => !new RegExp(`"${key}"|\\b${key}:`).test(code + html)), []);
});

test("each saying is used, has two sentences with the same values", () => {
  const fromRecognition = ["no_speech", "out_of_scope", "ambiguous", "low_confidence"];
  for (const [key, sentences] of Object.entries(SAYINGS)) {
    assert.ok(code.includes(`"${key}"`) || fromRecognition.includes(key), key);
    const [tw, en] = sentences.map((sentence) => [...sentence.matchAll(/\{(\w+)\}/g)].map((match) => match[1]).sort());
    assert.deepEqual(tw, en, key);
  }
});

test("filling and money", () => {
  assert.equal(fill("{a} {b} {toString}", { a: "{b}", b: 2 }), "{b} 2 ");
  assert.equal(money(1450), "GH₵ 1,450");
  assert.equal(money(45.5), "GH₵ 45.50");
});

test("no script, style or handler stands in the page itself, and nothing comes from elsewhere", () => {
  assert.doesNotMatch(html, /<script(?![^>]*src=)|<style|\sstyle=|\son\w+=|https?:/);
  assert.doesNotMatch(code, /innerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function/);
});
