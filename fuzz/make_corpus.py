#!/usr/bin/env python3
"""Makes the fuzzer's seeds, fuzz/corpus/TARGET/…, of the repository's own test files: small ones as they are, larger ones
cut or thinned out, and by hand what no file has. Needs nothing but Python. The same files come out each time; what else
lies there (`regress-…`, what a person added) is left alone.

    python3 fuzz/make_corpus.py
"""

import hashlib
import io
import json
import struct
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CORPUS = ROOT / "fuzz" / "corpus"
AUDIO = ROOT / "tests" / "audio"
GOLDEN = ROOT / "tests" / "golden"
MAX_BYTES = 20_000  # of one seed


def seed(target: str, name: str, content: bytes) -> None:
    assert len(content) < MAX_BYTES, f"{target}/{name} has {len(content)} bytes"
    folder = CORPUS / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)


def wav(samples: bytes, tag: int = 1, channels: int = 1, rate: int = 16_000, bits: int = 16) -> bytes:
    block = channels * bits // 8
    fmt = struct.pack("<HHIIHH", tag, channels, rate, rate * block, block, bits)
    body = b"WAVEfmt " + struct.pack("<I", 16) + fmt + b"data" + struct.pack("<I", len(samples)) + samples
    return b"RIFF" + struct.pack("<I", len(body)) + body


def tone(n: int) -> bytes:
    return b"".join(struct.pack("<h", (i * 1237) % 8000 - 4000) for i in range(n))


# --- sound ---


def audio() -> None:
    for file in sorted(AUDIO.iterdir()):
        if file.suffix in (".sh", ".mjs"):
            continue
        content = file.read_bytes()
        # Sound files may be cut anywhere: the length in the header then is a lie, as in a broken upload.
        seed("audio_decode", file.name, content[: min(len(content), 12_000)])
    seed("audio_decode", "tone.wav", wav(tone(200)))
    seed("audio_decode", "adpcm.wav", wav(bytes(range(256)) * 2, tag=2, bits=4))
    seed("audio_decode", "empty.wav", wav(b""))
    seed("audio_decode", "nan.wav", wav(struct.pack("<4f", 0.5, float("nan"), float("inf"), 1e30), tag=3, bits=32))
    seed("audio_decode", "id3.mp3", b"ID3\x04\0\0\0\0\0\x05title" + (AUDIO / "speech.mp3").read_bytes()[:4000])
    # Two Ogg files strung together.
    ogg = (AUDIO / "speech_opus_voip.ogg").read_bytes()
    seed("audio_decode", "chained.ogg", ogg + ogg)
    # Bare AAC frames: the header (ADTS) and as much as it says.
    frames = b"".join(adts(bytes([0x21, 0x10, 0x05]) + bytes(n)) for n in (4, 9, 30))
    seed("audio_decode", "frames.aac", frames)


def adts(frame: bytes) -> bytes:
    length = len(frame) + 7
    # AAC-LC, 16 kHz, mono, no checksum
    bits = 0xFFF << 44 | 1 << 40 | 1 << 38 | 8 << 34 | 1 << 30 | length << 13 | 0x7FF << 2
    return bits.to_bytes(7, "big") + frame


def ogg_packets(content: bytes) -> list[bytes]:
    packets, packet, at = [], b"", 0
    while content[at : at + 4] == b"OggS":
        n_segments = content[at + 26]
        lacing = content[at + 27 : at + 27 + n_segments]
        at += 27 + n_segments
        for n in lacing:
            packet += content[at : at + n]
            at += n
            if n < 255:
                packets.append(packet)
                packet = b""
    return packets


