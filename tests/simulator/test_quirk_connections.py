"""Tests of the quirks that change framing and connections, over real sockets."""

import gzip
import json
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import httpx
import pytest
from anyio.abc import SocketStream

from evalrun.options import ProfileOptions
from evalrun.quirk_names import QUIRK_NAMES
from evalrun.simulator.connection import Connection, HttpRequest, Respond
from evalrun.simulator.quirks import framing
from evalrun.simulator.quirks.apply import bend
from evalrun.simulator.script import Script, write_script
from evalrun.simulator.server import serve
from tests.simulator.asking import HANG_GUARD_S, make_body, make_options, make_raw_request
from tests.simulator.bending import (
    ANSWER,
    LABELS,
    SMALL,
    bend_reply,
    join_text,
    make_draft_for,
    pick,
    read_events,
    read_json,
)

pytestmark = pytest.mark.anyio
MODES = pytest.mark.parametrize("is_stream", [False, True])
REQUEST = make_raw_request(make_body())


@asynccontextmanager
async def serve_script(script: Script) -> AsyncIterator[int]:
    """Answer every request by one script, and yield the port."""

    async def answer(_: HttpRequest, respond: Respond) -> None:
        await respond(script)

    async def serve_connection(stream: SocketStream) -> None:
        async with stream:
            await Connection(stream, answer).run()

    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, serve_connection)
        yield listener.extra(anyio.abc.SocketAttribute.local_port)
        tasks.cancel_scope.cancel()


async def ask(script: Script) -> tuple[bytes, bytes, str]:
    """Send one request; return head and body as they came, and how it ended: `open`, `fin` or `rst`."""
    received, ending = b"", "open"
    async with serve_script(script) as port, await anyio.connect_tcp("127.0.0.1", port) as stream:
        await stream.send(REQUEST)
        # A reply that leaves the connection open ends with the last byte that its script names.
        last = b"0\r\n\r\n" if script.framing == "chunked" else script.body[-16:] or b"\r\n\r\n"
        with anyio.fail_after(HANG_GUARD_S):
            try:
                while script.ending != "keep" or script.framing == "close" or not received.endswith(last):
                    received += await stream.receive()
            except anyio.EndOfStream:
                ending = "fin"
            except anyio.BrokenResourceError:
                ending = "rst"
    head, _, body = received.partition(b"\r\n\r\n")
    return head, body, ending


def read_chunked(body: bytes) -> tuple[bytes, bool]:
    """Return what chunks hold, and whether their end came."""
    data = b""
    while body:
        size, _, rest = body.partition(b"\r\n")
        if size == b"0":
            return data, True
        data += rest[: int(size, 16)]
        body = rest[int(size, 16) + 2 :]
    return data, False


@MODES
async def test_reply_is_cut_in_chunks(is_stream: bool) -> None:
    """Q25:chunked: half of the body, no last chunk, then the connection ends."""
    script = bend_reply("Q25:chunked", is_stream=is_stream)
    head, body, ending = await ask(script)
    data, has_end = read_chunked(body)
    assert b"transfer-encoding: chunked" in head
    assert (data, has_end, ending) == (script.body[: script.cut_after_bytes], False, "fin")
    assert b'"finish_reason":"' not in data


@MODES
async def test_reply_is_shorter_than_promised(is_stream: bool) -> None:
    """Q25:length: the head promises the whole body, half of it comes."""
    script = bend_reply("Q25:length", is_stream=is_stream)
    head, body, ending = await ask(script)
    assert f"content-length: {len(script.body)}".encode() in head
    assert (body, ending) == (script.body[: script.cut_after_bytes], "fin")
    assert 0 < len(body) < len(script.body)


@MODES
async def test_reply_is_cut_by_the_close(is_stream: bool) -> None:
    """Q25:close: nothing tells the body's end but the close, which comes half-way and in good order."""
    script = bend_reply("Q25:close", is_stream=is_stream)
    head, body, ending = await ask(script)
    assert b"content-length" not in head
    assert b"transfer-encoding" not in head
    assert (body, ending) == (script.body[: script.cut_after_bytes], "fin")


