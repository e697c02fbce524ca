"""A server under load: what sharing a pass gives, what becomes of ten times more clients than it can answer, how long a
command takes at four fifths of what the server can do, what HTTP costs beside the model, and faster-whisper under the
same clients.

    make bench-load              (wrk, espeak-ng and bench/.venv are installed if need be; the release binary is built)

Each arm is a server of its own, without a cache, which answers one 3 s command again and again, the intent only. wrk
keeps CLIENTS connections busy, each with one request at a time; raw_http.py asks at given times. What the words mean is
in README.md. Writes results/load-DATE-CPU.md and .json.
"""

import argparse
import asyncio
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import wave
from pathlib import Path

from children import START_TIMEOUT_S, Child, environment
from machine import ROOT, keep, machine
from raw_http import Connection, open_loop, percentile, post_clip, request

WORDS = "Fa shoes no mmienu ka cart no ho"
HEADINGS = ["server", "clients", "answers / s", "p50 ms", "p99 ms", "answers by status", "mean batch"]
DTYPES = ("f32", "int8")
SHARED = 8  # the server's own --max-batch
ALONE = 300  # requests, one after the other, for what HTTP costs
OF_CAPACITY = 0.8


def speak(folder):
    """A command of about three seconds; its length."""
    path = Path(folder) / "command.wav"
    subprocess.run(["espeak-ng", "-v", "sw", "-s", "150", "-w", str(path), WORDS], check=True, stdin=subprocess.DEVNULL)
    with wave.open(str(path)) as file:
        return path, file.getnframes() / file.getframerate()


class Server:
    def __init__(self, binary, dtype, max_batch):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        options = ["--port", str(self.port), "--cache-bytes", "0", "--device", "cpu", "--dtype", dtype, "--max-batch", str(max_batch)]
        self.process = subprocess.Popen([binary, "server", *options], cwd=ROOT, stderr=subprocess.DEVNULL)
        for _ in range(240):
            try:
                urllib.request.urlopen(f"{self.url}/health", timeout=5).close()
                return
            except OSError:
                time.sleep(0.25)
        raise SystemExit("the server did not become ready")

    def batches(self):
        """Passes through the model, and the clips in them."""
        text = urllib.request.urlopen(f"{self.url}/metrics", timeout=5).read().decode()
        number = lambda name: float(re.search(rf"^okyeame_batch_size_{name} (\S+)", text, re.M).group(1))
        return number("count"), number("sum")

    def peak_mb(self):
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+)", status).group(1)) / 1000

    def stop(self):
        self.process.terminate()
        return self.process.wait(timeout=120)


def drive(url, clip, clients, seconds):
    wrk = ["wrk", "-t1", f"-c{clients}", f"-d{seconds}s", "--timeout", "60s", "-s", str(ROOT / "bench/load.lua"), url]
    printed = subprocess.run(wrk, env={**os.environ, "CLIP": str(clip)}, capture_output=True, text=True, check=True).stdout
    result = json.loads(printed.rpartition("RESULT ")[2])
    return {"clients": clients, "per_s": result["statuses"].get("200", 0) / result["seconds"], **result}


def load(server, clip, clients, seconds):
    passes, clips = server.batches()
    result = drive(server.url, clip, clients, seconds)
    time.sleep(1)  # what wrk left unanswered
    passes, clips = (after - before for after, before in zip(server.batches(), (passes, clips)))
    return {"mean_batch": clips / max(passes, 1), **result}


async def cost_of_http(server, command):
    """One client, one request after the other: what it waits beside what the answer says that its clip took."""
    live = request("GET", "/live")
    waits, costs, floors = [], [], []
    async with Connection(server.port) as connection:
        for _ in range(ALONE):
            for data in (command, live):
                begin = time.perf_counter()
                answer = await connection.ask(data)
                wait_ms = (time.perf_counter() - begin) * 1e3
                if answer.status != 200:
                    raise SystemExit(f"a command by itself was answered with {answer.status}")
                if data is live:
                    floors.append(wait_ms)
                else:
                    waits.append(wait_ms)
                    costs.append(wait_ms - sum(json.loads(answer.body)["timings_ms"].values()))
    summary = lambda values: {f"p{percent}_ms": percentile(values, percent) for percent in (50, 99)}
    return {"requests": ALONE, "waited": summary(waits), "beside_the_clip": summary(costs), "live": summary(floors)}


async def at_a_rate(server, command, per_s, seconds, evenly):
    taken = await open_loop(server.port, command, per_s, seconds, evenly)
    times = [ms for status, ms in taken if status == 200]
    statuses = {str(status): sum(s == status for s, _ in taken) for status in sorted({s for s, _ in taken})}
    figures = {f"p{percent}_ms": percentile(times, percent) for percent in (50, 90, 99)}
    return {"asked_per_s": per_s, "seconds": seconds, "statuses": statuses, **figures}


def faster_whisper(clip, seconds, model):
    """Rows of faster-whisper int8 under wrk, with all cores."""
    threads = len(os.sched_getaffinity(0))
    script = ROOT / "bench/faster_whisper_server.py"
    child = Child("faster-whisper", [sys.executable, str(script), str(model), str(threads), "sw"], environment(threads, model))
    try:
        url = f"http://127.0.0.1:{child.read(START_TIMEOUT_S)['port']}"
        drive(url, clip, 1, 2)  # warm
        return [{"server": "faster-whisper", **drive(url, clip, clients, seconds)} for clients in (1, 4, 16)]
    finally:
        child.process.terminate()
        child.close()


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=20, help="of each measurement")
    parser.add_argument("--binary", default=os.environ.get("OKYEAME", "target/release/okyeame"))
    parser.add_argument("--model", type=Path, help="a CTranslate2 folder, for faster-whisper; without it, that is left out")
    return parser.parse_args()


