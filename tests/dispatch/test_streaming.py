"""Streamed replies over real sockets: one completion or one named failure, in time, without secrets."""

import gzip
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from evalrun.dispatch.transport import Reply, make_target, open_transport
from evalrun.errors import ApiError, DamagedReplyError, MalformedReplyError, TimedOutError
from evalrun.options import TimeoutOptions
from evalrun.records import ErrorCode
from tests.dispatch.rig import make_options
from tests.fake_endpoint import (
    FakeEndpoint,
    FakeReply,
    encode_stream,
    make_chunks,
    make_completion,
    reply_error,
    reply_stream,
    reply_text,
)

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("each_engine")]

KEY = "sk-canary-0123456789/abc"
BODY = b'{"model": "m", "stream": true, "messages": [{"role": "user", "content": "hi"}]}'
HELLO = json.dumps(make_completion("hello"), separators=(",", ":")).encode()
WHOLE = encode_stream(make_chunks("he", "llo"))
UNFINISHED = make_chunks("par", "tial", finish_reason=None, usage=None)
SSE = {"content-type": "text/event-stream"}


async def send(base_url: str, *, n_choices: int = 1, environ: Mapping[str, str] | None = None, **options: Any) -> Reply:
    """Send one body to an endpoint that is asked for streams."""
    target = make_target(make_options(base_url, **{"stream": True} | options), environ=environ or {})
    async with open_transport(target) as transport:
        return await transport.send(BODY, n_choices=n_choices)


async def fail(base_url: str, **options: Any) -> ApiError:
    """Send one body and return its failure."""
    with pytest.raises(ApiError) as caught:
        await send(base_url, **options)
    return caught.value


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
@pytest.mark.parametrize("piece_bytes", [None, 1, 7])
async def test_stream_arrives_as_one_completion(endpoint: FakeEndpoint, framing: Any, piece_bytes: int | None) -> None:
    """Whatever the framing and the pieces, the reply's body is the completion that the chunks make together."""
    endpoint.default = reply_stream("he", "llo", framing=framing, piece_bytes=piece_bytes)
    reply = await send(endpoint.base_url)
    assert json.loads(reply.body) == make_completion("hello")
    assert (reply.status, reply.flags, reply.bytes_received) == (200, (), len(WHOLE))
    assert reply.first_token_s is not None
    assert 0 < reply.first_byte_s <= reply.first_token_s <= reply.latency_s


async def test_first_token_is_not_the_first_chunk(endpoint: FakeEndpoint) -> None:
    """The role that opens a stream is no token; a stream without a word has none."""
    endpoint.default = FakeReply(body=WHOLE, headers=SSE, piece_bytes=WHOLE.index(b"data", 10), piece_delay_s=0.05)
    reply = await send(endpoint.base_url)
    assert reply.first_token_s is not None
    assert reply.first_token_s - reply.first_byte_s > 0.04
    endpoint.default = FakeReply(body=encode_stream(make_chunks()), headers=SSE)
    assert (await send(endpoint.base_url)).first_token_s is None


async def test_stream_that_was_not_asked_for_is_read(endpoint: FakeEndpoint) -> None:
    """A server that always streams is understood."""
    endpoint.default = reply_stream("he", "llo")
    assert json.loads((await send(endpoint.base_url, stream=False)).body) == make_completion("hello")


@pytest.mark.parametrize("content_type", ["application/json", "text/event-stream", "text/plain"])
async def test_document_instead_of_a_stream_is_read(endpoint: FakeEndpoint, content_type: str) -> None:
    """A server that ignores `stream` answers all the same, whatever it calls its answer."""
    endpoint.default = reply_text("hello", headers={"content-type": content_type})
    reply = await send(endpoint.base_url)
    assert (json.loads(reply.body), reply.first_token_s) == (make_completion("hello"), None)
    assert reply.flags == ("not_streamed",)


async def test_coded_stream_is_decoded(endpoint: FakeEndpoint) -> None:
    """A gzip stream is undone as it comes; once `[DONE]` came, its trailer is not missed."""
    coded = gzip.compress(WHOLE)
    endpoint.default = FakeReply(body=coded, headers=SSE | {"content-encoding": "gzip"}, piece_bytes=5)
    assert json.loads((await send(endpoint.base_url)).body) == make_completion("hello")
    endpoint.default = FakeReply(body=coded[:-8], headers=SSE | {"content-encoding": "gzip"})
    assert (await send(endpoint.base_url)).flags == ()


async def test_connection_of_a_stream_is_used_again(endpoint: FakeEndpoint) -> None:
    """A stream read to its end leaves its connection to the next request."""
    endpoint.default = reply_stream("he", "llo")
    async with open_transport(make_target(make_options(endpoint.base_url, stream=True), environ={})) as transport:
        for _ in range(5):
            await transport.send(BODY)
    assert endpoint.n_connections == 1


