"""HTTP/1.1 on one connection: whole requests in, scripts carried out, in their order.

Enters: a byte stream and a handler. Leaves: responses. h11 reads; this module adds the caps, the deadline, the shape
of protocol errors, `Expect: 100-continue`, and a close that lets the peer read the last response. `delivery` writes,
without h11. Pipelined requests wait their turn. Kept always: nothing a peer sends raises out of `Connection.run`.
"""

import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

import anyio
import h11
from anyio.abc import ByteStream

from evalrun.simulator.codec import encode_json
from evalrun.simulator.delivery import deliver
from evalrun.simulator.refusal import Refusal
from evalrun.simulator.script import Piece, Script

MAX_HEAD_BYTES: Final = 256 * 1024
"""Cap on a request's line and headers; the answer header of a long answer must fit."""

MAX_BODY_BYTES: Final = 32 * 1024 * 1024
"""Cap on a request's body."""

READ_TIMEOUT_S: Final = 30.0
"""How long a request may take from its first byte to its last; a connection between requests may idle for ever."""

_RECEIVE_BYTES: Final = 64 * 1024
_LINGER_S: Final = 2.0
_PEER_GONE: Final = (anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream, ConnectionError)
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """One request, read to its end."""

    method: str
    path: str
    """Without the query."""
    query: str
    headers: Mapping[bytes, bytes]
    """Names in lower case; of several of one name, the last."""
    body: bytes


Respond = Callable[[Script], Awaitable[None]]
"""Carries out a script; raises when the peer was gone before its end, returns when the peer's side took all of it."""

Handler = Callable[[HttpRequest, Respond], Awaitable[None]]
"""Answers one request by one call of `respond`."""


class Connection:
    """One connection from its first request to its close.

    Args:
        stream: The peer.
        handler: Answers requests.
    """

    def __init__(self, stream: ByteStream, handler: Handler) -> None:
        self._stream = stream
        self._handler = handler
        self._method = b""
        self._is_old = False
        self._has_responded = False
        self._is_last = False
        self._read_by = 0.0
        self.is_busy = False
        """True from a request's first byte until its response has left."""
        self.is_closing = False
        """Set from outside: close after the response that is under way."""

    async def run(self) -> None:
        """Serve requests until either side is done. Returns with the stream still open, nothing left to send."""
        unread: bytes | None = b""
        try:
            while unread is not None:
                unread = await self._serve_request(unread)
        except _PEER_GONE:
            return

    async def _serve_request(self, unread: bytes) -> bytes | None:
        """Serve one request; return the bytes read beyond it, or None when no other may follow."""
        self._method, self._is_old, self._has_responded, self._is_last = b"", False, False, True
        # A new parser for each request: h11's own next cycle wants h11 to have written the response.
        parser = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)
        try:
            request = await self._read_request(parser, unread)
        except h11.RemoteProtocolError as error:
            await self._refuse(_describe_protocol_error(error))
            return None
        except TimeoutError:
            await self._refuse(_make_late_refusal())
            return None
        if request is None:
            return None
        if isinstance(request, Refusal):
            await self._refuse(request)
            return None
        # DONE and not MUST_CLOSE (HTTP/1.0, connection: close) nor MIGHT_SWITCH_PROTOCOL (CONNECT, upgrade).
        self._is_last = parser.their_state is not h11.DONE
        await self._handle(request)
        self.is_busy = False
        return None if self._is_last or self.is_closing else parser.trailing_data[0]

    async def _handle(self, request: HttpRequest) -> None:
        try:
            await self._handler(request, self._respond)
        except _PEER_GONE:
            raise
        except Exception:  # noqa: BLE001 - the outer door: a defect reaches client and log, and ends no server
            _log.exception("the simulator failed on %s %s", request.method, request.path)
            self._is_last = True
            if not self._has_responded:
                message = "The simulator failed on this request; its log says why."
                await self._respond(make_error_response(Refusal(message=message, status=500, kind="server_error")))

    async def _read_request(self, parser: h11.Connection, unread: bytes) -> HttpRequest | Refusal | None:
        """Return the next request, why it is refused, or None when the peer is done."""
        await self._feed(parser, unread)
        event = await self._receive_event(parser)
        if not isinstance(event, h11.Request):
            return None
        self._method, self._is_old = event.method, event.http_version == b"1.0"
        headers = dict(event.headers)
        if refusal := _check_head(event, headers):
            return refusal
        body = await self._read_body(parser)
        if body is None:
            return _BODY_TOO_LARGE
        path, _, query = event.target.decode("ascii").partition("?")
        return HttpRequest(event.method.decode("ascii"), path, query, headers, body)

    async def _read_body(self, parser: h11.Connection) -> bytes | None:
        """Return the body; None when it is over the cap."""
        chunks: list[bytes] = []
        n_bytes = 0
        while isinstance(event := await self._receive_event(parser), h11.Data):
            n_bytes += len(event.data)
            if n_bytes > MAX_BODY_BYTES:
                return None
            chunks.append(bytes(event.data))
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    async def _receive_event(self, parser: h11.Connection) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        """Return h11's next event; it is never NEED_DATA, which only the type cannot say."""
        while (event := parser.next_event()) is h11.NEED_DATA:
            if parser.they_are_waiting_for_100_continue:
                informational = h11.InformationalResponse(status_code=100, headers=[], reason="Continue")
                await self._stream.send(parser.send(informational) or b"")
            await self._feed(parser, b"")
        return event

    async def _feed(self, parser: h11.Connection, data: bytes) -> None:
        """Give the parser `data`, or what the peer sends next when that is empty."""
        if not data:
            try:
                data = await self._receive()
            except anyio.EndOfStream:
                data = b""
        if data and not self.is_busy:
            self.is_busy = True
            self._read_by = time.monotonic() + READ_TIMEOUT_S
        parser.receive_data(data)

    async def _receive(self) -> bytes:
        """Return what the peer sends next; within a request, in time."""
        if not self.is_busy:
            return await self._stream.receive(_RECEIVE_BYTES)
        with anyio.fail_after(self._read_by - time.monotonic()):
            return await self._stream.receive(_RECEIVE_BYTES)

    async def _respond(self, script: Script) -> None:
        if self._has_responded:
            msg = "a request is answered once"
            raise RuntimeError(msg)
        self._has_responded = True
        can_go_on = await deliver(
            self._stream,
            script,
            is_head=self._method == b"HEAD",
            is_old=self._is_old,
            is_last=self._is_last or self.is_closing,
        )
        self._is_last = not can_go_on

    async def _refuse(self, refusal: Refusal) -> None:
        """Answer a request that was not read to its end, then let the peer read the answer before the close."""
        await self._respond(make_error_response(refusal))
        # Closing with bytes unread would reset the connection and could take the answer with it.
        self.is_busy = False
        await self._stream.send_eof()
        n_bytes = 0
        with anyio.move_on_after(_LINGER_S), suppress(anyio.EndOfStream):
            while n_bytes <= 2 * MAX_BODY_BYTES:
                n_bytes += len(await self._stream.receive(_RECEIVE_BYTES))


