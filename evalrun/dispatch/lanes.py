"""One lane: endpoint × wire model, paced and stopped together. Pure state over `now`: no I/O, no clock of its own.

Failures and answers enter with their time; out comes when the next request may leave, and what becomes of a row that
failed. Invariants: a stopped lane never opens again; before its first answer, and once a failure came, it lets one
request out at a time.
"""

import heapq
import random
from collections.abc import Iterator
from enum import Enum
from typing import Generic, TypeVar

from evalrun.dispatch.retry import make_backoff_bound
from evalrun.errors import ApiError, TerminalError
from evalrun.options import RetryOptions
from evalrun.records import LANE_STOPPING, ErrorCode, LaneProgress, Request

MAX_PROBES = 10
"""Requests sent one at a time, after the first failure, to a lane that has never answered."""
MAX_PROBE_WAIT_S = 5.0
"""Longest pause between two such probes."""
MAX_ALIKE_REFUSALS = 20
"""So many first rows refused alike, and nothing else heard, stop a lane: its job looks wrong."""

_OUTAGE = frozenset(
    {
        ErrorCode.CONNECT,
        ErrorCode.DNS,
        ErrorCode.RESET,
        ErrorCode.TIMEOUT_CONNECT,
        ErrorCode.TIMEOUT_FIRST_BYTE,
        ErrorCode.TIMEOUT_IDLE,
        ErrorCode.TIMEOUT_TOTAL,
        ErrorCode.SERVER_ERROR,
        ErrorCode.OVERLOADED,
    }
)
"""Codes that say nothing about the request: when nothing else is heard, the endpoint is down."""
_SYSTEMATIC = frozenset({ErrorCode.BAD_REQUEST, ErrorCode.CONTEXT_LENGTH, ErrorCode.ERROR_IN_200})

RowT = TypeVar("RowT")


class Fate(Enum):
    """What becomes of a row whose attempt failed."""

    RETRY = "retry"
    """It is asked again after its wait."""
    FAIL = "fail"
    """It ends as an error."""
    FAIL_AND_STOP = "fail_and_stop"
    """It ends as an error, and its lane stops."""
    PARK_AND_STOP = "park_and_stop"
    """It stays pending with the failure's code, and its lane stops."""
    HOLD = "hold"
    """Its attempts are used up, but the lane has never answered: an error if it ever does, pending if not."""


