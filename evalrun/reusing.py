"""Outcomes that are paid for already are taken, not bought.

A job's `reuse`, or `--reuse`, and older runs enter; rows that have their outcome before anything is sent leave, written
into the journal as if they had been asked here, but for what they cost and took. Answers of the run itself to what a
row asked at an earlier time, and asks again now, are found in the same way.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from evalrun.errors import StoreError, UsageError
from evalrun.job.config import LoadedJob
from evalrun.job.plan import Plan
from evalrun.records import Attempt, CostSource, ErrorCode, Outcome, Request, Usage
from evalrun.resuming import RunSettings
from evalrun.store.folder import RunFolder, is_run_folder
from evalrun.store.journal import Journal
from evalrun.store.journal_index import Entry, InDoubt, JournalIndex
from evalrun.store.manifest import is_imported
from evalrun.store.prior_attempts import read_prior
from evalrun.store.reuse import StoredOutcomes
from evalrun.store.runs import LATEST, find_finished, find_run, list_job_folders


@dataclass(frozen=True, slots=True, kw_only=True)
class ReuseSources:
    """The older runs that outcomes are taken from."""

    folders: tuple[RunFolder, ...] = ()
    """In the order of preference."""
    notes: tuple[str, ...] = ()
    """What is worth saying about how they were found."""
    remembered: frozenset[RunFolder] = frozenset()
    """Those that an earlier call of the run named: one that cannot be read any more does not stop a resume."""

    def describe(self) -> list[dict[str, str]]:
        """Return them as JSON values for the journal: a resume goes on with the same runs."""
        return [{"run_id": folder.run_id, "path": str(folder.path)} for folder in self.folders]


def find_sources(
    settings: RunSettings,
    loaded: LoadedJob,
    *,
    own: RunFolder | None = None,
    sessions: Sequence[Mapping[str, Any]] = (),
) -> ReuseSources:
    """Return the runs to take outcomes from.

    A resume goes on with those that earlier calls of the run found, and adds those of its own `--reuse`; what the job
    says counts where no earlier call found any.

    Args:
        settings: With `--reuse`, and where runs are kept.
        loaded: The job.
        own: The run that a resume goes on with; None for a new one.
        sessions: Facts of its earlier calls.

    Raises:
        UsageError: A run that is named is not there, or is the run itself.
    """
    earlier = {facts["run_id"]: facts["path"] for session in sessions for facts in session.get("reuse", ())}
    notes: list[str] = []
    folders = [_find_again(run_id, path, settings, notes) for run_id, path in earlier.items()]
    references = list(settings.reuse)
    if not references and not earlier:
        references = [_resolve(text, loaded) for text in _list_references(loaded.job.reuse)]
    folders += [_find(reference, settings, loaded, own, notes) for reference in references]
    if settings.reuse and own is not None and own in folders:
        hint = "a resume keeps what the run has; leave out --reuse"
        raise UsageError(f"a run cannot reuse itself: {', '.join(settings.reuse)}", hint=hint)
    found = dict.fromkeys(folder for folder in folders if folder not in (None, own))
    remembered = frozenset(folder for folder in folders[: len(earlier)] if folder is not None)
    return ReuseSources(folders=tuple(found), notes=tuple(notes), remembered=remembered)


def _list_references(reuse: str | Sequence[str] | None) -> Sequence[str]:
    return [reuse] if isinstance(reuse, str) else reuse or ()


def _resolve(reference: str, loaded: LoadedJob) -> str:
    """Return a reference of the job with a path made relative to the job's folder, where a run is there."""
    path = loaded.folder / reference
    folder = path.parent if path.is_file() else path
    return str(path) if is_run_folder(folder) else reference


