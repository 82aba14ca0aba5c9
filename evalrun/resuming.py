"""What a call of `run` says beside the job, and how a resume finds the run that it goes on with.

Settings enter; the locked run folder and what its journal holds leave. A resume begins from what the run's first call
narrowed or changed, and is refused where it would leave rows out or pay for rows again.
"""

import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from evalrun.errors import StoreError, UsageError
from evalrun.job.config import LoadedJob, load_env_file, load_job
from evalrun.job.plan import Selection
from evalrun.records import FINISHED, PASSING, Request, Status
from evalrun.store.folder import RunFolder, make_run_id
from evalrun.store.journal_index import Entry, JournalIndex
from evalrun.store.journal_scan import read_first_session, scan_journal
from evalrun.store.manifest import is_imported, read_extent
from evalrun.store.runs import find_run, find_unfinished


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSettings:
    """What the command line, or a Python caller, says beside the job."""

    job_path: Path
    reports_dir: Path = Path("reports")
    overrides: Sequence[str] = ()
    """`--set`: `models[gpt-5.1].params.temperature=0`."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """`--var`."""
    env_file: Path | None = None
    selection: Selection = field(default_factory=Selection)
    resume: bool = False
    """Go on with an unfinished run."""
    resume_run: str | None = None
    """Which one; None = the job's newest unfinished run."""
    repair: bool = False
    """A resume keeps what is good of a damaged journal."""
    reuse: tuple[str, ...] = ()
    """`--reuse`: runs whose outcomes are taken over, as written; empty = those of the job's `reuse`."""
    retry_all_errors: bool = False
    """A resume asks rows with permanent errors again, too."""
    is_gate_wanted: bool = True
    allows_unknown_cost: bool = False
    """Models without a price may be asked under `budget.usd`; what they cost is not counted."""
    requires_cost: bool = False
    """A model without a price is an error, found before anything is sent."""


def load_for(settings: RunSettings, environ: dict[str, str]) -> LoadedJob:
    """Load the job; the variables of `--env-file` are added to the environment given."""
    if settings.env_file is not None:
        environ |= load_env_file(settings.env_file)
    return load_job(
        settings.job_path,
        overrides=settings.overrides,
        variables=settings.variables,
        environ=environ,
        asks_library=True,
    )


def restore_call(settings: RunSettings) -> RunSettings:
    """Return the settings of a resume with what the run's first call narrowed or changed; new changes go on top.

    Raises:
        UsageError: There is nothing to resume, or a flag would leave rows of the run out.
    """
    if not settings.resume:
        return settings
    name = "" if settings.resume_run is not None else load_for(settings, dict(os.environ)).name
    try:
        folder = _find_resumable(settings, name)
        facts = read_first_session(folder)
    except StoreError as error:
        raise UsageError(str(error)) from error
    call = facts.get("call", {}) if facts is not None else {}
    stored, given = call.get("selection"), settings.selection
    if stored is None:
        return replace(settings, resume_run=str(folder.path))
    asked = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(given).items()}
    changed = [key for key, value in asked.items() if value not in (None, [], stored.get(key))]
    if changed:
        flags = ", ".join(f"--{key.removesuffix('s')}" for key in changed)
        raise UsageError(
            f"a resume asks what the run {folder.run_id} began with; {flags} would leave rows of it out",
            hint=f"leave out {flags}, or start a new run without --resume",
        )
    return replace(
        settings,
        resume_run=str(folder.path),
        overrides=(*call.get("overrides", ()), *settings.overrides),
        variables={**call.get("variables", {}), **settings.variables},
        allows_unknown_cost=settings.allows_unknown_cost or bool(call.get("allows_unknown_cost")),
        requires_cost=settings.requires_cost or bool(call.get("requires_cost")),
        env_file=settings.env_file or (Path(call["env_file"]) if call.get("env_file") else None),
        selection=Selection(
            limit=stored["limit"],
            models=tuple(stored["models"]),
            prompts=tuple(stored["prompts"]),
            where=stored["where"],
        ),
    )


def describe_call(settings: RunSettings) -> dict[str, Any]:
    """Return what a call narrows or changes, as JSON values: a resume and a new grading begin from it."""
    return {
        "overrides": list(settings.overrides),
        "variables": dict(settings.variables),
        "env_file": str(settings.env_file.absolute()) if settings.env_file is not None else None,
        "selection": asdict(settings.selection),
        "allows_unknown_cost": settings.allows_unknown_cost,
        "requires_cost": settings.requires_cost,
    }


@contextmanager
def open_folder(settings: RunSettings, name: str) -> Iterator[tuple[RunFolder, JournalIndex]]:
    """Yield the locked run folder, new or resumed, and what its journal holds.

    Args:
        settings: Where runs are kept, and which one to go on with.
        name: The job's name.

    Raises:
        UsageError: There is nothing to resume, or the folder cannot be written; nothing was sent.
    """
    with ExitStack() as stack:
        try:
            if settings.resume:
                folder = _find_resumable(settings, name)
            else:
                run_id = make_run_id(datetime.now(UTC), secrets.SystemRandom())
                folder = RunFolder.create(settings.reports_dir, name, run_id)
            stack.enter_context(folder.lock())
            index = stack.enter_context(scan_journal(folder, for_append=True, repair=settings.repair))
            owner = index.sessions[0].get("job_name") if index.sessions else None
            if owner not in (None, name):
                raise UsageError(f"the run {folder.run_id} is of the job {owner!r}, not of {name!r}")
            if not settings.repair:
                _check_journal_is_whole(folder, index)
        except StoreError as error:
            raise UsageError(str(error)) from error
        yield folder, index


def _check_journal_is_whole(folder: RunFolder, index: JournalIndex) -> None:
    """Refuse to pay again for what run.json says is done, when the journal no longer holds it."""
    known = read_extent(folder)
    lost = None
    if known is not None and known.n_records is not None and known.n_records > index.n_records:
        lost = f"knows of {known.n_records} records of its journal, which now has {index.n_records}"
    elif known is not None and known.n_done > len(index):
        lost = f"counts {known.n_done} rows that are done, its journal knows {len(index)}"
    if lost is not None:
        raise UsageError(
            f"run.json of {folder.run_id} {lost}; a resume would ask and pay for what is lost again",
            hint="put the journal/ folder back, add --repair to go on with what is left, or start a new run",
        )


def _find_resumable(settings: RunSettings, name: str) -> RunFolder:
    if settings.resume_run is not None:
        named = find_run(settings.resume_run, reports_dir=settings.reports_dir)
        if is_imported(named):
            raise UsageError(f"the run {named.run_id} was imported: it asked nothing that could be gone on with")
        return named
    folder = find_unfinished(name, settings.reports_dir)
    if folder is None:
        raise UsageError(
            f"no unfinished run of {name!r} below {settings.reports_dir}",
            hint="leave out --resume to start a new run; `evalrun list` shows all runs",
        )
    return folder


def is_settled(entry: Entry | None, request: Request, *, retry_all_errors: bool) -> bool:
    """Return whether a resume leaves this row alone.

    Args:
        entry: What the journal holds for the row; None when nothing.
        request: The row as the job asks it now; another content is another question.
        retry_all_errors: Ask rows with permanent errors again.
    """
    if entry is None or entry.status is None or entry.request_key != request.request_key:
        return False
    if entry.status in FINISHED:
        return True
    may_pass = entry.error_code in PASSING and not entry.is_permanent
    return entry.status == Status.ERROR and not may_pass and not retry_all_errors
