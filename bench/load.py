"""A server under load: what sharing a pass gives, and what becomes of ten times more clients than it can answer.

    make bench-load              (wrk and espeak-ng are installed if need be; the release binary is built)

Each arm is a server of its own, without a cache, which answers one 3 s command again and again, the intent only. wrk
keeps CLIENTS connections busy, each with one request at a time. Writes results/load-DATE-CPU.md and .json.
"""

import argparse
import datetime
import json
import os
import re
import socket
import subprocess
import tempfile
import time
import urllib.request
import wave
from pathlib import Path

from machine import ROOT, machine

WORDS = "Fa shoes no mmienu ka cart no ho"
HEADINGS = ["batch", "clients", "answers / s", "p50 ms", "p99 ms", "answers by status", "mean batch"]


def speak(folder):
    """A command of about three seconds; its length."""
    path = Path(folder) / "command.wav"
    subprocess.run(["espeak-ng", "-v", "sw", "-s", "150", "-w", str(path), WORDS], check=True, stdin=subprocess.DEVNULL)
    with wave.open(str(path)) as file:
        return path, file.getnframes() / file.getframerate()


class Server:
    def __init__(self, binary, max_batch):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.url = f"http://127.0.0.1:{free.getsockname()[1]}"
        port = self.url.rpartition(":")[2]
        options = ["--port", port, "--cache-bytes", "0", "--max-batch", str(max_batch)]
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


def load(server, clip, clients, seconds):
    passes, clips = server.batches()
    wrk = ["wrk", "-t1", f"-c{clients}", f"-d{seconds}s", "--timeout", "60s", "-s", str(ROOT / "bench/load.lua"), server.url]
    printed = subprocess.run(wrk, env={**os.environ, "CLIP": str(clip)}, capture_output=True, text=True, check=True).stdout
    result = json.loads(printed.rpartition("RESULT ")[2])
    time.sleep(1)  # what wrk left unanswered
    passes, clips = (after - before for after, before in zip(server.batches(), (passes, clips)))
    answered = result["statuses"].get("200", 0)
    return {"clients": clients, "per_s": answered / result["seconds"], "mean_batch": clips / max(passes, 1), **result}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=20, help="of each measurement")
    parser.add_argument("--binary", default=os.environ.get("OKYEAME", "target/release/okyeame"))
    args = parser.parse_args()
    rows = []
    facts = {"machine": machine(), "load_average": os.getloadavg()[0]}
    with tempfile.TemporaryDirectory() as folder:
        clip, facts["clip_s"] = speak(folder)
        for max_batch in (1, 8):
            server = Server(args.binary, max_batch)
            try:
                # The last asks whether the flood of the one before left anything behind.
                for clients in (1, 4, 16, 160, 1):
                    rows.append({"max_batch": max_batch, **load(server, clip, clients, args.seconds)})
                    print(json.dumps(rows[-1]), flush=True)
                facts[f"peak_mb_batch_{max_batch}"] = server.peak_mb()
            finally:
                facts[f"exit_batch_{max_batch}"] = server.stop()
    facts["rows"] = rows
    write(facts)


def write(facts):
    by = {(row["max_batch"], row["clients"]): row for row in reversed(facts["rows"])}
    cpu = facts["machine"]["cpu"]
    lines = [
        "# A server under load",
        "",
        f"`make bench-load` on {cpu}, {facts['machine']['cores']} cores, load average before {facts['load_average']:.2f}; whisper-base "
        f"with the head, f32, a command of {facts['clip_s']:.1f} s, intent only, no cache; wrk on the same cores.",
        "",
        "| " + " | ".join(HEADINGS) + " |",
        "|" + "---|" * len(HEADINGS),
    ]
    for row in facts["rows"]:
        statuses = ", ".join(f"{n} × {status}" for status, n in sorted(row["statuses"].items()))
        broken = f", {row['broken']} broken" if row["broken"] else ""
        cells = [row["max_batch"], row["clients"], f"{row['per_s']:.1f}", f"{row['p50_ms']:.1f}", f"{row['p99_ms']:.1f}"]
        lines.append("| " + " | ".join(map(str, [*cells, statuses + broken, f"{row['mean_batch']:.1f}"])) + " |")
    ratio = lambda batch: by[batch, 16]["per_s"] / by[batch, 1]["per_s"]
    lines += [
        "",
        f"16 clients get {ratio(8):.2f} times the answers of one (asked: 1.5), without sharing {ratio(1):.2f} times. 160 clients are more than the "
        f"queue of 64 takes: the rest is 429 at once, which is why their p50 is short. Peak memory {facts['peak_mb_batch_8']:.0f} MB; "
        f"SIGTERM at the end: exit {facts['exit_batch_8']}.",
    ]
    name = f"load-{datetime.date.today()}-{re.sub(r'[^A-Za-z0-9]+', '-', cpu).strip('-')}-{facts['machine']['cores']}"
    results = ROOT / "bench/results"
    (results / f"{name}.md").write_text("\n".join(lines) + "\n")
    (results / f"{name}.json").write_text(json.dumps(facts, indent=1) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
