"""Against a server that says what servers say, and against a real one where there is one:

    OKYEAME_SERVER=http://localhost:8000 OKYEAME_CLIP=command.wav python -m unittest
"""

import json
import os
import threading
import unittest
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from okyeame_client import Okyeame, OkyeameError

REQUIREMENTS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "requirements.txt")  # a file, whatever it holds
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

    def test_it_does_not_try_for_ever(self):
        self.say((429, {"Retry-After": "0"}, {"code": "overloaded", "detail": "full"}))
        with self.assertRaises(OkyeameError) as caught:
            self.client.recognize(b"x")
        self.assertEqual(caught.exception.code, "overloaded")
        self.assertEqual(len(Scripted.seen), 4)

    def test_a_retry_after_that_cannot_be_slept_is_no_crash(self):
        for value in ("nan", "-1", "inf", "soon", "Wed, 21 Oct 2026 07:28:00 GMT"):
            self.say((503, {"Retry-After": value}, {"code": "loading", "detail": "still loading"}))
            with self.subTest(value), self.assertRaises(OkyeameError) as caught:
                self.client.recognize(b"x")
            self.assertEqual(caught.exception.code, "loading")

    def test_an_empty_catalogue_is_sent(self):
        self.say((200, {}, ANSWER))
        self.client.recognize(b"x", catalogue={})
        self.assertIn(b'name="catalogue"\r\n\r\n{}', Scripted.seen[0][1])

    def test_health_is_told_also_when_it_is_bad(self):
        self.say((503, {}, {"status": "loading"}))
        self.assertEqual(self.client.health()["status"], "loading")

    def test_many_files_keep_their_order(self):
        self.say((200, {}, {"results": [ANSWER, {"filename": "b.wav", "error": "no audio"}]}))
        self.assertEqual(self.client.recognize_many([REQUIREMENTS, REQUIREMENTS])[1]["error"], "no audio")
        path, body = Scripted.seen[0]
        self.assertEqual((path, body.count(b'name="files"')), ("/batch-intent", 2))

    def test_nobody_there_and_an_address_that_is_none(self):
        for server, code in (("http://127.0.0.1:9", "network"), ("localhost:8000", "invalid_parameter"), ("", "invalid_parameter")):
            with self.subTest(server), self.assertRaises(OkyeameError) as caught:
                Okyeame(server, timeout_s=2).recognize(b"x")
            self.assertEqual(caught.exception.code, code)

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

    def test_another_kind_of_server_is_not_waited_for(self):
        self.say((404, {}, b"<html>"))
        with self.assertRaises(OkyeameError):
            self.client.wait_until_ready(5)
        self.assertEqual(len(Scripted.seen), 1)


SERVER, CLIP = os.environ.get("OKYEAME_SERVER"), os.environ.get("OKYEAME_CLIP")


@unittest.skipUnless(SERVER and CLIP, "OKYEAME_SERVER and OKYEAME_CLIP name no real server and clip")
class RealServer(unittest.TestCase):
    def setUp(self):
        self.client = Okyeame(SERVER)
        self.client.wait_until_ready()

    def test_a_clip_is_answered(self):
        answer = self.client.recognize(CLIP, top_k=3, words=True)
        self.assertEqual(answer["filename"], os.path.basename(CLIP))
        self.assertEqual(len(answer["top_predictions"]), 3)
        self.assertTrue(answer["transcription"])
        known = {intent["intent"] for intent in self.client.intents()}
        self.assertIn(answer["intent"], known | {"unknown"})
        self.assertEqual(self.client.health()["status"], "healthy")

    def test_one_bad_file_fails_alone(self):
        good, bad = self.client.recognize_many([CLIP, __file__])
        self.assertIn("intent", good)
        self.assertIn("error", bad)

    def test_what_is_no_audio_is_refused(self):
        with self.assertRaises(OkyeameError) as caught:
            self.client.recognize(b"this is not a sound file, it is a sentence")
        self.assertEqual((caught.exception.code, caught.exception.status), ("unsupported_audio", 415))
        self.assertTrue(caught.exception.request_id)


if __name__ == "__main__":
    unittest.main()
