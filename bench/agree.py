"""How far the answers in one number type are from those in another, on clips of a manifest (the intent from the sound alone):

    python3 bench/agree.py CORPUS/manifest.csv --clips 1000

Runs `okyeame recognize --json --no-transcribe` in each number type on the same clips, drawn by a fixed seed, and prints a table.
"""

import argparse
import csv
import json
import os
import random
import subprocess
from pathlib import Path


def answers(binary, dtype, files):
    command = [binary, "recognize", "--json", "--no-transcribe", "--device", "cpu", "--dtype", dtype, *map(str, files)]
    lines = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout.splitlines()
    if len(lines) != len(files):
        raise SystemExit(f"{len(files) - len(lines)} clips have no answer")
    return [json.loads(line) for line in lines]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path, help="CSV with path and intent, as for okyeame train")
    parser.add_argument("--clips", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--dtypes", nargs=2, default=["f32", "int8"], metavar="DTYPE")
    parser.add_argument("--binary", default=os.environ.get("OKYEAME", "target/release/okyeame"))
    args = parser.parse_args()

    rows = list(csv.DictReader(args.manifest.open(encoding="utf-8")))
    random.Random(args.seed).shuffle(rows)
    rows = rows[: args.clips]
    files = [args.manifest.parent / row["path"] for row in rows]
    one, other = (answers(args.binary, dtype, files) for dtype in args.dtypes)

    first = lambda answer: next((p["intent"] for p in answer["top_predictions"]), None)
    share = lambda flags: f"{sum(flags) / max(len(flags), 1):.1%} of {len(flags)}"
    commands = [(row, pair) for row, pair in zip(rows, zip(one, other)) if row["intent"] != "none"]
    pairs = list(zip(one, other))
    off = sorted(abs(a["confidence"] - b["confidence"]) for a, b in pairs)
    print(f"| {len(rows)} clips | {args.dtypes[0]} | {args.dtypes[1]} |\n|---|---|---|")
    for which, name in ((lambda r, a: first(a) == r["intent"], "first guess right"), (lambda r, a: a["accepted"], "accepted")):
        print(f"| {name}, of commands |", " | ".join(share([which(r, pair[i]) for r, pair in commands]) for i in (0, 1)), "|")
    wrong = lambda i: share([pair[i]["accepted"] and pair[i]["intent"] != row["intent"] for row, pair in zip(rows, pairs)])
    print(f"| accepted and wrong | {wrong(0)} | {wrong(1)} |")
    print(f"| same first guess | – | {share([first(a) == first(b) for a, b in pairs])} |")
    print(f"| same answer | – | {share([a['intent'] == b['intent'] for a, b in pairs])} |")
    print(f"| same answer, where the first is accepted | – | {share([a['intent'] == b['intent'] for a, b in pairs if a['accepted']])} |")
    print(f"| two accepted intents that differ | – | {sum(a['accepted'] and b['accepted'] and a['intent'] != b['intent'] for a, b in pairs)} |")
    print(f"| confidence off by: median, mean, most | – | {off[len(off) // 2]:.4f}, {sum(off) / len(off):.4f}, {off[-1]:.3f} |")


if __name__ == "__main__":
    main()
