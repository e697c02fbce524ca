"""A check and its claims; and the good clients, who know what the answer has to be."""

import asyncio
import json
import random
import statistics
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from served import Served
from raw_http import Broken, Connection, ask_once, percentile, post_clip

FLOATS_MAY_DIFFER = 1e-3  # commands that share a pass are summed in another order


@dataclass
class Setup:
    """What a run was told."""

    binary: str
    model: Path | None
    short: bool
    minutes: float
    clip: bytes
    clip_s: float
    expected: str | None  # the intent; None for a seeded model, which hears nothing

    def server(self, *options, cache_bytes=0, folder=None):
        """A server; without a cache unless one is asked for, so that every answer is worked for."""
        return Served(self.binary, self.model, "--cache-bytes", str(cache_bytes), *options, folder=folder)


@dataclass
class Check:
    """Claims, each held or not, with the figures behind them."""

    name: str
    claims: list = field(default_factory=list)
    figures: dict = field(default_factory=dict)
    said: str = ""
    took_s: float = 0.0

    def claim(self, holds, sentence):
        self.claims.append((bool(holds), sentence))

    def passed(self):
        return bool(self.claims) and all(holds for holds, _ in self.claims)


class Good:
    """What good clients ask, and what came of it."""

    def __init__(self, setup, server, seed=1):
        self.setup, self.server = setup, server
        self.random = random.Random(seed)
        self.first = None
        self.statuses, self.times, self.wrong = Counter(), [], []

    async def learn(self):
        """Asks once, alone: all later answers have to be that one."""
        answer = await ask_once(self.server.port, self.command(3))
        self.first = json.loads(answer.body) if answer.status == 200 else {}
        if not self.first or self.setup.expected not in (None, self.first["intent"]):
            raise SystemExit(f"a clip alone is not answered as it should be: {answer.status} {answer.body[:300]!r}")
        return self

    def command(self, top_k, headers=""):
        return post_clip(f"/test-intent?transcribe=false&top_k={top_k}", self.setup.clip, headers=headers)

    def judge(self, answer, top_k):
        self.statuses[answer.status] += 1
        if answer.status != 200:
            return
        got, best = json.loads(answer.body), self.first["top_predictions"]
        same = all(got[name] == self.first[name] for name in ("intent", "accepted", "rejection"))
        close = abs(got["confidence"] - self.first["confidence"]) < FLOATS_MAY_DIFFER
        whole = len(got["top_predictions"]) >= min(top_k, len(best))
        if not (same and close and whole and got["filename"] == "command.wav"):
            self.wrong.append({name: got[name] for name in ("intent", "accepted", "confidence")})

    async def ask(self, connection):
        top_k = self.random.randint(1, 3)
        begin = time.perf_counter()
        answer = await connection.ask(self.command(top_k))
        self.times.append((time.perf_counter() - begin) * 1e3)
        self.judge(answer, top_k)
        return answer

    async def on_new_connections(self, until, pause_s=0.0):
        """One after the other until the event is set; a connection that breaks counts as status 0."""
        while not until.is_set():
            begin = time.perf_counter()
            try:
                async with asyncio.timeout(90), Connection(self.server.port) as connection:
                    await self.ask(connection)
                    self.times[-1] = (time.perf_counter() - begin) * 1e3  # with the connection
            except (Broken, OSError):  # a TimeoutError is an OSError
                self.statuses[0] += 1
            await asyncio.sleep(pause_s)

    async def alone(self, seconds):
        """(answers a second, p50 in ms) of one client that keeps its connection."""
        times, begin = [], time.perf_counter()
        async with Connection(self.server.port) as connection:
            while time.perf_counter() - begin < seconds or len(times) < 5:
                await self.ask(connection)
                times.append(self.times.pop())
        return len(times) / (time.perf_counter() - begin), percentile(times, 50)

    def claim_all_right(self, check, whose="good clients"):
        n = sum(self.statuses.values())
        check.figures[f"{whose}: statuses"] = dict(self.statuses)
        check.claim(n and set(self.statuses) == {200}, f"all {n} requests of the {whose} were answered with 200: {counted(self.statuses)}")
        check.claim(not self.wrong, f"and rightly: {len(self.wrong)} wrong {self.wrong[:2] or ''}".rstrip())


def counted(statuses):
    return ", ".join(f"{n} × {status or 'no answer'}" for status, n in sorted(statuses.items())) or "none"


async def sampled(server, every_s, until):
    """The process's vitals, with the seconds since the first."""
    samples, begin = [], time.monotonic()
    while not until.is_set() and server.runs():
        samples.append({"s": round(time.monotonic() - begin, 2), **server.vitals()})
        await asyncio.sleep(every_s)
    return samples


def growth(samples, name):
    """Least squares over the second half of the samples: (units a minute, units over that half)."""
    half = samples[len(samples) // 2 :]
    if len(half) < 3:
        return 0.0, 0.0
    slope = statistics.linear_regression([s["s"] for s in half], [s[name] for s in half]).slope
    return slope * 60, slope * (half[-1]["s"] - half[0]["s"])


def claim_flat_memory(check, samples):
    """A twentieth, or 16 MB, is what an allocator keeps back and gives back."""
    per_minute, over_half = growth(samples, "rss_mb")
    allowed = max(16.0, 0.05 * samples[-1]["rss_mb"])
    check.figures["memory MB a minute"] = round(per_minute, 2)
    check.claim(
        over_half <= allowed,
        f"memory is flat: {per_minute:+.1f} MB a minute in the second half, {over_half:+.1f} MB over it (allowed {allowed:.0f})",
    )
