"""Tests of the fast engine: what it leaves open, which headers it reads, which failures it names, whom it trusts."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import certifi
import httpx
import pytest
from pyreqwest import exceptions

from evalrun.dispatch import fast_engine
from evalrun.dispatch.deadlines import Deadlines
from evalrun.dispatch.fast_engine import FastEngine
from evalrun.dispatch.transport import make_target, open_transport
from evalrun.errors import TimedOutError
from evalrun.options import TimeoutOptions
from tests.dispatch.rig import make_options
from tests.fake_endpoint import FakeEndpoint, FakeReply, reply_text

pytestmark = pytest.mark.anyio
BODY = b'{"model":"m"}'
HANG_GUARD_S = 20.0
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"


@dataclass
class RawServer:
    """Sends fixed bytes to every request, and notes when the client hangs up."""

    raw: bytes
    port: int = 0
    hung_up: asyncio.Event = field(default_factory=asyncio.Event)
    _connections: set[asyncio.Task[None]] = field(default_factory=set)

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a connection, and know of it until it has ended."""
        task = asyncio.ensure_future(self.handle(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def settle(self) -> None:
        """Wait until every client has hung up: the engine does so behind its caller's back."""
        with anyio.fail_after(HANG_GUARD_S):
            await asyncio.gather(*self._connections)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one request, then wait for the end."""
        with suppress(OSError, asyncio.IncompleteReadError):
            await reader.readuntil(BODY)
            writer.write(self.raw)
            await writer.drain()
            await reader.read()
            self.hung_up.set()
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


@asynccontextmanager
async def serve_raw(raw: bytes) -> AsyncIterator[RawServer]:
    """Serve fixed bytes."""
    server = RawServer(raw)
    listening = await asyncio.start_server(server.accept, "127.0.0.1", 0)
    server.port = listening.sockets[0].getsockname()[1]
    async with listening:
        yield server
        await server.settle()


@pytest.mark.parametrize("raw", [b"", OK[:-1]], ids=["before the headers", "in the body"])
async def test_connection_of_a_request_that_was_given_up_is_closed(raw: bytes) -> None:
    """A server that stalls is hung up on soon after the attempt ended: nothing lingers until the total deadline."""
    timeouts = TimeoutOptions(first_byte=0.2, idle=0.2, total=300)
    async with serve_raw(raw) as server:
        target = make_target(make_options(f"http://127.0.0.1:{server.port}/v1", timeout_s=timeouts), environ={})
        async with open_transport(target) as transport:
            with pytest.raises(TimedOutError):
                await transport.send(BODY)
            with anyio.fail_after(HANG_GUARD_S):
                await server.hung_up.wait()


async def test_closed_transport_leaves_no_connection() -> None:
    """Who has closed a transport holds no connection any more, idle ones included."""
    async with serve_raw(OK) as server:
        target = make_target(make_options(f"http://127.0.0.1:{server.port}/v1"), environ={})
        async with open_transport(target) as transport:
            await transport.send(BODY)
            assert not server.hung_up.is_set()
        with anyio.fail_after(5):
            await server.hung_up.wait()


async def test_header_beyond_ascii_costs_no_other_header() -> None:
    """A header value that is not ASCII is left out; the reply and its other headers are kept."""
    raw = OK.replace(b"\r\n\r\n", b"\r\nx-odd: caf\xe9\r\nx-request-id: r1\r\n\r\n")
    async with serve_raw(raw) as server:
        target = make_target(make_options(f"http://127.0.0.1:{server.port}/v1"), environ={})
        async with open_transport(target) as transport:
            reply = await transport.send(BODY)
    assert (reply.status, reply.headers.get("x-odd"), reply.headers["x-request-id"]) == (200, None, "r1")


@pytest.mark.parametrize("headers", [{"connection": "close"}, {}], ids=["announced", "silent"])
async def test_server_that_closes_after_each_reply_costs_no_request(headers: dict[str, str]) -> None:
    """Whether a server says so or not: after a closed connection comes a new one, and no request is sent twice."""
    with FakeEndpoint(default=reply_text(headers=headers, ending="fin")) as endpoint:
        async with open_transport(make_target(make_options(endpoint.base_url), environ={})) as transport:
            for _ in range(20):
                assert (await transport.send(BODY)).status == 200
        assert len(endpoint.requests) == 20


async def test_lost_first_reply_is_not_replaced(endpoint: FakeEndpoint) -> None:
    """On a connection that was opened for the request, a lost reply is a failed attempt, never asked again unseen."""
    endpoint.default = FakeReply(raw=b"", ending="fin")
    async with open_transport(make_target(make_options(endpoint.base_url), environ={})) as transport:
        for n_requests in (1, 2):
            with pytest.raises(Exception, match="closed the connection before it replied"):
                await transport.send(BODY)
            assert len(endpoint.requests) == n_requests


@pytest.mark.parametrize(
    ("reasons", "cause"),
    [
        (["client error (Connect)", "tcp connect error", "Connection refused (os error 111)"], ConnectionRefusedError),
        (["client error (Connect)", "dns error", "no such host"], socket.gaierror),
        (["client error (Connect)", "invalid peer certificate: Expired"], ssl.SSLError),
        (["client error (Connect)", "tls handshake eof"], ssl.SSLEOFError),
        (["client error (Connect)", "Connection reset by peer (os error 104)"], ConnectionResetError),
        (["client error (Connect)", "something new"], OSError),
    ],
)
def test_failed_connect_carries_the_systems_own_reason(reasons: list[str], cause: type[Exception]) -> None:
    """A failed connect has the exception that Python's own library would have raised as its cause."""
    error = exceptions.ConnectError("connection error", {"causes": [{"message": text} for text in reasons]})
    failure = fast_engine._translate(error)
    assert isinstance(failure, httpx.ConnectError)
    assert type(failure.__cause__) is cause


def test_machine_without_certificates_gets_those_of_httpx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where neither the system nor SSL_CERT_FILE has certificates, the bundled set is loaded, else it is not."""
    paths = ssl.DefaultVerifyPaths(None, str(tmp_path), "", "", "", "")  # type: ignore[arg-type] # a machine without
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: paths)
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    assert not fast_engine._has_system_certificates()
    FastEngine(url="https://127.0.0.1:1/v1", headers=[], deadlines=Deadlines.of(TimeoutOptions()), keep_alive_s=1)
    monkeypatch.setenv("SSL_CERT_FILE", certifi.where())
    assert fast_engine._has_system_certificates()
