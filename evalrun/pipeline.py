"""The hall: joins the rooms into a run, in order.

A job file enters; a run folder, a summary and a verdict leave. No request leaves before the whole job, every template
on every row, the keys, the simulators and the folder have been checked. What follows the journal is in `closing`.
"""

import threading
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from evalrun import __version__
from evalrun.asking import EXIT_BY_SIGNAL, OnProgress, Progress, ask, ignore_progress
from evalrun.dispatch.budget import RunBudget
from evalrun.dispatch.dispatcher import LaneWork
from evalrun.errors import ConfigError, StoreError, UsageError
from evalrun.job.estimate import PlanTotals, scale_totals
from evalrun.judge_load import add_judges
from evalrun.judge_pass import AllRequests, JudgeTrip, ScanRows, SecondTrip, Send
from evalrun.judge_rows import Row
from evalrun.lane_facts import describe_lane, find_own_limits, load_earlier_calls
from evalrun.lane_planning import Survey, note_resume, note_warnings, plan_lanes, survey_rows
from evalrun.opened_endpoints import open_targets
from evalrun.preparing import Prepared, prepare, watching
from evalrun.records import Request
from evalrun.resuming import RunSettings, describe_call, open_folder, restore_call
from evalrun.reuse_advice import advise_reuse
from evalrun.reusing import ReuseSources, TakenOver, TakeOver, find_sources, open_stored
from evalrun.spending import describe_budget, find_price_problem, list_cost_problems, list_shortages, make_budget
from evalrun.store.events import EventLog
from evalrun.store.folder import RunFolder
from evalrun.store.journal import Journal
from evalrun.store.journal_index import JournalIndex

if TYPE_CHECKING:
    from evalrun.judging import RunResult


async def run_job(settings: RunSettings, *, on_progress: OnProgress = ignore_progress) -> "RunResult":
    """Run a job from its file to its verdict.

    Raises:
        AuthorError: Found before anything was sent.
        StoreError: The disk failed, or a file of the job changed, while the run was under way; what was acknowledged is
            kept.
    """
    began_s = time.monotonic()
    settings = restore_call(settings)
    prepared = prepare(
        settings, on_checked=lambda n_checked: on_progress(Progress(stage="checking", n_checked=n_checked))
    )
    _require_prices(prepared)
    async with open_targets(prepared.loaded, _list_endpoints(prepared), prepared.environ) as (targets, target_notes):
        # What a new run reuses is read before it gets a folder, so that a mistake leaves none behind.
        early = find_sources(settings, prepared.loaded) if not settings.resume else None
        stored = open_stored(early) if early is not None and early.folders else None
        advice = [] if settings.resume else _advise(prepared)
        with open_folder(settings, prepared.loaded.name) as (folder, index):
            sources = early or find_sources(settings, prepared.loaded, own=folder, sessions=index.sessions)
            with _open_journal(prepared, folder, index, sources) as journal, EventLog(folder) as log:
                taking = TakeOver(sources, folder, index, journal, stored)
                survey, notes = _survey(prepared, folder, index, taking, on_progress)
                lanes = plan_lanes(prepared, index, survey)
                budget = make_budget(
                    prepared.loaded,
                    _list_requests(prepared, folder, index),
                    index,
                    started_s=began_s,
                    allows_unknown_cost=settings.allows_unknown_cost,
                )
                notes = [*target_notes, *notes, *advice]
                on_progress(_describe_begin(prepared, folder, survey=survey, lanes=lanes, budget=budget, notes=notes))
                log.append("began", at=datetime.now(UTC), call=len(index.sessions), rows=survey.n_rows_left)
                loading = _load_closing_ahead()
                send = partial(ask, prepared.loaded.prices, journal, log, targets=targets, budget=budget)
                with watching(prepared, folder):
                    caught_signal = await send(lanes=lanes, on_progress=on_progress)
                    prepared.plan.require_unchanged()  # Before tables or judges get rows that may be other ones.
                    loading.join()
                    judging = partial(_ask_judges, prepared, folder, index, taking, send, budget, on_progress)
                    trip = JudgeTrip() if caught_signal else await judging()
            on_progress(_describe_end(prepared, folder, log))
            from evalrun.closing import close_run

            caught_signal = caught_signal or trip.signal
            with watching(prepared, folder):
                return close_run(
                    folder,
                    index,
                    loaded=prepared.loaded,
                    plan=prepared.plan,
                    graders=prepared.graders,
                    judges=prepared.judges,
                    totals=prepared.totals,
                    asked=_estimate_asked(prepared, survey, trip),
                    lanes={(lane.endpoint, lane.wire_model): lane.progress for lane in lanes},
                    judge_codes=trip.name_pending_codes(prepared.judges, budget),
                    lane_facts=_describe_lanes(prepared, [*lanes, *trip.lanes], folder, index),
                    budget=describe_budget(budget),
                    stale=survey.stale,
                    call=describe_call(settings),
                    wall_s=time.monotonic() - began_s,
                    is_gate_wanted=settings.is_gate_wanted,
                    interrupted_exit_code=EXIT_BY_SIGNAL.get(caught_signal) if caught_signal else None,
                )


