"""Tests of the simulator as a server: raw bytes on real sockets, start and end."""

import errno
import json
import logging
import random
import re
from typing import Any, cast

import anyio
import httpx
import pytest
from anyio.abc import SocketListener, SocketStream

from evalrun.errors import UsageError
from evalrun.options import ProfileOptions
from evalrun.simulator import connection, server
from evalrun.simulator.chat import Chat
from evalrun.simulator.server import serve
from tests.simulator.asking import (
    HANG_GUARD_S,
    connect,
    encode_header,
    exchange,
    make_body,
    make_options,
    make_raw_request,
    receive_all,
)

pytestmark = pytest.mark.anyio
SLOW = ProfileOptions(accuracy=1, latency_ms=300, latency_spread=0)


def read_statuses(received: bytes) -> list[int]:
    """Return the statuses of all responses in a stream of them."""
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) [^\r\n]*\r\n", received)]


async def wait_for(condition: Any) -> None:
    """Let the server work until a condition holds."""
    with anyio.fail_after(HANG_GUARD_S):
        while not condition():  # noqa: ASYNC110 - the server tells no event when it has begun
            await anyio.sleep(0.005)


async def test_a_connection_serves_many_requests() -> None:
    """Keep-alive: one connection, several requests one after the other."""
    async with serve(make_options()) as simulator, await connect(simulator.url) as stream:
        for i in range(5):
            await stream.send(make_raw_request(make_body(str(i))))
            received = await stream.receive()
            assert read_statuses(received) == [200]
            assert b"connection: close" not in received
    assert simulator.ledger.to_json()["totals"]["completions"] == 5


async def test_pipelined_requests_are_answered_in_order() -> None:
    """Requests sent in one go come back one by one, whole and in their order."""
    models = ["careful", "nobody", "careful"]
    data = b"".join(make_raw_request(make_body(model=model)) for model in models)
    async with serve(make_options()) as simulator:
        assert read_statuses(await exchange(simulator.url, data)) == [200, 404, 200]


async def test_request_in_single_bytes_is_read() -> None:
    """However the network splits a request, it is the same request."""
    data = make_raw_request(make_body("ไทย"))
    async with serve(make_options()) as simulator, await connect(simulator.url) as stream:
        for i in range(len(data)):
            await stream.send(data[i : i + 1])
        assert read_statuses(await stream.receive()) == [200]


async def test_chunked_body_is_read() -> None:
    """A body of unknown length comes in chunks."""
    body = json.dumps(make_body()).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(body[i : i + 9]), body[i : i + 9]) for i in range(0, len(body), 9))
    async with serve(make_options()) as simulator:
        assert read_statuses(await exchange(simulator.url, head + chunks + b"0\r\n\r\n")) == [200]


async def test_client_that_waits_for_100_continue_gets_it() -> None:
    """Tools like curl ask before it sends a large body."""
    head, _, body = make_raw_request(make_body(), "Expect: 100-continue").partition(b"\r\n\r\n")
    async with serve(make_options()) as simulator, await connect(simulator.url) as stream:
        await stream.send(head + b"\r\n\r\n")
        assert read_statuses(await stream.receive()) == [100]
        await stream.send(body)
        assert read_statuses(await stream.receive()) == [200]


@pytest.mark.parametrize(
    "data",
    [
        make_raw_request(make_body(), "Connection: close"),
        make_raw_request(make_body()).replace(b"HTTP/1.1", b"HTTP/1.0", 1),
    ],
)
async def test_connection_closes_when_the_client_asks(data: bytes) -> None:
    """Connection: close and HTTP/1.0 end after one response, which says so."""
    async with serve(make_options()) as simulator, await connect(simulator.url) as stream:
        await stream.send(data)
        received = await receive_all(stream)
    assert read_statuses(received) == [200]
    assert b"connection: close\r\n" in received


async def test_half_closed_client_gets_its_reply() -> None:
    """A client may end its sending side and still read."""
    async with serve(make_options(careful=SLOW)) as simulator:
        assert read_statuses(await exchange(simulator.url, make_raw_request(make_body()))) == [200]


