"""What whisper-base says about the clips: exact tokens, languages, no-speech, words, and a sample of its numbers.

transformers' WhisperForConditionalGeneration, float32 (the weights are float16 on disk), CPU. The decoding settings
that are not defaults are written into tokens.json beside the results.
"""

import pathlib

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer
from transformers import WhisperFeatureExtractor, WhisperForConditionalGeneration, WhisperTokenizer
from transformers.modeling_outputs import BaseModelOutput

from golden_generate import beam_record, greedy_record, text_of
from golden_io import CONV_STRIDE, HOP_LENGTH, SAMPLE_RATE_HZ, fit, read_audio, rounded, write_json, write_tensors
from golden_tiny import run_encoder

N_SAMPLES = 30 * SAMPLE_RATE_HZ
LONG_CLIP = "en_long"
NUMBERS_CLIP = "en_short"  # its encoder output and first logits are sampled
WORD_CLIPS = ["en_short", "en_eleven"]
BEAM_CASES = [("en_short", "en"), ("en_numbers", "en"), ("tw_cart", "sw")]
FITTED_CASES = [("en_short", "en"), ("tw_cart", "sw")]
FITTED_NEW_TOKENS = 40  # an unadapted decoder may repeat itself on a short window until it is stopped
BOTH = (False, True)

# clip -> (language, task, with and without timestamps)
CASES = {
    "en_short": [("en", "transcribe", BOTH)],
    "en_medium": [("en", "transcribe", BOTH)],
    "en_eleven": [("en", "transcribe", BOTH)],
    "en_numbers": [("en", "transcribe", BOTH)],
    "tw_cart": [("sw", "transcribe", BOTH), ("yo", "transcribe", BOTH), ("en", "transcribe", (False,))],
    "tw_go_cart": [("sw", "transcribe", BOTH), ("yo", "transcribe", BOTH), ("en", "transcribe", (False,))],
    "tw_shoes": [("sw", "transcribe", BOTH), ("yo", "transcribe", BOTH), ("en", "transcribe", (False,))],
    "sw_shop": [("sw", "transcribe", BOTH), ("sw", "translate", (False,))],
    "fr_shop": [("fr", "transcribe", BOTH), ("fr", "translate", BOTH)],
}
EXTRA_CASES = [("en", "transcribe", BOTH)]


class Base:
    """The model, its tokenizer, and the clips by name."""

    def __init__(self, folder: pathlib.Path):
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.model = WhisperForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
        self.extractor = WhisperFeatureExtractor(feature_size=self.model.config.num_mel_bins)
        token = self.tokenizer.token_to_id
        self.sot, self.nospeech = token("<|startoftranscript|>"), token("<|nospeech|>")
        generation = self.model.generation_config
        # ct2_to_hf.py writes none of these four.
        generation.pad_token_id = generation.eos_token_id
        generation.lang_to_id = {
            self.tokenizer.id_to_token(i): i for i in range(self.sot + 1, token("<|translate|>"))
        }
        generation.task_to_id = {task: token(f"<|{task}|>") for task in ("transcribe", "translate")}
        generation.max_initial_timestamp_index = 50  # OpenAI's default: 1.0 s
        self.settings = {
            "suppress_tokens": generation.suppress_tokens,
            "begin_suppress_tokens": generation.begin_suppress_tokens,
            "max_initial_timestamp_index": 50,
            "alignment_heads": generation.alignment_heads,
            "max_length": "448, the prompt included",
            "temperature": 0, "do_sample": False, "condition_on_prev_tokens": False,
            "thresholds": "none: no fall-back, no skipping of silence",
            "no_speech_token": self.nospeech,
        }

    def features(self, samples: np.ndarray) -> torch.Tensor:
        """`[1, n_mels, 3000]`: the first 30 s, padded with zero samples."""
        return self.extractor(samples[:N_SAMPLES], sampling_rate=SAMPLE_RATE_HZ, return_tensors="pt").input_features

    def unpadded_features(self, samples: np.ndarray) -> torch.Tensor:
        """`[1, n_mels, n_samples / 160]`: one spectrogram of the whole clip, its floor from its own loudest bin."""
        return self.extractor(
            samples, sampling_rate=SAMPLE_RATE_HZ, return_tensors="pt", padding="longest", truncation=False
        ).input_features

    def logits(self, audio: torch.Tensor, tokens: list[int]) -> torch.Tensor:
        """`[n_vocab]`: unfiltered, after the last of `tokens`."""
        outputs = BaseModelOutput(last_hidden_state=audio)
        return self.model(encoder_outputs=outputs, decoder_input_ids=torch.tensor([tokens])).logits[0, -1]


def languages(base: Base, samples: np.ndarray) -> dict:
    """The language and the no-speech probability, from the logits after <|startoftranscript|> alone."""
    logits = base.logits(base.model.model.encoder(base.features(samples)).last_hidden_state, [base.sot])
    ids = base.model.generation_config.lang_to_id
    among = logits[list(ids.values())].softmax(dim=-1)
    codes = [name.strip("<|>") for name in ids]
    best = among.topk(5)
    assert base.model.detect_language(base.features(samples)).item() == list(ids.values())[best.indices[0]]
    return {
        "language": codes[best.indices[0]],
        "probabilities": {codes[i]: rounded(p, 5) for p, i in zip(best.values, best.indices)},
        "no_speech_prob": rounded(logits.softmax(dim=-1)[base.nospeech], 5),
    }