def _estimate_asked(prepared: Prepared, survey: Survey, trip: JudgeTrip) -> PlanTotals:
    """Return what was expected of the rows and judgements that this call had left to ask."""
    judges = prepared.judge_load.estimate(prepared.totals)
    return add_judges(scale_totals(prepared.totals, survey.n_left), judges, n_left=trip.n_left)


def _list_endpoints(prepared: Prepared) -> Collection[str]:
    """Return the endpoints that the selection and its judges send to."""
    return dict.fromkeys([*(str(model.endpoint) for model in prepared.plan.models), *prepared.judges.endpoints])


async def _ask_judges(
    prepared: Prepared,
    folder: RunFolder,
    index: JournalIndex,
    taking: TakeOver,
    send: Send,
    budget: RunBudget | None,
    on_progress: OnProgress,
) -> JudgeTrip:
    """Ask the judges about what was answered; what older runs paid for is taken over.

    Raises:
        StoreError: An older run cannot be read any more, or the journal not be written.
    """
    if not prepared.judges:
        return JudgeTrip()
    trip = SecondTrip(
        prepared.judges, _scan_answers(prepared, folder, index), index, first_index=prepared.totals.n_rows
    )
    taking.taken = TakenOver()
    try:
        with taking:
            trip.survey(retry_all_errors=prepared.settings.retry_all_errors, taking=taking)
    except UsageError as error:  # Rows were asked already: nobody shall take it for a mistake found before.
        raise StoreError(str(error)) from error
    return await trip.ask(send, budget=budget, on_progress=on_progress, notes=taking.taken.list_notes())


def _scan_answers(prepared: Prepared, folder: RunFolder, index: JournalIndex) -> ScanRows:
    """Return what gives the plan's rows as the journal has them."""

    def scan() -> Iterator[Row]:
        # A late import: what makes tables takes longer to load than the rest of a run, and is loaded beside the asking.
        from evalrun.table_blocks import scan_planned_rows

        return scan_planned_rows(folder, prepared.plan, index)

    return scan


def _list_requests(prepared: Prepared, folder: RunFolder, index: JournalIndex) -> AllRequests:
    """Return all that the run asks, by what it knows now."""
    scan = _scan_answers(prepared, folder, index)

    def scan_judges() -> Iterator[Request]:
        judges = prepared.judges
        return (request for _, request in judges.scan(scan() if judges else (), first_index=prepared.totals.n_rows))

    return AllRequests(loaded=prepared.loaded, scans=[prepared.plan.requests, scan_judges])


def _load_closing_ahead() -> threading.Thread:
    """Load what tables and reports need, polars above all, while the first requests wait for their answers.

    To be joined before any of it is used: what two threads load at once, both may load in full.
    """

    def load() -> None:
        with suppress(ImportError):  # It is raised again, where somebody hears it, by who needs the module.
            from evalrun.closing import load_ahead

            load_ahead()

    thread = threading.Thread(target=load, name="evalrun-load")
    thread.start()
    return thread


def _describe_begin(
    prepared: Prepared,
    folder: RunFolder,
    *,
    survey: Survey,
    lanes: Sequence[LaneWork],
    budget: RunBudget | None,
    notes: Sequence[str],
) -> Progress:
    """Return what is told before the first request."""
    return Progress(
        stage="asking",
        prepared=prepared,
        folder=folder,
        lanes=[lane.progress for lane in lanes],
        n_settled=prepared.totals.n_rows - survey.n_rows_left,
        n_left=survey.n_left,
        notes=notes,
        budget=budget,
    )


