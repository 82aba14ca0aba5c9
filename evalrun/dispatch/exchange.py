"""One attempt in progress: what has happened so far, and which deadline is running.

The transport reports each step, so that it is known whether the body had left and whether the connection was a reused
one. One cancel scope serves all deadlines of the attempt: it is moved from step to step, never past the total.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import anyio

from evalrun.options import TimeoutOptions
from evalrun.records import ErrorCode


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadlines:
    """Limits of one attempt, in seconds."""

    total_s: float
    first_byte_s: float | None
    idle_s: float | None
    engine_timeouts: Mapping[str, float | None]
    """The engine keeps the connect limit, for TCP and for TLS: it alone can close a handshake half-way."""

    @classmethod
    def of(cls, options: TimeoutOptions) -> "Deadlines":
        """Return the limits that an endpoint's options name."""
        connect_s = min(options.connect, options.total)
        return cls(
            total_s=options.total,
            first_byte_s=options.first_byte,
            idle_s=options.idle,
            engine_timeouts={"connect": connect_s, "read": None, "write": None, "pool": None},
        )


class Exchange:
    """State of one attempt.

    Args:
        body: The request body.
        deadlines: Limits of the attempt.
    """

    __slots__ = (
        "_deadlines",
        "_is_fresh",
        "_is_traced",
        "_phase",
        "_started_s",
        "body",
        "first_byte_s",
        "is_connected",
        "scope",
        "status",
        "total_deadline_s",
        "was_sent",
    )

    scope: anyio.CancelScope

    def __init__(self, body: bytes, deadlines: Deadlines) -> None:
        self.body = body
        self._deadlines = deadlines
        # Deadlines are told to the event loop in its own time, which may tick in milliseconds; durations are not.
        self._started_s = time.perf_counter()
        self.total_deadline_s = anyio.current_time() + deadlines.total_s
        self.status: int | None = None
        self.is_connected = self.was_sent = False
        self.first_byte_s = 0.0
        self._is_fresh = self._is_traced = False
        self._phase = ErrorCode.TIMEOUT_TOTAL

    @property
    def is_answered(self) -> bool:
        """True once the reply's headers are there."""
        return self.status is not None

    @property
    def met_dead_connection(self) -> bool:
        """True when a reused connection ended before a byte of the reply came."""
        return self._is_traced and not self._is_fresh and not self.is_answered

    def note_connected(self) -> None:
        """Note that the connection stands: the engine asks for the body."""
        self.is_connected = True

    def restart(self) -> None:
        """Begin again on another connection, under the same total deadline."""
        self._is_fresh = self._is_traced = self.is_connected = self.was_sent = False
        self._watch(None, ErrorCode.TIMEOUT_TOTAL)

    def note_sent(self) -> None:
        """Note that the whole request has left."""
        self.was_sent = True
        self._watch(self._deadlines.first_byte_s, ErrorCode.TIMEOUT_FIRST_BYTE)

    async def trace(self, event: str, _info: Mapping[str, Any]) -> None:
        """Hear of the engine's steps: a connection that was not opened for this request is a reused one."""
        if event == "connection.connect_tcp.started":
            self._is_fresh = True
        elif event.endswith(".send_request_headers.started"):
            self._is_traced = True

    def note_headers(self, status: int) -> None:
        """Note that the reply has begun."""
        self.status = status
        self.first_byte_s = self.elapsed_s()
        self._watch(self._deadlines.idle_s, ErrorCode.TIMEOUT_IDLE)

    def note_chunk(self) -> None:
        """Note that a piece of the reply's body came."""
        if self._deadlines.idle_s is not None:
            self._watch(self._deadlines.idle_s, ErrorCode.TIMEOUT_IDLE)

    def elapsed_s(self) -> float:
        """Return the seconds since the attempt began."""
        return time.perf_counter() - self._started_s

    def name_passed_deadline(self) -> ErrorCode:
        """Return which deadline ended the attempt."""
        is_total = anyio.current_time() >= self.total_deadline_s
        return ErrorCode.TIMEOUT_TOTAL if is_total else self._phase

    def _watch(self, limit_s: float | None, phase: ErrorCode) -> None:
        """Move the scope's deadline to the one that runs now."""
        self._phase = phase
        deadline_s = self.total_deadline_s
        if limit_s is not None:
            deadline_s = min(deadline_s, anyio.current_time() + limit_s)
        if deadline_s != self.scope.deadline:
            self.scope.deadline = deadline_s