def long_form(base: Base, samples: np.ndarray, condition_on_prev_tokens: bool) -> dict:
    """transformers' sequential long form: windows move on to the last closed timestamp."""
    seeks = []
    generation = base.model.generation_config
    generation.return_dict_in_generate = generation.output_scores = True
    out = base.model.generate(
        base.unpadded_features(samples), language="en", task="transcribe", return_timestamps=True,
        return_segments=True, num_beams=1, do_sample=False, temperature=0.0,
        condition_on_prev_tokens=condition_on_prev_tokens,
        monitor_progress=lambda p: seeks.append(int(p[0, 0])),
    )
    generation.return_dict_in_generate = generation.output_scores = None
    windows = {id(s["result"]): s["result"] for s in out["segments"][0]}  # each segment carries its window's result
    margins = []
    for result in windows.values():
        best = torch.stack(result["scores"]).float().topk(2, dim=-1).values  # [n_steps, 2]
        margins.append(rounded((best[:, 0] - best[:, 1]).min(), 3))
    segments = [
        {
            "start_s": rounded(s["start"]), "end_s": rounded(s["end"]), "tokens": s["tokens"].tolist(),
            "text": text_of(base.tokenizer, s["tokens"].tolist()),
        }
        for s in out["segments"][0]
    ]
    return {
        "clip": LONG_CLIP, "language": "en", "task": "transcribe", "timestamps": True,
        "condition_on_prev_tokens": condition_on_prev_tokens, "seek_frames": seeks,
        "window_sequences": [r["sequences"].tolist() for r in windows.values()], "window_min_margins": margins,
        "tokens": out["sequences"][0].tolist(), "text": "".join(s["text"] for s in segments), "segments": segments,
    }


def words(base: Base, folder: pathlib.Path, ct2: pathlib.Path | None, name: str, path: pathlib.Path) -> dict:
    """Word times by transformers, by CTranslate2 (OpenAI's method, raw), and by faster-whisper (the same, tidied)."""
    samples = read_audio(path)
    inputs = base.extractor(
        samples, sampling_rate=SAMPLE_RATE_HZ, return_tensors="pt", return_attention_mask=True
    )
    tokenizer = WhisperTokenizer.from_pretrained(folder)
    record = {"clip": name, "language": "en"}
    for timestamps in BOTH:
        out = base.model.generate(
            **inputs, language="en", task="transcribe", return_timestamps=timestamps, return_token_timestamps=True,
            num_beams=1, do_sample=False,
        )
        tokens, times = out["sequences"], out["token_timestamps"]
        _, extra = tokenizer._decode_asr(
            [{"tokens": tokens.numpy(), "token_timestamps": times.numpy()}],
            return_timestamps="word", return_language=None, time_precision=0.02,
        )
        record["transformers_with_timestamps" if timestamps else "transformers"] = {
            "n_frames": int(inputs.attention_mask.sum()), "tokens": tokens[0].tolist(),
            "token_s": [rounded(t, 5) for t in times[0]],
            "words": [[c["text"], *(rounded(t, 5) for t in c["timestamp"])] for c in extra["chunks"]],
        }
    if ct2 is None:
        return record

    import ctranslate2
    import faster_whisper

    model = faster_whisper.WhisperModel(str(ct2), device="cpu", compute_type="float32", cpu_threads=1)
    text = record["transformers"]["tokens"]
    n_frames = len(samples) // HOP_LENGTH
    sot_sequence = [base.sot, *(base.tokenizer.token_to_id(t) for t in ("<|en|>", "<|transcribe|>"))]
    mel = ctranslate2.StorageView.from_array(inputs.input_features.numpy())
    aligned = model.model.align(mel, sot_sequence, [text], n_frames, median_filter_width=7)[0]
    text_indices, time_indices = np.array(aligned.alignments).T
    starts = time_indices[np.diff(text_indices, prepend=-1) > 0]
    assert len(starts) == len(text) + 1
    record["ctranslate2_align"] = {
        "n_frames": n_frames, "start_sequence": sot_sequence, "text_tokens": text,
        "text_indices": text_indices.tolist(), "time_indices": time_indices.tolist(),
        "token_start_s": [rounded(t * 0.02, 5) for t in starts],
        "token_probabilities": [rounded(p, 4) for p in aligned.text_token_probs],
    }
    segments, _ = model.transcribe(
        samples, language="en", beam_size=1, temperature=0.0, word_timestamps=True, condition_on_previous_text=False
    )
    record["faster_whisper"] = [
        [w.word, rounded(w.start, 5), rounded(w.end, 5), rounded(w.probability, 4)] for s in segments for w in s.words
    ]
    return record


