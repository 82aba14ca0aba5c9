"""The simulator as a server on loopback: opened and closed as a context, no task or socket left behind.

Enters: options. Leaves: a URL that speaks chat completions, and a ledger. On a normal exit idle connections close at
once and requests under way get `grace_s` to finish; on an error everything is cancelled at once.
"""

import errno
import ipaddress
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import anyio
from anyio.abc import SocketAttribute, SocketListener, SocketStream, TaskGroup

from evalrun.errors import UsageError
from evalrun.options import SimulatorOptions
from evalrun.quirk_names import parse_quirk
from evalrun.simulator.answer_book import AnswerBook
from evalrun.simulator.connection import Connection, Handler
from evalrun.simulator.gateway import Gateway
from evalrun.simulator.ledger import Ledger

GRACE_S: Final = 2.0
"""How long requests under way may take to finish when the server closes."""

_PASSING_ACCEPT_ERRORS: Final = frozenset(
    {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ECONNABORTED, errno.EPROTO}
)
_ACCEPT_PAUSE_S: Final = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulator:
    """A simulator that is being served."""

    url: str
    """`http://HOST:PORT`; base URLs are this with `/chat` or `/v1`."""
    ledger: Ledger
    """Lives on after the server."""
    options: SimulatorOptions


@asynccontextmanager
async def serve(
    options: SimulatorOptions,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    ledger: Ledger | None = None,
    api_key: str | None = None,
    answers: AnswerBook | None = None,
    grace_s: float = GRACE_S,
) -> AsyncIterator[Simulator]:
    """Serve the simulator while the context is open.

    Args:
        options: Seed and profiles; `url` is not looked at.
        host: A loopback address, or `localhost`.
        port: 0 = any free one.
        ledger: Where requests are counted; default: a new one.
        api_key: Key that clients must send as a bearer token; None = any or none.
        answers: Right answers for requests that do not tell one in our headers.
        grace_s: How long requests under way may take to finish on a normal exit, in seconds.

    Raises:
        UsageError: The host is not loopback, the port cannot be bound, or a profile names an unknown quirk.
    """
    _check_quirks(options)
    listeners = await _listen(host, port)
    ledger = Ledger() if ledger is None else ledger
    connections = _Connections(Gateway(options, ledger, api_key=api_key, answers=answers).handle)
    simulator = Simulator(url=_make_url(listeners[0]), ledger=ledger, options=options)
    try:
        async with anyio.create_task_group() as tasks:
            for listener in listeners:
                tasks.start_soon(_accept, listener, tasks, connections)
            try:
                yield simulator
                await _close(listeners)
                await connections.drain(grace_s)
            finally:
                tasks.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        # The caller's own error must leave as it came, not as a group that the task group wrapped around it.
        if len(group.exceptions) == 1:
            raise group.exceptions[0] from group.exceptions[0].__cause__
        raise
    finally:
        with anyio.CancelScope(shield=True):
            await _close(listeners)


class _Connections:
    """The open connections of one server."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._open: dict[Connection, anyio.CancelScope] = {}
        self._has_closed_one = anyio.Event()

    async def serve(self, stream: SocketStream) -> None:
        """Serve one connection until it is done."""
        connection = Connection(stream, self._handler)
        with anyio.CancelScope() as scope:
            self._open[connection] = scope
            try:
                async with stream:
                    await connection.run()
            finally:
                del self._open[connection]
                self._has_closed_one.set()

    async def drain(self, grace_s: float) -> None:
        """Close idle connections, then wait for the busy ones, `grace_s` at most."""
        for connection, scope in self._open.items():
            connection.is_closing = True
            if not connection.is_busy:
                scope.cancel()
        with anyio.move_on_after(grace_s):
            while self._open:
                self._has_closed_one = anyio.Event()
                await self._has_closed_one.wait()


async def _accept(listener: SocketListener, tasks: TaskGroup, connections: _Connections) -> None:
    """Accept connections until the listener is closed; too many open files is waited out, not fatal."""
    while True:
        try:
            stream = await listener.accept()
        except anyio.ClosedResourceError:
            return
        except OSError as error:
            if error.errno not in _PASSING_ACCEPT_ERRORS:
                raise
            await anyio.sleep(_ACCEPT_PAUSE_S)
        else:
            tasks.start_soon(connections.serve, stream)


def _check_quirks(options: SimulatorOptions) -> None:
    """Refuse profiles with quirks that there are not."""
    for name, profile in options.profiles.items():
        for quirk in profile.quirks:
            try:
                parse_quirk(quirk)
            except ValueError as error:
                raise UsageError(
                    f"profile {name!r}: {error}", hint="evalrun simulate --list-quirks tells what each does"
                ) from error


async def _listen(host: str, port: int) -> list[SocketListener]:
    if host != "localhost" and not _is_loopback(host):
        raise UsageError(
            f"the simulator serves on loopback only, not on {host!r}", hint="use 127.0.0.1, ::1 or localhost"
        )
    try:
        multi = await anyio.create_tcp_listener(local_host=host, local_port=port)
    except OSError as error:
        hint = "give another port, or 0 for any free one"
        raise UsageError(f"cannot listen on {host}, port {port}: {error.strerror or error}", hint=hint) from error
    return [listener for listener in multi.listeners if isinstance(listener, SocketListener)]


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _make_url(listener: SocketListener) -> str:
    address = listener.extra(SocketAttribute.local_address)  # noqa: S610 - anyio's, no database anywhere
    host = f"[{address[0]}]" if ":" in address[0] else address[0]
    return f"http://{host}:{address[1]}"


async def _close(listeners: list[SocketListener]) -> None:
    for listener in listeners:
        await listener.aclose()
