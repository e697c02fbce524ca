"""Tiny seeded Wav2Vec2ForCTC models in the four forms that checkpoints come in, and what transformers makes of them.

  wav2vec2-base   group norm, post-norm blocks, no convolution biases, upper-case letters   as wav2vec2-base-960h
  wav2vec2-xlsr   layer norm, pre-norm blocks, blank last, attention mask                   as a fine-tuned XLS-R
  wav2vec2-mms    as xlsr, with attention adapters and a nested vocabulary                  as mms-1b-all
  wav2vec2-old    base's form with `weight_g`, `weight_v`, f16, pytorch_model.bin            as files before torch 2

The weights are random but lively, as in golden_tiny.py. Blank is made likely and special tokens impossible, and the
seeds are chosen so that greedy texts hold words and no frame is a near tie (`min_margin` in decoded.json).
"""

import copy
import math
import pathlib

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import Wav2Vec2Config, Wav2Vec2CTCTokenizer, Wav2Vec2FeatureExtractor, Wav2Vec2ForCTC, pipeline

from golden_io import SAMPLE_RATE_HZ, read_audio, rounded, write_json, write_tensors

LETTERS = list("aeionstkmwfyprudbhg")
CLIPS = [("tw_go_cart", 0, 28_000), ("tw_cart", 3_000, 24_000), ("en_short", 1_600, 48_000)]
STAGE_CLIP = ("tw_go_cart", 4_000, 8_000)
LONG_CLIP = "en_long"  # 43 s: two windows of the pipeline
LEAST_MARGIN = 1e-3

CONFIGS = {
    "wav2vec2-base": dict(
        seed=2, feat_extract_norm="group", do_stable_layer_norm=False, conv_bias=False,
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, conv_dim=[16] * 7,
        num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4,
    ),
    # An odd positional kernel, unequal channels, and frames of 160 samples.
    "wav2vec2-xlsr": dict(
        seed=7, feat_extract_norm="layer", do_stable_layer_norm=True, conv_bias=True,
        hidden_size=24, num_hidden_layers=3, num_attention_heads=2, intermediate_size=40,
        conv_dim=[8, 12, 16, 12, 20], conv_stride=[5, 4, 2, 2, 2], conv_kernel=[10, 5, 3, 3, 2],
        num_conv_pos_embeddings=15, num_conv_pos_embedding_groups=2,
    ),
    "wav2vec2-mms": dict(
        seed=1, feat_extract_norm="layer", do_stable_layer_norm=True, conv_bias=True,
        hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=32, conv_dim=[12] * 7,
        num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4, adapter_attn_dim=6,
    ),
    "wav2vec2-old": dict(
        seed=1, feat_extract_norm="group", do_stable_layer_norm=False, conv_bias=False,
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24, conv_dim=[12] * 7,
        num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=4,
    ),
}


def numbered(tokens: list[str]) -> dict[str, int]:
    return {token: i for i, token in enumerate(tokens)}


def vocabulary(name: str) -> dict:
    special = ["<pad>", "<s>", "</s>", "<unk>", "|"]
    if name == "wav2vec2-xlsr":
        return numbered(["|", *LETTERS, "[UNK]", "[PAD]"])
    if name == "wav2vec2-mms":
        return {
            "eng": numbered([*special, *LETTERS, "'", "."]),
            "twi": numbered([*special, *LETTERS, "ɛ", "ɔ", "-", "ny", "kw"]),
        }
    return numbered([*special, *(letter.upper() for letter in LETTERS)])


def make_tokenizer(name: str, folder: pathlib.Path, language: str | None) -> Wav2Vec2CTCTokenizer:
    options = {
        "wav2vec2-base": dict(do_lower_case=True),
        "wav2vec2-xlsr": dict(unk_token="[UNK]", pad_token="[PAD]", bos_token=None, eos_token=None),
        "wav2vec2-mms": dict(clean_up_tokenization_spaces=True, target_lang=language),
        "wav2vec2-old": {},
    }[name]
    return Wav2Vec2CTCTokenizer(str(folder / "vocab.json"), **options)


def lively(model: torch.nn.Module, generator: torch.Generator) -> None:
    for name, p in sorted(model.named_parameters()):
        draw = torch.randn(p.shape, generator=generator)
        if "norm.weight" in name:
            p.copy_(1 + 0.3 * draw)
        elif name.endswith("original0"):  # the length of each tap of the positional convolution, never negative
            p.copy_(1 + 0.3 * draw.abs())
        elif name.endswith("bias"):
            p.copy_(0.2 * draw)
        elif name.endswith("masked_spec_embed"):
            p.copy_(draw)
        else:
            gain = 1.5 if any(part in name for part in ("q_proj", "k_proj", "conv_layers")) else 1.0
            p.copy_(draw * gain / math.sqrt(p[0].numel()))


