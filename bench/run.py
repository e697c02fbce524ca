#!/usr/bin/env python3
"""Measures this project beside faster-whisper, in one run, each in turn: `make bench`.

Every engine is one child process that stays for the whole run, so that model loading is not part of an answer's time.
Only one of them works at a time: a round asks each engine in turn for the same work on the same clip, with a pause
between, and each round begins with another engine, so that a slow moment of the machine falls on all alike. Times are
taken here, from sending the request to reading the answer; the stages inside come from the engines themselves.

After the rounds: our server with the default head, whole requests to it in turns with faster-whisper's transcript of the
command, and its memory (serving.py); the memory of each child; the cold start (a new process, until its first answer)
with the model in the page cache and dropped from it; and `okyeame bench --profile`, for the share of the GEMM peak.

What the binary has to speak, and how to read the result, is in README.md beside this file.
"""

import argparse
import datetime
import json
import os
import re
import shlex
import statistics
import subprocess
import sys
import time
from pathlib import Path

import bars
import report
from children import SCRATCH, SETTLE_S, START_TIMEOUT_S, BenchFailed, Child, environment
from machine import ROOT, cpu_ticks, machine, versions
from serving import IDLE_S, measure_server, summary, why_no_head

BENCH = Path(__file__).resolve().parent
CLIPS = BENCH / "clips"
FW_WORKER = BENCH / "faster_whisper_worker.py"
FW_TYPES = ("float32", "int8")

PROFILES = 7
PROFILE_TIMEOUT_S = 180
OURS = [("f32", ["--dtype", "f32"]), ("int8", ["--dtype", "int8"])]

# (case, clip, what we are asked, what faster-whisper is asked)
CASES = [
    ("command 2 s", "twi-2s", "command", "transcribe"),
    ("command 3 s", "twi-3s", "command", "transcribe"),
    ("command 5 s", "twi-5s", "command", "transcribe"),
    ("encoder alone 2 s", "twi-2s", "encode_clip", "encode_clip"),
    ("encoder alone 3 s", "twi-3s", "encode_clip", "encode_clip"),
    ("encoder alone 5 s", "twi-5s", "encode_clip", "encode_clip"),
    ("encoder alone 30 s", "english-30s", "encode", "encode"),
    ("transcript 3 s", "twi-3s", "transcribe", "transcribe"),
    ("transcript 11 s", "english-11s", "transcribe", "transcribe"),
    ("transcript 30 s", "english-30s", "transcribe", "transcribe"),
    ("transcript 11 s, beam 5", "english-11s", "transcribe5", "transcribe5"),
]
COLD_START_CLIP = "twi-3s"


def measure_cases(cases, clips, engines, rounds):
    """case → engine → {times, stages, tokens, text}"""
    taken = {case: {engine.name: [] for engine, _ in engines} for case, *_ in cases}
    for number in range(-1, rounds):  # round -1 warms up and is not kept
        for case, clip, *works in cases:
            turn = (number + 1) % len(engines)
            for engine, ours in engines[turn:] + engines[:turn]:
                time.sleep(SETTLE_S)
                result = engine.ask(works[0 if ours else 1], clips[clip]["language"], clips[clip]["path"])
                if number >= 0:
                    taken[case][engine.name].append(result)
        print(f"  round {number + 1} of {rounds}" if number >= 0 else "  warm", flush=True)
    measured = {}
    for case, clip, our_work, their_work in cases:
        measured[case] = {"clip": clip, "our_work": our_work, "their_work": their_work, "engines": {}}
        for name, results in taken[case].items():
            answers = [answer for _, answer in results]
            stages = [key for key in answers[0] if key.endswith("_ms") and key != "total_ms"]
            measured[case]["engines"][name] = {
                # keys and values for the decoder are timed apart, after an encoder: no part of the case
                **summary([wall_ms - answer.get("cross_ms", 0.0) for wall_ms, answer in results]),
                "stages_ms": {
                    stage: round(statistics.median(a.get(stage, 0.0) for a in answers), 3) for stage in stages
                },
                "inside_ms": round(statistics.median(a["total_ms"] for a in answers), 3),
                "positions": answers[-1].get("positions"),
                "tokens": answers[-1].get("tokens"),
                "text": answers[-1].get("text"),
            }
    return measured


