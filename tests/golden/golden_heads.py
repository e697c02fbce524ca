"""Tiny seeded models with an intent head, one folder for each form in which repositories hold one.

What each must answer comes from transformers' own encoder (its `output_hidden_states` and, where there is such a class,
its own head) and from torch modules on top. Heads are as lively as golden_tiny.py's weights: nonzero biases, unequal
layer weights, sizes that differ from each other, and a clear winner on every input.
"""

import json
import pathlib
import shutil
import tempfile

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import WhisperFeatureExtractor, WhisperForAudioClassification, WhisperForConditionalGeneration

from golden_io import SAMPLE_RATE_HZ, fit, read_audio, rounded, write_json, write_tensors
from golden_tiny import CONFIGS, FITTED_FRAMES, make_model, make_tokenizer, run_encoder

MEL_SOURCE = "tiny-multilingual/stages.safetensors"
CLIP = "tw_go_cart"
# What a short clip's window is made of: 0.75 s fit into the 1 s window also with the fitted window's margin.
CLIP_SAMPLES = 12_000
MIN_MARGIN = 0.05  # of the best logit over the second: three orders over the tolerance
FOLDERS = ["classification", "classification-weighted", "one-encoder", "one-encoder-mlp", "multitask",
           "multitask-shared", "head-only"]

# As tiny-multilingual, but with smaller MLPs and one decoder layer, so that a folder stays small.
TINY = CONFIGS["tiny-multilingual"] | dict(decoder_layers=1, encoder_ffn_dim=48, decoder_ffn_dim=32)
SHOP = ["add_to_cart", "apply_coupon", "cancel_order", "checkout", "search", "show_cart", "track_order"]


class Recipe:
    """Random numbers of one folder."""

    def __init__(self, seed: int):
        self.seed = seed
        self.generator = torch.Generator().manual_seed(1_000 + seed)

    def fill(self, module: nn.Module, gain: float = 1.5) -> nn.Module:
        """Lively weights and biases, in the order of their names."""
        for name, p in sorted(module.named_parameters()):
            scale = 0.3 if name.endswith("bias") else gain / p.shape[-1] ** 0.5
            p.copy_(scale * torch.randn(p.shape, generator=self.generator))
        return module.eval()

    def linear(self, n_in: int, n_out: int) -> nn.Linear:
        return self.fill(nn.Linear(n_in, n_out), gain=3.0)

    def layer_weights(self, n: int) -> torch.Tensor:
        return torch.randn(n, generator=self.generator)


def make_whisper(seed: int, **changes) -> WhisperForConditionalGeneration:
    spec = TINY | changes | dict(seed=seed)
    return round_to_half(make_model(spec, make_tokenizer(spec["languages"])))


def make_classifier(seed: int, labels: list[str], weighted: bool) -> WhisperForAudioClassification:
    """transformers' own class, on the encoder of `make_whisper`."""
    whisper = make_whisper(seed)
    config = whisper.config
    config.update(dict(
        num_labels=len(labels), id2label=dict(enumerate(labels)), label2id={l: i for i, l in enumerate(labels)},
        use_weighted_layer_sum=weighted, classifier_proj_size=24,
    ))
    model = WhisperForAudioClassification(config).eval()
    model.encoder.load_state_dict(whisper.model.encoder.state_dict())
    recipe = Recipe(seed)
    recipe.fill(model.projector)
    recipe.fill(model.classifier, gain=4.0)
    if weighted:
        model.layer_weights.copy_(recipe.layer_weights(len(model.layer_weights)))
    return round_to_half(model)


def round_to_half(model: nn.Module) -> nn.Module:
    """Half precision holds every weight exactly, so that the same numbers come from an f16 and an f32 file."""
    for p in model.parameters():
        p.copy_(p.half().to(p.dtype))
    return model


class Head:
    """What a folder's head does with an encoder's hidden states, in torch."""

    def __init__(self, module: nn.Module, layer_weights: torch.Tensor | None = None):
        self.module, self.layer_weights = module, layer_weights

    def __call__(self, hidden: tuple[torch.Tensor, ...]) -> torch.Tensor:
        if self.layer_weights is None:
            x = hidden[-1]
        else:
            weights = torch.softmax(self.layer_weights, dim=-1).to(hidden[0].dtype)
            x = (torch.stack(hidden, dim=1) * weights.view(-1, 1, 1)).sum(dim=1)
        return self.module(x.mean(dim=1))


class Holder:
    """`run_encoder` reads `model.model.encoder`."""

    def __init__(self, encoder: nn.Module):
        self.model, self.encoder = self, encoder


