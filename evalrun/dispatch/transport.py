"""The one door to HTTP: a request body goes out, a finished reply comes back, within its deadlines.

A `Target` says where to and with which secrets; `open_transport` turns it into a `Transport`. The seam is
`httpx.AsyncBaseTransport`, called directly: any engine that speaks it fits. Invariant: nothing that leaves this module,
reply or error, holds a loaded secret; no exception of httpx passes this door.
"""

import base64
import os
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

import anyio
import httpx

from evalrun import __version__
from evalrun.dispatch.decoding import BodyCodingError, BodyReader, BodyTooLargeError
from evalrun.dispatch.exchange import Deadlines, Exchange
from evalrun.dispatch.redaction import Redactor
from evalrun.dispatch.wire import make_evidence
from evalrun.errors import (
    ApiError,
    BadRequestError,
    ConfigError,
    ConnectionFaultError,
    DamagedReplyError,
    MalformedReplyError,
    Problem,
    TimedOutError,
)
from evalrun.options import EndpointOptions
from evalrun.records import ErrorCode, SimulatorHint

MAX_ERROR_BODY_BYTES = 1024 * 1024
"""Of a reply that is no 2xx, no more than this is read: it only explains a failure."""
KEEP_ALIVE_S = 15.0
"""Idle connections are dropped after this; many servers close theirs sooner, which is noticed at reuse."""
_ENGINE_ERRORS = (
    httpx.HTTPError,
    httpx.StreamError,
    httpx.InvalidURL,
    OSError,
    anyio.BrokenResourceError,
    anyio.ClosedResourceError,
    anyio.EndOfStream,
)
# The peer hung up in the middle of a handshake: a lost connection, not a wrong certificate.
_LOST_HANDSHAKE = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)

