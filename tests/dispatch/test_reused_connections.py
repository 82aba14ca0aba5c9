"""Connections that are used again: each request gets its own reply or a failure, and none is sent twice unseen."""

import asyncio
import json
from collections.abc import Mapping

import pytest

from evalrun.dispatch import exchange
from evalrun.dispatch.transport import make_target, open_transport
from evalrun.errors import ApiError
from evalrun.records import ErrorCode
from tests.dispatch.rig import make_options
from tests.fake_endpoint import FakeEndpoint, FakeReply, SeenRequest, make_completion, reply_stream, reply_text

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("each_engine")]

BODY = b'{"model": "m"}'
STRAY_BODY = json.dumps(make_completion("not yours")).encode()
STRAY = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(STRAY_BODY), STRAY_BODY)


def add_stray(reply: FakeReply, stray: bytes) -> FakeReply:
    """Return a reply of a told length with more bytes behind it, on a connection that is kept."""
    return FakeReply(
        status=reply.status, headers=reply.headers, body=reply.body + stray, declared_bytes=len(reply.body)
    )


def answer_by_number(endpoint: FakeEndpoint, stray: bytes, *, is_stream: bool) -> None:
    """Let the server answer each request by its number, and send stray bytes behind each reply."""

    def answer(_: SeenRequest) -> FakeReply:
        text = f"reply {len(endpoint.requests)}"
        return add_stray(reply_stream(text) if is_stream else reply_text(text), stray)

    endpoint.default = answer


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize("stray", [STRAY, STRAY[:30], b"\r\n", b"}"], ids=["reply", "begun reply", "blank", "garbage"])
async def test_bytes_behind_a_reply_are_never_the_next_one(
    endpoint: FakeEndpoint, stray: bytes, is_stream: bool
) -> None:
    """A server that sends more than one reply to a request is not listened to: each request gets its own answer."""
    answer_by_number(endpoint, stray, is_stream=is_stream)
    async with open_transport(make_target(make_options(endpoint.base_url, stream=is_stream), environ={})) as transport:
        for number in range(1, 7):
            reply = await transport.send(BODY)
            assert json.loads(reply.body)["choices"][0]["message"]["content"] == f"reply {number}"
    assert len(endpoint.requests) == 6


async def test_body_of_a_reply_that_has_none_is_never_the_next_one(endpoint: FakeEndpoint) -> None:
    """A 304 has no body, whatever its server believes: what follows it is not listened to."""
    endpoint.script(FakeReply(status=304, body=STRAY, declared_bytes=0))
    endpoint.default = reply_text("mine")
    async with open_transport(make_target(make_options(endpoint.base_url), environ={})) as transport:
        assert (await transport.send(BODY)).status == 304
        assert b'"mine"' in (await transport.send(BODY)).body


@pytest.mark.parametrize(
    ("lost", "limits", "code"),
    [
        (FakeReply(raw=b"SSH-2.0-x\r\n\r\n"), {}, ErrorCode.BODY_INVALID),
        (FakeReply(raw=b"", delay_s=0.2), {"IDLE_RACE_S": 0.05}, ErrorCode.RESET),
    ],
    ids=["garbled", "lost late"],
)
async def test_reply_lost_on_a_reused_connection_is_a_failure(
    endpoint: FakeEndpoint,
    lost: FakeReply,
    limits: Mapping[str, float],
    code: ErrorCode,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Only a server that hung up while the connection was idle is asked again unseen; any other may have worked."""
    for name, limit_s in limits.items():
        monkeypatch.setattr(exchange, name, limit_s)
    endpoint.script(reply_text("one"), lost)
    async with open_transport(make_target(make_options(endpoint.base_url), environ={})) as transport:
        await transport.send(BODY)
        with pytest.raises(ApiError) as caught:
            await transport.send(BODY)
    assert (caught.value.code, caught.value.was_sent) == (code, True)
    assert len(endpoint.requests) == 2


async def test_server_that_went_down_with_a_request_may_have_billed_it() -> None:
    """When the replacement cannot even connect, the request that had left before it is not forgotten."""

    async def answer_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(BODY)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
        await reader.readuntil(BODY)
        server.close()
        writer.close()

    server = await asyncio.start_server(answer_once, "127.0.0.1", 0)
    base_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    async with open_transport(make_target(make_options(base_url), environ={})) as transport:
        await transport.send(BODY)
        with pytest.raises(ApiError) as caught:
            await transport.send(BODY)
        with pytest.raises(ApiError) as next_caught:
            await transport.send(BODY)
    assert (caught.value.code, caught.value.was_sent) == (ErrorCode.CONNECT, True)
    assert (next_caught.value.code, next_caught.value.was_sent) == (ErrorCode.CONNECT, False)


async def test_header_beyond_ascii_leaves_as_it_was_written(endpoint: FakeEndpoint) -> None:
    """A job's header values leave as UTF-8 on either engine."""
    async with open_transport(make_target(make_options(endpoint.base_url, headers={"X-K": "é漢"}), environ={})) as it:
        await it.send(BODY)
    assert endpoint.requests[0].headers["x-k"].encode("latin-1") == "é漢".encode()
