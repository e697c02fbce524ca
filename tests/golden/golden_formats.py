"""One tiny model's weights in every file format that an importer meets, each read back and compared here."""

import pathlib
import shutil
import struct
import tempfile

import numpy as np
import torch
from ctranslate2.converters import TransformersConverter
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import WhisperForConditionalGeneration

from golden_io import rounded, write_json

CT2_QUANTIZATIONS = ["float32", "float16", "bfloat16", "int8", "int8_float16", "int16"]
CT2_DTYPES = ["float32", "int8", "int16", "int32", "float16", "bfloat16"]


def write_hugging_face(model: WhisperForConditionalGeneration, tokenizer: Tokenizer, out: pathlib.Path) -> None:
    """model.safetensors (f32), config.json, generation_config.json, tokenizer.json, preprocessor_config.json."""
    out.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(out)
    (out / "model.safetensors").chmod(0o644)
    tokenizer.save(str(out / "tokenizer.json"))
    write_json(out / "tokenizer_config.json", {"tokenizer_class": "WhisperTokenizer"})
    n_frames = 2 * model.config.max_source_positions
    write_json(out / "preprocessor_config.json", {
        "feature_extractor_type": "WhisperFeatureExtractor", "feature_size": model.config.num_mel_bins,
        "sampling_rate": 16_000, "hop_length": 160, "n_fft": 400, "chunk_length": n_frames // 100,
        "n_samples": 160 * n_frames, "nb_max_frames": n_frames, "padding_side": "right", "padding_value": 0.0,
    })


def read_ct2(path: pathlib.Path) -> tuple[dict, dict[str, np.ndarray], dict[str, str], dict[str, str]]:
    """A reader written from the format's description alone: (head, variables, aliases, dtypes). bfloat16 becomes f32."""
    data, at = path.read_bytes(), 0

    def take(form: str):
        nonlocal at
        value = struct.unpack_from("<" + form, data, at)[0]
        at += struct.calcsize("<" + form)
        return value

    def string() -> str:
        nonlocal at
        n = take("H")
        at += n
        return data[at - n : at].rstrip(b"\0").decode()

    head = {"version": take("I"), "spec": string(), "revision": take("I")}
    variables, dtypes = {}, {}
    for _ in range(take("I")):
        name = string()
        dims = [take("I") for _ in range(take("B"))]
        dtype, n_bytes = CT2_DTYPES[take("B")], take("I")
        raw, at = data[at : at + n_bytes], at + n_bytes
        dtypes[name] = dtype
        if dtype == "bfloat16":
            wide = np.frombuffer(raw, "<u2").astype("<u4") << 16
            variables[name] = wide.view("<f4").reshape(dims)
        else:
            variables[name] = np.frombuffer(raw, np.dtype(dtype).newbyteorder("<")).reshape(dims)
    aliases = {string(): string() for _ in range(take("I"))}
    assert at == len(data), "trailing bytes"
    return head, variables, aliases, dtypes


