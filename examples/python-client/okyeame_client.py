"""Asks an okyeame server what is said in a recording.

    client = Okyeame("http://localhost:8000")
    answer = client.recognize("command.wav")
    if answer["accepted"]:
        print(answer["intent"], answer["slots"])

As a program:  python okyeame_client.py command.wav
"""

import argparse
import json
import sys
import time
from pathlib import Path

import requests

# Codes after which the same request may succeed, and the longest that a server's Retry-After is waited for.
RETRYABLE = {429, 503}
MAX_WAIT_S = 30.0


class OkyeameError(Exception):
    """What a server said no with: `code` is stable, `detail` a sentence to act on."""

    def __init__(self, code: str, detail: str, status: int | None = None, request_id: str | None = None):
        super().__init__(f"{code}: {detail}")
        self.code, self.detail, self.status, self.request_id = code, detail, status, request_id


class Okyeame:
    """A server. One session: connections are kept open between requests."""

    def __init__(self, server: str = "http://localhost:8000", timeout_s: float = 30.0, retries: int = 3):
        self._server = server.rstrip("/")
        self._timeout_s = timeout_s
        self._retries = retries
        self._session = requests.Session()

    def recognize(
        self,
        clip: str | Path | bytes,
        *,
        top_k: int = 5,
        language: str | None = None,
        words: bool = False,
        catalogue: dict | None = None,
    ) -> dict:
        """The answer to one command: a file's path, or its bytes."""
        name, content = ("command", clip) if isinstance(clip, bytes) else (Path(clip).name, Path(clip).read_bytes())
        fields = {"top_k": str(top_k), "transcribe": "true" if words else "false"}
        if language:
            fields["language"] = language
        if catalogue:
            fields["catalogue"] = json.dumps(catalogue)
        return self._ask("POST", "/test-intent", files={"file": (name, content)}, data=fields)

    def recognize_many(self, paths: list[str | Path]) -> list[dict]:
        """Answers in the order of the paths; what is wrong with one file stands in its place as {"filename", "error"}."""
        files = [("files", (Path(path).name, Path(path).read_bytes())) for path in paths]
        return self._ask("POST", "/batch-intent", files=files, data={"transcribe": "false"})["results"]

    def recognize_text(self, text: str) -> dict:
        """The answer to a command that was typed."""
        return self._ask("POST", "/text-intent", json={"text": text})

    def intents(self) -> list[dict]:
        return self._ask("GET", "/intents")["intents"]

    def wait_until_ready(self, timeout_s: float = 60.0) -> None:
        """Returns when the server has loaded its model."""
        end = time.monotonic() + timeout_s
        while True:
            try:
                self._once("GET", "/health")
                return
            except (OkyeameError, requests.ConnectionError) as error:
                if time.monotonic() > end:
                    raise TimeoutError(f"{self._server} was not ready within {timeout_s:.0f} s") from error
                time.sleep(0.2)

    def _ask(self, method: str, path: str, **arguments) -> dict:
        for left in range(self._retries, -1, -1):
            try:
                return self._once(method, path, **arguments)
            except OkyeameError as error:
                wait_s = getattr(error, "retry_after_s", None)
                if left == 0 or error.status not in RETRYABLE or wait_s is None or wait_s > MAX_WAIT_S:
                    raise
                time.sleep(wait_s)
        raise AssertionError("the last try returns or raises")

    def _once(self, method: str, path: str, **arguments) -> dict:
        try:
            response = self._session.request(method, self._server + path, timeout=self._timeout_s, **arguments)
        except requests.Timeout as error:
            raise OkyeameError("timeout", f"{self._server} did not answer within {self._timeout_s:g} s") from error
        try:
            body = response.json()
        except ValueError:
            body = None  # not an okyeame server, or a proxy in front of one
        if response.ok and isinstance(body, dict):
            return body
        body = body if isinstance(body, dict) else {}
        error = OkyeameError(
            str(body.get("code", "http_error")),
            str(body.get("detail", f"the server answered {response.status_code}")),
            response.status_code,
            body.get("request_id"),
        )
        try:
            error.retry_after_s = float(response.headers["Retry-After"])
        except (KeyError, ValueError):
            pass
        raise error


def main() -> int:
    parser = argparse.ArgumentParser(description="What is said in recordings, by an okyeame server.", epilog="Start a server with: make demo")
    parser.add_argument("files", nargs="+", metavar="FILE", help="WAV, FLAC, MP3, Ogg, WebM or M4A")
    parser.add_argument("--server", default="http://localhost:8000", help="its address (%(default)s)")
    parser.add_argument("--words", action="store_true", help="also write what was said (slower)")
    parser.add_argument("--json", action="store_true", help="the whole answer, a line for each file")
    args = parser.parse_args()
    client = Okyeame(args.server)
    failed = False
    for file in args.files:
        try:
            answer = client.recognize(file, words=args.words)
        except (OkyeameError, requests.RequestException, OSError) as error:
            print(f"{file}: {error}", file=sys.stderr)
            failed = True
            continue
        if args.json:
            print(json.dumps(answer, ensure_ascii=False))
            continue
        slots = " ".join(f"{slot['slot']}={slot['value']}" for slot in answer["slots"])
        why = f"({answer['rejection']})" if answer["rejection"] else ""
        said = f"“{answer['transcription']}”" if answer["transcription"] else ""
        parts = [answer["intent"], why, f"{100 * answer['confidence']:.0f} %", slots, said, f"{answer['processing_time_ms']:.0f} ms"]
        print(f"{file}: {'  '.join(part for part in parts if part)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