@MODES
async def test_reply_is_cut_by_a_reset(is_stream: bool) -> None:
    """Q25:rst: the connection is reset half-way."""
    _, body, ending = await ask(bend_reply("Q25:rst", is_stream=is_stream))
    assert ending == "rst"
    assert b'"finish_reason":"' not in body


@pytest.mark.parametrize(("variant", "has_done"), [("clean", False), ("done", True)])
async def test_stream_ends_in_good_order_too_early(variant: str, has_done: bool) -> None:
    """Q25: half of the text and the last chunk, without a finish reason; with `[DONE]` or without."""
    _, body, _ = await ask(bend_reply(f"Q25:{variant}", is_stream=True))
    data, has_end = read_chunked(body)
    events = read_events(data)
    chunks = [json.loads(event) for event in events if event != "[DONE]"]
    assert (has_end, "[DONE]" in events, b'"finish_reason":"' in data) == (True, has_done, False)
    assert ANSWER.startswith(join_text(chunks))
    assert 0 < len(join_text(chunks)) < len(ANSWER)


@MODES
async def test_body_drips(is_stream: bool) -> None:
    """Q47: byte by byte with a wait before each, 0.05 s by default; whole in the end."""
    script = bend_reply("Q47:0.0001", is_stream=is_stream)
    slow = bend_reply("Q47", is_stream=is_stream)
    _, body, _ = await ask(script)
    good = write_script(make_draft_for(is_stream=is_stream)).body
    assert (read_chunked(body)[0] if is_stream else body) == good
    assert {(len(piece.data), piece.wait_s) for piece in script.pieces} == {(1, 0.0001)}
    assert {piece.wait_s for piece in slow.pieces} == {framing.DRIP_S}


@MODES
async def test_reply_stalls(is_stream: bool) -> None:
    """Q48: a wait before the first byte, or one in the middle; whole in the end."""
    good = write_script(make_draft_for(is_stream=is_stream))
    first, between = (bend_reply(f"Q48:{variant}:0.01", is_stream=is_stream) for variant in ("first-byte", "between"))
    for script in (first, between):
        _, body, _ = await ask(script)
        assert (read_chunked(body)[0] if is_stream else body) == good.body
    assert (first.delay_s, sum(piece.wait_s for piece in first.pieces)) == (0.01, 0)
    assert (between.delay_s, sum(piece.wait_s for piece in between.pieces)) == (0, 0.01)
    assert between.pieces[0].wait_s == 0
    assert bend_reply("Q48:first-byte").delay_s == framing.STALL_S


@MODES
async def test_connection_closes_after_the_reply_unannounced(is_stream: bool) -> None:
    """Q49:after-reply: a whole reply that promises to keep the connection, and a close."""
    head, body, ending = await ask(bend_reply("Q49:after-reply", is_stream=is_stream))
    good = write_script(make_draft_for(is_stream=is_stream)).body
    assert b"connection: close" not in head
    assert (read_chunked(body) if is_stream else (body, True), ending) == ((good, True), "fin")


@pytest.mark.parametrize(("quirk", "ending"), [("Q49:no-reply", "fin"), ("Q49:reset", "rst"), ("Q56:refused", "rst")])
async def test_connection_ends_without_a_byte(quirk: str, ending: str) -> None:
    """Q49, Q56: the request is read, and nothing comes back."""
    assert await ask(bend_reply(quirk)) == (b"", b"", ending)


async def test_tls_alert_comes_instead_of_http() -> None:
    """Q56:tls: a fatal handshake failure, in bytes that are no HTTP; nothing is billed."""
    assert await ask(bend_reply("Q56:tls")) == (b"\x15\x03\x03\x00\x02\x02\x28", b"", "fin")


@MODES
async def test_body_is_gzip(is_stream: bool) -> None:
    """Q50:whole: gzip that a client unpacks to the good body, each event readable as it comes."""
    script = bend_reply("Q50:whole", is_stream=is_stream)
    good = write_script(make_draft_for(is_stream=is_stream))
    assert dict(script.headers)["content-encoding"] == "gzip"
    assert gzip.decompress(script.body) == good.body
    unpacker = zlib.decompressobj(wbits=31)
    unpacked = [unpacker.decompress(piece.data) for piece in script.pieces]
    assert unpacked == [*(piece.data for piece in good.pieces), b""]


