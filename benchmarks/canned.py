"""A server of one canned completion that counts what it is asked: a process of its own, on loopback.

`serve_canned` starts it: it answers at once, after a fixed delay, or by an event stream; `GET /counts` tells what it
saw. It reads no more of a request than its length and keeps a hash of each; replies that wait stand in one queue behind
one timer, and all streams go on by one tick, so that it is never what a client waits for.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import time
import urllib.request
from array import array
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.engines.servers import make_reply, pin

CHUNK_EVERY_S = 0.05
ROOT = Path(__file__).resolve().parent.parent
_HEAD_END = b"\r\n\r\n"
_JSON_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
_DONE = b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What the server saw so far."""

    requests: int
    distinct: int
    """Different bodies among them."""
    first_at_s: float | None
    """When the first of this stretch came, on the machine's monotonic clock; None when none did."""
    last_at_s: float | None
    last_reply_at_s: float | None
    """When the last reply was written to its end."""
    most_in_flight: int
    """Requests without a whole reply, at their most in this stretch."""
    delay_p50_s: float | None
    """From a request's last byte to its reply, as the server itself saw it; None for streams and before any reply."""
    delay_p99_s: float | None


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
def serve_canned(*, delay_s: float = 0.0, n_chunks: int = 0, core: int | None = None) -> Iterator[CannedServer]:
    """Start the server in a process of its own; it ends with the block.

    Args:
        delay_s: How long each reply waits.
        n_chunks: Replies are event streams of so many chunks, one each `CHUNK_EVERY_S`, all in step; 0: they are plain.
        core: The one core that it may use; None for all.
    """
    command = [sys.executable, "-m", "benchmarks.canned", "--delay-s", str(delay_s), "--chunks", str(n_chunks)]
    with subprocess.Popen(pin(command, core), cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield CannedServer(int(process.stdout.readline()))
        finally:
            process.terminate()


class _Seen:
    """What all connections together were asked, and how long their replies took."""

    def __init__(self) -> None:
        self.n_requests = 0
        self._bodies: set[int] = set()
        self.begin_stretch()

    def begin_stretch(self) -> None:
        """Forget when requests came and went; what is in flight stays."""
        self._first_at_s: float | None = None
        self._last_at_s: float | None = None
        self._last_reply_at_s: float | None = None
        self._n_in_flight = self._most_in_flight = getattr(self, "_n_in_flight", 0)
        self._delays_s = array("d")

    def note_request(self, body: bytes) -> float:
        """Count a request; returns when it came."""
        self.n_requests += 1
        self._n_in_flight += 1
        self._most_in_flight = max(self._most_in_flight, self._n_in_flight)
        self._last_at_s = time.monotonic()
        if self._first_at_s is None:
            self._first_at_s = self._last_at_s
        self._bodies.add(hash(body))
        return self._last_at_s

    def note_reply(self, came_at_s: float | None) -> None:
        """Count a whole reply; `came_at_s` is when its request came, None where the time between says nothing."""
        self._n_in_flight -= 1
        self._last_reply_at_s = time.monotonic()
        if came_at_s is not None:
            self._delays_s.append(self._last_reply_at_s - came_at_s)

    def describe(self) -> bytes:
        """Return the counts as JSON."""
        delays_s = sorted(self._delays_s)
        counts = {
            "requests": self.n_requests,
            "distinct": len(self._bodies),
            "first_at_s": self._first_at_s,
            "last_at_s": self._last_at_s,
            "last_reply_at_s": self._last_reply_at_s,
            "most_in_flight": self._most_in_flight,
            "delay_p50_s": delays_s[len(delays_s) // 2] if delays_s else None,
            "delay_p99_s": delays_s[int(len(delays_s) * 0.99)] if delays_s else None,
        }
        return json.dumps(counts).encode()


class _Replies:
    """Writes the replies, at once or when their time has come.

    Args:
        seen: Where each is counted.
        delay_s: How long a reply waits.
    """

    def __init__(self, seen: _Seen, delay_s: float) -> None:
        self._seen = seen
        self._delay_s = delay_s
        reply = make_reply()
        self._reply = _JSON_HEAD % len(reply) + reply
        self._waiting: deque[tuple[float, Any]] = deque()

    def answer(self, transport: Any, body: bytes) -> None:
        """Answer a request in its time."""
        came_at_s = self._seen.note_request(body)
        if not self._delay_s:
            transport.write(self._reply)
            self._seen.note_reply(None)
            return
        self._waiting.append((came_at_s, transport))
        if len(self._waiting) == 1:
            asyncio.get_running_loop().call_later(self._delay_s, self._write_due)

    def _write_due(self) -> None:
        """Write what is due, and come again when the next is: all wait equally long, so the first is due first."""
        while self._waiting:
            came_at_s, transport = self._waiting[0]
            rest_s = came_at_s + self._delay_s - time.monotonic()
            if rest_s > 0:
                # Timers of uvloop count milliseconds; a shorter one would come at once, and again and again.
                asyncio.get_running_loop().call_later(max(rest_s, 0.001), self._write_due)
                return
            self._waiting.popleft()
            if not transport.is_closing():  # A client may have given up meanwhile.
                transport.write(self._reply)
            self._seen.note_reply(came_at_s)


class _Streams:
    """Writes event streams chunk by chunk, all of them in step.

    Args:
        seen: Where each is counted.
        n_chunks: Chunks of a stream, the last of which ends it.
    """

    def __init__(self, seen: _Seen, n_chunks: int) -> None:
        self._seen = seen
        self._n_chunks = n_chunks
        self._open: list[list[Any]] = []
        self._word = _encode_chunk([{"index": 0, "delta": {"content": "hello"}, "finish_reason": None}])
        self._end = _encode_chunk([{"index": 0, "delta": {}, "finish_reason": "stop"}])
        self._usage = _encode_chunk([], usage={"prompt_tokens": 26, "completion_tokens": 10, "total_tokens": 36})

    def answer(self, transport: Any, body: bytes) -> None:
        """Begin a stream."""
        self._seen.note_request(body)
        transport.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        self._open.append([transport, 0, self._usage if b"include_usage" in body else b""])

    async def tick(self) -> None:
        """Write one chunk to each stream, for ever."""
        while True:
            await asyncio.sleep(CHUNK_EVERY_S)
            for stream in list(self._open):
                transport, n_sent, usage = stream
                stream[1] = n_sent + 1
                is_last = stream[1] == self._n_chunks
                if not transport.is_closing():
                    transport.write(self._end + usage + _DONE if is_last else self._word)
                if is_last:
                    self._seen.note_reply(None)
                    self._open.remove(stream)


class _Connection(asyncio.Protocol):
    """One connection; requests come one after another."""

    def __init__(self, seen: _Seen, replies: _Replies | _Streams) -> None:
        self._seen = seen
        self._replies = replies
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
            if head.startswith(b"post "):
                self._replies.answer(self._transport, body)
            else:
                self._tell(head)

    def _tell(self, head: bytes) -> None:
        if head.startswith(b"get /counts?again "):
            self._seen.begin_stretch()
        counts = self._seen.describe()
        self._transport.write(_JSON_HEAD % len(counts) + counts)


def _read_length(head: bytes) -> int:
    found = head.find(b"content-length:")
    return int(head[found + 15 :].split(b"\r", 1)[0]) if found >= 0 else 0


def _encode_chunk(choices: list[dict[str, Any]], **more: Any) -> bytes:
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    event = b"data: " + json.dumps({**head, "choices": choices, **more}).encode() + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(event), event)


async def _serve(delay_s: float, n_chunks: int) -> None:
    seen = _Seen()
    replies = _Streams(seen, n_chunks) if n_chunks else _Replies(seen, delay_s)
    server = await asyncio.get_running_loop().create_server(
        lambda: _Connection(seen, replies), "127.0.0.1", 0, backlog=4096
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    if isinstance(replies, _Streams):
        await replies.tick()
    await server.serve_forever()


def main() -> None:
    """Read the command line and serve."""
    import uvloop

    parser = argparse.ArgumentParser(prog="python -m benchmarks.canned", description=__doc__)
    parser.add_argument("--delay-s", type=float, default=0.0)
    parser.add_argument("--chunks", type=int, default=0)
    given = parser.parse_args()
    uvloop.run(_serve(given.delay_s, given.chunks))


if __name__ == "__main__":
    main()
