"""Speaks a Twi, Twi-English or English sentence in one of the voices of voices.py, as 16 kHz mono samples.

No free synthesizer has a Twi voice. So the words become sounds here, and each synthesizer is given sounds, not letters:
Twi words by ghana-g2p's rules (Apache-2.0), English words by espeak-ng's British dictionary, as written in IPA, and folded
to the vowels of Twi where the voice says English the Ghanaian way. The sounds go to espeak-ng as its own phoneme names, to
flite as US English phones and to SVOX Pico as X-SAMPA.

Not for: anything that needs tone. Twi is a tone language, and none of these voices says its tones; read speech is closer
to a foreigner's Twi than to a speaker's.
"""

import io
import re
import shutil
import subprocess
import tempfile
import unicodedata
import wave
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path

import numpy as np

from voices import Habits, Voice

RATE_HZ = 16_000

# English words that could be Twi by their letters: Twi words end in a vowel, m, n or w and have no c, j, l, q, v, x, z.
ENGLISH = set(
    """one home page more size are the they there where three five nine phone receipt code sale save service price share like take
    make place remove change choose live store delete enable disable exchange item in on can from common main many my by go show now
    new how low review reviews continue update question expensive large white blue yellow notify description notification person
    button ten seven woman open turn return want come some home name same time she something shopping sending section rain queen room
    tomorrow today here sure before please people nice mine line online gone date rate care compare empty receive we're you you're
    they're i i'm i'd our hour money movie away day say play pay may way yesterday morning evening bookmark customer order offer number
    filter color colour letter after other another brother mother rider voucher sugar faq complete give have this that these those
    phone iphone due done buy try any body anybody why who whose use used user free fee fees refund discount wishlist address cart
    checkout coupon delivery track profile account settings setting theme mode dark card momo visa bank wallet pin payment option
    options product products shop shops shirt shirts bag bags shoe shoes rice oil soap watch charger laptop dress dresses sandals
    sneakers two four six eight eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen twenty thirty forty fifty
    sixty seventy eighty ninety hundred zero abeg dem wetin una comot dey am okay ok sorry thank thanks hello hi bye chale big small
    medium extra cheap green red black brown pink orange grey gray gold silver purple navy ash light deep sky chat agent human person
    someone somebody status history page screen message app phone's today's sale's nike adidas samsung tecno infinix apple nestle gtp
    rating ratings star stars newest latest popular trending recent highest lowest expensive premium budget affordable brand
    groceries grocery furniture electronics gadgets gifts provisions food fashion clothes clothing wears category categories
    alarm media team between into onto down own town know follow window tomorrow minute issue none done gone none same came game
    home some come become welcome income outcome problem them him then when than again certain obtain main complain explain
    train rain plan scan man men women human season reason person lesson common button cotton iron soon noon
    version information location option promotion collection section selection transaction action station
    be he do did does doing going being having taking making getting
    see three fee coffee free tree agree type write wrote share store restore before more sure secure picture feature
    future nature wire hire fire tire entire where there here somewhere anywhere everywhere nowhere were
    been too made house maybe ago inside outside design upon stage radio dream nation freedom horse afternoon moon info
    phrase menu state few system mean seen side area hope within often true known idea saw taken age form fun fine term
    wife site knew happen sense range trade attention hate born situation website written foreign seem sign union began
    die figure modern safe huge sea europe george wide pressure response eye addition episode photo gun degree image
    opinion engine prison prime garden rare software farm guide raise surprise edge bridge wine mention mountain taste tea
    warm minimum maximum hero drama mistake smoke storm strike studio youtube measure urban phase pure strange temperature
    stadium kingdom desire spoke motion attitude frame programme storage suppose noise bathroom bedroom hide manage bike
    burn hidden raw somehow unknown steam theatre nose wise graduate operate permission tradition pride audio bone gate
    reputation argue passion shadow tape gym knife remote nurse sudden mortgage forum genuine routine tongue begin bottom
    bought brown taught wrong homepage arrange rearrange promo inbox dozen bundle bundles data network internet wifi tv
    laptop's teacher exam exams traffic car cars bus taxi trotro football goal match team game whatsapp facebook instagram
    tiktok video videos ease fame uniform database define boom goodbye estimate spare margin moderate tune garage
    upgrade suggestion usage departure generate imagination pension tension wore dawn poem rude signature breathe mouse
    piano praise presentation ruin agenda fortune invite vote pastor doctor hospital school university lecture lectures
    boss office meeting meetings weekend church government president minister election elections power light lights water
    battery charge charging download upload install login signup password note notes roommate tyre tyres draw offside hotspot receipt delay email phone-number number's which while mine
    yours ours theirs else
    he's she's it's don't can't won't didn't doesn't isn't i've i'll that's what's where's there's let's""".split()
)
# Words of both languages: English only between English words.
EITHER = set("no me so to he be we ne ba da a ma ho wo yi mu fi fa ka te bue di de fie gu hu hwe ase kan san fam den am an anaa in on bra do bo ten".split())
# Those of them that an English sentence has.
EVEN = set("me so to be he we a an am in on do ten".split())
# Said letter by letter.
SPELLED = set("faq faqs mtn atm gtp tv id sms pin usb pc hp lg xl xs gps gh ecg stc pta".split()) - {"pin"}
# Words that neither ghana-g2p nor an English dictionary says right.
LOANS = {
    "abeg": "abɛg", "chale": "tʃale", "charley": "tʃale", "charlewote": "tʃalewɔte", "kyalewote": "tʃalewɔte", "trotro": "trɔtrɔ", "momo": "momo",
    "kaad": "kaad", "kaade": "kaade", "penk": "pɛnk", "wey": "we", "dey": "de", "comot": "kɔmɔt", "una": "una", "dem": "dɛm", "wetin": "wɛtin",
    "tecno": "tɛkno", "kejetia": "kɛdʒɛtia", "telecel": "tɛlɛsɛl", "sef": "sɛf", "pls": "pliz", "ghana": "gana", "accra": "akra", "kumasi": "kumasi",
    "cedi": "sidi", "cedis": "sidis", "makola": "makɔla", "jollof": "dʒɔlɔf", "waakye": "watʃe", "kenkey": "kɛnke", "galamsey": "galamse", "mensah": "mɛnsa", "ansah": "ansa", "appiah": "apia", "boateng": "boatɛŋ", "duah": "dua", "sarpong": "sapɔŋ",
    "tamale": "tamale", "legon": "lɛgɔn", "wahala": "wahala", "ejura": "edʒura", "techiman": "tetɕiman", "wenchi": "wɛntɕi",
}
# An English verb with a Twi subject and tense before it: metrack, mɛcheckout, moadeliver.
PREFIXES = "merebɛ mere mobɛ wobɛ yɛbɛ wɔbɛ wɔre ɔbɛ ɔre ɛbɛ moa woa wɔa yɛa ɔa me ma mɛ mo wo yɛ wɔ bɛ kɔ re ɔ ɛ a n".split()
# English as they stand.
NO_SPLIT = {("a", "like"), ("a", "wait"), ("a", "park"), ("re", "place"), ("re", "move"), ("re", "open"), ("re", "order"), ("re", "use")}
VERBS = set(
    """accept activate add apply approve arrange ask block book bookmark break call cancel change charge chat check checkout clear click close
    compare complete confirm continue copy cut delete deliver delivery disable download edit enable enter exchange expire filter follow forget hack
    join like load locate log mute notify open order pack park pass pause pay pick place post print proceed process puncture purchase receive
    redeem refund register relearn relegate relocate remind remove repeat replace reply report request reset return review save scroll search
    select send share ship show size skip sort start stop submit subscribe suspend swap switch track transfer trust try undo unsubscribe update
    upgrade use verify view wait withdraw zoom preach""".split()
)
HESITATIONS = {"erm": "ɜːm", "hmm": "mm", "mm": "mm", "ɛɛ": "ɛɛ", "um": "əm"}