def fit_head(model, vocab: dict[str, int], blank: int, inputs: list[torch.Tensor], generator: torch.Generator) -> None:
    """A random head on the whitened states: random bodies say nearly the same in every frame, and a plain random head
    would write one letter for ever."""
    states = torch.cat([model.wav2vec2(x).last_hidden_state[0] for x in inputs])  # [n_frames, hidden]
    mean = states.mean(0)
    _, lengths, directions = torch.linalg.svd(states - mean, full_matrices=False)
    spread = lengths / math.sqrt(len(states))
    draw = torch.randn(len(vocab), len(spread), generator=generator)
    weight = draw / (spread + 0.1 * spread.max()) @ directions * 5.0 / math.sqrt(len(spread))
    bias = 0.3 * torch.randn(len(vocab), generator=generator) - weight @ mean
    bias[blank] += 4.0
    bias[vocab["|"]] += 3.0
    bias[[i for token, i in vocab.items() if token in ("<s>", "</s>", "<unk>", "[UNK]")]] -= 60.0
    model.lm_head = torch.nn.Linear(weight.shape[1], len(vocab))
    model.lm_head.weight.copy_(weight)
    model.lm_head.bias.copy_(bias)
    model.config.vocab_size = len(vocab)


def make_model(spec: dict, vocab: dict[str, int], blank: int, inputs: list[torch.Tensor]) -> Wav2Vec2ForCTC:
    spec = dict(spec)
    generator = torch.Generator().manual_seed(spec.pop("seed"))
    config = Wav2Vec2Config(
        **spec, vocab_size=len(vocab), pad_token_id=blank, attn_implementation="eager", layerdrop=0.0,
        architectures=["Wav2Vec2ForCTC"],
    )
    model = Wav2Vec2ForCTC(config).eval()
    lively(model.wav2vec2, generator)
    fit_head(model, vocab, blank, inputs, generator)
    return model


def with_language(model, vocab: dict[str, int], blank: int, inputs: list[torch.Tensor], seed: int) -> Wav2Vec2ForCTC:
    """The same body with other adapters and another head."""
    model, generator = copy.deepcopy(model), torch.Generator().manual_seed(seed)
    for layer in model.wav2vec2.encoder.layers:
        lively(layer.adapter_layer, generator)
    fit_head(model, vocab, blank, inputs, generator)
    return model


def run_stages(model: Wav2Vec2ForCTC, values: torch.Tensor) -> dict[str, torch.Tensor]:
    """One forward pass, its stages caught by hooks; everything `[1, n_frames, channels]`."""
    body, stages, hooks = model.wav2vec2, {}, []
    keep = lambda name, value: stages.update({name: value.detach().clone()})
    hooks.append(body.feature_extractor.register_forward_hook(
        lambda m, args, out: keep("features", out.transpose(1, 2))))
    hooks.append(body.feature_projection.register_forward_hook(lambda m, args, out: keep("projected", out[0])))
    hooks.append(body.encoder.layers[0].register_forward_pre_hook(lambda m, args: keep("embedded", args[0])))
    for i, layer in enumerate(body.encoder.layers):
        hooks.append(layer.register_forward_hook(lambda m, args, out, i=i: keep(f"block.{i}", out)))
    hooks.append(body.encoder.register_forward_hook(lambda m, args, out: keep("last", out.last_hidden_state)))
    stages["logits"] = model(values).logits
    for hook in hooks:
        hook.remove()
    return stages


def cut(clips: pathlib.Path, clip: str, start: int, n_samples: int) -> np.ndarray:
    samples = read_audio(clips / f"{clip}.flac")[start : start + n_samples]
    assert len(samples) == n_samples, clip
    return samples


def features(extractor: Wav2Vec2FeatureExtractor, samples: np.ndarray) -> torch.Tensor:
    return extractor(samples, sampling_rate=SAMPLE_RATE_HZ, return_tensors="pt").input_values


def words_of(offsets: list[dict]) -> list[list]:
    return [[w["word"], int(w["start_offset"]), int(w["end_offset"])] for w in offsets]


def least_margin(logits: torch.Tensor) -> float:
    best = logits[0].topk(2, dim=-1).values
    margin = (best[:, 0] - best[:, 1]).min().item()
    assert margin > LEAST_MARGIN, f"a near tie: {margin}; choose another seed"
    return margin


