"""What an older run would spare: said by `plan` exactly, and by `run` as far as it can be known at once.

A checked job and the runs of the same name enter; a forecast, or a line of advice, leaves. Nothing is sent or written.
"""

from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from itertools import islice

from evalrun.errors import StoreError, UsageError
from evalrun.job.config import LoadedJob
from evalrun.job.plan import Plan
from evalrun.resuming import RunSettings
from evalrun.reusing import ReuseSources, TakenOver, find_sources, open_stored, preview
from evalrun.store.reuse import StoredOutcomes, read_first_keys
from evalrun.store.runs import list_job_folders

MAX_RUNS = 3
"""Runs of the job that are looked at, newest first."""

MIN_SHARE = 0.5
"""`run` gives advice when an older run would spare at least so much of the requests."""

MAX_ROWS = 1_000
"""Rows of the plan that `run` looks up."""

MAX_JOURNAL_BYTES = 8 * 1024 * 1024
"""How much of each journal `run` reads for its advice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReuseForecast:
    """What a run would take over."""

    sources: ReuseSources
    taken: TakenOver
    is_asked_for: bool
    """True when the job or the command line names the runs; False when it is what one could name."""


def forecast_reuse(settings: RunSettings, loaded: LoadedJob, plan: Plan) -> ReuseForecast | None:
    """Return what the runs named would spare or, when none is named, the newest runs of the job; None for nothing.

    Raises:
        UsageError: A run that is named is not there or cannot be read.
    """
    if settings.reuse or loaded.job.reuse is not None:
        sources = find_sources(settings, loaded)
        with open_stored(sources) as stored:
            (taken,) = preview(plan, [stored])
            sources = replace(sources, notes=(*sources.notes, *stored.list_notes()))
        return ReuseForecast(sources=sources, taken=taken, is_asked_for=True)
    choices: list[tuple[ReuseSources, StoredOutcomes]] = []
    with ExitStack() as stack:
        for folder in list_job_folders(loaded.name, settings.reports_dir)[:MAX_RUNS]:
            sources = ReuseSources(folders=(folder,))
            with suppress(UsageError):  # Nobody asked for that run: one that cannot be read is passed over.
                choices.append((sources, stack.enter_context(open_stored(sources))))
        each_taken = preview(plan, [stored for _, stored in choices]) if choices else []
    forecasts = [
        ReuseForecast(sources=sources, taken=taken, is_asked_for=False)
        for (sources, _), taken in zip(choices, each_taken, strict=True)
    ]
    # Of equal ones the newest run, which comes first.
    return max((each for each in forecasts if each.taken.n_rows), key=lambda each: each.taken.n_rows, default=None)


def advise_reuse(settings: RunSettings, loaded: LoadedJob, plan: Plan, *, n_rows: int) -> list[str]:
    """Return a line about the older run that would spare most of the requests; empty when none would.

    Only the first rows and the first part of each journal are looked at, so that it costs a moment; and nothing at all
    where the job has no older run.

    Args:
        settings: Where runs are kept.
        loaded: The job.
        plan: Its rows.
        n_rows: How many they are.
    """
    folders = list_job_folders(loaded.name, settings.reports_dir)[:MAX_RUNS]
    if not folders:
        return []
    wanted = [request.request_key for request in islice(plan.requests(), MAX_ROWS)]
    best, most = None, 0
    for folder in folders:
        n_known = 0
        with suppress(StoreError):  # Advice only: a run that cannot be read gives none.
            n_known = _count_known(wanted, read_first_keys(folder, max_bytes=MAX_JOURNAL_BYTES))
        if n_known > most:
            best, most = folder, n_known
    if best is None or most < MIN_SHARE * len(wanted):
        return []
    first = "" if len(wanted) == n_rows else "first "
    answered = f"the run {best.run_id} has answers to {most:,} of the {first}{len(wanted):,} requests already"
    return [f"{answered}: --reuse {best.run_id} takes them over instead of asking again"]


def _count_known(wanted: Sequence[str], known: set[str]) -> int:
    return sum(key in known for key in wanted)