# British English IPA to the sounds of this file. First as a Ghanaian says it among Twi words, then in full.
GHANAIAN = {
    "iː": "i", "ɪ": "i", "eɪ": "e", "ɛ": "ɛ", "æ": "a", "ɑː": "a", "ɒ": "ɔ", "ɔː": "ɔ", "əʊ": "o", "oʊ": "o", "ʊ": "u", "uː": "u",
    "ʌ": "ɔ", "ɜː": "ɛ", "ə": "a", "aɪ": "ai", "aʊ": "au", "ɔɪ": "ɔi", "iə": "ia", "eə": "ɛa", "ʊə": "ɔ", "ɐ": "a", "i": "i", "u": "u",
    "o": "o", "e": "e", "a": "a", "aɪə": "aia", "aʊə": "aua", "əl": "ul",
    "tʃ": "tʃ", "dʒ": "dʒ", "θ": "t", "ð": "d", "ŋ": "ŋ", "ɹ": "r", "ɡ": "g", "ɫ": "l", "x": "k", "ɾ": "t", "ʒ": "ʃ", "v": "v", "n̩": "in", "l̩": "ul", "m̩": "um",
}
FULL = GHANAIAN | {
    "ɪ": "ɪ", "æ": "æ", "ɒ": "ɔ", "əʊ": "ou", "oʊ": "ou", "eɪ": "ei", "ʊ": "ʊ", "ʌ": "ʌ", "ɜː": "ɜ", "ə": "ə", "ɐ": "ə", "iə": "iə", "eə": "ɛə",
    "ʊə": "ʊə", "aɪə": "aiə", "aʊə": "auə", "əl": "əl", "θ": "θ", "ð": "ð", "ɹ": "ɹ", "ʒ": "ʒ", "n̩": "ən", "l̩": "əl", "m̩": "əm",
}
VOWELS = set("aeiouɛɔɪʊəæʌɜ")
SOUND = re.compile(r"tɕ|dʑ|tʃ|dʒ|[a-zɛɔɪʊəæʌɜŋɲçɕʃʒθðɾɹɥʰ]")


