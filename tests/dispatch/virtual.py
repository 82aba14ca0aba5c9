"""The real dispatcher against a server made of numbers, on a clock that jumps: minutes of a run in seconds.

A `Serve` is asked when a request arrives and answers with what it does and when; the transport sleeps and replies.
Everything else, workers and deadlines included, is the dispatcher's own, on trio's mock clock.
"""

import json
import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import anyio
import trio
import trio.testing

from evalrun.dispatch.budget import RunBudget
from evalrun.dispatch.dispatcher import Clock, LaneWork, StopSignal, dispatch
from evalrun.dispatch.transport import Reply, Target, make_target
from evalrun.errors import ApiError
from evalrun.lane_progress import LaneProgress
from evalrun.options import EndpointOptions, RetryOptions
from evalrun.prices import ModelPrices
from evalrun.records import Attempt, Outcome, Request, Started, Status
from tests.dispatch.rig import PRICES
from tests.fake_endpoint import make_completion

BEGAN = datetime(2026, 11, 22, tzinfo=UTC)
ANSWER = json.dumps(make_completion("fine")).encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Deed:
    """What a server does with one request."""

    after_s: float = 0.0
    """Until the reply, or the failure, is there."""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = ANSWER
    error: ApiError | None = None
    """Raised instead of a reply: the connection failed."""


Interrupt = Literal["stop", "cancel", "scope"]
"""Let what is in flight finish, give it up, or cancel the caller's own scope."""

Serve = Callable[[float, Request], Deed]
"""(now, what arrives) -> what is done with it."""


def refuse(status: int, *, after_s: float = 0.0, code: str | None = None, **headers: str) -> Deed:
    """Return a reply that says no."""
    body = json.dumps({"error": {"message": "no", "code": code}}).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Deed(after_s=after_s, status=status, headers=named, body=body)


@dataclass(slots=True)
class Ledger:
    """What the server saw, and what the dispatch recorded."""

    arrivals: list[tuple[float, str]] = field(default_factory=list)
    """When, and which model."""
    statuses: list[int] = field(default_factory=list)
    in_flight: int = 0
    most_in_flight: int = 0
    records: list[Started | Attempt | Outcome] = field(default_factory=list)
    events: list[tuple[float, str, dict[str, Any]]] = field(default_factory=list)
    progress: list[LaneProgress] = field(default_factory=list)
    ended_s: float = 0.0

    @property
    def outcomes(self) -> list[Outcome]:
        """Every outcome, in order."""
        return [record for record in self.records if isinstance(record, Outcome)]

    def count(self, status: Status) -> int:
        """Return how many rows ended so."""
        return sum(outcome.status is status for outcome in self.outcomes)

    def count_arrivals(self, from_s: float, to_s: float, model: str | None = None) -> int:
        """Return how many requests arrived in a span of time."""
        return sum(from_s <= at_s < to_s and model in {None, name} for at_s, name in self.arrivals)


class _Server:
    """A transport whose other end is a function."""

    def __init__(self, serve: Serve, ledger: Ledger, requests: Mapping[bytes, Request]) -> None:
        self._serve = serve
        self._ledger = ledger
        self._requests = requests

    async def send(self, body: bytes, headers: Sequence[tuple[str, str]] = (), *, n_choices: int = 1) -> Reply:
        del headers, n_choices
        ledger, request, began_s = self._ledger, self._requests[body], trio.current_time()
        ledger.arrivals.append((began_s, request.model))
        ledger.in_flight += 1
        ledger.most_in_flight = max(ledger.most_in_flight, ledger.in_flight)
        deed = self._serve(began_s, request)
        try:
            await anyio.sleep(deed.after_s)
        finally:
            ledger.in_flight -= 1
        if deed.error is not None:
            ledger.statuses.append(0)
            raise deed.error
        ledger.statuses.append(deed.status)
        took_s = trio.current_time() - began_s
        return Reply(
            status=deed.status,
            headers=deed.headers,
            body=deed.body,
            evidence=None,
            latency_s=took_s,
            first_byte_s=took_s,
            first_token_s=None,
            bytes_received=len(deed.body),
            is_redacted=False,
        )

    def mask(self, completion: Any) -> Any:
        """Return it: nothing here is secret."""
        return completion


@asynccontextmanager
async def _interrupted(interrupts: Sequence[tuple[float, Interrupt]], stop: StopSignal) -> AsyncIterator[None]:
    """Interrupt what runs inside, at the given times."""
    if not interrupts:
        yield
        return

    async def interrupt(at_s: float, how: Interrupt) -> None:
        await anyio.sleep(at_s)
        match how:
            case "stop":
                stop.request()
            case "cancel":
                stop.cancel()
            case "scope":
                scope.cancel()

    async with anyio.create_task_group() as group:
        for interruption in interrupts:
            group.start_soon(interrupt, *interruption)
        with anyio.CancelScope() as scope:
            yield
        group.cancel_scope.cancel()


def run_virtually(
    serve: Serve,
    *lanes: Sequence[Request],
    concurrency: int = 32,
    seed: int = 1,
    retry: RetryOptions | None = None,
    limits: Mapping[str, float] | None = None,
    endpoint_limits: Mapping[str, float] | None = None,
    budget: Callable[[float], RunBudget] | None = None,
    prices: ModelPrices = PRICES,
    interrupts: Sequence[tuple[float, Interrupt]] = (),
    max_s: float = 36_000.0,
) -> Ledger:
    """Dispatch one lane for each list of requests, each list of one model, and return what came of it.

    Args:
        serve: The server of all of them.
        lanes: What to ask.
        concurrency: Of the one endpoint.
        seed: Of all jitter.
        retry: Limits; default: evalrun's.
        limits: `requests_per_minute` and `tokens_per_minute` of each model.
        endpoint_limits: The same of the endpoint.
        budget: Makes the run's, from the time at which it begins.
        prices: Of every model.
        interrupts: When to stop the dispatch, and how.
        max_s: A run that takes longer hangs.
    """
    options = EndpointOptions(
        base_url="http://127.0.0.1:1/v1",
        concurrency=concurrency,
        retry=retry or RetryOptions(),
        **(endpoint_limits or {}),  # type: ignore[arg-type] # named limits
    )
    ledger = Ledger()
    server = _Server(serve, ledger, {request.body: request for requests in lanes for request in requests})

    @asynccontextmanager
    async def connect(_target: Target) -> AsyncIterator[Any]:
        yield server

    def listen(what: str, **values: Any) -> None:
        ledger.events.append((trio.current_time(), what, values))

    async def main() -> None:
        now_s = trio.current_time
        works = []
        for requests in lanes:
            model = requests[0].model
            progress = LaneProgress(endpoint="e", model=model, total=len(requests))
            ledger.progress.append(progress)
            works.append(
                LaneWork(endpoint="e", wire_model=model, requests=iter(requests), progress=progress, **(limits or {}))
            )
        stop = StopSignal()
        async with _interrupted(interrupts, stop):
            with anyio.fail_after(max_s):
                await dispatch(
                    works,
                    targets={"e": make_target(options, environ={})},
                    prices={progress.model: prices for progress in ledger.progress},
                    on_record=ledger.records.append,
                    stop=stop,
                    rng=random.Random(seed),
                    clock=Clock(now_s=now_s, utc_now=lambda: BEGAN + timedelta(seconds=now_s())),
                    connect=connect,
                    budget=None if budget is None else budget(now_s()),
                    on_event=listen,
                )
        ledger.ended_s = now_s()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    return ledger
