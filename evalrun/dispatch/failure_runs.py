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
        self._runs: list[Run | None] = [None]
        """One before each request that is out, and one after the last; None where nothing failed."""
        self._n_first = 0

    @property
    def n_first(self) -> int:
        """First attempts in all runs together."""
        return self._n_first

    @property
    def n_out(self) -> int:
        """Requests sent since the newest answered one that are out yet."""
        return len(self._out)

    def note_sent(self, sent_at_s: float) -> None:
        """Count a request that leaves; later than all before it."""
        self._out.append(sent_at_s)
        self._runs.append(None)

    def note_answered(self, sent_at_s: float) -> Run | None:
        """Note an answer: whatever was sent before its request was no outage.

        Returns:
            The failures that this settles; None when there are none.
        """
        if sent_at_s <= self._answered_s:
            return None
        self._answered_s = sent_at_s
        n_older = bisect_right(self._out, sent_at_s)
        is_known = n_older > 0 and self._out[n_older - 1] == sent_at_s
        # A request that was never noted as sent may stand anywhere in its run: that run is over as well.
        settled: Run | None = None
        for run in self._runs[: n_older if is_known else n_older + 1]:
            settled = _join(settled, run)
        del self._out[:n_older], self._runs[:n_older]
        if not is_known:
            self._runs[0] = None
        if settled is not None:
            self._n_first -= settled.n_by_kind[0]
        return settled

    def note_failed(self, failure: Run) -> Run | None:
        """Note the failure of one request, and return the run that it is part of.

        Returns:
            None when a request sent later has been answered: the failure is settled by that already.
        """
        place = self._take_back(failure.sent_at_s)
        if place is None:
            return None
        run = self._runs[place] = _join(self._runs[place], failure)
        self._n_first += failure.n_by_kind[0]
        return run

    def take_back(self, sent_at_s: float) -> Run | None:
        """Take a request out from between its neighbours, as if it had never left; return the run it stood in."""
        place = self._take_back(sent_at_s)
        return None if place is None else self._runs[place]

    def _take_back(self, sent_at_s: float) -> int | None:
        """Take a request out and return the place of the run that it stood in; None when that is settled."""
        if sent_at_s <= self._answered_s:
            return None
        place = bisect_left(self._out, sent_at_s)
        if place < len(self._out) and self._out[place] == sent_at_s:
            del self._out[place]
            following = self._runs.pop(place + 1)
            self._runs[place] = _join(self._runs[place], following)
        return place


def _join(run: Run | None, other: Run | None) -> Run | None:
    """Return two neighbouring runs as one."""
    if run is None or other is None:
        return other if run is None else run
    run.absorb(other)
    return run