def _find(
    reference: str, settings: RunSettings, loaded: LoadedJob, own: RunFolder | None, notes: list[str]
) -> RunFolder | None:
    if reference != LATEST:
        # The folder as it stands on disk, so that a run is known to be itself by whatever name it comes.
        named = RunFolder.open(find_run(reference, reports_dir=settings.reports_dir).path)
        if is_imported(named):
            hint = "name a run that asked, or leave it out"
            raise UsageError(
                f"the run {named.run_id} was imported: what was asked for its answers is unknown", hint=hint
            )
        return named
    folder = find_finished(loaded.name, settings.reports_dir, other_than=own)
    if folder is None:
        unfinished = [each for each in list_job_folders(loaded.name, settings.reports_dir) if each != own]
        newest = f"; the newest run, {unfinished[0].run_id}, is unfinished and can be named" if unfinished else ""
        notes.append(f"reuse: {loaded.name} has no finished run yet, so nothing is reused{newest}")
    return folder


def _find_again(run_id: str, path: str, settings: RunSettings, notes: list[str]) -> RunFolder | None:
    """Return a run that an earlier call took from, where it is now; None, with a note, when it is gone."""
    if is_run_folder(Path(path)):
        return RunFolder.open(Path(path))
    try:
        return find_run(run_id, reports_dir=settings.reports_dir)
    except UsageError:
        notes.append(f"warning: the run {run_id} that outcomes were taken from is gone; what was taken stays")
        return None


def open_stored(sources: ReuseSources, own: RunFolder | None = None) -> StoredOutcomes:
    """Return what the older runs hold.

    Raises:
        UsageError: A journal cannot be read; nothing was sent.
    """
    try:
        stored = StoredOutcomes(own)
    except StoreError as error:
        raise UsageError(str(error)) from error
    for folder in sources.folders:
        try:
            stored.add_run(folder)
        except StoreError as error:
            problem = f"cannot take outcomes over from the run {folder.run_id}: {error}"
            if folder not in sources.remembered:
                raise UsageError(problem, hint="name another run, or leave it out") from error
            stored.notes.append(f"warning: {problem}; what was taken stays")
    return stored


@dataclass(slots=True, kw_only=True)
class TakenOver:
    """What was settled before anything was sent."""

    rows: Counter[str] = field(default_factory=Counter)
    """By run_id of the run that asked them."""
    models: Counter[str] = field(default_factory=Counter)
    """The same rows by model."""
    usd: Decimal = Decimal(0)
    """What they had cost, as far as it is known."""
    n_unknown_cost: int = 0
    n_restored: int = 0
    """Rows that ask again what they had asked in this run before, and have that answer again."""

    @property
    def n_rows(self) -> int:
        """Rows taken over from older runs."""
        return self.rows.total()

    def add(self, request: Request, outcome: Outcome) -> None:
        """Count an outcome of an older run."""
        self.rows[str(outcome.reused_from)] += 1
        self.models[request.model] += 1
        if outcome.cost_usd is None:
            self.n_unknown_cost += 1
        else:
            self.usd += outcome.cost_usd

    def list_notes(self) -> list[str]:
        """Return what is worth saying of it before the first request."""
        notes = []
        if self.n_rows:
            runs = ", ".join(f"{count:,} from {run_id}" for run_id, count in self.rows.items())
            unknown = f" and {self.n_unknown_cost:,} of unknown cost" if self.n_unknown_cost else ""
            notes.append(
                f"rows taken over from older runs, not asked: {runs}; USD {self.usd:,.4g}{unknown} not spent again"
            )
        if self.n_restored:
            notes.append(f"rows answered from this run's own journal, which had asked the same: {self.n_restored:,}")
        return notes


def preview(plan: Plan, choices: Sequence[StoredOutcomes]) -> list[TakenOver]:
    """Return what a run of the plan would take from each of several stores; nothing is written.

    Raises:
        UsageError: An older journal cannot be read.
    """
    each_taken = [TakenOver() for _ in choices]
    try:
        for request in plan.requests():
            for stored, taken in zip(choices, each_taken, strict=True):
                outcome = stored.take(request.row_id, request.request_key)
                if outcome is not None:
                    taken.add(request, outcome)
    except StoreError as error:
        raise UsageError(str(error)) from error
    return each_taken


