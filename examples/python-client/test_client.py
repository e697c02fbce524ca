"""Against a server that says what servers say; the real one is met by tests/browser/examples.test.js."""

import json
import threading
import unittest
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from okyeame_client import Okyeame, OkyeameError

ANSWER = {"intent": "add_to_cart", "accepted": True}


class Scripted(BaseHTTPRequestHandler):
    """Answers requests with what `replies` says, one after the other, the last one again and again."""

    replies: list = []
    seen: list = []

    def do_POST(self):
        length = int(self.headers.get("Content-Length", 0))
        Scripted.seen.append((self.path, self.rfile.read(length)))
        status, headers, body = Scripted.replies.pop(0) if len(Scripted.replies) > 1 else Scripted.replies[0]
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body if isinstance(body, bytes) else json.dumps(body).encode())

    do_GET = do_POST

    def log_message(self, *_):
        pass


class Client(unittest.TestCase):
    def setUp(self):
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Scripted)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.client = Okyeame(f"http://127.0.0.1:{self.server.server_port}/", timeout_s=2)
        Scripted.seen = []

    def tearDown(self):
        self.server.shutdown()
        self.server.server_close()

    def say(self, *replies):
        Scripted.replies = list(replies)

    def test_a_clip_and_its_options_are_sent(self):
        self.say((200, {}, ANSWER))
        self.assertEqual(self.client.recognize(b"RIFF", top_k=2, language="tw", words=True, catalogue={"products": ["rice"]}), ANSWER)
        path, body = Scripted.seen[0]
        self.assertEqual(path, "/test-intent")
        for part in (b"RIFF", b'name="top_k"\r\n\r\n2', b'name="transcribe"\r\n\r\ntrue', b'{"products": ["rice"]}'):
            self.assertIn(part, body)

    def test_a_refusal_has_its_code(self):
        self.say((400, {}, {"code": "malformed_audio", "detail": "the audio is damaged", "request_id": "r1"}))
        with self.assertRaises(OkyeameError) as caught:
            self.client.recognize(b"x")
        self.assertEqual((caught.exception.code, caught.exception.status, caught.exception.request_id), ("malformed_audio", 400, "r1"))
        self.assertEqual(len(Scripted.seen), 1)

    def test_a_full_server_is_asked_again(self):
        self.say((429, {"Retry-After": "0"}, {"code": "overloaded", "detail": "full"}), (503, {"Retry-After": "0"}, {}), (200, {}, ANSWER))
        self.assertEqual(self.client.recognize(b"x"), ANSWER)
        self.assertEqual(len(Scripted.seen), 3)

    def test_it_does_not_wait_for_ever(self):
        self.say((429, {"Retry-After": "3600"}, {"code": "overloaded", "detail": "full"}))
        with self.assertRaises(OkyeameError):
            self.client.recognize(b"x")
        self.assertEqual(len(Scripted.seen), 1)

    def test_what_is_no_okyeame_server_is_an_error(self):
        for body in (b"<html>", b"[1]", b""):
            self.say((200, {}, body))
            with self.assertRaises(OkyeameError) as caught:
                self.client.recognize_text("x")
            self.assertEqual(caught.exception.code, "http_error")

    def test_loading_is_waited_for(self):
        self.say((503, {}, {"status": "loading"}), (200, {}, {"status": "healthy"}))
        self.client.wait_until_ready(5)
        self.say((503, {}, {"status": "loading"}))
        with self.assertRaises(TimeoutError):
            self.client.wait_until_ready(0.3)


if __name__ == "__main__":
    unittest.main()