def make_json_response(value: Any, *, status: int = 200, headers: Sequence[tuple[str, str]] = ()) -> Script:
    """Return the script of a whole JSON body."""
    return Script(status=status, headers=[_JSON_TYPE, *headers], pieces=[Piece(data=encode_json(value))])


def make_error_response(refusal: Refusal, *, headers: Sequence[tuple[str, str]] = ()) -> Script:
    """Return the script of a refusal, OpenAI-shaped."""
    return make_json_response(refusal.to_error(), status=refusal.status, headers=headers)


_JSON_TYPE: Final = ("content-type", "application/json")
_BODY_TOO_LARGE: Final = Refusal(
    message=f"The request body is larger than {MAX_BODY_BYTES} bytes.", status=413, code="request_too_large"
)


def _check_head(request: h11.Request, headers: Mapping[bytes, bytes]) -> Refusal | None:
    """Refuse what need not be read to its end to be refused."""
    if not request.http_version.startswith(b"1."):
        return Refusal(message="Only HTTP/1.1 and HTTP/1.0 are spoken here.", status=505)
    length = headers.get(b"content-length")
    if length is not None and int(length) > MAX_BODY_BYTES:
        return _BODY_TOO_LARGE
    encoding = headers.get(b"content-encoding")
    if encoding is not None and encoding.lower() != b"identity":
        return Refusal(message="Content-Encoding is not supported; send the body as it is.", status=415)
    return None


def _make_late_refusal() -> Refusal:
    message = f"The request was not sent to its end within {READ_TIMEOUT_S:g} s."
    return Refusal(message=message, status=HTTPStatus.REQUEST_TIMEOUT, code="request_timeout")


def _describe_protocol_error(error: h11.RemoteProtocolError) -> Refusal:
    status = error.error_status_hint
    if status == HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE:
        return Refusal(message=f"Request line and headers are larger than {MAX_HEAD_BYTES} bytes.", status=status)
    return Refusal(message=f"This is not HTTP/1.1: {error}.", status=status)
