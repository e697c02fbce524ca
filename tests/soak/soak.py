"""What a server on the internet has to stand: a flood, slow clients, wrong ones, a stop, a kill, and time.

    make soak                                   (20 minutes; the release binary and the default model)
    make soak SOAK_ARGS='--only loris mixed'
    make test-soak                              (under a minute; the debug binary and a tiny seeded model; part of make test)

Each check starts servers of its own on 127.0.0.1, makes claims and prints their figures. Where one does not hold, the check
has failed. How fast something is is printed and never judged, but that the long form wants a flood to leave nothing behind.
The long form writes bench/results/soak-DATE-CPU-CORES.md and .json. What each check does is in bench/README.md.
"""

import argparse
import asyncio
import os
import sys
import time
import traceback
import wave
from pathlib import Path

from served import ROOT
import endings
import overload
from machine import keep, machine
from traffic import Check, Setup

CHECKS = {
    "flood": overload.flood,
    "loris": overload.loris,
    "mixed": overload.mixed,
    "term": endings.terminate,
    "kill": endings.kill,
    "churn": endings.churn,
}
CLIP = ROOT / "tests/audio/speech.wav"  # "put this in the cart", by espeak-ng
TINY_MODEL = ROOT / "tests/golden/heads/one-encoder-mlp"


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    target = ROOT / os.environ.get("CARGO_TARGET_DIR", "target")
    parser.add_argument("--short", action="store_true", help="the debug binary, a tiny seeded model, seconds instead of minutes; nothing is written")
    parser.add_argument("--only", nargs="+", choices=CHECKS, default=list(CHECKS), metavar="NAME", help=f"of {', '.join(CHECKS)}")
    parser.add_argument("--minutes", type=float, default=10, help="of coming and going, in the long form (default 10)")
    parser.add_argument("--binary", type=Path, help="default: target/release/okyeame, of the short form target/debug/okyeame")
    args = parser.parse_args()
    args.binary = (args.binary or target / ("debug" if args.short else "release") / "okyeame").resolve()
    return args


def run(name, setup):
    begin = time.monotonic()
    try:
        check = asyncio.run(CHECKS[name](setup))
    except (Exception, SystemExit) as error:  # the others are still asked
        traceback.print_exc()
        check = Check(name, said=f"it broke off: {type(error).__name__}: {error}")
        check.claim(False, check.said)
    check.took_s = time.monotonic() - begin
    print(f"{'PASS' if check.passed() else 'FAIL'} {name} ({check.took_s:.0f} s): {check.said}", flush=True)
    for holds, sentence in check.claims:
        if not holds or not setup.short:
            print(f"     {'holds' if holds else 'DOES NOT HOLD'}: {sentence}", flush=True)
    return check


def report(facts, checks):
    cpu, cores = facts["machine"]["cpu"], facts["machine"]["cores"]
    lines = [
        "# What the server stood",
        "",
        f"`{facts['command']}` on {cpu}, {cores} cores, load average before {facts['load_average']:.2f}; whisper-base with the head, a command of {facts['clip_s']:.1f} s, "
        "intent only. The clients ran on the same cores.",
        "",
        "| check | | what came of it |",
        "|---|---|---|",
        *(f"| {check.name} | {'passed' if check.passed() else '**failed**'} | {check.said} |" for check in checks),
    ]
    for check in checks:
        lines += ["", f"## {check.name}", "", *(f"- {'' if holds else '**does not hold**: '}{sentence}" for holds, sentence in check.claims)]
    return lines


def main():
    args = parse()
    if not sys.platform.startswith("linux"):
        print("soak: not run: it watches the server through Linux's /proc")
        return 0
    if not args.binary.is_file():
        sys.exit(f"tests/soak/soak.py: there is no binary: {'cargo build -p okyeame-server' if args.short else 'make build'}")
    with wave.open(str(CLIP)) as file:
        clip_s = file.getnframes() / file.getframerate()
    setup = Setup(
        binary=str(args.binary),
        model=TINY_MODEL if args.short else None,
        short=args.short,
        minutes=args.minutes,
        clip=CLIP.read_bytes(),
        clip_s=clip_s,
        expected=None if args.short else "add_to_cart",
    )
    load_average = os.getloadavg()[0]
    checks = [run(name, setup) for name in args.only]
    failed = sum(not check.passed() for check in checks)
    if not args.short:
        facts = {
            "command": "make soak" + ("" if len(checks) == len(CHECKS) else f" SOAK_ARGS='--only {' '.join(args.only)}'"),
            "machine": machine(),
            "load_average": load_average,
            "clip_s": clip_s,
            "minutes": args.minutes,
            "checks": [{"name": c.name, "passed": c.passed(), "took_s": round(c.took_s), "claims": c.claims, "figures": c.figures} for c in checks],
        }
        keep("soak", facts, report(facts, checks))
    print(f"soak: {len(checks) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
