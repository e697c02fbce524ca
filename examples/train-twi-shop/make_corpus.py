"""Makes a corpus of spoken Twi shop commands: audio/*.wav (16 kHz, mono, 16 bit), manifest.csv, and phrases.csv with more sentences of
the same wordings, to be read only.

Texts: core/data/phrases.tsv and wordings.tsv of this folder, their placeholders filled from core/data/slot_values.tsv and
numbers.tsv; about 45 % of the commands get a polite word, a hesitation or a particle. Speech that is no command comes from
out_of_scope.tsv of this folder and of core/data. Voices: voices.py. Sounds: speak.py.

The same arguments give the same list of clips, whatever --jobs says. A clip that exists is not spoken again, so an
interrupted run goes on where it stopped. After a change of speak.py, take a new folder: old clips stay as they were.
"""

import argparse
import csv
import hashlib
import json
import multiprocessing
import os
import random
import re
import sys
import time
import unicodedata
import wave
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import speak
import voices

HERE = Path(__file__).resolve().parent
DATA = HERE.parents[1] / "core" / "data"
COLUMNS = ["path", "text", "intent", "slots", "speaker", "wording", "kind", "language"]

PRODUCTS = {
    "phone": ["phone", "fon"], "laptop": ["laptop", "kɔmputa"], "shirt": ["shirt", "hyɛt"], "bag": ["bag", "baage", "kotokuo"], "rice": ["rice", "ɛmo"],
    "shoes": ["shoes", "mpaboa", "sneakers"], "oil": ["oil", "ngo", "anwa"], "soap": ["soap", "samena"], "watch": ["watch", "wɔɔkye"],
    "charger": ["charger"], "dress": ["dress", "ataadeɛ"], "sugar": ["sugar", "asikyire"], "milk": ["milk", "nufusuo"], "cloth": ["ntoma", "cloth"],
    "fan": ["fan"], "tv": ["television", "tiivii"], "bread": ["bread", "paanoo"], "trousers": ["trousers", "trɔsa"], "book": ["book", "nwoma"],
    "chair": ["chair", "akonnwa"], "cap": ["cap", "ɛkyɛ"], "earphones": ["earphones"], "fridge": ["fridge"], "cream": ["cream", "nku"], "tomatoes": ["tomatoes", "ntoos"],
}
BRANDS = ["Nike", "Adidas", "Samsung", "Tecno", "Infinix", "Apple", "Woodin", "GTP", "Nestle", "iPhone", "Puma", "Hisense", "Itel", "Nasco"]
BRAND_VALUES = {"iPhone": "Apple"}

POLITE = re.compile(r"kyɛw|kyew|mesrɛ|mesre|\bplease\b|\babeg\b|\bpls\b|\bkindly\b", re.I)
HESITATION = re.compile(r"^\W*(ɛɛ|hmm|mm|erm|um|so|ɛnneɛ|afei|chale|ok|okay|onua)\b", re.I)
PARTICLE_END = re.compile(r"\b(wae|anaa|ɛ|o|ma me|me|paa|ara|seesei|please|kyɛw)\W*$", re.I)
POLITE_FIRST = {
    "tw": ["Mepa wo kyɛw, ", "Mepa wo kyɛw ", "Mesrɛ wo, ", "Mesrɛ wo ", "Mepaakyɛw, ", "Please, ", "Please ", "Abeg, ", "Onua, mepa wo kyɛw, "],
    "en": ["Please ", "Please, ", "Abeg ", "Abeg, ", "Kindly ", "Mepa wo kyɛw, "],
}
POLITE_LAST = {"tw": [", mepa wo kyɛw", " mepa wo kyɛw", ", mesrɛ wo", " wae", " please", ", please", " abeg"], "en": [" please", ", please", " abeg", ", mepa wo kyɛw"]}
HESITATE = {"tw": ["Ɛɛ, ", "Hmm, ", "Erm, ", "Ɛɛ, mm, ", "Afei, ", "Ɛnneɛ, ", "So, ", "Chale, ", "Okay, "], "en": ["Erm, ", "Hmm, ", "So, ", "Okay, ", "Chale, ", "Ɛɛ, "]}


