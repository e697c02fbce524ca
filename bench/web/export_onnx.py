"""ONNX files of a Whisper folder, as transformers.js loads them: f32, and q8 as its own conversion script makes it.

    python export_onnx.py MODEL_FOLDER OUT

Writes OUT/onnx/{encoder_model,decoder_model_merged}{,_quantized}.onnx, with configuration and tokenizer beside them.
"""

import shutil
import sys
from pathlib import Path

from onnxruntime.quantization import QuantType, quantize_dynamic
from optimum.exporters.onnx import main_export

PARTS = ("encoder_model", "decoder_model_merged")


def main(model, out):
    out.mkdir(parents=True, exist_ok=True)
    exported = out / "exported"
    main_export(str(model), output=exported, task="automatic-speech-recognition-with-past", do_validation=False)
    (out / "onnx").mkdir(exist_ok=True)
    for part in PARTS:
        plain = out / "onnx" / f"{part}.onnx"
        shutil.copy(exported / f"{part}.onnx", plain)
        # transformers.js, scripts/quantize.py, mode q8: dynamic, weights in unsigned bytes where convolutions ask for it.
        quantize_dynamic(
            plain,
            out / "onnx" / f"{part}_quantized.onnx",
            weight_type=QuantType.QUInt8 if part == "encoder_model" else QuantType.QInt8,
            extra_options={"EnableSubgraph": True, "MatMulConstBOnly": True},
        )
    for file in exported.glob("*.json"):
        shutil.copy(file, out / file.name)
    shutil.rmtree(exported)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
