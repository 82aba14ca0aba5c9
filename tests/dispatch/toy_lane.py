"""One lane against a server made of numbers, on a clock made of numbers: circuit, retry budget and the rows' tallies.

It does with `Outage` and `RetryBudget` what the dispatcher is to do with them, in the same order.
"""

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from evalrun.dispatch.outage import Outage
from evalrun.dispatch.retry import make_backoff_bound
from evalrun.dispatch.retry_budget import RetryBudget

MAX_ATTEMPTS = 6
HANG_GUARD_S = 1e6

Serve = Callable[[float, int, random.Random], tuple[float, bool]]
"""(now, row, rng) -> how long the request takes, and whether it is answered."""


@dataclass(slots=True, kw_only=True)
class ToyRow:
    """A row and its attempts that count."""

    index: int
    n_attempts: int = 0
    n_tries: int = 0
    in_question: list[tuple[float, float]] = field(default_factory=list)
    """Failures that count so far: when sent, when failed."""

    def weigh(self, outage: Outage) -> None:
        """Give back the attempts that turned out to be the lane's failures."""
        kept = [failure for failure in self.in_question if not outage.has_caused(*failure)]
        self.n_tries -= len(self.in_question) - len(kept)
        self.in_question = kept


@dataclass(slots=True, kw_only=True)
class ToyResult:
    """What became of it all."""

    sent_at_s: list[float] = field(default_factory=list)
    n_answered: int = 0
    n_failed: int = 0
    n_left: int = 0
    """Rows without an outcome when the lane was given up."""
    n_most_waiting: int = 0
    ended_s: float = 0.0
    spans: list[tuple[float, float | None]] = field(default_factory=list)
    is_over: bool = False

    def count_sent(self, from_s: float, to_s: float = float("inf")) -> int:
        """Return how many requests left in a span of time."""
        return sum(from_s <= sent_s < to_s for sent_s in self.sent_at_s)


class ToyLane:
    """Sends rows 0..n-1, at most so many at a time, until all have ended or the lane is given up."""

    def __init__(
        self, serve: Serve, *, n_rows: int, concurrency: int = 64, seed: int = 1, is_proven: bool = True
    ) -> None:
        self._serve = serve
        self._rng = random.Random(seed)
        self._concurrency = concurrency
        self._new = iter(range(n_rows))
        self._next_new: int | None = next(self._new, None)
        self._waiting: list[tuple[float, int, ToyRow]] = []
        self._out: list[tuple[float, int, float, ToyRow, bool]] = []
        self._n_events = 0
        self.outage = Outage(base_s=1.0, max_s=60.0, max_pause_s=600.0, rng=self._rng)
        self.budget = RetryBudget(concurrency)
        self.result = ToyResult()
        if is_proven:
            self.outage.note_answer(self.outage.note_sent(-1.0), -0.5)

    def run(self) -> ToyResult:
        """Run to the end."""
        now_s, result = 0.0, self.result
        while True:
            while self._send_one(now_s):
                pass
            due_s = [self._out[0][0]] if self._out else []
            wait_s = self._find_next(now_s)
            due_s += [wait_s] if wait_s is not None else []
            if not due_s:
                break
            now_s = max(now_s, min(due_s))
            assert now_s < HANG_GUARD_S
            while self._out and self._out[0][0] <= now_s:
                self._take_back(now_s)
        result.ended_s, result.is_over = now_s, self.outage.is_over
        result.n_left = len(self._waiting) + (self._next_new is not None) + sum(1 for _ in self._new)
        result.spans = list(self.outage.spans())
        return result

    def _send_one(self, now_s: float) -> bool:
        opens_at_s = self.outage.opens_at_s(now_s, len(self._out))
        if len(self._out) >= self._concurrency or opens_at_s is None or opens_at_s > now_s:
            return False
        row = self._take(now_s)
        if row is None:
            return False
        is_retry = row.n_attempts > 0
        row.weigh(self.outage)
        self.budget.note_request(now_s)
        if is_retry:
            self.budget.note_retry(now_s)
        row.n_attempts += 1
        row.n_tries += 1
        sent_at_s = self.outage.note_sent(now_s, attempt=row.n_tries)
        self.result.sent_at_s.append(now_s)
        takes_s, is_answered = self._serve(now_s, row.index, self._rng)
        self._n_events += 1
        heapq.heappush(self._out, (now_s + takes_s, self._n_events, sent_at_s, row, is_answered))
        return True

    def _take(self, now_s: float) -> ToyRow | None:
        may_retry = bool(self._waiting) and self._waiting[0][0] <= now_s and self.budget.opens_at_s(now_s) <= now_s
        prefers_new = self.outage.prefers_new_rows and self._next_new is not None
        if may_retry and not prefers_new:
            return heapq.heappop(self._waiting)[2]
        if self._next_new is None:
            return None
        row, self._next_new = ToyRow(index=self._next_new), next(self._new, None)
        return row

    def _find_next(self, now_s: float) -> float | None:
        """Return when something may leave; None until something comes back."""
        opens_at_s = self.outage.opens_at_s(now_s, len(self._out))
        if opens_at_s is None or len(self._out) >= self._concurrency:
            return None
        if self._next_new is not None:
            return opens_at_s
        if self._waiting:
            return max(opens_at_s, self._waiting[0][0], self.budget.opens_at_s(now_s))
        return None

    def _take_back(self, now_s: float) -> None:
        _, _, sent_at_s, row, is_answered = heapq.heappop(self._out)
        if is_answered:
            self.outage.note_answer(sent_at_s, now_s)
            self.result.n_answered += 1
            return
        if self.outage.note_failure(sent_at_s, now_s):
            row.n_tries -= 1
        else:
            row.in_question.append((sent_at_s, now_s))
        row.weigh(self.outage)
        if row.n_tries >= MAX_ATTEMPTS:
            self.result.n_failed += 1
            return
        bound_s = make_backoff_bound(max(1, row.n_tries), base_s=1.0, max_s=60.0)
        self._n_events += 1
        heapq.heappush(self._waiting, (now_s + self._rng.uniform(0, bound_s), self._n_events, row))
        self.result.n_most_waiting = max(self.result.n_most_waiting, len(self._waiting))
