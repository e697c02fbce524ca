"""How far the words in one number type are from those in another, and both from what was spoken:

    python3 bench/words.py CLIPS

speaks the sentences of sentences.txt into the folder CLIPS, in three voices of flite (Debian's package), unless they are there
already; then writes them down with `okyeame bench --serve` in each number type (greedy, English), and prints a table.
"""

import argparse
import os
import subprocess
from pathlib import Path

import bars
from children import Child, environment

BENCH = Path(__file__).resolve().parent
VOICES = ("slt", "rms", "awb")


def spoken(folder):
    """(clip, what is said in it)"""
    folder.mkdir(parents=True, exist_ok=True)
    clips = []
    for voice in VOICES:
        for number, text in enumerate((BENCH / "sentences.txt").read_text(encoding="utf-8").splitlines()):
            clip = folder / f"{voice}-{number:02}.wav"
            if not clip.exists():
                subprocess.run(["flite", "-voice", voice, "-t", text, "-o", clip], check=True)
            clips.append((clip, text))
    return clips


def written(binary, model, dtype, clips):
    command = [str(Path(binary).resolve()), "bench", "--serve", "--device", "cpu", "--dtype", dtype]
    child = Child(dtype, command, environment(os.cpu_count(), model.resolve()))
    try:
        child.ready()
        return [child.ask("transcribe", "en", clip.resolve())[1]["text"] for clip, _ in clips]
    finally:
        child.close()


def errors(texts, references):
    """Words to change, and words that there should be."""
    pairs = [(bars.bare_words(text), bars.bare_words(reference)) for text, reference in zip(texts, references)]
    return sum(bars.edit_distance(*pair) for pair in pairs), sum(len(reference) for _, reference in pairs)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path, help="folder of the spoken sentences; made if it is not there")
    parser.add_argument("--model", type=Path, default=BENCH.parent / "models/whisper-base")
    parser.add_argument("--dtypes", nargs=2, default=["f32", "int8"], metavar="DTYPE")
    parser.add_argument("--binary", default=os.environ.get("OKYEAME", "target/release/okyeame"))
    args = parser.parse_args()

    clips = spoken(args.clips)
    said = [text for _, text in clips]
    first, second = (written(args.binary, args.model, dtype, clips) for dtype in args.dtypes)
    print(f"| {len(clips)} clips | word error rate | same text as {args.dtypes[0]} |\n|---|---|---|")
    for dtype, texts in zip(args.dtypes, (first, second)):
        wrong, of = errors(texts, said)
        same = sum(one == other for one, other in zip(first, texts))
        print(f"| {dtype} | {wrong / of:.2%} of {of} words | {same} |")
    wrong, of = errors(second, first)
    print(f"\n{wrong} of {of} words of {args.dtypes[0]} are others in {args.dtypes[1]}.")


if __name__ == "__main__":
    main()
