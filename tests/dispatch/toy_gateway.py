"""A toy of a rate-limited server and of a dispatcher on a clock made of numbers: minutes of a lane in milliseconds.

Pacing is tried out here: a `Lane` sends rows through a Pacer and a Ramp as the dispatcher does, to a server with
limits, and counts. Nothing sleeps; the same seed gives the same figures.
"""

import heapq
import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

from evalrun.dispatch.pacing import Pacer
from evalrun.dispatch.ramp import Ramp
from evalrun.dispatch.rate_facts import read_rate_facts
from evalrun.options import RateDialect, SimulatedLimits
from evalrun.simulator.limits import Limiter
from evalrun.simulator.rate_headers import make_rate_headers

MEDIAN_LATENCY_S = 4.0
SIGMA = 0.6
MAX_WAY_S = 0.08
MIN_WAY_S = 0.02
"""Time from the client to the server and back, each drawn anew: paced requests arrive a little bunched."""
FIRST_BACKOFF_S = 1.0
MAX_BACKOFF_S = 60.0
MAX_RUN_S = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What one request asks for and uses."""

    tokens_asked: int = 0
    """Prompt, and as much output as it allows."""
    tokens_used: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a server does with a request."""

    is_let_in: bool
    retry_after_s: float | None = None
    is_slow_down: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)


class Server(Protocol):
    """A server with limits."""

    def arrive(self, row: Row, now_s: float) -> Verdict:
        """Let a request in or refuse it."""

    def end(self, row: Row, now_s: float) -> None:
        """Note that a request that was let in is answered."""


@dataclass(slots=True)
class Bucket:
    """A limit of the server: it refills steadily up to some seconds' worth."""

    per_minute: float
    holds_s: float
    level: float = field(init=False)
    _filled_at_s: float = 0.0

    def __post_init__(self) -> None:
        self.level = self.capacity

    @property
    def capacity(self) -> float:
        """What is there at most."""
        return self.per_minute / 60 * self.holds_s

    def fill(self, now_s: float) -> None:
        """Bring the level up to now."""
        self.level = min(self.capacity, self.level + (now_s - self._filled_at_s) * self.per_minute / 60)
        self._filled_at_s = now_s

    def wait_s(self, amount: float) -> float:
        """Return how long until the amount is there."""
        return max(0.0, (min(amount, self.capacity) - self.level) / (self.per_minute / 60))


class SimulatedServer:
    """The simulator's own limiter: limits that are counted in fixed windows, and its dialects of headers.

    Args:
        options: The limits.
        has_retry_after: Whether a refusal tells how long to wait, in whole seconds.
    """

    def __init__(self, options: SimulatedLimits, *, has_retry_after: bool = True) -> None:
        self._limiter = Limiter(options, "toy")
        self._dialect: RateDialect = options.headers
        self._has_retry_after = has_retry_after

    def arrive(self, row: Row, now_s: float) -> Verdict:
        """Ask the limiter."""
        denial = self._limiter.admit(now_s, tokens=row.tokens_asked)
        headers = make_rate_headers(self._dialect, self._limiter.read(now_s), unix_s=now_s)
        if denial is None:
            return Verdict(is_let_in=True, headers=headers)
        tells = self._has_retry_after and denial.wait_s is not None
        return Verdict(
            is_let_in=False,
            retry_after_s=max(1, math.ceil(denial.wait_s or 0)) if tells else None,
            is_slow_down=denial.refusal.status == 503,
            headers=headers,
        )

    def end(self, row: Row, now_s: float) -> None:
        """Leave a place to others."""
        self._limiter.leave()


