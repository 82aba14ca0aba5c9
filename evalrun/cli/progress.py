"""What a run looks like while it is under way: a live display on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Sequence
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

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

    from evalrun.pipeline import Prepared, Progress
    from evalrun.records import LaneProgress

PLAIN_EVERY_S = 10.0
"""Seconds between two plain lines."""

CHECK_NOTE_EVERY = 100_000
"""Samples between two lines of the check before the first request."""


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

    def __enter__(self) -> "ProgressDisplay":
        """Start showing."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the live region, whatever happened."""
        self._stop_live()

    def show(self, progress: "Progress") -> None:
        """Take one state of the run; called about ten times a second."""
        if self._mode == "none":
            return
        if progress.stage == "checking":
            self._show_check(progress.n_checked)
        elif progress.stage == "stopping":
            self._stop_live()
            for note in progress.notes:
                print_note(note)
        elif progress.stage == "asking" and self._stage not in {"asking", "stopping"}:
            self._begin_asking(progress)
        elif progress.stage == "asking":
            self._show_asking(progress.lanes)
            return
        elif progress.stage == "closing":
            self._stop_live()
        self._stage = progress.stage

    def _show_check(self, n_checked: int) -> None:
        if n_checked - self._checked >= CHECK_NOTE_EVERY:
            self._checked = n_checked
            print_note(f"checked {format_count(n_checked)} samples")

    def _begin_asking(self, progress: "Progress") -> None:
        self._began_s = self._last_line_s = time.monotonic()
        if progress.prepared is not None:
            print_note(describe_plan(progress.prepared, n_settled=progress.n_settled))
        for note in progress.notes:
            print_note(note)
        if progress.folder is not None:
            print_note(f"run folder: {show_path(progress.folder.path)}")
        if self._mode == "live":
            from rich.live import Live

            self._live = Live(console=open_console(sys.stderr), refresh_per_second=10, transient=True)
            self._live.start()

    def _show_asking(self, lanes: Sequence["LaneProgress"]) -> None:
        now_s = time.monotonic()
        if self._live is not None:
            self._live.update(self._render_lanes(lanes, now_s, width=self._live.console.width))
        elif now_s - self._last_line_s >= PLAIN_EVERY_S:
            self._last_line_s = now_s
            print_note(self._describe_lanes(lanes, now_s))

    def _describe_lanes(self, lanes: Sequence["LaneProgress"], now_s: float) -> str:
        done, total = sum(lane.done for lane in lanes), sum(lane.total for lane in lanes)
        errors, retries = sum(lane.errors for lane in lanes), sum(lane.retries for lane in lanes)
        spent = sum((lane.spent_usd for lane in lanes), Decimal(0))
        parts = [
            f"{format_count(done)}/{format_count(total)} rows ({format_percent(done / total if total else None)})",
            f"{errors} errors",
            f"{retries} retries",
            f"{format_usd(float(spent))}{' + unknown' if any(lane.unknown_cost for lane in lanes) else ''} spent",
            _describe_left(done, total, now_s - self._began_s),
        ]
        waiting = [describe_wait(lane, now_s) for lane in lanes if lane.waiting_until_s > now_s]
        return ", ".join([*parts, *waiting])

    def _render_lanes(self, lanes: Sequence["LaneProgress"], now_s: float, *, width: int) -> "RenderableType":
        """Return a line for each lane: whole cells as far as the terminal is wide, the most telling first."""
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        grid = Table.grid(padding=(0, 2))
        for lane in lanes:
            cells: list[tuple[int, RenderableType]] = [
                (0, Text(clean_text(lane.model), style="bold")),
                (95, ProgressBar(total=max(lane.total, 1), completed=lane.done, width=24)),
                (0, Text(f"{format_count(lane.done)}/{format_count(lane.total)}")),
                (55, Text(f"{lane.errors} errors", style="red" if lane.errors else "dim")),
                (70, Text(f"{lane.retries} retries", style="yellow" if lane.retries else "dim")),
                (120, Text(f"{lane.in_flight} in flight")),
                (85, Text(_describe_spend(lane))),
                (0, Text(_describe_state(lane, now_s - self._began_s, now_s), style="dim")),
            ]
            grid.add_row(*(cell for least_width, cell in cells if width >= least_width))
        for column in grid.columns:
            column.no_wrap = True
        return grid

    def _stop_live(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None


def describe_plan(prepared: "Prepared", *, n_settled: int) -> str:
    """Return the banner of a run: what is about to be asked, and what it may cost."""
    totals, plan = prepared.totals, prepared.plan
    factors = [
        count_noun(totals.n_samples, "sample"),
        count_noun(len(plan.prompts), "prompt"),
        count_noun(len(plan.models), "model"),
        *([count_noun(plan.repeats, "repeat")] if plan.repeats > 1 else []),
    ]
    text = f"{prepared.loaded.name}: {' × '.join(factors)} = {count_noun(totals.n_rows, 'row')}"
    if n_settled:
        text += f", {format_count(n_settled)} of them settled already"
    usd = totals.usd
    if usd.expected is not None:
        return f"{text}; in all about {format_usd(usd.expected)} ({format_usd(usd.low)} – {format_usd(usd.high)})"
    return f"{text}; price unknown"


def describe_wait(lane: "LaneProgress", now_s: float) -> str:
    """Return why and how long a lane waits."""
    why = "rate limit" if lane.rate_limited else "the endpoint does not answer"
    return f"{lane.model} waits {format_seconds(lane.waiting_until_s - now_s)} ({why})"


def _describe_spend(lane: "LaneProgress") -> str:
    return format_usd(float(lane.spent_usd)) + (" + unknown" if lane.unknown_cost else "")


def _describe_state(lane: "LaneProgress", elapsed_s: float, now_s: float) -> str:
    if lane.stopped_by is not None:
        return f"stopped: {lane.stopped_by}"
    if lane.waiting_until_s > now_s:
        return f"waits {format_seconds(lane.waiting_until_s - now_s)}"
    if lane.done >= lane.total:
        return "done"
    return _describe_left(lane.done, lane.total, elapsed_s)


def _describe_left(done: int, total: int, elapsed_s: float) -> str:
    """Return the time left at the rate so far, in words."""
    return f"{format_seconds(elapsed_s * (total - done) / done)} left" if done else "time left unknown"
