"""What is left to ask in each lane, and what a resume says about the rest.

A checked job and what its journal holds enter; lanes with their unsettled requests, and notes for the user, leave. Rows
that an older run has paid for are settled on the way, so that the plan is gone through once.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from evalrun.dispatch.dispatcher import LaneWork
from evalrun.job.differences import describe_difference, list_differences
from evalrun.lane_facts import find_own_limits
from evalrun.lane_progress import LaneProgress
from evalrun.options import ModelOptions
from evalrun.preparing import Prepared
from evalrun.records import Request
from evalrun.resuming import is_settled
from evalrun.reusing import TakeOver
from evalrun.stale_rows import describe_stale
from evalrun.store.folder import RunFolder
from evalrun.store.journal_index import JournalIndex
from evalrun.store.prior_attempts import add_prior

PROGRESS_EVERY = 500
"""Rows between two calls of `on_row`."""

MAX_CHANGES = 8
"""Most changes of a job that are written out."""

MAX_STALE_NAMES = 5
"""Most stale rows that are named on the terminal."""


@dataclass(slots=True, kw_only=True)
class Survey:
    """What became of the plan's rows before anything is sent."""

    n_left: Counter[str] = field(default_factory=Counter)
    """Rows left to ask, by model."""
    unsettled: bytearray | None = None
    """By index in the plan: 1 for a row that is left to ask, 0 for any other; None when all are left."""
    n_changed: int = 0
    """Rows left to ask that the run has asked before, with another request."""
    stale: dict[str, Any] | None = None
    """What run.json tells of rows that the job no longer has; None when there are none."""

    @property
    def n_rows_left(self) -> int:
        """Rows left to ask."""
        return self.n_left.total()


def survey_rows(
    prepared: Prepared,
    folder: RunFolder,
    index: JournalIndex,
    taking: TakeOver,
    *,
    on_row: Callable[[int], None] | None = None,
) -> Survey:
    """Settle what is paid for already, and count what is left.

    Args:
        prepared: The job.
        folder: The run.
        index: Its journal.
        taking: Where rows find outcomes of older runs.
        on_row: Told the number of rows looked at, now and then.

    Raises:
        UsageError: An older run cannot be read, or what it gives not be written; nothing was sent.
    """
    survey = Survey()
    if not len(index) and not taking.has_sources:
        for estimate in prepared.totals.models:
            survey.n_left[estimate.model] = estimate.requests
        return survey
    is_planned, unsettled = bytearray(len(index)), bytearray()
    for n_rows, request in enumerate(prepared.plan.requests(), start=1):
        entry = index.get(request.row_id)
        if entry is not None:
            is_planned[entry.number] = True
        for row_id in prepared.judges.list_row_ids(request.sample, request.row_id):
            judged = index.get(row_id)
            if judged is not None:
                is_planned[judged.number] = True
        is_left = not is_settled(
            entry, request, retry_all_errors=prepared.settings.retry_all_errors
        ) and not taking.settle(request, entry)
        unsettled.append(is_left)
        if is_left:
            survey.n_left[request.model] += 1
            survey.n_changed += entry is not None and entry.request_key != request.request_key
        if on_row is not None and n_rows % PROGRESS_EVERY == 0:
            on_row(n_rows)
    survey.unsettled = unsettled
    survey.stale = describe_stale(folder, index, is_planned)
    return survey


def plan_lanes(prepared: Prepared, index: JournalIndex, survey: Survey) -> list[LaneWork]:
    """Return the lanes with what is left to ask in each."""
    names: dict[tuple[str, str], list[str]] = {}
    for model in prepared.plan.models:
        names.setdefault((str(model.endpoint), model.wire_model), []).append(model.name)
    lanes = []
    for (endpoint, wire_model), models in names.items():
        limits = find_own_limits(list_lane_models(prepared, endpoint, wire_model))
        total = sum(survey.n_left[model] for model in models)
        lanes.append(
            LaneWork(
                endpoint=endpoint,
                wire_model=wire_model,
                requests=_iterate_unsettled(prepared, index, models, survey.unsettled),
                progress=LaneProgress(endpoint=endpoint, model=", ".join(models), total=total),
                requests_per_minute=limits.requests_per_minute,
                tokens_per_minute=limits.tokens_per_minute,
            )
        )
    return lanes


def _iterate_unsettled(
    prepared: Prepared, index: JournalIndex, models: Sequence[str], unsettled: bytearray | None
) -> Iterator[Request]:
    """Return the requests that are left, rendering no others; those of a new run are all there are."""
    requests = prepared.plan.requests(models=models, wanted=unsettled)
    return requests if unsettled is None else _add_prior(requests, prepared, index)


def _add_prior(requests: Iterator[Request], prepared: Prepared, index: JournalIndex) -> Iterator[Request]:
    for request in requests:
        entry = index.get(request.row_id)
        if entry is None:
            yield request
        # Looked at once more: were a file changed since the survey, its rows would stand elsewhere in the plan.
        elif not is_settled(entry, request, retry_all_errors=prepared.settings.retry_all_errors):
            yield add_prior(request, index, entry)


def note_warnings(prepared: Prepared) -> list[str]:
    """Return what is no error, but should be known before the run."""
    loaded = prepared.loaded
    return [*loaded.notes, *(f"warning: {warning.render()}" for warning in loaded.warnings)]


def note_resume(prepared: Prepared, index: JournalIndex, survey: Survey) -> list[str]:
    """Return what a resume says: of its journal, and of what has changed since the run began."""
    notes = []
    if index.torn_bytes:
        notes.append(f"the journal ended in a torn record of {index.torn_bytes} bytes; it was cut off")
    if index.dropped_bytes:
        notes.append(f"{index.dropped_bytes} damaged bytes of the journal were left out; what they held is asked again")
    if index.in_doubt:
        notes.append(f"requests in flight when the run stopped, sent once more: {len(index.in_doubt)}")
    first = index.sessions[0]
    if first.get("job_digest") not in (None, prepared.loaded.digest):
        changed = _describe_changes(first.get("job", {}), prepared.loaded.raw)
        notes.append(f"the job has changed since the run began ({changed}); rows asked again: {survey.n_changed}")
    elif survey.n_changed:
        notes.append(f"rows that the dataset has changed since the run began, asked again: {survey.n_changed}")
    if survey.stale is not None:
        notes.append(_describe_stale_rows(survey.stale))
    return notes


def _describe_changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """Return at which keys two jobs differ, old and new value."""
    changes = list_differences(before, after, by_name=True)
    more = f"; and {len(changes) - MAX_CHANGES} more" if len(changes) > MAX_CHANGES else ""
    return ("; ".join(map(describe_difference, changes[:MAX_CHANGES])) or "its texts") + more


def _describe_stale_rows(stale: Mapping[str, Any]) -> str:
    samples = dict.fromkeys(row["sample_id"] for row in stale["listed"] if row["sample_id"] is not None)
    named = list(samples)[:MAX_STALE_NAMES]
    more = ", …" if len(samples) > MAX_STALE_NAMES else ""
    of = f" (of {', '.join(named)}{more})" if named else ""
    return f"rows that the job no longer has, kept in the journal and left out of the tables: {stale['rows']}{of}"


def list_lane_models(prepared: Prepared, endpoint: str, wire_model: str) -> list[ModelOptions]:
    """Return the models of one lane."""
    return [model for model in prepared.plan.models if (model.endpoint, model.wire_model) == (endpoint, wire_model)]
