"""What should never be sent to a server: one request after the other, drawn at random, each named.

A case is (name, bytes, half-closed after them). Most are seen through at once; some promise a body that never comes.
"""

import random

from served import ROOT
from raw_http import BOUNDARY, form, post_clip, request

ROUTES = ["/test-intent", "/recognize", "/batch-intent", "/v1/audio/transcriptions", "/v1/audio/translations", "/text-intent"]
FORM = f"multipart/form-data; boundary={BOUNDARY}"


def samples():
    """The bytes of an audio file of every format that the project is tested with."""
    paths = [*(ROOT / "tests/audio").iterdir(), *(ROOT / "tests/golden/clips").iterdir()]
    return [path.read_bytes() for path in sorted(paths) if path.suffix in {".wav", ".flac", ".mp3", ".m4a", ".mp4", ".ogg", ".webm", ".mkv"}]


class Hostile:
    def __init__(self, seed):
        self.random = random.Random(seed)
        self.samples = samples()
        self.cases = [getattr(self, name) for name in dir(self) if name.startswith("case_")]

    def next(self):
        case = self.random.choice(self.cases)
        data, half_closed = case()
        return case.__name__.removeprefix("case_"), data, half_closed

    def route(self):
        return self.random.choice(ROUTES)

    def some_bytes(self, at_most):
        return self.random.randbytes(self.random.randrange(1, at_most))

    def clip(self):
        return self.random.choice(self.samples)

    # --- the audio ---

    def case_damaged_audio(self):
        """A real file with some bytes changed, the header among them half of the time."""
        clip = bytearray(self.clip())
        for _ in range(self.random.choice([1, 8, 64, 512])):
            clip[self.random.randrange(min(len(clip), self.random.choice([64, len(clip)])))] = self.random.randrange(256)
        return post_clip(f"{self.route()}?transcribe=false", bytes(clip)), False

    def case_cut_audio(self):
        clip = self.clip()
        return post_clip("/test-intent?transcribe=false", clip[: self.random.randrange(len(clip))]), False

    def case_no_audio(self):
        return post_clip(self.route(), self.some_bytes(4096)), False

    def case_audio_in_audio(self):
        """The start of one format, the rest of another."""
        one, other = self.clip(), self.clip()
        return post_clip("/test-intent?transcribe=false", one[: self.random.randrange(1, 200)] + other), False

    # --- the form ---

    def case_cut_form(self):
        """A whole request of its length, but the form in it has no end."""
        kind, body = form(self.clip())
        return request("POST", self.route(), kind, body[: self.random.randrange(len(body))]), False

    def case_form_without_boundary(self):
        return request("POST", self.route(), self.random.choice(["multipart/form-data", "multipart/form-data; boundary=", "x"]), self.some_bytes(999)), False

    def case_wrong_type(self):
        kinds = ["application/json", "text/plain", "audio/wav", "multipart/mixed; boundary=x", "application/x-www-form-urlencoded", "/"]
        return request("POST", self.route(), self.random.choice(kinds), self.clip()), False

    def case_bad_utf8(self):
        bad = b"\xff\xfe\xc3\x28\xed\xa0\x80"
        part = b"--" + BOUNDARY.encode() + b'\r\nContent-Disposition: form-data; name="language"; filename="' + bad + b'"\r\n\r\n' + bad
        json = b'{"text": "' + bad + b'"}'
        kind, body = self.random.choice([(FORM, part + b"\r\n--" + BOUNDARY.encode() + b"--\r\n"), ("application/json", json)])
        return request("POST", self.route(), kind, body), False

    def case_bad_parameters(self):
        words = ["-1", "0", "1e9", "9" * 40, "%00", "%ff%fe", "NaN", "a" * 4000]
        query = "&".join(f"{name}={self.random.choice(words)}" for name in ("top_k", "language", "transcribe", "temperature"))
        return post_clip(f"{self.route()}?{query}", self.clip()), False

    def case_deep_json(self):
        return request("POST", "/text-intent", "application/json", b'{"text":' + b"[" * self.random.choice([10, 1000, 100000])), False

    def case_many_fields(self):
        return post_clip(self.route(), b"x", [(f"field{n}", "x") for n in range(2000)]), False

    # --- HTTP ---

    def case_huge_declared_length(self):
        length = self.random.choice(["26214401", "99999999999", "18446744073709551615", "18446744073709551616", "-1", "1e9", "0x10"])
        head = f"POST {self.route()} HTTP/1.1\r\nHost: x\r\nContent-Type: {FORM}\r\nContent-Length: {length}\r\n\r\n"
        return head.encode() + self.some_bytes(2000), self.random.random() < 0.5

    def case_too_short_a_body(self):
        """And then nothing more."""
        head = f"POST {self.route()} HTTP/1.1\r\nHost: x\r\nContent-Type: {FORM}\r\nContent-Length: 100000\r\n\r\n"
        return head.encode() + self.some_bytes(900), self.random.random() < 0.8

    def case_half_closed(self):
        return post_clip("/test-intent?transcribe=false", self.clip()), True

    def case_random_bytes(self):
        return self.some_bytes(4000), self.random.random() < 0.5

    def case_random_bytes_after_a_head(self):
        return f"POST {self.route()} HTTP/1.1\r\n".encode() + self.some_bytes(2000) + b"\r\n\r\n", True

    def case_pipelined_garbage(self):
        good = post_clip("/test-intent?transcribe=false", self.clip())
        return good + self.random.choice([self.some_bytes(500), good[:-40], b"GET / HTTP/9.9\r\n\r\n", request("GET", "/live") * 50]), False

    def case_wrong_method(self):
        method = self.random.choice(["PUT", "DELETE", "PATCH", "TRACE", "CONNECT", "OPTIONS", "HEAD", "BREW", "GET", "\x01"])
        return request(method, self.route(), "text/plain", b"x"), False

    def case_long_url(self):
        return request("GET", "/" + "a/" * self.random.choice([5_000, 50_000, 300_000])), False

    def case_odd_path(self):
        paths = ["/../../../../etc/passwd", "/models/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "//", "/\x00", "*", "http://x/", "/models/%00/x"]
        return request("GET", self.random.choice(paths)), False

    def case_thousand_header_lines(self):
        lines = "".join(f"X-{n}: {'v' * self.random.choice([1, 300])}\r\n" for n in range(1000))
        return request("GET", "/live", headers=lines), False

    def case_long_header(self):
        return request("GET", "/live", headers="X: " + "v" * 1_000_000 + "\r\n"), False

    def case_odd_chunks(self):
        chunks = self.random.choice([b"5\r\nhello\r\n0\r\n\r\n", b"ffffffffffffffff\r\nx", b"zz\r\nx\r\n", b"5;" + b"x" * 5000 + b"\r\nhello\r\n0\r\n\r\n", b"\r\n"])
        head = f"POST {self.route()} HTTP/1.1\r\nHost: x\r\nContent-Type: {FORM}\r\nTransfer-Encoding: chunked\r\n"
        both = self.random.choice(["", "Content-Length: 5\r\n"])
        return (head + both + "\r\n").encode() + chunks, self.random.random() < 0.5

    def case_expects_a_hundred(self):
        return post_clip("/test-intent?transcribe=false", self.clip(), headers="Expect: 100-continue\r\n"), False

    def case_asks_to_change_the_protocol(self):
        upgrade = self.random.choice(["websocket", "h2c", "x"])
        return request("GET", self.random.choice(["/", "/test-intent", "/v1/stream"]), headers=f"Connection: Upgrade\r\nUpgrade: {upgrade}\r\n"), True

    def case_goes_at_once(self):
        return b"", True
