"""The fallback engine under the HTTP seam (`transport: httpx`): httpx's own transport, one for each connection.

Requests and responses of httpx enter and leave. Certificates are always verified; proxies are read by httpx's client
only, which is not used.
"""

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable

import httpx


class HttpxEngine(httpx.AsyncBaseTransport):
    """A stack of single connections, the one used last on top.

    A single pool of httpx goes through all its connections several times for each request, which from a few dozen on
    costs more than the request itself. A stack never looks at more than one, and since there are as many workers as
    connections, nobody ever waits for one.

    Args:
        is_encrypted: Whether requests go to https addresses. A plain address gets a context that trusts nobody, since
            loading the certificate store takes as long as twenty requests.
        keep_alive_s: Idle connections are dropped after so many seconds.
    """

    def __init__(self, *, is_encrypted: bool, keep_alive_s: float) -> None:
        self._tls = httpx.create_ssl_context() if is_encrypted else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._keep_alive_s = keep_alive_s
        self._idle: list[httpx.AsyncHTTPTransport] = []
        self._all: list[httpx.AsyncHTTPTransport] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request; return its response once the headers are there, the body still on the connection."""
        connection = self._idle.pop() if self._idle else self._open()
        try:
            response = await connection.handle_async_request(request)
        except BaseException:
            self._idle.append(connection)
            raise
        assert isinstance(response.stream, httpx.AsyncByteStream)
        response.stream = _LentStream(response.stream, lambda: self._take_back(connection))
        return response

    async def aclose(self) -> None:
        """Close every connection."""
        for connection in self._all:
            await connection.aclose()

    async def _take_back(self, connection: httpx.AsyncHTTPTransport) -> None:
        """Make a connection idle; one on which more came than its reply is closed first, and opens anew."""
        try:
            if _holds_more(connection):
                await connection.aclose()
        finally:
            self._idle.append(connection)

    def _open(self) -> httpx.AsyncHTTPTransport:
        limits = httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=self._keep_alive_s)
        connection = httpx.AsyncHTTPTransport(verify=self._tls, limits=limits)
        self._all.append(connection)
        return connection


class _LentStream(httpx.AsyncByteStream):
    """A reply's body that gives its connection back when it is closed."""

    def __init__(self, stream: httpx.AsyncByteStream, give_back: Callable[[], Awaitable[None]]) -> None:
        self._stream = stream
        self._give_back = give_back

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._stream.__aiter__()

    async def aclose(self) -> None:
        try:
            await self._stream.aclose()
        finally:
            await self._give_back()


def _holds_more(connection: httpx.AsyncHTTPTransport) -> bool:
    """Tell whether bytes beyond its reply are held for a connection; True too where that cannot be seen.

    httpcore would take them for the reply to the next request, which would get somebody else's answer. It looks for
    such bytes in the socket, but not in what h11 has read already, and has no public door to it.
    """
    try:
        held = [one._connection._h11_state.trailing_data[0] for one in connection._pool.connections]  # type: ignore[attr-defined]  # noqa: SLF001
    except AttributeError:
        return True
    return any(held)
