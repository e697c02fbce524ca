"""The server against its own OpenAPI document: schemathesis makes requests from it, good and bad, and looks at each answer.

    make test-api                             (part of make test; about two minutes)
    API_SEED=0 API_SECONDS=1800 make test-api (longer, and others at each run)

A tiny seeded model answers (tests/golden), so that the time goes into requests. Fails if an answer is a 5xx, has a status,
a type or a shape that the document does not know, or if the server does not answer a command afterwards and stop in order.
Not looked for: whether each bad request is refused (`negative_data_rejection`). By contract, forms may hold fields that
nobody knows, an empty value is the default, and JSON is read whatever its Content-Type says.
"""

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", "target"))
MODEL = ROOT / "tests" / "golden" / "heads" / "multitask"
CLIP = ROOT / "tests" / "golden" / "clips" / "tw_go_cart.flac"
CHECKS = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
]
READY_S = 120
STOP_S = 90


def binary():
    """The program that the tests built, or the one that OKYEAME names."""
    return Path(os.environ.get("OKYEAME", ROOT / TARGET / "debug" / "okyeame")).resolve()


class Server:
    """`okyeame server`, in a folder of its own, with no setting from this environment."""

    def __init__(self, program, folder):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.log = Path(folder) / "stderr.log"
        env = {name: value for name, value in os.environ.items() if not name.startswith(("OKYEAME_", "HUGGINGFACE_"))}
        env |= {"HF_HUB_OFFLINE": "1", "HF_HOME": str(folder), "LOG_LEVEL": "WARN"}
        args = [str(program), "server", "--port", str(port), "--huggingface", str(MODEL), "--models", str(MODEL.parent)]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(args, cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def wait(self):
        """Until the model has answered its warm-up clip."""
        end = time.monotonic() + READY_S
        while time.monotonic() < end:
            if self.process.poll() is not None:
                break
            try:
                urllib.request.urlopen(f"{self.url}/health", timeout=5).close()
                return
            except OSError:  # refused, or 503
                time.sleep(0.1)
        self.complain("the server did not become ready")

    def complain(self, what):
        tail = self.log.read_text(errors="replace")[-4000:]
        raise SystemExit(f"{what}; the end of its log:\n{tail}")

    def still_answers(self):
        """After all that, a customer's command."""
        boundary = "okyeame-api-test"
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="command.flac"\r\n\r\n'
        body = head.encode() + CLIP.read_bytes() + f"\r\n--{boundary}--\r\n".encode()
        headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
        request = urllib.request.Request(f"{self.url}/test-intent?top_k=1", body, headers)
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                answer = json.load(response)
        except (OSError, ValueError) as error:
            self.complain(f"the server answers no command any more ({error})")
        if not answer.get("top_predictions"):
            self.complain(f"the server answers a command with {answer}")

    def stop(self):
        """Asks it to stop, by its own process id; its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout=STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            self.complain("the server did not stop")


def fuzz(url, seconds, seed, folder):
    """Runs schemathesis; its exit status."""
    env = os.environ | {"SCHEMATHESIS_HOOKS": str(HERE / "hooks.py"), "NO_PROXY": "127.0.0.1"}
    args = [Path(sys.executable).with_name("schemathesis"), "run", f"{url}/openapi.json"]
    args += ["--checks", ",".join(CHECKS), "--phases", "examples,coverage,fuzzing", "--max-time", str(seconds)]
    args += ["--request-timeout", "30", "--generation-database", "none", "--continue-on-failure", "--max-failures", "20"]
    # One worker: with two, Python 3.11's parser of its own sources fails now and then inside of hypothesis.
    args += ["--workers", "1", "--no-color", "--warnings", "off", "--suppress-health-check", "all"]
    args += ["--seed", str(seed)] if seed else []
    try:
        # What it found is made smaller beyond its time, but not for ever.
        return subprocess.run(args, cwd=folder, env=env, stdin=subprocess.DEVNULL, timeout=seconds * 2 + 300).returncode
    except subprocess.TimeoutExpired:
        raise SystemExit("schemathesis did not end") from None


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=int(os.environ.get("API_SECONDS", "110")),
                        help="how long (API_SECONDS)")
    parser.add_argument("--seed", type=int, default=int(os.environ.get("API_SEED", "1")),
                        help="which requests (API_SEED); 0 draws others at each run, which prints its seed")
    args = parser.parse_args()
    program = binary()
    if not program.exists():
        raise SystemExit(f"{program.name} is not built: cargo build -p okyeame-server")
    with tempfile.TemporaryDirectory() as folder:
        server = Server(program, folder)
        try:
            server.wait()
            found = fuzz(server.url, args.seconds, args.seed, folder)
            server.still_answers()
        finally:
            status = server.stop()
    if found:
        raise SystemExit("the server and its OpenAPI document differ: see above")
    if status:
        raise SystemExit(f"the server ended with the status {status}")


if __name__ == "__main__":
    main()
