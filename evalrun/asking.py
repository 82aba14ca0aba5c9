"""The asking: lanes with their requests enter, records go into the journal, and what goes on is told.

Used for the rows of the plan and, on the second trip, for the requests of judges. A signal ends it: drained at the
first, at once at the second.
"""

import random
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import anyio
from anyio.abc import TaskGroup

from evalrun.dispatch.budget import RunBudget
from evalrun.dispatch.dispatcher import LaneWork, StopSignal, dispatch
from evalrun.dispatch.transport import Target
from evalrun.errors import AuthorError
from evalrun.lane_progress import LaneProgress
from evalrun.preparing import Prepared
from evalrun.prices import PriceBook
from evalrun.records import Request
from evalrun.safe_rows import SafeRows
from evalrun.store.events import EventLog
from evalrun.store.folder import RunFolder
from evalrun.store.journal import Journal

TICK_S = 0.1
"""How often progress is shown, in seconds."""

GRACE_S = 10.0
"""How long requests in flight may finish after an interrupt, in seconds."""

EXIT_BY_SIGNAL: Mapping[int, int] = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What is going on, for whoever shows it. Lanes are live: read them, never keep them."""

    stage: str
    """`checking`, `planning`, `asking`, `judging`, `stopping` or `closing`."""
    n_checked: int = 0
    """Samples checked, or rows looked up in journals."""
    prepared: Prepared | None = None
    folder: RunFolder | None = None
    lanes: Sequence[LaneProgress] = ()
    n_settled: int = 0
    """Rows that need no asking in this call: an earlier call settled them, or an older run's outcome was taken."""
    n_left: Mapping[str, int] = field(default_factory=dict)
    """Rows left to ask, by model; known once the stage is `asking`."""
    budget: RunBudget | None = None
    """Live as well; None when the run has none."""
    notes: Sequence[str] = ()
    """Said once, when the stage begins."""


OnProgress = Callable[[Progress], None]


def ignore_progress(progress: Progress) -> None:
    """Show nothing."""
    del progress


async def ask(  # noqa: PLR0913 - what a trip needs, each by name
    prices: PriceBook,
    journal: Journal,
    log: EventLog,
    *,
    lanes: Sequence[LaneWork],
    targets: Mapping[str, Target],
    budget: RunBudget | None,
    on_progress: OnProgress,
    stage: str = "asking",
) -> int | None:
    """Dispatch every lane into the journal; return the signal that ended it early, None when none did.

    Args:
        prices: What the models cost.
        journal: Takes every record.
        log: Hears what the lanes decide.
        lanes: What to send.
        targets: By name of the endpoint.
        budget: What the run may spend; None = no limit.
        on_progress: Shows what goes on.
        stage: `asking` or `judging`.
    """
    stop, began_s = StopSignal(), time.monotonic()
    failure: Exception | None = None
    failures: list[Exception] = []
    lanes = [replace(lane, requests=_stop_at_failure(lane.requests, stop, failures)) for lane in lanes]
    interrupts = _Interrupts(stop, log, on_progress)
    async with anyio.create_task_group() as group:
        group.start_soon(interrupts.watch, group)
        group.start_soon(_tick, stage, lanes, journal, budget, on_progress)
        try:
            await dispatch(
                lanes,
                targets=targets,
                prices=prices,
                on_record=journal.append,
                stop=stop,
                rng=random.Random(),  # noqa: S311 - jitter, not secrets
                budget=budget,
                on_event=log.append,
            )
        except Exception as error:  # noqa: BLE001 - carried out by hand; the task group would wrap it in a group
            failure = error
        group.cancel_scope.cancel()
    _note_end(log, lanes, budget, stage=stage, asked_s=time.monotonic() - began_s)
    failure = failure or next(iter(failures), None)
    if failure is not None:
        raise failure
    return interrupts.number


def _stop_at_failure(requests: Iterator[Request], stop: StopSignal, failures: list[Exception]) -> Iterator[Request]:
    """Yield requests; where the job's files no longer give any, send nothing new, but let come back what is on its way.

    Raised within the dispatch it would give up all that is in flight, which is paid for.
    """
    try:
        yield from requests
    except AuthorError as error:
        failures.append(error)
        stop.request()


def _note_end(
    log: EventLog, lanes: Sequence[LaneWork], budget: RunBudget | None, *, stage: str, asked_s: float
) -> None:
    """Write how the asking ended; a lane that does not know how long it took, took all the time."""
    for lane in lanes:
        if lane.progress.wall_s is None:
            lane.progress.wall_s = asked_s
    done = sum(lane.progress.done for lane in lanes)
    reason = budget.is_spent if budget is not None else None
    log.append(
        "ended",
        at=datetime.now(UTC),
        seconds=asked_s,
        rows_done=done,
        stage=stage,
        budget=reason,
    )


async def _tick(
    stage: str,
    lanes: Sequence[LaneWork],
    journal: Journal,
    budget: RunBudget | None,
    on_progress: OnProgress,
) -> None:
    progress = Progress(stage=stage, lanes=[lane.progress for lane in lanes], budget=budget)
    safe_rows = SafeRows(progress.lanes, journal)
    while True:
        await anyio.sleep(TICK_S)
        safe_rows.count()
        on_progress(progress)


class _Interrupts:
    """Ends the asking when the user or the system wants it: drained at the first signal, at once at the second.

    Args:
        stop: Asks the dispatch to end.
        log: The run's event log.
        on_progress: Shows what goes on.
    """

    def __init__(self, stop: StopSignal, log: EventLog, on_progress: OnProgress) -> None:
        self.number: int | None = None
        """The first signal that came; None while none did."""
        self._stop = stop
        self._log = log
        self._on_progress = on_progress

    async def watch(self, group: TaskGroup) -> None:
        """Wait for signals; the group is where the grace time runs."""
        if threading.current_thread() is not threading.main_thread():
            return  # Signals reach the main thread only; a caller in another thread handles them itself.
        # What is ignored on purpose stays so: `nohup` outlives its terminal.
        heeded = [signal.Signals(n) for n in EXIT_BY_SIGNAL if signal.getsignal(n) is not signal.SIG_IGN]
        with anyio.open_signal_receiver(*heeded) as signals:
            async for number in signals:
                if self.number is None:
                    self.number = number
                    group.start_soon(self._drain)
                else:
                    self._cancel("stopping now: requests in flight are given up, and may have been billed")

    async def _drain(self) -> None:
        """Send nothing new, and give up what is still in flight when the grace time is over."""
        note = f"stopping: requests in flight may finish within {GRACE_S:g} s; once more stops at once"
        self._tell("interrupted", note)
        self._stop.request()
        await anyio.sleep(GRACE_S)
        self._cancel(f"requests still in flight after {GRACE_S:g} s are given up, and may have been billed")

    def _cancel(self, note: str) -> None:
        if not self._stop.is_cancelled:
            self._tell("cancelled", note)
            self._stop.cancel()

    def _tell(self, what: str, note: str) -> None:
        assert self.number is not None  # A signal came first.
        self._log.append(what, at=datetime.now(UTC), signal=signal.Signals(self.number).name)
        self._on_progress(Progress(stage="stopping", notes=[note]))