def opus() -> None:
    def of(channels: int, packets: list[bytes]) -> bytes:
        return bytes([channels - 1]) + b"".join(struct.pack("<H", len(p)) + p for p in packets)

    for name in ("speech_opus", "speech_opus_voip"):
        packets = ogg_packets((AUDIO / f"{name}.ogg").read_bytes())[2:]
        seed("opus_packets", name, of(1, packets[:40]))
        seed("opus_packets", f"{name}_stereo", of(2, packets[:4]))
        seed("opus_packets", f"{name}_one", of(1, packets[3:4]))
    # Each of the 32 configurations, with a frame of noise and with none (DTX).
    noise = bytes((i * 151 + 7) % 256 for i in range(24))
    seed("opus_packets", "configs", of(1, [bytes([config << 3]) + noise for config in range(32)]))
    seed("opus_packets", "configs_stereo", of(2, [bytes([config << 3 | 4]) + noise for config in range(32)]))
    seed("opus_packets", "silence", of(1, [bytes([config << 3]) for config in range(32)] + [b""]))
    # Each way of packing several frames.
    packings = [
        b"\x01" + noise,
        b"\x02\x05" + noise,
        b"\x03\x03" + noise,
        b"\x03\x83\x02\x04" + noise,
        b"\x03\x42\x03" + noise,
        b"\x03\xc2\x01\x04" + noise,
        b"\x4b\x06" + noise,
        b"\x03\x00",
        b"\x03\x3f" + noise,
    ]
    seed("opus_packets", "packings", of(1, packings))


# --- weights ---


def safetensors(tensors: dict[str, tuple[str, list[int], bytes]]) -> bytes:
    header, at, data = {}, 0, b""
    for name, (dtype, shape, content) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(content)]}
        at += len(content)
        data += content
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def safetensors_seeds() -> None:
    seed("safetensors", "head", (GOLDEN / "heads/head-only/model.safetensors").read_bytes())
    seed("safetensors", "adapter", (GOLDEN / "wav2vec2-mms/adapter.twi.safetensors").read_bytes())
    seed("safetensors", "rules", (GOLDEN / "rules/rules.safetensors").read_bytes())
    seed(
        "safetensors",
        "types",
        safetensors(
            {
                "f64": ("F64", [2], struct.pack("<2d", 0.5, -2.0)),
                "f32": ("F32", [1, 2], struct.pack("<2f", 0.5, -2.0)),
                "i64": ("I64", [], struct.pack("<q", 7)),
                "f16": ("F16", [2], b"\0\x3c\0\xc0"),
                "bf16": ("BF16", [2], b"\x80\x3f\0\xc0"),
                "bool": ("BOOL", [2], b"\0\1"),
                "none": ("F32", [0, 3], b""),
            }
        ),
    )
    seed("safetensors", "nothing", safetensors({}))
    seed("safetensors", "cut", (GOLDEN / "heads/head-only/model.safetensors").read_bytes()[:300])


def ct2_read(content: bytes) -> tuple[bytes, list[tuple[str, bytes]], bytes]:
    """Its head, its variables, each with all of its bytes, and what follows them."""
    (n_spec,) = struct.unpack_from("<H", content, 4)
    at = 6 + n_spec + 4
    head, (count,) = content[:at], struct.unpack_from("<I", content, at)
    at += 4
    variables = []
    for _ in range(count):
        start = at
        (n_name,) = struct.unpack_from("<H", content, at)
        name = content[at + 2 : at + 2 + n_name].rstrip(b"\0").decode()
        at += 2 + n_name
        at += 1 + 4 * content[at] + 1
        (n_bytes,) = struct.unpack_from("<I", content, at)
        at += 4 + n_bytes
        variables.append((name, content[start:at]))
    return head, variables, content[at:]


def ct2_variable(name: str, shape: list[int], dtype: int, data: bytes) -> bytes:
    text = name.encode() + b"\0"
    axes = struct.pack(f"<B{len(shape)}I", len(shape), *shape)
    return struct.pack("<H", len(text)) + text + axes + struct.pack("<BI", dtype, len(data)) + data