class SynthesizerMissing(RuntimeError):
    """A synthesizer which the work needs is not installed."""


def is_english(word: str) -> bool:
    """By its letters alone, out of context."""
    w = word.lower()
    if w in LOANS or w in SPELLED:
        return True
    if any(c in "ɛɔ" for c in w):
        return prefixed(w) is not None
    if w in ENGLISH or re.search(r"[a-z]{2}[st]ions?$", w):
        return True
    if w not in EITHER and prefixed(w):
        return True
    return bool(re.search(r"[cjlqvxz]", w)) or not re.search(r"[aeioumnw]$", w)


def prefixed(word: str) -> tuple[str, str] | None:
    """Twi prefix and English stem of a word like metrack."""
    if word in ENGLISH or word in LOANS or word in VERBS:
        return None
    for prefix in PREFIXES:
        stem = word.removeprefix(prefix)
        if stem != word and re.sub(r"(?:ii|ee)$", "", stem) in VERBS and (prefix, stem) not in NO_SPLIT:
            return prefix, stem
    return None


def words_of(text: str, language: str = "tw-en") -> list[tuple[str, bool]]:
    """The words and pauses (`,`) of a text, and whether each word is English."""
    tokens = re.findall(r"[^\s,.?!;:…\-–\"()]+|[,.?!;:…]", unicodedata.normalize("NFC", text))
    tokens = ["," if re.fullmatch(r"[,.?!;:…]", t) else t.replace("’", "'") for t in tokens]
    if language == "en":
        return [(t, t != ",") for t in tokens]
    sure = [t != "," and is_english(t) and t.lower() not in EITHER for t in tokens]
    out = []
    for i, token in enumerate(tokens):
        english = sure[i]
        if token.lower() in EITHER and token.lower() in ENGLISH | {"no", "me", "so", "to", "a", "an", "we", "be", "he"}:
            english = 0 < i < len(tokens) - 1 and sure[i - 1] and sure[i + 1]
        out.append((token, english))
    return out


def language_of(text: str) -> str:
    """`tw`, `tw-en` or `en`, by the words."""
    words = [w for w, _ in words_of(text) if w != ","]
    english = [w for w in words if is_english(w)]
    twi = [w for w in words if not is_english(w) and w.lower() not in EITHER | set(HESITATIONS)]
    if not english:
        return "tw"
    # Of the words of both languages some are rare in an English command, and `so` and `me` show by their place.
    loose = [w.lower() for w in words]
    placed = loose[-1] == "so" or any(a in ("me", "ma") and b not in ("to", "the", "a", "my", "all", "that", "this", "how", "am") and a != "me" for a, b in zip(loose, loose[1:]))
    if twi or placed or any(w in EITHER - EVEN for w in loose) or (loose[0] == "me" and len(loose) > 1):
        return "tw-en"
    return "en"


