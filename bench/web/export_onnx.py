"""What transformers.js loads, of the very weights that this project's browser engine has.

    python export_onnx.py BUNDLE OUT

BUNDLE is a web bundle as `okyeame export-web --dtype f16 --whole-vocabulary` writes it. OUT gets onnx/encoder_model.onnx and
onnx/decoder_model_merged.onnx (with its cache of keys and values), each as f32 and, `_quantized`, as transformers.js's own
conversion script makes its q8; with configuration and tokenizer beside them.
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from optimum.exporters.onnx import main_export
from transformers import (
    GenerationConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperTokenizerFast,
)
from transformers.models.whisper.tokenization_whisper import LANGUAGES

PARTS = ("encoder_model", "decoder_model_merged")


def read_bundle(bundle):
    """The bundle's small files, and its tensors as f32."""
    manifest = json.loads((bundle / "manifest.json").read_text())
    if manifest["dtype"] != "f16" or manifest.get("vocabulary"):
        sys.exit(f"{bundle} is not --dtype f16 --whole-vocabulary")
    files, tensors = {}, {}
    for stage in manifest["stages"]:
        raw = b"".join((bundle / part["file"]).read_bytes() for part in stage["parts"])
        for file in stage["files"]:
            files[file["name"]] = raw[file["offset"] :][: file["bytes"]]
        for entry in stage["tensors"]:
            if entry["encoding"] == "f16":
                values = np.frombuffer(raw, np.float16, entry["bytes"] // 2, entry["offset"])
                tensors[entry["name"]] = torch.from_numpy(values.reshape(entry["shape"]).astype(np.float32))
    return files, tensors


def to_hugging_face(bundle, out):
    """A Whisper folder as transformers saves it."""
    files, tensors = read_bundle(bundle)
    config = WhisperConfig.from_dict(json.loads(files["config.json"]))
    model = WhisperForConditionalGeneration(config)  # the encoder's positions are fixed sinusoids
    weights = {name: value for name, value in tensors.items() if name.startswith("model.")}
    missing, unexpected = model.load_state_dict(weights, strict=False)
    missing = [name for name in missing if name not in ("proj_out.weight", "model.encoder.embed_positions.weight")]
    if missing or unexpected:
        sys.exit(f"missing {missing}, unexpected {unexpected}")
    model.tie_weights()
    out.mkdir(parents=True)
    (out / "tokenizer.json").write_bytes(files["tokenizer.json"])
    special = {name: "<|endoftext|>" for name in ("bos_token", "eos_token", "unk_token", "pad_token")}
    tokenizer = WhisperTokenizerFast(tokenizer_file=str(out / "tokenizer.json"), **special)
    tokenizer.save_pretrained(out)
    number_of = tokenizer.get_vocab()
    model.generation_config = GenerationConfig(
        **json.loads(files["generation_config.json"]),
        lang_to_id={f"<|{code}|>": number_of[f"<|{code}|>"] for code in LANGUAGES if f"<|{code}|>" in number_of},
        task_to_id={task: number_of[f"<|{task}|>"] for task in ("transcribe", "translate")},
        no_timestamps_token_id=number_of["<|notimestamps|>"],
        decoder_start_token_id=number_of["<|startoftranscript|>"],
        eos_token_id=number_of["<|endoftext|>"],
        pad_token_id=number_of["<|endoftext|>"],
        max_length=448,
    )
    model.save_pretrained(out)
    WhisperFeatureExtractor(feature_size=config.num_mel_bins).save_pretrained(out)


def main(bundle, out):
    with tempfile.TemporaryDirectory() as folder:
        plain, exported = Path(folder) / "plain", Path(folder) / "exported"
        to_hugging_face(bundle, plain)
        main_export(str(plain), output=exported, task="automatic-speech-recognition-with-past", do_validation=False)
        (out / "onnx").mkdir(parents=True, exist_ok=True)
        for part in PARTS:
            whole = out / "onnx" / f"{part}.onnx"
            shutil.copy(exported / f"{part}.onnx", whole)
            # transformers.js, scripts/quantize.py, mode q8: unsigned bytes for a model with convolutions.
            weight_type = QuantType.QUInt8 if part == "encoder_model" else QuantType.QInt8
            quantized = out / "onnx" / f"{part}_quantized.onnx"
            quantize_dynamic(whole, quantized, weight_type=weight_type, extra_options={"EnableSubgraph": True, "MatMulConstBOnly": True})
        for file in [*plain.glob("*.json"), *exported.glob("*.json")]:
            shutil.copy(file, out / file.name)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