CUTS: dict[str, dict[str, Any]] = {
    "clean": {},
    "chunked": {"framing": "chunked", "cut_after_bytes": 10_000},
    "length": {"framing": "length", "declared_bytes": 99_999, "ending": "fin"},
    "close": {"framing": "close"},
    "reset": {
        "framing": "length",
        "declared_bytes": 99_999,
        "ending": "rst",
        "piece_bytes": 50,
        "piece_delay_s": 0.005,
    },
    "stall": {"framing": "length", "declared_bytes": 99_999},
}


@pytest.mark.parametrize("cut", CUTS)
async def test_stream_cut_off_is_never_a_reply(endpoint: FakeEndpoint, cut: str) -> None:
    """Without a finish_reason no end is an end: a named failure, perhaps billed, with what was said kept."""
    endpoint.default = reply_stream(*UNFINISHED, has_done=cut == "clean", **CUTS[cut])
    error = await fail(endpoint.base_url, timeout_s=TimeoutOptions(idle=0.2, total=20))
    is_stall = cut == "stall"
    assert isinstance(error, TimedOutError if is_stall else DamagedReplyError)
    assert error.code == (ErrorCode.TIMEOUT_IDLE if is_stall else ErrorCode.STREAM_INCOMPLETE)
    assert (error.http_status, error.was_sent) == (200, True)
    assert error.body is not None
    assert json.loads(error.body)["choices"][0]["message"]["content"] == "partial"
    assert error.first_token_s is not None


@pytest.mark.parametrize("cut", [name for name in CUTS if name != "clean"])
async def test_finished_stream_survives_any_end(endpoint: FakeEndpoint, cut: str) -> None:
    """Once every choice has ended, a cut, a reset and a stall take nothing away; the missing `[DONE]` is flagged."""
    endpoint.default = reply_stream(*make_chunks("he", "llo"), has_done=False, **CUTS[cut])
    reply = await send(endpoint.base_url, timeout_s=TimeoutOptions(idle=0.2, total=20))
    assert (json.loads(reply.body), reply.flags) == (make_completion("hello"), ("no_done",))


async def test_stall_is_no_part_of_the_latency(endpoint: FakeEndpoint) -> None:
    """A server that forgets to hang up does not make its answer slower."""
    endpoint.default = reply_stream("he", "llo", **CUTS["stall"])
    reply = await send(endpoint.base_url, timeout_s=TimeoutOptions(idle=0.6, total=20))
    assert reply.latency_s < 0.5


async def test_usage_after_done_is_waited_for_briefly(endpoint: FakeEndpoint) -> None:
    """What comes right behind `[DONE]` is read; a server that then only keeps the line open is left."""
    late = b'data: {"choices": [], "usage": {"prompt_tokens": 7}}\n\n'
    chunks = make_chunks("a", usage=None)
    endpoint.default = reply_stream(*chunks, b"data: [DONE]\n\n", late, has_done=False, **CUTS["stall"])
    reply = await send(endpoint.base_url)
    assert json.loads(reply.body)["usage"] == {"prompt_tokens": 7}
    assert endpoint.n_connections == 1


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (WHOLE.replace(b"llo", b"l" + b'data: {"choices": []}'), ErrorCode.BODY_INVALID),
        (b"data: {nonsense}\n\n" + WHOLE, ErrorCode.BODY_INVALID),
        (b"data: [DONE]\n\n", ErrorCode.STREAM_INCOMPLETE),
        (b"", ErrorCode.STREAM_INCOMPLETE),
        (b": keep-alive\n\n" * 20, ErrorCode.STREAM_INCOMPLETE),
        (b"upstream connect error", ErrorCode.STREAM_INCOMPLETE),
        (b"data: " + b"x" * 17 * 1024 * 1024, ErrorCode.BODY_TOO_LARGE),
        (b'data: {"x": "%s"}\n\n' % (b"y" * 9000) * 7500, ErrorCode.BODY_TOO_LARGE),
    ],
    ids=["glued", "no JSON", "only DONE", "empty", "comments", "text", "long line", "endless"],
)
async def test_damaged_stream_is_never_a_reply(endpoint: FakeEndpoint, body: bytes, code: ErrorCode) -> None:
    """Glued frames, no events, endless lines and endless streams each have their name, and how they look is kept."""
    endpoint.default = FakeReply(body=body, headers=SSE)
    error = await fail(endpoint.base_url)
    assert isinstance(error, MalformedReplyError if code is ErrorCode.BODY_TOO_LARGE else DamagedReplyError)
    assert (error.code, error.http_status) == (code, 200)
    if code is not ErrorCode.STREAM_INCOMPLETE:
        assert error.body == body[:4096]


@pytest.mark.parametrize(
    ("chunk", "words"),
    [
        (b'data: {"error": {"message": "it died", "code": 502}}\n\n', "it died"),
        (b'event: error\ndata: {"message": "it died", "type": "t"}\n\n', "it died"),
    ],
)
async def test_error_in_a_stream_is_the_reply(endpoint: FakeEndpoint, chunk: bytes, words: str) -> None:
    """An error event ends the reading: the reply holds it, and what came before is kept as evidence."""
    endpoint.default = reply_stream(*UNFINISHED, chunk, *UNFINISHED * 100)
    reply = await send(endpoint.base_url)
    assert words.encode() in reply.body
    assert reply.evidence is not None
    assert b"partial" not in reply.body
    assert b"tial" in reply.evidence