@dataclass(frozen=True)
class Wording:
    """One way of saying one thing; its fillings and spellings are the same wording."""

    id: str
    label: str
    kind: str
    language: str
    templates: tuple[tuple[str, str], ...]  # text with placeholders, fixed slots as JSON


@dataclass(frozen=True)
class Clip:
    path: str
    text: str
    label: str
    slots: str
    voice: str
    wording: str
    kind: str
    language: str
    rate: float
    pitch: float
    peak: float

    def row(self) -> list[str]:
        return [self.path, self.text, self.label, self.slots, self.voice, self.wording, self.kind, self.language]


def read_table(path: Path, columns: list[str] | None = None) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    head = columns or rows.pop(0)
    return [dict(zip(head, [unicodedata.normalize("NFC", c.strip()) for c in row] + [""] * len(head))) for row in rows if any(row)]


def folded(text: str) -> str:
    """What is left of a text when spelling, punctuation and politeness are put aside."""
    text = text.lower().replace("ɛ", "e").replace("ɔ", "o")
    text = re.sub(r"\b(mepa|me pa) wo kyew\b|\bmepaakyew\b|\bmesre wo\b|\bplease\b|\babeg\b|\bwae\b", " ", text)
    return re.sub(r"[^a-z{}_]+", " ", text).strip()


class Fillers:
    """The spoken forms of slot values."""

    def __init__(self) -> None:
        self.values: dict[str, list[tuple[object, str]]] = defaultdict(list)
        for row in read_table(DATA / "slot_values.tsv"):
            if row["slot"] != "delta" and row["spelling"] not in ("s", "m", "l", "xs", "xl"):
                self.values[row["slot"]].append((row["value"], row["spelling"]))
        self.twi_numbers: dict[int, list[str]] = defaultdict(list)
        self.english_numbers: dict[int, list[str]] = defaultdict(list)
        for row in read_table(DATA / "numbers.tsv"):
            n = int(row["number"])
            if 1 <= n <= 20 or (n % 10 == 0 and 0 < n <= 100):
                (self.english_numbers if speak.is_english(row["spelling"].split()[-1]) else self.twi_numbers)[n].append(row["spelling"])
        self.values["product"] = [(value, said) for value, forms in PRODUCTS.items() for said in forms]
        self.values["brand"] = [(BRAND_VALUES.get(b, b), b) for b in BRANDS]
        self.spellings = {
            slot: {str(v): sorted({s for w, s in pairs if w == v}, key=len, reverse=True) for v, _ in pairs} for slot, pairs in self.values.items()
        }
        self.spellings["quantity"] = {
            str(n): sorted(self.twi_numbers[n] + self.english_numbers[n], key=len, reverse=True) for n in [*self.twi_numbers]
        }

    def choose(self, slot: str, english: bool, rng: random.Random) -> tuple[object, str]:
        if slot == "quantity":
            # Few are bought more often than many.
            n = rng.choices([rng.randint(1, 5), rng.randint(6, 20), rng.choice([30, 40, 50, 60, 70, 80, 90, 100])], weights=[55, 33, 12])[0]
            forms = self.english_numbers if rng.random() < (0.9 if english else 0.25) else self.twi_numbers
            return n, rng.choice(forms[n])
        pairs = self.values[slot]
        if english and rng.random() < 0.85:
            pairs = [p for p in pairs if speak.language_of(p[1]) == "en"] or pairs
        value = rng.choice(sorted({str(v) for v, _ in pairs}))
        return rng.choice([p for p in pairs if str(p[0]) == value])

    def emptied(self, text: str, slots: dict) -> str:
        """The template that a finished text with these slots is a filling of."""
        for slot, value in slots.items():
            for spelling in self.spellings.get(slot, {}).get(str(value), []):
                text, n = re.subn(rf"(?<!\w){re.escape(spelling)}(?!\w)", "{" + slot + "}", text, count=1, flags=re.I)
                if n:
                    break
        return text


