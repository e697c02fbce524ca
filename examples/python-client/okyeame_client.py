"""Asks an okyeame server what is said in a recording.

    client = Okyeame("http://localhost:8000")
    answer = client.recognize("command.wav")
    if answer["accepted"]:
        print(answer["intent"], answer["slots"])

As a program:  python okyeame_client.py command.wav
"""

import argparse
import json
import math
import sys
import time
from pathlib import Path

import requests

# Statuses after which the same request may succeed, and the longest that a server's Retry-After is waited for.
RETRYABLE = {429, 503}
MAX_WAIT_S = 30.0


class OkyeameError(Exception):
    """Why there is no answer: `code` is stable, `detail` a sentence to act on, `request_id` what support asks for.

    The codes are the server's, and four of this client: network, timeout, invalid_parameter, http_error (a server of another kind).
    """

    def __init__(self, code: str, detail: str, status: int | None = None, request_id: str | None = None, retry_after_s: float | None = None):
        super().__init__(f"{code}: {detail}")
        self.code, self.detail, self.status, self.request_id, self.retry_after_s = code, detail, status, request_id, retry_after_s


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
        if catalogue is not None:  # an empty one is sent too: none of the server's own names then
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
        """The labels, with what each means, its risk and its slots."""
        return self._ask("GET", "/intents")["intents"]

    def health(self) -> dict:
        """How the server is, also when it is not well: `status` is healthy, loading or unhealthy."""
        return self._once("GET", "/health", also_ok={503})

    def wait_until_ready(self, timeout_s: float = 60.0) -> None:
        """Returns when the server has loaded its model. A server that is still starting up is waited for, too."""
        end = time.monotonic() + timeout_s
        while True:
            try:
                self._once("GET", "/health")
                return
            except OkyeameError as error:
                # A wrong address or another kind of server does not get better by waiting.
                if error.status not in RETRYABLE and error.code not in {"network", "timeout"}:
                    raise
                if time.monotonic() > end:
                    raise TimeoutError(f"{self._server} was not ready within {timeout_s:g} s ({error}); its log says why") from error
                time.sleep(0.2)

    def _ask(self, method: str, path: str, **arguments) -> dict:
        for left in range(self._retries, -1, -1):
            try:
                return self._once(method, path, **arguments)
            except OkyeameError as error:
                wait_s = error.retry_after_s
                if left == 0 or error.status not in RETRYABLE or wait_s is None or wait_s > MAX_WAIT_S:
                    raise
                time.sleep(wait_s)
        raise AssertionError("the last try returns or raises")

    def _once(self, method: str, path: str, also_ok: frozenset | set = frozenset(), **arguments) -> dict:
        try:
            response = self._session.request(method, self._server + path, timeout=self._timeout_s, **arguments)
        except requests.Timeout as error:
            raise OkyeameError("timeout", f"{self._server} did not answer within {self._timeout_s:g} s") from error
        except ValueError as error:  # of requests: no address, or none that it can ask
            raise OkyeameError("invalid_parameter", f"server: an address such as http://localhost:8000, not '{self._server}'") from error
        except requests.RequestException as error:
            raise OkyeameError("network", f"{self._server} cannot be reached ({type(error).__name__}); is it running? Start one with: make demo, or okyeame server") from error
        try:
            body = response.json()
        except ValueError:
            body = None  # not an okyeame server, or a proxy in front of one
        if isinstance(body, dict) and (response.ok or response.status_code in also_ok):
            return body
        said = "something that is no JSON object; is it an okyeame server?" if response.ok else str(response.status_code)
        body = body if isinstance(body, dict) else {}
        raise OkyeameError(
            str(body.get("code", "http_error")),
            str(body.get("detail", f"{self._server} answered {said}")),
            response.status_code,
            body.get("request_id"),
            _seconds(response.headers.get("Retry-After")),
        )


def _seconds(retry_after: str | None) -> float | None:
    """A Retry-After in seconds. A date, as HTTP allows and no okyeame server sends, counts as none; so does what cannot be slept."""
    try:
        seconds = float(retry_after)
    except (TypeError, ValueError):
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


EPILOG = """examples:
  python okyeame_client.py command.wav
  python okyeame_client.py --words --server http://shop.local:8000 *.ogg
  python okyeame_client.py --json command.wav | jq .slots

Each line is: intent, (why it was rejected), confidence, slots, words, time. An intent of "unknown" is never
to be acted on. Start a server with: make demo, or okyeame server. The exit code is 1 if a file got no answer."""


def main() -> int:
    parser = argparse.ArgumentParser(
        description="What is said in recordings, by an okyeame server.", epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
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
        except (OkyeameError, OSError) as error:
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
