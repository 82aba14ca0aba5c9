"""How long an attempt may take, and the one timer that ends those which take longer.

Limits come from the job; a `DeadlineWatch` cancels what is overdue. Moving the deadline of an exchange costs a
comparison: each new piece of a reply may move it, and nearly none is ever reached.
"""

import asyncio
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from evalrun.options import TimeoutOptions

STREAM_FIRST_BYTE_S: Final = 120.0
"""Default limit of a streamed reply until its first byte."""
STREAM_IDLE_S: Final = 60.0
"""Default limit between two reads of a streamed reply."""
_SHORTEST_LOOK_S: Final = 0.001
"""Event loops tick in milliseconds: a timer may fire a little before its time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadlines:
    """Limits of one attempt, in seconds."""

    total_s: float
    first_byte_s: float | None
    idle_s: float | None
    connect_s: float
    """Kept by the engine, for TCP and for TLS: it alone can close a handshake half-way."""
    is_stream: bool = False
    """Whether streamed replies are asked for: then headers alone are no first byte, since servers send them early."""

    @classmethod
    def of(cls, options: TimeoutOptions, *, is_stream: bool = False) -> "Deadlines":
        """Return the limits that an endpoint's options name; streams have limits of their own by default."""
        return cls(
            total_s=options.total,
            first_byte_s=STREAM_FIRST_BYTE_S if is_stream and options.first_byte is None else options.first_byte,
            idle_s=STREAM_IDLE_S if is_stream and options.idle is None else options.idle,
            connect_s=min(options.connect, options.total),
            is_stream=is_stream,
        )

    @property
    def engine_timeouts(self) -> Mapping[str, float | None]:
        """The limits that the engine keeps, as httpx names them."""
        return {"connect": self.connect_s, "read": None, "write": None, "pool": None}


class Timed(Protocol):
    """What a watch may end."""

    @property
    def deadline_s(self) -> float:
        """When it is overdue, monotonic time."""

    def expire(self) -> None:
        """End it; called once, by the event loop."""


class DeadlineWatch:
    """Ends what is overdue among everything under way; belongs to one event loop."""

    def __init__(self) -> None:
        self._live: set[Timed] = set()
        self._looks_at_s = math.inf
        self._timer: asyncio.TimerHandle | None = None

    def add(self, timed: Timed) -> None:
        """Watch something from now on."""
        self._live.add(timed)
        self.note(timed.deadline_s)

    def remove(self, timed: Timed) -> None:
        """Watch something no more."""
        self._live.discard(timed)

    def note(self, deadline_s: float) -> None:
        """Take note of a deadline that was moved: a later one is found at the next look."""
        if deadline_s < self._looks_at_s:
            self._look_at(deadline_s)

    def close(self) -> None:
        """Stop watching."""
        if self._timer is not None:
            self._timer.cancel()
        self._live.clear()

    def _look_at(self, at_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._looks_at_s = at_s
        wait_s = max(at_s - time.monotonic(), _SHORTEST_LOOK_S)
        self._timer = asyncio.get_running_loop().call_later(wait_s, self._look)

    def _look(self) -> None:
        """End what is overdue; look again when the next one may be."""
        self._timer, self._looks_at_s = None, math.inf
        now_s = time.monotonic()
        for timed in [timed for timed in self._live if timed.deadline_s <= now_s]:
            self._live.discard(timed)
            timed.expire()
        if self._live:
            self._look_at(min(timed.deadline_s for timed in self._live))
