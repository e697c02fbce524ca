#!/usr/bin/env python3
"""Where the time goes, ours and that of faster-whisper's encoder, beside the same peak: `make profile`.

Ours says it itself (`okyeame bench --profile`): a 3 s command and an 11 s transcript, in f32 and in int8, by stage and kernel, each
beside the fastest matrix product that the machine did a moment before. faster-whisper stands on CTranslate2, whose products are
oneDNN's (on AMD) or MKL's (on Intel); both write a line for each, with its shape and time, if the environment asks for it. What
they do not write of is what CTranslate2 does itself: quantising, softmax, gelu, layer norm, copies. Its encoder gets windows as
long as ours took, and its products are held against the peak that ours measured in this run.

(Not named profile.py, which would stand in the way of Python's own module.)
"""

import argparse
import json
import math
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

from children import BenchFailed, environment
from machine import ROOT, machine

BENCH = Path(__file__).resolve().parent
CLIPS = BENCH / "clips"
ENCODER = BENCH / "faster_whisper_encoder.py"
COMMAND, TRANSCRIPT = "twi-3s", "english-11s"
DTYPES = {"f32": "float32", "int8": "int8"}  # ours: theirs
HEAD_DIM = 64  # of every Whisper: how a product of attention is told from one with weights
TIMEOUT_S = 600

MILLISECONDS = {"s": 1e3, "ms": 1.0, "us": 1e-3, "ns": 1e-6}
MKL_LINE = re.compile(r"^MKL_VERBOSE ([A-Z0-9_]+)\((.*?)\) ([\d.]+)(s|ms|us|ns) ")
CONVOLUTION = re.compile(r"mb(\d+)_ic(\d+)oc(\d+)_.*?ow(\d+)kw(\d+)")


def onednn_call(line):
    """(kind, int8, rows, depth, columns, how many, ms), or None if it is no line about a call."""
    fields = line.strip().split(",")
    if not fields[0].startswith(("onednn_verbose", "dnnl_verbose")) or "exec" not in fields:
        return None
    int8 = "src_u8" in line or "src_s8" in line
    try:
        primitive, problem, ms = fields[fields.index("exec") + 2], fields[-2], float(fields[-1])
        if primitive in ("gemm_api", "matmul"):
            a, b = ([int(n) for n in part.split("x")] for part in problem.split(":")[:2])
            return "product", int8, a[-2], a[-1], b[-1], math.prod(a[:-2]), ms
    except (IndexError, ValueError):
        return None  # a line that was cut, or of a version that writes otherwise
    convolution = CONVOLUTION.search(problem) if primitive == "convolution" else None
    if convolution:
        batch, d_input, d_output, frames, kernel = map(int, convolution.groups())
        return "convolution", int8, batch * frames, d_input * kernel, d_output, 1, ms
    return primitive, int8, 0, 0, 0, 1, ms


def mkl_call(line):
    """As `onednn_call`. MKL counts columns first, so its m and n are our columns and rows."""
    match = MKL_LINE.match(line)
    if not match:
        return None
    name, arguments, time, unit = match.groups()
    ms = float(time) * MILLISECONDS[unit]
    numbers = [int(argument) for argument in arguments.split(",") if re.fullmatch(r"\d+", argument)]
    if "GEMM" not in name or name.endswith(("_PACK", "_GET_SIZE")) or len(numbers) < 3:
        return name.lower(), False, 0, 0, 0, 1, ms
    columns, rows, depth = numbers[:3]
    many = numbers[-1] if "BATCH" in name else 1
    return "product", "S8U8S32" in name, rows, depth, columns, many, ms


def group_of(kind, int8, depth, columns):
    if kind == "convolution":
        return "convolutions"
    if kind == "product":
        if HEAD_DIM in (depth, columns):
            return "attention's products"
        return "linear layers, " + ("int8" if int8 else "f32")
    return "reordering" if kind == "reorder" else "other calls"


