"""What was measured, and on what."""

import datetime
import json
import os
import platform
import re
import subprocess
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CPU_FLAGS = (
    "sse4_2 avx avx2 fma f16c avx_vnni avx512f avx512bw avx512_vnni avx512_bf16 avx512_fp16 amx_int8 amx_bf16 "
    "asimd asimddp i8mm sve"
).split()


def output_of(*command):
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, timeout=30).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def machine():
    cpuinfo = Path("/proc/cpuinfo").read_text()
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in cpuinfo.splitlines())}
    flags = set((fields.get("flags") or fields.get("Features") or "").split())
    memory_kb = int(re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text()).group(1))
    return {
        "cpu": fields.get("model name") or platform.processor() or platform.machine(),
        "architecture": platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "flags": [flag for flag in CPU_FLAGS if flag in flags],
        "memory_gb": round(memory_kb * 1024 / 1e9, 1),
        "kernel": platform.release().split("-")[0],
    }


def versions(binary):
    return {
        "okyeame": output_of(str(binary), "--version").removeprefix("okyeame ") or "unknown",
        "commit": (output_of("git", "rev-parse", "--short=12", "HEAD") or "none")
        + (" with uncommitted changes" if output_of("git", "status", "--porcelain", "--untracked-files=no") else ""),
        "rustc": output_of("rustc", "--version").removeprefix("rustc "),
        **{name: version(name) for name in ("faster-whisper", "ctranslate2", "numpy")},
        "python": platform.python_version(),
        "espeak-ng": (re.search(r"[\d.]+", output_of("espeak-ng", "--version")) or [""])[0],
    }


def cpu_ticks():
    """(all ticks, ticks that other guests of the host took): shows a machine that was not ours alone."""
    ticks = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    return sum(ticks[:8]), ticks[7]


def keep(kind, facts, lines):
    """Writes results/KIND-DATE-CPU-CORES.md and .json, and prints the first."""
    cpu = re.sub(r"[^A-Za-z0-9]+", "-", facts["machine"]["cpu"]).strip("-")
    stem = ROOT / "bench/results" / f"{kind}-{datetime.date.today()}-{cpu}-{facts['machine']['cores']}"
    stem.with_name(f"{stem.name}.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    stem.with_name(f"{stem.name}.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    print("\n".join(lines))
