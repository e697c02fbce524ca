"""The rules around a model, alone: timestamp filter, median filter, dynamic time warping (transformers' own functions)."""

import pathlib

import numpy as np
import torch
from transformers import GenerationConfig
from transformers.generation.logits_process import WhisperTimeStampLogitsProcessor
from transformers.models.whisper.generation_whisper import _dynamic_time_warping, _median_filter

from golden_io import write_json, write_tensors

# tiny-multilingual's tokens
EOT, NO_TIMESTAMPS, N_VOCAB = 58, 68, 120
T0 = NO_TIMESTAMPS + 1  # <|0.00|>
PROMPT = [59, 60, 64]
MAX_INITIAL = 25

# (what is tested, tokens after the prompt, what is added to the logits of: timestamps, text, eot)
HISTORIES = [
    ("first: only timestamps up to max_initial_timestamp_index", [], 0, 0, 0),
    ("after an opening timestamp: no timestamp", [T0 + 5], 0, 0, 0),
    ("after text: all timestamps together are likelier than any one text token, so text and eot are forbidden",
     [T0 + 5, 1], 0, 0, 0),
    ("after text: one text token is likelier than all timestamps together, so only past timestamps are forbidden",
     [T0 + 5, 1], 0, 9, 0),
    ("after a closing timestamp: the same or a later one; eot loses to the sum", [T0 + 5, 1, 2, T0 + 20], 0, 0, 0),
    ("after a closing timestamp: eot is likelier than the sum, so all tokens from eot on are left",
     [T0 + 5, 1, 2, T0 + 20], 0, 0, 12),
    ("after a pair: no timestamp", [T0 + 5, 1, 2, T0 + 20, T0 + 20], 0, 0, 0),
    ("in the second segment: the last timestamp is not allowed again", [T0 + 5, 1, T0 + 20, T0 + 20, 7, 8], 2, 0, 0),
    ("after <|0.00|> and text: <|0.00|> is not allowed again", [T0, 1], 2, 0, 0),
    ("no timestamp is left in the window", [T0 + 5, 1, T0 + 50, T0 + 50, 3], 0, 9, 0),
]


def timestamp_rules() -> tuple[torch.Tensor, list[dict]]:
    config = GenerationConfig(
        eos_token_id=EOT, no_timestamps_token_id=NO_TIMESTAMPS, max_initial_timestamp_index=MAX_INITIAL
    )
    rule = WhisperTimeStampLogitsProcessor(config, begin_index=len(PROMPT))
    logits = torch.randn(len(HISTORIES), N_VOCAB, generator=torch.Generator().manual_seed(7))
    cases = []
    for row, (about, history, timestamp_bonus, text_bonus, eot_bonus) in enumerate(HISTORIES):
        logits[row, T0:] += timestamp_bonus
        logits[row, :EOT] += text_bonus
        logits[row, EOT] += eot_bonus
        out = rule(torch.tensor([PROMPT + history]), logits[row : row + 1])[0]
        allowed = out.isfinite()
        assert torch.equal(out[allowed], logits[row][allowed])
        cases.append({"about": about, "tokens": PROMPT + history, "allowed": allowed.nonzero()[:, 0].tolist()})
    return logits, cases


def make(out: pathlib.Path) -> None:
    logits, cases = timestamp_rules()
    generator = np.random.default_rng(8)

    median = generator.standard_normal((2, 5, 20)).astype(np.float32)
    short = generator.standard_normal((2, 5, 3)).astype(np.float32)  # no longer than half the width: left alone
    cost = generator.standard_normal((6, 15)).astype(np.float32)
    ties = generator.integers(0, 3, (5, 9)).astype(np.float32)  # equal costs: which way the path turns
    warped = {name: _dynamic_time_warping(matrix.astype(np.float64)) for name, matrix in (("cost", cost), ("ties", ties))}
    write_tensors(out / "rules.safetensors", {
        "timestamps.logits": logits,
        "median.input": median, "median.output": _median_filter(torch.from_numpy(median), 7),
        "median.short": short, "median.short_output": _median_filter(torch.from_numpy(short), 7),
        "dtw.cost": cost, "dtw.ties": ties,
    }, "inputs and outputs of rules.json")
    write_json(out / "rules.json", {
        "timestamps": {
            "about": "allowed: the token ids that WhisperTimeStampLogitsProcessor leaves finite in row i of timestamps.logits",
            "eot": EOT, "no_timestamps": NO_TIMESTAMPS, "max_initial_timestamp_index": MAX_INITIAL,
            "n_prompt": len(PROMPT), "cases": cases,
        },
        "median": {"width": 7, "padding": "reflect", "axis": "last"},
        "dtw": {name: {"text_indices": t.tolist(), "time_indices": f.tolist()} for name, (t, f) in warped.items()},
    })