@pytest.mark.parametrize("cut", [1, 30, 60, -1])
async def test_client_gone_in_mid_request_is_not_counted(cut: int) -> None:
    """A request that never came whole is no request, and harms nobody."""
    async with serve(make_options()) as simulator:
        assert 200 not in read_statuses(await exchange(simulator.url, make_raw_request(make_body())[:cut]))
        assert read_statuses(await exchange(simulator.url, make_raw_request(make_body()))) == [200]
    assert simulator.ledger.to_json()["totals"]["requests"] == 1


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"hello\r\n\r\n", 400),
        (b"GET /v1/models HTTP/1.1\r\n\r\n", 400),
        (b"GET /v1/models HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET /v1/models HTTP/1.1\r\nHost : a\r\n\r\n", 400),
        (b"GET /v1/\xffmodels HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /v1/models HTTP/3.7\r\nHost: a\r\n\r\n", 505),
        (b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n", 400),
        (b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        (b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (make_raw_request(make_body(), "Content-Encoding: gzip"), 415),
        (b"CONNECT here:443 HTTP/1.1\r\nHost: a\r\n\r\n", 404),
        (b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", 404),
    ],
)
async def test_malformed_requests_are_refused(data: bytes, status: int) -> None:
    """What is not a good request gets a 4xx or 5xx in OpenAI's shape and the connection ends; the server lives on."""
    async with serve(make_options()) as simulator:
        received = await exchange(simulator.url, data)
        assert read_statuses(await exchange(simulator.url, make_raw_request(make_body()))) == [200]
    assert read_statuses(received) == [status]
    assert json.loads(received.partition(b"\r\n\r\n")[2])["error"]["message"]


async def test_mutated_requests_never_break_the_server(caplog: pytest.LogCaptureFixture) -> None:
    """300 requests with flipped, cut, doubled and moved bytes leave no error in the log, nothing in flight."""
    rng = random.Random(7)
    whole = make_raw_request(make_body("x", temperature=0.5, stop=["a"]), "X-Simulator-Answer: NA", "Expect: x")
    async with serve(make_options()) as simulator:
        for _ in range(300):
            data = bytearray(whole * rng.randint(1, 2))
            for _ in range(rng.randint(1, 5)):
                at = rng.randrange(len(data))
                data[at : at + rng.choice([0, 1, 1, 9])] = rng.choice(
                    [b"", rng.randbytes(1), b"\r\n", b"0", whole[:at]]
                )
            received = await exchange(simulator.url, bytes(data))
            assert not received or received.startswith(b"HTTP/1.1 ")
            assert 500 not in read_statuses(received)
        shown = simulator.ledger.to_json()
    assert shown["in_flight"] == 0
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.parametrize("cut", [1, 40, -1])
async def test_half_sent_request_is_given_up_in_time(cut: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that stops in the middle of a request gets 408 and is let go; one that is idle between them is not."""
    monkeypatch.setattr(connection, "READ_TIMEOUT_S", 0.2)
    async with serve(make_options()) as simulator, await connect(simulator.url) as idle:
        async with await connect(simulator.url) as stream:
            await stream.send(make_raw_request(make_body())[:cut])
            assert read_statuses(await receive_all(stream)) == [408]
        await idle.send(make_raw_request(make_body()))
        assert read_statuses(await idle.receive()) == [200]


async def test_slow_body_is_given_up_by_its_whole_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A body that comes byte by byte is not kept alive by its bytes."""
    monkeypatch.setattr(connection, "READ_TIMEOUT_S", 0.3)
    data = make_raw_request(make_body())
    async with serve(make_options()) as simulator, await connect(simulator.url) as stream:
        received = b""
        with anyio.fail_after(HANG_GUARD_S):
            for i in range(len(data)):
                await stream.send(data[i : i + 1])
                with anyio.move_on_after(0.05):
                    received = await stream.receive()
                if received:
                    break
        assert read_statuses(received) == [408]


async def test_profile_with_an_unknown_quirk_is_not_served() -> None:
    """A quirk that there is not is found when the simulator starts, and those there are are listed."""
    with pytest.raises(UsageError, match="Q01 usage-absent"):
        async with serve(make_options(careful=ProfileOptions(quirks={"Q99": 0.1}))):
            pass


async def test_body_over_the_cap_is_refused_by_its_length() -> None:
    """A body that says it is too large is refused before it is read."""
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999\r\n\r\n"
    async with serve(make_options()) as simulator:
        assert read_statuses(await exchange(simulator.url, head + b"x" * 100_000)) == [413]


async def test_chunked_body_over_the_cap_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A body that does not say its length is refused where it passes the cap, and the refusal can be read."""
    monkeypatch.setattr(connection, "MAX_BODY_BYTES", 100_000)
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunk = b"%x\r\n%b\r\n" % (30_000, b"x" * 30_000)
    async with serve(make_options()) as simulator:
        assert read_statuses(await exchange(simulator.url, head + chunk * 5)) == [413]


async def test_head_over_the_cap_is_refused() -> None:
    """Endless headers are refused where they pass the cap."""
    data = b"GET /v1/models HTTP/1.1\r\nHost: a\r\nX: " + b"x" * (connection.MAX_HEAD_BYTES + 200_000)
    async with serve(make_options()) as simulator:
        assert read_statuses(await exchange(simulator.url, data)) == [431]


async def test_head_request_gets_no_body() -> None:
    """HEAD is refused as other wrong methods are, and its response ends with its headers."""
    data = b"HEAD /v1/models HTTP/1.1\r\nHost: a\r\n\r\n"
    async with serve(make_options()) as simulator:
        received = await exchange(simulator.url, data)
    assert read_statuses(received) == [405]
    assert received.endswith(b"\r\n\r\n")


async def test_large_reply_arrives_whole_before_the_close() -> None:
    """A client that reads late gets all of a reply that is larger than the socket's buffers."""
    answer = encode_header("x" * 100_000)
    data = make_raw_request(make_body(n=64), "Connection: close", f"X-Simulator-Answer: {answer}")
    async with serve(make_options()) as simulator, await connect(simulator.url) as stream:
        await stream.send(data)
        await anyio.sleep(0.1)
        received = await receive_all(stream)
    completion = json.loads(received.partition(b"\r\n\r\n")[2])
    assert sum(len(choice["message"]["content"]) for choice in completion["choices"]) == 6_400_000


async def test_defect_is_answered_with_500_and_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An error of the simulator itself reaches client and log, and the server lives on."""

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    async with serve(make_options()) as simulator:
        with monkeypatch.context() as patch:
            patch.setattr(Chat, "_read", fail)
            assert read_statuses(await exchange(simulator.url, make_raw_request(make_body()))) == [500]
        assert read_statuses(await exchange(simulator.url, make_raw_request(make_body()))) == [200]
    assert "ZeroDivisionError" in caplog.text


async def test_closing_lets_requests_under_way_finish() -> None:
    """A request under way at a normal exit gets its reply, and idle connections are closed at once."""
    results: list[bytes] = []

    async def ask(url: str) -> None:
        results.append(await exchange(url, make_raw_request(make_body())))

    async with anyio.create_task_group() as tasks:
        async with serve(make_options(careful=SLOW)) as simulator:
            idle = await connect(simulator.url)
            tasks.start_soon(ask, simulator.url)
            await wait_for(lambda: simulator.ledger.in_flight == 1)
        assert await receive_all(idle) == b""
        await idle.aclose()
    assert [read_statuses(received) for received in results] == [[200]]
    assert b"connection: close" in results[0]


async def test_closing_without_grace_abandons_requests() -> None:
    """With no grace a request under way is cut and counted as abandoned."""
    async with serve(make_options(careful=ProfileOptions(latency_ms=60_000)), grace_s=0) as simulator:
        stream = await connect(simulator.url)
        await stream.send(make_raw_request(make_body()))
        await wait_for(lambda: simulator.ledger.in_flight == 1)
    assert await receive_all(stream) == b""
    await stream.aclose()
    shown = simulator.ledger.to_json()
    assert (shown["totals"]["abandoned"], shown["totals"]["total_tokens"], shown["in_flight"]) == (1, 0, 0)


async def test_closing_leaves_no_task_and_no_listener() -> None:
    """Nothing of a server outlives its context."""
    before = len(anyio.get_running_tasks())
    async with serve(make_options()) as simulator:
        stream = await connect(simulator.url)
        await stream.send(make_raw_request(make_body()))
        await stream.receive()
    assert len(anyio.get_running_tasks()) == before
    with pytest.raises(OSError, match=r"."):
        await connect(simulator.url)
    await stream.aclose()


async def test_error_of_the_caller_leaves_as_it_came() -> None:
    """An error inside the context is not wrapped in a group, and closes the server at once."""
    with pytest.raises(UsageError, match="mine"):  # noqa: PT012 - the context is what is tested
        async with serve(make_options(careful=ProfileOptions(latency_ms=60_000))) as simulator:
            stream = await connect(simulator.url)
            await stream.send(make_raw_request(make_body()))
            await wait_for(lambda: simulator.ledger.in_flight == 1)
            raise UsageError("mine")
    await stream.aclose()
    assert simulator.ledger.in_flight == 0


async def test_cancelling_the_caller_closes_the_server() -> None:
    """A server is cancelled with the scope around it."""
    with anyio.CancelScope() as scope:
        async with serve(make_options()) as simulator:
            scope.cancel()
            await anyio.sleep_forever()
    with pytest.raises(OSError, match=r"."):
        await connect(simulator.url)


async def test_only_loopback_is_served() -> None:
    """The simulator has no business on a network."""
    for host in ("0.0.0.0", "192.0.2.1", "example.org", "::"):
        with pytest.raises(UsageError, match="loopback"):
            async with serve(make_options(), host=host):
                pass


async def test_port_in_use_is_a_usage_error() -> None:
    """The message names the port and what to do."""
    async with serve(make_options()) as simulator:
        port = httpx.URL(simulator.url).port or 0
        with pytest.raises(UsageError, match=str(port)):
            async with serve(make_options(), port=port):
                pass


async def test_too_many_open_files_is_waited_out() -> None:
    """An accept that fails for want of descriptors is tried again; the server does not end."""

    class StarvedListener:
        """Fails once, then is closed."""

        n_calls = 0

        async def accept(self) -> SocketStream:
            """Raise what the operating system raises."""
            self.n_calls += 1
            if self.n_calls == 1:
                raise OSError(errno.EMFILE, "Too many open files")
            raise anyio.ClosedResourceError

    listener = StarvedListener()
    async with anyio.create_task_group() as tasks:
        with anyio.fail_after(HANG_GUARD_S):
            await server._accept(cast("SocketListener", listener), tasks, server._Connections(_answer_nothing))
    assert listener.n_calls == 2


async def _answer_nothing(request: connection.HttpRequest, respond: connection.Respond) -> None:
    raise AssertionError
