"""Too much, too slow, and wrong: what a server on the internet gets."""

import asyncio
import json
import os
import select
import socket
import tempfile
from collections import Counter

from hostile import Hostile
from served import ROOT
from traffic import Check, Good, claim_flat_memory, counted, sampled
from raw_http import Broken, Connection, percentile, read_answer, request

MB = 1e6
BYTES_OF_A_SECOND = 16_000 * 4  # decoded: 16 kHz, f32
BUFFERS_OF_A_CONNECTION = 512 << 10  # of hyper and the socket, at most
SLACK_MB = 64  # what the allocator has from the system and nobody uses

# --- ten times too much ---


def flood_memory_mb(setup, queue_len, clients, warm_mb):
    """The most that a server may take: each of its bounds, filled."""
    waiting = (queue_len + 8 + len(os.sched_getaffinity(0))) * setup.clip_s * BYTES_OF_A_SECOND  # and a full pass, and the decoders
    connections = clients * (2 * len(setup.clip) + BUFFERS_OF_A_CONNECTION)
    return warm_mb + (waiting + connections) / MB + SLACK_MB


async def wrk(setup, server, clients, seconds, clip_path):
    command = ["wrk", "-t1", f"-c{clients}", f"-d{seconds}s", "--timeout", "60s", "-s", ROOT / "bench/load.lua", f"http://127.0.0.1:{server.port}"]
    process = await asyncio.create_subprocess_exec(
        *map(str, command), env={**os.environ, "CLIP": str(clip_path)}, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    printed = (await process.communicate())[0].decode()
    if "RESULT " not in printed:
        raise SystemExit(f"wrk failed: {printed.strip()[-300:]}")
    return json.loads(printed.rpartition("RESULT ")[2])


async def flood(setup):
    check = Check("flood")
    seconds, queue_len = (5, 8) if setup.short else (60, 64)
    clients = 2 * queue_len + 32
    with setup.server("--queue-len", str(queue_len)) as server:
        clip = server.folder / "command.wav"
        clip.write_bytes(setup.clip)
        good = await Good(setup, server).learn()
        per_s, before_ms = await good.alone(1 if setup.short else 10)
        await wrk(setup, server, 9, 1 if setup.short else 5, clip)  # full passes have their working memory now
        warm_mb = server.vitals()["rss_mb"]
        over = asyncio.Event()
        sampling = asyncio.create_task(sampled(server, 0.25, over))
        result = await wrk(setup, server, clients, seconds, clip)
        over.set()
        samples = await sampling
        await asyncio.sleep(2)  # what wrk left unanswered
        check.claim(server.runs() and server.answers("/health"), "it is healthy afterwards")
        _, after_ms = await good.alone(1 if setup.short else 10)
        panics = server.panics()

    statuses = {int(status): n for status, n in result["statuses"].items()}
    offered = sum(statuses.values()) / result["seconds"]
    bound_mb = flood_memory_mb(setup, queue_len, clients, warm_mb)
    most_mb = max(sample["rss_mb"] for sample in samples)
    check.figures |= {
        "alone: answers a second": round(per_s, 1), "alone before: p50 ms": round(before_ms, 1), "alone after: p50 ms": round(after_ms, 1),
        "flood: clients": clients, "flood: requests a second": round(offered, 1), "flood: statuses": statuses,
        "flood: answers a second": round(statuses.get(200, 0) / result["seconds"], 1),
        "memory warm MB": round(warm_mb, 1), "memory most MB": round(most_mb, 1), "memory bound MB": round(bound_mb, 1), "samples": samples,
    }  # fmt: skip
    check.claim(set(statuses) <= {200, 429, 503} and statuses.get(200) and statuses.get(429), f"only 200, 429 and 503, and some of the first two: {counted(statuses)}")
    check.claim(not result["without_retry_after"], f"each 429 says when to come back: {result['without_retry_after']} without Retry-After")
    check.claim(not result["broken"], f"no connection broke off: {result['broken']}")
    check.claim(most_mb <= bound_mb, f"memory stays below its bound: {most_mb:.0f} of {bound_mb:.0f} MB (warm {warm_mb:.0f}; the queue's clips, {clients} connections, {SLACK_MB} of slack)")
    check.claim(not panics, f"nothing panicked: {panics}")
    if not setup.short:  # in seconds the allocator's threads have not yet all that they keep
        claim_flat_memory(check, samples)
        check.claim(offered >= 10 * per_s, f"it was ten times what one client gets: {offered:.0f} against {per_s:.1f} a second")
        check.claim(after_ms <= 2 * before_ms, f"one client has its time again: p50 {before_ms:.1f} ms before, {after_ms:.1f} after")
    check.said = f"{clients} clients, {offered:.0f} requests/s against {per_s:.1f}/s of one; {counted(statuses)}; memory {warm_mb:.0f} → {most_mb:.0f} MB; one client alone {before_ms:.1f} → {after_ms:.1f} ms"
    return check


# --- slow ones ---

SLOW_CLIENTS = 200


def was_closed(sock):
    """Whether the other side ended it, without reading what it sent."""
    poll = select.poll()
    poll.register(sock, select.POLLRDHUP)
    return bool(poll.poll(0))


async def slow_client(port, kind, tally):
    """For ever: takes a connection and keeps it as long as it can with next to nothing."""
    loop = asyncio.get_running_loop()
    head = b"POST /test-intent HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\nContent-Type: multipart/form-data; boundary=x\r\n"
    while True:
        sock = socket.socket()
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            await loop.sock_connect(sock, ("127.0.0.1", port))
            at_once = {"header": b"", "body": head + b"\r\n--x\r\n", "reader": request("GET", "/large.bin")}[kind]
            if at_once:
                await loop.sock_sendall(sock, at_once)
            for n in range(10_000):
                if was_closed(sock):
                    tally[f"{kind}: cut off"] += 1
                    break
                if kind == "header":
                    await loop.sock_sendall(sock, head[n % len(head)].to_bytes())
                elif kind == "body":
                    await loop.sock_sendall(sock, b"-")
                await asyncio.sleep(0.25)
        except OSError:
            tally[f"{kind}: cut off"] += 1
        finally:
            sock.close()
        await asyncio.sleep(0.05)


async def loris(setup):
    check = Check("loris")
    rounds, seconds = (2, 2) if setup.short else (3, 20)
    options = ["--header-timeout-s", "1", "--io-timeout-s", "1"] if setup.short else []
    cut_off = Counter()
    with tempfile.TemporaryDirectory() as site, setup.server(*options, "--site", site) as server:
        os.truncate(os.open(f"{site}/large.bin", os.O_CREAT | os.O_WRONLY, 0o644), 64 << 20)  # more than sockets hold
        quiet = await Good(setup, server).learn()
        slow = await Good(setup, server, seed=2).learn()
        for good in (quiet, slow) * rounds:
            misbehaving = []
            if good is slow:
                misbehaving = [asyncio.create_task(slow_client(server.port, ("header", "body", "reader")[n % 3], cut_off)) for n in range(SLOW_CLIENTS)]
                await asyncio.sleep(1)
            over = asyncio.Event()
            clients = [asyncio.create_task(good.on_new_connections(over)) for _ in range(2)]
            await asyncio.sleep(seconds)
            over.set()
            await asyncio.gather(*clients)
            for task in misbehaving:
                task.cancel()
            await asyncio.gather(*misbehaving, return_exceptions=True)
        check.claim(server.runs() and not server.panics(), "it runs, and nothing panicked")
    quiet.claim_all_right(check, "good clients by themselves")
    slow.claim_all_right(check, f"good clients among {SLOW_CLIENTS} slow ones")
    for name, good in (("without", quiet), ("with", slow)):
        check.figures |= {f"{name}: p50 ms": round(percentile(good.times, 50), 2), f"{name}: p99 ms": round(percentile(good.times, 99), 2), f"{name}: answers": len(good.times)}
    check.figures["slow ones cut off"] = dict(cut_off)
    figures = check.figures
    check.said = (
        f"good clients' p50 {figures['without: p50 ms']} ms without, {figures['with: p50 ms']} with {SLOW_CLIENTS} slow ones; "
        f"p99 {figures['without: p99 ms']} and {figures['with: p99 ms']} ms; {sum(cut_off.values())} slow ones cut off"
    )
    return check


# --- wrong ones ---

PATIENCE_S = 45  # after which a hostile request is one that nobody answered or ended


async def hostile_client(port, hostile, until, statuses, unheard):
    while not until.is_set():
        name, data, half_closed = hostile.next()
        try:
            async with asyncio.timeout(PATIENCE_S), Connection(port) as connection:
                await connection.send(data)
                if half_closed:
                    connection.writer.write_eof()
                statuses[name, (await read_answer(connection.reader)).status] += 1
                while name == "pipelined_garbage":  # until it is ended
                    statuses[name, (await read_answer(connection.reader)).status] += 1
        except TimeoutError:
            unheard[name] += 1
        except (Broken, OSError):
            statuses[name, 0] += 1


async def mixed(setup):
    check = Check("mixed")
    seconds = 6 if setup.short else 30
    options = ["--header-timeout-s", "1", "--io-timeout-s", "1"] if setup.short else []
    statuses, unheard, over = Counter(), Counter(), asyncio.Event()
    with setup.server(*options, cache_bytes=1 << 20) as server:
        good = await Good(setup, server).learn()
        pid = server.process.pid
        async with asyncio.TaskGroup() as group:
            for n in range(3):
                group.create_task(good.on_new_connections(over, pause_s=0.02))
            for n in range(8):
                group.create_task(hostile_client(server.port, Hostile(seed=n), over, statuses, unheard))
            await asyncio.sleep(seconds)
            over.set()
        check.claim(server.runs() and server.process.pid == pid and server.answers("/health"), "it is the same process, and healthy")
        panics = server.panics()
    by_status = Counter()
    for (_, status), n in statuses.items():
        by_status[status] += n
    check.figures |= {"hostile: statuses": dict(by_status), "hostile: by kind": {name: {s: n for (k, s), n in sorted(statuses.items()) if k == name} for name in sorted({k for k, _ in statuses})}}
    bad = {f"{name} {status}": n for (name, status), n in statuses.items() if status >= 500 and status != 503}
    check.claim(sum(by_status.values()) >= 50, f"there was hostile traffic: {counted(by_status)}")
    check.claim(not bad, f"no answer is the server's fault: {bad or 'none of 5xx but 503'}")
    check.claim(not unheard, f"each was answered or ended within {PATIENCE_S} s: {dict(unheard) or 'all'}")
    check.claim(not panics, f"nothing panicked: {panics}")
    good.claim_all_right(check)
    check.figures["good clients: p50 ms"] = round(percentile(good.times, 50), 2)
    check.said = f"hostile: {counted(by_status)}; good: {counted(good.statuses)}, {len(good.wrong)} wrong, p50 {percentile(good.times, 50):.1f} ms; {panics} panics"
    return check
