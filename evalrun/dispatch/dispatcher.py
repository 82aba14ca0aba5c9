"""Sends every request of the lanes, a fixed number at a time, until each row has an outcome or its lane has stopped.

Requests enter lazily; records leave through `on_record`, in the order in which things happened: `Started` before each
send, `Attempt` for a failure that is followed by another attempt, `Outcome` for what became of a row. A row in flight
when the dispatch is cancelled leaves no outcome. Nothing that grows with the plan is kept.
"""

import random
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import NamedTuple

import anyio

from evalrun.dispatch.bench import Bench
from evalrun.dispatch.budget import RunBudget
from evalrun.dispatch.lane_log import LaneLog, OnEvent, ignore_event
from evalrun.dispatch.lane_queue import LaneQueue
from evalrun.dispatch.lanes import MAX_ALIKE_REFUSALS, Fate, Lane, Ruling
from evalrun.dispatch.outcomes import (
    CUT_BY_PROXY,
    Row,
    Sending,
    is_free,
    judge_permanence,
    make_answered_attempt,
    make_failed_attempt,
    make_outcome,
    make_pending,
    start_attempt,
)
from evalrun.dispatch.pacing import Pacer
from evalrun.dispatch.schedule import HeldRow, LaneWork, Schedule, Track
from evalrun.dispatch.stops import (
    RESUME_HINT,
    StopSignal,
    explain_outage,
    explain_refusal,
    explain_refusals,
    explain_throttling,
)
from evalrun.dispatch.till import Hold, Till, count_tokens, judge_used_tokens
from evalrun.dispatch.transport import Reply, Target, Transport, make_hint_headers, open_transport
from evalrun.dispatch.usage_estimates import Taken
from evalrun.dispatch.wire import parse_reply
from evalrun.errors import ApiError, ContentRefusedError
from evalrun.lane_progress import LaneProgress
from evalrun.prices import NO_PRICES, PriceBook
from evalrun.records import (
    ANSWERED,
    Attempt,
    Completion,
    ErrorCode,
    Outcome,
    Request,
    Started,
    Status,
)

__all__ = ["Clock", "LaneWork", "StopSignal", "dispatch"]