def runs_of(lines, threads):
    """frames → a list of runs, each {ms, groups: name → {calls, ms, multiply_adds, int8}}"""
    runs, groups = defaultdict(list), None
    for line in lines:
        words = line.split()
        if words[:1] == ["begin"]:
            groups = defaultdict(lambda: {"calls": 0, "ms": 0.0, "multiply_adds": 0, "int8": False})
        elif words[:1] == ["end"]:
            runs[int(words[1])].append({"ms": float(words[2]), "groups": dict(groups)})
            groups = None
        elif groups is not None:
            onednn = onednn_call(line)
            call = onednn or mkl_call(line)
            if call is None:
                continue
            kind, int8, rows, depth, columns, many, ms = call
            name = group_of(kind, int8, depth, columns)
            # With oneDNN, CTranslate2 gives each head to a thread of its own (`gemm_batch_strided`): these times overlap.
            overlap = threads if onednn and many == 1 and name == "attention's products" else 1
            group = groups[name]
            group["calls"] += many
            group["ms"] += ms / overlap
            group["multiply_adds"] += many * rows * depth * columns
            group["int8"] |= int8
    return runs


def encode(model, kind, threads, runs, windows, env):
    command = [sys.executable, str(ENCODER), str(model), kind, str(threads), str(runs), *map(str, windows)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, errors="replace", timeout=TIMEOUT_S)
    if done.returncode:
        raise BenchFailed(f"faster-whisper's encoder, {kind}, failed: {done.stderr.strip().splitlines()[-1:]}")
    return runs_of(done.stdout.splitlines(), threads)


def theirs(model, kind, threads, runs, windows, env):
    """frames → {ms: undisturbed, traced_ms: with its lines written, groups}"""
    quiet = encode(model, kind, threads, runs, windows, env)
    speaking = {**env, "ONEDNN_VERBOSE": "1", "DNNL_VERBOSE": "1", "MKL_VERBOSE": "1"}
    traced = encode(model, kind, threads, runs, windows, speaking)
    result = {}
    for frames in windows:
        median = sorted(traced[frames], key=lambda run: run["ms"])[len(traced[frames]) // 2]
        result[frames] = {
            "ms": statistics.median(run["ms"] for run in quiet[frames]),
            "traced_ms": median["ms"],
            "groups": median["groups"],
        }
    return result


def ours(binary, dtype, threads, runs, clips, env):
    """What `okyeame bench --profile` measures; its tables go to our stdout."""
    asked = [("command", COMMAND), ("transcribe", TRANSCRIPT)]
    with tempfile.TemporaryDirectory(prefix="okyeame-profile-") as folder:
        json_file = Path(folder) / "profile.json"
        command = [str(binary), "bench", "--device", "cpu", "--dtype", dtype, "--threads", str(threads)]
        command += ["--runs", str(runs), "--json", str(json_file)]
        for work, clip in asked:
            command += ["--profile", f"{work}:{clips[clip]['language']}:{CLIPS / clips[clip]['file']}"]
        done = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, timeout=TIMEOUT_S)
        if done.returncode:
            raise BenchFailed(f"okyeame bench --profile in {dtype} failed")
        print(done.stdout, flush=True)
        return json.loads(json_file.read_text(encoding="utf-8"))


def gops(multiply_adds, ms):
    return 2 * multiply_adds / ms / 1e6 if ms else 0.0


def our_encoder(clip):
    """The encoder of one clip of ours, in the words that theirs is described in."""
    ops = [op for op in clip["ops"] if op["stage"] == "encoder"]
    linear = [op for op in ops if op["op"].startswith(("linear ", "mlp "))]
    # An MLP in one kernel has two layers in it, so its shape says nothing of the rows.
    single = [op for op in linear if op["op"].startswith("linear ")]
    widest = max(single, key=lambda op: op["multiply_adds"] / op["calls"])
    d_input, d_output = map(int, widest["op"].split()[-1].split("→"))
    total = lambda key, ops: sum(op[key] for op in ops)
    ms = next(stage["ms"] for stage in clip["stages"] if stage["stage"] == "encoder")
    return {
        "ms": ms,
        "divided_ms": ms,
        "frames": 2 * widest["multiply_adds"] // (widest["calls"] * d_input * d_output),
        "multiply_adds": total("multiply_adds", ops),
        "linear_ms": total("ms", linear),
        "linear_multiply_adds": total("multiply_adds", linear),
        "attention_ms": total("ms", [op for op in ops if op["op"].startswith("self-attention")]),
        "convolution_ms": total("ms", [op for op in ops if op["op"].startswith("conv1d")]),
    }