def main():
    args = parse()
    rows = []
    facts = {"machine": machine(), "load_average": os.getloadavg()[0], "rows": rows}

    def kept(row):
        rows.append(row)
        print(json.dumps(row), flush=True)

    with tempfile.TemporaryDirectory() as folder:
        clip, facts["clip_s"] = speak(folder)
        command = post_clip("/test-intent?transcribe=false", clip.read_bytes())
        for dtype in DTYPES:
            server = Server(args.binary, dtype, 1)
            try:
                for clients in (1, 16):
                    kept({"server": arm(dtype, 1), **load(server, clip, clients, args.seconds)})
            finally:
                server.stop()
            server = Server(args.binary, dtype, SHARED)
            facts[dtype] = figures = {}
            try:
                # The last asks whether the flood of the one before left anything behind.
                for clients in (1, 4, 16, 160, 1):
                    kept({"server": arm(dtype, SHARED), **load(server, clip, clients, args.seconds)})
                figures["http"] = asyncio.run(cost_of_http(server, command))
                most = next(row["per_s"] for row in rows if row["server"] == arm(dtype, SHARED) and row["clients"] == 16)
                for name, evenly in (("evenly", True), ("by_chance", False)):
                    figures[name] = asyncio.run(at_a_rate(server, command, OF_CAPACITY * most, 3 * args.seconds, evenly))
                figures["peak_mb"] = server.peak_mb()
            finally:
                figures["exit"] = server.stop()
        if args.model:
            for row in faster_whisper(clip, args.seconds, args.model.absolute()):
                kept(row)
    keep("load", facts, report(facts))


def arm(dtype, max_batch):
    return f"okyeame {dtype}, batch {max_batch}"


def report(facts):
    by = {(row["server"], row["clients"]): row["per_s"] for row in reversed(facts["rows"])}
    lines = [
        "# A server under load",
        "",
        f"`make bench-load` on {facts['machine']['cpu']}, {facts['machine']['cores']} cores, load average before {facts['load_average']:.2f}; "
        f"whisper-base with the head, a command of {facts['clip_s']:.1f} s, intent only, no cache; wrk on the same cores.",
        "",
        "| " + " | ".join(HEADINGS) + " |",
        "|" + "---|" * len(HEADINGS),
    ]
    for row in facts["rows"]:
        statuses = ", ".join(f"{n} × {status}" for status, n in sorted(row["statuses"].items()))
        broken = f", {row['broken']} broken" if row["broken"] else ""
        cells = [row["server"], row["clients"], f"{row['per_s']:.1f}", f"{row['p50_ms']:.1f}", f"{row['p99_ms']:.1f}", statuses + broken]
        batch = f"{row['mean_batch']:.1f}" if "mean_batch" in row else "–"
        lines.append("| " + " | ".join(map(str, [*cells, batch])) + " |")
    for dtype in DTYPES:
        alone, ours, figures = arm(dtype, 1), arm(dtype, SHARED), facts[dtype]
        times = lambda server: by[server, 16] / by[server, 1]
        http = figures["http"]

        def at_the_rate(name, words):
            rate = figures[name]
            statuses = ", ".join(f"{n} × {status}" for status, n in rate["statuses"].items())
            times_p50 = rate["p99_ms"] / rate["p50_ms"]
            return (
                f"{words} p50 {rate['p50_ms']:.1f} ms, p90 {rate['p90_ms']:.1f} ms, p99 {rate['p99_ms']:.1f} ms, {times_p50:.1f} times p50 ({statuses})"
            )

        lines += [
            "",
            f"## {dtype}",
            f"16 clients get {times(ours):.2f} times the answers of one (asked: 1.5), without sharing {times(alone):.2f} times. 160 clients are more than "
            f"the queue of 64 takes: the rest is 429 at once, which is why their p50 is short. Peak memory {figures['peak_mb']:.0f} MB; "
            f"SIGTERM at the end: exit {figures['exit']}.",
            "",
            f"**At {OF_CAPACITY:.0%} of capacity** ({figures['evenly']['asked_per_s']:.1f} commands a second, of the {by[ours, 16]:.1f} that 16 clients get, for "
            f"{figures['evenly']['seconds']} s; times from when each should have been sent; asked: p99 under 3 times p50): "
            f"{at_the_rate('evenly', 'sent evenly')}; {at_the_rate('by_chance', 'at random moments')}.",
            "",
            f"**HTTP beside the clip**: one client waits {http['waited']['p50_ms']:.2f} ms (p50 of {http['requests']}), of which "
            f"{http['beside_the_clip']['p50_ms']:.2f} ms (p99 {http['beside_the_clip']['p99_ms']:.2f}) are not in the answer's own `timings_ms`: sockets, the "
            f"form, threads, JSON, and the client, which is Python; its GET /live takes {http['live']['p50_ms']:.2f} ms.",
        ]
    if ("faster-whisper", 16) in by:
        ratio = lambda dtype, clients: by[arm(dtype, SHARED), clients] / max(by["faster-whisper", clients], 1e-9)
        ratios = "; ".join(f"{dtype}: " + ", ".join(f"{n} clients {ratio(dtype, n):.1f}" for n in (1, 4, 16)) for dtype in DTYPES)
        lines += [
            "",
            f"## faster-whisper int8",
            f"It answers the same requests with the command's words (it has no intents; bench/faster_whisper_server.py). "
            f"Commands a second, ours over its: {ratios}.",
        ]
    return lines


if __name__ == "__main__":
    main()
