"""Speaks the shop's phrases and the out-of-scope talk with espeak-ng, as 16 kHz mono arrays.

espeak-ng has no Twi voice. Two readings stand in for a Ghanaian speaker:
  plain     the letters as they are, only ɛ and ɔ become e and o: what a foreign voice makes of written Twi;
  phonetic  Twi digraphs respelled to the sounds they stand for (ky: ch, dw: jw, hy: sh, …), and English words
            by their English pronunciation folded to five vowels, as a Ghanaian says them in a Twi sentence.
"""

import csv
import re
import subprocess
import unicodedata
from functools import lru_cache
from pathlib import Path

import numpy as np

DATA = Path(__file__).resolve().parents[2] / "core" / "data"

# name: (espeak voice, reading, words a minute, pitch 0-99)
VOICES = {
    "sw-plain": ("sw+f2", "plain", 150, 55),
    "sw-phonetic": ("sw+m3", "phonetic", 145, 40),
    "id-phonetic": ("id+f4", "phonetic", 140, 60),
    "tn-plain": ("tn+m1", "plain", 140, 45),
    "tn-phonetic": ("tn+f3", "phonetic", 150, 60),
    "it-phonetic": ("it+m5", "phonetic", 150, 50),
    "en": ("en-gb+f3", "as written", 160, 55),
    "en-us": ("en-us+m3", "as written", 165, 45),
    "fr": ("fr-fr+f2", "as written", 160, 50),
    "sw": ("sw+m1", "as written", 150, 45),
}

# Two-letter Twi consonants and the sounds that they stand for, in Swahili spelling.
DIGRAPHS = {"tw": "chw", "dw": "jw", "hw": "shw", "ky": "ch", "gy": "j", "hy": "sh", "nw": "ngw"}
# Twi words end in a vowel, m, n or w, and have no c, j, l, q, v, x, z: the rest is English, and so are these.
ENGLISH = set(
    "one home page more size are the they me. have there three five nine phone receipt code sale save service price "
    "share like take make place remove change choose live store delete enable disable exchange item in on can from "
    "common main many no. my by go show now new how low so. view review reviews continue update question expensive "
    "phone large white blue yellow fon notify description notification the description person button ten seven woman "
    "open turn return want main an am come some home name same time he. she be. we. something shopping sending section "
    "rain queen room tomorrow to-day today more where here sure before please people nice mine line online one done gone "
    "where's date rate share care compare are the empty receive we're you you're they're i i'm your our hour more money "
    "movie away day say play pay may way they today yesterday tomorrow morning evening bookmark customer order offer number "
    "filter color colour letter after other another brother mother rider voucher sugar faq".split()
)
TWI = set("no me so to he be we ne ba da a ma ho wo yi mu fi fa ka te bue di de fie gu hu hwe ase kan san fam den".split())
VOWELS = {"iː": "i", "ɪ": "i", "eɪ": "e", "ɛ": "e", "æ": "a", "ɑː": "a", "ɒ": "o", "ɔː": "o", "əʊ": "o", "ʊ": "u", "uː": "u",
          "ʌ": "o", "ɜː": "e", "ə": "a", "aɪ": "ai", "aʊ": "au", "ɔɪ": "oi", "iə": "ia", "eə": "ea", "ʊə": "ua", "ɐ": "a",
          "i": "i", "u": "u", "o": "o", "e": "e", "a": "a"}
CONSONANTS = {"tʃ": "ch", "dʒ": "j", "ʃ": "sh", "ʒ": "j", "θ": "t", "ð": "d", "ŋ": "ng", "ɹ": "r", "j": "y", "ɡ": "g", "ɫ": "l",
              "x": "k", "ɾ": "t"}


def is_english(word: str) -> bool:
    w = word.lower()
    if w in TWI or any(c in "ɛɔ" for c in w):
        return False
    return w in ENGLISH or bool(re.search(r"[cjlqvxz]", w)) or not re.search(r"[aeioumnw]$", w)


@lru_cache(maxsize=None)
def english_sounds(word: str) -> str:
    ipa = subprocess.run(["espeak-ng", "-v", "en-gb", "-q", "--ipa", word], capture_output=True, text=True, check=True).stdout
    ipa = re.sub(r"[ˈˌ\s_]", "", ipa)
    table = {**VOWELS, **CONSONANTS}
    out, i = [], 0
    while i < len(ipa):
        two, one = ipa[i : i + 2], ipa[i]
        if two in table:
            out.append(table[two])
            i += 2
        else:
            out.append(table.get(one, one if one.isascii() and one.isalpha() else ""))
            i += 1
    return "".join(out)


def phonetic(text: str, language: str) -> str:
    words = []
    for word in re.findall(r"[^\s,.?!]+", text):
        if is_english(word):
            words.append(english_sounds(word))
            continue
        w = word.lower().replace("ɛ", "e").replace("ɔ", "o")
        words.append(re.sub("|".join(DIGRAPHS), lambda m: DIGRAPHS[m[0]], w))
    said = " ".join(words)
    if language == "id":
        said = said.replace("ch", "c").replace("sh", "sy")
    if language == "it":
        said = re.sub(r"ch(?=[ei])", "c", said)
        said = re.sub(r"ch", "ci", said)
        said = re.sub(r"sh", "sci", said).replace("scii", "sci").replace("scie", "sce")
        said = said.replace("j", "gi").replace("gii", "gi").replace("gie", "ge").replace("k", "ch").replace("cha", "ca").replace("cho", "co").replace("chu", "cu").replace("y", "i").replace("w", "u")
    return said


def written(text: str, reading: str, language: str) -> str:
    text = unicodedata.normalize("NFC", text)
    if reading == "as written":
        return text
    if reading == "plain":
        return text.lower().replace("ɛ", "e").replace("ɔ", "o")
    return phonetic(text, language)


def say(text: str, voice: str) -> np.ndarray:
    """16 kHz mono f32 of `text` in one of VOICES."""
    name, reading, speed, pitch = VOICES[voice]
    said = written(text, reading, name.split("+")[0])
    wav = subprocess.run(
        ["espeak-ng", "-v", name, "-s", str(speed), "-p", str(pitch), "--stdout", said], capture_output=True, check=True
    ).stdout
    at = wav.index(b"data") + 8
    samples = np.frombuffer(wav[at : at + (len(wav) - at) // 2 * 2], dtype="<i2").astype(np.float32) / 32768
    # espeak-ng gives 22,050 Hz: 320 samples out for each 441 in, by linear interpolation after a short smoothing.
    smooth = np.convolve(samples, np.array([0.25, 0.5, 0.25], dtype=np.float32), mode="same")
    at_16k = np.arange(int(len(smooth) * 320 / 441)) * (441 / 320)
    return np.interp(at_16k, np.arange(len(smooth)), smooth).astype(np.float32)


def table(name: str) -> list[dict[str, str]]:
    with open(DATA / name, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
