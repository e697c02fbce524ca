"""Tiny seeded Whisper models: the weights, and what transformers' Whisper makes of them, stage by stage.

The weights are random but lively: every bias is nonzero, every layer norm scales and shifts, attention is far from
uniform. A missing bias, a swapped axis or a wrong scale moves the outputs by far more than the tolerance.
"""

import math
import pathlib

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import GenerationConfig, WhisperConfig, WhisperForConditionalGeneration
from transformers.cache_utils import DynamicCache, EncoderDecoderCache

import golden_formats
from golden_generate import greedy_record, beam_record
from golden_io import rounded, write_json, write_tensors

N_POSITIONS = 50  # encoder positions: a window of 1 s, 100 mel frames
FITTED_FRAMES = 60  # the shortened window
PROMPT_TOKENS = 3
CACHED_STEPS = 5

# tiny-multilingual has whisper-base's proportions. tiny-2 breaks each one that code may take for granted: 128 mel
# bins, unequal layer and head counts in encoder and decoder, d_ff not 4 x d_model, other special token ids,
# learned-looking encoder positions instead of sinusoids.
CONFIGS = {
    "tiny-multilingual": dict(
        seed=6, n_text=58, languages=["en", "sw", "fr"], sinusoids=True,
        d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4, decoder_attention_heads=4,
        encoder_ffn_dim=128, decoder_ffn_dim=128, num_mel_bins=80,
    ),
    "tiny-2": dict(
        seed=30, n_text=58, languages=["en", "sw", "fr", "yo"], sinusoids=False,
        d_model=16, encoder_layers=3, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=4,
        encoder_ffn_dim=40, decoder_ffn_dim=24, num_mel_bins=128,
    ),
}


def special_tokens(languages: list[str]) -> list[str]:
    """In Whisper's order; timestamps follow them, and text comes before."""
    return [
        "<|endoftext|>", "<|startoftranscript|>", *(f"<|{code}|>" for code in languages), "<|translate|>",
        "<|transcribe|>", "<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>",
    ]


def make_tokenizer(languages: list[str]) -> Tokenizer:
    """Byte-level BPE like Whisper's, with 58 text tokens. `É` `Ľ` and `É` `Ķ` are the bytes of ɛ and ɔ."""
    letters = list("abcdefghijklmnopqrstuvwxyz0123456789.,'?!") + ["Ġ", "É", "Ľ", "Ķ"]
    merges = [("Ġ", "t"), ("Ġ", "a"), ("h", "e"), ("Ġt", "he"), ("i", "n"), ("É", "Ķ"), ("É", "Ľ"),
              ("Ġ", "k"), ("c", "a"), ("r", "t"), ("ca", "rt"), ("Ġ", "n"), ("Ġn", "o")]
    vocab = {piece: i for i, piece in enumerate(letters + [a + b for a, b in merges])}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in special_tokens(languages)])
    tokenizer.add_tokens([AddedToken(f"<|{i * 0.02:.2f}|>", normalized=True) for i in range(N_POSITIONS + 1)])
    ids = {name: tokenizer.token_to_id(name) for name in ("<|startoftranscript|>", "<|notimestamps|>", "<|endoftext|>")}
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|startoftranscript|> <|notimestamps|> $A <|endoftext|>", special_tokens=list(ids.items())
    )
    return tokenizer