async def test_status_of_a_refused_stream_is_read(endpoint: FakeEndpoint) -> None:
    """A refusal is a document, and its status counts though its body never ends."""
    endpoint.default = replace(reply_error(429, "slow down"), declared_bytes=9999)
    reply = await send(endpoint.base_url, timeout_s=TimeoutOptions(idle=0.2, total=20))
    assert (reply.status, b"slow down" in reply.body) == (429, True)


@pytest.mark.parametrize(
    ("reply", "timeouts", "code"),
    [
        (reply_stream(delay_s=5), TimeoutOptions(first_byte=0.2, total=20), ErrorCode.TIMEOUT_FIRST_BYTE),
        (FakeReply(headers=SSE, declared_bytes=9), TimeoutOptions(first_byte=0.2), ErrorCode.TIMEOUT_FIRST_BYTE),
        (reply_stream(piece_bytes=99, piece_delay_s=5), TimeoutOptions(idle=0.2, total=20), ErrorCode.TIMEOUT_IDLE),
        (reply_stream(piece_bytes=1, piece_delay_s=0.01), TimeoutOptions(total=0.5), ErrorCode.TIMEOUT_TOTAL),
        (reply_stream(piece_bytes=20, piece_delay_s=0.02), TimeoutOptions(first_byte=1, idle=1, total=20), None),
    ],
    ids=["headers", "first byte", "between", "drip", "in time"],
)
async def test_deadlines_of_a_stream_are_told_apart(
    endpoint: FakeEndpoint, reply: FakeReply, timeouts: TimeoutOptions, code: ErrorCode | None
) -> None:
    """First byte, idle and total each have their name; headers alone are no byte, and a moving stream passes."""
    endpoint.default = reply
    if code is None:
        assert (await send(endpoint.base_url, timeout_s=timeouts)).status == 200
        return
    error = await fail(endpoint.base_url, timeout_s=timeouts)
    assert isinstance(error, TimedOutError)
    assert (error.code, error.was_sent) == (code, True)


async def test_choices_that_a_cut_took_are_missed(endpoint: FakeEndpoint) -> None:
    """A stream cut off after one of two choices is incomplete; one that ends properly only lacks a choice."""
    chunks = make_chunks("a", usage=None)
    endpoint.default = reply_stream(*chunks, has_done=False, **CUTS["chunked"])
    assert (await fail(endpoint.base_url, n_choices=2)).code == ErrorCode.STREAM_INCOMPLETE
    assert (await send(endpoint.base_url)).status == 200
    endpoint.default = reply_stream(*chunks)
    assert len(json.loads((await send(endpoint.base_url, n_choices=2)).body)["choices"]) == 1


PIECES = [KEY[start : start + 3] for start in range(0, len(KEY), 3)]


@pytest.mark.parametrize("end", ["answer", "cut", "error", "damage", "stall"])
async def test_secret_spread_over_deltas_is_masked(endpoint: FakeEndpoint, end: str) -> None:
    """A key that a model says token by token reaches nobody: not in an answer, nor in what is kept of a failure."""
    chunks: list[Any] = make_chunks(*PIECES, usage=None, finish_reason="stop" if end == "answer" else None)
    last: dict[str, list[Any]] = {"error": [{"error": {"message": "died"}}], "damage": [b"data: {\n\n"]}
    chunks += last.get(end, [])
    behaviour = CUTS["stall"] if end == "stall" else {}
    endpoint.default = reply_stream(*chunks, has_done=False, **behaviour)
    options: dict[str, Any] = {"environ": {"API_KEY": KEY}, "api_key_env": "API_KEY"}
    if end in {"answer", "error"}:
        reply = await send(endpoint.base_url, **options)
        seen = reply.body + (reply.evidence or b"")
        assert (end == "answer") is reply.is_redacted
    else:
        seen = (await fail(endpoint.base_url, **options, timeout_s=TimeoutOptions(idle=0.2, total=20))).body or b""
    assert b"***" in seen
    assert PIECES[0].encode() not in seen


@pytest.mark.parametrize("n_before", [90, 110, 470, 490, 1990])
@pytest.mark.parametrize("begin", [b"data: ", b": ", b"id: "], ids=["no JSON", "comment", "id"])
async def test_quoted_words_of_a_server_are_masked_before_they_are_cut(
    endpoint: FakeEndpoint, begin: bytes, n_before: int
) -> None:
    """Where a message quotes only the beginning of what came, the cut never leaves half a key behind."""
    endpoint.default = FakeReply(body=begin + b"x" * n_before + KEY.encode() + b"\n\n", headers=SSE)
    error = await fail(endpoint.base_url, environ={"API_KEY": KEY}, api_key_env="API_KEY")
    assert "xxx" in error.message
    assert len(error.message) < 600
    assert KEY[:8] not in error.message