def their_encoder(window):
    groups = window["groups"]
    of = lambda key, *names: sum(group[key] for name, group in groups.items() if name.startswith(names))
    return {
        "ms": window["ms"],
        "divided_ms": window["traced_ms"],  # what the parts below are parts of
        "multiply_adds": of("multiply_adds", ""),
        "linear_ms": of("ms", "linear"),
        "linear_multiply_adds": of("multiply_adds", "linear"),
        "attention_ms": of("ms", "attention"),
        "convolution_ms": of("ms", "convolutions"),
    }


def table(header, rows, numbers_from=1):
    """A Markdown table that can be read in a terminal."""
    rows = [header, *rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(header))]
    line = lambda row: "| " + " | ".join(
        cell.ljust(width) if i < numbers_from else cell.rjust(width)
        for i, (cell, width) in enumerate(zip(row, widths, strict=True))
    ) + " |"
    rule = "|" + "|".join(
        "-" * (width + 2) if i < numbers_from else "-" * (width + 1) + ":" for i, width in enumerate(widths)
    ) + "|"
    return "\n".join([line(rows[0]), rule, *map(line, rows[1:])])


def percent(part, whole, decimals=1):
    return f"{100 * part / whole:.{decimals}f} %" if whole else "–"


def their_table(window, peaks):
    total, groups = window["traced_ms"], window["groups"]
    rows = []
    for name, group in sorted(groups.items(), key=lambda item: -item[1]["ms"]):
        rate = gops(group["multiply_adds"], group["ms"])
        known = group["multiply_adds"] > 0
        rows.append([
            name, str(group["calls"]), f"{group['ms']:.2f}", percent(group["ms"], total),
            f"{rate:.0f}" if known else "", percent(rate, peaks[group["int8"]], 0) if known else "",
        ])
    rest = max(total - sum(group["ms"] for group in groups.values()), 0.0)
    rows.append(["what CTranslate2 does itself", "", f"{rest:.2f}", percent(rest, total), "", ""])
    return table(["faster-whisper's encoder", "calls", "ms", "share", "GOP/s", "of peak"], rows)


def beside(window, columns, peaks):
    """Both encoders on one window. columns: [(name, encoder, is it int8)]"""
    def row(name, cell):
        return [name, *(cell(encoder, peaks[int8]) for _, encoder, int8 in columns)]

    def others(encoder):
        parts = encoder["linear_ms"] + encoder["attention_ms"] + encoder["convolution_ms"]
        return max(encoder["divided_ms"] - parts, 0.0)

    known = lambda encoder: encoder["multiply_adds"] > 0
    rows = [
        row("encoder, ms", lambda e, peak: f"{e['ms']:.2f}"),
        row("all its products, of peak", lambda e, p: percent(gops(e["multiply_adds"], e["ms"]), p, 0) if known(e) else "–"),
        row("linear layers, ms", lambda e, p: f"{e['linear_ms']:.2f}" if known(e) else "–"),
        row(
            "linear layers, of peak",
            lambda e, p: percent(gops(e["linear_multiply_adds"], e["linear_ms"]), p, 0) if known(e) else "–",
        ),
        row("attention (theirs: its products), ms", lambda e, p: f"{e['attention_ms']:.2f}" if known(e) else "–"),
        row("convolutions, ms", lambda e, p: f"{e['convolution_ms']:.2f}" if known(e) else "–"),
        row("everything else, ms", lambda e, p: f"{others(e):.2f}" if known(e) else "–"),
    ]
    return table([window, *(name for name, *_ in columns)], rows)


