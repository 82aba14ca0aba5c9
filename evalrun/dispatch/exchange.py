"""One attempt in progress: what has happened so far, and which deadline is running.

Engine and transport report each step, so that it is known whether the body had left and whether the connection was a
reused one. An attempt has one deadline at a time: it is moved from step to step, never past the total.
"""

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from evalrun.dispatch.deadlines import Deadlines, DeadlineWatch
from evalrun.dispatch.intake import Intake
from evalrun.records import ErrorCode

DRAIN_S = 1.0
"""How long a stream is read on after `[DONE]`: for a late usage, and for an end that lets its connection be reused."""
IDLE_RACE_S = 1.0
"""A server that had hung up on an idle connection is heard of this soon after the request left; later, it worked."""


class Exchange:
    """State of one attempt.

    Args:
        body: The request body.
        deadlines: Limits of the attempt.
        watch: Ends it once a deadline has passed.
        n_choices: Choices that the body asks for.
    """

    __slots__ = (
        "_deadlines",
        "_is_expired",
        "_is_fresh",
        "_is_traced",
        "_n_choices",
        "_n_outer_cancels",
        "_phase",
        "_sent_s",
        "_started_s",
        "_task",
        "_total_deadline_s",
        "_was_sent_before",
        "_watch",
        "body",
        "deadline_s",
        "first_byte_s",
        "first_token_s",
        "intake",
        "is_connected",
        "last_byte_s",
        "was_sent",
    )

    def __init__(self, body: bytes, deadlines: Deadlines, watch: DeadlineWatch, *, n_choices: int = 1) -> None:
        self.body = body
        self._deadlines = deadlines
        self._watch = watch
        self._n_choices = n_choices
        self._started_s = time.monotonic()
        self._total_deadline_s = self.deadline_s = self._started_s + deadlines.total_s
        self.is_connected = self.was_sent = self._is_expired = False
        self.first_byte_s = self.last_byte_s = 0.0
        self.first_token_s: float | None = None
        self.intake: Intake | None = None
        """What has come of the reply's body; None before its headers came."""
        self._sent_s = 0.0
        self._is_fresh = self._is_traced = self._was_sent_before = False
        self._phase = ErrorCode.TIMEOUT_TOTAL
        self._task: asyncio.Task[Any] | None = None
        self._n_outer_cancels = 0

    # Its end by a deadline

    def begin(self) -> None:
        """Be watched from now on; the task that calls is the one that a passed deadline interrupts."""
        task = asyncio.current_task()
        assert task is not None
        self._task, self._n_outer_cancels = task, task.cancelling()
        self._watch.add(self)

    def end(self) -> None:
        """Be watched no more."""
        self._watch.remove(self)

    def expire(self) -> None:
        """Interrupt the attempt: its deadline has passed.

        One that is being cancelled from outside ends already; who did that would not know a second cancellation as its
        own.
        """
        assert self._task is not None
        if self._task.cancelling() <= self._n_outer_cancels:
            self._is_expired = True
            self._task.cancel()

    def take_back_cancel(self) -> bool:
        """Tell whether the cancellation just caught is the deadline's alone, and take that back from the task."""
        if not self._is_expired:
            return False
        assert self._task is not None
        return self._task.uncancel() <= self._n_outer_cancels

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

    @property
    def is_sent_again(self) -> bool:
        """True when the request had left on a connection that was dead, as it seemed, and left once more on another."""
        return self._was_sent_before

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
        self._move_deadline(None, ErrorCode.TIMEOUT_TOTAL)

    def note_sent(self) -> None:
        """Note that the whole request has left."""
        self.was_sent = True
        self._sent_s = self.elapsed_s()
        self._move_deadline(self._deadlines.first_byte_s, ErrorCode.TIMEOUT_FIRST_BYTE)

    def note_opening(self) -> None:
        """Note that a connection is opened for the request: it is no reused one."""
        self._is_fresh = True

    def note_leaving(self) -> None:
        """Note that there is a connection, and the request begins to leave."""
        self._is_traced = True

    async def trace(self, event: str, _info: Mapping[str, Any]) -> None:
        """Hear of an engine's steps in httpx's words."""
        if event == "connection.connect_tcp.started":
            self.note_opening()
        elif event.endswith(".send_request_headers.started"):
            self.note_leaving()

    def note_headers(self, status: int, headers: Mapping[str, str]) -> Intake:
        """Note that the reply has begun and return what its body goes into."""
        is_stream = self._deadlines.is_stream
        self.intake = Intake(status, headers, is_stream=is_stream, n_choices=self._n_choices)
        self.first_byte_s = self.last_byte_s = self.elapsed_s()
        if not is_stream:
            self._move_deadline(self._deadlines.idle_s, ErrorCode.TIMEOUT_IDLE)
        return self.intake

    def note_chunk(self) -> None:
        """Note that a piece of the reply's body came."""
        self.last_byte_s = self.elapsed_s()
        self._move_deadline(self._deadlines.idle_s, ErrorCode.TIMEOUT_IDLE)

    def note_token(self) -> None:
        """Note that the model has said a word; the first time counts."""
        if self.first_token_s is None:
            self.first_token_s = self.last_byte_s

    def note_done(self) -> None:
        """Note that a stream said it is done: little or nothing follows."""
        self._move_deadline(DRAIN_S, self._phase)

    def elapsed_s(self) -> float:
        """Return the seconds since the attempt began."""
        return time.monotonic() - self._started_s

    def name_passed_deadline(self) -> ErrorCode:
        """Return which deadline ended the attempt."""
        return ErrorCode.TIMEOUT_TOTAL if time.monotonic() >= self._total_deadline_s else self._phase

    def _move_deadline(self, limit_s: float | None, phase: ErrorCode) -> None:
        """Let another deadline run from now on."""
        self._phase = phase
        deadline_s = self._total_deadline_s
        if limit_s is not None:
            deadline_s = min(deadline_s, time.monotonic() + limit_s)
        self.deadline_s = deadline_s
        self._watch.note(deadline_s)