def dequantise(variables: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """value = stored / scale: int8 has one scale for each first-axis index, int16 one for the tensor."""
    out = {}
    for name, value in variables.items():
        if name.endswith("_scale") or value.ndim == 0 or value.dtype == np.int8 and value.ndim == 1:
            continue
        if f"{name}_scale" in variables:
            scale = variables[f"{name}_scale"].astype(np.float32)
            value = value.astype(np.float32) / scale.reshape(scale.shape + (1,) * (value.ndim - scale.ndim))
        out[name] = value.astype(np.float32)
    return out


def to_ct2_names(state: dict[str, torch.Tensor], n_layers: dict[str, int]) -> dict[str, np.ndarray]:
    """The Hugging Face weights under CTranslate2's names, with its fused projections (a missing key bias is 0)."""
    get = lambda name: state[f"model.{name}"].float().numpy()
    out = {}

    def norm(source: str, target: str) -> None:
        out[f"{target}/gamma"], out[f"{target}/beta"] = get(f"{source}.weight"), get(f"{source}.bias")

    def fused(source: str, names: list[str], target: str) -> None:
        weights = [get(f"{source}.{n}.weight") for n in names]
        biases = [
            np.zeros(len(w), np.float32) if n == "k_proj" else get(f"{source}.{n}.bias")
            for n, w in zip(names, weights)
        ]
        out[f"{target}/weight"], out[f"{target}/bias"] = np.concatenate(weights), np.concatenate(biases)

    for part, n in n_layers.items():
        out[f"{part}/position_encodings/encodings"] = get(f"{part}.embed_positions.weight")
        norm(f"{part}.layer_norm", f"{part}/layer_norm")
        for i in range(n):
            source, target = f"{part}.layers.{i}", f"{part}/layer_{i}"
            norm(f"{source}.self_attn_layer_norm", f"{target}/self_attention/layer_norm")
            fused(f"{source}.self_attn", ["q_proj", "k_proj", "v_proj"], f"{target}/self_attention/linear_0")
            fused(f"{source}.self_attn", ["out_proj"], f"{target}/self_attention/linear_1")
            if part == "decoder":
                norm(f"{source}.encoder_attn_layer_norm", f"{target}/attention/layer_norm")
                fused(f"{source}.encoder_attn", ["q_proj"], f"{target}/attention/linear_0")
                fused(f"{source}.encoder_attn", ["k_proj", "v_proj"], f"{target}/attention/linear_1")
                fused(f"{source}.encoder_attn", ["out_proj"], f"{target}/attention/linear_2")
            norm(f"{source}.final_layer_norm", f"{target}/ffn/layer_norm")
            fused(source, ["fc1"], f"{target}/ffn/linear_0")
            fused(source, ["fc2"], f"{target}/ffn/linear_1")
    for conv in ("conv1", "conv2"):
        fused("encoder", [conv], f"encoder/{conv}")
    out["decoder/embeddings/weight"] = get("decoder.embed_tokens.weight")
    return out


def check_ct2(path: pathlib.Path, source: dict[str, np.ndarray], quantization: str) -> dict:
    """Names, shapes and values against the source; what is asserted is what README.md promises."""
    head, variables, aliases, dtypes = read_ct2(path)
    found = dequantise(variables)
    assert found.keys() == source.keys(), found.keys() ^ source.keys()
    worst = 0.0
    for name, want in source.items():
        assert found[name].shape == want.shape, (name, found[name].shape, want.shape)
        if f"{name}_scale" in variables:
            rows = np.abs(want.reshape(len(want), -1)).max(axis=1)
            step = rows / 127 if variables[name].dtype == np.int8 else np.full(len(rows), rows.max() / 1024)
            bound = 0.501 * step.reshape((-1,) + (1,) * (want.ndim - 1)) + 1e-7
        else:
            relative = {"float16": 2.0**-11, "int8_float16": 2.0**-11, "bfloat16": 2.0**-8}.get(quantization, 0.0)
            bound = relative * np.abs(want) + (2.0**-24 if relative == 2.0**-11 else 0.0)
        error = np.abs(found[name] - want)
        assert (error <= bound).all(), (quantization, name, error.max())
        worst = max(worst, float(error.max()))
    return head | {
        "largest_error": rounded(worst, 3), "aliases": aliases,
        "variables": {
            name: f"{dtypes[name]} {'x'.join(map(str, value.shape)) or 'scalar'}" for name, value in variables.items()
        },
    }


def write_pytorch(folder: pathlib.Path, model: WhisperForConditionalGeneration, state: dict[str, torch.Tensor]) -> None:
    """What torch.save writes, in each of the ways that repositories hold it; every file is read back with torch.load."""
    # As Hugging Face's own .bin files: the whole state dict, with proj_out.weight sharing embed_tokens' storage.
    whole = model.state_dict()
    torch.save(whole, folder / "pytorch_model.bin")

    # torch before 1.6: no zip. Storage keys are addresses, so that the bytes differ from run to run.
    (folder / "legacy").mkdir(exist_ok=True)
    torch.save(whole, folder / "legacy" / "pytorch_model.bin", _use_new_zipfile_serialization=False)

    halves = {name: value.half() for name, value in state.items()}
    (folder / "pytorch-f16").mkdir(exist_ok=True)
    torch.save(halves, folder / "pytorch-f16" / "pytorch_model.bin")

    # As transformers 4 shards a .bin; transformers 5 writes only safetensors.
    (folder / "pytorch_sharded").mkdir(exist_ok=True)
    n_bytes = sum(value.numel() * 4 for value in state.values())
    split = split_torch_state_dict_into_shards(
        state, filename_pattern="pytorch_model{suffix}.bin", max_shard_size=int(n_bytes * 0.6)
    )
    assert len(split.filename_to_tensors) == 2, split.filename_to_tensors.keys()
    for name, tensors in split.filename_to_tensors.items():
        # clone: a view of a shard's storage would bring the whole storage along
        torch.save({tensor: state[tensor].clone() for tensor in tensors}, folder / "pytorch_sharded" / name)
    write_json(folder / "pytorch_sharded" / "pytorch_model.bin.index.json", {
        "metadata": split.metadata, "weight_map": split.tensor_to_filename,
    })

    # A training loop's checkpoint: wrapped, one tensor transposed in memory, a counter, and what the optimizer keeps.
    tensors = dict(state)
    name = "model.encoder.layers.0.fc1.weight"
    tensors[name] = state[name].t().contiguous().t()
    assert not tensors[name].is_contiguous()
    tensors["batch_norm.num_batches_tracked"] = torch.tensor(7)
    parameter = torch.nn.Parameter(torch.ones(2))
    parameter.grad = torch.tensor([0.5, -0.5])
    optimizer = torch.optim.AdamW([parameter])
    optimizer.step()
    (folder / "pytorch-wrapped").mkdir(exist_ok=True)
    torch.save(
        {"epoch": 3, "state_dict": tensors, "optimizer": optimizer.state_dict(), "loss": 0.25},
        folder / "pytorch-wrapped" / "pytorch_model.bin",
    )

    (folder / "bf16").mkdir(exist_ok=True)
    brains = {name: value.bfloat16() for name, value in state.items()}
    save_file(brains, folder / "bf16" / "model.safetensors", {"format": "pt"})
    (folder / "bf16" / "model.safetensors").chmod(0o644)

    def check(found: dict[str, torch.Tensor], want: dict[str, torch.Tensor], extra: set[str]) -> None:
        assert found.keys() == want.keys() | extra, found.keys() ^ want.keys()
        assert all(found[k].dtype == want[k].dtype and torch.equal(found[k], want[k]) for k in want)

    load = lambda path: torch.load(folder / path, weights_only=True)
    check(load("pytorch_model.bin"), state, {"proj_out.weight"})
    check(load("legacy/pytorch_model.bin"), state, {"proj_out.weight"})
    check(load("pytorch-f16/pytorch_model.bin"), halves, set())
    check(load("pytorch-wrapped/pytorch_model.bin")["state_dict"], state, {"batch_norm.num_batches_tracked"})
    shards = [load(f"pytorch_sharded/{name}") for name in split.filename_to_tensors]
    check(shards[0] | shards[1], state, set())
    check(load_file(folder / "bf16" / "model.safetensors"), brains, set())


def make(folder: pathlib.Path) -> None:
    """Beside FOLDER/model.safetensors: f16/, bf16/, sharded/, what torch.save writes, ct2-*/, and formats.json."""
    model = WhisperForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    state = load_file(folder / "model.safetensors")

    (folder / "f16").mkdir(exist_ok=True)
    save_file({k: v.half() for k, v in state.items()}, folder / "f16" / "model.safetensors", {"format": "pt"})

    write_pytorch(folder, model, state)

    with tempfile.TemporaryDirectory() as tmp:
        tmp = pathlib.Path(tmp)
        n_bytes = sum(v.numel() * 4 for v in state.values())
        model.save_pretrained(tmp, max_shard_size=int(n_bytes * 0.6))
        shards = sorted(tmp.glob("model*.safetensors*"))
        assert len(shards) == 3, shards
        (folder / "sharded").mkdir(exist_ok=True)
        for path in shards:
            shutil.copy(path, folder / "sharded")
    for path in [*(folder / "sharded").iterdir(), folder / "f16" / "model.safetensors"]:
        path.chmod(0o644)
    weights = {}
    for path in (folder / "sharded").glob("*.safetensors"):
        weights |= load_file(path)
    assert weights.keys() == state.keys() and all(torch.equal(weights[k], state[k]) for k in state)

    source = to_ct2_names(state, {"encoder": model.config.encoder_layers, "decoder": model.config.decoder_layers})
    report = {}
    for quantization in CT2_QUANTIZATIONS:
        with tempfile.TemporaryDirectory() as tmp:
            converted = pathlib.Path(TransformersConverter(str(folder)).convert(
                str(pathlib.Path(tmp) / "ct2"), quantization=quantization
            ))
            target = folder / f"ct2-{quantization}"
            target.mkdir(exist_ok=True)
            shutil.copy(converted / "model.bin", target)
            if quantization == "float32":
                shutil.copy(converted / "config.json", target)
                shutil.copy(converted / "vocabulary.json", target)
        report[quantization] = check_ct2(folder / f"ct2-{quantization}" / "model.bin", source, quantization)
    names = sorted({name for r in report.values() for name in r["variables"]})
    write_json(folder / "formats.json", {
        "about": "What golden_formats.py read in each model.bin, compared with the source. Variables: one entry per file, "
                 "in the order of 'files'; null where the file has none.",
        "files": {q: {k: v for k, v in r.items() if k != "variables"} for q, r in report.items()},
        "variables": {name: [r["variables"].get(name) for r in report.values()] for name in names},
    })
