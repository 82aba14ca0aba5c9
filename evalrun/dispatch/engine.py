"""What the transport asks of an engine, and any engine of httpx's interface behind it.

A body and its headers go out, the beginning of a reply comes back with the rest of it still on the connection. The fast
engine speaks this directly; `HttpxSeam` gives it to every `httpx.AsyncBaseTransport`. Failures of either are exceptions
of httpx.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Protocol

import httpx

from evalrun.dispatch.exchange import Exchange

RawHeaders = Sequence[tuple[bytes, bytes]]


class Opened(Protocol):
    """A reply whose status and headers are there."""

    @property
    def status(self) -> int:
        """HTTP status."""

    @property
    def headers(self) -> Mapping[str, str]:
        """Names in lower case; of a name that came twice, the last value."""

    async def read(self) -> bytes | None:
        """Return the next bytes of the body as received; None at its end.

        Raises:
            httpx.TransportError: The body is cut off, or is not framed as HTTP frames it.
        """

    async def aclose(self) -> None:
        """Let go of the connection: it is closed when its body was not read to the end."""


class Engine(Protocol):
    """An open pool of connections to one target."""

    async def open(self, exchange: Exchange, headers: RawHeaders) -> Opened:
        """Send the body of an exchange; return the reply once its headers are there.

        Args:
            exchange: Told of each step: whether its connection is a fresh one, and when the body has left.
            headers: More headers, of this request only.

        Raises:
            httpx.TransportError: No reply came.
        """

    async def aclose(self) -> None:
        """Close every connection; nothing can be sent afterwards."""


class HttpxSeam:
    """Any engine of httpx's interface, called directly, without its client.

    Args:
        inner: An open transport.
        url: Where requests are posted to.
        headers: Headers of every request.
        timeouts: The limits that the engine keeps itself.
    """

    def __init__(
        self,
        inner: httpx.AsyncBaseTransport,
        *,
        url: httpx.URL,
        headers: RawHeaders,
        timeouts: Mapping[str, float | None],
    ) -> None:
        self._inner = inner
        self._url = url
        self._headers = headers
        self._timeouts = timeouts

    async def open(self, exchange: Exchange, headers: RawHeaders) -> Opened:
        """Send the body of an exchange; return the reply once its headers are there."""
        request = httpx.Request(
            "POST",
            self._url,
            headers=[*self._headers, (b"content-length", b"%d" % len(exchange.body)), *headers],
            stream=_Body(exchange),
            extensions={"timeout": self._timeouts, "trace": exchange.trace},
        )
        return _HttpxOpened(await self._inner.handle_async_request(request))

    async def aclose(self) -> None:
        """Close every connection."""
        await self._inner.aclose()


class _Body(httpx.AsyncByteStream):
    """The request's body: the engine asks for it once the connection stands, and comes back once it has left."""

    __slots__ = ("_exchange",)

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    async def __aiter__(self) -> AsyncIterator[bytes]:
        self._exchange.note_connected()
        yield self._exchange.body
        self._exchange.note_sent()


class _HttpxOpened:
    """A response of httpx whose body is still to be read."""

    __slots__ = ("_chunks", "_response", "headers", "status")

    def __init__(self, response: httpx.Response) -> None:
        self.status = response.status_code
        self.headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers.raw}
        self._response = response
        self._chunks = response.stream.__aiter__()  # type: ignore[union-attr] # always the async kind here

    async def read(self) -> bytes | None:
        """Return the next bytes of the body; None at its end."""
        return await anext(self._chunks, None)

    async def aclose(self) -> None:
        """Let go of the connection."""
        await self._response.aclose()
