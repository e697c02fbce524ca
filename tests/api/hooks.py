"""Recordings for schemathesis: what a form's file may be, from a clip that somebody spoke to noise.

Without it the fuzzer's files are random bytes, and no request gets beyond the decoder.
"""

import struct
from pathlib import Path

import schemathesis
from hypothesis import strategies as st

CLIPS = Path(__file__).resolve().parents[1] / "golden" / "clips"
SPOKEN = [(CLIPS / f"{name}.flac").read_bytes() for name in ("tw_go_cart", "tw_cart", "en_short")]


def wav(samples, rate_hz=16_000, channels=1, bits=16, format_tag=1, length=None):
    """A WAV file; `length` is what its header says of the samples' bytes."""
    block = channels * bits // 8
    stated = len(samples) if length is None else length
    head = struct.pack("<HHIIHH", format_tag, channels, rate_hz, rate_hz * block & 0xFFFFFFFF, block & 0xFFFF, bits)
    return b"RIFF" + struct.pack("<I", 36 + len(samples)) + b"WAVEfmt " + struct.pack("<I", 16) + head + b"data" \
        + struct.pack("<I", stated) + samples


SILENCE = wav(bytes(16_000))

# Headers that lie, around samples that are few.
odd_wavs = st.builds(
    wav,
    st.binary(max_size=4000),
    rate_hz=st.sampled_from([0, 1, 8_000, 16_000, 44_100, 48_000, 2**31]),
    channels=st.sampled_from([0, 1, 2, 9]),
    bits=st.sampled_from([0, 8, 16, 24, 32, 64]),
    format_tag=st.sampled_from([0, 1, 3, 17, 0xFFFE]),
    length=st.sampled_from([None, 0, 1, 2**32 - 1]),
)


@st.composite
def damaged(draw):
    """A spoken clip, cut off or with one byte changed."""
    clip = draw(st.sampled_from(SPOKEN))
    at = draw(st.integers(0, len(clip) - 1))
    return clip[:at] if draw(st.booleans()) else clip[:at] + draw(st.binary(min_size=1, max_size=1)) + clip[at + 1 :]


recordings = st.one_of(
    st.sampled_from([*SPOKEN, SILENCE]),
    st.binary(max_size=64_000).map(wav),
    odd_wavs,
    damaged(),
    st.sampled_from([b"", b"RIFF", b"OggS", b"fLaC", b"\x1aE\xdf\xa3", b"ID3"]),
    st.binary(max_size=2000),
)

schemathesis.openapi.format("binary", recordings)
