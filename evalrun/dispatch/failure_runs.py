"""Failures in a row, counted in the order in which their requests left, not in the order in which they came back.

Requests enter when they leave and when they come back; runs of failures leave. Refusals are quick and answers slow:
when 64 slots fill at once on a server that refuses half of what it is sent, some 64 refusals come back before the first
answer does. In the order of sending, the requests that are still out stand between those refusals. So a run of k
failures here means k requests sent one after the other, all failed: on a server that fails a share p of its requests at
random its chance is p^k, however long answers and failures take. Kept: one number per request in flight.
"""

import math
from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field

from evalrun.dispatch.failure_shares import N_KINDS


@dataclass(slots=True, kw_only=True)
class Run:
    """Failures of requests sent one after the other, with no answered and no undecided request between them."""

    n_by_kind: list[int] = field(default_factory=lambda: [0] * N_KINDS)
    """By the number of attempts that their rows had behind them."""
    sent_at_s: float = math.inf
    """When the first of them left."""
    failed_at_s: float = math.inf
    """When the first of them was known to have failed."""
    first_failed_until_s: float = -math.inf
    """When the latest failure of a first attempt was known."""

    @property
    def first_span_s(self) -> float:
        """From the first request sent to the latest failure of a first attempt: how long a lane took to fail so."""
        return self.first_failed_until_s - self.sent_at_s if self.n_by_kind[0] else 0.0

    @classmethod
    def of_one(cls, sent_at_s: float, failed_at_s: float, *, kind: int) -> "Run":
        """Return a run of a single failure."""
        run = cls(sent_at_s=sent_at_s, failed_at_s=failed_at_s)
        run.n_by_kind[kind] = 1
        if kind == 0:
            run.first_failed_until_s = failed_at_s
        return run

    def absorb(self, other: "Run") -> None:
        """Add a neighbouring run."""
        for kind, n in enumerate(other.n_by_kind):
            self.n_by_kind[kind] += n
        self.sent_at_s = min(self.sent_at_s, other.sent_at_s)
        self.failed_at_s = min(self.failed_at_s, other.failed_at_s)
        self.first_failed_until_s = max(self.first_failed_until_s, other.first_failed_until_s)


class FailureRuns:
    """The runs of failures among the requests sent after the newest one that was answered."""

    def __init__(self) -> None:
        self._answered_s = -math.inf
        self._out: list[float] = []
        self._runs: dict[float, Run] = {}
        """By the request, still out, before which they stand; the one after the last request by infinity."""
        self.n_first = 0
        """First attempts in all runs together."""

    @property
    def n_out(self) -> int:
        """Requests sent since the newest answered one that are out yet."""
        return len(self._out)

    def note_sent(self, sent_at_s: float) -> None:
        """Count a request that leaves; later than all before it."""
        self._out.append(sent_at_s)
        if math.inf in self._runs:
            self._runs[sent_at_s] = self._runs.pop(math.inf)

    def note_answered(self, sent_at_s: float) -> Run | None:
        """Note an answer: whatever was sent before its request was no outage.

        Returns:
            The failures that this settles; None when there are none.
        """
        if sent_at_s <= self._answered_s:
            return None
        self._answered_s = sent_at_s
        n_older = bisect_right(self._out, sent_at_s)
        settled = self._settle(n_older, sent_at_s) if self._runs else None
        del self._out[:n_older]
        return settled

    def _settle(self, n_older: int, sent_at_s: float) -> Run | None:
        """Take out the runs before an answered request, and return them as one."""
        older = self._out[:n_older]
        if not older or older[-1] != sent_at_s:
            # A request that was never noted as sent may stand anywhere in its run: that run is over as well.
            older.append(self._find_next(n_older))
        settled: Run | None = None
        for place in older:
            settled = _join(settled, self._runs.pop(place, None))
        if settled is not None:
            self.n_first -= settled.n_by_kind[0]
        return settled

    def note_failed(self, failure: Run) -> Run | None:
        """Note the failure of one request, and return the run that it is part of.

        Returns:
            None when a request sent later has been answered: the failure is settled by that already.
        """
        place = self._take_back(failure.sent_at_s)
        if place is None:
            return None
        self.n_first += failure.n_by_kind[0]
        run = self._runs.get(place)
        if run is None:
            self._runs[place] = failure
            return failure
        run.absorb(failure)
        return run

    def take_back(self, sent_at_s: float) -> Run | None:
        """Take a request out from between its neighbours, as if it had never left; return the run it stood in."""
        place = self._take_back(sent_at_s)
        return None if place is None else self._runs.get(place)

    def _take_back(self, sent_at_s: float) -> float | None:
        """Take a request out and return the place of the run that it stood in; None when that is settled."""
        if sent_at_s <= self._answered_s:
            return None
        index = bisect_left(self._out, sent_at_s)
        if index == len(self._out) or self._out[index] != sent_at_s:
            return self._find_next(index)
        del self._out[index]
        place = self._find_next(index)
        run = _join(self._runs.pop(sent_at_s, None), self._runs.get(place))
        if run is not None:
            self._runs[place] = run
        return place

    def _find_next(self, index: int) -> float:
        """Return the request at an index among those that are out; infinity after the last one."""
        return self._out[index] if index < len(self._out) else math.inf


def _join(run: Run | None, other: Run | None) -> Run | None:
    """Return two neighbouring runs as one."""
    if run is None or other is None:
        return other if run is None else run
    run.absorb(other)
    return run
