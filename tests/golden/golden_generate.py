"""One call of transformers' `generate` as a record: exact tokens, and how near the reference was to saying another."""

import math
import zlib

import torch
from tokenizers import Tokenizer
from transformers import WhisperForConditionalGeneration
from transformers.generation.logits_process import WhisperTimeStampLogitsProcessor

from golden_io import rounded


class TimestampRuleMargin:
    """While entered: the smallest |log P(any timestamp) - log P(best text token)| met by the timestamp rule.

    That rule is a threshold: where the two are nearly equal, a rounding error changes the sequence.
    """

    def __enter__(self) -> "TimestampRuleMargin":
        self.smallest = math.inf
        self.original = original = WhisperTimeStampLogitsProcessor.__call__
        outer = self

        def call(processor, input_ids, scores):
            wanted, processor._detect_timestamp_from_logprob = processor._detect_timestamp_from_logprob, False
            masked = original(processor, input_ids, scores)
            processor._detect_timestamp_from_logprob = wanted
            log_probs = masked.log_softmax(dim=-1)
            timestamp = log_probs[:, processor.timestamp_begin :].logsumexp(dim=-1)
            text = log_probs[:, : processor.timestamp_begin].max(dim=-1).values
            difference = (timestamp - text).abs()
            if difference.isfinite().all():
                outer.smallest = min(outer.smallest, difference.min().item())
            return original(processor, input_ids, scores)

        WhisperTimeStampLogitsProcessor.__call__ = call
        return self

    def __exit__(self, *_) -> None:
        WhisperTimeStampLogitsProcessor.__call__ = self.original


def text_of(tokenizer: Tokenizer, tokens: list[int]) -> str:
    """The words alone: no special tokens, no timestamps."""
    eot = tokenizer.token_to_id("<|endoftext|>")
    return tokenizer.decode([t for t in tokens if t < eot])


def compression_ratio(text: str) -> float | None:
    """OpenAI's: bytes of UTF-8 over bytes of zlib (level 6, header and checksum included)."""
    raw = text.strip().encode()
    return rounded(len(raw) / len(zlib.compress(raw)), 5) if raw else None


def _record(tokenizer: Tokenizer, tokens: list[int], n_prompt: int) -> dict:
    return {
        "prompt": tokens[:n_prompt],
        "tokens": tokens[n_prompt:],
        "text": text_of(tokenizer, tokens[n_prompt:]),
        "marked": tokenizer.decode(tokens[n_prompt:], skip_special_tokens=False),
    }


def _generate(model: WhisperForConditionalGeneration, features: torch.Tensor, language, task, timestamps, **more):
    inputs = {"input_features": features} if features is not None else {}
    model.generation_config.output_scores = True  # as an argument it would be refused
    out = model.generate(
        **inputs, language=language, task=task, return_timestamps=timestamps, do_sample=False,
        condition_on_prev_tokens=False, return_dict_in_generate=True, force_unique_generate_call=True, **more,
    )
    model.generation_config.output_scores = None
    return out


def n_prompt_tokens(timestamps: bool) -> int:
    return 3 if timestamps else 4  # sot, language, task[, notimestamps]


def greedy_record(model, tokenizer, features, language, task, timestamps, item=None, **more) -> dict:
    """Greedy, one window, one call: `tokens` runs to the end-of-text token, which is included where it was said."""
    with TimestampRuleMargin() as rule:
        out = _generate(model, features, language, task, timestamps, num_beams=1, **more)
    tokens, n_prompt = out.sequences[0].tolist(), n_prompt_tokens(timestamps)
    record = _record(tokenizer, tokens, n_prompt)
    scores = torch.stack(out.scores)[:, 0].float()  # [n_steps, n_vocab], filtered: -inf where forbidden
    assert len(scores) == len(record["tokens"]) and scores.argmax(-1).tolist() == record["tokens"]
    best = scores.topk(2, dim=-1).values
    chosen = scores.log_softmax(dim=-1).max(dim=-1).values
    record["avg_logprob"] = rounded(chosen.mean())
    record["compression_ratio"] = compression_ratio(record["text"])
    margins = best[:, 0] - best[:, 1]
    record["min_margin"], record["min_margin_at"] = rounded(margins.min(), 3), int(margins.argmin())
    if rule.smallest < math.inf:
        record["min_timestamp_rule_margin"] = rounded(rule.smallest, 3)
    return record


def beam_record(model, tokenizer, features, language, task, timestamps, n_beams, item=None) -> dict:
    """transformers' beam search: length_penalty 1 (sum of log-probabilities / new tokens), early_stopping False."""
    out = _generate(model, features, language, task, timestamps, num_beams=n_beams, length_penalty=1.0)
    record = {"n_beams": n_beams} | _record(tokenizer, out.sequences[0].tolist(), n_prompt_tokens(timestamps))
    return record | {"score": rounded(out.sequences_scores[0])}
