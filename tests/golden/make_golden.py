"""Make the golden vectors of this folder with the reference implementations.

usage: make_golden.py --base FOLDER [--ct2 FOLDER] [--extra-audio FILE ...] [--out FOLDER] [--only PART ...]

Parts, in order, one module each:
  mel    golden_mel.py    log-mel spectrograms                     <- transformers' WhisperFeatureExtractor
  tiny   golden_tiny.py   small seeded models, every stage of them <- transformers' Whisper
         golden_english.py  the second of them as an English-only model <- transformers' generate
         golden_formats.py  the same weights in other file formats <- torch, safetensors, ctranslate2's converter
  heads  golden_heads.py  intent heads in every form repositories have <- transformers' encoder, torch on top
  wav2vec2  golden_wav2vec2.py  small seeded CTC models, every stage <- transformers' Wav2Vec2ForCTC
  rules  golden_rules.py  timestamp rules, median filter, DTW      <- transformers' generation code
  base   golden_base.py   what whisper-base says about the clips   <- transformers (and faster-whisper, for words)

Not for CI: it needs 6 GB of packages and a model. The files that it wrote are committed; README.md says what each holds.
Everything runs in float32 on one CPU thread with fixed seeds. Another CPU may round differently: compare with the
tolerances of README.md, never bit by bit.
"""

import argparse
import pathlib

import torch

import golden_base
import golden_english
import golden_heads
import golden_mel
import golden_rules
import golden_tiny
import golden_wav2vec2

HERE = pathlib.Path(__file__).resolve().parent
PARTS = ["mel", "tiny", "heads", "wav2vec2", "rules", "base"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=pathlib.Path, help="whisper-base in the Hugging Face layout (for 'base')")
    parser.add_argument("--ct2", type=pathlib.Path, help="whisper-base for faster-whisper (its word timestamps)")
    parser.add_argument(
        "--extra-audio", type=pathlib.Path, nargs="*", default=[],
        help="audio outside the repository: only what the model says about it is kept",
    )
    parser.add_argument("--out", type=pathlib.Path, default=HERE, help="where to write (default: beside this script)")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    if "base" in args.only and args.base is None:
        parser.error("'base' needs --base FOLDER; or say --only mel tiny heads wav2vec2 rules")

    torch.set_num_threads(args.threads)
    torch.set_grad_enabled(False)
    clips = HERE / "clips"
    if "mel" in args.only:
        golden_mel.make(clips, args.out / "mel")
    if "tiny" in args.only:
        golden_tiny.make(args.out)
        golden_english.make(clips, args.out / "tiny-2", args.out / "tiny-en")
    if "heads" in args.only:
        golden_heads.make(clips, args.out / "tiny-multilingual", args.out / "heads")
    if "wav2vec2" in args.only:
        golden_wav2vec2.make(clips, args.out)
    if "rules" in args.only:
        golden_rules.make(args.out / "rules")
    if "base" in args.only:
        golden_base.make(args.base, args.ct2, clips, args.extra_audio, args.out / "base")

    files = [p for p in sorted(args.out.rglob("*")) if p.is_file() and "__pycache__" not in p.parts]
    for path in files:
        print(f"{path.stat().st_size:9d}  {path.relative_to(args.out)}")
    print(f"{sum(p.stat().st_size for p in files):9d}  in all")


if __name__ == "__main__":
    main()
