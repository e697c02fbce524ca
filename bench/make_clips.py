"""Makes the clips that the bench measures: spoken by espeak-ng, fitted to an exact length, 16 kHz mono WAV.

The speaking rate is chosen so that the speech nearly fills the clip: a 3 s clip holds about 3 s of speech, so that
trimming to speech gains nothing. What is missing is a faint seeded noise, split over both ends. Both engines get the
same files, already at 16 kHz, so that no resampler is part of the comparison.

    bench/.venv/bin/python bench/make_clips.py bench/clips
"""

import json
import subprocess
import sys
import tempfile
import wave
from pathlib import Path

import numpy as np
from faster_whisper.audio import decode_audio

SAMPLE_RATE_HZ = 16_000
MARGIN_S = 0.05  # at least this much of no speech at each end
NOISE = 1e-4  # amplitude, about -80 dB: no microphone gives digital zeros
SPEECH_FLOOR = 0.01
WORDS_PER_MINUTE = range(130, 261, 2)  # slower than that, Whisper hears single letters

# name: (length in s, espeak-ng voice, language to decode with, words)
# espeak-ng speaks no Twi: its Swahili voice reads the spelling closely enough, and `sw` decodes it. The wordings are
# ones that plain greedy decoding gets through: on some it loops to the token limit, and would measure only that.
CLIPS = {
    "twi-2s": (2, "sw", "sw", "Fa yei to cart no mu"),
    "twi-3s": (3, "sw", "sw", "Fa shoes no mmienu ka cart no ho"),
    "twi-5s": (5, "sw", "sw", "Fa atadeɛ kɔkɔɔ no mmienu to cart no mu, na kyerɛ me cart no"),
    "english-11s": (
        11,
        "en-us",
        "en",
        "Good morning. I would like to buy two blue shirts and a pair of black shoes, and I would like them to "
        "come to my house before Friday, if that is possible.",
    ),
    "english-30s": (
        30,
        "en-us",
        "en",
        "Good morning. I would like to buy two blue shirts and a pair of black shoes, and I would like them to "
        "come to my house before Friday, if that is possible. The last time that I ordered from your shop, the "
        "box came three days late, and one of the cups inside was broken. Your people were very kind about it, "
        "and sent me a new one on the same day. This time, please pack everything with care, write my telephone "
        "number on the box, and tell the driver to call me when he is near the market.",
    ),
}

# Others as long as "twi-3s": what one command takes depends on how near its answer is to a threshold.
COMMANDS_S = 3
COMMANDS = (
    "Mepɛ sɛ mede address foforɔ hyɛ mu",
    "Fa adeɛ yi to me cart no mu",
    "Mepɛ sɛ mecancel order no",
    "Yi cart no mu nneɛma nyinaa",
    "Mepɛ sɛ meconfirm order no",
    "Fa me kɔ page a ɛdi so no so",
    "Mepɛ sɛ mede mobile money tua",
    "Da bɛn na me sika bɛsan aba",
    "Yi adeɛ yi firi cart no mu",
    "Wobɛtumi aka ne boɔ akyerɛ me",
    "Kyerɛ me nneɛma a ɛte sɛ yei",
    "Mepɛ sɛ metrack me order",
)
CLIPS |= {f"command-{number:02}": (COMMANDS_S, "sw", "sw", words) for number, words in enumerate(COMMANDS, 1)}


def speak(voice, words, words_per_minute, folder):
    """The speech as samples at 16 kHz, without the silence around it."""
    path = Path(folder) / "spoken.wav"
    subprocess.run(
        ["espeak-ng", "-v", voice, "-s", str(words_per_minute), "-w", str(path), words],
        check=True,
        stdin=subprocess.DEVNULL,
    )
    samples = decode_audio(str(path), sampling_rate=SAMPLE_RATE_HZ)
    loud = np.flatnonzero(np.abs(samples) > SPEECH_FLOOR)
    return samples[loud[0] : loud[-1] + 1]


def slowest_that_fits(length_s, voice, words, folder):
    """Speech at the slowest rate that leaves the margin: it fills the clip. Bisection over the rates."""
    room = round((length_s - 2 * MARGIN_S) * SAMPLE_RATE_HZ)
    rates = list(WORDS_PER_MINUTE)
    low, high, best = 0, len(rates) - 1, None
    while low <= high:
        middle = (low + high) // 2
        speech = speak(voice, words, rates[middle], folder)
        if len(speech) <= room:
            best, high = speech, middle - 1
        else:
            low = middle + 1
    if best is None:
        sys.exit(f"make_clips.py: these words do not fit into {length_s} s: {words}")
    return best


def make(folder):
    folder.mkdir(parents=True, exist_ok=True)
    made = {}
    for name, (length_s, voice, language, words) in CLIPS.items():
        with tempfile.TemporaryDirectory() as temporary:
            speech = slowest_that_fits(length_s, voice, words, temporary)
        n_samples = length_s * SAMPLE_RATE_HZ
        samples = np.random.default_rng(0).normal(0, NOISE, n_samples).astype(np.float32)
        start = (n_samples - len(speech)) // 2
        samples[start : start + len(speech)] += speech
        with wave.open(str(folder / f"{name}.wav"), "wb") as file:
            file.setparams((1, 2, SAMPLE_RATE_HZ, n_samples, "NONE", ""))
            file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
        made[name] = {
            "file": f"{name}.wav",
            "language": language,
            "spoken": "tw" if language == "sw" else language,
            "length_s": length_s,
            "speech_s": round(len(speech) / SAMPLE_RATE_HZ, 2),
            "words": words,
        }
    (folder / "clips.json").write_text(json.dumps(made, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    return made


if __name__ == "__main__":
    for name, clip in make(Path(sys.argv[1])).items():
        print(f"{name}: {clip['speech_s']} s of speech in {clip['length_s']} s")