def greedy_record(model, tokenizer, extractor, samples: np.ndarray) -> dict:
    logits = model(features(extractor, samples)).logits
    out = tokenizer.batch_decode(logits.argmax(-1), output_word_offsets=True)
    margin = least_margin(logits)
    assert len(out.word_offsets[0]) > 1, "a text without words tests nothing; choose another seed"
    return {
        "text": out.text[0],
        "words": words_of(out.word_offsets[0]),
        "avg_logprob": rounded(logits[0].log_softmax(-1).max(-1).values.mean()),
        "min_margin": rounded(margin, 3),
    }


def long_record(model, tokenizer, extractor, samples: np.ndarray) -> dict:
    """The pipeline's windows: 30 s, of which 5 s on either side only lend context."""
    speech = pipeline("automatic-speech-recognition", model=model, tokenizer=tokenizer, feature_extractor=extractor)
    out = speech(samples.copy(), chunk_length_s=30, stride_length_s=5, return_timestamps="word")
    words = [[c["text"], *(rounded(t, 9) for t in c["timestamp"])] for c in out["chunks"]]
    step = 20 * SAMPLE_RATE_HZ
    windows = [samples[i : i + 30 * SAMPLE_RATE_HZ] for i in range(0, len(samples) - 10 * SAMPLE_RATE_HZ, step)]
    margin = min(least_margin(model(features(extractor, window)).logits) for window in windows)
    return {"text": out["text"], "words": words, "min_margin": rounded(margin, 3)}


def all_tensors(model, extractor, clips: pathlib.Path, name: str) -> tuple[dict, dict]:
    values = features(extractor, cut(clips, *STAGE_CLIP))
    stages = run_stages(model, values)
    exact = run_stages(model.double(), values.double())
    model.float()
    errors = {k: (stages[k].double() - exact[k]).abs().max().item() for k in stages}
    about = {k: {"shape": list(v.shape), "max_abs": rounded(v.abs().max(), 4), "f32_vs_f64_max": rounded(errors[k], 3)}
             for k, v in stages.items()}
    tensors = {f"clip.{k}": v for k, v in stages.items()}

    # Three partials and an offset, so that the mean and the variance matter.
    t = np.arange(2_500) / SAMPLE_RATE_HZ
    short = (0.05 + sum(0.2 / k * np.sin(2 * math.pi * 190 * k * t) for k in (1, 2, 3))).astype(np.float32)
    values = features(extractor, short)
    tensors |= {"short.samples": short, "short.input": values[0], "short.logits": model(values).logits}
    # Less than one frame: normalised, then padded with zeros as the extractor pads.
    least = 1
    for kernel, stride in reversed(list(zip(model.config.conv_kernel, model.config.conv_stride))):
        least = (least - 1) * stride + kernel
    values = torch.nn.functional.pad(features(extractor, short[:100]), (0, least - 100))
    tensors["too_short.logits"] = model(values).logits
    assert tensors["too_short.logits"].shape[1] == 1
    about["least_samples"] = least
    return tensors, about


def padded_batch(model, extractor, clips: pathlib.Path) -> dict:
    """Two clips of unequal length at once; with a mask, each must come out as it does alone."""
    samples = [cut(clips, "tw_go_cart", 4_000, 9_000), cut(clips, "tw_cart", 3_000, 15_000)]
    batch = extractor(
        samples, sampling_rate=SAMPLE_RATE_HZ, padding=True, return_attention_mask=True, return_tensors="pt")
    logits = model(batch.input_values, attention_mask=batch.attention_mask).logits
    lengths = model._get_feat_extract_output_lengths(batch.attention_mask.sum(-1)).tolist()
    tensors = {}
    for i, n in enumerate(lengths):
        alone = model(features(extractor, samples[i])).logits
        assert alone.shape[1] == n and (alone[0] - logits[i, :n]).abs().max() < 1e-4
        tensors[f"batch.{i}.logits"] = logits[i : i + 1, :n]
    return tensors


def without_mask(model, extractor, clips: pathlib.Path) -> float:
    """How far a clip's logits move when it is padded in a batch without a mask."""
    samples = [cut(clips, "tw_go_cart", 4_000, 9_000), cut(clips, "tw_cart", 3_000, 15_000)]
    batch = extractor(samples, sampling_rate=SAMPLE_RATE_HZ, padding=True, return_tensors="pt")
    alone = model(features(extractor, samples[0])).logits[0]
    return (model(batch.input_values).logits[0, : alone.shape[0]] - alone).abs().max().item()


