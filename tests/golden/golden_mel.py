"""Log-mel spectrograms by transformers' WhisperFeatureExtractor (its torch path, f32 STFT)."""

import pathlib

import numpy as np
from transformers import WhisperFeatureExtractor
from transformers.audio_utils import mel_filter_bank

from golden_io import SAMPLE_RATE_HZ, fit, read_audio, rounded, write_json, write_tensors

CLIP = "tw_go_cart"
N_MELS = (80, 128)
PADDED_HEAD_FRAMES = 200  # the clip's 176 frames and some of the silence behind it
PADDED_TAIL_FRAMES = 5


def synthetic(n_samples: int) -> np.ndarray:
    """A signal that any language makes bit for bit: whole-number arithmetic, then one division by 2^15.

    For i in 0..n_samples, in this order, with wrapping u32 arithmetic:
      noise_state = noise_state * 1664525 + 1013904223    (was 12345 before the first sample)
      phase       = phase + 40_000_000 + 6_000 * i        (was 0; a rising saw-tooth, 149 Hz and up)
      saw         = the top 16 bits of phase, as i16
      noise       = the top 16 bits of noise_state, as i16
      sample      = ((saw >> 2) + (noise >> 5)) / 32768   (arithmetic shifts of whole numbers, then f32)
    but samples 6000..8000 are 0: digital silence.
    """
    out = np.zeros(n_samples, dtype=np.float32)
    noise_state, phase = 12345, 0
    i16 = lambda u32: (u32 >> 16) - (0x10000 if u32 >> 31 else 0)
    for i in range(n_samples):
        noise_state = (noise_state * 1664525 + 1013904223) & 0xFFFFFFFF
        phase = (phase + 40_000_000 + 6_000 * i) & 0xFFFFFFFF
        if not 6000 <= i < 8000:
            out[i] = ((i16(phase) >> 2) + (i16(noise_state) >> 5)) / 32768
    return out


def log_mel(samples: np.ndarray, n_mels: int, padded: bool) -> np.ndarray:
    """`[n_mels, n_frames]`: of 30 s (`padded`: zeros behind the clip) or of exactly these samples."""
    extractor = WhisperFeatureExtractor(feature_size=n_mels)
    how = {"padding": "max_length"} if padded else {"padding": "longest", "truncation": False}
    mel = extractor(samples, sampling_rate=SAMPLE_RATE_HZ, return_tensors="np", **how).input_features[0]
    n_samples = extractor.n_samples if padded else len(samples)
    assert mel.shape == (n_mels, n_samples // 160), mel.shape
    return mel


def make(clips: pathlib.Path, out: pathlib.Path) -> None:
    clip = read_audio(clips / f"{CLIP}.flac")
    inputs = {
        "clip.padded": (clip, True),
        "clip.fitted": (fit(clip), False),
        "synthetic": (synthetic(SAMPLE_RATE_HZ), False),
        "synthetic.ragged": (synthetic(1_237), False),
    }
    facts = {
        "clip": CLIP,
        "clip_samples": len(clip),
        "fitted_samples": len(fit(clip)),
        "synthetic_rule": [line.strip() for line in synthetic.__doc__.strip().splitlines()],
        "synthetic_first_samples": [float(x) for x in inputs["synthetic"][0][:8]],
        "synthetic_last_samples": [float(x) for x in inputs["synthetic"][0][-4:]],
        "silence_value": float(log_mel(np.zeros(SAMPLE_RATE_HZ, np.float32), 80, padded=False).max()),
        "padded_stores": f"the first {PADDED_HEAD_FRAMES} and the last {PADDED_TAIL_FRAMES} of 3000 frames",
    }
    for n_mels in N_MELS:
        tensors, facts_of = {}, {}
        for name, (samples, padded) in inputs.items():
            mel = log_mel(samples, n_mels, padded)
            # The same features from numpy's f64 STFT: how far the reference's own f32 rounding goes.
            exact = WhisperFeatureExtractor(feature_size=n_mels)._np_extract_fbank_features(
                [np.pad(samples, (0, max(0, 480_000 - len(samples)))) if padded else samples], "cpu"
            )[0]
            error = np.abs(exact[:, : mel.shape[1]] - mel)
            facts_of[name] = {
                "n_frames": mel.shape[1],
                "min": rounded(mel.min()), "max": rounded(mel.max()), "mean": rounded(mel.mean()),
                "f32_vs_f64_max": rounded(error.max(), 3), "f32_vs_f64_mean": rounded(error.mean(), 3),
            }
            if padded:
                assert np.ptp(mel[:, PADDED_HEAD_FRAMES:]) < 1e-6, "the rest must be silence"
                tensors[f"{name}.head"] = mel[:, :PADDED_HEAD_FRAMES]
                tensors[f"{name}.tail"] = mel[:, -PADDED_TAIL_FRAMES:]
            else:
                tensors[name] = mel
        bank = mel_filter_bank(201, n_mels, 0.0, 8000.0, SAMPLE_RATE_HZ, norm="slaney", mel_scale="slaney").T
        rows, columns = np.nonzero(bank)  # [n_mels, n_fft / 2 + 1]
        tensors |= {"filters.mel": rows, "filters.bin": columns, "filters.weight": bank[rows, columns]}
        facts[f"mel_{n_mels}"] = facts_of | {"n_filter_weights": len(rows)}
        write_tensors(out / f"mel_{n_mels}.safetensors", tensors, f"log-mel [n_mels={n_mels}, n_frames] f32; see mel.json")
    write_json(out / "mel.json", facts)