def make_model(spec: dict, tokenizer: Tokenizer) -> WhisperForConditionalGeneration:
    spec = dict(spec)
    seed, n_text, languages, sinusoids = (spec.pop(k) for k in ("seed", "n_text", "languages", "sinusoids"))
    token = tokenizer.token_to_id
    assert token("<|endoftext|>") == n_text
    eot, sot = token("<|endoftext|>"), token("<|startoftranscript|>")
    config = WhisperConfig(
        **spec, max_source_positions=N_POSITIONS, max_target_positions=32, vocab_size=tokenizer.get_vocab_size(),
        bos_token_id=eot, eos_token_id=eot, pad_token_id=eot, decoder_start_token_id=sot,
        suppress_tokens=None, begin_suppress_tokens=None,  # they are in generation_config.json
        dropout=0.0, attn_implementation="eager",
    )
    model = WhisperForConditionalGeneration(config).eval()

    generator = torch.Generator().manual_seed(seed)
    randn = lambda like: torch.randn(like.shape, generator=generator)
    for name, p in sorted(model.named_parameters()):
        if "layer_norm.weight" in name:
            p.copy_(1 + 0.3 * randn(p))
        elif "layer_norm.bias" in name:
            p.copy_(0.2 * randn(p))
        elif name.endswith("bias"):
            p.copy_(0.1 * randn(p))
        elif "embed_positions" in name:
            if not (sinusoids and "encoder" in name):
                p.copy_((0.3 if "encoder" in name else 1.2) * randn(p))
        elif "embed_tokens" in name:
            p.copy_(0.5 * randn(p))
        else:
            gain = 1.5 if "q_proj" in name or "k_proj" in name else 1.0
            p.copy_(randn(p) * gain / math.sqrt(p[0].numel()))

    model.generation_config = GenerationConfig(
        bos_token_id=eot, eos_token_id=eot, pad_token_id=eot, decoder_start_token_id=sot,
        prev_sot_token_id=token("<|startofprev|>"), no_timestamps_token_id=token("<|notimestamps|>"),
        max_initial_timestamp_index=25, is_multilingual=True, max_length=32,
        lang_to_id={f"<|{code}|>": token(f"<|{code}|>") for code in languages},
        task_to_id={task: token(f"<|{task}|>") for task in ("transcribe", "translate")},
        suppress_tokens=[3, 7, sot, *(token(f"<|{t}|>") for t in
                         ("translate", "transcribe", "startoflm", "startofprev", "nospeech"))],
        begin_suppress_tokens=[token("."), eot],
        alignment_heads=[[spec["decoder_layers"] - 1, 1], [0, 0]],
    )
    return model


def run_encoder(model, mel: torch.Tensor) -> dict[str, torch.Tensor]:
    """The encoder by hand, so that a window shorter than the model's can go through with its positions cut."""
    encoder = model.model.encoder
    stages = {"conv1": F.gelu(encoder.conv1(mel))}  # [batch, n_state, n_frames]
    stages["conv2"] = F.gelu(encoder.conv2(stages["conv1"]))  # [batch, n_state, n_audio_ctx]
    x = stages["conv2"].permute(0, 2, 1)
    x = x + encoder.embed_positions.weight[: x.shape[1]]
    stages["embedded"] = x  # [batch, n_audio_ctx, n_state]
    for i, layer in enumerate(encoder.layers):
        x = stages[f"block.{i}"] = layer(x, None)
    stages["ln_post"] = encoder.layer_norm(x)
    return stages


def run_decoder(model, tokens: torch.Tensor, audio: torch.Tensor) -> dict[str, torch.Tensor]:
    """The decoder at once, uncached; its stages caught by hooks."""
    decoder, stages, hooks = model.model.decoder, {}, []
    hooks.append(decoder.layers[0].register_forward_pre_hook(lambda m, args: stages.update({"embedded": args[0]})))
    for i, layer in enumerate(decoder.layers):
        hooks.append(layer.register_forward_hook(lambda m, args, out, i=i: stages.update({f"block.{i}": out})))
    out = decoder(input_ids=tokens, encoder_hidden_states=audio, output_attentions=True, use_cache=False)
    for hook in hooks:
        hook.remove()
    stages["ln"] = out.last_hidden_state
    stages["logits"] = model.proj_out(out.last_hidden_state)
    for i, weights in enumerate(out.cross_attentions):
        stages[f"cross_attention.{i}"] = weights  # [batch, n_head, n_tokens, n_audio_ctx], rows sum to 1
    return stages