RawHeaders = Sequence[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where an endpoint's requests go, with its secrets read."""

    base_url: str
    options: EndpointOptions
    api_key: str | None = field(repr=False)
    """Sent as `Authorization: Bearer`; None when the endpoint takes none."""
    headers: Mapping[str, str] = field(repr=False)
    """Values of `header_env`, secret; the plain `headers` stay in `options`."""

    @property
    def url(self) -> str:
        """The address that requests are posted to: nothing is inserted between base and path."""
        return self.base_url.rstrip("/") + "/chat/completions"

    @property
    def is_simulator(self) -> bool:
        """True when the endpoint is a simulator, which alone is told the right answer."""
        return self.options.simulator is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One finished HTTP reply, secrets masked."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case; of a name that came twice, the last value."""
    body: bytes
    """Decoded and whole; of a reply that is no 2xx, perhaps only its beginning."""
    latency_s: float
    """From the start of the attempt to the last byte, connecting included."""
    first_byte_s: float
    """From the start of the attempt to the reply's headers."""
    bytes_received: int
    """Body bytes as received, before decoding."""
    is_redacted: bool
    """True when the body held a secret, which is masked now."""


def make_target(options: EndpointOptions, *, environ: Mapping[str, str], base_url: str | None = None) -> Target:
    """Read an endpoint's secrets and return where its requests go.

    Args:
        options: The endpoint.
        environ: Environment variables.
        base_url: Address of an embedded simulator, with its base path; None takes the endpoint's own.

    Raises:
        ConfigError: A variable is missing, empty or no header value; the message names it, never its value.
    """
    variables = ([options.api_key_env] if options.api_key_env is not None else []) + list(options.header_env.values())
    secrets = {name: environ.get(name, "").strip() for name in variables}
    problems = [
        Problem(message=f"environment variable {name} is {_describe_flaw(value)}", hint=f"export {name}=…")
        for name, value in secrets.items()
        if _describe_flaw(value)
    ]
    if problems:
        raise ConfigError(problems)
    running = options.simulator.url if options.simulator is not None else None
    address = base_url or options.base_url or (running.rstrip("/") + "/chat" if running else None)
    if address is None:
        msg = "the endpoint's simulator is not running: its address is not known"
        raise ConfigError(msg)
    return Target(
        base_url=address,
        options=options,
        api_key=secrets[options.api_key_env] if options.api_key_env is not None else None,
        headers={header: secrets[name] for header, name in options.header_env.items()},
    )


def _describe_flaw(value: str) -> str:
    if not value:
        return "missing or empty"
    return "" if value.isascii() and value.isprintable() else "not usable as a header value"


@asynccontextmanager
async def open_transport(
    target: Target, *, engine: httpx.AsyncBaseTransport | None = None
) -> AsyncIterator["Transport"]:
    """Open the connections of one endpoint.

    Args:
        target: Where to, with which secrets and limits.
        engine: Transport to use instead of httpx's own; it is closed at the end.
    """
    async with engine or _ConnectionStack(target) as opened:
        yield Transport(target, opened)


class Transport:
    """Sends bodies to one target.

    Args:
        target: Where to.
        engine: An open transport of httpx's interface.
    """

    def __init__(self, target: Target, engine: httpx.AsyncBaseTransport) -> None:
        secrets = [*target.headers.values(), *([target.api_key] if target.api_key is not None else [])]
        self.target = target
        self._engine = engine
        self._redactor = Redactor(secrets)
        self._url = httpx.URL(target.url)
        self._headers = _make_headers(target, self._url)
        self._deadlines = Deadlines.of(target.options.timeout_s)

    def __repr__(self) -> str:
        return f"Transport({self.target.url!r})"

    async def send(self, body: bytes, headers: RawHeaders = ()) -> Reply:
        """Post one body and return the finished reply, whatever its status.

        A reused connection that turns out dead before a byte of the reply came is replaced once, at once and uncounted:
        the server had closed it while it was idle.

        Args:
            body: The request body.
            headers: More headers, of this request only.

        Raises:
            ApiError: No whole reply came; class, code and `was_sent` say why and whether it may have been billed.
        """
        exchange = Exchange(body, self._deadlines)
        with anyio.CancelScope(deadline=exchange.total_deadline_s) as exchange.scope:
            for may_replace in (True, False):
                try:
                    return await self._exchange(exchange, headers)
                except _ENGINE_ERRORS as error:
                    if not (may_replace and exchange.met_dead_connection):
                        raise self._translate(error, exchange) from None
                exchange.restart()
        code = exchange.name_passed_deadline()
        text = f"no {'whole reply' if exchange.is_answered else 'reply'} from {self._url.host} in time ({code})"
        raise TimedOutError(code, text, http_status=exchange.status, was_sent=exchange.was_sent)

    async def _exchange(self, exchange: Exchange, headers: RawHeaders) -> Reply:
        request = httpx.Request(
            "POST",
            self._url,
            headers=[*self._headers, (b"content-length", b"%d" % len(exchange.body)), *headers],
            stream=_Body(exchange),
            extensions={"timeout": self._deadlines.engine_timeouts, "trace": exchange.trace},
        )
        response = await self._engine.handle_async_request(request)
        try:
            exchange.note_headers(response.status_code)
            reply_headers = self._read_headers(response)
            reader = BodyReader(reply_headers.get("content-encoding", ""))
            failure = await self._read_body(response, exchange, reader)
        finally:
            await response.aclose()
        if failure is not None:
            raise self._make_body_error(failure, response.status_code, reply_headers, reader) from None
        return self._make_reply(response.status_code, reply_headers, reader, exchange)

    async def _read_body(
        self, response: httpx.Response, exchange: Exchange, reader: BodyReader
    ) -> BodyTooLargeError | BodyCodingError | httpx.RemoteProtocolError | None:
        """Read the body to its end and return what is wrong with it; None when nothing is.

        Of a reply that is no 2xx its status matters more than its body: what can be had of the first MiB is enough.
        """
        is_success = response.is_success
        try:
            async for chunk in response.stream:  # type: ignore[union-attr] # always the async kind here
                exchange.note_chunk()
                reader.feed(chunk)
                if not is_success and reader.n_decoded_bytes > MAX_ERROR_BODY_BYTES:
                    return None
            reader.check_end()
        except (BodyTooLargeError, BodyCodingError, httpx.RemoteProtocolError) as failure:
            return failure if is_success else None
        except _ENGINE_ERRORS:
            if is_success:
                raise
        return None

    def _make_body_error(
        self, failure: Exception, status: int, headers: Mapping[str, str], reader: BodyReader
    ) -> ApiError:
        evidence = make_evidence(status, headers, self._redactor.redact_bytes(reader.peek()))
        evidence["bytes_received"] = reader.n_received_bytes
        if isinstance(failure, BodyTooLargeError):
            text = f"the reply's body is larger than {reader.max_bytes // 1024**2} MiB"
            return MalformedReplyError(ErrorCode.BODY_TOO_LARGE, text, **evidence)
        text = f"HTTP {status} with a damaged body: {self._redactor.redact(str(failure))}"
        return DamagedReplyError(ErrorCode.BODY_INVALID, text, **evidence)

    def _make_reply(self, status: int, headers: Mapping[str, str], reader: BodyReader, exchange: Exchange) -> Reply:
        received = reader.peek()
        body = self._redactor.redact_bytes(received)
        return Reply(
            status=status,
            headers=headers,
            body=body,
            latency_s=exchange.elapsed_s(),
            first_byte_s=exchange.first_byte_s,
            bytes_received=reader.n_received_bytes,
            is_redacted=body is not received,
        )

    def _read_headers(self, response: httpx.Response) -> dict[str, str]:
        redact = self._redactor.redact
        return {name.decode("latin-1").lower(): redact(value.decode("latin-1")) for name, value in response.headers.raw}

    def _translate(self, error: Exception, exchange: Exchange) -> ApiError:
        fault = _describe_fault(error, exchange)
        port = f":{self._url.port}" if self._url.port else ""
        text = self._redactor.redact(f"{self._url.host}{port}: {fault.message}")
        return fault.error_class(fault.code, text, http_status=exchange.status, was_sent=exchange.was_sent)


class _ConnectionStack(httpx.AsyncBaseTransport):
    """httpx's own transport, one for each connection, the one used last on top.

    A single pool of httpx goes through all its connections several times for each request, which from a few dozen on
    costs more than the request itself. A stack never looks at more than one, and since there are as many workers as
    connections, nobody ever waits for one.

    Certificates are always verified. A plain address gets a context that trusts nobody, since loading the certificate
    store takes as long as twenty requests. Proxies are read by httpx's client only, which is not used.
    """

    def __init__(self, target: Target) -> None:
        is_encrypted = target.url.lower().startswith("https:")
        self._tls = httpx.create_ssl_context() if is_encrypted else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._idle: list[httpx.AsyncHTTPTransport] = []
        self._all: list[httpx.AsyncHTTPTransport] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        connection = self._idle.pop() if self._idle else self._open()
        try:
            response = await connection.handle_async_request(request)
        except BaseException:
            self._idle.append(connection)
            raise
        assert isinstance(response.stream, httpx.AsyncByteStream)
        response.stream = _LentStream(response.stream, lambda: self._idle.append(connection))
        return response

    async def aclose(self) -> None:
        for connection in self._all:
            await connection.aclose()

    def _open(self) -> httpx.AsyncHTTPTransport:
        limits = httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=KEEP_ALIVE_S)
        connection = httpx.AsyncHTTPTransport(verify=self._tls, limits=limits)
        self._all.append(connection)
        return connection


