"""The second trip: what judges have not said yet is asked, through lanes, journal and budget like everything else.

Answered rows and the run's journal enter; lanes with the requests that are left, and in the end their outcomes in the
journal, leave. Requests are made again when they are wanted, so that memory does not grow with the rows.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Protocol

from evalrun.asking import OnProgress, Progress
from evalrun.dispatch.budget import RunBudget
from evalrun.dispatch.dispatcher import LaneWork
from evalrun.job.config import LoadedJob
from evalrun.judge_rows import JudgeRows, Row
from evalrun.lane_facts import find_own_limits
from evalrun.lane_progress import LaneProgress
from evalrun.options import ModelOptions
from evalrun.records import ErrorCode, Request
from evalrun.resuming import is_settled
from evalrun.reusing import TakeOver
from evalrun.store.journal_index import JournalIndex
from evalrun.store.prior_attempts import add_prior

ScanRows = Callable[[], Iterable[Row]]
"""Gives the rows that may be judged, in plan order; called once for each look at them."""


class Send(Protocol):
    """Sends lanes: `asking.ask`, with all that a call's trips have in common."""

    async def __call__(
        self, *, lanes: Sequence[LaneWork], on_progress: OnProgress, stage: str = "asking"
    ) -> int | None:
        """Return the signal that ended it early; None when none did."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class AllRequests:
    """What a run asks, its judges included: what a budget goes by where the journal does not tell enough."""

    loaded: LoadedJob
    scans: Sequence[Callable[[], Iterable[Request]]]
    """Each gives requests of its own; called when they are wanted."""

    def requests(self) -> Iterator[Request]:
        """Yield every request."""
        return chain.from_iterable(scan() for scan in self.scans)


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeTrip:
    """How a second trip went."""

    lanes: Sequence[LaneWork] = ()
    """Empty when nothing was left to ask, or nothing could be."""
    n_left: Mapping[str, int] = field(default_factory=dict)
    """Requests that were left to ask when it began, by judge."""
    signal: int | None = None
    """What ended it early; None when nothing did."""

    def name_pending_codes(self, judges: JudgeRows, budget: RunBudget | None) -> dict[str, str]:
        """Return, by judge, why a request that has no outcome was not sent.

        Args:
            judges: The job's.
            budget: The run's; None when it has none.
        """
        stops = {(lane.endpoint, lane.wire_model): lane.progress.stopped_by for lane in self.lanes}
        is_spent = budget is not None and budget.is_spent is not None
        codes = {}
        for model in judges.models:
            is_stopped = stops.get((str(model.endpoint), model.wire_model)) not in {None, ErrorCode.BUDGET}
            otherwise = ErrorCode.BUDGET if is_spent else ErrorCode.INTERRUPTED
            codes[model.name] = ErrorCode.LANE_STOPPED.value if is_stopped else otherwise.value
        return codes


class SecondTrip:
    """What the judges are still to be asked.

    Args:
        judges: The job's.
        scan_rows: Gives the rows that may be judged.
        index: The run's journal, kept current while it is written.
        first_index: As for `JudgeRows.scan`.
    """

    def __init__(self, judges: JudgeRows, scan_rows: ScanRows, index: JournalIndex, *, first_index: int) -> None:
        self.n_left: Counter[str] = Counter()
        """Requests left to ask, by judge; counted by `survey`."""
        self._judges = judges
        self._scan_rows = scan_rows
        self._index = index
        self._first_index = first_index
        self._unsettled = bytearray()

    def survey(self, *, retry_all_errors: bool = False, taking: TakeOver | None = None) -> None:
        """Count what is left; what is paid for already is settled on the way.

        Args:
            retry_all_errors: Ask again what ended in a permanent error.
            taking: Where requests find outcomes of older runs; None = nowhere.

        Raises:
            UsageError: An older run cannot be read, or what it gives not be written.
        """
        for _, request in self._judges.scan(self._scan_rows(), first_index=self._first_index):
            entry = self._index.get(request.row_id)
            is_left = not is_settled(entry, request, retry_all_errors=retry_all_errors)
            if is_left and taking is not None:
                is_left = not taking.settle(request, entry)
            self._unsettled.append(is_left)
            self.n_left[request.model] += is_left

    async def ask(
        self, send: Send, *, budget: RunBudget | None, on_progress: OnProgress, notes: Sequence[str] = ()
    ) -> JudgeTrip:
        """Ask what is left; nothing is sent when nothing is left, or the budget is spent already.

        Args:
            send: Sends the lanes.
            budget: What the run may still spend; None = no limit.
            on_progress: Shows what goes on.
            notes: Said before the first request.
        """
        lanes = self._plan_lanes()
        if not lanes or (budget is not None and budget.is_spent is not None):
            return JudgeTrip()
        on_progress(
            Progress(
                stage="judging",
                lanes=[lane.progress for lane in lanes],
                n_left=self.n_left,
                notes=notes,
                budget=budget,
            )
        )
        return JudgeTrip(
            lanes=lanes, n_left=self.n_left, signal=await send(lanes=lanes, on_progress=on_progress, stage="judging")
        )

    def _plan_lanes(self) -> list[LaneWork]:
        """Return the lanes of the judges that have something left to be asked."""
        by_lane: dict[tuple[str, str], list[ModelOptions]] = {}
        for model in self._judges.models:
            if self.n_left[model.name]:
                by_lane.setdefault((str(model.endpoint), model.wire_model), []).append(model)
        lanes = []
        for (endpoint, wire_model), models in by_lane.items():
            names, limits = [model.name for model in models], find_own_limits(models)
            progress = LaneProgress(
                endpoint=endpoint,
                model=f"{', '.join(names)} (judge)",
                total=sum(self.n_left[name] for name in names),
            )
            lanes.append(
                LaneWork(
                    endpoint=endpoint,
                    wire_model=wire_model,
                    requests=self._iterate(names),
                    progress=progress,
                    requests_per_minute=limits.requests_per_minute,
                    tokens_per_minute=limits.tokens_per_minute,
                )
            )
        return lanes

    def _iterate(self, models: Sequence[str]) -> Iterator[Request]:
        """Yield what is left for some judges, with what earlier calls of the run spent on it."""
        found = self._judges.scan(
            self._scan_rows(), first_index=self._first_index, models=models, wanted=self._unsettled
        )
        for _, request in found:
            yield add_prior(request, self._index, self._index.get(request.row_id))