def command_wordings(fillers: Fillers) -> dict[str, list[Wording]]:
    rows = [(r["intent"], r["phrase"], r.get("slots", "")) for r in read_table(DATA / "phrases.tsv")]
    own = HERE / "wordings.tsv"
    if own.exists():
        rows += [(r["intent"], r["template"], r["slots"]) for r in read_table(own)]
    else:
        parts = sorted(HERE.glob("part-*.tsv"))
        note(f"wordings.tsv is not here: taking {', '.join(p.name for p in parts) or 'core/data/phrases.tsv alone'}")
        rows += [(r["intent"], r["template"], r["slots"]) for p in parts for r in read_table(p, ["intent", "template", "slots"])]
    known = {entry["intent"] for entry in intents()}
    templates: dict[str, dict[str, list[tuple[str, str]]]] = defaultdict(lambda: defaultdict(list))
    owner: dict[str, str] = {}
    for intent, text, slots in rows:
        if intent not in known:
            note(f"left out, no such intent: {intent}: {text}")
            continue
        unknown = [p for p in re.findall(r"{(\w+)}", text) if p != "quantity" and p not in fillers.values]
        if unknown:
            note(f"left out, nothing fills {{{unknown[0]}}}: {text}")
            continue
        try:
            key = folded(fillers.emptied(text, json.loads(slots or "{}")))
        except ValueError:
            note(f"left out, the slots are no JSON: {intent}: {text}: {slots}")
            continue
        if owner.setdefault(key, intent) != intent:
            note(f"left out, the same wording is {owner[key]} already: {intent}: {text}")
            continue
        templates[intent][key].append((text, slots))
    out = {}
    for intent, by_key in sorted(templates.items()):
        out[intent] = [
            Wording(f"{intent}/{i:03d}", intent, "command", speak.language_of(re.sub(r"{\w+}", "", t[0][0])), tuple(t))
            for i, t in enumerate(by_key.values(), 1)
        ]
    return out


def intents() -> list[dict]:
    data = json.loads((DATA / "intents.json").read_text(encoding="utf-8"))
    entries = data if isinstance(data, list) else data["intents"]
    return [e if "intent" in e else {"intent": e.get("label") or e.get("name")} for e in entries]


def other_wordings() -> list[Wording]:
    rows = [("talk", r["language"], r["text"]) for r in read_table(DATA / "out_of_scope.tsv")]
    if (HERE / "out_of_scope.tsv").exists():
        rows += [(r["kind"], r["language"], r["text"]) for r in read_table(HERE / "out_of_scope.tsv")]
    else:
        note("out_of_scope.tsv is not here: taking core/data/out_of_scope.tsv alone")
    out, seen, count = [], set(), Counter()
    for kind, language, text in rows:
        if language not in ("tw", "tw-en", "en") and kind in ("talk", "fragment"):
            kind = "other_language"
        key = folded(text) if language in ("tw", "tw-en", "en") else text.lower()
        if not text or key in seen:
            continue
        seen.add(key)
        count[kind] += 1
        out.append(Wording(f"none/{kind}/{count[kind]:04d}", "none", kind, language, ((text, ""),)))
    return out


def filled(template: str, slots: str, language: str, fillers: Fillers, rng: random.Random) -> tuple[str, dict]:
    found: dict = json.loads(slots) if slots else {}

    def fill(match: re.Match) -> str:
        value, said = fillers.choose(match[1], language == "en", rng)
        found[match[1]] = value
        return said

    text = re.sub(r"{(\w+)}", fill, template)
    return text[:1].upper() + text[1:], found