class _LentStream(httpx.AsyncByteStream):
    """A reply's body that gives its connection back when it is closed."""

    def __init__(self, stream: httpx.AsyncByteStream, give_back: Callable[[], None]) -> None:
        self._stream = stream
        self._give_back = give_back

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._stream.__aiter__()

    async def aclose(self) -> None:
        try:
            await self._stream.aclose()
        finally:
            self._give_back()


class _Body(httpx.AsyncByteStream):
    """The request's body: the engine asks for it once the connection stands, and comes back once it has left."""

    __slots__ = ("_exchange",)

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    async def __aiter__(self) -> AsyncIterator[bytes]:
        self._exchange.note_connected()
        yield self._exchange.body
        self._exchange.note_sent()


def make_hint_headers(hint: SimulatorHint) -> RawHeaders:
    """Return the headers that tell a simulator the right answer; never to be sent to anyone else."""
    values = {b"x-simulator-answer": hint.answer, b"x-simulator-sample": hint.sample_id}
    values[b"x-simulator-repeat"] = str(hint.repeat)
    return [(name, base64.urlsafe_b64encode(value.encode("utf-8", "surrogatepass"))) for name, value in values.items()]


def _make_headers(target: Target, url: httpx.URL) -> RawHeaders:
    """Return the headers of every request to a target; the job's own replace ours, whatever their case."""
    headers = {
        "Host": url.netloc.decode("ascii"),
        "Accept": "application/json",
        "Accept-Encoding": "gzip, deflate",
        "Content-Type": "application/json",
        "User-Agent": f"evalrun/{__version__}",
    }
    if target.api_key is not None:
        headers["Authorization"] = f"Bearer {target.api_key}"
    by_name: dict[str, tuple[bytes, bytes]] = {}
    for name, value in [*headers.items(), *target.options.headers.items(), *target.headers.items()]:
        by_name[name.lower()] = (name.encode(), value.encode())
    return list(by_name.values())