def _describe_end(prepared: Prepared, folder: RunFolder, log: EventLog) -> Progress:
    """Return what is told once the asking is over."""
    problems = [log.problem] if log.problem is not None else []
    return Progress(stage="closing", prepared=prepared, folder=folder, notes=problems)


def _survey(
    prepared: Prepared, folder: RunFolder, index: JournalIndex, taking: TakeOver, on_progress: OnProgress
) -> tuple[Survey, list[str]]:
    """Settle what is paid for already and count what is left; return also what to say before the first request."""
    is_resumed = bool(len(index))
    on_progress(Progress(stage="planning", folder=folder))
    with taking:
        survey = survey_rows(
            prepared,
            folder,
            index,
            taking,
            on_row=lambda n_rows: on_progress(Progress(stage="planning", n_checked=n_rows)),
        )
    notes = [*note_warnings(prepared), *(note_resume(prepared, index, survey) if is_resumed else [])]
    taken, totals = taking.taken, prepared.totals
    if taken.n_rows:
        totals = scale_totals(totals, {each.model: each.requests - taken.models[each.model] for each in totals.models})
    whole = add_judges(totals, prepared.judge_load.estimate(prepared.totals))
    shortages = [f"warning: {text}" for text in list_shortages(prepared.loaded.job.budget, whole)]
    return survey, [*notes, *taking.list_notes(), *shortages]


def _advise(prepared: Prepared) -> list[str]:
    """Return what an older run would spare, unless the job or the command line says what to reuse."""
    settings, loaded = prepared.settings, prepared.loaded
    if settings.reuse or loaded.job.reuse is not None:
        return []
    return advise_reuse(settings, loaded, prepared.plan, n_rows=prepared.totals.n_rows)


def _require_prices(prepared: Prepared) -> None:
    """Refuse a run whose costs are asked for and unknown, and a budget in USD that nobody can keep."""
    loaded, models = prepared.loaded, prepared.list_models()
    if prepared.settings.requires_cost and (problems := list_cost_problems(loaded, models)):
        raise ConfigError(problems)
    problem = find_price_problem(loaded, models)
    if problem is not None and not prepared.settings.allows_unknown_cost:
        raise ConfigError([problem])


def _describe_lanes(
    prepared: Prepared, lanes: Sequence[LaneWork], folder: RunFolder, index: JournalIndex
) -> dict[str, Any]:
    """Return what run.json tells of the lanes, in this call and in those before it."""
    endpoints = prepared.loaded.job.endpoints
    told = [
        describe_lane(
            lane.progress,
            endpoints[lane.endpoint],
            find_own_limits(
                [
                    model
                    for model in prepared.list_models()
                    if (model.endpoint, model.wire_model) == (lane.endpoint, lane.wire_model)
                ]
            ),
        )
        for lane in lanes
    ]
    return {
        "lanes": told,
        "earlier_calls": load_earlier_calls(folder, index.sessions),
        "call_started_at": index.sessions[-1]["started_at"],
    }


def _open_journal(prepared: Prepared, folder: RunFolder, index: JournalIndex, sources: ReuseSources) -> Journal:
    """Return the journal with the facts of this call; what the disk refuses here is found before sending."""
    try:
        n_to_come = prepared.totals.n_rows - len(index)
        journal = Journal(folder, durability=prepared.loaded.job.durability, index=index, n_to_come=n_to_come)
        try:
            journal.append_session(_session_facts(prepared, folder, sources))
        except BaseException:
            journal.close()
            raise
    except StoreError as error:
        raise UsageError(str(error)) from error
    return journal


def _session_facts(prepared: Prepared, folder: RunFolder, sources: ReuseSources) -> dict[str, Any]:
    return {
        "run_id": folder.run_id,
        "job_name": prepared.loaded.name,
        "evalrun": __version__,
        "started_at": datetime.now(UTC).isoformat(),
        "job": prepared.loaded.raw,
        "job_digest": prepared.loaded.digest,
        "dataset_digest": prepared.totals.dataset_digest,
        "n_rows": prepared.totals.n_rows,
        "call": describe_call(prepared.settings),
        "reuse": sources.describe(),
    }
