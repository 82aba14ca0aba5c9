"""Rows of one lane: those that wait for their next attempt, and those not yet taken from the plan.

Requests enter lazily and rows with the time at which they are due; rows leave in that order. A row that waits here
holds no slot. Nothing that grows with the plan is kept.
"""

import heapq
from collections.abc import Iterator
from typing import Generic, TypeVar

from evalrun.records import Request

RowT = TypeVar("RowT")


class LaneQueue(Generic[RowT]):
    """What one lane has left to send.

    Args:
        requests: The lane's part of the plan, taken one by one.
    """

    def __init__(self, requests: Iterator[Request]) -> None:
        self._requests = requests
        self._waiting: list[tuple[float, int, RowT]] = []
        self._n_pushed = 0
        self._is_exhausted = False

    @property
    def is_empty(self) -> bool:
        """True once the plan is used up and no row waits."""
        return self._is_exhausted and not self._waiting

    @property
    def may_have_new(self) -> bool:
        """True until the plan has shown its end."""
        return not self._is_exhausted

    @property
    def n_waiting(self) -> int:
        """Rows that wait for their next attempt."""
        return len(self._waiting)

    def push(self, row: RowT, due_s: float) -> None:
        """Let a row wait until the given time."""
        self._n_pushed += 1  # Ties go by order; rows themselves are never compared.
        heapq.heappush(self._waiting, (due_s, self._n_pushed, row))

    def peek(self) -> tuple[float, RowT] | None:
        """Return the row that is due first, and when; None when none waits."""
        if not self._waiting:
            return None
        due_s, _, row = self._waiting[0]
        return due_s, row

    def take_due(self, now_s: float) -> RowT | None:
        """Return the row that has waited longest past its time; None when none is due."""
        if self._waiting and self._waiting[0][0] <= now_s:
            return heapq.heappop(self._waiting)[2]
        return None

    def take_new(self) -> Request | None:
        """Return the next request of the plan; None when there is none left."""
        if self._is_exhausted:
            return None
        request = next(self._requests, None)
        self._is_exhausted = request is None
        return request

    def drain(self) -> list[RowT]:
        """Remove and return every row that waits, in the order in which they would have left."""
        rows = [row for _, _, row in sorted(self._waiting, key=lambda entry: entry[:2])]
        self._waiting.clear()
        return rows