@pytest.mark.parametrize("variant", ["no-trailer", "half"])
@MODES
async def test_gzip_is_cut(variant: str, is_stream: bool) -> None:
    """Q50: gzip without its trailer, whose text is whole, or half of it; HTTP itself finds nothing amiss."""
    script = bend_reply(f"Q50:{variant}", is_stream=is_stream)
    good = write_script(make_draft_for(is_stream=is_stream)).body
    _, body, ending = await ask(script)
    unpacker = zlib.decompressobj(wbits=31)
    text = unpacker.decompress(read_chunked(body)[0] if is_stream else body)
    assert (unpacker.eof, ending) == (False, "open")
    assert good.startswith(text)
    assert (text == good) is (variant == "no-trailer")


@MODES
def test_gzip_bomb_unpacks_to_what_it_says(is_stream: bool) -> None:
    """Q50:bomb: 100 MB of spaces by default, then the body, in less than a thousandth of the bytes; a true gzip."""
    script = bend_reply("Q50:bomb:3", is_stream=is_stream)
    good = write_script(make_draft_for(is_stream=is_stream)).body
    assert gzip.decompress(script.body) == b" " * 3_000_000 + good
    assert len(bend_reply("Q50:bomb", is_stream=is_stream).body) < 120_000


@MODES
async def test_garbage_follows_the_end(is_stream: bool) -> None:
    """Q60: bytes after `[DONE]` or after the JSON, in chunks; or after the end of the response."""
    good = write_script(make_draft_for(is_stream=is_stream)).body
    head, body, _ = await ask(bend_reply("Q60:after-done", is_stream=is_stream))
    data, has_end = read_chunked(body)
    assert b"transfer-encoding: chunked" in head
    assert (data.startswith(good), len(data) > len(good), has_end) == (True, True, True)
    head, body, ending = await ask(bend_reply("Q60:after-end", is_stream=is_stream))
    assert f"content-length: {len(good)}".encode() in head
    assert (body.startswith(good), len(body) > len(good), ending) == (True, True, "fin")


async def test_two_lengths_are_told() -> None:
    """Q60:both-lengths: chunks, and a Content-Length that says otherwise."""
    script = bend_reply("Q60:both-lengths")
    head, body, _ = await ask(script)
    assert b"transfer-encoding: chunked" in head
    assert f"content-length: {len(script.body) + 1}".encode() in head
    assert read_chunked(body) == (script.body, True)


@pytest.mark.parametrize(
    ("label", "line"),
    [
        ("Q14:524", b"HTTP/1.1 524 "),
        ("Q37:seconds", b"HTTP/1.1 429 Too Many Requests"),
        ("Q40:498", b"HTTP/1.1 498 "),
        ("Q40:529", b"HTTP/1.1 529 "),
        ("Q51:308", b"HTTP/1.1 308 Permanent Redirect"),
    ],
)
async def test_any_status_reaches_the_client(label: str, line: bytes) -> None:
    """Statuses that only some vendors know are written like all others."""
    head, _, _ = await ask(bend_reply(label))
    assert head.startswith(line)
    assert f"x-simulator-quirk: {label}".encode() in head


HARMLESS = ["Q17", "Q49:after-reply", "Q50:whole", "Q52", "Q55:line:100000", "Q46:unknown", "Q48:between:0"]


@pytest.mark.parametrize("quirk", HARMLESS)
async def test_ordinary_client_survives_the_harmless(quirk: str) -> None:
    """Httpx reads the good text through quirks that break no rule of HTTP and JSON, twice in a row."""
    async with (
        serve_script(bend_reply(quirk)) as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=HANG_GUARD_S, trust_env=False) as client,
    ):
        for _ in range(2):
            answered = await client.post("/v1/chat/completions", json=make_body())
            assert answered.json()["choices"][0]["message"]["content"] == ANSWER