def drop_from_page_cache(folder):
    """Asks the kernel to forget the model's files, so that the next start reads them from the disk. Needs no root,
    and works on pages that no living process has mapped."""
    for path in folder.iterdir():
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(handle)


def read_into_page_cache(folder):
    for path in folder.iterdir():
        with path.open("rb") as file:
            while file.read(1 << 20):
                pass


def first_answer_ms(command, request, env):
    """Spawns, sends the request if there is one, and takes the time until the answer's line is there."""
    begin = time.perf_counter()
    child = Child(command[0], command, env)
    try:
        inside = {}
        if request:
            child.process.stdin.write(request.encode())
            child.process.stdin.flush()
            inside = child.ready()
        answer = child.read(START_TIMEOUT_S)
        elapsed = (time.perf_counter() - begin) * 1e3
        if "error" in answer or "detail" in answer:
            raise BenchFailed(f"the cold start failed: {answer}")
    finally:
        child.close()
    return elapsed, inside


def measure_cold_start(starts, model, env, repeat):
    """name → times with the model cached and from the disk; of faster-whisper also its imports and its loading."""
    taken = {name: {"cached": [], "from_disk": [], "inside": []} for name, *_ in starts}
    for _ in range(repeat):
        for state in ("cached", "from_disk"):
            for name, command, request in starts:
                (read_into_page_cache if state == "cached" else drop_from_page_cache)(model)
                time.sleep(SETTLE_S)
                elapsed, inside = first_answer_ms(command, request, env)
                taken[name][state].append(elapsed)
                if state == "cached":
                    taken[name]["inside"].append(inside)
    read_into_page_cache(model)
    return {
        name: {
            "cached": summary(times["cached"]),
            "from_disk": summary(times["from_disk"]),
            **{
                key: round(statistics.median(i[key] for i in times["inside"]), 1)
                for key in ("import_ms", "load_ms")
                if key in times["inside"][0]
            },
        }
        for name, times in taken.items()
    }