@lru_cache(maxsize=None)
def _g2p():
    try:
        from ghana_g2p import g2p
    except ImportError as error:
        raise SynthesizerMissing("The Python package ghana-g2p is not installed: pip install -r requirements.txt") from error
    return g2p


@lru_cache(maxsize=None)
def twi_ipa(word: str) -> str:
    ipa = _g2p()(word.lower(), "twi").replace("\u0361", "").replace("ʔ", "")
    return ipa.replace("ɡ", "g").replace("ʷ", "w")


@lru_cache(maxsize=None)
def english_ipa(word: str) -> str:
    said = word.lower()
    if said in SPELLED:
        said = " ".join("ay" if c == "a" else c.upper() for c in said)
    ipa = _espeak_text(["-q", "--ipa", "-v", "en-gb", said])
    return re.sub(r"[ˈˌ\s_‍]", "", ipa)


def _espeak_text(arguments: list[str]) -> str:
    return subprocess.run(["espeak-ng", *arguments], capture_output=True, text=True, check=True).stdout


def _by_table(ipa: str, table: dict[str, str]) -> str:
    out, i = [], 0
    while i < len(ipa):
        for n in (3, 2, 1):
            if ipa[i : i + n] in table:
                out.append(table[ipa[i : i + n]])
                i += n
                break
        else:
            out.append(ipa[i] if SOUND.fullmatch(ipa[i]) else "")
            i += 1
    return "".join(out)


def _hash(*parts: str) -> int:
    return int.from_bytes(blake2b("\0".join(parts).encode(), digest_size=4).digest(), "big")


def read_as(word: str, english: bool, habits: Habits, speaker: str) -> list[str]:
    """The sounds of one word as this speaker says it, in the inventory of SOUND."""
    if word.lower() in HESITATIONS:
        ipa = _by_table(HESITATIONS[word.lower()], FULL)
    elif word.lower() in LOANS:
        ipa = LOANS[word.lower()]
    elif english and (parts := prefixed(word.lower())):
        return read_as(parts[0], False, habits, speaker) + read_as(parts[1], True, habits, speaker)
    elif english and len(word) > 5 and word.lower().endswith(("ii", "ee")) and (word[:-2].lower() in VERBS):
        # An English verb with the Twi past: cancelii, deliverii.
        return read_as(word[:-2], True, habits, speaker) + ["i", "i"]
    elif english:
        full = habits.english == "full" or (habits.english == "mixed" and _hash(speaker, word.lower()) % 2)
        return SOUND.findall(_by_table(english_ipa(word), FULL if full else GHANAIAN))
    else:
        ipa = twi_ipa(word)
        if habits.hw != "hw":
            ipa = re.sub(r"hw(?=[eɛiɪ])", habits.hw, ipa)
        ipa = ipa.replace("ç", habits.hy)
        if not habits.aspirate:
            ipa = ipa.replace("ʰ", "")
        ipa = re.sub(r"tɕ(?!w)", habits.ky, ipa).replace("tɕw", ("tɕ" if habits.ky == "kj" else habits.ky) + "w")
        if habits.ky == "tʃ":
            ipa = ipa.replace("dʑ", "dʒ")
        if habits.labial == "ɥ":
            ipa = re.sub(r"(?<=[ɕʃʑʒ])w", "ɥ", ipa)
        ipa = ipa.replace("ɪ", "i").replace("ʊ", "u")
        if habits.e_o == "closed":
            ipa = ipa.replace("ɛ", "e").replace("ɔ", "o")
        elif habits.e_o == "open":
            ipa = re.sub(r"e(?!i)", "ɛ", ipa).replace("o", "ɔ")
        if len(ipa) > 1 and re.search(r"[aeiouɛɔ]n$", ipa):
            ipa = ipa[:-1] + {"n": "n", "ŋ": "ŋ", "dropped": ""}[habits.final_n]
    if habits.r != "r":
        ipa = re.sub(r"[rɾ]", habits.r, ipa)
    return SOUND.findall(ipa)


def sounds_of(text: str, language: str, voice: Voice) -> list[list[str]]:
    """Word by word; an empty word is a pause."""
    return [[] if w == "," else read_as(w, english, voice.habits, voice.name) for w, english in words_of(text, language)]


# ---- espeak-ng -------------------------------------------------------------------------------------------------------------------

