"""The fast engine: pyreqwest (hyper and rustls), whose failures are told in httpx's words.

Whoever stands above need not know which engine is below. No redirect is followed, no proxy and no cookie used, nothing
is decoded, and certificates are always verified. docs/decisions/0006 says why this engine.
"""

import asyncio
import os
import re
import socket
import ssl
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import anyio
import anyio.lowlevel
import certifi
import httpx
from pyreqwest import exceptions
from pyreqwest.client import Client, ClientBuilder
from pyreqwest.request import RequestBody, StreamRequest
from pyreqwest.response import Response

from evalrun.dispatch.deadlines import Deadlines
from evalrun.dispatch.engine import Opened, RawHeaders
from evalrun.dispatch.exchange import Exchange

_MARGIN_S = 0.5
"""The engine's own limits pass a little after ours: ours name themselves."""
_MAX_LIMIT_S = 7 * 86_400.0
_OS_ERROR = re.compile(r"\(os error (\d+)\)")
_BODY_READING = "error reading a body from connection"
_TLS_WORDS = (
    "certificate",
    "tls",
    "fatal alert",
    "corrupt message",
    "handshake",
    "peer is incompatible",
    "peer misbehaved",
)


class FastEngine:
    """One pool of connections to one target, as many as requests are under way.

    A request that is cancelled while it waits for the reply's headers leaves its connection open until the engine's own
    limit passes (pyreqwest 0.15 does not drop it), so those limits are set for every request. A reply that is closed in
    the middle of its body closes its connection at once.

    Args:
        url: Where requests are posted to.
        headers: Headers of every request.
        deadlines: Limits of an attempt.
        keep_alive_s: Idle connections are dropped after so many seconds.

    Raises:
        ssl.SSLError: No certificate authority can be loaded.
    """

    def __init__(self, *, url: str, headers: RawHeaders, deadlines: Deadlines, keep_alive_s: float) -> None:
        is_encrypted = url.lower().startswith("https:")
        self._client = _build_client(deadlines, keep_alive_s, is_encrypted=is_encrypted)
        self._url = url
        self._headers = _decode_headers(headers)
        self._limit = timedelta(seconds=min(deadlines.total_s + _MARGIN_S, _MAX_LIMIT_S))
        self._keep_alive_s = keep_alive_s
        # When each idle connection came back, the latest last. The engine does not tell whether it reuses one, which
        # decides whether a lost reply may be a server that hung up on an idle connection.
        self._idle_since_s: list[float] = []
        # The request without its body, made once: its headers and address are checked when it is first needed.
        self._plain: StreamRequest | None = None

    async def open(self, exchange: Exchange, headers: RawHeaders) -> Opened:
        """Send the body of an exchange; return the reply once its headers are there."""
        if not self._take_idle():
            exchange.note_opening()
        exchange.note_leaving()
        # The engine takes the body before it has a connection, and does not tell when it has left.
        exchange.note_connected()
        exchange.note_sent()
        try:
            request = StreamRequest.from_request_and_body(
                self._make_request(headers), RequestBody.from_bytes(exchange.body)
            )
            response = await request.__aenter__()
        except (exceptions.PyreqwestError, ValueError) as error:
            failure = _translate(error)
            raise failure from failure.__cause__ or error
        except asyncio.CancelledError:
            await _raise_own_cancellation()
            raise
        return _FastOpened(request, response, self._give_back)

    async def aclose(self) -> None:
        """Close every connection; nothing can be sent afterwards."""
        await self._client.close()
        self._plain = None
        del self._client  # Idle connections are closed once nothing refers to their pool, not by closing it.

    def _make_request(self, headers: RawHeaders) -> StreamRequest:
        """Return a request without a body, ready to be copied.

        Raises:
            ValueError, pyreqwest.exceptions.PyreqwestError: A header or the address is none.
        """
        if headers or self._plain is None:
            made = (
                self._client.post(self._url)
                .headers([*self._headers, *_decode_headers(headers)])
                .timeout(self._limit)
                .streamed_read_buffer_limit(0)
                .build_streamed()
            )
            if headers:
                return made
            self._plain = made
        return self._plain

    def _take_idle(self) -> bool:
        """Tell whether an idle connection should be there, and count it out."""
        if self._idle_since_s and time.monotonic() - self._idle_since_s[-1] < self._keep_alive_s:
            self._idle_since_s.pop()
            return True
        self._idle_since_s.clear()
        return False

    def _give_back(self) -> None:
        self._idle_since_s.append(time.monotonic())


class _FastOpened:
    """A reply whose body is still to be read; letting go of it early closes the connection."""

    __slots__ = ("_give_back", "_is_read", "_keeps_alive", "_reader", "_request", "headers", "status")

    def __init__(self, request: StreamRequest, response: Response, give_back: Callable[[], None]) -> None:
        self.status = response.status
        self.headers = headers = _read_headers(response)
        self._request = request
        self._is_read = False
        self._reader = response.body_reader
        self._keeps_alive = response.version == "HTTP/1.1" and "close" not in headers.get("connection", "").lower()
        self._give_back = give_back

    async def read(self) -> bytes | None:
        """Return the next bytes of the body; None at its end."""
        try:
            chunk = await self._reader.read_chunk()
        except exceptions.PyreqwestError as error:
            raise _translate(error) from error
        except asyncio.CancelledError:
            await _raise_own_cancellation()
            raise
        if chunk is not None:
            return bytes(chunk)
        self._is_read = True
        if self._keeps_alive:
            self._give_back()
        return None

    async def aclose(self) -> None:
        """Let go of the connection; a body read to its end has done so."""
        if not self._is_read:
            await self._request.__aexit__(None, None, None)


