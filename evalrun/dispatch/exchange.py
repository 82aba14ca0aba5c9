"""One attempt in progress: what has happened so far, and which deadline is running.

The transport reports each step, so that it is known whether the body had left and whether the connection was a reused
one. One cancel scope serves all deadlines of the attempt: it is moved from step to step, never past the total.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import anyio

from evalrun.dispatch.intake import Intake
from evalrun.options import TimeoutOptions
from evalrun.records import ErrorCode

STREAM_FIRST_BYTE_S = 120.0
"""Default limit of a streamed reply until its first byte."""
STREAM_IDLE_S = 60.0
"""Default limit between two reads of a streamed reply."""
DRAIN_S = 1.0
"""How long a stream is read on after `[DONE]`: for a late usage, and for an end that lets its connection be reused."""
IDLE_RACE_S = 1.0
"""A server that had hung up on an idle connection is heard of this soon after the request left; later, it worked."""
_IDLE_STEP_S = 0.25
"""The idle limit is moved on in steps: telling the event loop of each chunk costs more than reading it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadlines:
    """Limits of one attempt, in seconds."""

    total_s: float
    first_byte_s: float | None
    idle_s: float | None
    engine_timeouts: Mapping[str, float | None]
    """The engine keeps the connect limit, for TCP and for TLS: it alone can close a handshake half-way."""
    is_stream: bool = False
    """Whether streamed replies are asked for: then headers alone are no first byte, since servers send them early."""

    @classmethod
    def of(cls, options: TimeoutOptions, *, is_stream: bool = False) -> "Deadlines":
        """Return the limits that an endpoint's options name; streams have limits of their own by default."""
        connect_s = min(options.connect, options.total)
        return cls(
            total_s=options.total,
            first_byte_s=STREAM_FIRST_BYTE_S if is_stream and options.first_byte is None else options.first_byte,
            idle_s=STREAM_IDLE_S if is_stream and options.idle is None else options.idle,
            is_stream=is_stream,
            engine_timeouts={"connect": connect_s, "read": None, "write": None, "pool": None},
        )


class Exchange:
    """State of one attempt.

    Args:
        body: The request body.
        deadlines: Limits of the attempt.
        n_choices: Choices that the body asks for.
    """

    __slots__ = (
        "_armed_s",
        "_deadlines",
        "_is_fresh",
        "_is_traced",
        "_n_choices",
        "_phase",
        "_sent_s",
        "_started_s",
        "_was_sent_before",
        "body",
        "first_byte_s",
        "first_token_s",
        "intake",
        "is_connected",
        "last_byte_s",
        "scope",
        "total_deadline_s",
        "was_sent",
    )

    scope: anyio.CancelScope

    def __init__(self, body: bytes, deadlines: Deadlines, *, n_choices: int = 1) -> None:
        self.body = body
        self._deadlines = deadlines
        self._n_choices = n_choices
        # Deadlines are told to the event loop in its own time, which may tick in milliseconds; durations are not.
        self._started_s = time.perf_counter()
        self.total_deadline_s = anyio.current_time() + deadlines.total_s
        self.is_connected = self.was_sent = False
        self.first_byte_s = self.last_byte_s = 0.0
        self.first_token_s: float | None = None
        self.intake: Intake | None = None
        """What has come of the reply's body; None before its headers came."""
        self._armed_s = self._sent_s = 0.0
        self._is_fresh = self._is_traced = self._was_sent_before = False
        self._phase = ErrorCode.TIMEOUT_TOTAL

    @property
    def is_answered(self) -> bool:
        """True once the reply's headers are there."""
        return self.intake is not None

    @property
    def status(self) -> int | None:
        """HTTP status; None before the reply's headers are there."""
        return None if self.intake is None else self.intake.status

    @property
    def met_dead_connection(self) -> bool:
        """True when a reused connection ended before a byte of the reply came, too soon for a server at work."""
        is_late = self.was_sent and self.elapsed_s() - self._sent_s > IDLE_RACE_S
        return self._is_traced and not (self._is_fresh or self.is_answered or is_late)

    def note_connected(self) -> None:
        """Note that the connection stands: the engine asks for the body."""
        self.is_connected = True

    def note_unsent(self) -> None:
        """Take back that anything left: the engine had asked for the body before it found that it cannot connect."""
        self.is_connected = False
        self.was_sent = self._was_sent_before

    def restart(self) -> None:
        """Begin again on another connection, under the same total deadline.

        That the body had left before is only guessed not to matter: a failure of the next try remembers it.
        """
        self._was_sent_before = self.was_sent
        self._is_fresh = self._is_traced = self.is_connected = False
        self._watch(None, ErrorCode.TIMEOUT_TOTAL)

    def note_sent(self) -> None:
        """Note that the whole request has left."""
        self.was_sent = True
        self._sent_s = self.elapsed_s()
        self._watch(self._deadlines.first_byte_s, ErrorCode.TIMEOUT_FIRST_BYTE)

    async def trace(self, event: str, _info: Mapping[str, Any]) -> None:
        """Hear of the engine's steps: a connection that was not opened for this request is a reused one."""
        if event == "connection.connect_tcp.started":
            self._is_fresh = True
        elif event.endswith(".send_request_headers.started"):
            self._is_traced = True

    def note_headers(self, status: int, headers: Mapping[str, str]) -> Intake:
        """Note that the reply has begun and return what its body goes into."""
        is_stream = self._deadlines.is_stream
        self.intake = Intake(status, headers, is_stream=is_stream, n_choices=self._n_choices)
        self.first_byte_s = self.last_byte_s = self.elapsed_s()
        if not is_stream:
            self._watch_idle()
        return self.intake

    def note_chunk(self) -> None:
        """Note that a piece of the reply's body came."""
        self.last_byte_s = self.elapsed_s()
        if self._phase is not ErrorCode.TIMEOUT_IDLE or self.last_byte_s - self._armed_s > _IDLE_STEP_S:
            self._watch_idle()

    def note_token(self) -> None:
        """Note that the model has said a word; the first time counts."""
        if self.first_token_s is None:
            self.first_token_s = self.last_byte_s

    def note_done(self) -> None:
        """Note that a stream said it is done: little or nothing follows."""
        self._watch(DRAIN_S, self._phase)

    def elapsed_s(self) -> float:
        """Return the seconds since the attempt began."""
        return time.perf_counter() - self._started_s

    def name_passed_deadline(self) -> ErrorCode:
        """Return which deadline ended the attempt."""
        is_total = anyio.current_time() >= self.total_deadline_s
        return ErrorCode.TIMEOUT_TOTAL if is_total else self._phase

    def _watch_idle(self) -> None:
        idle_s = self._deadlines.idle_s
        self._armed_s = self.last_byte_s
        self._watch(None if idle_s is None else idle_s + _IDLE_STEP_S, ErrorCode.TIMEOUT_IDLE)

    def _watch(self, limit_s: float | None, phase: ErrorCode) -> None:
        """Move the scope's deadline to the one that runs now."""
        self._phase = phase
        deadline_s = self.total_deadline_s
        if limit_s is not None:
            deadline_s = min(deadline_s, anyio.current_time() + limit_s)
        if deadline_s != self.scope.deadline:
            self.scope.deadline = deadline_s