@pytest.mark.parametrize(
    "quirk", ["Q25:chunked", "Q25:length", "Q25:rst", "Q49:no-reply", "Q49:reset", "Q56:refused", "Q56:tls"]
)
@MODES
async def test_ordinary_client_sees_a_broken_connection(quirk: str, is_stream: bool) -> None:
    """Httpx raises a transport error where a response has no end, or is none."""
    async with (
        serve_script(bend_reply(quirk, is_stream=is_stream)) as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=HANG_GUARD_S, trust_env=False) as client,
    ):
        with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
            await client.post("/v1/chat/completions", json=make_body())


@MODES
async def test_every_quirk_comes_to_an_end_on_the_wire(is_stream: bool) -> None:
    """Each quirk in each variant is carried out over a socket, and none leaves the client waiting."""
    short = {**SMALL, "Q47": "Q47:0", "Q48:first-byte": "Q48:first-byte:0", "Q48:between": "Q48:between:0"}
    for label, _ in LABELS:
        script = bend_reply(short.get(label, label), is_stream=is_stream)
        head, body, _ = await ask(script)
        if script.framing != "raw":
            assert head.startswith(f"HTTP/1.1 {script.status} ".encode()), label
            assert b"\r\nx-simulator-quirk: " in head
        if script.framing == "length" and script.cut_after_bytes is None:
            assert body == script.body, label


@MODES
@pytest.mark.parametrize("base", ["/chat", "/v1"])
async def test_gateway_bends_the_reply_that_a_header_asks_for(base: str, is_stream: bool) -> None:
    """Over the whole simulator: a header bends this reply and names it, the next one is good again."""
    async with (
        serve(make_options()) as simulator,
        httpx.AsyncClient(base_url=simulator.url, timeout=HANG_GUARD_S, trust_env=False) as client,
    ):
        path, body = f"{base}/chat/completions", make_body(stream=is_stream)
        asked = {"X-Simulator-Quirk": "bom, Q46:go, Q33"}
        bent, good = [await client.post(path, json=body, headers=headers) for headers in (asked, {})]
        refused = await client.post(path, json=body, headers={"X-Simulator-Quirk": "Q99"})
    assert bent.headers["x-simulator-quirk"] == "Q18, Q46:go"
    assert bent.headers["x-ratelimit-reset-tokens"] == "6m0s"
    assert bent.content == b"\xef\xbb\xbf" + good.content
    assert "x-simulator-quirk" not in good.headers
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "unknown_quirk")


async def test_profile_quirk_passes_with_the_next_attempt() -> None:
    """Over the whole simulator: a quirk that befalls half of the attempts lets every row through in the end."""
    profile = ProfileOptions(accuracy=1, latency_ms=0, quirks={"Q39:503": 0.5})
    rows: list[list[int]] = []
    async with (
        serve(make_options(careful=profile)) as simulator,
        httpx.AsyncClient(base_url=simulator.url, timeout=HANG_GUARD_S, trust_env=False) as client,
    ):
        for row in range(20):
            statuses: list[int] = []
            while statuses[-1:] != [200] and len(statuses) < 50:
                statuses.append((await client.post("/v1/chat/completions", json=make_body(str(row)))).status_code)
            rows.append(statuses)
    assert {statuses[-1] for statuses in rows} == {200}
    assert {len(statuses) for statuses in rows} > {1, 2}


def test_catalogue_tells_the_defaults() -> None:
    """The numbers in the catalogue's sentences are those that hold when a quirk says none."""
    told = {
        "Q47": f"{framing.DRIP_S:g} s apart",
        "Q48": f"for {framing.STALL_S:g} s",
        "Q50": f"{framing.BOMB_MB} MB of spaces",
        "Q55": f"{framing.HUGE_BYTES // 1_000_000} MB long",
    }
    assert [quirk_id for quirk_id, text in told.items() if text not in QUIRK_NAMES[quirk_id].sentence] == []


def test_billed_tokens_stay_or_vanish_with_the_reply() -> None:
    """A reply that was made is billed though it breaks on the way; a connection that never stood is not."""
    assert read_json(bend_reply("Q46"))["usage"]["total_tokens"] == 28
    for quirk, total in (("Q25:rst", 28), ("Q49:no-reply", 28), ("Q15", 28), ("Q56:refused", 0), ("Q43", 0)):
        draft = make_draft_for()
        bend(draft, pick(quirk))
        assert (quirk, draft.prompt_tokens + draft.completion_tokens) == (quirk, total)