def parse():
    target = Path(os.environ.get("CARGO_TARGET_DIR", "target"))
    binary = (target if target.is_absolute() else ROOT / target) / "release" / "okyeame"
    folder = ROOT / "models" / "whisper-base"
    model = folder if (folder / "model.bin").is_file() else folder.with_name("whisper-base-ctranslate2")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=9, help="runs of each work; the median one is shown (default 9)")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="default: all cores")
    parser.add_argument("--model", type=Path, default=model, help="a CTranslate2 folder, for both")
    parser.add_argument("--okyeame", type=Path, default=binary, help="the release binary")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there too")
    return parser.parse_args()


def main():
    arguments = parse()
    binary, model = arguments.okyeame.resolve(), arguments.model.resolve()
    if not binary.is_file():
        raise BenchFailed(f"there is no {binary}: make build")
    if not (model / "model.bin").is_file():
        raise BenchFailed(f"there is no CTranslate2 model in {model}: make model")
    if arguments.runs < 1 or arguments.threads < 1:
        raise BenchFailed("--runs and --threads are at least 1")
    subprocess.run([sys.executable, str(BENCH / "make_clips.py"), str(CLIPS)], check=True, stdout=subprocess.DEVNULL)
    clips = json.loads((CLIPS / "clips.json").read_text(encoding="utf-8"))
    env = environment(arguments.threads, model)

    facts = machine()
    if os.getloadavg()[0] > 0.3:
        print("Something else is running here, and the figures will show it.", file=sys.stderr)
    print(f"# Where the time goes: {facts['cpu']}, {facts['cores']} cores, load {os.getloadavg()[0]:.2f}\n", flush=True)
    reports = {
        dtype: ours(binary, dtype, arguments.threads, arguments.runs, clips, env) for dtype in DTYPES
    }
    # is it int8 → the best of what both runs measured
    peaks = {
        int8: max(p["gops"] for report in reports.values() for p in report["peaks"] if p["int8"] == int8)
        for int8 in (False, True)
    }
    encoders = {dtype: [our_encoder(clip) for clip in report["clips"]] for dtype, report in reports.items()}
    windows = sorted({encoder["frames"] for both in encoders.values() for encoder in both})
    measured = {}
    for dtype, kind in DTYPES.items():
        measured[dtype] = theirs(model, kind, arguments.threads, arguments.runs, windows, env)
        for frames in windows:
            window = measured[dtype][frames]
            print(f"## faster-whisper, {kind}, {frames / 100:.2f} s: {window['ms']:.2f} ms\n")
            if window["groups"]:
                print(f"With its lines written it took {window['traced_ms']:.2f} ms; of those:\n")
                print(their_table(window, peaks) + "\n", flush=True)
            else:
                print("Neither oneDNN nor MKL said where they went: this build of CTranslate2 stands on another library.\n")
    print("## Both encoders\n")
    print(f"The peak of this run: {peaks[False]:.0f} GFLOP/s in f32, {peaks[True]:.0f} GOP/s in int8.\n")
    for i, frames in enumerate([both["frames"] for both in encoders["f32"]]):
        columns = [(f"okyeame {dtype}", encoders[dtype][i], dtype == "int8") for dtype in DTYPES]
        columns += [
            (f"faster-whisper {kind}", their_encoder(measured[dtype][frames]), dtype == "int8")
            for dtype, kind in DTYPES.items()
        ]
        print(beside(f"{frames / 100:.2f} s", columns, peaks) + "\n", flush=True)
    if arguments.json:
        result = {"machine": facts, "threads": arguments.threads, "okyeame": reports, "faster_whisper": measured}
        arguments.json.write_text(json.dumps(result, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (BenchFailed, subprocess.SubprocessError) as failed:
        sys.exit(f"bench/make_profile.py: {failed}")
