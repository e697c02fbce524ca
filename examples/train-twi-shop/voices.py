"""The voices that speak the corpus: 118, each with its own language, timbre, rate, pitch and reading habits.

Every voice speaks Twi, with the phonemes of its own language. No two real speakers read alike, so a voice's habits
(does it aspirate, how does it say ky, hw and r, does it tell e from ɛ, does it say English words the Ghanaian way)
are drawn once, from a hash of its name, and stay the same in all its clips.
"""

import hashlib
import random
from dataclasses import dataclass
from fnmatch import fnmatchcase

# espeak-ng language: its variants. A variant (the timbre) is given to two languages at most, never twice to one.
ESPEAK = {
    "sw": "m3 f2 Andy linda john Michael quincy",
    "tn": "m1 f3 Denis belinda rob adam",
    "id": "f4 m7 Hugo steph robert",
    "it": "m5 f1 ed anika norbert",
    "es": "m2 f5 pedro Annie paul",
    "es-419": "m8 Mario Alicia sandro",
    "pt": "f2 m4 Diogo Henrique",
    "pt-br": "m6 f3 marcelo shelby",
    "om": "m1 f4 travis klatt2",
    "ms": "m3 f1 iven",
    "eo": "max Andrea boris",
    "ro": "m7 f5 victor antonio",
    "pl": "Mario aunty michel",
    "hr": "m2 steph2 edward",
    "fi": "kaukovalta Lee benjamin",
    "ht": "m5 klatt4 Jacky",
    "pap": "m6 pablo belinda",
    "mi": "john Marco linda",
    "qu": "m8 Storm Alicia",
    "eu": "paul miguel steph",
    "la": "caleb Annie Hugo",
    "sq": "robert david anika",
    "tr": "Denis Mike iven3",
    "ca": "rob sandro f4",
    "fr-fr": "gustave steph3 klatt3 m3",
    "de": "Alex f2 norbert",
    "en-gb": "m1 f5 edward2 quincy",
    "en-us": "m7 f1 zac shelby",
    "en-029": "m2 Andrea Michael",
}
# flite: its voice and pitch in Hz.
FLITE = {"slt": 175.0, "rms": 105.0, "awb": 125.0, "kal16": 105.0}
PICO = ["en-GB", "en-US", "de-DE", "es-ES", "fr-FR", "it-IT"]


@dataclass(frozen=True)
class Habits:
    """How a voice reads Twi and English; see speak.py, `read_as`."""

    aspirate: bool
    ky: str
    hy: str
    hw: str
    labial: str
    e_o: str
    r: str
    final_n: str
    stress: str
    english: str


@dataclass(frozen=True)
class Voice:
    name: str
    synthesizer: str  # espeak, flite or pico
    language: str
    variant: str
    rate: float  # words a minute
    pitch: float  # espeak: 0-99; flite: Hz; pico: per cent
    weight: int  # how often it is drawn, against the others
    habits: Habits


def _random(name: str) -> random.Random:
    return random.Random(int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big"))


def _habits(name: str) -> Habits:
    r = _random("habits of " + name)

    def one_of(**shares: int) -> str:
        return r.choices(list(shares), weights=list(shares.values()))[0]

    return Habits(
        aspirate=r.random() < 0.35,
        ky=one_of(tɕ=45, tʃ=45, kj=10),
        hy=one_of(ɕ=45, ʃ=35, ç=20),
        hw=one_of(hw=50, ɕw=30, ʃw=20),
        labial=one_of(w=70, ɥ=30),
        e_o=one_of(apart=60, closed=25, open=15),
        r=one_of(ɾ=62, r=22, l=8, ɹ=8),
        final_n=one_of(n=55, ŋ=40, dropped=5),
        stress=one_of(last_but_one=40, first=25, every=20, last=15),
        english=one_of(ghanaian=62, mixed=22, full=16),
    )


def _all() -> list[Voice]:
    voices = []
    for language, variants in ESPEAK.items():
        for variant in variants.split():
            name = f"espeak-{language}+{variant}"
            r = _random(name)
            voices.append(Voice(name, "espeak", language, variant, r.uniform(128, 168), r.uniform(36, 62), 1, _habits(name)))
    for variant, hertz in FLITE.items():
        name = f"flite-{variant}"
        voices.append(Voice(name, "flite", "en-us", variant, 145, hertz, 2, _habits(name)))
    for language in PICO:
        name = f"pico-{language}"
        voices.append(Voice(name, "pico", language.lower(), language, 150, 100, 2, _habits(name)))
    return voices


VOICES: dict[str, Voice] = {v.name: v for v in _all()}


def chosen(pattern: str) -> list[Voice]:
    """The voices whose name matches one of the comma-separated patterns (`espeak-sw*,flite-*`)."""
    wanted = [p.strip() for p in pattern.split(",") if p.strip()]
    return [v for v in VOICES.values() if any(fnmatchcase(v.name, p) for p in wanted)]