class SteadyServer:
    """Limits requests, and tokens if asked, by buckets that refill steadily.

    Args:
        requests_per_minute: The limit.
        holds_s: How many seconds' worth a bucket holds: how strictly it is enforced.
        rejects_cost: Whether a refused request uses up the limit too.
        has_retry_after: Whether a refusal tells how long to wait, in whole seconds.
        has_headers: Whether replies carry OpenAI's rate-limit headers, told as of a minute.
        tokens_per_minute: The limit of tokens; None = none.
        counts_used: Whether tokens that were asked for and not used are given back at the end.
    """

    def __init__(
        self,
        *,
        requests_per_minute: float,
        holds_s: float,
        rejects_cost: bool,
        has_retry_after: bool,
        has_headers: bool = False,
        tokens_per_minute: float | None = None,
        counts_used: bool = False,
    ) -> None:
        self._requests = Bucket(requests_per_minute, holds_s)
        self._told = Bucket(requests_per_minute, 60)
        self._tokens = None if tokens_per_minute is None else Bucket(tokens_per_minute, holds_s)
        self._rejects_cost = rejects_cost
        self._has_retry_after = has_retry_after
        self._has_headers = has_headers
        self._counts_used = counts_used

    def arrive(self, row: Row, now_s: float) -> Verdict:
        """Let a request in if every bucket holds what it asks for."""
        asked = [(self._requests, 1)]
        if self._tokens is not None:
            asked.append((self._tokens, row.tokens_asked))
        for bucket, _ in asked:
            bucket.fill(now_s)
        wait_s = max(bucket.wait_s(amount) for bucket, amount in asked)
        if wait_s <= 0:
            for bucket, amount in asked:
                bucket.level -= amount
        elif self._rejects_cost:
            for bucket, amount in asked:
                bucket.level = max(min(0.0, bucket.level), bucket.level - amount)
        self._told.fill(now_s)
        self._told.level = max(0.0, self._told.level - (wait_s <= 0))
        return Verdict(
            is_let_in=wait_s <= 0,
            retry_after_s=math.ceil(wait_s) if self._has_retry_after and wait_s > 0 else None,
            headers=self._make_headers() if self._has_headers else {},
        )

    def end(self, row: Row, now_s: float) -> None:
        """Give back tokens that were not used."""
        if self._tokens is not None and self._counts_used:
            self._tokens.fill(now_s)
            self._tokens.level = min(self._tokens.capacity, self._tokens.level + row.tokens_asked - row.tokens_used)

    def _make_headers(self) -> dict[str, str]:
        told = self._told
        headers = {
            "x-ratelimit-limit-requests": f"{told.per_minute:.0f}",
            "x-ratelimit-remaining-requests": f"{math.floor(told.level)}",
            "x-ratelimit-reset-requests": f"{math.ceil(told.wait_s(told.capacity) * 1000)}ms",
        }
        if self._tokens is not None:
            headers["x-ratelimit-limit-tokens"] = f"{self._tokens.per_minute:.0f}"
        return headers


@dataclass(slots=True, kw_only=True)
class Figures:
    """What came of a run."""

    makespan_s: float = 0.0
    n_sent: int = 0
    n_throttled: int = 0
    n_answered: int = 0
    most_refusals: int = 0
    """Of one row."""
    most_in_flight: int = 0


@dataclass(slots=True)
class _Waiting:
    """A row with what became of it so far."""

    row: Row
    n_refused: int = 0