# Sounds to espeak-ng's phoneme names; the first of each list that the language's table knows is taken (asked by --ipa).
MNEMONICS = {
    "a": "a", "e": "e E", "i": "i", "o": "o O", "u": "u", "ɛ": "E e", "ɔ": "O o", "ɪ": "I i", "ʊ": "U u", "ə": "@ a", "æ": "& a",
    "ʌ": "V a", "ɜ": "@ E e",
    "p": "p", "t": "t", "k": "k", "b": "b", "d": "d", "g": "g", "m": "m", "n": "n", "ŋ": "N", "ɲ": "n^", "f": "f", "s": "s", "h": "h", "v": "v",
    "z": "z", "w": "w", "j": "j", "l": "l", "ɾ": "* r", "r": "R r *", "ɹ": "r- *", "tɕ": "tS; tS", "dʑ": "dZ; dZ", "ɕ": "S; S", "tʃ": "tS",
    "dʒ": "dZ", "ʃ": "S", "ʒ": "Z S", "ç": "C S;", "θ": "T t", "ð": "D d", "ɥ": "w", "ʰ": "h", "c": "k", "q": "k", "x": "x k", "y": "j",
}
# Where a table's own name means another sound.
OTHERWISE = {"en-us": {"a": "A:", "æ": "a"}}


@lru_cache(maxsize=None)
def mnemonics(language: str) -> dict[str, str]:
    known: dict[str, str] = {}
    for sound, candidates in MNEMONICS.items():
        for name in candidates.split():
            shown = _espeak_text(["-q", "--ipa", "-v", language, f"[[{name}]]"]).strip()
            if shown and "[" not in shown:
                known[sound] = name
                break
        else:
            known[sound] = candidates.split()[-1]
    return known | OTHERWISE.get(language, {})


def espeak_phonemes(words: list[list[str]], voice: Voice) -> str:
    table = mnemonics(voice.language)
    out = []
    for sounds in words:
        if not sounds:
            out.append("_:")
            continue
        at = [i for i, s in enumerate(sounds) if s in VOWELS]
        kind = voice.habits.stress
        stressed = set(at if kind == "every" else at[:1] if kind == "first" else at[-1:] if kind == "last" else at[-2:][:1])
        # `|` keeps the letters of neighbouring names apart (t and S are two sounds, tS is one).
        out.append("|".join(("'" if i in stressed else "") + table[s] for i, s in enumerate(sounds)))
    return "[[" + " ".join(out) + "]]"


