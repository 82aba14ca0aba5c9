"""The transport over real sockets: one reply or one named failure, in time, without secrets."""

import gzip
import json
import socket
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme

from evalrun.dispatch.transport import Reply, make_hint_headers, make_target, open_transport
from evalrun.errors import (
    ApiError,
    BadRequestError,
    ConfigError,
    ConnectionFaultError,
    DamagedReplyError,
    MalformedReplyError,
    TimedOutError,
)
from evalrun.options import EndpointOptions, ProfileOptions, SimulatorOptions, TimeoutOptions
from evalrun.records import ErrorCode, SimulatorHint
from tests.dispatch.rig import make_options
from tests.fake_endpoint import (
    FakeEndpoint,
    FakeReply,
    close_idle,
    make_completion,
    reply_error,
    reply_text,
)

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("each_engine")]

KEY = "sk-canary-0123456789/abc"
ENVIRON = {"API_KEY": KEY, "EXTRA": "extra-secret-value"}
BODY = b'{"model": "m", "messages": [{"role": "user", "content": "hi"}]}'


async def send(base_url: str, *, environ: Mapping[str, str] | None = None, **options: Any) -> Reply:
    """Send one body on a fresh transport."""
    target = make_target(make_options(base_url, **options), environ=environ or {})
    async with open_transport(target) as transport:
        return await transport.send(BODY)


async def fail(base_url: str, **options: Any) -> ApiError:
    """Send one body and return its failure."""
    with pytest.raises(ApiError) as caught:
        await send(base_url, **options)
    return caught.value


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


async def test_request_goes_to_the_base_url_and_nothing_is_inserted(endpoint: FakeEndpoint) -> None:
    """Address, body and headers arrive as written."""
    reply = await send(endpoint.base_url + "/")
    seen = endpoint.requests[0]
    assert (seen.method, seen.path, seen.body) == ("POST", "/v1/chat/completions", BODY)
    assert seen.headers["accept-encoding"] == "gzip, deflate"
    assert seen.headers["content-type"] == seen.headers["accept"] == "application/json"
    assert seen.headers["host"] == f"127.0.0.1:{endpoint.port}"
    assert "authorization" not in seen.headers
    assert (reply.status, reply.body) == (200, json.dumps(make_completion()).encode())
    assert reply.bytes_received == len(reply.body)
    assert 0 < reply.first_byte_s <= reply.latency_s


async def test_own_headers_replace_ours(endpoint: FakeEndpoint) -> None:
    """A job's headers win, whatever their case; secret ones come from the environment."""
    await send(
        endpoint.base_url,
        environ=ENVIRON,
        api_key_env="API_KEY",
        header_env={"X-Extra": "EXTRA"},
        headers={"USER-AGENT": "mine"},
    )
    headers = endpoint.requests[0].headers
    assert headers["user-agent"] == "mine"
    assert headers["x-extra"] == ENVIRON["EXTRA"]
    assert headers["authorization"] == f"Bearer {KEY}"


async def test_hint_headers_are_base64url(endpoint: FakeEndpoint) -> None:
    """A simulator is told answer, sample and repeat in letters that any header can carry."""
    hint = SimulatorHint(answer="42 ≠ 43", sample_id="s/1", repeat=2)
    target = make_target(make_options(endpoint.base_url), environ={})
    async with open_transport(target) as transport:
        await transport.send(BODY, make_hint_headers(hint))
    headers = endpoint.requests[0].headers
    assert headers["x-simulator-answer"] == "NDIg4omgIDQz"
    assert headers["x-simulator-sample"] == "cy8x"
    assert headers["x-simulator-repeat"] == "Mg=="


async def test_connection_is_kept_and_used_again(endpoint: FakeEndpoint) -> None:
    """Requests one after the other share a connection."""
    async with open_transport(make_target(make_options(endpoint.base_url), environ={})) as transport:
        for _ in range(5):
            await transport.send(BODY)
    assert endpoint.n_connections == 1


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
@pytest.mark.parametrize("piece_bytes", [None, 7])
async def test_body_arrives_whole_in_every_framing(
    endpoint: FakeEndpoint, framing: Any, piece_bytes: int | None
) -> None:
    """Length, chunks and close-delimited bodies are read to the end."""
    endpoint.default = reply_text("hello", framing=framing, piece_bytes=piece_bytes)
    assert (await send(endpoint.base_url)).body == json.dumps(make_completion("hello")).encode()


