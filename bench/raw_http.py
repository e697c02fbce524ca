"""A small HTTP/1.1 client on asyncio's sockets: keeps a connection or drops it, asks at given times, and tells an answer
that broke off from one that never began. For measuring and for misbehaving, on this machine: no TLS, no redirects.
"""

import asyncio
import math
import random
import time
from typing import NamedTuple

LARGEST_ANSWER = 64 << 20
BOUNDARY = "okyeame-raw"


class Answer(NamedTuple):
    status: int
    headers: dict
    body: bytes


class Broken(Exception):
    """The connection ended before the answer did. `began` if a part of the answer was there."""

    def __init__(self, began):
        super().__init__("the answer broke off" if began else "there was no answer")
        self.began = began


def form(clip, fields=(), name="command.wav"):
    """(content type, body) of a form with one file."""
    text = "".join(f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n' for key, value in fields)
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\nContent-Type: audio/wav\r\n\r\n'
    return f"multipart/form-data; boundary={BOUNDARY}", text.encode() + head.encode() + clip + f"\r\n--{BOUNDARY}--\r\n".encode()


def request(method, path, content_type="", body=b"", headers=""):
    kind = f"Content-Type: {content_type}\r\nContent-Length: {len(body)}\r\n" if content_type else ""
    return f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{headers}{kind}\r\n".encode() + body


def post_clip(path, clip, fields=(), headers=""):
    return request("POST", path, *form(clip, fields), headers=headers)


async def read_answer(reader):
    """The next answer; interim ones (100) are passed over."""
    head = b""
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            status_line, *lines = head.decode("latin-1").split("\r\n")
            status = int(status_line.split(" ")[1])
            if status >= 200:
                break
        pairs = (line.partition(":") for line in lines if line)
        headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
        if "chunked" in headers.get("transfer-encoding", ""):
            body = b""
            while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
                body += (await reader.readexactly(size + 2))[:-2]
            await reader.readuntil(b"\r\n")
        elif "content-length" in headers:
            body = await reader.readexactly(int(headers["content-length"]))
        else:
            body = await reader.read(LARGEST_ANSWER)
        return Answer(status, headers, body)
    except asyncio.IncompleteReadError as error:
        raise Broken(bool(head or error.partial)) from None
    except (OSError, ValueError, IndexError, asyncio.LimitOverrunError):
        raise Broken(bool(head)) from None


class Connection:
    """A connection of one client. `async with`."""

    def __init__(self, port):
        self.port = port
        self.reader = self.writer = None

    async def __aenter__(self):
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 20)
        return self

    async def __aexit__(self, *_):
        self.drop()

    def drop(self):
        """With what was not sent yet: the other side sees a reset."""
        self.writer.transport.abort()

    async def send(self, data):
        """Comes back when the system has taken all of it."""
        try:
            self.writer.write(data)
            await self.writer.drain()
        except OSError:
            pass  # an early answer may be there to read

    async def ask(self, data):
        await self.send(data)
        return await read_answer(self.reader)


async def ask_once(port, data, limit_s=60):
    async with asyncio.timeout(limit_s):
        async with Connection(port) as connection:
            return await connection.ask(data)


def percentile(values, percent):
    """Nearest rank; NaN of nothing."""
    ordered = sorted(values)
    return ordered[max(math.ceil(len(ordered) * percent / 100), 1) - 1] if ordered else math.nan


async def open_loop(port, data, per_s, seconds, evenly=False, seed=7):
    """Asks at moments that do not depend on the answers: by chance (Poisson arrivals, as of customers who do not know each
    other), or evenly, as load generators with a constant rate do.

    A time counts from the moment at which the request should have gone: one that had to wait for a slow server, or for
    this program, has waited. Gives (status, or 0 for none; milliseconds) of each.
    """
    draw = random.Random(seed)
    idle, taken = [], []

    async def one(due):
        status = 0
        # The server closes what was idle for long, perhaps at this moment: another is taken then, as any client does.
        is_kept = True
        while status == 0 and is_kept:
            is_kept = bool(idle)
            connection = idle.pop() if idle else await Connection(port).__aenter__()
            try:
                status = (await connection.ask(data)).status
                idle.append(connection)
            except Broken as broken:
                is_kept = is_kept and not broken.began
                connection.drop()
        taken.append((status, (time.perf_counter() - due) * 1e3))

    begin = due = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        while (due := due + (1 / per_s if evenly else draw.expovariate(per_s))) < begin + seconds:
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            group.create_task(one(due))
    for connection in idle:
        connection.drop()
    return taken
