"""An English-only Whisper, as `openai/whisper-*.en` are: the prompt has neither a language nor a task.

The weights and the tokenizer are tiny-2's: a real English-only tokenizer lists languages and tasks too, which the
model never learnt. What makes the difference is `is_multilingual: false` in generation_config.json.
"""

import json
import pathlib

import torch
from tokenizers import Tokenizer
from transformers import WhisperFeatureExtractor, WhisperForConditionalGeneration

from golden_generate import TimestampRuleMargin, text_of
from golden_io import SAMPLE_RATE_HZ, read_audio, rounded, write_json

CLIPS = {"en_numbers": [8_000, 24_000], "en_short": [16_000, 32_000], "tw_go_cart": [8_000, 24_000]}
MULTILINGUAL_ONLY = ("lang_to_id", "task_to_id")


def make(clips: pathlib.Path, base: pathlib.Path, out: pathlib.Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    model = WhisperForConditionalGeneration.from_pretrained(base).eval()
    for p in model.parameters():
        p.copy_(p.half().to(p.dtype))
    tokenizer = Tokenizer.from_file(str(base / "tokenizer.json"))
    generation = json.loads((base / "generation_config.json").read_text(encoding="utf-8"))
    generation = {k: v for k, v in generation.items() if k not in MULTILINGUAL_ONLY} | {"is_multilingual": False}

    model.generation_config.is_multilingual = False
    for key in MULTILINGUAL_ONLY:
        delattr(model.generation_config, key)
    model.generation_config.output_scores = True
    extractor = WhisperFeatureExtractor(feature_size=model.config.num_mel_bins, chunk_length=1)
    sot, no_timestamps = (tokenizer.token_to_id(f"<|{t}|>") for t in ("startoftranscript", "notimestamps"))
    cases = []
    for clip, (start, end) in CLIPS.items():
        samples = read_audio(clips / f"{clip}.flac")[start:end]
        features = extractor(samples, sampling_rate=SAMPLE_RATE_HZ, return_tensors="pt").input_features
        for timestamps in (False, True):
            with TimestampRuleMargin() as rule:
                out_ = model.generate(
                    input_features=features, return_timestamps=timestamps, do_sample=False, num_beams=1,
                    condition_on_prev_tokens=False, return_dict_in_generate=True, force_unique_generate_call=True,
                )
            tokens = out_.sequences[0].tolist()
            prompt = [sot] if timestamps else [sot, no_timestamps]
            assert tokens[: len(prompt)] == prompt, tokens
            best = torch.stack(out_.scores)[:, 0].float().topk(2, dim=-1).values
            said = tokens[len(prompt):]
            cases.append({
                "clip": clip, "samples": [start, end], "timestamps": timestamps, "prompt": prompt, "tokens": said,
                "text": text_of(tokenizer, said), "min_margin": rounded(min((best[:, 0] - best[:, 1]).min().item(), rule.smallest), 3),
            })
    model.generation_config.output_scores = None
    model.half().save_pretrained(out)  # half precision holds these weights exactly
    config = json.loads((out / "config.json").read_text(encoding="utf-8"))
    write_json(out / "config.json", config | {"architectures": ["WhisperForConditionalGeneration"]})
    write_json(out / "generation_config.json", generation)
    (out / "tokenizer.json").write_bytes((base / "tokenizer.json").read_bytes())
    extractor.save_pretrained(out)
    write_json(out / "generate.json", {"about": "transformers' generate, greedy, one window of 1 s", "cases": cases})