class TakeOver:
    """Settles rows by outcomes that are there already; a context manager that closes the files it reads.

    Args:
        sources: The older runs.
        own: The run.
        index: What its journal holds.
        journal: Where outcomes are written before anything is sent.
        stored: What the older runs hold, where it was read already; closed at the end all the same.
    """

    def __init__(
        self,
        sources: ReuseSources,
        own: RunFolder,
        index: JournalIndex,
        journal: Journal,
        stored: StoredOutcomes | None = None,
    ) -> None:
        self.taken = TakenOver()
        self._sources = sources
        self._own = own if len(index) else None
        self._index = index
        self._journal = journal
        # A run that goes on looks into its own journal only when a row asks for it.
        self._stored = stored

    def __enter__(self) -> "TakeOver":
        return self

    def __exit__(self, *_: object) -> None:
        if self._stored is not None:
            self._stored.close()

    @property
    def has_sources(self) -> bool:
        """Whether there is any older run to take from."""
        return bool(self._sources.folders)

    def list_notes(self) -> list[str]:
        """Return what is worth saying of it before the first request."""
        left_out = [] if self._stored is None else self._stored.list_notes()
        notes = [*self._sources.notes, *left_out, *self.taken.list_notes()]
        if self.has_sources and self._own is None and not self.taken.n_rows:
            runs = ", ".join(folder.run_id for folder in self._sources.folders)
            notes.append(f"nothing is taken over: {runs} has no answer to any of these requests")
        return notes

    def settle(self, request: Request, entry: Entry | None) -> bool:
        """Give an unsettled row the outcome of an equal request; tell whether there was one.

        Args:
            request: The row as it is asked now.
            entry: What the run's journal holds for it.

        Raises:
            UsageError: An older journal cannot be read, or the run's own not be written; nothing was sent.
        """
        is_changed = entry is not None and entry.request_key != request.request_key
        if not is_changed and not self.has_sources:
            return False
        if self._stored is None:
            self._stored = open_stored(self._sources, self._own)
        try:
            return (is_changed and self._restore(self._stored, request, entry)) or self._take(
                self._stored, request, entry
            )
        except StoreError as error:
            raise UsageError(str(error)) from error

    def _restore(self, stored: StoredOutcomes, request: Request, entry: Entry | None) -> bool:
        outcome = stored.find_own(request.row_id, request.request_key)
        if outcome is None:
            return False
        self._append(outcome, request, entry)
        self.taken.n_restored += 1
        return True

    def _take(self, stored: StoredOutcomes, request: Request, entry: Entry | None) -> bool:
        outcome = stored.take(request.row_id, request.request_key)
        if outcome is None:
            return False
        # The times are those of another run, which this one did not wait for.
        outcome = replace(outcome, latency_s=None, first_token_s=None, queue_s=None, started_at=None, finished_at=None)
        self._append(outcome, request, entry)
        self.taken.add(request, outcome)
        return True

    def _append(self, outcome: Outcome, request: Request, entry: Entry | None) -> None:
        doubt = self._index.find_doubt(request.row_id)
        if doubt is not None:
            # It is not sent once more, so that nothing else would tell of it; a budget has to count it.
            self._journal.append(_make_lost_attempt(doubt))
        prior = read_prior(self._index, request.row_id, entry)
        self._journal.append(
            replace(
                outcome,
                row_id=request.row_id,
                index=request.index,
                attempts=prior.attempts,
                billed_usd=prior.billed_usd,
                is_billed_estimated=prior.is_estimated and prior.billed_usd is not None,
                last_attempt=None,
            )
        )


def _make_lost_attempt(doubt: InDoubt) -> Attempt:
    """Return what is known of a request that was in flight when an earlier call died."""
    return Attempt(
        row_id=doubt.row_id,
        request_key=doubt.request_key,
        attempt=doubt.attempt,
        started_at=datetime.now(UTC),  # When it left is not known any more: this is when it was given up.
        wait_s=0.0,
        latency_s=None,
        first_token_s=None,
        http_status=None,
        error_code=ErrorCode.INTERRUPTED,
        error_message="in flight when an earlier call of the run died; its row was taken over, and not asked again",
        retry_after_s=None,
        request_id=None,
        bytes_sent=0,
        bytes_received=0,
        usage=Usage(),
        cost_usd=None,
        cost_source=CostSource.UNKNOWN,
        maybe_billed=True,
    )
