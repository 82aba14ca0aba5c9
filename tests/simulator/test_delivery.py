"""Tests of carrying scripts out: the very bytes, cuts and endings, on real sockets."""

import re
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from email.utils import parsedate_to_datetime
from typing import cast

import anyio
import pytest
from anyio.abc import ByteStream, SocketListener, SocketStream

from evalrun.simulator import delivery, server
from evalrun.simulator.connection import HttpRequest, Respond
from evalrun.simulator.script import Piece, Script
from tests.simulator.asking import HANG_GUARD_S, connect, exchange

pytestmark = pytest.mark.anyio
GET = b"GET /x HTTP/1.1\r\nHost: here\r\n\r\n"
HELLO = (Piece(data=b"hel"), Piece(data=b"lo"))
HELLO_IN_CHUNKS = b"3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n"


@asynccontextmanager
async def serve_scripts(*scripts: Script, outcomes: list[str] | None = None) -> AsyncIterator[str]:
    """Answer the requests with the scripts, in their order; note how each delivery ended."""
    queue = list(scripts)

    async def handle(request: HttpRequest, respond: Respond) -> None:
        del request
        noted = [] if outcomes is None else outcomes
        try:
            await respond(queue.pop(0))
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            noted.append("gone")
            raise
        noted.append("taken")

    async with anyio.create_task_group() as tasks:
        multi = await anyio.create_tcp_listener(local_host="127.0.0.1")
        (listener,) = [each for each in multi.listeners if isinstance(each, SocketListener)]
        tasks.start_soon(server._accept, listener, tasks, server._Connections(handle))
        yield server._make_url(listener)
        await listener.aclose()
        tasks.cancel_scope.cancel()


def make_script(pieces: Sequence[Piece] = HELLO, **changes: object) -> Script:
    """Return a script of a small text."""
    script = Script(headers=[("content-type", "text/plain")], pieces=list(pieces))
    for name, value in changes.items():
        setattr(script, name, value)
    return script


async def ask(script: Script, request: bytes = GET) -> tuple[bytes, bytes]:
    """Return head and body of the response to one request, read until the server has closed."""
    async with serve_scripts(script) as url:
        received = await exchange(url, request)
    head, _, body = received.partition(b"\r\n\r\n")
    return head, body


async def receive_to_the_end(stream: SocketStream) -> tuple[bytes, Exception]:
    """Return what comes, and how the connection ended."""
    received = b""
    with anyio.fail_after(HANG_GUARD_S):
        while True:
            try:
                received += await stream.receive()
            except (anyio.EndOfStream, anyio.BrokenResourceError) as error:
                return received, error


@pytest.mark.parametrize(
    ("framing", "header", "body"),
    [
        ("length", b"content-length: 5", b"hello"),
        ("chunked", b"transfer-encoding: chunked", HELLO_IN_CHUNKS),
        ("close", b"connection: close", b"hello"),
    ],
)
async def test_framing_tells_where_the_body_ends(framing: str, header: bytes, body: bytes) -> None:
    """Each framing writes its own header, and no other's, and the body as it asks."""
    head, received = await ask(make_script(framing=framing))
    framings = re.findall(rb"\r\n((?:content-length|transfer-encoding|connection): [^\r]*)", head)
    assert (framings, received) == ([header], body)


async def test_raw_script_is_the_whole_response() -> None:
    """With raw framing not a byte is added."""
    data = b"HTTP/1.1 299 Odd\r\nX: y\r\nContent-Length: 1\r\n\r\nz"
    async with serve_scripts(make_script([Piece(data=data)], framing="raw")) as url:
        assert await exchange(url, GET) == data


@pytest.mark.parametrize(
    ("framing", "cut", "body"),
    [
        ("length", 4, b"hell"),
        ("length", 0, b""),
        ("chunked", 4, b"3\r\nhel\r\n2\r\nl"),
        ("chunked", 3, b"3\r\nhel\r\n"),
        ("chunked", 5, b"3\r\nhel\r\n2\r\nlo\r\n"),
        ("close", 2, b"he"),
    ],
)
async def test_cut_ends_the_body_early(framing: str, cut: int, body: bytes) -> None:
    """After so many bytes of the body the connection ends, its framing unfulfilled, even if it was to be kept."""
    head, received = await ask(make_script(framing=framing, cut_after_bytes=cut))
    assert received == body
    assert framing != "length" or b"content-length: 5" in head


@pytest.mark.parametrize("declared", [3, 99])
async def test_declared_length_may_lie(declared: int) -> None:
    """The header says what the script says, the body is what it is."""
    head, body = await ask(make_script(declared_bytes=declared, ending="fin"))
    assert (f"content-length: {declared}".encode() in head, body) == (True, b"hello")


@pytest.mark.parametrize(("ending", "is_reset"), [("fin", False), ("rst", True)])
@pytest.mark.parametrize("pieces", [HELLO, ()])
async def test_ending_closes_unannounced(ending: str, is_reset: bool, pieces: tuple[Piece, ...]) -> None:
    """`fin` ends in good order, `rst` with a reset and no end of stream before it; the head speaks of neither."""
    script = make_script(pieces, ending=ending)
    async with serve_scripts(script) as url, await connect(url) as stream:
        await stream.send(GET)
        received, error = await receive_to_the_end(stream)
    assert isinstance(error, anyio.BrokenResourceError) is is_reset
    assert b"connection: close" not in received
    assert received.endswith(b"\r\n\r\n" + script.body)


