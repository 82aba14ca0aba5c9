"""The hall: joins the rooms into a run, in order.

A job file enters; a run folder, a summary and a verdict leave. No request leaves before the whole job, every template
on every row, the keys, the simulators and the folder have been checked. What follows the journal is in `closing`.
"""

import random
import resource
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import anyio
from anyio.abc import TaskGroup

from evalrun import __version__
from evalrun.dispatch.budget import RunBudget
from evalrun.dispatch.dispatcher import LaneWork, StopSignal, dispatch
from evalrun.dispatch.transport import Target, make_target
from evalrun.errors import AuthorError, ConfigError, StoreError, UsageError
from evalrun.job.config import find_missing_keys
from evalrun.job.estimate import scale_totals
from evalrun.lane_facts import describe_lane, find_own_limits, load_earlier_calls
from evalrun.lane_planning import Survey, list_lane_models, note_resume, note_warnings, plan_lanes, survey_rows
from evalrun.lane_progress import LaneProgress
from evalrun.options import EndpointOptions
from evalrun.preparing import Prepared, prepare, watching
from evalrun.records import Request
from evalrun.resuming import RunSettings, describe_call, open_folder, restore_call
from evalrun.reuse_advice import advise_reuse
from evalrun.reusing import ReuseSources, TakeOver, find_sources, open_stored
from evalrun.safe_rows import SafeRows
from evalrun.spending import describe_budget, find_price_problem, list_cost_problems, list_shortages, make_budget
from evalrun.store.events import EventLog
from evalrun.store.folder import RunFolder
from evalrun.store.journal import Journal
from evalrun.store.journal_index import JournalIndex

if TYPE_CHECKING:
    from evalrun.judging import RunResult

TICK_S = 0.1
"""How often progress is shown, in seconds."""

GRACE_S = 10.0
"""How long requests in flight may finish after an interrupt, in seconds."""

SPARE_FILES = 32
"""Files that a run opens beside its connections."""

EXIT_BY_SIGNAL: Mapping[int, int] = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What is going on, for whoever shows it. Lanes are live: read them, never keep them."""

    stage: str
    """`checking`, `planning`, `asking`, `stopping` or `closing`."""
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
    async with open_targets(prepared) as (targets, target_notes):
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
                    prepared.plan,
                    index,
                    started_s=began_s,
                    allows_unknown_cost=settings.allows_unknown_cost,
                )
                notes = [*target_notes, *notes, *advice]
                on_progress(_describe_begin(prepared, folder, survey=survey, lanes=lanes, budget=budget, notes=notes))
                log.append("began", at=datetime.now(UTC), call=len(index.sessions), rows=survey.n_rows_left)
                loading = _load_closing_ahead()
                with watching(prepared, folder):
                    caught_signal = await ask(
                        prepared, journal, log, lanes=lanes, targets=targets, budget=budget, on_progress=on_progress
                    )
            on_progress(_describe_end(prepared, folder, log))
            loading.join()
            from evalrun.closing import close_run

            with watching(prepared, folder):
                return close_run(
                    folder,
                    index,
                    loaded=prepared.loaded,
                    plan=prepared.plan,
                    graders=prepared.graders,
                    totals=prepared.totals,
                    asked=scale_totals(prepared.totals, survey.n_left),
                    lanes={(lane.endpoint, lane.wire_model): lane.progress for lane in lanes},
                    lane_facts=_describe_lanes(prepared, lanes, folder, index),
                    budget=describe_budget(budget),
                    stale=survey.stale,
                    call=describe_call(settings),
                    wall_s=time.monotonic() - began_s,
                    is_gate_wanted=settings.is_gate_wanted,
                    interrupted_exit_code=EXIT_BY_SIGNAL.get(caught_signal) if caught_signal else None,
                )


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
    shortages = [f"warning: {text}" for text in list_shortages(prepared.loaded.job.budget, totals)]
    return survey, [*notes, *taking.list_notes(), *shortages]


def _advise(prepared: Prepared) -> list[str]:
    """Return what an older run would spare, unless the job or the command line says what to reuse."""
    settings, loaded = prepared.settings, prepared.loaded
    if settings.reuse or loaded.job.reuse is not None:
        return []
    return advise_reuse(settings, loaded, prepared.plan, n_rows=prepared.totals.n_rows)


def _require_prices(prepared: Prepared) -> None:
    """Refuse a run whose costs are asked for and unknown, and a budget in USD that nobody can keep."""
    loaded, models = prepared.loaded, prepared.plan.models
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
            find_own_limits(list_lane_models(prepared, lane.endpoint, lane.wire_model)),
        )
        for lane in lanes
    ]
    return {
        "lanes": told,
        "earlier_calls": load_earlier_calls(folder, index.sessions),
        "call_started_at": index.sessions[-1]["started_at"],
    }


@asynccontextmanager
async def open_targets(prepared: Prepared) -> AsyncIterator[tuple[dict[str, Target], list[str]]]:
    """Yield each endpoint that the selection sends to, simulators started or compared, keys read; and what to say."""
    endpoints = {name: prepared.loaded.job.endpoints[name] for name in _endpoints_used(prepared)}
    problems = find_missing_keys(prepared.loaded, list(endpoints), prepared.environ)
    if problems:
        raise ConfigError(problems)
    async with AsyncExitStack() as stack:
        base_urls = {name: await _start_simulator(options, stack) for name, options in endpoints.items()}
        fitted = fit_file_limit(endpoints)
        notes = [
            f"endpoint {name}: concurrency {options.concurrency} instead of {endpoints[name].concurrency}, since this "
            "process may open no more files (ulimit -n)"
            for name, options in fitted.items()
            if options != endpoints[name]
        ]
        targets = {
            name: make_target(
                options,
                environ=prepared.environ,
                base_url=base_urls[name],
                written_url=_find_written_url(prepared, name),
            )
            for name, options in fitted.items()
        }
        yield targets, notes


def _find_written_url(prepared: Prepared, endpoint: str) -> str | None:
    """Return an endpoint's base URL as the job writes it; None when no variable of the environment is part of it."""
    written = prepared.loaded.raw["endpoints"][endpoint].get("base_url")
    return written if isinstance(written, str) and "${" in written else None