async def test_coded_body_is_decoded(endpoint: FakeEndpoint) -> None:
    """A gzip body is undone; its received size is the coded one."""
    coded = gzip.compress(b"x" * 1000)
    endpoint.default = FakeReply(body=coded, headers={"content-encoding": "gzip"})
    reply = await send(endpoint.base_url)
    assert (reply.body, reply.bytes_received) == (b"x" * 1000, len(coded))


@pytest.mark.parametrize(
    "reply",
    [
        reply_text("long", declared_bytes=10_000, ending="fin"),
        reply_text("cut", framing="chunked", piece_bytes=9, cut_after_bytes=40),
        FakeReply(body=gzip.compress(b"x" * 5000)[:-9], headers={"content-encoding": "gzip"}, framing="close"),
        FakeReply(body=b"no gzip", headers={"content-encoding": "gzip"}),
        FakeReply(body=b"x", headers={"content-encoding": "br"}),
        FakeReply(raw=b"SSH-2.0-OpenSSH_9.2\r\n\r\n"),
        FakeReply(raw=b"HTTP/1.1 200 OK\r\nx: " + b"y" * 1_000_000 + b"\r\ncontent-length: 0\r\n\r\n"),
        FakeReply(raw=b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nZZ\r\n"),
        FakeReply(raw=b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nno trailer\r\n\r\n"),
    ],
    ids=["length", "chunked", "gzip cut", "no gzip", "brotli", "not HTTP", "huge header", "chunk size", "trailer"],
)
async def test_damaged_transfer_is_never_a_reply(endpoint: FakeEndpoint, reply: FakeReply) -> None:
    """A body that is not what its framing promised is `body_invalid`, and may have been billed."""
    endpoint.default = reply
    error = await fail(endpoint.base_url)
    assert isinstance(error, DamagedReplyError)
    assert (error.code, error.was_sent) == (ErrorCode.BODY_INVALID, True)


@pytest.mark.parametrize(
    "reply",
    [
        FakeReply(raw=b"", ending="fin"),
        FakeReply(raw=b"", ending="rst"),
        reply_text("x" * 500, cut_after_bytes=100, ending="rst", piece_bytes=50, piece_delay_s=0.01),
    ],
    ids=["FIN without a reply", "RST without a reply", "RST in the body"],
)
async def test_lost_connection_is_a_reset(endpoint: FakeEndpoint, reply: FakeReply) -> None:
    """A connection that ends before or within its reply is `reset`; on a fresh one nothing is tried again."""
    endpoint.default = reply
    error = await fail(endpoint.base_url)
    assert isinstance(error, ConnectionFaultError)
    assert (error.code, error.was_sent) == (ErrorCode.RESET, True)
    assert len(endpoint.requests) == 1


async def test_error_reply_cut_off_still_has_its_status(endpoint: FakeEndpoint) -> None:
    """A 429 whose body is lost is a 429."""
    endpoint.default = reply_error(429, "x" * 500, declared_bytes=9999, ending="fin", headers={"retry-after": "1"})
    reply = await send(endpoint.base_url)
    assert (reply.status, reply.headers["retry-after"]) == (429, "1")


async def test_error_reply_is_read_no_further_than_needed(endpoint: FakeEndpoint) -> None:
    """Of a huge error page the beginning is enough."""
    endpoint.default = FakeReply(status=502, body=b"<html>" + b"x" * 5_000_000, piece_bytes=100_000)
    reply = await send(endpoint.base_url)
    assert reply.status == 502
    assert 1_000_000 < len(reply.body) < 3_000_000


@pytest.mark.parametrize("is_bomb", [True, False])
async def test_body_beyond_the_cap_is_given_up(endpoint: FakeEndpoint, is_bomb: bool) -> None:
    """More than 64 MiB decoded is `body_too_large`, not asked for again, with its beginning kept."""
    content = bytes(65 * 1024 * 1024)
    body, headers = (gzip.compress(content, 1), {"content-encoding": "gzip"}) if is_bomb else (content, {})
    endpoint.default = FakeReply(body=body, headers=headers)
    error = await fail(endpoint.base_url)
    assert isinstance(error, MalformedReplyError)
    assert (error.code, error.http_status, error.body) == (ErrorCode.BODY_TOO_LARGE, 200, bytes(4096))


async def test_refused_connection_was_never_sent() -> None:
    """Nobody listening is `connect`, certainly not billed, and says where."""
    port = free_port()
    error = await fail(f"http://127.0.0.1:{port}/v1")
    assert isinstance(error, ConnectionFaultError)
    assert (error.code, error.was_sent) == (ErrorCode.CONNECT, False)
    assert f"127.0.0.1:{port}" in error.message
    assert "refused" in error.message.lower()


async def test_unknown_host_is_a_dns_failure() -> None:
    """A name that cannot be resolved is `dns`; the resolver's own words are told."""
    error = await fail("http://no-such-host.invalid/v1")
    assert (error.code, error.was_sent) == (ErrorCode.DNS, False)
    assert "no-such-host.invalid: the host name cannot be resolved: " in error.message


async def test_total_deadline_ends_a_dripping_body(endpoint: FakeEndpoint) -> None:
    """A body that always moves and never ends is ended by the total deadline."""
    endpoint.default = reply_text("x" * 400, piece_bytes=1, piece_delay_s=0.02)
    error = await fail(endpoint.base_url, timeout_s=TimeoutOptions(total=0.3))
    assert isinstance(error, TimedOutError)
    assert (error.code, error.http_status, error.was_sent) == (ErrorCode.TIMEOUT_TOTAL, 200, True)


@pytest.mark.parametrize(
    ("reply", "timeouts", "code"),
    [
        (reply_text(delay_s=5), TimeoutOptions(total=0.2), ErrorCode.TIMEOUT_TOTAL),
        (reply_text(delay_s=5), TimeoutOptions(first_byte=0.2, total=20), ErrorCode.TIMEOUT_FIRST_BYTE),
        (reply_text(piece_bytes=20, piece_delay_s=5), TimeoutOptions(idle=0.2, total=20), ErrorCode.TIMEOUT_IDLE),
        (reply_text(piece_bytes=20, piece_delay_s=0.01), TimeoutOptions(idle=5, first_byte=5, total=20), None),
    ],
)
async def test_deadlines_are_told_apart(
    endpoint: FakeEndpoint, reply: FakeReply, timeouts: TimeoutOptions, code: ErrorCode | None
) -> None:
    """First byte, idle and total each have their name; a reply that keeps moving passes all of them."""
    endpoint.default = reply
    if code is None:
        assert (await send(endpoint.base_url, timeout_s=timeouts)).status == 200
        return
    error = await fail(endpoint.base_url, timeout_s=timeouts)
    assert isinstance(error, TimedOutError)
    assert (error.code, error.was_sent) == (code, True)


async def test_connect_deadline_was_never_sent() -> None:
    """A handshake that hangs is `timeout_connect`; no body had left."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"https://127.0.0.1:{listener.getsockname()[1]}/v1"
        error = await fail(url, timeout_s=TimeoutOptions(connect=0.2, total=20))
    assert (error.code, error.was_sent) == (ErrorCode.TIMEOUT_CONNECT, False)


OK_BODY = json.dumps(make_completion("odd")).encode()
OK_HEAD = b"content-length: %d\r\n\r\n%s" % (len(OK_BODY), OK_BODY)


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.0 200 OK\r\n\r\n" + OK_BODY,
        b"HTTP/1.0 200 OK\r\n" + OK_HEAD,
        b"HTTP/1.1 200 OK\r\n" + OK_HEAD,
        b"HTTP/1.1 200 OK\r\n" + OK_HEAD + b"trailing garbage",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\n" + OK_HEAD,
        b"HTTP/1.1 200\r\nX-Same: 1\r\nx-same: 2\r\n" + OK_HEAD,
    ],
    ids=["1.0 close", "1.0", "no type", "garbage", "informational", "no reason"],
)
async def test_odd_http_is_read(endpoint: FakeEndpoint, raw: bytes) -> None:
    """Old versions, informational replies and garbage behind the body neither hang nor cost an answer."""
    endpoint.default = FakeReply(raw=raw)
    for is_stream in (False, True):
        assert (await send(endpoint.base_url, stream=is_stream)).body == OK_BODY


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_redirect_is_not_followed(endpoint: FakeEndpoint, status: int) -> None:
    """A redirect is a reply like any other: exactly one request is sent."""
    endpoint.default = FakeReply(status=status, headers={"location": endpoint.base_url + "/elsewhere"})
    reply = await send(endpoint.base_url, environ=ENVIRON, api_key_env="API_KEY")
    assert (reply.status, len(endpoint.requests)) == (status, 1)


async def test_proxy_of_the_environment_is_not_used(endpoint: FakeEndpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """Proxy variables change nothing."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    assert (await send(endpoint.base_url)).status == 200


async def test_idle_connection_closed_by_the_server_is_replaced(endpoint: FakeEndpoint) -> None:
    """A server that hangs up on a reused connection before replying costs nothing but a new connection."""
    endpoint.script(reply_text("one"), FakeReply(raw=b"", ending="rst"), reply_text("three"))
    async with open_transport(make_target(make_options(endpoint.base_url), environ={})) as transport:
        await transport.send(BODY)
        reply = await transport.send(BODY)
    assert b"three" in reply.body
    assert [seen.connection for seen in endpoint.requests] == [0, 0, 1]


async def test_reply_to_a_request_that_left_twice_says_so(endpoint: FakeEndpoint) -> None:
    """A server may bill a request that it then drops: the reply to the one sent in its place has a flag, no other."""
    endpoint.script(reply_text("one"), FakeReply(raw=b"", ending="rst"), reply_text("three"), reply_text("four"))
    async with open_transport(make_target(make_options(endpoint.base_url), environ={})) as transport:
        flags = [(await transport.send(BODY)).flags for _ in range(3)]
    assert flags == [(), ("sent_again",), ()]


async def test_idle_connection_is_replaced_only_once(endpoint: FakeEndpoint) -> None:
    """The replacement is a fresh connection; when it fails too, that is a failure."""
    endpoint.script(reply_text("one"))
    endpoint.default = FakeReply(raw=b"", ending="fin")
    async with open_transport(make_target(make_options(endpoint.base_url), environ={})) as transport:
        await transport.send(BODY)
        with pytest.raises(ConnectionFaultError):
            await transport.send(BODY)
    assert len(endpoint.requests) == 3


async def test_connections_closed_while_idle_cause_no_failure(endpoint: FakeEndpoint) -> None:
    """A server that closes every connection after its reply, unannounced, is served all the same."""
    endpoint.default = close_idle(reply_text())
    async with open_transport(make_target(make_options(endpoint.base_url), environ={})) as transport:
        for _ in range(100):
            assert (await transport.send(BODY)).status == 200
    assert len(endpoint.requests) == 100


@pytest.mark.parametrize("where", ["answer", "error", "header", "escaped"])
async def test_secrets_are_masked_in_replies(endpoint: FakeEndpoint, where: str) -> None:
    """A server that echoes the key does not get it into our hands, whatever form it gives it."""
    echo = f"your key is {KEY}, and {ENVIRON['EXTRA']}"
    endpoint.default = {
        "answer": reply_text(echo),
        "error": reply_error(401, echo),
        "header": reply_text("x", headers={"x-request-id": echo}),
        "escaped": FakeReply(body=json.dumps(make_completion(echo)).replace("/", "\\/").encode()),
    }[where]
    reply = await send(endpoint.base_url, environ=ENVIRON, api_key_env="API_KEY", header_env={"X-Extra": "EXTRA"})
    everything = repr(reply) + reply.body.decode()
    assert KEY not in everything
    assert KEY.replace("/", "\\/") not in everything
    assert ENVIRON["EXTRA"] not in everything
    assert reply.is_redacted is (where != "header")


async def test_secrets_are_masked_in_failures(endpoint: FakeEndpoint) -> None:
    """Nor do they come back in the message or the evidence of a failure, or in its chain of causes."""
    endpoint.default = FakeReply(raw=b"HTTP/1.1 200 OK\r\n" + KEY.encode() + b"\r\n\r\n")
    error = await fail(endpoint.base_url, environ=ENVIRON, api_key_env="API_KEY")
    assert KEY not in repr(error) + error.message + repr(error.body)
    assert error.__cause__ is None


def test_target_hides_its_secrets() -> None:
    """Neither key nor secret headers show in a repr."""
    options = make_options("http://127.0.0.1:1/v1", api_key_env="API_KEY", header_env={"X-Extra": "EXTRA"})
    target = make_target(options, environ=ENVIRON)
    assert KEY not in repr(target)
    assert ENVIRON["EXTRA"] not in repr(target)
    assert target.headers == {"X-Extra": ENVIRON["EXTRA"]}


@pytest.mark.parametrize("value", [None, "", "  ", "a\nb", "ключ"])
def test_unusable_secret_is_named_not_shown(value: str | None) -> None:
    """A missing or unusable variable is a problem of the author's; all are reported, without their values."""
    environ = {} if value is None else {"API_KEY": value, "EXTRA": value}
    options = make_options("http://127.0.0.1:1/v1", api_key_env="API_KEY", header_env={"X-Extra": "EXTRA"})
    with pytest.raises(ConfigError) as caught:
        make_target(options, environ=environ)
    assert len(caught.value.problems) == 2
    assert "API_KEY" in str(caught.value)
    assert "ключ" not in str(caught.value)


def test_secret_is_trimmed() -> None:
    """White space around a key, as files and shells leave it, is not sent."""
    options = make_options("http://127.0.0.1:1/v1", api_key_env="API_KEY")
    assert make_target(options, environ={"API_KEY": f" {KEY}\n"}).api_key == KEY


def test_target_of_a_simulator_needs_its_address() -> None:
    """An embedded simulator's address is given; a running one's is in the job."""
    profiles = {"m": ProfileOptions()}
    embedded = EndpointOptions(simulator=SimulatorOptions(answer="x", profiles=profiles))
    running = EndpointOptions(simulator=SimulatorOptions(answer="x", profiles=profiles, url="http://s/"))
    assert make_target(embedded, environ={}, base_url="http://e/chat").url == "http://e/chat/chat/completions"
    assert make_target(running, environ={}).url == "http://s/chat/chat/completions"
    assert make_target(running, environ={}).is_simulator
    with pytest.raises(ConfigError):
        make_target(embedded, environ={})


async def test_any_engine_of_the_interface_fits() -> None:
    """The seam is httpx's transport interface: another engine takes the same requests and is closed at the end."""
    seen: list[httpx.Request] = []

    async def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json=make_completion("from elsewhere"))

    target = make_target(make_options("http://127.0.0.1:1/v1"), environ={})
    async with open_transport(target, engine=httpx.MockTransport(answer)) as transport:
        reply = await transport.send(BODY)
    assert b"from elsewhere" in reply.body
    assert str(seen[0].url) == "http://127.0.0.1:1/v1/chat/completions"


async def test_request_that_cannot_be_sent_is_refused_here(endpoint: FakeEndpoint) -> None:
    """A header that HTTP cannot carry is a bad request, and nothing reaches the server."""
    error = await fail(endpoint.base_url, headers={"X-Bad": "a\nb"})
    assert isinstance(error, BadRequestError)
    assert (error.was_sent, endpoint.requests) == (False, [])


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """A certificate authority of our own."""
    return trustme.CA()


def make_server_context(authority: trustme.CA, host: str, **options: Any) -> ssl.SSLContext:
    """Return the TLS context of a server with a certificate for the host."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(host, **options).configure_cert(context)
    return context


async def test_tls_works_with_an_authority_that_is_named(
    authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A private authority is trusted when SSL_CERT_FILE names it, and requests share the connection."""
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    with FakeEndpoint(tls=make_server_context(authority, "127.0.0.1")) as server:
        async with open_transport(make_target(make_options(server.base_url), environ={})) as transport:
            assert [(await transport.send(BODY)).status for _ in range(3)] == [200] * 3
        assert server.n_connections == 1


@pytest.mark.parametrize("fault", ["unknown authority", "wrong host", "plain HTTP"])
async def test_tls_that_cannot_be_trusted_is_refused(
    authority: trustme.CA, fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A certificate that does not verify, or no TLS at all, is `tls`: never asked again, and no byte is sent."""
    if fault == "wrong host":
        authority.cert_pem.write_to_path(tmp_path / "ca.pem")
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    host = "elsewhere.test" if fault == "wrong host" else "127.0.0.1"
    tls = None if fault == "plain HTTP" else make_server_context(authority, host)
    with FakeEndpoint(tls=tls) as server:
        error = await fail(f"https://127.0.0.1:{server.port}/v1")
        assert isinstance(error, MalformedReplyError)
        assert (error.code, error.was_sent, server.requests) == (ErrorCode.TLS, False, [])
