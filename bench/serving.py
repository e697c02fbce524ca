"""Our server with its default head, as a client waits for it: a command's intent, in turns with faster-whisper's
transcript of the same clip, and the memory that the server holds when it has answered commands and transcripts."""

import http.client
import json
import socket
import statistics
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

from children import ANSWER_TIMEOUT_S, SCRATCH, SETTLE_S, START_TIMEOUT_S, BenchFailed, memory_of
from machine import ROOT
from raw_http import form

HEAD = ROOT / "models" / "twi-shop"
IDLE_S = 3.0  # after the last answer, before an idle process's memory is read

COMMANDS = "3 s commands, intent"  # all of make_clips.COMMANDS, each once a round
# (request, clip, path, fields of the form)
REQUESTS = [
    ("2 s command, intent", "twi-2s", "/test-intent", {"language": "tw", "transcribe": "false"}),
    ("3 s command, intent", "twi-3s", "/test-intent", {"language": "tw", "transcribe": "false"}),
    ("5 s command, intent", "twi-5s", "/test-intent", {"language": "tw", "transcribe": "false"}),
    ("3 s command, intent and words", "twi-3s", "/test-intent", {"language": "tw"}),
    ("11 s, words", "english-11s", "/v1/audio/transcriptions", {"language": "en", "model": "whisper-1"}),
    ("30 s, words", "english-30s", "/v1/audio/transcriptions", {"language": "en", "model": "whisper-1"}),
]


def summary(values):
    quartiles = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else [values[0]] * 3
    return {
        "median_ms": round(statistics.median(values), 3),
        "min_ms": round(min(values), 3),
        "q1_ms": round(quartiles[0], 3),
        "q3_ms": round(quartiles[2], 3),
        "runs": len(values),
        "values_ms": [round(value, 2) for value in values],
    }


def why_no_head(binary, model, env):
    """None if the default head stands on this base; else what the program says against it."""
    command = [str(binary), "info", str(HEAD), "--base", str(model), "--json"]
    said = subprocess.run(command, env=env, cwd=SCRATCH.name, capture_output=True, text=True, timeout=START_TIMEOUT_S)
    if said.returncode == 0:
        return None
    words = (said.stderr.strip().splitlines() or ["it said nothing"])[-1].removeprefix("error: ")
    return words.replace(f"{ROOT}/", "").replace(str(model), model.name)


class Server:
    """`okyeame server`, and a client of it that keeps its connection."""

    def __init__(self, binary, arguments, env):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        begin = time.perf_counter()
        self.process = subprocess.Popen(
            [str(binary), "server", "--port", str(port), "--cache-bytes", "0", *arguments],
            cwd=SCRATCH.name,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_TIMEOUT_S)
        try:
            self.healthy_after_ms = self.wait_until_healthy(f"http://127.0.0.1:{port}/health", begin)
        except BaseException:
            self.close()
            raise

    def wait_until_healthy(self, url, begin):
        while True:
            if self.process.poll() is not None or time.perf_counter() - begin > START_TIMEOUT_S:
                raise BenchFailed(f"the server did not become healthy (exit code {self.process.poll()})")
            try:
                with urllib.request.urlopen(url, timeout=2):
                    return (time.perf_counter() - begin) * 1e3
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                time.sleep(0.02)

    def ask(self, path, clip, fields):
        """(milliseconds from the request to the whole answer, the answer)"""
        kind, body = form(Path(clip["path"]).read_bytes(), fields.items(), clip["file"])
        begin = time.perf_counter()
        self.connection.request("POST", path, body, {"Content-Type": kind})
        response = self.connection.getresponse()
        payload = response.read()
        elapsed_ms = (time.perf_counter() - begin) * 1e3
        if response.status != 200:
            raise BenchFailed(f"the server answered {path} with {response.status}: {payload[:200]!r}")
        return elapsed_ms, json.loads(payload)

    def memory(self):
        return memory_of(self.process.pid)

    def close(self):
        self.connection.close()
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def measure_server(binary, name, arguments, model, clips, rounds, env, beside):
    """`beside` is the child of faster-whisper that writes the words of the 3 s commands in every round."""
    commands = [(COMMANDS, name, *REQUESTS[0][2:]) for name in clips if name.startswith("command-")]
    served = ["--huggingface", str(HEAD), "--base", str(model), *arguments]
    server = Server(binary, served, env)
    try:
        server.ask(*request_of(REQUESTS[0], clips))
        time.sleep(IDLE_S)
        idle = server.memory()
        taken = {request[0]: [] for request in [*REQUESTS, *commands]}
        transcripts = []
        for number in range(-1, rounds):  # round -1 warms up and is not kept
            for request in [*REQUESTS, *commands]:
                time.sleep(SETTLE_S)
                answered = server.ask(*request_of(request, clips))
                if number >= 0:
                    taken[request[0]].append(answered)
                if request[0] == COMMANDS and beside:
                    time.sleep(SETTLE_S)
                    clip = clips[request[1]]
                    wall_ms, _ = beside.ask("transcribe", clip["language"], clip["path"])
                    if number >= 0:
                        transcripts.append(wall_ms)
        time.sleep(IDLE_S)
        requests = {}
        for request, results in taken.items():
            last = results[-1][1]
            said = {key: last.get(key) for key in ("intent", "accepted", "intent_source", "timings_ms") if key in last}
            said["words"] = last.get("transcription") or last.get("text")
            if request == COMMANDS:
                said = {"commands": len(commands)}
            requests[request] = {**summary([wall_ms for wall_ms, _ in results]), "answer": said}
        return {
            "ours": name,
            "head": HEAD.name,
            "healthy_after_ms": round(server.healthy_after_ms, 1),
            "idle": idle,
            "after": server.memory(),
            "requests": requests,
            "beside": {"request": COMMANDS, "engine": beside.name, **summary(transcripts)} if transcripts else None,
        }
    finally:
        server.close()


def request_of(request, clips):
    _, clip, path, fields = request
    return path, clips[clip], fields
