"""What a run looks like while it is under way: a live display on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING

from evalrun.cli.console import (
    clean_text,
    count_noun,
    format_count,
    format_percent,
    format_seconds,
    format_usd,
    is_interactive,
    open_console,
    print_note,
    show_path,
)
from evalrun.cli.lane_words import (
    RateMeter,
    describe_flight,
    describe_limits,
    describe_rate,
    describe_spend,
    describe_stops,
    describe_wait,
)
from evalrun.cli.results import make_resume_command
from evalrun.job.estimate import scale_totals
from evalrun.records import ErrorCode
from evalrun.resume_words import MARKED_RESUME_COMMAND

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live
    from rich.text import Text

    from evalrun.asking import Progress
    from evalrun.dispatch.budget import RunBudget
    from evalrun.lane_progress import LaneProgress
    from evalrun.preparing import Prepared
    from evalrun.store.folder import RunFolder

PLAIN_EVERY_S = 10.0
"""Seconds between two plain lines."""

CHECK_NOTE_EVERY = 100_000
"""Samples between two lines of the check before the first request."""

_GAP = 2
_BAR_CELLS = 24
_CELL_RANKS = (0, 0, 4, 7, 5, 2, 3, 6, 0)
"""Of model, rows, errors, retries, 429s, flight, rate, spend and state: where the terminal is narrow the bar goes
first, then the cells of a higher rank; those of rank 0 stay."""


class ProgressDisplay:
    """Shows a run's progress on stderr; a context manager that leaves the terminal as it was.

    Args:
        mode: `auto` (live on a terminal, else plain), `plain`, or `none`.
    """

    def __init__(self, mode: str = "auto") -> None:
        """Choose how to show; nothing is written yet."""
        self._mode = ("live" if is_interactive(sys.stderr) else "plain") if mode == "auto" else mode
        self._live: Live | None = None
        self._began_s = 0.0
        self._last_line_s = 0.0
        self._checked = 0
        self._stage = ""
        self._rates = RateMeter()
        self._lanes: Sequence[LaneProgress] = ()
        self._stops_told: set[int] = set()
        self._resume_command = MARKED_RESUME_COMMAND
        self.folder: RunFolder | None = None
        """The run's folder; None before there is one."""

    def __enter__(self) -> "ProgressDisplay":
        """Start showing."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the live region, whatever happened."""
        self._stop_live()

    def show(self, progress: "Progress") -> None:
        """Take one state of the run; called about ten times a second."""
        self.folder = progress.folder or self.folder
        if self._mode == "none":
            return
        if progress.stage in {"checking", "planning"}:
            self._show_count(progress)
        elif progress.stage == "stopping":
            self._stop_live()
            for note in progress.notes:
                print_note(note)
        elif progress.stage == "asking" and self._stage not in {"asking", "stopping"}:
            self._begin_asking(progress)
        elif progress.stage == "judging" and self._stage not in {"judging", "stopping"}:
            self._begin_judging(progress)
        elif progress.stage in {"asking", "judging"}:
            self._show_asking(progress.lanes, progress.budget)
            return
        elif progress.stage == "closing":
            self._tell_stops()
            self._stop_live()
            for note in progress.notes:
                print_note(note)
        self._stage = progress.stage

    def _show_count(self, progress: "Progress") -> None:
        if progress.stage != self._stage:
            self._checked = 0
        if progress.n_checked - self._checked >= CHECK_NOTE_EVERY:
            self._checked = progress.n_checked
            n_checked = format_count(progress.n_checked)
            what = f"checked {n_checked} samples" if progress.stage == "checking" else f"looked up {n_checked} rows"
            print_note(what)

    def _begin_asking(self, progress: "Progress") -> None:
        self._began_s = self._last_line_s = time.monotonic()
        self._lanes = progress.lanes
        if progress.prepared is not None and progress.folder is not None:
            command = make_resume_command(progress.prepared.settings.job_path, progress.folder)
            self._resume_command = f"`{command}`"
        if progress.prepared is not None:
            print_note(describe_plan(progress.prepared, n_left=progress.n_left))
        for note in progress.notes:
            print_note(note)
        if progress.folder is not None:
            print_note(f"run folder: {show_path(progress.folder.path)}")
        self._begin_live()

    def _begin_judging(self, progress: "Progress") -> None:
        """Go over to the second trip: the lanes are those of the judges."""
        self._tell_stops()
        self._stop_live()
        self._began_s = self._last_line_s = time.monotonic()
        self._lanes = progress.lanes
        print_note(f"judging: {count_noun(sum(lane.total for lane in progress.lanes), 'request')} to judges")
        for note in progress.notes:
            print_note(note)
        self._begin_live()

    def _begin_live(self) -> None:
        if self._mode == "live":
            from rich.live import Live

            self._live = Live(console=open_console(sys.stderr), refresh_per_second=10, transient=True)
            self._live.start()

    def _show_asking(self, lanes: Sequence["LaneProgress"], budget: "RunBudget | None") -> None:
        now_s = time.monotonic()
        for lane in lanes:
            self._rates.note(lane, now_s)
        self._tell_stops()
        if self._live is not None:
            self._live.update(self._render_lanes(lanes, now_s, width=self._live.console.width, budget=budget))
        elif now_s - self._last_line_s >= PLAIN_EVERY_S:
            self._last_line_s = now_s
            print_note(self._describe_lanes(lanes, now_s, budget))

    def _tell_stops(self) -> None:
        """Say of each lane once why it stopped, as it happens: the end of the run may be hours away."""
        stopped = [lane for lane in self._lanes if lane.stopped_by not in {None, ErrorCode.BUDGET}]
        new = [lane for lane in stopped if id(lane) not in self._stops_told]
        self._stops_told.update(id(lane) for lane in new)
        told = [(lane.model, str(lane.stop_message or lane.stopped_by)) for lane in new]
        for line in describe_stops(told, command=self._resume_command):
            print_note(line)

    def _describe_lanes(self, lanes: Sequence["LaneProgress"], now_s: float, budget: "RunBudget | None") -> str:
        done, total = sum(lane.acknowledged for lane in lanes), sum(lane.total for lane in lanes)
        errors, retries = sum(lane.errors for lane in lanes), sum(lane.retries for lane in lanes)
        throttled = sum(lane.rate_limited for lane in lanes)
        spent = float(sum((lane.spent_usd for lane in lanes), Decimal(0)))
        rates = [rate for lane in lanes if (rate := self._rates.read(lane)) is not None]
        parts = [
            f"{format_count(done)}/{format_count(total)} rows ({format_percent(done / total if total else None)})",
            f"{errors} errors",
            f"{retries} retries",
            *([f"{throttled} × 429"] if throttled else []),
            describe_spend(spent, has_unknown=any(lane.unknown_cost for lane in lanes), budget=budget),
            *describe_limits(budget, now_s),
            f"{sum(lane.in_flight for lane in lanes)} in flight",
            describe_rate(sum(rates) if rates else None),
            _describe_left(done, total, now_s - self._began_s),
        ]
        told = [(lane, describe_wait(lane, now_s)) for lane in lanes]
        stopped = [f"{lane.model} stopped: {lane.stopped_by}" for lane in lanes if lane.stopped_by is not None]
        return ", ".join([*parts, *(f"{lane.model} {wait}" for lane, wait in told if wait is not None), *stopped])

    def _render_lanes(
        self, lanes: Sequence["LaneProgress"], now_s: float, *, width: int, budget: "RunBudget | None"
    ) -> "RenderableType":
        """Return a line for each lane: whole cells as far as the terminal is wide, the most telling first."""
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        rows = [self._make_cells(lane, now_s) for lane in lanes]
        widths = [max(cell.cell_len for cell in column) for column in zip(*rows, strict=True)]
        kept = list(range(len(widths)))
        has_bar = sum(widths) + _BAR_CELLS + _GAP * len(widths) <= width
        while sum(widths[at] for at in kept) + _GAP * (len(kept) - 1) > width and any(_CELL_RANKS[at] for at in kept):
            kept.remove(max(kept, key=lambda at: _CELL_RANKS[at]))
        grid = Table.grid(padding=(0, _GAP), pad_edge=False)
        for lane, cells in zip(lanes, rows, strict=True):
            done, total = lane.acknowledged, max(lane.total, 1)
            bar = [ProgressBar(total=total, completed=done, width=_BAR_CELLS)] if has_bar else []
            name, *others = (cells[at] for at in kept)
            grid.add_row(name, *bar, *others)
        for column in grid.columns:
            column.no_wrap = True
        return Group(grid, *_render_budget(lanes, budget, now_s))

    def _make_cells(self, lane: "LaneProgress", now_s: float) -> list["Text"]:
        """Return what a lane's line may hold, in the order of `_CELL_RANKS`."""
        from rich.text import Text

        return [
            Text(clean_text(lane.model), style="bold"),
            Text(f"{format_count(lane.acknowledged)}/{format_count(lane.total)}"),
            Text(f"{lane.errors} errors", style="red" if lane.errors else "dim"),
            Text(f"{lane.retries} retries", style="yellow" if lane.retries else "dim"),
            Text(f"{lane.rate_limited} × 429", style="yellow" if lane.rate_limited else "dim"),
            Text(describe_flight(lane)),
            Text(describe_rate(self._rates.read(lane))),
            Text(_describe_spend(lane)),
            Text(_describe_state(lane, now_s - self._began_s, now_s), style="dim"),
        ]

    def _stop_live(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None


def describe_plan(prepared: "Prepared", *, n_left: Mapping[str, int] | None = None) -> str:
    """Return the banner of a run: what is about to be asked, and what it may cost.

    Args:
        prepared: The job.
        n_left: Rows left to ask, by model; what else there is was settled before or taken over. None = all.
    """
    totals, plan = prepared.totals, prepared.plan
    factors = [
        count_noun(totals.n_samples, "sample"),
        count_noun(len(plan.prompts), "prompt"),
        count_noun(len(plan.models), "model"),
        *([count_noun(plan.repeats, "repeat")] if plan.repeats > 1 else []),
    ]
    text = f"{prepared.loaded.name}: {' × '.join(factors)} = {count_noun(totals.n_rows, 'row')}"
    left = totals if n_left is None else scale_totals(totals, n_left)
    n_settled, usd = totals.n_rows - left.n_rows, left.usd
    if n_settled:
        text += f", {format_count(n_settled)} of them settled already"
    if not left.n_rows:
        return f"{text}; nothing is left to ask"
    what = f"the other {format_count(left.n_rows)}" if n_settled else "in all"
    if usd.expected is not None:
        return f"{text}; {what} about {format_usd(usd.expected)} ({format_usd(usd.low)} – {format_usd(usd.high)})"
    return f"{text}; price unknown"


def _render_budget(lanes: Sequence["LaneProgress"], budget: "RunBudget | None", now_s: float) -> list["RenderableType"]:
    """Return a line for the run's budget, when it has one."""
    from rich.text import Text

    if budget is None:
        return []
    spent = float(sum((lane.spent_usd for lane in lanes), Decimal(0)))
    has_unknown = any(lane.unknown_cost for lane in lanes)
    words = [describe_spend(spent, has_unknown=has_unknown, budget=budget), *describe_limits(budget, now_s)]
    return [Text(f"budget: {', '.join(words)}")]


def _describe_spend(lane: "LaneProgress") -> str:
    return format_usd(float(lane.spent_usd)) + (" + unknown" if lane.unknown_cost else "")


def _describe_state(lane: "LaneProgress", elapsed_s: float, now_s: float) -> str:
    if lane.stopped_by is not None:
        return f"stopped: {lane.stopped_by}"
    wait = describe_wait(lane, now_s)
    if wait is not None:
        return wait
    if lane.acknowledged >= lane.total:
        return "done"
    return _describe_left(lane.acknowledged, lane.total, elapsed_s)


def _describe_left(done: int, total: int, elapsed_s: float) -> str:
    """Return the time left at the rate so far, in words."""
    return f"{format_seconds(elapsed_s * (total - done) / done)} left" if done else "time left unknown"
