"""The server as a process of its own, in a folder of its own, and what the system says of it."""

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "bench"))

START_LIMIT_S = 120
# Nothing of whoever runs this may change what is tested.
STRANGERS = re.compile(r"OKYEAME_|HUGGINGFACE_|PORT$|LOG_LEVEL$|RUST_BACKTRACE$")


class Served:
    """`with Served(binary, model, …) as server`; killed at the end if it still runs.

    `folder` is its working directory, perhaps that of a server before; `model` the folder of a model, or None for the
    default one.
    """

    def __init__(self, binary, model, *options, folder=None):
        self.kept = tempfile.TemporaryDirectory(prefix="okyeame-soak-") if folder is None else None
        self.folder = Path(self.kept.name if self.kept else folder)
        if not (self.folder / "models").exists():
            (self.folder / "models").symlink_to(ROOT / "models")  # where the default model is looked for
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        command = [binary, "server", "--port", str(self.port), *options, *(["--huggingface", str(model)] if model else [])]
        env = {name: value for name, value in os.environ.items() if not STRANGERS.match(name)}
        self.stderr = self.folder / "stderr.txt"
        with self.stderr.open("ab") as log:
            self.process = subprocess.Popen(command, cwd=self.folder, env=env, stdin=subprocess.DEVNULL, stderr=log)

    def __enter__(self):
        deadline = time.monotonic() + START_LIMIT_S
        while not self.answers("/health"):
            if self.process.poll() is not None or time.monotonic() > deadline:
                said = self.stderr.read_text(errors="replace").strip().splitlines()[-3:]
                self.__exit__()
                raise SystemExit(f"the server did not become ready: {' / '.join(said)}")
            time.sleep(0.1)
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if self.kept:
            self.kept.cleanup()

    def answers(self, path):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as response:
                return response.status == 200
        except OSError:
            return False

    def runs(self):
        return self.process.poll() is None

    def terminate(self):
        self.process.send_signal(signal.SIGTERM)

    def panics(self):
        return self.stderr.read_text(errors="replace").count("panicked")

    def vitals(self):
        """Resident memory in MB, open files, threads."""
        proc = Path(f"/proc/{self.process.pid}")
        status = dict(re.findall(r"^(\w+):\s+(\d+)", (proc / "status").read_text(), re.M))
        return {
            "rss_mb": int(status["VmRSS"]) * 1024 / 1e6,
            "peak_mb": int(status["VmHWM"]) * 1024 / 1e6,
            "files": len(os.listdir(proc / "fd")),
            "threads": int(status["Threads"]),
        }