async def _raise_own_cancellation() -> None:
    """Raise the cancellation that the engine answered with one of its own, which no cancel scope would know."""
    await anyio.lowlevel.checkpoint_if_cancelled()


def _build_client(deadlines: Deadlines, keep_alive_s: float, *, is_encrypted: bool) -> Client:
    builder = (
        ClientBuilder()
        .http1_only()
        .no_proxy()
        .follow_redirects(False)  # noqa: FBT003 - pyreqwest takes it by position
        .referer(False)  # noqa: FBT003
        .gzip(False)  # noqa: FBT003 - decoding is ours: capped, and checked for its end
        .brotli(False)  # noqa: FBT003
        .zstd(False)  # noqa: FBT003
        .deflate(False)  # noqa: FBT003
        .pool_idle_timeout(timedelta(seconds=keep_alive_s + _MARGIN_S))
    )
    builder = builder.connect_timeout(timedelta(seconds=deadlines.connect_s))
    if deadlines.first_byte_s is not None and deadlines.idle_s is not None:
        # Closes the connections of requests that we gave up before their headers came.
        builder = builder.read_timeout(timedelta(seconds=max(deadlines.first_byte_s, deadlines.idle_s) + _MARGIN_S))
    if not is_encrypted or not _has_system_certificates():
        builder = builder.add_root_certificate_pem(Path(certifi.where()).read_bytes())
    try:
        return builder.build()
    except exceptions.BuilderError as error:
        raise ssl.SSLError(ssl.SSLErrorNumber.SSL_ERROR_SSL, str(error)) from error


def _has_system_certificates() -> bool:
    """Tell whether the machine has certificate authorities, its own or those of SSL_CERT_FILE and SSL_CERT_DIR.

    The engine reads both variables itself; a slim container has neither, and gets the set that httpx would use.
    """
    if os.environ.get("SSL_CERT_FILE") or os.environ.get("SSL_CERT_DIR"):
        return True
    paths = ssl.get_default_verify_paths()
    return paths.cafile is not None or bool(paths.capath and any(Path(paths.capath).iterdir()))


def _decode_headers(headers: RawHeaders) -> list[tuple[str, str]]:
    return [(name.decode("ascii"), value.decode()) for name, value in headers]


def _read_headers(response: Response) -> dict[str, str]:
    headers = response.headers
    try:
        return dict(headers.items())
    except ValueError:
        # A value beyond ASCII cannot be had as text: that one header is lost, the others are not.
        return {name: value for name in headers.keys() for value in _read_header(response, name)}  # noqa: SIM118 - no plain dict


def _read_header(response: Response, name: str) -> list[str]:
    try:
        return response.get_header_all(name)
    except ValueError:
        return []


def _translate(error: Exception) -> httpx.TransportError:
    """Return what httpx would have raised."""
    if not isinstance(error, exceptions.RequestError):
        return httpx.LocalProtocolError(str(error))
    reasons = [cause["message"] for cause in error.details.get("causes") or ()]
    reason = reasons[-1] if reasons else error.message
    is_connecting = "client error (Connect)" in reasons
    if isinstance(error, exceptions.RequestTimeoutError):
        return httpx.ConnectTimeout(reason) if is_connecting else httpx.ReadTimeout(reason)
    if is_connecting:
        return _make_connect_error(reasons)
    if "connection closed before message completed" in reason:
        return httpx.RemoteProtocolError("Server disconnected without sending a response.")
    if isinstance(error, exceptions.DecodeError) or _is_damage(reasons):
        return httpx.RemoteProtocolError(reason)
    return httpx.ReadError(reason)


def _is_damage(reasons: list[str]) -> bool:
    """Tell whether a body's framing was cut short or is no HTTP; neither the system nor TLS complains then."""
    reason = reasons[-1] if reasons else ""
    is_below = _OS_ERROR.search(reason) is not None or "close_notify" in reason
    return _BODY_READING in reasons and not is_below


def _make_connect_error(reasons: list[str]) -> httpx.ConnectError:
    """Return a failed connect with the system's or the TLS library's own exception as its cause."""
    error = httpx.ConnectError(reasons[-1])
    error.__cause__ = _make_cause(reasons)
    return error


def _make_cause(reasons: list[str]) -> Exception:
    reason = reasons[-1]
    if (number := _OS_ERROR.search(reason)) is not None:
        return OSError(int(number[1]), os.strerror(int(number[1])))
    if any("dns error" in step for step in reasons):
        return socket.gaierror(socket.EAI_NONAME, reason)
    if "eof" in reason.lower():
        return ssl.SSLEOFError(ssl.SSLErrorNumber.SSL_ERROR_EOF, reason)
    if any(word in reason.lower() for word in _TLS_WORDS):
        error = ssl.SSLError(ssl.SSLErrorNumber.SSL_ERROR_SSL, reason)
        error.reason = reason
        return error
    return OSError(reason)
