"""Sends every request of the lanes, a fixed number at a time, until each row has an outcome or its lane has stopped.

Requests enter lazily; records leave through `on_record`, in the order in which things happened: `Started` before each
send, `Attempt` for a failure that is followed by another attempt, `Outcome` for what became of a row. A row in flight
when the dispatch is cancelled leaves no outcome. Nothing that grows with the plan is kept.
"""

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal

import anyio

from evalrun.dispatch.lanes import MAX_ALIKE_REFUSALS, Fate, Lane, LaneQueue
from evalrun.dispatch.outcomes import (
    CUT_BY_PROXY,
    Row,
    Sending,
    judge_permanence,
    make_answered_attempt,
    make_failed_attempt,
    make_outcome,
    make_pending,
    start_attempt,
)
from evalrun.dispatch.retry import RetryPolicy
from evalrun.dispatch.stops import RESUME_HINT, StopSignal, explain_outage, explain_refusal, explain_refusals
from evalrun.dispatch.transport import Reply, Target, Transport, make_hint_headers, open_transport
from evalrun.dispatch.wire import parse_reply
from evalrun.errors import ApiError, ContentRefusedError
from evalrun.options import PriceOptions
from evalrun.records import (
    ANSWERED,
    Attempt,
    Completion,
    ErrorCode,
    LaneProgress,
    Outcome,
    Request,
    Started,
    Status,
)

__all__ = ["Clock", "LaneWork", "StopSignal", "dispatch"]

