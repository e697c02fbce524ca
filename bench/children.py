"""The engines as child processes of the bench, and their memory."""

import json
import os
import re
import subprocess
import tempfile
import threading
import time
from pathlib import Path

ANSWER_TIMEOUT_S = 180
START_TIMEOUT_S = 120
SETTLE_S = 0.3  # threads of the engine before may still spin for their next task: let them fall asleep

# where the children run: whatever they write (a log folder) goes with it when the bench ends
SCRATCH = tempfile.TemporaryDirectory(prefix="okyeame-bench-")


class BenchFailed(Exception):
    pass


def environment(threads, model):
    """The children's environment: the same number of threads for whatever library counts them."""
    env = dict(os.environ)
    env.update(
        RAYON_NUM_THREADS=str(threads),
        OMP_NUM_THREADS=str(threads),
        HUGGINGFACE_MODEL_PATH=str(model),
        HF_HUB_OFFLINE="1",
        CUDA_VISIBLE_DEVICES="",
        LOG_LEVEL="WARN",
    )
    # a machine may force a kernel on OpenBLAS (numpy, in faster-whisper's log-mel): let it choose its best
    for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "OPENBLAS_NUM_THREADS"):
        env.pop(name, None)
    return env


class Child:
    """A process that answers a line with a line."""

    def __init__(self, name, command, env):
        self.name = name
        self.errors = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            env=env,
            cwd=SCRATCH.name,
        )

    def read(self, timeout_s):
        """The next JSON line. A child that says nothing in time is killed, which ends the wait."""
        guard = threading.Timer(timeout_s, self.process.kill)
        guard.start()
        try:
            line = self.process.stdout.readline()
        finally:
            guard.cancel()
        if not line:
            self.errors.seek(0)
            said = self.errors.read().decode(errors="replace").strip().splitlines()[-5:]
            words = " / ".join(said) or "nothing"
            raise BenchFailed(f"{self.name} ended or did not answer within {timeout_s} s. It said: {words}")
        try:
            return json.loads(line)
        except ValueError:
            raise BenchFailed(f"{self.name} answered with a line that is not JSON: {line[:200]!r}") from None

    def ready(self):
        answer = self.read(START_TIMEOUT_S)
        if not answer.get("ready"):
            raise BenchFailed(f'{self.name} did not begin with {{"ready": true, …}}: {answer}')
        return answer

    def ask(self, work, language, path):
        """(milliseconds from request to answer, the answer)"""
        begin = time.perf_counter()
        self.process.stdin.write(f"{work}\t{language}\t{path}\n".encode())
        self.process.stdin.flush()
        answer = self.read(ANSWER_TIMEOUT_S)
        wall_ms = (time.perf_counter() - begin) * 1e3
        if "error" in answer:
            raise BenchFailed(f"{self.name} failed at {work} {Path(path).name}: {answer['error']}")
        return wall_ms, answer

    def memory(self):
        return memory_of(self.process.pid)

    def close(self):
        if self.process.stdin and not self.process.stdin.closed:
            self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.errors.close()


def memory_of(pid):
    """Peak and present resident memory in MB, and how much of it is memory-mapped files (weights on disk, code)."""
    status = Path(f"/proc/{pid}/status").read_text()
    kilobytes = dict(re.findall(r"^(\w+):\s+(\d+) kB", status, re.M))
    names = {"peak_mb": "VmHWM", "rss_mb": "VmRSS", "anonymous_mb": "RssAnon", "file_mb": "RssFile"}
    return {key: round(int(kilobytes[name]) * 1024 / 1e6, 1) for key, name in names.items() if name in kilobytes}