class _Fault(NamedTuple):
    """What an engine's exception stands for."""

    error_class: type[ApiError]
    code: ErrorCode
    message: str


def _describe_fault(error: Exception, exchange: Exchange) -> _Fault:
    """Return what an engine's exception stands for; the real reason often hides down the chain of causes."""
    if isinstance(error, httpx.ConnectTimeout):
        return _Fault(TimedOutError, ErrorCode.TIMEOUT_CONNECT, "no connection in time")
    if isinstance(error, httpx.LocalProtocolError | httpx.InvalidURL | httpx.UnsupportedProtocol):
        return _Fault(BadRequestError, ErrorCode.BAD_REQUEST, f"the request cannot be sent: {error}")
    if exchange.is_connected:
        return _describe_lost_reply(error, is_answered=exchange.is_answered)
    return _describe_failed_connect(error)


def _describe_lost_reply(error: Exception, *, is_answered: bool) -> _Fault:
    if isinstance(error, httpx.RemoteProtocolError) and not str(error).startswith("Server disconnected"):
        return _Fault(DamagedReplyError, ErrorCode.BODY_INVALID, f"the reply is not HTTP: {error}")
    place = "in the middle of its reply" if is_answered else "before it replied"
    return _Fault(ConnectionFaultError, ErrorCode.RESET, f"the server closed the connection {place}")


def _describe_failed_connect(error: Exception) -> _Fault:
    causes = list(_iterate_causes(error))
    for cause in causes:
        if isinstance(cause, ssl.SSLError) and not isinstance(cause, _LOST_HANDSHAKE):
            reason = getattr(cause, "verify_message", None) or cause.reason or str(cause)
            return _Fault(MalformedReplyError, ErrorCode.TLS, f"no secure connection: {reason}")
        if isinstance(cause, socket.gaierror):
            return _Fault(ConnectionFaultError, ErrorCode.DNS, f"the host name cannot be resolved: {cause.strerror}")
    # asyncio words its own errors ("Connect call failed"); the number says what the system said.
    reasons = [os.strerror(cause.errno) for cause in causes if isinstance(cause, OSError) and cause.errno]
    reason = reasons[-1] if reasons else str(error) or type(error).__name__
    return _Fault(ConnectionFaultError, ErrorCode.CONNECT, f"no connection: {reason}")


def _iterate_causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and everything down its chain, groups by their first member."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        if isinstance(current, BaseExceptionGroup):
            current = current.exceptions[0]
        else:
            current = current.__cause__ or current.__context__
