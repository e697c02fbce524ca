"""A folder with whisper-small's dimensions and made-up weights, to measure speed where whisper-small cannot be had.

Arithmetic takes as long whatever the numbers are, so the encoder's time, the time of a token and the memory are those of
whisper-small. What it writes is noise up to the token limit, the same number of tokens for both engines; how long a real
transcript takes, and whether int8 hears the same words, it cannot say.

Names, their order, and all that has no dimension of the model are taken from a CTranslate2 folder of whisper-base, as
are the tokenizer and the vocabulary, which base and small share. The weights are seeded noise; those of the special
tokens are small, so that no text ends or breaks into segments before the limit.

    bench/.venv/bin/python bench/make_small_shape.py models/whisper-base models/whisper-small-shape
"""

import os
import re
import shutil
import struct
import sys
import tempfile
from pathlib import Path

import numpy as np

# openai/whisper: (state, heads, layers)
BASE, SMALL = (512, 8, 6), (768, 12, 12)
FLOAT16 = 4  # CTranslate2's number for the type
SPREAD = 0.02
FIRST_SPECIAL_TOKEN = 50257
NOTE = (
    "The weights are made up, in the shape of whisper-small (bench/make_small_shape.py): times and memory count, words "
    "do not."
)


class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def number(self, kind):
        (value,) = struct.unpack_from("<" + kind, self.data, self.at)
        self.at += struct.calcsize("<" + kind)
        return value

    def bytes(self, length):
        self.at += length
        return self.data[self.at - length : self.at]

    def text(self):
        return self.bytes(self.number("H"))[:-1].decode()


def text(value):
    return struct.pack("<H", len(value) + 1) + value.encode() + b"\0"


def variables(reader):
    """(name, dimensions, type, data) of each."""
    for _ in range(reader.number("I")):
        name, rank = reader.text(), reader.number("B")
        dims = [reader.number("I") for _ in range(rank)]
        kind = reader.number("B")
        yield name, dims, kind, reader.bytes(reader.number("I"))


def made_up(name, dims, random):
    if name.endswith("gamma"):
        return np.ones(dims, np.float16)
    if name.endswith(("beta", "bias")):
        return np.zeros(dims, np.float16)
    values = random.standard_normal(dims, np.float32) * np.float32(SPREAD)
    if name == "decoder/embeddings/weight":
        values[FIRST_SPECIAL_TOKEN:] *= 0.1
    return values.astype(np.float16)


def in_small(name, dims, kind, data, random):
    """The variable with small's dimensions: each multiple of base's state, and nothing else, grows."""
    if name.endswith("/num_heads"):
        data = struct.pack("<h", SMALL[1])
    elif kind == FLOAT16:
        keeps = {"conv1/weight": (1, 2), "conv2/weight": (2,), "embeddings/weight": (0,), "encodings": (0,)}
        kept = next((axes for end, axes in keeps.items() if name.endswith(end)), ())
        dims = [n if axis in kept else n // BASE[0] * SMALL[0] for axis, n in enumerate(dims)]
        data = made_up(name, dims, random).tobytes()
    head = text(name) + struct.pack("<B", len(dims)) + b"".join(struct.pack("<I", n) for n in dims)
    return head + struct.pack("<BI", kind, len(data)), data


def write(source, target):
    reader = Reader((source / "model.bin").read_bytes())
    version, spec, revision = reader.number("I"), reader.text(), reader.number("I")
    if (version, spec) != (6, "WhisperSpec"):
        sys.exit(f"make_small_shape.py: {source} is version {version} of {spec}, and 6 of WhisperSpec is needed")
    found = []
    for name, *rest in variables(reader):
        layer = re.search(r"layer_(\d+)/", name)
        if layer is None:
            found.append((name, *rest))
        elif layer[1] == "0":  # the others are like the first
            found += [(name.replace("layer_0/", f"layer_{number}/"), *rest) for number in range(SMALL[2])]
    random = np.random.default_rng(0)
    with target.open("wb") as file:
        file.write(struct.pack("<I", version) + text(spec) + struct.pack("<II", revision, len(found)))
        for variable in sorted(found, key=lambda variable: variable[0]):
            for part in in_small(*variable, random):
                file.write(part)
        file.write(reader.bytes(len(reader.data) - reader.at))  # aliases


def main():
    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    if (target / "NOTE.txt").is_file():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", suffix=".partial", dir=target.parent) as partial:
        made = Path(partial) / "made"
        made.mkdir()
        write(source, made / "model.bin")
        for name in ("config.json", "tokenizer.json", "vocabulary.json"):
            shutil.copyfile(source / name, made / name)
        (made / "NOTE.txt").write_text(NOTE + "\n", encoding="utf-8")
        os.rename(made, target)
    print(f"{target} is made: {NOTE}")


if __name__ == "__main__":
    main()