class Lane:
    """Sends rows as a lane does: those that wait before new ones, as fast as Pacer and Ramp allow.

    Args:
        server: Where to.
        pacer: When.
        ramp: How many at once.
        rng: Latencies, ways and back-off.
    """

    def __init__(self, server: Server, pacer: Pacer, ramp: Ramp, rng: random.Random) -> None:
        self.figures = Figures()
        self._server = server
        self._pacer = pacer
        self._ramp = ramp
        self._rng = rng
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._n_events = 0
        self._due: list[tuple[float, int, _Waiting]] = []
        self._wakes_at_s = math.inf
        self._in_flight = 0

    def run(self, rows: list[Row]) -> Figures:
        """Send every row until it is answered, or time is up."""
        new = [_Waiting(row) for row in reversed(rows)]
        now_s = 0.0
        self._pump(new, now_s)
        while self._events and now_s < MAX_RUN_S:
            now_s, _, happen = heapq.heappop(self._events)
            happen(now_s)
            self._pump(new, now_s)
        self.figures.makespan_s = now_s
        return self.figures

    def _pump(self, new: list[_Waiting], now_s: float) -> None:
        """Send what may leave, or be woken when something may."""
        while self._in_flight < self._ramp.limit and (new or self._due):
            due_s = 0.0 if new else self._due[0][0]
            opens_at_s = max(due_s, self._pacer.opens_at_s(now_s))
            if opens_at_s > now_s:
                self._wake_at(opens_at_s, now_s)
                return
            is_due = bool(self._due) and self._due[0][0] <= now_s
            self._send(heapq.heappop(self._due)[2] if is_due else new.pop(), now_s)

    def _wake_at(self, at_s: float, now_s: float) -> None:
        if not now_s < self._wakes_at_s <= at_s:
            self._wakes_at_s = at_s
            self._at(at_s, lambda _: None)

    def _send(self, waiting: _Waiting, now_s: float) -> None:
        self._pacer.note_sent(waiting.row.tokens_asked, now_s)
        self._in_flight += 1
        self.figures.n_sent += 1
        self.figures.most_in_flight = max(self.figures.most_in_flight, self._in_flight)
        self._at(now_s + self._draw_way(), lambda at_s: self._arrive(waiting, now_s, at_s))

    def _arrive(self, waiting: _Waiting, sent_at_s: float, now_s: float) -> None:
        verdict = self._server.arrive(waiting.row, now_s)
        back_s = now_s + self._draw_way()
        if not verdict.is_let_in:
            self._at(back_s, lambda at_s: self._note_refused(waiting, verdict, sent_at_s, at_s))
            return
        latency_s = self._rng.lognormvariate(math.log(MEDIAN_LATENCY_S), SIGMA)
        self._at(now_s + latency_s, lambda at_s: self._server.end(waiting.row, at_s))
        self._at(back_s + latency_s, lambda at_s: self._note_answer(waiting, verdict, at_s))

    def _note_refused(self, waiting: _Waiting, verdict: Verdict, sent_at_s: float, now_s: float) -> None:
        self._in_flight -= 1
        self.figures.n_throttled += 1
        waiting.n_refused += 1
        self.figures.most_refusals = max(self.figures.most_refusals, waiting.n_refused)
        self._pacer.note_facts(read_rate_facts(verdict.headers, now=datetime.fromtimestamp(now_s, UTC)), now_s)
        note = self._pacer.note_slow_down if verdict.is_slow_down else self._pacer.note_throttled
        note(verdict.retry_after_s, now_s, sent_at_s=sent_at_s)
        if self._pacer.heeds_refusals(now_s):
            self._ramp.note_throttled(now_s)
        else:
            self._ramp.forget_refusals()
        bound_s = min(FIRST_BACKOFF_S * 2 ** (waiting.n_refused - 1), MAX_BACKOFF_S)
        due_s = now_s + max(self._rng.uniform(0, bound_s), verdict.retry_after_s or 0.0)
        self._n_events += 1
        heapq.heappush(self._due, (due_s, self._n_events, waiting))

    def _note_answer(self, waiting: _Waiting, verdict: Verdict, now_s: float) -> None:
        self._ramp.note_answer(self._in_flight, now_s)
        self._in_flight -= 1
        self.figures.n_answered += 1
        self._pacer.note_facts(read_rate_facts(verdict.headers, now=datetime.fromtimestamp(now_s, UTC)), now_s)
        self._pacer.note_settled(waiting.row.tokens_asked, waiting.row.tokens_used, now_s)

    def _draw_way(self) -> float:
        return self._rng.uniform(MIN_WAY_S, MAX_WAY_S)

    def _at(self, at_s: float, happen: Callable[[float], None]) -> None:
        self._n_events += 1
        heapq.heappush(self._events, (at_s, self._n_events, happen))