def ctranslate2_seeds() -> None:
    for kind in ("float32", "float16", "bfloat16", "int16", "int8"):
        head, variables, _ = ct2_read((GOLDEN / f"tiny-2/ct2-{kind}/model.bin").read_bytes())
        kept, n_bytes = [], 0
        for _, variable in variables:
            if len(variable) < 1500 and n_bytes + len(variable) < 9000:
                kept.append(variable)
                n_bytes += len(variable)
        seed("ctranslate2", kind, head + struct.pack("<I", len(kept)) + b"".join(kept) + struct.pack("<I", 0))
    spec = b"WhisperSpec\0"
    head = struct.pack("<I", 6) + struct.pack("<H", len(spec)) + spec + struct.pack("<I", 3)
    fused = "encoder/layer_0/self_attention/linear_0"
    quantised = [
        ct2_variable(f"{fused}/weight", [6, 2], 1, bytes(range(12))),
        ct2_variable(f"{fused}/weight_scale", [6], 0, struct.pack("<6f", *[2.0] * 6)),
        ct2_variable(f"{fused}/bias", [6], 4, bytes(12)),
        ct2_variable("decoder/embeddings/weight", [2, 2], 2, bytes(8)),
        ct2_variable("decoder/embeddings/weight_scale", [], 0, struct.pack("<f", 100.0)),
        ct2_variable("encoder/num_heads", [], 2, struct.pack("<h", 2)),
    ]
    aliases = b""
    for text in (b"decoder/projection/weight\0", b"decoder/embeddings/weight\0"):
        aliases += struct.pack("<H", len(text)) + text
    whole = head + struct.pack("<I", len(quantised)) + b"".join(quantised) + struct.pack("<I", 1) + aliases
    seed("ctranslate2", "quantised", whole)
    seed("ctranslate2", "cut", whole[:120])


def stored_zip(entries: list[tuple[str, bytes]]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name, content in entries:
            # A date of its own, or the same file would differ each time.
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), content)
    return out.getvalue()


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def integer(value: int) -> bytes:
    return b"\x8a\x08" + struct.pack("<q", value)


def state_dict(tensors: list[tuple[str, str, str, int, int, list[int], list[int]]], legacy: bool) -> bytes:
    """As torch pickles it: (name, storage class, key, elements, offset, shape, strides)."""
    pickle = b"\x80\x02}("
    for name, kind, key, n, offset, shape, strides in tensors:
        pickle += text(name) + b"ctorch._utils\n_rebuild_tensor_v2\n((" + text("storage")
        pickle += f"ctorch\n{kind}\n".encode() + text(key) + text("cpu") + integer(n)
        pickle += (b"NtQ" if legacy else b"tQ") + integer(offset)
        pickle += b"(" + b"".join(map(integer, shape)) + b"t(" + b"".join(map(integer, strides)) + b"t"
        pickle += b"\x89ccollections\nOrderedDict\n)RtR"
    return pickle + b"u."