OnRecord = Callable[[Started | Attempt | Outcome], None]
Connect = Callable[[Target], AbstractAsyncContextManager[Transport]]


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneWork:
    """What is to be sent on one lane."""

    endpoint: str
    wire_model: str
    requests: Iterator[Request]
    progress: LaneProgress


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """The two clocks: durations from one that never jumps, timestamps from the wall."""

    now_s: Callable[[], float] = time.monotonic
    utc_now: Callable[[], datetime] = lambda: datetime.now(UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Surroundings:
    """What every endpoint shares."""

    prices: Mapping[str, PriceOptions | None]
    on_record: OnRecord
    stop: StopSignal
    rng: random.Random
    clock: Clock


@dataclass(frozen=True, slots=True, kw_only=True)
class _HeldRow:
    """A row whose attempts are used up, on a lane that has never answered."""

    sending: Sending
    attempt: Attempt
    finished_at: datetime


@dataclass(slots=True, kw_only=True)
class _Track:
    """One lane with its rows."""

    work: LaneWork
    lane: Lane
    queue: LaneQueue[Row]
    held: list[_HeldRow] = field(default_factory=list)


async def dispatch(  # noqa: PLR0913 - the seams of a run, all by name
    lanes: Sequence[LaneWork],
    *,
    targets: Mapping[str, Target],
    prices: Mapping[str, PriceOptions | None],
    on_record: OnRecord,
    stop: StopSignal,
    rng: random.Random,
    clock: Clock | None = None,
    connect: Connect = open_transport,
) -> None:
    """Send everything the lanes hold.

    Args:
        lanes: What to send; their progress is kept up to date.
        targets: By endpoint name.
        prices: By model label; a missing one is an unknown price.
        on_record: Takes each record at once; what it raises ends the dispatch.
        stop: Ends it early.
        rng: Source of all jitter.
        clock: Monotonic and wall clock; default: the machine's.
        connect: Opens the transport of a target.

    Raises:
        Exception: Whatever `on_record` or a lane's iterator raised first, unwrapped.
    """
    around = _Surroundings(prices=prices, on_record=on_record, stop=stop, rng=rng, clock=clock or Clock())
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
        retry = target.options.retry
        self._target = target
        self._around = around
        self._policy = RetryPolicy(retry, around.rng)
        self._tracks = [
            _Track(work=work, lane=Lane(work.progress, retry, around.rng), queue=LaneQueue(work.requests))
            for work in works
        ]
        n_rows = sum(work.progress.total for work in works)
        self._n_workers = max(1, min(target.options.concurrency, n_rows))
        self._turn = 0
        self._changed = anyio.Event()
        self._scope = anyio.CancelScope()

    async def run(self, connect: Connect) -> None:
        """Work until nothing is left to send, then give back what was not sent."""
        with self._scope, self._around.stop.listening(self._heed_stop):
            async with connect(self._target) as transport, anyio.create_task_group() as workers:
                for _ in range(self._n_workers):
                    workers.start_soon(self._work, transport)
        for track in self._tracks:
            self._give_back_rest(track)

    def _heed_stop(self) -> None:
        self._wake_sleepers()
        if self._around.stop.is_cancelled:
            self._scope.cancel()

    # Taking rows

    async def _work(self, transport: Transport) -> None:
        while not self._around.stop.is_requested:
            taken = self._take(self._around.clock.now_s())
            if taken is not None:
                await self._attempt(transport, *taken)
            elif self._is_used_up():
                return
            else:
                await self._sleep()

    def _take(self, now_s: float) -> tuple[_Track, Row] | None:
        """Take a row of the lane with the fewest in flight, so that a slow model never starves a fast one."""
        self._turn += 1
        n = len(self._tracks)
        in_turn = [self._tracks[(self._turn + offset) % n] for offset in range(n)]
        for track in sorted(in_turn, key=lambda track: track.work.progress.in_flight) if n > 1 else in_turn:
            opens_at_s = track.lane.opens_at_s()
            if opens_at_s is not None and opens_at_s <= now_s:
                row = self._take_from(track, now_s)
                if row is not None:
                    return track, row
        return None

    def _take_from(self, track: _Track, now_s: float) -> Row | None:
        """Take a waiting row before a new one; a probe takes a new row first, lest one bad row pass for an outage."""
        if not track.lane.is_probing:
            row = track.queue.take_due(now_s)
            if row is not None:
                return row
        request = track.queue.take_new()
        return Row.take(request, now_s) if request is not None else track.queue.take_due(now_s)

    def _is_used_up(self) -> bool:
        return all(track.lane.is_stopped or track.queue.is_empty for track in self._tracks)

    async def _sleep(self) -> None:
        """Sleep until a row may leave, or until a lane changes."""
        due = [
            max(opens_at_s, due_s)
            for track in self._tracks
            if (opens_at_s := track.lane.opens_at_s()) is not None and (due_s := track.queue.next_due_s()) is not None
        ]
        changed = self._changed
        if due:
            with anyio.move_on_after(max(0.0, min(due) - self._around.clock.now_s())):
                await changed.wait()
        else:
            await changed.wait()

    def _wake_sleepers(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    # One attempt

    async def _attempt(self, transport: Transport, track: _Track, row: Row) -> None:
        around, lane = self._around, track.lane
        started, sending = start_attempt(row, now_s=around.clock.now_s(), now=around.clock.utc_now())
        around.on_record(started)
        lane.begin()
        try:
            reply, result = await self._exchange(transport, track, row.request)
        finally:
            lane.end()
        was_probing = lane.is_probing
        if isinstance(result, ApiError):
            self._note_failure(track, sending, result, reply)
        else:
            assert reply is not None  # A completion was read from it.
            self._note_answer(track, sending, reply, result)
        if was_probing or lane.is_probing:
            self._wake_sleepers()

    async def _exchange(
        self, transport: Transport, track: _Track, request: Request
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

    def _read(self, reply: Reply, track: _Track, request: Request) -> Completion:
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

    def _note_answer(self, track: _Track, sending: Sending, reply: Reply, completion: Completion) -> None:
        price = self._around.prices.get(sending.row.request.model)
        attempt = make_answered_attempt(sending, reply, completion, price)
        self._finish(track, sending, attempt, status=completion.status, completion=completion)
        self._note_life(track)

    def _note_failure(self, track: _Track, sending: Sending, error: ApiError, reply: Reply | None) -> None:
        row, now_s = sending.row, self._around.clock.now_s()
        row.last_ended_s = now_s
        row.tries.note(error)
        _add_advice(error, row.request, self._target)
        attempt = make_failed_attempt(sending, error, reply)
        if isinstance(error, ContentRefusedError):
            filtered = Completion(status=Status.FILTERED, output=None, flags=("filtered_before_answer",))
            self._finish(track, sending, attempt, status=Status.FILTERED, completion=filtered)
            self._note_life(track)
            return
        wait_s = self._policy.decide(error, row.tries)
        fate = track.lane.note_failure(error, wait_s=wait_s, now_s=now_s)
        if fate in {Fate.FAIL, Fate.FAIL_AND_STOP}:
            self._finish(track, sending, attempt, status=Status.ERROR, is_permanent=judge_permanence(error))
        else:
            self._settle(track, sending, attempt, fate, now_s + (wait_s or 0.0))
        if fate in {Fate.FAIL_AND_STOP, Fate.PARK_AND_STOP}:
            self._stop_for(track, error, fate)
        elif track.lane.is_proven:
            self._release_held(track)

    def _settle(self, track: _Track, sending: Sending, attempt: Attempt, fate: Fate, due_s: float) -> None:
        """Carry out what the lane decided about a row that has not failed for good."""
        match fate:
            case Fate.RETRY:
                self._around.on_record(attempt)
                self._retry(track, sending.row, due_s)
            case Fate.HOLD if not track.lane.is_stopped:
                held = _HeldRow(sending=sending, attempt=attempt, finished_at=self._around.clock.utc_now())
                track.held.append(held)
            case _:
                self._finish(track, sending, attempt, status=Status.PENDING)

    def _retry(self, track: _Track, row: Row, due_s: float) -> None:
        if track.lane.is_stopped:
            self._give_back(row, ErrorCode.LANE_STOPPED, "the lane stopped before the row's next attempt")
        else:
            track.work.progress.retries += 1
            track.queue.push(row, due_s)

    def _finish(
        self,
        track: _Track,
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
        _count(track.work.progress, outcome)

    # Lanes that come alive, stop or end

    def _note_life(self, track: _Track) -> None:
        track.lane.note_answer()
        self._release_held(track)

    def _release_held(self, track: _Track) -> None:
        """End the rows that were held back: the lane answers others, so their failures are their own."""
        for held in track.held:
            self._finish(track, held.sending, held.attempt, status=Status.ERROR, finished_at=held.finished_at)
        track.held.clear()

    def _stop_for(self, track: _Track, error: ApiError, fate: Fate) -> None:
        """Stop the failure's lane, or all lanes of the endpoint when its key is refused."""
        if fate is Fate.FAIL_AND_STOP:
            message = explain_refusals(error, n_rows=MAX_ALIKE_REFUSALS)
        elif track.lane.is_probing and not self._is_parked(error):
            message = explain_outage(error.message, self._target, n_sent=track.lane.n_sent)
        else:
            message = explain_refusal(error, self._target, now=self._around.clock.utc_now())
        for stopped in self._tracks if error.code == ErrorCode.AUTH else [track]:
            self._stop(stopped, error.code, message)

    def _is_parked(self, error: ApiError) -> bool:
        return (error.retry_after_s or 0.0) > self._target.options.retry.max_pause_s

    def _stop(self, track: _Track, code: str, message: str) -> None:
        track.lane.stop(code, message)
        for held in track.held:
            self._finish(track, held.sending, held.attempt, status=Status.PENDING, finished_at=held.finished_at)
        track.held.clear()
        for row in track.queue.drain():
            self._give_back(row, ErrorCode.LANE_STOPPED, f"the lane stopped ({code}) before the row's next attempt")
        self._wake_sleepers()

    def _give_back(self, row: Row, code: ErrorCode, message: str) -> None:
        self._around.on_record(make_pending(row, code, message, finished_at=self._around.clock.utc_now()))

    def _give_back_rest(self, track: _Track) -> None:
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


def _count(progress: LaneProgress, outcome: Outcome) -> None:
    """Count an outcome; pending rows are not done."""
    if outcome.status is Status.PENDING:
        return
    progress.done += 1
    progress.errors += outcome.status is Status.ERROR
    usage = outcome.usage
    progress.tokens += (usage.prompt_tokens or 0) + (usage.completion_tokens or 0)
    progress.spent_usd += outcome.cost_usd or Decimal(0)
    if outcome.status in ANSWERED:
        progress.answered += 1
        progress.unknown_cost += outcome.cost_usd is None
