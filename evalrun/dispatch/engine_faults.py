"""What went wrong below: an engine's exceptions, httpx's and the system's, told as a class, a code and words.

An exception and what is known of its exchange enter, a `Fault` leaves. The real reason often hides down the chain of
causes. Pure: no network, no clock.
"""

import os
import socket
import ssl
from collections.abc import Iterator
from typing import NamedTuple

import anyio
import httpx

from evalrun.dispatch.exchange import Exchange
from evalrun.errors import (
    ApiError,
    BadRequestError,
    ConnectionFaultError,
    DamagedReplyError,
    MalformedReplyError,
    TimedOutError,
)
from evalrun.records import ErrorCode

ENGINE_ERRORS = (
    httpx.HTTPError,
    httpx.StreamError,
    httpx.InvalidURL,
    OSError,
    anyio.BrokenResourceError,
    anyio.ClosedResourceError,
    anyio.EndOfStream,
)
NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.LocalProtocolError, httpx.UnsupportedProtocol)
# The peer hung up in the middle of a handshake: a lost connection, not a wrong certificate.
_LOST_HANDSHAKE = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)
_UNKNOWN_AUTHORITY = "its certificate comes from an authority that is not known here"
_AUTHORITY_ITSELF = (
    "its certificate is an authority's own, self-signed perhaps, which this engine takes for no server's: "
    "`transport: httpx` does once SSL_CERT_FILE names it"
)
_NO_TLS = "it does not speak TLS there; perhaps its address begins with http://"
_TLS_MEANINGS = (
    ("UnknownIssuer", _UNKNOWN_AUTHORITY),
    ("local issuer certificate", _UNKNOWN_AUTHORITY),
    ("CaUsedAsEndEntity", _AUTHORITY_ITSELF),
    ("corrupt message", _NO_TLS),
    ("WRONG_VERSION_NUMBER", _NO_TLS),
)
"""How OpenSSL and rustls word what people do most often, and what it means."""


class Fault(NamedTuple):
    """What an engine's exception stands for."""

    error_class: type[ApiError]
    code: ErrorCode
    message: str


def describe_fault(error: Exception, exchange: Exchange) -> Fault:
    """Return what an engine's exception stands for; the real reason often hides down the chain of causes."""
    if isinstance(error, httpx.ConnectTimeout):
        return Fault(TimedOutError, ErrorCode.TIMEOUT_CONNECT, "no connection in time")
    if isinstance(error, httpx.LocalProtocolError | httpx.InvalidURL | httpx.UnsupportedProtocol):
        return Fault(BadRequestError, ErrorCode.BAD_REQUEST, f"the request cannot be sent: {error}")
    if exchange.is_connected:
        return _describe_lost_reply(error, is_answered=exchange.is_answered)
    return _describe_failed_connect(error)


def _describe_lost_reply(error: Exception, *, is_answered: bool) -> Fault:
    if is_garbled(error):
        return Fault(DamagedReplyError, ErrorCode.BODY_INVALID, f"the reply is not HTTP: {error}")
    place = "in the middle of its reply" if is_answered else "before it replied"
    return Fault(ConnectionFaultError, ErrorCode.RESET, f"the server closed the connection {place}")


def is_garbled(error: Exception) -> bool:
    """Tell whether a reply came and was no HTTP; httpx calls a connection that ended without one by the same name."""
    return isinstance(error, httpx.RemoteProtocolError) and not str(error).startswith("Server disconnected")


def _describe_failed_connect(error: Exception) -> Fault:
    causes = list(_iterate_causes(error))
    for cause in causes:
        if isinstance(cause, _LOST_HANDSHAKE):
            text = "no connection: the server hung up in the TLS handshake; perhaps it does not speak TLS 1.2 or newer"
            return Fault(ConnectionFaultError, ErrorCode.CONNECT, text)
        if isinstance(cause, ssl.SSLError):
            reason = getattr(cause, "verify_message", None) or cause.reason or str(cause)
            return Fault(MalformedReplyError, ErrorCode.TLS, f"no secure connection: {_explain_tls(reason)}")
        if isinstance(cause, socket.gaierror):
            return Fault(ConnectionFaultError, ErrorCode.DNS, f"the host name cannot be resolved: {cause.strerror}")
    # asyncio words its own errors ("Connect call failed"); the number says what the system said.
    reasons = [os.strerror(cause.errno) for cause in causes if isinstance(cause, OSError) and cause.errno]
    reason = reasons[-1] if reasons else str(error) or type(error).__name__
    return Fault(ConnectionFaultError, ErrorCode.CONNECT, f"no connection: {reason}")


def _explain_tls(reason: str) -> str:
    """Return a TLS library's reason with what it means in words, where it has none itself."""
    meaning = next((meaning for words, meaning in _TLS_MEANINGS if words in reason), None)
    return reason if meaning is None else f"{meaning} ({reason})"


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
