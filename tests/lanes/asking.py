"""Asks servers through the real dispatcher and the real transport, and counts what comes of it.

Lanes of requests enter, figures leave: no record is kept but for the counts, so that a hundred thousand rows cost no
memory of ours.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio

from evalrun.dispatch.dispatcher import Clock, LaneWork, StopSignal, dispatch
from evalrun.dispatch.transport import make_target
from evalrun.lane_progress import LaneProgress
from evalrun.options import EndpointOptions, RetryOptions
from evalrun.records import Attempt, ErrorCode, Outcome, Request, Started, Status
from tests.dispatch.rig import make_request

BEGAN = datetime(2026, 11, 22, tzinfo=UTC)


@dataclass(slots=True, kw_only=True)
class Asked:
    """What the client saw."""

    statuses: Counter[Status] = field(default_factory=Counter)
    """Outcomes by status."""
    n_started: Counter[str] = field(default_factory=Counter)
    """Requests that left, by model."""
    started_at_s: list[tuple[float, str]] = field(default_factory=list)
    """When each left, and of which model; only if asked for."""
    events: list[tuple[float, str, Mapping[str, Any]]] = field(default_factory=list)
    """What the lanes decided: when, what, and its values."""
    progress: list[LaneProgress] = field(default_factory=list)
    most_refusals: int = 0
    """Times that one row was refused for its rate."""
    began_s: float = 0.0
    ended_s: float = 0.0
    n_with_outcome: int = 0
    """Rows that have one."""
    n_twice: int = 0
    """Outcomes beyond the first of their row."""

    @property
    def makespan_s(self) -> float:
        """From the first connection to the last outcome."""
        return self.ended_s - self.began_s

    def find_events(self, what: str) -> list[float]:
        """Return when something was decided."""
        return [at_s for at_s, name, _ in self.events if name == what]


def iterate_requests(n: int, *, model: str = "m") -> Iterator[Request]:
    """Yield requests, one by one, as a run's plan does."""
    return (make_request(f"r{index}.", index=index, model=model) for index in range(n))


async def ask(
    base_url: str,
    *lanes: tuple[str, int, Iterable[Request]],
    speed: float,
    concurrency: int,
    limits: Mapping[str, float] | None = None,
    retry: RetryOptions | None = None,
    seed: int = 1,
    keeps_times: bool = False,
    on_record: Callable[[Started | Attempt | Outcome], None] | None = None,
) -> Asked:
    """Ask one endpoint for everything, and return what came of it.

    Args:
        base_url: Where.
        lanes: Wire model, number of its requests, and those.
        speed: Of the loop's clock.
        concurrency: Of the endpoint.
        limits: `requests_per_minute`, `tokens_per_minute` as the job gives them; default: unknown.
        retry: Default: evalrun's.
        seed: Of all jitter.
        keeps_times: Whether to note when each request left.
        on_record: Hears of each record as well.
    """
    options = EndpointOptions(
        base_url=base_url,
        concurrency=concurrency,
        retry=retry or RetryOptions(),
        **(limits or {}),  # type: ignore[arg-type] # named limits
    )
    asked = Asked(progress=[LaneProgress(endpoint="e", model=model, total=n) for model, n, _ in lanes])
    works = [
        LaneWork(endpoint="e", wire_model=model, requests=iter(requests), progress=progress)
        for (model, _, requests), progress in zip(lanes, asked.progress, strict=True)
    ]
    clock = _make_clock(speed)
    has_outcome = bytearray(sum(n for _, n, _ in lanes))
    n_refused: Counter[str] = Counter()
    offsets = {model: sum(n for _, n, _ in lanes[:position]) for position, (model, _, _) in enumerate(lanes)}

    def note(record: Started | Attempt | Outcome) -> None:
        if isinstance(record, Started):
            model = record.row_id.split("-")[1]
            asked.n_started[model] += 1
            if keeps_times:
                asked.started_at_s.append((clock.now_s(), model))
        elif isinstance(record, Outcome):
            asked.statuses[record.status] += 1
            place = offsets[record.row_id.split("-")[1]] + record.index
            asked.n_twice += has_outcome[place]
            has_outcome[place] = 1
        elif record.error_code == ErrorCode.RATE_LIMITED:
            n_refused[record.row_id] += 1
            asked.most_refusals = max(asked.most_refusals, n_refused[record.row_id])
        if on_record is not None:
            on_record(record)

    def listen(what: str, **values: Any) -> None:
        asked.events.append((clock.now_s(), what, values))

    asked.began_s = clock.now_s()
    await dispatch(
        works,
        targets={"e": make_target(options, environ={})},
        prices={},
        on_record=note,
        stop=StopSignal(),
        rng=random.Random(seed),
        clock=clock,
        on_event=listen,
    )
    asked.ended_s = clock.now_s()
    asked.n_with_outcome = sum(has_outcome)
    return asked


def _make_clock(speed: float) -> Clock:
    if speed == 1:
        return Clock()
    now_s = anyio.current_time
    began_s = now_s()
    return Clock(now_s=now_s, utc_now=lambda: BEGAN + timedelta(seconds=now_s() - began_s))