async def test_kept_connection_carries_the_next_request() -> None:
    """After a whole response the connection goes on, chunked or not."""
    scripts = [make_script(framing="chunked"), make_script(), make_script(framing="chunked")]
    async with serve_scripts(*scripts) as url:
        received = await exchange(url, GET * 3)
    assert received.count(b"HTTP/1.1 200 OK") == 3
    assert received.endswith(HELLO_IN_CHUNKS)


async def test_old_client_gets_no_chunks() -> None:
    """HTTP/1.0 knows no chunks: a stream ends with the connection."""
    head, body = await ask(make_script(framing="chunked"), GET.replace(b"HTTP/1.1", b"HTTP/1.0"))
    assert (b"transfer-encoding" in head, b"connection: close" in head, body) == (False, True, b"hello")


async def test_head_request_gets_the_head_alone() -> None:
    """HEAD gets the headers of the whole response and nothing behind them."""
    head, body = await ask(make_script(), GET.replace(b"GET", b"HEAD"))
    assert (b"content-length: 5" in head, body) == (True, b"")


@pytest.mark.parametrize(("status", "line"), [(200, b"200 OK"), (429, b"429 Too Many Requests"), (529, b"529 ")])
async def test_status_may_be_unknown_to_the_standard(status: int, line: bytes) -> None:
    """Numbers that only vendors know are sent too."""
    head, _ = await ask(make_script(status=status))
    assert head.startswith(b"HTTP/1.1 " + line)


async def test_every_response_has_a_date() -> None:
    """The date is the server's own, unless the script brings one."""
    head, _ = await ask(make_script())
    dates = re.findall(r"\r\ndate: ([^\r]*)", head.decode())
    assert len(dates) == 1
    assert abs(parsedate_to_datetime(dates[0]).timestamp() - time.time()) < 3600
    head, _ = await ask(make_script(headers=[("date", "yesterday")]))
    assert re.findall(rb"\r\ndate: ([^\r]*)", head) == [b"yesterday"]


async def test_pieces_leave_apart() -> None:
    """What stands before a wait has left before the wait is over."""
    pieces = [Piece(data=b"one"), Piece(data=b"two", wait_s=60)]
    async with serve_scripts(make_script(pieces, framing="chunked")) as url, await connect(url) as stream:
        await stream.send(GET)
        with anyio.fail_after(HANG_GUARD_S):
            received = await stream.receive()
            while not received.endswith(b"3\r\none\r\n"):
                received += await stream.receive()
    assert b"two" not in received


async def test_head_leaves_before_the_first_wait() -> None:
    """A stall after the headers shows the headers."""
    pieces = [Piece(data=b"late", wait_s=60)]
    async with serve_scripts(make_script(pieces)) as url, await connect(url) as stream:
        await stream.send(GET)
        with anyio.fail_after(HANG_GUARD_S):
            assert (await stream.receive()).endswith(b"\r\n\r\n")


async def test_empty_piece_does_not_end_the_chunks() -> None:
    """A chunk of no bytes would end the body; an empty piece is a pause and nothing else."""
    pieces = [Piece(data=b"a"), Piece(data=b""), Piece(data=b"b")]
    _, body = await ask(make_script(pieces, framing="chunked"))
    assert body == b"1\r\na\r\n1\r\nb\r\n0\r\n\r\n"


async def test_delay_comes_before_the_first_byte() -> None:
    """Nothing is sent, not even the status line, until the delay is over."""
    async with serve_scripts(make_script(delay_s=60)) as url, await connect(url) as stream:
        await stream.send(GET)
        with anyio.move_on_after(0.1) as scope:
            await stream.receive()
    assert scope.cancelled_caught


async def test_client_that_leaves_stops_the_script() -> None:
    """A stream whose client is gone ends long before its last piece, and is not taken."""
    outcomes: list[str] = []
    pieces = [Piece(data=b"x" * 100, wait_s=0.01) for _ in range(100_000)]
    async with serve_scripts(make_script(pieces, framing="chunked"), outcomes=outcomes) as url:
        async with await connect(url) as stream:
            await stream.send(GET)
            await stream.receive()
        with anyio.fail_after(HANG_GUARD_S):
            while not outcomes:  # noqa: ASYNC110 - the server tells no event
                await anyio.sleep(0.01)
    assert outcomes == ["gone"]


class _NotingStream:
    """Takes everything at once, notes what left together; delivery needs nothing but `send`."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    async def send(self, data: bytes) -> None:
        """Take some bytes."""
        self.sent.append(data)


async def test_late_pieces_leave_together() -> None:
    """A server that was held up makes up for it, so that a long stream keeps its pace."""
    script = make_script([Piece(data=b"x", wait_s=0.01)] * 20, framing="raw")
    stream = _NotingStream()

    async def hold_up() -> None:
        await anyio.sleep(0.001)
        time.sleep(0.5)  # noqa: ASYNC251 - the whole loop is to stand still

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(hold_up)
        await delivery.deliver(cast("ByteStream", stream), script)
    assert stream.sent == [b"x" * 20]


async def test_pieces_in_time_leave_apart() -> None:
    """What nothing holds up leaves piece by piece, those that need not wait too."""
    script = make_script([Piece(data=b"a"), Piece(data=b"b"), Piece(data=b"c", wait_s=0.01)], framing="raw")
    stream = _NotingStream()
    await delivery.deliver(cast("ByteStream", stream), script)
    assert stream.sent == [b"a", b"b", b"c"]


async def test_script_without_pieces_is_a_whole_response() -> None:
    """No body at all: a length of 0, or a last chunk."""
    assert (await ask(make_script([])))[0].count(b"content-length: 0") == 1
    assert (await ask(make_script([], framing="chunked")))[1] == b"0\r\n\r\n"