class Lane:
    """When requests of one lane may leave, and what its failures mean.

    Args:
        progress: Counters shared with whoever shows them.
        options: The endpoint's retry limits.
        rng: Source of the jitter of probes.
    """

    def __init__(self, progress: LaneProgress, options: RetryOptions, rng: random.Random) -> None:
        self.progress = progress
        self.is_proven = False
        """True once the lane answered anything but an outage."""
        self._options = options
        self._rng = rng
        self._not_before_s = 0.0
        self._has_failed = False
        self._n_sent = 0
        self._n_probes = 0
        self._refused_alike: str | None = None
        self._n_refused_alike = 0
        self._may_refuse_alike = True

    @property
    def is_stopped(self) -> bool:
        """True once the lane sends nothing more in this call."""
        return self.progress.stopped_by is not None

    @property
    def is_probing(self) -> bool:
        """True while a lane that has never answered is tried with single requests."""
        return self._has_failed and not self.is_proven

    @property
    def n_sent(self) -> int:
        """Attempts that left in this call."""
        return self._n_sent

    def opens_at_s(self) -> float | None:
        """Return the time from which a request may leave; None while only something coming back can open the lane."""
        if self.is_stopped or (self.is_probing and self.progress.in_flight > 0):
            return None
        return self._not_before_s

    def begin(self) -> None:
        """Count a request that leaves."""
        self.progress.in_flight += 1
        self.progress.waiting_until_s = 0.0
        self._n_sent += 1
        self._n_probes += self.is_probing

    def end(self) -> None:
        """Count a request that came back, or was cancelled."""
        self.progress.in_flight -= 1

    def stop(self, code: str, message: str) -> None:
        """Stop the lane; the first reason stands."""
        if not self.is_stopped:
            self.progress.stopped_by = code
            self.progress.stop_message = message
            self.progress.waiting_until_s = 0.0

    def note_answer(self) -> None:
        """Note a completion: the lane works."""
        self.is_proven = True
        self._may_refuse_alike = False

    def note_failure(self, error: ApiError, *, wait_s: float | None, now_s: float) -> Fate:
        """Note a failed attempt and return what becomes of its row.

        Args:
            error: The failure; never a content refusal, which is an answer.
            wait_s: Seconds until the row may be asked again; None when its retries are used up or not allowed.
            now_s: Monotonic time.
        """
        if self._is_pause_too_long(error):
            return Fate.PARK_AND_STOP
        self._shut_gate(error, wait_s, now_s)
        if error.code in _OUTAGE and not self.is_proven:
            return self._note_outage(wait_s, now_s)
        self.is_proven = True
        if wait_s is not None:
            return Fate.RETRY
        if error.code in LANE_STOPPING:
            return Fate.PARK_AND_STOP
        return self._count_refusal(error)

    def _note_outage(self, wait_s: float | None, now_s: float) -> Fate:
        if self.is_probing and self._n_probes >= MAX_PROBES:
            return Fate.PARK_AND_STOP
        self._has_failed = True
        bound_s = make_backoff_bound(
            self._n_probes + 1, base_s=self._options.base_s, max_s=min(self._options.max_s, MAX_PROBE_WAIT_S)
        )
        self._wait_until(now_s + self._rng.uniform(bound_s / 2, bound_s))
        return Fate.HOLD if wait_s is None else Fate.RETRY

    def _shut_gate(self, error: ApiError, wait_s: float | None, now_s: float) -> None:
        """Make the whole lane wait when the server asks for it: who is refused keeps nobody else from being refused."""
        if error.code == ErrorCode.RATE_LIMITED:
            self.progress.rate_limited += 1
            pause_s = wait_s if wait_s is not None else max(self._options.base_s, error.retry_after_s or 0.0)
            self._wait_until(now_s + pause_s)
        elif error.retry_after_s is not None and not isinstance(error, TerminalError):
            self._wait_until(now_s + error.retry_after_s)

    def _is_pause_too_long(self, error: ApiError) -> bool:
        asked_s = error.retry_after_s or 0.0
        return asked_s > self._options.max_pause_s and not isinstance(error, TerminalError)

    def _wait_until(self, until_s: float) -> None:
        self._not_before_s = max(self._not_before_s, until_s)
        self.progress.waiting_until_s = self._not_before_s

    def _count_refusal(self, error: ApiError) -> Fate:
        """Count first rows that are all refused alike; anything else heard ends the count for good."""
        kind = f"{error.code} {error.http_status}"
        is_alike = error.code in _SYSTEMATIC and self._refused_alike in {None, kind}
        self._may_refuse_alike = self._may_refuse_alike and is_alike
        if not self._may_refuse_alike:
            return Fate.FAIL
        self._refused_alike = kind
        self._n_refused_alike += 1
        return Fate.FAIL_AND_STOP if self._n_refused_alike >= MAX_ALIKE_REFUSALS else Fate.FAIL


class LaneQueue(Generic[RowT]):
    """Rows of one lane: those that wait for their next attempt, and those not yet taken from the plan.

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

    def push(self, row: RowT, due_s: float) -> None:
        """Let a row wait until the given time; it holds no slot meanwhile."""
        self._n_pushed += 1  # Ties go by order; rows themselves are never compared.
        heapq.heappush(self._waiting, (due_s, self._n_pushed, row))

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

    def next_due_s(self) -> float | None:
        """Return when a row can be taken: 0 for at once, None when there is none at all."""
        if not self._is_exhausted:
            return 0.0
        return self._waiting[0][0] if self._waiting else None

    def drain(self) -> list[RowT]:
        """Remove and return every row that waits, in the order in which they would have left."""
        rows = [row for _, _, row in sorted(self._waiting, key=lambda entry: entry[:2])]
        self._waiting.clear()
        return rows