def hidden_states(encoder: nn.Module, mel: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """All n_layer + 1 of them. transformers' encoder takes full windows only; a fitted one goes through by hand."""
    by_hand = run_encoder(Holder(encoder), mel)
    n_layer = len(encoder.layers)
    states = (by_hand["embedded"], *(by_hand[f"block.{i}"] for i in range(n_layer - 1)), by_hand["ln_post"])
    if mel.shape[-1] == 2 * encoder.config.max_source_positions:
        own = encoder(mel, output_hidden_states=True).hidden_states
        # The last entry is the *normalised* output of the last block; its raw output is none of them.
        assert len(own) == n_layer + 1 and all(torch.equal(a, b) for a, b in zip(own, states))
    return states


def inputs_of(clips: pathlib.Path, mel: torch.Tensor, fitted: bool) -> dict[str, tuple[torch.Tensor, dict]]:
    """Log-mel windows by name, with what a test has to know to make them itself."""
    clip = read_audio(clips / f"{CLIP}.flac")
    extractor = WhisperFeatureExtractor(feature_size=mel.shape[1], chunk_length=1)
    assert (extractor.n_samples, extractor.nb_max_frames) == (16_000, 100)

    def log_mel(samples, **how) -> torch.Tensor:
        made = extractor(samples, sampling_rate=SAMPLE_RATE_HZ, return_tensors="np", **how)
        return torch.from_numpy(made.input_features)

    short = clip[:CLIP_SAMPLES]
    source = {"clip": CLIP, "samples": [0, CLIP_SAMPLES]}
    if fitted:
        windows = {
            "mel": (mel[..., :FITTED_FRAMES], {"tensor": f"{MEL_SOURCE} encoder.input, frames 0..{FITTED_FRAMES}"}),
            "clip": (log_mel(fit(short), padding="longest", truncation=False), source | {
                "window": f"the samples, then zeros up to {len(fit(short))}: golden_io.fit"}),
        }
    else:
        windows = {
            "mel": (mel, {"tensor": f"{MEL_SOURCE} encoder.input"}),
            "clip": (log_mel(short), source | {"window": "the samples, then zeros up to 16000"}),
            "cut": (log_mel(clip), {"clip": CLIP, "samples": [0, 16_000],
                                    "window": f"the first 16000 of {len(clip)} samples, as transformers cuts them"}),
        }
    return {name: (x, about | {"n_frames": x.shape[-1]}) for name, (x, about) in windows.items()}


def write_expected(out: pathlib.Path, facts: dict, labels: list[str], encoder: nn.Module, head: Head,
                   windows: dict, check=None) -> None:
    """expected.safetensors and expected.json. `check(mel)`, where given, are the logits of a class of transformers."""
    tensors, answers = {}, {}
    for name, (mel, about) in windows.items():
        hidden = hidden_states(encoder, mel)
        logits = head(hidden)
        if check is not None:
            assert (check(mel) - logits).abs().max() < 1e-5, "by hand and by transformers must be one"
        if name == "mel":
            tensors |= {f"hidden.{i}": state[:1] for i, state in enumerate(hidden)}
        tensors |= {f"{name}.logits": logits, f"{name}.probabilities": logits.softmax(dim=-1)}

        exact = exact_logits(encoder, head, mel)
        best = logits.topk(2, dim=-1)
        margin = (best.values[:, 0] - best.values[:, 1]).min()
        assert margin > MIN_MARGIN, (out.name, name, margin)
        answers[name] = about | {
            "logits": [[rounded(v) for v in row] for row in logits.tolist()],
            "argmax": best.indices[:, 0].tolist(),
            "labels": [labels[i] for i in best.indices[:, 0].tolist()],
            "probability": [rounded(v) for v in logits.softmax(dim=-1).max(dim=-1).values],
            "min_margin": rounded(margin, 3),
            "f32_vs_f64_max": rounded((logits.double() - exact).abs().max(), 3),
        }
    two = tensors["mel.logits"]
    assert (two[0] - two[1]).abs().max() > MIN_MARGIN, "the head must listen"
    write_tensors(out / "expected.safetensors", tensors, f"heads/{out.name}: hidden states of item 0, logits; f32")
    write_json(out / "expected.json", facts | {
        "labels": labels,
        "n_head_parameters": sum(p.numel() for p in head.module.parameters())
        + (0 if head.layer_weights is None else head.layer_weights.numel()),
        "answers": answers,
    })


def exact_logits(encoder: nn.Module, head: Head, mel: torch.Tensor) -> torch.Tensor:
    """The same in f64."""
    encoder.double(), head.module.double()
    exact = head(hidden_states(encoder, mel.double()))
    encoder.float(), head.module.float()
    return exact


def write_weights(out: pathlib.Path, state: dict[str, torch.Tensor], file: str) -> None:
    if file.endswith(".bin"):
        torch.save(state, out / file)
    else:
        save_file({k: v.contiguous() for k, v in state.items()}, out / file, {"format": "pt"})
    (out / file).chmod(0o644)


def write_config(out: pathlib.Path, config, changes: dict) -> None:
    """config.json as transformers writes it, with `changes`."""
    with tempfile.TemporaryDirectory() as tmp:
        config.save_pretrained(tmp)
        saved = json.loads((pathlib.Path(tmp) / "config.json").read_text())
    write_json(out / "config.json", saved | changes)


def copy_files(base: pathlib.Path, out: pathlib.Path, names: list[str]) -> None:
    for name in names:
        shutil.copy(base / name, out / name)


WITH_DECODER = ["tokenizer.json", "tokenizer_config.json", "preprocessor_config.json"]


def make_classification(name: str, seed: int, labels: list[str], weighted: bool, mels: dict, base: pathlib.Path,
                        out: pathlib.Path) -> None:
    model = make_classifier(seed, labels, weighted)
    head = Head(nn.Sequential(model.projector, model.classifier), model.layer_weights if weighted else None)
    # The mean over positions and the projector are both linear: projecting the mean is what the class does.
    write_expected(out, {
        "task": "multi", "has_decoder": False, "window": "full", "labels_from": "config.json",
        "head": {"layer_weights": weighted, "projector": True, "hidden": None},
        "weights": "f16, the whole state dict" if weighted else "f32",
    }, labels, model.encoder, head, mels, check=lambda mel: model(mel).logits)
    changes = {"architectures": ["WhisperForAudioClassification"], "dtype": "float16" if weighted else "float32"}
    write_config(out, model.config, changes)
    copy_files(base, out, ["preprocessor_config.json"])
    if weighted:
        write_weights(out, model.half().state_dict(), "pytorch_model.bin")
    else:
        write_weights(out, model.state_dict(), "model.safetensors")


def make_one_encoder(seed: int, mels: dict, base: pathlib.Path, out: pathlib.Path) -> None:
    labels = SHOP
    whisper = make_whisper(seed)
    linear = round_to_half(Recipe(seed).linear(32, len(labels)))
    write_expected(out, {
        "task": "multi", "has_decoder": True, "window": "full", "labels_from": "intent_labels.json",
        "head": {"layer_weights": False, "projector": False, "hidden": None}, "weights": "f16, no proj_out.weight",
    }, labels, whisper.model.encoder, Head(linear), mels)
    write_config(out, whisper.config, {
        "architectures": ["WhisperForConditionalGeneration"], "dtype": "float16", "custom_model": True,
        "task_types": ["transcription", "intent_classification"], "num_labels": len(labels),
    })
    whisper.generation_config.save_pretrained(out)
    copy_files(base, out, WITH_DECODER)
    write_json(out / "intent_labels.json", {
        "label_to_id": {l: i for i, l in enumerate(labels)}, "id_to_label": {str(i): l for i, l in enumerate(labels)},
    })
    state = {k: v for k, v in whisper.half().state_dict().items() if k != "proj_out.weight"}
    state |= {f"intent_head.{k}": v for k, v in linear.half().state_dict().items()}
    write_weights(out, state, "model.safetensors")


def make_one_encoder_mlp(seed: int, mels: dict, base: pathlib.Path, out: pathlib.Path) -> None:
    labels = [*SHOP[:5], "out_of_scope"]
    whisper = make_whisper(seed)
    recipe = Recipe(seed)
    mlp = nn.Sequential(recipe.linear(32, 20), nn.ReLU(), nn.Dropout(0.1), recipe.linear(20, len(labels)))
    round_to_half(mlp.eval())
    write_expected(out, {
        "task": "multi", "has_decoder": True, "window": "full", "labels_from": "label_map.json",
        "head": {"layer_weights": False, "projector": False, "hidden": "relu"}, "weights": "f16, no proj_out.weight",
    }, labels, whisper.model.encoder, Head(mlp), mels)
    write_config(out, whisper.config, {"architectures": ["WhisperForConditionalGeneration"], "dtype": "float16"})
    whisper.generation_config.save_pretrained(out)
    copy_files(base, out, WITH_DECODER)
    # Not in class order: the ids count.
    write_json(out / "label_map.json", {l: i for i, l in reversed(list(enumerate(labels)))})
    state = {f"whisper.{k}": v for k, v in whisper.half().state_dict().items() if k != "proj_out.weight"}
    state |= {f"intent_classifier.{k}": v for k, v in mlp.half().state_dict().items()}
    write_weights(out, state, "model.safetensors")


def make_multitask(seed: int, shared: bool, mels: dict, base: pathlib.Path, out: pathlib.Path) -> None:
    labels = SHOP[:5] if shared else [*SHOP, "unknown"]
    n_layers = dict(encoder_layers=2 if shared else 1)  # two encoders are to fit into a small file
    whisper = make_whisper(seed, **n_layers)
    encoder = whisper.model.encoder if shared else make_whisper(seed + 1, **n_layers).model.encoder
    linear = round_to_half(Recipe(seed).linear(32, len(labels)))
    write_expected(out, {
        "task": "multi", "has_decoder": True, "window": "full", "labels_from": "intent_labels.json",
        "head": {"layer_weights": False, "projector": False, "hidden": None},
        "weights": "f16, the whole state dict: proj_out.weight shares embed_tokens' storage",
        "encoder": "transcription_model.model.encoder" if shared else "classification_model.encoder",
    }, labels, encoder, Head(linear), mels)
    write_config(out, whisper.config, {
        "architectures": ["WhisperForMultiTask"], "dtype": "float16", "num_labels": len(labels),
    })
    whisper.generation_config.save_pretrained(out)
    copy_files(base, out, WITH_DECODER)
    write_json(out / "intent_labels.json", {"intent_to_id": {l: i for i, l in enumerate(labels)}})
    state = {f"transcription_model.{k}": v for k, v in whisper.half().state_dict().items()}
    if not shared:
        state |= {f"classification_model.encoder.{k}": v for k, v in encoder.half().state_dict().items()}
    state |= {f"classification_model.classifier.{k}": v for k, v in linear.half().state_dict().items()}
    write_weights(out, state, "pytorch_model.bin")


def make_head_only(seed: int, mels: dict, base: pathlib.Path, out: pathlib.Path) -> None:
    labels = [*SHOP[:5], "none"]
    encoder = WhisperForConditionalGeneration.from_pretrained(base, attn_implementation="eager").eval().model.encoder
    recipe = Recipe(seed)
    linear = recipe.linear(32, len(labels))
    layer_weights = recipe.layer_weights(1 + len(encoder.layers))
    write_expected(out, {
        "task": "multi", "has_decoder": False, "window": "fitted", "labels_from": "intent_labels.json",
        "head": {"layer_weights": True, "projector": False, "hidden": None}, "weights": "f32",
        "encoder": "tests/golden/tiny-multilingual",
    }, labels, encoder, Head(linear, layer_weights), mels)
    write_json(out / "config.json", {
        "model_type": "okyeame_intent_head", "architectures": ["OkyeameIntentHead"],
        "_name_or_path": "okyeame-tests/tiny-multilingual", "d_model": 32, "encoder_layers": 2,
        "num_labels": len(labels), "window": "fitted",
    })
    write_json(out / "intent_labels.json", labels)
    state = {f"classifier.{k}": v for k, v in linear.state_dict().items()} | {"layer_weights": layer_weights}
    write_weights(out, state, "model.safetensors")


def make(clips: pathlib.Path, base: pathlib.Path, out: pathlib.Path) -> None:
    """Under OUT, one folder each. BASE is tiny-multilingual as golden_tiny.py wrote it."""
    mel = load_file(base / "stages.safetensors")["encoder.input"]
    full, fitted = inputs_of(clips, mel, fitted=False), inputs_of(clips, mel, fitted=True)
    for name in FOLDERS:
        (out / name).mkdir(parents=True, exist_ok=True)
    make_classification("classification", 41, SHOP[:5], False, full, base, out / "classification")
    labels = [*SHOP[:5], "unknown"]
    make_classification("classification-weighted", 42, labels, True, full, base, out / "classification-weighted")
    make_one_encoder(43, full, base, out / "one-encoder")
    make_one_encoder_mlp(44, full, base, out / "one-encoder-mlp")
    make_multitask(45, False, full, base, out / "multitask")
    make_multitask(47, True, full, base, out / "multitask-shared")
    make_head_only(48, fitted, base, out / "head-only")
