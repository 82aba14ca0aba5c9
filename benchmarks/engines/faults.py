"""What each candidate makes of broken servers: `python -m benchmarks.engines.faults [CANDIDATE…]`.

Each row is one fault of the catalogue (N1 to N26) on a real socket; a candidate passes when it neither takes damage for
an answer nor hangs nor leaves the connection behind.
"""

import asyncio
import gzip
import os
import socket
import ssl
import struct
import sys
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trustme

from benchmarks.engines.clients import Answer, open_client

BODY = b'{"model":"m","messages":[]}'
OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 5\r\n\r\nhello"
HANG_S = 3.0


@dataclass
class Server:
    """A server that sends given bytes, and what it saw of the client afterwards."""

    raw: bytes = OK
    ending: str = "keep"
    pause_s: float = 0.0
    tail: bytes = b""
    port: int = 0
    n_requests: int = 0
    closed: asyncio.Event = field(default_factory=asyncio.Event)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        with suppress(OSError, asyncio.IncompleteReadError, ssl.SSLError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(
                    int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")
                )
                await reader.readexactly(length)
                self.n_requests += 1
                writer.write(self.raw)
                await writer.drain()
                if self.tail:
                    await asyncio.sleep(self.pause_s)
                    writer.write(self.tail)
                    await writer.drain()
                if self.ending == "hang":
                    if await reader.read(1) == b"":
                        self.closed.set()
                    break
                if self.ending == "rst":
                    await asyncio.sleep(0.05)
                    linger = struct.pack("ii", 1, 0)
                    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                if self.ending != "keep":
                    break
        writer.close()


@dataclass(frozen=True)
class Context:
    """What a row needs."""

    post: Callable[..., Awaitable[Answer]]
    authority: trustme.CA


Row = Callable[[Context], Awaitable[bool]]


async def ask(context: Context, server: Server, *, tls: ssl.SSLContext | None = None, **more: Any) -> Answer:
    """Send one request to a server of its own."""
    listening = await asyncio.start_server(server.handle, "127.0.0.1", 0, ssl=tls)
    server.port = listening.sockets[0].getsockname()[1]
    scheme = "http" if tls is None else "https"
    try:
        url = f"{scheme}://127.0.0.1:{server.port}/v1/chat/completions"
        return await asyncio.wait_for(context.post(url, BODY, **more), HANG_S)
    finally:
        listening.close()


def fails(server_of: Callable[[], Server]) -> Row:
    """Return a row that passes when the request fails in time."""

    async def row(context: Context) -> bool:
        try:
            await ask(context, server_of())
        except TimeoutError:
            return False
        except Exception:  # noqa: BLE001 - any failure will do
            return True
        return False

    return row


def answers(server_of: Callable[[], Server], status: int, body: bytes) -> Row:
    """Return a row that passes when this very answer comes."""

    async def row(context: Context) -> bool:
        return await ask(context, server_of()) == Answer(status, body)

    return row


async def give_up_before_headers(context: Context) -> bool:
    """A request that is cancelled while it waits for headers closes its connection."""
    return await _give_up(context, Server(raw=b"", ending="hang"))


async def give_up_in_body(context: Context) -> bool:
    """A request that is cancelled in the body closes its connection."""
    return await _give_up(context, Server(raw=OK.replace(b": 5", b": 50"), ending="hang"))


async def _give_up(context: Context, server: Server) -> bool:
    task = asyncio.create_task(ask(context, server))
    await asyncio.sleep(0.3)
    task.cancel()
    with suppress(asyncio.CancelledError, Exception):
        await task
    with suppress(TimeoutError):
        await asyncio.wait_for(server.closed.wait(), 0.5)
    return server.closed.is_set()


async def headers_come_first(context: Context) -> bool:
    """Headers are handed over before the body is there, which is what the time to the first token needs."""
    loop, seen = asyncio.get_running_loop(), []
    server = Server(raw=OK[:-5], tail=b"hello", pause_s=0.5)
    begin = loop.time()
    await ask(context, server, on_headers=lambda: seen.append(loop.time() - begin))
    return seen[0] < 0.3


async def idle_connection_closed(context: Context) -> bool:
    """A server that closes idle connections costs no request (20 in a row)."""
    server = Server(ending="fin")
    listening = await asyncio.start_server(server.handle, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    try:
        for _ in range(20):
            await asyncio.wait_for(context.post(f"http://127.0.0.1:{port}/v1/chat/completions", BODY), HANG_S)
            await asyncio.sleep(0.005)
    finally:
        listening.close()
    return server.n_requests == 20


async def proxy_of_the_environment(context: Context) -> bool:
    """HTTP_PROXY is not obeyed unasked."""
    os.environ["HTTP_PROXY"] = os.environ["http_proxy"] = "http://127.0.0.1:9"
    try:
        return (await ask(context, Server())).status == 200
    finally:
        del os.environ["HTTP_PROXY"], os.environ["http_proxy"]


async def refused(context: Context) -> bool:
    """Nobody listens: fails at once."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    try:
        await asyncio.wait_for(context.post(f"http://127.0.0.1:{port}/v1/chat/completions", BODY), HANG_S)
    except TimeoutError:
        return False
    except Exception:  # noqa: BLE001
        return True
    return False


def tls(name: str, *, is_known: bool = True, is_good: bool = False, **issue: Any) -> Row:
    """Return a row about certificates: it passes when exactly the good one is taken."""

    async def row(context: Context) -> bool:
        authority = context.authority if is_known else trustme.CA()
        server_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert(name, **issue).configure_cert(server_context)
        server = Server()
        try:
            answer = await ask(context, server, tls=server_context)
        except TimeoutError:
            return False
        except Exception:  # noqa: BLE001
            return not is_good and server.n_requests == 0
        return is_good and answer.status == 200

    return row


def _rows() -> dict[str, Row]:
    import datetime

    past = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    zipped = gzip.compress(b"hello")
    coded = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(zipped) + zipped
    chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n"
    redirect = b"HTTP/1.1 307 Moved\r\nlocation: /elsewhere\r\ncontent-length: 0\r\n\r\n"
    return {
        "N1 connection refused": refused,
        "N3 RST before headers": fails(lambda: Server(raw=b"", ending="rst")),
        "N4 RST in the body": fails(lambda: Server(raw=OK.replace(b": 5", b": 50"), ending="rst")),
        "N5 FIN without a reply": fails(lambda: Server(raw=b"", ending="fin")),
        "N6 given up before headers": give_up_before_headers,
        "N7 given up in the body": give_up_in_body,
        "N8 content-length too long": fails(lambda: Server(raw=OK.replace(b": 5", b": 50"), ending="fin")),
        "N9 content-length too short": answers(
            lambda: Server(raw=OK.replace(b": 5", b": 3"), ending="fin"), 200, b"hel"
        ),
        "N10 chunked body cut off": fails(lambda: Server(raw=chunked, ending="fin")),
        "N10 chunk size is no number": fails(lambda: Server(raw=chunked.replace(b"\r\n5\r\n", b"\r\nzz\r\n"))),
        "N13 headers before the body": headers_come_first,
        "N20 gzip left to us": answers(lambda: Server(raw=coded), 200, zipped),
        "N21 redirect not followed": answers(lambda: Server(raw=redirect), 307, b""),
        "N22 own authority": tls("127.0.0.1", is_good=True),
        "N22 unknown authority": tls("127.0.0.1", is_known=False),
        "N22 wrong host": tls("elsewhere.test"),
        "N22 expired": tls("127.0.0.1", not_after=past),
        "N24 idle connections closed": idle_connection_closed,
        "N25 HTTP/1.0": answers(lambda: Server(raw=b"HTTP/1.0 200 OK\r\n\r\nhello", ending="fin"), 200, b"hello"),
        "N25 100-continue": answers(lambda: Server(raw=b"HTTP/1.1 100 Continue\r\n\r\n" + OK), 200, b"hello"),
        "N25 1 MB header": fails(lambda: Server(raw=b"HTTP/1.1 200 OK\r\nx: " + b"y" * 1_000_000 + OK[15:])),
        "N25 header beyond ASCII": answers(
            lambda: Server(raw=OK.replace(b"\r\n\r\n", b"\r\nx: \xe9\r\n\r\n")), 200, b"hello"
        ),
        "N25 two lengths": fails(lambda: Server(raw=OK.replace(b"\r\n\r\n", b"\r\ncontent-length: 3\r\n\r\n"))),
        "N25 not HTTP": fails(lambda: Server(raw=b"SSH-2.0-OpenSSH_9.2\r\n\r\n")),
        "N26 proxy not obeyed unasked": proxy_of_the_environment,
    }


async def try_candidate(name: str) -> dict[str, bool]:
    """Return which faults a candidate passes."""
    authority = trustme.CA()
    passed = {}
    with tempfile.TemporaryDirectory() as folder:
        ca = Path(folder) / "ca.pem"
        authority.cert_pem.write_to_path(str(ca))
        for label, row in _rows().items():
            async with open_client(name, ca=ca) as post:
                try:
                    passed[label] = await row(Context(post, authority))
                except Exception:  # noqa: BLE001 - a row that breaks is a row not passed
                    passed[label] = False
    return passed


def main() -> None:
    """Print a table: faults by candidates."""
    names = sys.argv[1:] or ["pyreqwest", "wreq", "httpx2", "httpx"]
    found = {name: asyncio.run(try_candidate(name)) for name in names}
    print("| fault |" + "".join(f" {name} |" for name in names))
    print("|---|" + ":-:|" * len(names))
    for label in _rows():
        print(f"| {label} |" + "".join(f" {'yes' if found[name][label] else '**no**'} |" for name in names))
    totals = (f" {sum(found[name].values())} of {len(found[name])} |" for name in names)
    print("| passed |" + "".join(totals))


if __name__ == "__main__":
    main()