def _wav(data: bytes) -> tuple[np.ndarray, int]:
    """Samples and rate of a WAV whose header may not know its length (espeak-ng writes to a pipe)."""
    with wave.open(io.BytesIO(data)) as file:
        rate = file.getframerate()
    at = data.index(b"data") + 8
    data = data[at : at + (len(data) - at) // 2 * 2]
    return np.frombuffer(data, dtype="<i2").astype(np.float32) / 32768, rate


def _run(command: list[str]) -> bytes:
    try:
        return subprocess.run(command, capture_output=True, check=True).stdout
    except FileNotFoundError as error:
        raise SynthesizerMissing(f"{command[0]} is not installed.") from error


def _espeak(said: str, voice: Voice, rate: float, pitch: float) -> tuple[np.ndarray, int]:
    name = f"{voice.language}+{voice.variant}"
    points = min(99, max(5, round(voice.pitch + (pitch - 1) * 70)))
    return _wav(_run(["espeak-ng", "-v", name, "-s", str(round(rate)), "-p", str(points), "--stdout", said]))


# ---- flite -----------------------------------------------------------------------------------------------------------------------

ARPABET = {
    "a": "aa", "e": "ey", "i": "iy", "o": "ow", "u": "uw", "ɛ": "eh", "ɔ": "ao", "ɪ": "ih", "ʊ": "uh", "ə": "ax", "æ": "ae", "ʌ": "ah", "ɜ": "er",
    "p": "p", "t": "t", "k": "k", "b": "b", "d": "d", "g": "g", "m": "m", "n": "n", "ŋ": "ng", "ɲ": "n y", "f": "f", "s": "s", "h": "hh", "v": "v",
    "z": "z", "w": "w", "j": "y", "l": "l", "ɾ": "d", "r": "r", "ɹ": "r", "tɕ": "ch", "dʑ": "jh", "ɕ": "sh", "tʃ": "ch", "dʒ": "jh", "ʃ": "sh",
    "ʒ": "zh", "ç": "hh y", "θ": "th", "ð": "dh", "ɥ": "w", "ʰ": "", "c": "k", "q": "k", "x": "k", "y": "y",
}
ARPABET["ɾ"] = "r"


def flite_phones(words: list[list[str]]) -> str:
    out = ["pau"]
    for sounds in words:
        if not sounds:
            out.append("pau")
        previous = ""
        for sound in sounds:
            phones = ARPABET[sound]
            if phones and not (phones == previous == "m"):
                out.append(phones)
            previous = phones
    if out[-1] != "pau":
        out.append("pau")
    return " ".join(out)


def _flite(arguments: list[str], voice: Voice, rate: float, pitch: float) -> tuple[np.ndarray, int]:
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        _run(
            ["flite", "-voice", voice.variant, "--setf", f"duration_stretch={voice.rate / rate:.3f}", "--setf",
             f"int_f0_target_mean={voice.pitch * pitch:.1f}", *arguments, "-o", file.name]
        )
        return _wav(Path(file.name).read_bytes())


# ---- SVOX Pico -------------------------------------------------------------------------------------------------------------------

XSAMPA = {
    "ɛ": "E", "ɔ": "O", "ɪ": "I", "ʊ": "U", "ə": "@", "æ": "{", "ʌ": "V", "ɜ": "3:", "ŋ": "N", "ɲ": "J", "ɾ": "r", "ɹ": "r\\", "tɕ": "tS", "dʑ": "dZ",
    "ɕ": "S", "ʃ": "S", "ʒ": "Z", "tʃ": "tS", "dʒ": "dZ", "ç": "C", "θ": "T", "ð": "D", "ɥ": "w", "ʰ": "", "c": "k", "q": "k", "y": "j",
}
# Sounds that a Pico language lacks (it would skip them: found by speaking each), and the nearest that it has.
PICO_LACKS: dict[str, dict[str, str]] = {
    "en-GB": {"a": "V", "e": "eI", "i": "i:", "o": "O:", "u": "u:", "O": "Q", "r": "r\\\\", "r\\": "r\\\\", "J": "nj", "C": "S", "x": "k"},
    "en-US": {"a": "A:", "e": "eI", "i": "i:", "o": "oU", "u": "u:", "O": "O:", "r": "r\\\\", "r\\": "r\\\\", "J": "nj", "C": "S", "x": "k"},
    "de-DE": {"{": "E", "V": "a", "3:": "E", "w": "u_^", "r": "R", "r\\": "R", "J": "nj", "T": "t", "D": "d"},
    "es-ES": {"E": "e", "O": "o", "I": "i", "U": "u", "@": "a", "{": "a", "V": "a", "3:": "e", "S": "sj", "Z": "dZ", "h": "x", "v": "b", "z": "s",
              "w": "u_^", "r\\": "r", "C": "xj"},
    "fr-FR": {"I": "i", "U": "u", "{": "a", "V": "O", "3:": "9", "h": "R", "r": "l", "r\\": "l", "C": "S", "T": "t", "D": "d", "x": "k"},
    "it-IT": {"O": "o", "I": "i", "U": "u", "@": "a", "{": "a", "V": "a", "3:": "E", "Z": "dZ", "h": "", "w": "u_^", "j": "i_^", "r\\": "r",
              "C": "S", "T": "t", "D": "d", "x": "k"},
}


def pico_phonemes(words: list[list[str]], language: str) -> str:
    lacks = PICO_LACKS.get(language, {})
    out = []
    for sounds in words:
        if sounds:
            names = [XSAMPA.get(s, s) for s in sounds]
            out.append("".join(lacks.get(n, n) for n in names))
        elif out:
            out[-1] += " _"
    return " ".join(out)


def _pico(said: str, voice: Voice, rate: float, pitch: float) -> tuple[np.ndarray, int]:
    own = {"en-GB": 175, "en-US": 185}.get(voice.variant, 165)  # words a minute at speed 100, about
    marked = f'<pitch level="{round(100 * pitch)}"><speed level="{round(100 * rate / own)}">{said}</speed></pitch>'
    from ttspico import TtsEngine

    # A new engine for each clip: one that has spoken before gives other samples.
    data = TtsEngine(voice.variant).speak(marked)
    return np.frombuffer(data[: len(data) // 2 * 2], dtype="<i2").astype(np.float32) / 32768, RATE_HZ


# ---- all together ----------------------------------------------------------------------------------------------------------------


def missing() -> dict[str, str]:
    """The synthesizers that are not installed, and what to do about it."""
    out = {}
    if not shutil.which("espeak-ng"):
        out["espeak"] = "espeak-ng is not installed: apt install espeak-ng (or brew install espeak-ng)."
    if not shutil.which("flite"):
        out["flite"] = "flite is not installed: apt install flite (or brew install flite)."
    try:
        import ttspico  # noqa: F401
    except ImportError:
        out["pico"] = "the Python package ttspico is not installed: pip install ttspico."
    return out


def resample(samples: np.ndarray, rate: int) -> np.ndarray:
    """To 16 kHz, by cutting or padding the spectrum."""
    if rate == RATE_HZ or len(samples) == 0:
        return samples
    padded = np.concatenate([samples, np.zeros(-len(samples) % (rate // 50), dtype=np.float32)])
    n = len(padded) * RATE_HZ // rate
    spectrum = np.fft.rfft(padded)
    keep = np.zeros(n // 2 + 1, dtype=spectrum.dtype)
    m = min(len(keep), len(spectrum))
    keep[:m] = spectrum[:m]
    return (np.fft.irfft(keep, n) * (n / len(padded))).astype(np.float32)


def trim(samples: np.ndarray, margin_s: float = 0.06) -> np.ndarray:
    """Without the digital silence that synthesizers put at both ends, but for a margin."""
    loud = np.flatnonzero(np.abs(samples) > 0.003)
    if len(loud) == 0:
        return samples[:0]
    margin = int(margin_s * RATE_HZ)
    return samples[max(0, loud[0] - margin) : loud[-1] + margin]


NATIVE = {"en": ("en-gb", "en-us", "en-029"), "fr": ("fr-fr",), "es": ("es", "es-419", "es-es"), "pt": ("pt", "pt-br"), "de": ("de", "de-de"),
          "it": ("it", "it-it"), "sw": ("sw",), "tn": ("tn",), "om": ("om",), "ms": ("ms",), "id": ("id",), "pl": ("pl",), "ro": ("ro",), "tr": ("tr",)}


def is_native(voice: Voice, language: str) -> bool:
    own = NATIVE.get(language, ())
    return voice.language in own or (voice.synthesizer == "pico" and any(voice.language.startswith(o) for o in own))


def letters(text: str, language: str) -> str:
    """Letters that no foreign voice knows, replaced by those that it does."""
    text = unicodedata.normalize("NFD", text.lower())
    text = "".join(c for c in text if not unicodedata.combining(c))
    for a, b in {"ɛ": "e", "ɔ": "o", "ŋ": "ng", "ɖ": "d", "ƒ": "f", "ɣ": "g", "ʋ": "v", "ɓ": "b", "ɗ": "d", "ƙ": "k", "ǝ": "e"}.items():
        text = text.replace(a, b)
    return text


def say(text: str, language: str, voice: Voice, rate: float, pitch: float) -> np.ndarray:
    """16 kHz mono f32 samples, peak at most 1. `rate` in words a minute, `pitch` as a factor of the voice's own."""
    if language in ("tw", "tw-en", "en") and not (language == "en" and is_native(voice, "en") and voice.habits.english != "ghanaian"):
        words = sounds_of(text, language, voice)
        if voice.synthesizer == "espeak":
            samples, hertz = _espeak(espeak_phonemes(words, voice), voice, rate, pitch)
        elif voice.synthesizer == "flite":
            samples, hertz = _flite(["-p", flite_phones(words)], voice, rate, pitch)
        else:
            said = f'<phoneme alphabet="xsampa" ph="{pico_phonemes(words, voice.variant)}"/>'.replace("&", "&amp;")
            samples, hertz = _pico(said, voice, rate, pitch)
    else:
        plain = text if is_native(voice, language) else letters(text, language)
        if voice.synthesizer == "espeak":
            samples, hertz = _espeak(plain, voice, rate, pitch)
        elif voice.synthesizer == "flite":
            samples, hertz = _flite(["-t", plain], voice, rate, pitch)
        else:
            samples, hertz = _pico(plain.replace("&", "and").replace("<", ""), voice, rate, pitch)
    return trim(resample(samples, hertz))