OnRecord = Callable[[Started | Attempt | Outcome], None]
Connect = Callable[[Target], AbstractAsyncContextManager[Transport]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """The two clocks: durations from one that never jumps, timestamps from the wall."""

    now_s: Callable[[], float] = time.monotonic
    utc_now: Callable[[], datetime] = lambda: datetime.now(UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Surroundings:
    """What every endpoint shares."""

    prices: PriceBook
    on_record: OnRecord
    on_event: OnEvent
    stop: StopSignal
    rng: random.Random
    clock: Clock
    till: Till
    known_models: Collection[str]
    """Wire models of all lanes."""
    started_s: float


class _Flight(NamedTuple):
    """One attempt under way."""

    track: Track
    sending: Sending
    hold: Hold
    sent_at_s: float
    """By which its lane knows it."""


async def dispatch(  # noqa: PLR0913 - the seams of a run, all by name
    lanes: Sequence[LaneWork],
    *,
    targets: Mapping[str, Target],
    prices: PriceBook,
    on_record: OnRecord,
    stop: StopSignal,
    rng: random.Random,
    clock: Clock | None = None,
    connect: Connect = open_transport,
    budget: RunBudget | None = None,
    on_event: OnEvent = ignore_event,
) -> None:
    """Send everything the lanes hold.

    Args:
        lanes: What to send; their progress is kept up to date.
        targets: By endpoint name.
        prices: Of the models; of one that it lacks, the cost is unknown.
        on_record: Takes each record at once; what it raises ends the dispatch.
        stop: Ends it early.
        rng: Source of all jitter.
        clock: Monotonic and wall clock; default: the machine's.
        connect: Opens the transport of a target.
        budget: What the run may spend; None = no limit.
        on_event: Hears what the lanes decide: `throttled`, `gate_shut`, `reopened`, `cut`, `limit_learned`, `outage`,
            `outage_over`, `lane_stopped` and `budget`.

    Raises:
        Exception: Whatever `on_record` or a lane's iterator raised first, unwrapped.
    """
    clock = clock or Clock()
    utc_now = clock.utc_now

    def tell_end(reason: str) -> None:
        on_event("budget", at=utc_now(), lane=None, reason=reason)

    around = _Surroundings(
        prices=prices,
        on_record=on_record,
        on_event=on_event,
        stop=stop,
        rng=rng,
        clock=clock,
        till=Till(budget, prices, tell_end),
        known_models=[work.wire_model for work in lanes],
        started_s=clock.now_s(),
    )
    try:
        async with anyio.create_task_group() as group:
            for endpoint in dict.fromkeys(work.endpoint for work in lanes):
                own = [work for work in lanes if work.endpoint == endpoint]
                group.start_soon(_Endpoint(targets[endpoint], own, around).run, connect)
    except BaseExceptionGroup as failures:
        first = _find_first(failures)
        raise first from first.__cause__


def _find_first(failure: BaseException) -> BaseException:
    while isinstance(failure, BaseExceptionGroup):
        failure = failure.exceptions[0]
    return failure


class _Endpoint:
    """The workers of one endpoint over all its lanes."""

    def __init__(self, target: Target, works: Sequence[LaneWork], around: _Surroundings) -> None:
        self._target = target
        self._around = around
        shared = self._make_shared_pacer()
        tracks = [
            Track(work=work, lane=self._make_lane(work, shared), queue=LaneQueue(work.requests)) for work in works
        ]
        concurrency = target.options.concurrency
        self._schedule = Schedule(tracks, around.till, self._end_for_budget, concurrency=concurrency)
        n_rows = sum(work.progress.total for work in works)
        self._n_workers = max(1, min(concurrency, n_rows))
        self._bench = Bench()
        self._scope = anyio.CancelScope()
        around.till.listen(self._heed_till)

    def _make_shared_pacer(self) -> Pacer | None:
        options = self._target.options
        if options.requests_per_minute is None and options.tokens_per_minute is None:
            return None
        return Pacer(
            requests_per_minute=options.requests_per_minute,
            tokens_per_minute=options.tokens_per_minute,
            now_s=self._around.started_s,
        )

    def _make_lane(self, work: LaneWork, shared: Pacer | None) -> Lane:
        around = self._around
        log = LaneLog(
            work.progress,
            lane=work.name,
            on_event=around.on_event,
            utc_now=around.clock.utc_now,
            started_s=around.started_s,
        )
        return Lane(
            work.progress,
            self._target.options.retry,
            around.rng,
            concurrency=self._target.options.concurrency,
            requests_per_minute=work.requests_per_minute,
            tokens_per_minute=work.tokens_per_minute,
            shared=shared,
            log=log,
            now_s=around.started_s,
        )

    async def run(self, connect: Connect) -> None:
        """Work until nothing is left to send, then give back what was not sent."""
        with self._scope, self._around.stop.listening(self._heed_stop):
            async with connect(self._target) as transport, anyio.create_task_group() as workers:
                for _ in range(self._n_workers):
                    workers.start_soon(self._work, transport)
        for track in self._schedule.tracks:
            self._give_back_rest(track)
            track.lane.end_waiting(self._around.clock.now_s())
            track.work.progress.wall_s = max(0.0, track.ended_s - self._around.started_s)

    def _heed_stop(self) -> None:
        self._bench.call_all()
        if self._around.stop.is_cancelled:
            self._scope.cancel()

    def _heed_till(self, ended_by: str | None) -> None:
        """Go on when there is room in the budget again; end what is left when there never will be."""
        if ended_by is None:
            self._bench.call_one()
        else:
            self._schedule.end_all(ended_by)

    def _end_for_budget(self, track: Track, reason: str) -> None:
        self._stop(track, ErrorCode.BUDGET, reason)

    async def _work(self, transport: Transport) -> None:
        schedule, bench = self._schedule, self._bench
        while not self._around.stop.is_requested:
            now_s = self._around.clock.now_s()
            taken = schedule.take(now_s)
            if taken is not None:
                flight = self._begin(*taken, now_s)
                if bench.is_occupied:
                    bench.expect(schedule.find_due_s(now_s))
                await self._fly(transport, flight)
            elif schedule.is_used_up():
                bench.call_all()
                return
            else:
                due_s = schedule.find_due_s(now_s)
                await bench.sit(due_s, due_s - now_s)

    # One attempt

    def _begin(self, track: Track, row: Row, hold: Hold, now_s: float) -> _Flight:
        around = self._around
        started, sending = start_attempt(row, now_s=now_s, now=around.clock.utc_now())
        around.on_record(started)
        around.till.note_sent(hold)
        return _Flight(track, sending, hold, track.lane.begin(row.tries, now_s, tokens=hold.tokens))

    async def _fly(self, transport: Transport, flight: _Flight) -> None:
        lane = flight.track.lane
        try:
            reply, result = await self._exchange(transport, flight.track, flight.sending.row.request)
        finally:
            lane.end()
        now_s = self._around.clock.now_s()
        if reply is not None:
            lane.note_facts(reply.headers, now_s, self._around.clock.utc_now)
        if isinstance(result, ApiError):
            self._note_failure(flight, result, reply, now_s)
        else:
            assert reply is not None  # A completion was read from it.
            self._note_answer(flight, reply, result, now_s)

    async def _exchange(
        self, transport: Transport, track: Track, request: Request
    ) -> tuple[Reply | None, Completion | ApiError]:
        """Send a request and read its reply; a failure is data from here on."""
        hint = request.hint if self._target.is_simulator else None
        try:
            headers = make_hint_headers(hint) if hint is not None else ()
            reply = await transport.send(request.body, headers, n_choices=request.n_choices)
        except ApiError as error:
            return None, error
        try:
            return reply, transport.mask(self._read(reply, track, request))
        except ApiError as error:
            return reply, error

    def _read(self, reply: Reply, track: Track, request: Request) -> Completion:
        completion = parse_reply(
            reply.status,
            reply.headers,
            reply.body,
            model=track.work.wire_model,
            n_choices=request.n_choices,
            now=self._around.clock.utc_now(),
            evidence=reply.evidence,
        )
        flags = (*reply.flags, "redacted") if reply.is_redacted else reply.flags
        return replace(completion, flags=(*completion.flags, *flags)) if flags else completion

    def _note_answer(self, flight: _Flight, reply: Reply, completion: Completion, now_s: float) -> None:
        track, request = flight.track, flight.sending.row.request
        usage = completion.usage
        if usage.prompt_tokens is None or usage.completion_tokens is None:
            completion = track.lane.estimator.complete(request, completion)
        else:
            track.lane.estimator.note_answer(request, usage)
        prices = self._around.prices.get(request.model, NO_PRICES)
        attempt = make_answered_attempt(flight.sending, reply, completion, prices)
        _count_cost(track.work.progress, attempt)
        if flight.hold.estimate is not None:
            track.lane.guess.note_answer(
                request.body,
                prompt_tokens=usage.prompt_tokens,
                output_tokens=usage.completion_tokens,
                n_choices=request.n_choices,
            )
            track.lane.settle(flight.hold.tokens, count_tokens(usage), now_s)
        self._around.till.settle(flight.hold, attempt)
        self._finish(track, flight.sending, attempt, status=completion.status, completion=completion)
        self._note_life(flight, now_s)

    def _note_failure(self, flight: _Flight, error: ApiError, reply: Reply | None, now_s: float) -> None:
        track, sending = flight.track, flight.sending
        row = sending.row
        row.last_ended_s = now_s
        _add_advice(error, row.request, self._target)
        prices = self._around.prices.get(row.request.model, NO_PRICES)
        attempt = make_failed_attempt(sending, error, reply, _estimate_taken(flight, error, reply), prices)
        _count_cost(track.work.progress, attempt)
        track.lane.settle(flight.hold.tokens, judge_used_tokens(flight.hold, error), now_s)
        self._around.till.settle(flight.hold, attempt)
        if isinstance(error, ContentRefusedError):
            filtered = Completion(status=Status.FILTERED, output=None, flags=("filtered_before_answer",))
            self._finish(track, sending, attempt, status=Status.FILTERED, completion=filtered)
            self._note_life(flight, now_s)
            return
        ruling = track.lane.note_failure(error, row.tries, sent_at_s=flight.sent_at_s, now_s=now_s)
        self._carry_out(track, sending, attempt, ruling, error, now_s)
        if ruling.fate in {Fate.FAIL_AND_STOP, Fate.PARK_AND_STOP}:
            self._stop_for(track, error, ruling.fate)
        elif track.lane.is_proven:
            self._release_held(track)

    def _carry_out(
        self, track: Track, sending: Sending, attempt: Attempt, ruling: Ruling, error: ApiError, now_s: float
    ) -> None:
        """Do with a row that failed what its lane decided."""
        match ruling.fate:
            case Fate.FAIL | Fate.FAIL_AND_STOP:
                self._finish(track, sending, attempt, status=Status.ERROR, is_permanent=judge_permanence(error))
            case Fate.RETRY:
                self._around.on_record(attempt)
                self._retry(track, sending.row, now_s + ruling.wait_s)
            case Fate.HOLD if not track.lane.is_stopped:
                held = HeldRow(sending=sending, attempt=attempt, finished_at=self._around.clock.utc_now())
                track.held.append(held)
            case _:
                self._finish(track, sending, attempt, status=Status.PENDING)

    def _retry(self, track: Track, row: Row, due_s: float) -> None:
        if track.lane.is_stopped:
            self._give_back_stopped(track, row)
        else:
            track.work.progress.retries += 1
            track.queue.push(row, due_s)

    def _finish(
        self,
        track: Track,
        sending: Sending,
        attempt: Attempt,
        *,
        status: Status,
        completion: Completion | None = None,
        finished_at: datetime | None = None,
        is_permanent: bool = False,
    ) -> None:
        """Record what became of a row; only then does it count as progress."""
        moment = finished_at or self._around.clock.utc_now()
        outcome = make_outcome(
            sending, attempt, status=status, completion=completion, finished_at=moment, is_permanent=is_permanent
        )
        self._around.on_record(outcome)
        track.ended_s = self._around.clock.now_s()
        _count(track.work.progress, outcome)

    # Lanes that come alive, stop or end

    def _note_life(self, flight: _Flight, now_s: float) -> None:
        flight.track.lane.note_answer(flight.sent_at_s, now_s)
        self._release_held(flight.track)

    def _release_held(self, track: Track) -> None:
        """End the rows that were held back: the lane answers others, so their failures are their own."""
        for held in track.held:
            self._finish(track, held.sending, held.attempt, status=Status.ERROR, finished_at=held.finished_at)
        track.held.clear()

    def _stop_for(self, track: Track, error: ApiError, fate: Fate) -> None:
        """Stop the failure's lane, or all lanes of the endpoint when its key is refused."""
        message = explain_refusals(error, n_rows=MAX_ALIKE_REFUSALS) if fate is Fate.FAIL_AND_STOP else None
        message = message or self._explain_stop(track, error)
        for stopped in self._schedule.tracks if error.code == ErrorCode.AUTH else [track]:
            self._stop(stopped, error.code, message)

    def _explain_stop(self, track: Track, error: ApiError) -> str:
        lane, clock = track.lane, self._around.clock
        is_parked = (error.retry_after_s or 0.0) > self._target.options.retry.max_pause_s
        if lane.is_over and not is_parked:
            down_s = lane.find_silence_s(clock.now_s())
            return explain_outage(error.message, self._target, n_sent=lane.n_sent, down_s=down_s)
        refused_s = lane.find_refused_s(clock.now_s())
        if error.code == ErrorCode.RATE_LIMITED and refused_s is not None and not is_parked:
            return explain_throttling(error.message, refused_s=refused_s)
        return explain_refusal(
            error,
            self._target,
            now=clock.utc_now(),
            wire_model=track.work.wire_model,
            known_models=self._around.known_models,
        )

    def _stop(self, track: Track, code: str, message: str) -> None:
        track.lane.stop(code, message, self._around.clock.now_s())
        for held in track.held:
            self._finish(track, held.sending, held.attempt, status=Status.PENDING, finished_at=held.finished_at)
        track.held.clear()
        for row in track.queue.drain():
            self._give_back_stopped(track, row)
        self._bench.call_all()

    def _give_back_stopped(self, track: Track, row: Row) -> None:
        stopped_by = track.work.progress.stopped_by
        code = ErrorCode.BUDGET if stopped_by == ErrorCode.BUDGET else ErrorCode.LANE_STOPPED
        self._give_back(row, code, f"the lane stopped ({stopped_by}) before the row's next attempt")

    def _give_back(self, row: Row, code: ErrorCode, message: str) -> None:
        """Say of a row that it was not asked again; of one that was never asked there is nothing to say."""
        if row.tries.n:
            self._around.on_record(make_pending(row, code, message, finished_at=self._around.clock.utc_now()))

    def _give_back_rest(self, track: Track) -> None:
        """End a lane whose workers have gone: what still waits was interrupted, what is held never heard an answer."""
        if track.held and not self._around.stop.is_requested:
            last = track.held[-1].attempt
            message = explain_outage(last.error_message, self._target, n_sent=track.lane.n_sent)
            self._stop(track, str(last.error_code), message)
        for held in track.held:
            self._finish(track, held.sending, held.attempt, status=Status.PENDING, finished_at=held.finished_at)
        for row in track.queue.drain():
            self._give_back(
                row, ErrorCode.INTERRUPTED, f"the run was stopped before the row's next attempt; {RESUME_HINT}"
            )


def _add_advice(error: ApiError, request: Request, target: Target) -> None:
    """Say of a body that is too large how large it was, and of a proxy that lost patience how to keep it happy."""
    if error.http_status == 413:
        error.message = f"{error.message} (the request's body has {len(request.body)} bytes)"
    elif error.http_status in CUT_BY_PROXY and not target.options.stream:
        error.message = f"{error.message} (if a proxy cuts long calls, `stream: true` at the endpoint outlives it)"


def _estimate_taken(flight: _Flight, error: ApiError, reply: Reply | None) -> Taken | None:
    """Return what a failed attempt may have taken; None when it certainly took nothing."""
    if is_free(error):
        return None
    said = error.said if reply is None else reply.said or reply.body
    return flight.track.lane.estimator.estimate_failure(flight.sending.row.request, said)


def _count_cost(progress: LaneProgress, attempt: Attempt) -> None:
    if attempt.cost_usd is not None:
        progress.spent_usd += attempt.cost_usd


def _count(progress: LaneProgress, outcome: Outcome) -> None:
    """Count an outcome; pending rows are not done."""
    if outcome.status is Status.PENDING:
        return
    progress.done += 1
    progress.errors += outcome.status is Status.ERROR
    usage = outcome.usage
    progress.tokens += (usage.prompt_tokens or 0) + (usage.completion_tokens or 0)
    if outcome.status in ANSWERED:
        progress.answered += 1
        progress.unknown_cost += outcome.cost_usd is None