def profile(binary, arguments, clip, env):
    """The share of the GEMM peak that the encoder's linear layers reach on a command, as `okyeame bench --profile` measures it: the
    median of several processes, since a machine's neighbours may change what it can do between the peak and the command.
    None where one says nothing of use."""
    figures = Path(SCRATCH.name) / "profile.json"
    command = [str(binary), "bench", "--profile", f"command:{clip['language']}:{clip['path']}", "--json", str(figures)]
    shares = []
    try:
        for _ in range(PROFILES):
            subprocess.run(
                [*command, *arguments], env=env, cwd=SCRATCH.name, capture_output=True, timeout=PROFILE_TIMEOUT_S, check=True
            )
            found = json.loads(figures.read_text(encoding="utf-8"))
            linear = found["clips"][0]["encoder_linear"]
            shares.append((linear["of_peak"], linear["gops"], found["peaks"]))
    except (OSError, subprocess.SubprocessError, ValueError, LookupError, TypeError):
        return None
    share, gops, peaks = sorted(shares, key=lambda found: found[0])[PROFILES // 2]
    return {
        "encoder_linear_share_of_peak": share,
        "shares": [share for share, *_ in shares],
        "gops": gops,
        "peaks": peaks,
    }


def free_stem(folder, name):
    """A second result of the day does not take the first one's place."""
    stem, number = folder / name, 1
    while stem.with_name(stem.name + ".json").exists():
        number += 1
        stem = folder / f"{name}-run-{number}"
    return stem


def extra_clip(text):
    try:
        language, path = text.split(":", 1)
    except ValueError:
        raise argparse.ArgumentTypeError("write LANGUAGE:FILE, such as en:speech.flac") from None
    if not Path(path).is_file():
        raise argparse.ArgumentTypeError(f"no such file: {path}")
    return language, Path(path).resolve()


def variant(text):
    name, _, arguments = text.partition("=")
    return name, shlex.split(arguments)


def default_model():
    """faster-whisper reads CTranslate2 only: where the default model came from the hub, make bench fetches a second."""
    folder = ROOT / "models" / "whisper-base"
    return folder if (folder / "model.bin").is_file() else folder.with_name("whisper-base-ctranslate2")


def parse():
    target = Path(os.environ.get("CARGO_TARGET_DIR", "target"))
    binary = (target if target.is_absolute() else ROOT / target) / "release" / "okyeame"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="kept measurements of each engine and case (default 9)")
    parser.add_argument("--cold-starts", type=int, default=3, help="cold starts of each (default 3; 0 leaves them out)")
    parser.add_argument(
        "--threads", type=int, default=len(os.sched_getaffinity(0)), help="for each engine (default: all cores)"
    )
    parser.add_argument("--model", type=Path, default=default_model(), help="a CTranslate2 folder, for both")
    parser.add_argument("--okyeame", type=Path, default=binary, help="the release binary")
    parser.add_argument(
        "--ours",
        type=variant,
        action="append",
        metavar="NAME=ARGUMENTS",
        help="a variant of ours, with what to add to `okyeame bench --serve`; repeatable (default: f32 and int8)",
    )
    parser.add_argument(
        "--clip", type=extra_clip, action="append", default=[], metavar="LANG:FILE", help="one more transcript"
    )
    parser.add_argument("--only", help="only the cases whose name matches this regular expression")
    parser.add_argument(
        "--out", type=Path, default=BENCH / "results", help="where the result goes (default bench/results)"
    )
    return parser.parse_args()