def run_cached(model, tokens: torch.Tensor, audio: torch.Tensor) -> dict[str, torch.Tensor]:
    """The prompt, then one token a step, on a key-value cache."""
    cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
    step = lambda ids: model.proj_out(
        model.model.decoder(
            input_ids=ids, encoder_hidden_states=audio, past_key_values=cache, use_cache=True
        ).last_hidden_state
    )
    prompt = step(tokens[:, :PROMPT_TOKENS])
    steps = [step(tokens[:, i : i + 1]) for i in range(PROMPT_TOKENS, PROMPT_TOKENS + CACHED_STEPS)]
    return {"prompt_logits": prompt, "logits": torch.cat(steps, dim=1)}


def all_stages(model, mel: torch.Tensor, tokens: torch.Tensor) -> dict[str, torch.Tensor]:
    out = {}
    audio = None
    for window, window_mel in (("encoder", mel), ("fitted", mel[..., :FITTED_FRAMES])):
        stages = run_encoder(model, window_mel)
        kept = stages if window == "encoder" else ("conv2", "embedded", "ln_post")
        out |= {f"{window}.{k}": stages[k] for k in kept}
        if window == "encoder":
            audio = stages["ln_post"]
    own = model.model.encoder(mel).last_hidden_state
    assert torch.equal(audio, own), "by hand and by transformers must be one"
    out |= {f"decoder.{k}": v for k, v in run_decoder(model, tokens, audio).items()}
    out["fitted.logits"] = run_decoder(model, tokens, out["fitted.ln_post"])["logits"]
    out |= {f"cached.{k}": v for k, v in run_cached(model, tokens, audio).items()}
    cached = out["cached.logits"] - out["decoder.logits"][:, PROMPT_TOKENS:]
    assert cached.abs().max() < 1e-4, "cached and uncached must agree"
    return out


def make_one(name: str, spec: dict, out: pathlib.Path) -> None:
    tokenizer = make_tokenizer(spec["languages"])
    model = make_model(spec, tokenizer)
    config = model.config

    generator = torch.Generator().manual_seed(100 + spec["seed"])
    # Log-mel of speech lies in about [-1, 1.5] and is smooth in time.
    mel = torch.randn(2, config.num_mel_bins, 2 * N_POSITIONS + 4, generator=generator)
    mel = 0.3 + 1.2 * F.avg_pool1d(mel, 5, stride=1)
    sot_sequence = [tokenizer.token_to_id(t) for t in ("<|startoftranscript|>", "<|en|>", "<|transcribe|>")]
    text = torch.randint(0, spec["n_text"], (2, CACHED_STEPS), generator=generator)
    tokens = torch.cat([torch.tensor([sot_sequence, sot_sequence]), text], dim=1)
    tokens[1, 1] = tokenizer.token_to_id("<|sw|>")

    stages = all_stages(model, mel, tokens)
    exact = all_stages(model.double(), mel.double(), tokens)
    model.float()
    errors = {k: (stages[k].double() - exact[k]).abs().max().item() for k in stages}
    write_tensors(
        out / "stages.safetensors",
        {"encoder.input": mel, "decoder.tokens": tokens, **stages},
        f"{name}: every stage of one forward pass, f32; see README.md",
    )

    golden_formats.write_hugging_face(model, tokenizer, out)
    generate = []
    for item in range(2):
        for timestamps in (False, True):
            case = dict(item=item, language=["en", "sw"][item], task="transcribe", timestamps=timestamps)
            generate.append(case | greedy_record(model, tokenizer, mel[item : item + 1], **case))
        case = dict(item=item, language="en", task="translate", timestamps=False)
        generate.append(case | beam_record(model, tokenizer, mel[item : item + 1], n_beams=4, **case))
    write_json(out / "generate.json", {
        "about": "transformers' generate on item ITEM of encoder.input, one item at a time, one full window",
        "max_length": "32, the prompt included (transformers' rule; OpenAI stops after n_text_ctx / 2 new tokens)",
        "stages": {
            k: {"shape": list(v.shape), "max_abs": rounded(v.abs().max(), 4), "f32_vs_f64_max": rounded(errors[k], 3)}
            for k, v in sorted(stages.items())
        },
        "cases": generate,
    })


def make(out: pathlib.Path) -> None:
    for name, spec in CONFIGS.items():
        make_one(name, spec, out / name)
    golden_formats.make(out / "tiny-2")