def numbers(base: Base, samples: np.ndarray, out: pathlib.Path) -> dict:
    """A sample of the encoder's output on the full and on the fitted window, and of the first logits."""
    tensors, facts = {}, {}
    for window, features in (
        ("full", base.features(samples)), ("fitted", base.unpadded_features(fit(samples)))
    ):
        audio = run_encoder(base.model, features)["ln_post"]  # [1, n_audio_ctx, n_state]
        if window == "full":
            assert torch.equal(audio, base.model.model.encoder(features).last_hidden_state)
        exact = run_encoder(base.model.double(), features.double())["ln_post"]
        base.model.float()
        tensors |= {
            f"{window}.first": audio[0, :4, :16], f"{window}.last": audio[0, -4:, :16],
            f"{window}.mean": audio[0].mean(dim=0), f"{window}.std": audio[0].std(dim=0, unbiased=False),
        }
        facts[window] = {
            "n_frames": features.shape[2], "n_audio_ctx": audio.shape[1],
            "mean": rounded(audio.mean()), "std": rounded(audio.std(unbiased=False)), "max_abs": rounded(audio.abs().max()),
            "f32_vs_f64_max": rounded((exact - audio).abs().max(), 3),
        }
        token = base.tokenizer.token_to_id
        prompt = [base.sot, token("<|en|>"), token("<|transcribe|>"), token("<|notimestamps|>")]
        for where, tokens in (("first_step", prompt), ("sot", [base.sot])):
            logits = base.logits(audio, tokens)
            best = logits.topk(20)
            facts[window][where] = {
                "prompt": tokens, "top_ids": best.indices.tolist(), "top_logits": [rounded(v) for v in best.values],
                "logsumexp": rounded(logits.logsumexp(dim=-1)), "mean": rounded(logits.mean()),
            }
    write_tensors(out / "encoder.safetensors", tensors, f"whisper-base on clips/{NUMBERS_CLIP}.flac; see tokens.json")
    return facts


def make(folder: pathlib.Path, ct2: pathlib.Path | None, clips: pathlib.Path, extra: list, out: pathlib.Path) -> None:
    base = Base(folder)
    paths = {p.stem: p for p in sorted(clips.glob("*.flac"))}
    outside = {p.stem: p for p in extra}
    cases = CASES | {name: EXTRA_CASES for name in outside}
    samples = {name: read_audio(path) for name, path in (paths | outside).items()}

    greedy = []
    for name, wanted in cases.items():
        features = base.features(samples[name])
        for language, task, stamps in wanted:
            for timestamps in stamps:
                case = dict(language=language, task=task, timestamps=timestamps)
                greedy.append({"clip": name} | case | greedy_record(base.model, base.tokenizer, features, **case))
                print(name, language, task, timestamps, repr(greedy[-1]["marked"]), greedy[-1]["min_margin"], flush=True)

    fitted = []
    for name, language in FITTED_CASES:
        audio = run_encoder(base.model, base.unpadded_features(fit(samples[name])))["ln_post"]
        case = dict(language=language, task="transcribe", timestamps=False)
        outputs = BaseModelOutput(last_hidden_state=audio)
        record = greedy_record(base.model, base.tokenizer, None, **case, encoder_outputs=outputs, max_new_tokens=FITTED_NEW_TOKENS)
        fitted.append({"clip": name, "n_audio_ctx": audio.shape[1], "max_new_tokens": FITTED_NEW_TOKENS} | case | record)
        print("fitted", name, repr(record["marked"]), flush=True)

    beams = []
    for name, language in BEAM_CASES:
        case = dict(language=language, task="transcribe", timestamps=False)
        beams.append({"clip": name} | case | beam_record(
            base.model, base.tokenizer, base.features(samples[name]), n_beams=5, **case
        ))
        print("beams", name, repr(beams[-1]["marked"]), beams[-1]["score"], flush=True)

    silence = np.zeros(3 * SAMPLE_RATE_HZ, np.float32)
    detected = {name: languages(base, s) for name, s in (samples | {"silence_3s": silence}).items()}
    long = [long_form(base, samples[LONG_CLIP], condition) for condition in BOTH]
    for result in long:
        print("long", result["condition_on_prev_tokens"], result["seek_frames"], repr(result["text"]), flush=True)
    sampled = numbers(base, samples[NUMBERS_CLIP], out)
    aligned = [words(base, folder, ct2, name, paths[name]) for name in WORD_CLIPS]  # last: it turns eager attention on

    write_json(out / "tokens.json", {
        "about": f"whisper-base by transformers {transformers.__version__}, torch {torch.__version__}, f32 on CPU; see README.md",
        "settings": base.settings,
        "clips": {
            name: {"samples": len(s), "duration_s": rounded(len(s) / SAMPLE_RATE_HZ),
                   "fitted_frames": len(fit(s)) // HOP_LENGTH, "fitted_positions": len(fit(s)) // HOP_LENGTH // CONV_STRIDE,
                   "in_repository": name in paths}
            for name, s in samples.items()
        },
        "greedy": greedy, "greedy_on_fitted_window": fitted, "beam": beams,
        "language": detected, "long_form": long, "words": aligned, "numbers": {"clip": NUMBERS_CLIP} | sampled,
    })
