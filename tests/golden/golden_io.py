"""Reading clips and writing files, for the other golden_*.py modules."""

import json
import pathlib
import re
import subprocess

import numpy as np
import soundfile
from safetensors.numpy import save_file

SAMPLE_RATE_HZ = 16_000
HOP_LENGTH = 160  # samples between two mel frames
CONV_STRIDE = 2  # mel frames to one encoder position
FIT_MARGIN_SAMPLES = SAMPLE_RATE_HZ // 10  # 0.1 s of silence behind the clip


def read_audio(path: pathlib.Path) -> np.ndarray:
    """Mono f32 in [-1, 1) at 16 kHz. A file at another rate goes through sox (`-D`, `rate -v`, channels averaged)."""
    if soundfile.info(path).samplerate == SAMPLE_RATE_HZ:
        samples, _ = soundfile.read(path, dtype="float32", always_2d=True)
        return samples.mean(axis=1, dtype=np.float32)
    command = ["sox", "-D", str(path), "-t", "f32", "-", "remix", "-", "rate", "-v", str(SAMPLE_RATE_HZ)]
    return np.frombuffer(subprocess.run(command, check=True, capture_output=True).stdout, dtype="<f4").copy()


def fit(samples: np.ndarray) -> np.ndarray:
    """The fitted window: the clip, 0.1 s of zeros, then zeros up to a whole encoder position (320 samples)."""
    step = HOP_LENGTH * CONV_STRIDE
    n_samples = -(-(len(samples) + FIT_MARGIN_SAMPLES) // step) * step
    return np.pad(samples, (0, n_samples - len(samples)))


def write_tensors(path: pathlib.Path, tensors: dict, about: str) -> None:
    """Safetensors: f32 for floats, i32 for whole numbers, `about` in the header."""
    path.parent.mkdir(parents=True, exist_ok=True)
    plain = {}
    for name, value in tensors.items():
        value = np.asarray(value)
        value = value.astype(np.float32 if value.dtype.kind == "f" else np.int32)
        assert np.isfinite(value).all(), name
        plain[name] = np.ascontiguousarray(value)
    save_file(plain, path, metadata={"about": about})
    path.chmod(0o644)


def write_json(path: pathlib.Path, value: object) -> None:
    """Indented JSON, with innermost lists on one line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(value, indent=1, ensure_ascii=False)
    text = re.sub(r"\[\n\s*([^\[\]{}]*?)\n\s*\]", lambda m: "[" + re.sub(r",\n\s*", ", ", m[1]) + "]", text)
    path.write_text(text + "\n", encoding="utf-8")


def rounded(value: float, digits: int = 6) -> float:
    return float(f"{float(value):.{digits}g}")