def main():
    arguments = parse()
    model, binary = arguments.model.absolute(), arguments.okyeame.resolve()
    if not binary.is_file():
        raise BenchFailed("there is no release binary: make bench builds it")
    if not (model / "model.bin").is_file():
        raise BenchFailed(
            "faster-whisper reads CTranslate2 folders only: scripts/fetch_model.py --out FOLDER makes one, "
            "and --model FOLDER takes it"
        )
    load = os.getloadavg()
    if load[0] > 0.3:
        print(
            f"The load average is {load[0]:.2f}: something else is running here, and the figures will show it.",
            file=sys.stderr,
        )
    ticks = cpu_ticks()

    print("Making the clips", flush=True)
    subprocess.run([sys.executable, str(BENCH / "make_clips.py"), str(CLIPS)], check=True, stdout=subprocess.DEVNULL)
    clips = json.loads((CLIPS / "clips.json").read_text(encoding="utf-8"))
    for clip in clips.values():
        clip["path"] = str(CLIPS / clip["file"])
    cases = list(CASES)
    for language, path in arguments.clip:
        clips[path.stem] = {"file": path.name, "language": language, "spoken": language, "path": str(path)}
        cases.append((f"transcript {path.name}", path.stem, "transcribe", "transcribe"))
    cases = [case for case in cases if re.search(arguments.only or "", case[0])]

    env = environment(arguments.threads, model)
    headless = why_no_head(binary, model, env)
    if headless:
        print(f"Only encoders and transcripts: {headless}", flush=True)
        cases = [case for case in cases if case[2] != "command"]
    ours = arguments.ours or OURS
    threads = ["--threads", str(arguments.threads)]
    fw_command = {kind: [sys.executable, str(FW_WORKER), str(model), kind, str(arguments.threads)] for kind in FW_TYPES}
    our_command = [str(binary), "bench", "--serve", *threads]
    served = next((variant for variant in ours if variant[0] == "int8"), ours[-1])

    engines, memory, loaded, server = [], {}, {}, None
    try:
        for name, extra in ours:
            engines.append((Child(name, our_command + extra, env), True))
        for kind in FW_TYPES:
            engines.append((Child(f"faster-whisper {kind}", fw_command[kind], env), False))
        for engine, _ in engines:
            loaded[engine.name] = {key: value for key, value in engine.ready().items() if key != "ready"}
        print(f"Measuring {len(cases)} cases on {len(engines)} engines, each in turn", flush=True)
        measured = measure_cases(cases, clips, engines, arguments.rounds)
        time.sleep(IDLE_S)
        memory = {engine.name: engine.memory() for engine, _ in engines}
        if not headless:
            print(f"Server, {served[0]}", flush=True)
            beside = next(engine for engine, _ in engines if engine.name == bars.THEIRS)
            name, extra = served
            server = measure_server(binary, name, [*threads, *extra], model, clips, arguments.rounds, env, beside)
    finally:
        for engine, _ in engines:
            engine.close()

    cold = {}
    cold_clip = clips[COLD_START_CLIP]
    if arguments.cold_starts and not headless:
        print("Cold starts", flush=True)
        request = f"transcribe\t{cold_clip['language']}\t{cold_clip['path']}\n"
        recognize = [str(binary), "recognize", "--json", *threads, "--language", cold_clip["spoken"]]
        starts = [(f"okyeame {name}", [*recognize, *extra, cold_clip["path"]], None) for name, extra in ours]
        starts += [(f"faster-whisper {kind}", fw_command[kind], request) for kind in FW_TYPES]
        cold = measure_cold_start(starts, model, env, arguments.cold_starts)
    print("Profile", flush=True)
    profiled = profile(binary, [*threads, *served[1]], clips["twi-3s"], env)

    note = model / "NOTE.txt"
    all_ticks, stolen_ticks = (after - before for after, before in zip(cpu_ticks(), ticks, strict=True))
    shown_arguments = [re.sub(r"^(\w+:|)/.*/", r"\1", argument) for argument in sys.argv[1:]]
    result = {
        "date": datetime.date.today().isoformat(),
        "command": "make bench" + (f' BENCH_ARGS="{shlex.join(shown_arguments)}"' if shown_arguments else ""),
        "machine": machine(),
        "versions": versions(binary),
        "threads": arguments.threads,
        "rounds": arguments.rounds,
        "load_average_at_start": [round(value, 2) for value in load],
        "stolen_percent": round(100 * stolen_ticks / max(all_ticks, 1), 2),
        "model": model.name,
        "model_note": note.read_text(encoding="utf-8").strip() if note.is_file() else None,
        "without_head": headless,
        "ours": [name for name, _ in ours],
        "clips": {name: {k: v for k, v in clip.items() if k != "path"} for name, clip in clips.items()},
        "loaded": loaded,
        "cases": measured,
        "memory": memory,
        "cold_start": cold,
        "server": server,
        "profile": profiled,
    }
    result["word_errors"] = bars.word_errors(result)
    result["bars"] = bars.rows(result)
    arguments.out.mkdir(parents=True, exist_ok=True)
    slug = re.sub(r"\W+", "-", re.sub(r"\((R|TM)\)|CPU|@.*", "", result["machine"]["cpu"])).strip("-").lower()
    name = f"{result['date']}-{slug}-{result['machine']['cores']}-cores"
    of_model = "" if model.name in ("whisper-base", "whisper-base-ctranslate2") else f"-{model.name}"
    stem = free_stem(arguments.out, name + of_model)
    stem.with_name(stem.name + ".json").write_text(
        json.dumps(result, ensure_ascii=False, indent=1) + "\n", encoding="utf-8"
    )
    print("\n" + report.write(result, stem))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BenchFailed as failed:
        sys.exit(f"bench/run.py: {failed}")
