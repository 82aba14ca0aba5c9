"""Grading again with judges: what they have not said of a run's stored answers is asked, and nothing else.

A locked run folder and a job enter; the run's tables, reports and run.json leave, made anew by `closing`. Replies that
the run's journal holds for an equal request are taken; the others are asked and appended to it.
"""

import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import partial

from evalrun import __version__
from evalrun.asking import EXIT_BY_SIGNAL, OnProgress, Progress, ask, ignore_progress
from evalrun.closing import check_graders, regrade
from evalrun.errors import ConfigError, StoreError, UsageError
from evalrun.job.config import LoadedJob
from evalrun.job_graders import make_grader_set
from evalrun.judge_pass import AllRequests, JudgeTrip, SecondTrip
from evalrun.judge_rows import JudgeRows
from evalrun.judge_tables import StoredJudgements
from evalrun.judging import RunResult
from evalrun.opened_endpoints import open_targets
from evalrun.records import Request
from evalrun.spending import find_price_problem, make_budget
from evalrun.store.events import EventLog
from evalrun.store.folder import RunFolder
from evalrun.store.journal import Journal
from evalrun.store.journal_index import JournalIndex
from evalrun.store.journal_scan import scan_journal
from evalrun.store.manifest import read_manifest
from evalrun.table_blocks import scan_stored_rows


async def grade_with_judges(
    folder: RunFolder,
    loaded: LoadedJob,
    environ: Mapping[str, str],
    *,
    on_progress: OnProgress = ignore_progress,
) -> RunResult:
    """Grade a run's stored answers again; its judges are asked what they have not said yet.

    Args:
        folder: A run with results.parquet, locked by the caller.
        loaded: The job whose graders, judges and gate are applied.
        environ: Holds the keys of the judges' endpoints.
        on_progress: Shows what goes on.

    Raises:
        AuthorError: Found before anything was sent; the old grades are as they were.
        StoreError: The disk failed.
    """
    began_s = time.monotonic()
    graders = make_grader_set(loaded)
    judges = JudgeRows(loaded, graders)
    if not judges:
        return regrade(folder, loaded)
    check_graders(folder, loaded, graders)
    first_index = sum(read_manifest(folder)["counts"].values())
    with _open_index(folder) as index:
        trip = SecondTrip(judges, partial(scan_stored_rows, folder), index, first_index=first_index)
        trip.survey()
        done = JudgeTrip()
        codes = done.name_pending_codes(judges, None)
        if trip.n_left.total():
            problem = find_price_problem(loaded, judges.models)
            if problem is not None:
                raise ConfigError([problem])
            requests = AllRequests(
                loaded=loaded, scans=[partial(_scan_requests, judges, folder, first_index=first_index)]
            )
            async with open_targets(loaded, judges.endpoints, environ) as (targets, notes):
                with _open_journal(folder, loaded, index, trip.n_left.total()) as journal, EventLog(folder) as log:
                    budget = make_budget(loaded, requests, index, started_s=began_s, allows_unknown_cost=False)
                    send = partial(ask, loaded.prices, journal, log, targets=targets, budget=budget)
                    done = await trip.ask(send, budget=budget, on_progress=on_progress, notes=notes)
                    codes = done.name_pending_codes(judges, budget)
            on_progress(Progress(stage="closing", folder=folder))
        stored = StoredJudgements(judges=judges, index=index, codes=codes, first_index=first_index)
        interrupted = EXIT_BY_SIGNAL.get(done.signal) if done.signal is not None else None
        return regrade(folder, loaded, stored, interrupted_exit_code=interrupted)


def _scan_requests(judges: JudgeRows, folder: RunFolder, *, first_index: int) -> Iterator[Request]:
    return (request for _, request in judges.scan(scan_stored_rows(folder), first_index=first_index))


def _open_index(folder: RunFolder) -> JournalIndex:
    """Return what the journal holds, its torn tail cut; what is wrong with it is found before anything is sent."""
    try:
        return scan_journal(folder, for_append=True)
    except StoreError as error:
        raise UsageError(str(error)) from error


def _open_journal(folder: RunFolder, loaded: LoadedJob, index: JournalIndex, n_to_come: int) -> Journal:
    """Return the journal with the facts of this call."""
    try:
        folder.make_journal_dir()
        journal = Journal(folder, durability=loaded.job.durability, index=index, n_to_come=n_to_come)
        try:
            journal.append_session(
                {
                    "run_id": folder.run_id,
                    "job_name": index.sessions[0].get("job_name") if index.sessions else loaded.name,
                    "evalrun": __version__,
                    "started_at": datetime.now(UTC).isoformat(),
                    "job": loaded.raw,
                    "job_digest": loaded.digest,
                    "grading": True,
                }
            )
        except BaseException:
            journal.close()
            raise
    except StoreError as error:
        raise UsageError(str(error)) from error
    return journal