def pytorch_seeds() -> None:
    tensors = [
        ("weight", "FloatStorage", "0", 6, 0, [2, 3], [3, 1]),
        ("transposed", "FloatStorage", "0", 6, 0, [3, 2], [1, 3]),
        ("half", "HalfStorage", "1", 4, 1, [3], [1]),
        ("counter", "LongStorage", "2", 1, 0, [], []),
    ]
    data = [("0", struct.pack("<6f", *range(6))), ("1", bytes(8)), ("2", struct.pack("<q", 7))]
    entries = [("m/data.pkl", state_dict(tensors, False)), ("m/byteorder", b"little"), ("m/version", b"3\n")]
    whole = stored_zip(entries + [(f"m/data/{key}", content) for key, content in data])
    seed("pytorch", "zip", whole)
    seed("pytorch", "zip_cut", whole[: len(whole) // 2])
    keys = b"\x80\x02](" + b"".join(text(key) for key, _ in data) + b"e."
    counts = (6, 4, 1)
    storages = b"".join(struct.pack("<q", n) + content for n, (_, content) in zip(counts, data))
    magic = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
    protocol = b"\x80\x02M\xe9\x03."
    machine = b"\x80\x02}X\x0d\0\0\0little_endian\x88s."
    seed("pytorch", "legacy", magic + protocol + machine + state_dict(tensors, True) + keys + storages)
    evil = b"\x80\x02cos\nsystem\n" + text("true") + b"\x85R."
    seed("pytorch", "unsafe", stored_zip([("m/data.pkl", evil), ("m/version", b"3\n")]))
    # torch's own pickles, without the numbers that they speak of.
    for name in ("heads/multitask-shared/pytorch_model.bin", "tiny-2/pytorch-wrapped/pytorch_model.bin"):
        with zipfile.ZipFile(GOLDEN / name) as archive:
            small = [(i.filename, archive.read(i)) for i in archive.infolist() if "/data/" not in i.filename]
        seed("pytorch", name.split("/")[1], stored_zip(small))


# --- files of JSON, tables, TOML ---


def config_seeds() -> None:
    for name in ("tiny-2", "wav2vec2-base", "wav2vec2-mms", "heads/multitask", "heads/head-only", "heads/one-encoder"):
        seed("model_config", name.replace("/", "-"), (GOLDEN / name / "config.json").read_bytes())
    for name in ("tiny-2", "tiny-en"):
        seed("model_config", f"{name}-generation", (GOLDEN / name / "generation_config.json").read_bytes())


def label_seeds() -> None:
    def files(*contents: object) -> bytes:
        return b"\0".join(c if isinstance(c, bytes) else json.dumps(c).encode() for c in contents)

    shop = (ROOT / "models/twi-shop/intent_labels.json").read_bytes()
    seed("label_files", "shop", files(shop))
    one = (GOLDEN / "heads/one-encoder/intent_labels.json").read_bytes()
    seed("label_files", "both_ways", files(one, b"", (GOLDEN / "heads/one-encoder/config.json").read_bytes()))
    seed("label_files", "label_map", files(b"", (GOLDEN / "heads/one-encoder-mlp/label_map.json").read_bytes()))
    seed("label_files", "config", files(b"", b"", {"id2label": {"0": "add", "1": "find"}, "label2id": {"add": 0}}))
    seed("label_files", "list", files(["add", "find", "unknown"], {"add": 1, "find": 0}))
    seed("label_files", "objects", files([{"label": 1, "name": "find"}, {"intent": "add", "id": 0}]))
    seed("label_files", "written_out", files({"label2id": {"find": "1", "add": "0"}}))
    seed("label_files", "holes", files({"id_to_label": {"0": "add", "7": "find"}}))


def catalogue_seeds() -> None:
    seed("catalogue", "storefront.json", (ROOT / "examples/storefront/catalogue.json").read_bytes())
    table = "slot,value,name\nproduct,rice,ɛmo\nproduct,rice,\"royal, \"\"aroma\"\"\"\nsize,42,42\ncolor,red,kɔkɔɔ\n"
    seed("catalogue", "table.csv", table.encode())
    seed("catalogue", "table.tsv", "\ufeffSlot\tValue\tName\nproduct\trice\tɛmo, rice\n\nsize\t42\t42\n".encode())
    forms = {
        "version": 1,
        "products": ["iPhone 15", {"value": "rice", "names": ["ɛmo", "rice"]}, {"value": "oil"}],
        "sizes": [42, "XL"],
        "slots": {"fabric": ["kente"]},
    }
    seed("catalogue", "forms.json", json.dumps(forms).encode())


def manifest_seeds() -> None:
    part = bytes(64)
    stage = {
        "name": "intent",
        "purpose": "enough for the intent",
        "bytes": 64,
        "parts": [{"file": "intent-0.bin", "bytes": 64, "sha256": hashlib.sha256(part).hexdigest()}],
        "files": [{"name": "config.json", "offset": 0, "bytes": 2}],
        "tensors": [
            {"name": "a", "shape": [2, 2], "encoding": "f16", "offset": 8, "bytes": 8},
            {"name": "b", "shape": [2, 4], "encoding": "int8", "offset": 16, "bytes": 16},
            {"name": "c", "shape": [1, 32], "encoding": "int4", "offset": 32, "bytes": 18},
            {"name": "d", "shape": [3, 4], "encoding": "sinusoids", "offset": 0, "bytes": 0},
        ],
    }
    manifest = {
        "format": "okyeame-web-bundle",
        "version": 1,
        "made_by": "okyeame 0.1.0",
        "model": "shop",
        "dtype": "int4",
        "licences": [{"of": "shop", "licence": "MIT"}],
        "stages": [stage],
    }
    seed("web_bundle_manifest", "small.json", json.dumps(manifest).encode())
    words = dict(stage, name="words", bytes=0, parts=[], files=[], tensors=[])
    more = dict(
        manifest,
        base="openai/whisper-base",
        stages=[stage, words],
        check={"probabilities": [0.5, 0.25], "tolerance": 0.01},
        vocabulary={"of": 51865, "kept": 9000, "rule": "seen", "n_texts": 12},
        loss={
            "n_clips": 1,
            "clips": "one",
            "logits_relative_rms": 0.01,
            "probability_max": 0.01,
            "same_intent": 1.0,
            "same_verdict": 1.0,
        },
    )
    seed("web_bundle_manifest", "whole.json", json.dumps(more).encode())
    seed("web_bundle_manifest", "newer.json", json.dumps(dict(manifest, version=2)).encode())


def key_seeds() -> None:
    digest = hashlib.sha256(b"a key of nobody").hexdigest()
    one = f'[[key]]\nname = "shop"\nhash = "{digest}"\nscopes = ["intent", "transcribe"]\n'
    seed("keys_file", "one.toml", one.encode())
    seed("keys_file", "two.toml", (one + f'\n[[key]]\nname = "ɔkyeame"\nhash = "{digest}"\n').encode())
    seed("keys_file", "twice.toml", (one + one).encode())
    seed("keys_file", "inline.toml", f'key = [{{name = "a", hash = "{digest}", scopes = []}}]'.encode())
    seed("keys_file", "empty.toml", b"# none yet\n")


# --- requests ---


def form(*parts: tuple[str, str | None, bytes]) -> bytes:
    body = b""
    for name, filename, content in parts:
        file = f'; filename="{filename}"' if filename is not None else ""
        body += f'--xx\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'.encode() + content + b"\r\n"
    return body + b"--xx--\r\n"


def app_seeds() -> None:
    intent, query, batch, transcriptions, translations, typed = range(6)

    def request(name: str, route: int, body: bytes, piece_len: int = 0) -> None:
        seed("app", name, bytes([route, piece_len]) + body)

    clip, ogg = wav(tone(160)), (AUDIO / "speech_opus_voip.ogg").read_bytes()
    request("clip", intent, form(("file", "a.wav", clip)))
    request("clip_in_pieces", intent, form(("file", "a.wav", clip)), 7)
    request("clip_ogg", query, form(("file", "command.ogg", ogg)))
    fields = [("top_k", None, b"3"), ("language", None, b"tw"), ("transcribe", None, b"false")]
    request("clip_fields", intent, form(*fields, ("file", "a.wav", clip)))
    names = json.dumps({"products": [{"value": "rice", "names": ["ɛmo"]}]}).encode()
    request("clip_catalogue", query, form(("catalogue", "names.json", names), ("file", "a.wav", clip)))
    request("batch", batch, form(("files", "a.wav", clip), ("files", "b.ogg", b"none"), ("files", "", clip)))
    asked = [
        ("model", None, b"whisper-1"),
        ("response_format", None, b"verbose_json"),
        ("timestamp_granularities[]", None, b"word"),
        ("temperature", None, b"0.5"),
        ("prompt", None, "ɔkyeame --> ".encode()),
    ]
    request("words", transcriptions, form(*asked, ("file", "a.wav", clip)))
    request("words_srt", transcriptions, form(("response_format", None, b"srt"), ("file", "a.wav", clip)))
    request("words_vtt", translations, form(("response_format", None, b"vtt"), ("file", "a.wav", clip)))
    request("words_stream", transcriptions, form(("stream", None, b"true"), ("file", "a.wav", clip)))
    request("no_file", intent, form(*fields))
    request("no_end", intent, form(("file", "a.wav", clip))[:-8], 16)
    request("no_form", batch, b"hello")
    request("bad_number", intent, form(("top_k", None, b"\xff"), ("file", "a.wav", clip)))
    request("typed", typed, json.dumps({"text": "Fa yei to cart no mu", "top_k": 2, "language": "tw"}).encode())
    request("typed_catalogue", typed, json.dumps({"text": "ɛmo", "catalogue": {"products": ["rice"]}}).encode(), 5)
    request("typed_unknown", typed, b'{"text": "", "more": 1}')


if __name__ == "__main__":
    audio()
    opus()
    safetensors_seeds()
    ctranslate2_seeds()
    pytorch_seeds()
    config_seeds()
    label_seeds()
    catalogue_seeds()
    manifest_seeds()
    key_seeds()
    app_seeds()