def write_old(model: Wav2Vec2ForCTC, folder: pathlib.Path) -> Wav2Vec2ForCTC:
    """f16 under the names of torch 1; gives back the model that reads so."""
    model.half().float()
    names = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
    state = {}
    for name, value in model.state_dict().items():
        for new, old in names.items():
            name = name.replace(new, old)
        state[name] = value.half()
    torch.save(state, folder / "pytorch_model.bin")
    model.config.save_pretrained(folder)
    again = Wav2Vec2ForCTC.from_pretrained(folder, use_safetensors=False, attn_implementation="eager",
                                           dtype=torch.float32).eval()
    assert torch.equal(again.wav2vec2.encoder.pos_conv_embed.conv.weight,
                       model.wav2vec2.encoder.pos_conv_embed.conv.weight), "old names must load as new ones"
    return again


def write_tokenizer(name: str, tokenizer, folder: pathlib.Path) -> None:
    """`tokenizer_config.json` as released: only what a reader needs of it."""
    special = {k: v for k in ("bos_token", "eos_token", "unk_token", "pad_token") if (v := getattr(tokenizer, k))}
    config = {"tokenizer_class": "Wav2Vec2CTCTokenizer", "do_lower_case": tokenizer.do_lower_case,
              "word_delimiter_token": "|", "replace_word_delimiter_char": " "}
    if name == "wav2vec2-old":
        write_json(folder / "special_tokens_map.json", special)
        return
    if name == "wav2vec2-mms":
        config |= {"clean_up_tokenization_spaces": True, "target_lang": "eng"}
    if name == "wav2vec2-xlsr":  # older tools wrote tokens as objects
        special["pad_token"] = {"__type": "AddedToken", "content": "[PAD]", "lstrip": False, "normalized": True}
    write_json(folder / "tokenizer_config.json", config | special)


def make_one(name: str, spec: dict, clips: pathlib.Path, folder: pathlib.Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "vocab.json", vocabulary(name))
    mms = name == "wav2vec2-mms"
    tokenizer = make_tokenizer(name, folder, "eng" if mms else None)
    vocab = vocabulary(name)["eng"] if mms else vocabulary(name)
    blank = vocab[tokenizer.pad_token]
    extractor = Wav2Vec2FeatureExtractor(
        do_normalize=name != "wav2vec2-old", return_attention_mask=spec["feat_extract_norm"] == "layer")
    inputs = [features(extractor, cut(clips, *clip)) for clip in CLIPS]
    model = make_model(spec, vocab, blank, inputs)
    extractor.save_pretrained(folder)
    write_tokenizer(name, tokenizer, folder)

    if name == "wav2vec2-old":
        model = write_old(model, folder)
    else:
        model.save_pretrained(folder)
    languages = [None]
    if mms:
        save_file({k: v.contiguous() for k, v in model._get_adapters().items()}, folder / "adapter.eng.safetensors")
        twi = vocabulary(name)["twi"]
        other = with_language(model, twi, blank, inputs, spec["seed"] + 100)
        save_file({k: v.contiguous() for k, v in other._get_adapters().items()}, folder / "adapter.twi.safetensors")
        languages = ["eng", "twi"]

    about = "transformers' greedy decoding; offsets in frames"
    decoded = {"about": about, "frame_samples": model.config.inputs_to_logits_ratio}
    tensors = {}
    for language in languages:
        prefix = ""
        if language is not None:
            model = Wav2Vec2ForCTC.from_pretrained(
                folder, target_lang=language, ignore_mismatched_sizes=True, attn_implementation="eager").eval()
            tokenizer = make_tokenizer(name, folder, language)
            prefix = f"{language}."
        more, about = all_tensors(model, extractor, clips, name)
        if spec["feat_extract_norm"] == "layer":
            more |= padded_batch(model, extractor, clips)
        else:
            about["without_mask_moves_logits_by"] = rounded(without_mask(model, extractor, clips), 3)
        if language == "twi":  # the body is told by eng
            more = {k: v for k, v in more.items() if k.endswith("logits") or ".block." in k}
        tensors |= {prefix + k: v for k, v in more.items()}
        record = {"stages": about, "clips": []}
        for clip, start, n_samples in CLIPS:
            record["clips"].append({"clip": clip, "start": start, "n_samples": n_samples}
                                   | greedy_record(model, tokenizer, extractor, cut(clips, clip, start, n_samples)))
        if name in ("wav2vec2-base", "wav2vec2-xlsr"):
            long = read_audio(clips / f"{LONG_CLIP}.flac")
            record["long"] = {"clip": LONG_CLIP} | long_record(model, tokenizer, extractor, long)
        if language is None:
            decoded |= record
        else:
            decoded[language] = record
    write_tensors(folder / "stages.safetensors", tensors, f"{name}: stages and logits, f32; see README.md")
    write_json(folder / "decoded.json", decoded)
    for path in folder.iterdir():
        path.chmod(0o644)


def make(clips: pathlib.Path, out: pathlib.Path) -> None:
    for name, spec in CONFIGS.items():
        make_one(name, spec, clips, out / name)
