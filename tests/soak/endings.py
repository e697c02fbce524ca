"""How a server ends and begins again; and whether it grows while clients come and go."""

import asyncio
import json
import random
import subprocess
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

from served import ROOT
from traffic import Check, Good, claim_flat_memory, counted, growth, sampled
from raw_http import Broken, Connection, ask_once, post_clip, request

# --- SIGTERM ---

SURELY_TAKEN_S = 0.2  # what was sent so long before the signal is in the server's hands, not in the system's
DRAIN_LIMIT_S = 60 + 5  # a request's own limit, and the grace (cli/server.rs)


async def until_it_ends(server, good, keeps, sent):
    """One request after the other, each written down as [when it was sent, its status, when that came]; 0 is no answer at
    all, -1 a part of one."""
    connection = None
    while True:
        try:
            if not connection:
                connection = await Connection(server.port).__aenter__()
        except OSError:
            return  # nobody listens any more
        entry = [time.monotonic(), 0, None]
        sent.append(entry)
        closes = False
        try:
            await connection.send(good.command(2))
            async with asyncio.timeout(DRAIN_LIMIT_S + 10):
                answer = await connection.ask(b"")
            entry[1], closes = answer.status, answer.headers.get("connection") == "close"
        except Broken as broken:
            entry[1] = -1 if broken.began else 0
        except TimeoutError:
            pass
        entry[2] = time.monotonic()
        if closes or not keeps or entry[1] <= 0:
            connection.drop()
            connection = None
        if entry[1] not in (200, 429):
            return


async def terminate(setup):
    check = Check("term")
    sent, load_s = [], 2 if setup.short else 5
    if setup.short:  # the tiny model would be done with 48 commands before the signal arrives
        setup = replace(setup, clip=(ROOT / "tests/golden/clips/en_long.flac").read_bytes())
    with setup.server() as server:
        good = await Good(setup, server).learn()
        clients = [asyncio.create_task(until_it_ends(server, good, n % 2 == 0, sent)) for n in range(48)]
        await asyncio.sleep(load_s)
        server.terminate()
        signalled = time.monotonic()
        try:
            code = await asyncio.to_thread(server.process.wait, DRAIN_LIMIT_S + 10)
        except subprocess.TimeoutExpired:
            code = "none: it still ran"
        took_s = time.monotonic() - signalled
        await asyncio.gather(*clients)
        panics = server.panics()
    statuses = Counter(status for _, status, _ in sent)
    lost = sum(status <= 0 for at, status, _ in sent if at < signalled - SURELY_TAKEN_S)
    surely = sum(status > 0 and at < signalled - SURELY_TAKEN_S and done >= signalled for at, status, done in sent)
    under_way = sum(status > 0 and at < signalled <= done for at, status, done in sent)
    too_late = sum(status == 0 for at, status, _ in sent if at >= signalled - SURELY_TAKEN_S)
    check.claim(set(statuses) <= {200, 429, 503, 0} and statuses[200], f"only 200, 429 and 503, and nothing broken off: {counted(statuses)}")
    check.claim(not lost, f"all that it had taken was answered: {lost} lost")
    check.claim(under_way, f"some of that was under way at the signal: {under_way}")
    check.claim(code == 0, f"exit code 0: {code}")
    check.figures["of those, sent long enough before"] = surely
    check.claim(took_s <= DRAIN_LIMIT_S, f"it ended within {DRAIN_LIMIT_S} s: {took_s:.1f}")
    check.claim(not panics, f"nothing panicked: {panics}")
    check.figures |= {"statuses": dict(statuses), "under way at the signal": under_way, "came too late to be taken": too_late, "ended after s": round(took_s, 2)}
    check.said = f"{under_way} under way at the signal and answered ({surely} for {SURELY_TAKEN_S} s), {lost} lost, {too_late} came too late to be taken; exit {code} after {took_s:.1f} s"
    return check


# --- SIGKILL ---


def whole_lines(path):
    """(objects of the whole lines, faults)."""
    objects, faults = [], 0
    for line in path.read_bytes().split(b"\n")[:-1]:
        try:
            objects.append(json.loads(line))
        except ValueError:
            faults += 1
    return objects, faults


async def keep_asking(server, clips, seed, answered):
    """Until the connection breaks: the server was killed."""
    draw = random.Random(seed)
    try:
        async with asyncio.timeout(60), Connection(server.port) as connection:
            while True:
                answer = await connection.ask(post_clip("/test-intent?transcribe=false", draw.choice(clips)))
                answered[answer.status] += 1
    except (Broken, OSError):
        pass