def with_extras(text: str, language: str, share: float, rng: random.Random) -> str:
    """Politeness, hesitation or a pause, as people put them in; never two polite words."""
    if rng.random() >= share:
        return text
    tongue = "en" if language == "en" else "tw"
    bare = text.rstrip(" .?!,")
    end = "?" if text.rstrip().endswith("?") else ""

    def lower(t: str) -> str:
        return t if t.startswith(("I ", "I'")) or t[:2].isupper() else t[:1].lower() + t[1:]

    kinds = ["hesitate", "pause", "particle"] if POLITE.search(text) else ["first", "first", "last", "last", "hesitate", "both", "pause", "particle"]
    kind = rng.choice(kinds)
    if kind in ("hesitate", "both") and HESITATION.search(text):
        kind = "pause" if POLITE.search(text) else "last"
    if kind == "particle" and (tongue == "en" or PARTICLE_END.search(bare) or end):
        kind = "pause" if POLITE.search(text) else "first"
    if kind == "first":
        return rng.choice(POLITE_FIRST[tongue]) + lower(bare) + end
    if kind == "last":
        suffixes = [s for s in POLITE_LAST[tongue] if not (s == " wae" and PARTICLE_END.search(bare))]
        return bare + rng.choice(suffixes) + end
    if kind == "both":
        return rng.choice(HESITATE[tongue]) + lower(bare) + rng.choice(POLITE_LAST[tongue][:2]) + end
    if kind == "hesitate":
        return rng.choice(HESITATE[tongue]) + lower(bare) + end
    if kind == "particle":
        return bare + rng.choice([" wae", " ɛ", " anaa", " o", " seesei"])
    words = bare.split(" ")
    if len(words) < 4:
        return rng.choice(HESITATE[tongue][:3]) + lower(bare) + end if not HESITATION.search(text) else text
    at = rng.randrange(1, len(words) - 1)
    filler = rng.choice([",", ",", ", ɛɛ," if tongue == "tw" else ", erm,", ", mm,"])
    words[at - 1] = words[at - 1].rstrip(",") + filler
    return " ".join(words) + end


def voices_for(language: str, everyone: list[voices.Voice]) -> list[voices.Voice]:
    """Who may say a line: Twi all; English mostly its own voices; another language its own voices, else who reads letters plainly."""
    if language in ("tw", "tw-en", "en"):
        return everyone
    if language == "pcm":
        return [v for v in everyone if speak.is_native(v, "en")] or everyone
    own = [v for v in everyone if speak.is_native(v, language)]
    plain = [v for v in everyone if v.language in ("sw", "tn", "id", "ms", "om")]
    return own or plain or everyone


def make_clip(wording: Wording, everyone: list[voices.Voice], fillers: Fillers, share: float, rng: random.Random, taken: set) -> Clip | None:
    for _ in range(40):
        text, slots = filled(*rng.choice(wording.templates), wording.language, fillers, rng)
        if wording.language in ("tw", "tw-en", "en"):
            text = with_extras(text, wording.language, share, rng)
        candidates = voices_for(wording.language, everyone)
        if wording.language == "en" and rng.random() < 0.5:
            candidates = [v for v in candidates if speak.is_native(v, "en")] or candidates
        voice = rng.choices(candidates, weights=[v.weight for v in candidates])[0]
        if (voice.name, text) in taken:
            continue
        taken.add((voice.name, text))
        rate = min(190.0, max(110.0, rng.gauss(voice.rate, 16)))
        pitch, peak = rng.uniform(0.82, 1.2), rng.uniform(0.35, 0.9)
        language = wording.language
        if wording.kind == "command" and slots:
            language = "en" if language == "en" else speak.language_of(text)
        name = hashlib.blake2b(f"{voice.name}\0{text}\0{wording.id}\0{rate:.4f}\0{pitch:.4f}".encode(), digest_size=8).hexdigest()
        said_slots = json.dumps(slots, ensure_ascii=False, sort_keys=True) if slots else ""
        return Clip(f"audio/{name}.wav", text, wording.label, said_slots, voice.name, wording.id, wording.kind, language, rate, pitch, peak)
    return None


