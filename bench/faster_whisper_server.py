"""faster-whisper int8 behind HTTP, for bench/load.py: what a shop would run that had no intents, the words of a command.

Takes the very requests that `okyeame server` takes (a form with the field `file`), transcribes greedily with one beam as
bench/run.py does, and answers {"transcription"}. Python's own threading server; the model has one worker with all the
threads, so that commands wait for each other as they do in ours. Prints {"ready": true, "port": N} when it is loaded.

    python bench/faster_whisper_server.py MODEL THREADS LANGUAGE
"""

import io
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from faster_whisper import WhisperModel
from faster_whisper.audio import decode_audio
from faster_whisper_worker import GREEDY


def file_of(content_type, body):
    """The form's file."""
    boundary = content_type.partition("boundary=")[2].strip('"').encode()
    for part in body.split(b"--" + boundary):
        head, _, content = part.partition(b"\r\n\r\n")
        if b'name="file"' in head:
            return content.removesuffix(b"\r\n")
    raise ValueError("the form has no file")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    model = language = None

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        try:
            audio = decode_audio(io.BytesIO(file_of(self.headers["Content-Type"], body)))
            segments, _ = self.model.transcribe(audio, language=self.language, **GREEDY)
            status, answer = 200, {"transcription": "".join(segment.text for segment in segments).strip()}
        except Exception as error:  # this request's; the next is answered
            status, answer = 500, {"detail": f"{type(error).__name__}: {error}"}
        payload = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64


def main():
    model, threads, Handler.language = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    Handler.model = WhisperModel(
        model, device="cpu", compute_type="int8", cpu_threads=threads, num_workers=1, local_files_only=True
    )
    server = Server(("127.0.0.1", 0), Handler)
    print(json.dumps({"ready": True, "port": server.server_address[1]}), flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