async def kill(setup):
    check = Check("kill")
    formats = ["speech.wav", "speech.flac", "speech_opus.ogg", "mediarecorder.webm"]
    clips = [(ROOT / "tests/audio" / name).read_bytes() for name in formats]
    options = ["--store-audio", "kept", "--log-json"]
    answered, unreadable = Counter(), 0
    with tempfile.TemporaryDirectory(prefix="okyeame-soak-") as folder:
        kept, log = Path(folder) / "kept", Path(folder) / "logs/api_server.log"
        for _ in range(2 if setup.short else 5):
            with setup.server(*options, folder=folder) as server:
                clients = [asyncio.create_task(keep_asking(server, clips, seed, answered)) for seed in range(8)]
                await asyncio.sleep(1 if setup.short else 3)
                server.process.kill()
                await asyncio.to_thread(server.process.wait)
                await asyncio.gather(*clients)
        lines, _ = whole_lines(kept / "manifest.jsonl")
        with setup.server(*options, folder=folder) as server:
            good = await Good(setup, server).learn()
            for line in lines[:20]:
                answer = await ask_once(server.port, post_clip("/test-intent?transcribe=false", (kept / line["path"]).read_bytes()))
                unreadable += answer.status != 200
            server.terminate()
            code = await asyncio.to_thread(server.process.wait, DRAIN_LIMIT_S)
            panics = server.panics()
        manifest = (kept / "manifest.jsonl").read_bytes()
        lines, torn = whole_lines(kept / "manifest.jsonl")
        paths = [kept / line["path"] for line in lines]
        damaged = sum(not path.is_file() or path.read_bytes() not in clips for path in paths)
        log_lines, log_faults = whole_lines(log)
        log_ends = log.read_bytes().endswith(b"\n")
    check.claim(good.first, "it serves again after each kill")
    check.claim(answered[200] and set(answered) <= {200, 429}, f"there was load: {counted(answered)}")
    check.claim(lines and not torn and manifest.endswith(b"\n"), f"the manifest has whole lines only: {len(lines)}, {torn} torn")
    check.claim(not damaged, f"each line names a clip as it was sent: {damaged} do not")
    check.claim(not unreadable, f"the clips are answered when they are sent again: {unreadable} are not")
    check.claim(log_lines and not log_faults and log_ends, f"the log has whole lines only: {len(log_lines)}, {log_faults} torn")
    check.claim(code == 0 and not panics, f"it stops with 0, and nothing panicked: {code}, {panics}")
    check.figures |= {"answered": dict(answered), "clips kept": len(lines), "log lines": len(log_lines)}
    check.said = f"{counted(answered)} before the kills; {len(lines)} clips kept, {damaged} damaged; {len(log_lines)} log lines, {log_faults} torn"
    return check


# --- coming and going ---


async def visitor(server, good, draw, until):
    """Comes, asks a few times, goes: politely, at once, or in the middle of a request."""
    while not until.is_set():
        try:
            async with asyncio.timeout(90), Connection(server.port) as connection:
                for _ in range(draw.randint(1, 10)):
                    if draw.random() < 0.4:
                        await good.ask(connection)
                    else:
                        good.statuses[(await connection.ask(request("GET", draw.choice(["/live", "/health", "/intents"])))).status] += 1
                    await asyncio.sleep(draw.uniform(0.0, 0.3))
                if draw.random() < 0.3:
                    await connection.send(good.command(1)[: draw.randrange(1, 20_000)])
        except (Broken, OSError):
            good.statuses[0] += 1


async def churn(setup):
    check = Check("churn")
    seconds = 8 if setup.short else setup.minutes * 60
    # A cache that is full in a moment: its filling is no growth.
    with setup.server("--header-timeout-s", "5", cache_bytes=1 << 20) as server:
        good = await Good(setup, server).learn()
        at_rest = server.vitals()
        over = asyncio.Event()
        sampling = asyncio.create_task(sampled(server, 0.5 if setup.short else 2.0, over))
        visitors = [asyncio.create_task(visitor(server, good, random.Random(n), over)) for n in range(24)]
        await asyncio.sleep(seconds)
        over.set()
        await asyncio.gather(*visitors)
        samples = await sampling
        for _ in range(40):
            files_left = server.vitals()["files"]
            if files_left <= at_rest["files"]:
                break
            await asyncio.sleep(0.25)
        check.claim(server.runs() and not server.panics(), "it runs, and nothing panicked")
    good.claim_all_right(check, "visitors")
    claim_flat_memory(check, samples)
    half = len(samples) // 2
    for name, allowed in (("files", 24), ("threads", 4)):  # each visitor holds a file; a pool may add a thread
        before, after = (max(sample[name] for sample in part) for part in (samples[:half], samples[half:]))
        check.figures[f"{name} most, by half"] = [before, after]
        check.claim(after <= before + allowed, f"{name} are flat: at most {before} in the first half, {after} in the second")
    check.claim(files_left <= at_rest["files"] + 2, f"nothing stays open: {files_left} files when all have gone, {at_rest['files']} before they came")
    check.figures |= {"seconds": seconds, "at rest": at_rest, "files left": files_left, "samples": samples}
    check.said = (
        f"{sum(good.statuses.values())} requests in {seconds:.0f} s; memory {growth(samples, 'rss_mb')[0]:+.2f} MB a minute, at most "
        f"{max(s['rss_mb'] for s in samples):.0f} MB; files {at_rest['files']} → {files_left}; threads at most {max(s['threads'] for s in samples)}"
    )
    return check
