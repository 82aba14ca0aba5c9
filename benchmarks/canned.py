"""A server of one canned completion that counts what it is asked: a process of its own, on loopback.

`serve_canned` starts it; `GET /counts` tells what it saw. It reads no more of a request than its length, and keeps 8
bytes of each, so that it is never what a client waits for.
"""

import asyncio
import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from benchmarks.engines.servers import make_reply

_HEAD_END = b"\r\n\r\n"
_JSON_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What the server saw so far."""

    requests: int
    distinct: int
    """Different bodies among them."""
    first_at_s: float | None
    """When the first of this stretch came, on the machine's monotonic clock; None when none did."""
    last_at_s: float | None


class CannedServer:
    """The server, as its caller sees it.

    Args:
        port: Where it listens.
    """

    def __init__(self, port: int) -> None:
        self.base_url = f"http://127.0.0.1:{port}/v1"
        self._counts_url = f"http://127.0.0.1:{port}/counts"

    def read_counts(self) -> Counts:
        """Return what it saw so far."""
        with urllib.request.urlopen(self._counts_url, timeout=60) as reply:
            return Counts(**json.load(reply))

    def begin_stretch(self) -> None:
        """Let the first request from here on be the first."""
        urllib.request.urlopen(f"{self._counts_url}?again", timeout=60).close()


@contextmanager
def serve_canned() -> Iterator[CannedServer]:
    """Start the server in a process of its own; it ends with the block."""
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.canned"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield CannedServer(int(process.stdout.readline()))
    finally:
        process.terminate()
        process.wait()


class _Seen:
    """What all connections together were asked."""

    def __init__(self) -> None:
        self.n_requests = 0
        self.first_at_s: float | None = None
        self.last_at_s: float | None = None
        self._bodies: set[int] = set()

    def note(self, body: bytes) -> None:
        """Count a request."""
        self.n_requests += 1
        self.last_at_s = time.monotonic()
        if self.first_at_s is None:
            self.first_at_s = self.last_at_s
        self._bodies.add(hash(body))

    def describe(self) -> bytes:
        """Return the counts as JSON."""
        counts = {
            "requests": self.n_requests,
            "distinct": len(self._bodies),
            "first_at_s": self.first_at_s,
            "last_at_s": self.last_at_s,
        }
        return json.dumps(counts).encode()


class _Connection(asyncio.Protocol):
    """One connection; requests come one after another."""

    def __init__(self, seen: _Seen, reply: bytes) -> None:
        self._seen = seen
        self._reply = reply
        self._read = b""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._read += data
        while (end := self._read.find(_HEAD_END)) >= 0:
            head = self._read[:end].lower()
            start = end + len(_HEAD_END)
            stop = start + _read_length(head)
            if len(self._read) < stop:
                return
            body, self._read = self._read[start:stop], self._read[stop:]
            self._transport.write(self._answer(head, body))

    def _answer(self, head: bytes, body: bytes) -> bytes:
        if head.startswith(b"post "):
            self._seen.note(body)
            return self._reply
        if head.startswith(b"get /counts?again "):
            self._seen.first_at_s = None
        counts = self._seen.describe()
        return _JSON_HEAD % len(counts) + counts


def _read_length(head: bytes) -> int:
    found = head.find(b"content-length:")
    return int(head[found + 15 :].split(b"\r", 1)[0]) if found >= 0 else 0


async def _serve() -> None:
    reply = make_reply()
    seen = _Seen()
    server = await asyncio.get_running_loop().create_server(
        lambda: _Connection(seen, _JSON_HEAD % len(reply) + reply), "127.0.0.1", 0, backlog=4096
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    import uvloop

    uvloop.run(_serve())