def fit_file_limit(endpoints: Mapping[str, EndpointOptions]) -> dict[str, EndpointOptions]:
    """Return the endpoints with no more concurrency than this process may open connections, all of them together.

    The soft limit of open files is raised first where the system allows it. What then is too little is shared: who
    wants little gets it, the others get equal parts of the rest.

    Raises:
        UsageError: Not even one connection for each endpoint fits.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    n_wanted = sum(options.concurrency for options in endpoints.values())
    wanted = 2 * n_wanted + SPARE_FILES  # A simulator in this process holds the other end.
    if soft < wanted:
        top = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, top), hard))
            soft = max(soft, top)
    n_left = (soft - SPARE_FILES) // 2
    if n_left < len(endpoints):
        hint = f"raise the limit: ulimit -n {max(1024, 2 * len(endpoints) + SPARE_FILES)}"
        raise UsageError(f"this process may open {soft} files only", hint=hint)
    shares: dict[str, int] = {}
    for name in sorted(endpoints, key=lambda name: endpoints[name].concurrency):
        shares[name] = min(endpoints[name].concurrency, n_left // (len(endpoints) - len(shares)))
        n_left -= shares[name]
    return {name: replace(options, concurrency=shares[name]) for name, options in endpoints.items()}


def _endpoints_used(prepared: Prepared) -> list[str]:
    return list(dict.fromkeys(str(model.endpoint) for model in prepared.plan.models))


async def _start_simulator(options: EndpointOptions, stack: AsyncExitStack) -> str | None:
    """Return the base URL of a simulator endpoint; None for a real one."""
    if options.simulator is None:
        return None
    from evalrun.simulator.remote import check_running_simulator
    from evalrun.simulator.server import serve

    if options.simulator.url is not None:
        await anyio.to_thread.run_sync(check_running_simulator, options.simulator)
        return options.simulator.url.rstrip("/") + "/chat"
    # No grace: when the run has ended, whatever is still on its way to it was given up.
    simulator = await stack.enter_async_context(serve(options.simulator, grace_s=0.0))
    return simulator.url + "/chat"


async def ask(
    prepared: Prepared,
    journal: Journal,
    log: EventLog,
    *,
    lanes: Sequence[LaneWork],
    targets: Mapping[str, Target],
    budget: RunBudget | None,
    on_progress: OnProgress,
) -> int | None:
    """Dispatch every lane into the journal; return the signal that ended it early, None when none did."""
    stop, began_s = StopSignal(), time.monotonic()
    failure: Exception | None = None
    failures: list[Exception] = []
    lanes = [replace(lane, requests=_stop_at_failure(lane.requests, stop, failures)) for lane in lanes]
    interrupts = _Interrupts(stop, log, on_progress)
    async with anyio.create_task_group() as group:
        group.start_soon(interrupts.watch, group)
        group.start_soon(_tick, lanes, journal, budget, on_progress)
        try:
            await dispatch(
                lanes,
                targets=targets,
                prices=prepared.loaded.prices,
                on_record=journal.append,
                stop=stop,
                rng=random.Random(),  # noqa: S311 - jitter, not secrets
                budget=budget,
                on_event=log.append,
            )
        except Exception as error:  # noqa: BLE001 - carried out by hand; the task group would wrap it in a group
            failure = error
        group.cancel_scope.cancel()
    _note_end(log, lanes, budget, asked_s=time.monotonic() - began_s)
    failure = failure or next(iter(failures), None)
    if failure is not None:
        raise failure
    prepared.plan.require_unchanged()  # Before any table is made of rows that may not be those that were asked.
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


def _note_end(log: EventLog, lanes: Sequence[LaneWork], budget: RunBudget | None, *, asked_s: float) -> None:
    """Write how the asking ended; a lane that does not know how long it took, took all the time."""
    for lane in lanes:
        if lane.progress.wall_s is None:
            lane.progress.wall_s = asked_s
    done = sum(lane.progress.done for lane in lanes)
    reason = budget.is_spent if budget is not None else None
    log.append("ended", at=datetime.now(UTC), seconds=asked_s, rows_done=done, budget=reason)


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


async def _tick(lanes: Sequence[LaneWork], journal: Journal, budget: RunBudget | None, on_progress: OnProgress) -> None:
    progress = Progress(stage="asking", lanes=[lane.progress for lane in lanes], budget=budget)
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