def work_list(clips: int, out_of_scope: int, seed: int, everyone: list[voices.Voice]) -> list[Clip]:
    fillers = Fillers()
    commands = command_wordings(fillers)
    others = other_wordings()
    taken: set = set()
    out: list[Clip] = []
    labels = sorted(commands)
    for i, label in enumerate(labels):
        # A generator of its own for each intent: a new wording of one moves no other's clips.
        rng = random.Random(f"{seed} {label}")
        wanted = clips // len(labels) + (i < clips % len(labels))
        out += _rounds(commands[label], wanted, lambda w, r=rng: make_clip(w, everyone, fillers, 0.45, r, taken), rng)
    rng = random.Random(f"{seed} none")
    out += _rounds(others, out_of_scope, lambda w: make_clip(w, everyone, fillers, 0.25, rng, taken), rng)
    random.Random(f"{seed} order").shuffle(out)
    return out


def phrases(fillings: int, seed: int) -> list[list[str]]:
    """Sentences to read, not to be spoken: each wording in several fillings."""
    fillers, rng = Fillers(), random.Random(f"{seed} phrases")
    said: dict[str, list[str]] = {}
    for label, wordings in sorted(command_wordings(fillers).items()):
        for wording in wordings:
            for _ in range(fillings):
                text, _ = filled(*rng.choice(wording.templates), wording.language, fillers, rng)
                text = with_extras(text, wording.language, 0.45, rng)
                said.setdefault(text, [text, label, wording.id])
    for wording in other_wordings():
        for _ in range(max(1, fillings // 3)):
            text = wording.templates[0][0]
            if wording.language in ("tw", "tw-en", "en"):
                text = with_extras(text, wording.language, 0.4, rng)
            said.setdefault(text, [text, "none", wording.id])
    return list(said.values())


def _rounds(wordings: list[Wording], wanted: int, make, rng: random.Random) -> list[Clip]:
    """Round after round over all wordings in a new order, until there are enough clips."""
    out: list[Clip] = []
    while len(out) < wanted and wordings:
        order = rng.sample(wordings, len(wordings))
        made = [c for c in (make(w) for w in order[: wanted - len(out)]) if c]
        if not made:
            break
        out += made
    return out


def note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


_OUT = Path(".")


def _start(out: str) -> None:
    global _OUT
    _OUT = Path(out)


def _speak(clip: Clip) -> tuple[str, float, str]:
    """Path, seconds and trouble."""
    path = _OUT / clip.path
    if path.exists() and path.stat().st_size > 44:
        return clip.path, (path.stat().st_size - 44) / 2 / speak.RATE_HZ, ""
    try:
        samples = speak.say(clip.text, clip.language, voices.VOICES[clip.voice], clip.rate, clip.pitch)
    except speak.SynthesizerMissing:
        raise
    except Exception as error:  # one clip in thousands may fail; it is named and left out
        return clip.path, 0.0, f"{type(error).__name__}: {error}"
    if len(samples) < 0.15 * speak.RATE_HZ:
        return clip.path, 0.0, "nothing was spoken"
    whole = np.clip(np.rint(samples * (clip.peak / np.abs(samples).max()) * 32767), -32768, 32767).astype("<i2")
    part = path.with_suffix(f".{os.getpid()}.part")
    with wave.open(str(part), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(speak.RATE_HZ)
        file.writeframes(whole.tobytes())
    part.rename(path)
    return clip.path, len(whole) / speak.RATE_HZ, ""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="""Examples
  python make_corpus.py --out corpus                                     the whole corpus: 28,000 clips, about 18 hours
  python make_corpus.py --out small --clips 980 --out-of-scope 200       20 clips an intent, a few minutes
  python make_corpus.py --out own --voices 'espeak-sw*,flite-*'          some voices only (--list-voices names them)
  okyeame-train reads DIR/manifest.csv; hold out speakers there by name, for example 'flite-awb' or 'pico-*'.""",
    )
    parser.add_argument("--out", required="--list-voices" not in sys.argv, metavar="DIR", help="folder to write audio/ and manifest.csv into")
    parser.add_argument("--clips", type=int, default=24_000, help="spoken commands, shared evenly by the intents (default %(default)s)")
    parser.add_argument("--out-of-scope", type=int, default=4_000, help="clips that are no command (default %(default)s)")
    parser.add_argument("--fillings", type=int, default=15, help="sentences of each wording in phrases.csv, which nobody speaks (default %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="another seed, another corpus (default %(default)s)")
    parser.add_argument("--jobs", type=int, default=1, help="processes that speak (default %(default)s); the result is the same")
    parser.add_argument("--voices", default="*", metavar="PATTERN", help="names with *, comma-separated (default: all)")
    parser.add_argument("--list-voices", action="store_true", help="print the voices and stop")
    args = parser.parse_args()
    if args.list_voices:
        for v in voices.chosen(args.voices):
            print(f"{v.name}\t{v.language}\t{v.rate:.0f} wpm\t{v.habits}")
        return 0
    if args.clips < 0 or args.out_of_scope < 0 or args.jobs < 1:
        parser.error("--clips and --out-of-scope may not be negative, --jobs is at least 1.")
    lacking = speak.missing()
    if "espeak" in lacking:
        note(lacking["espeak"])
        return 1
    everyone = voices.chosen(args.voices)
    if not everyone:
        parser.error(f"no voice is called {args.voices}; --list-voices names them.")
    for synthesizer, sentence in lacking.items():
        if any(v.synthesizer == synthesizer for v in everyone):
            note(f"Warning: its voices are left out: {sentence}")
    everyone = [v for v in everyone if v.synthesizer not in lacking]
    if not everyone:
        note("No voice is left to speak.")
        return 1
    started = time.monotonic()
    out = Path(args.out)
    (out / "audio").mkdir(parents=True, exist_ok=True)
    work = work_list(args.clips, args.out_of_scope, args.seed, everyone)
    note(f"{len(work)} clips to speak, {len(everyone)} voices")
    with open(out / "phrases.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["text", "intent", "wording"], *phrases(args.fillings, args.seed)])
    seconds: dict[str, float] = {}
    trouble: list[str] = []
    by_path = {c.path: c for c in work}
    try:
        # Pico keeps some memory of each clip: a process is replaced after 60 chunks.
        with multiprocessing.Pool(args.jobs, _start, (str(out),), maxtasksperchild=60) as pool:
            for n, (path, length, what) in enumerate(pool.imap_unordered(_speak, work, chunksize=16), 1):
                if what:
                    trouble.append(f"{by_path[path].voice}: {by_path[path].text}: {what}")
                else:
                    seconds[path] = length
                if n % 500 == 0 or n == len(work):
                    spent = time.monotonic() - started
                    note(f"{n}/{len(work)} clips, {sum(seconds.values()) / 3600:.2f} h of speech, {spent:.0f} s")
    except speak.SynthesizerMissing as error:
        note(str(error))
        return 1
    for sentence in trouble[:20]:
        note(f"left out: {sentence}")
    said = [c for c in work if c.path in seconds]
    part = out / "manifest.csv.part"
    with open(part, "w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(COLUMNS)
        table.writerows(c.row() for c in said)
    part.rename(out / "manifest.csv")
    for title, what in [("intent", "label"), ("kind", "kind"), ("language", "language"), ("voice", "voice")]:
        print(f"\nby {title}")
        for name, n in sorted(Counter(getattr(c, what) for c in said).items()):
            print(f"  {name}\t{n}")
    print(f"\n{len(said)} clips, {len({c.wording for c in said})} wordings, {sum(seconds.values()):.0f} s of speech, {len(trouble)} left out")
    return 0 if said or not work else 1


if __name__ == "__main__":
    sys.exit(main())
