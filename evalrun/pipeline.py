"""The hall: joins the rooms into a run, in order.

A job file enters; a run folder, a summary and a verdict leave. No request leaves before the whole job, every template
on every row, the keys, the simulators and the folder have been checked. What follows the journal is in `closing`.
"""

import os
import random
import resource
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import anyio
from anyio.abc import TaskGroup

from evalrun import __version__
from evalrun.analysis.graders.grader_set import GraderSet
from evalrun.closing import RunResult, close_run, is_settled, make_grader_set
from evalrun.dispatch.budget import RunBudget
from evalrun.dispatch.dispatcher import LaneWork, StopSignal, dispatch
from evalrun.dispatch.transport import Target, make_target
from evalrun.errors import ConfigError, StoreError, UsageError
from evalrun.job.config import LoadedJob, find_missing_keys
from evalrun.job.estimate import PlanTotals
from evalrun.job.plan import Plan
from evalrun.lane_facts import describe_lane, find_own_limits
from evalrun.options import EndpointOptions, ModelOptions
from evalrun.records import FINISHED, LaneProgress, Request
from evalrun.resuming import RunSettings, describe_call, load_for, open_folder, restore_call
from evalrun.simulator.remote import check_running_simulator
from evalrun.simulator.server import serve
from evalrun.spending import describe_budget, find_price_problem, list_shortages, make_budget
from evalrun.store.events import EventLog
from evalrun.store.folder import RunFolder
from evalrun.store.journal import Journal
from evalrun.store.journal_index import JournalIndex

TICK_S = 0.1
"""How often progress is shown, in seconds."""

GRACE_S = 10.0
"""How long requests in flight may finish after an interrupt, in seconds."""

SPARE_FILES = 32
"""Files that a run opens beside its connections."""

EXIT_BY_SIGNAL: Mapping[int, int] = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A job that was checked in full; nothing was sent."""

    settings: RunSettings
    loaded: LoadedJob
    plan: Plan
    graders: GraderSet
    totals: PlanTotals
    environ: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What is going on, for whoever shows it. Lanes are live: read them, never keep them."""

    stage: str
    """`checking`, `asking`, `stopping` or `closing`."""
    n_checked: int = 0
    prepared: Prepared | None = None
    folder: RunFolder | None = None
    lanes: Sequence[LaneProgress] = ()
    n_settled: int = 0
    """Rows that an earlier call of this run settled."""
    budget: RunBudget | None = None
    """Live as well; None when the run has none."""
    notes: Sequence[str] = ()
    """Said once, when the stage begins."""


OnProgress = Callable[[Progress], None]


def ignore_progress(progress: Progress) -> None:
    """Show nothing."""
    del progress


def prepare(settings: RunSettings, *, on_progress: OnProgress = ignore_progress) -> Prepared:
    """Check a job in full: the file, every row, every template and grader. Sends nothing and needs no key.

    Raises:
        AuthorError: Anything the job's author must mend, every problem at once.
    """
    environ = dict(os.environ)
    loaded = load_for(settings, environ)
    plan = Plan(loaded, settings.selection)
    graders = make_grader_set(loaded)
    totals = plan.check(
        check_sample=graders.check_sample,
        on_progress=lambda n_checked: on_progress(Progress(stage="checking", n_checked=n_checked)),
    )
    # What the rows gave cause to warn of is shown wherever the job's own warnings are.
    loaded = replace(loaded, warnings=(*loaded.warnings, *totals.warnings))
    return Prepared(settings=settings, loaded=loaded, plan=plan, graders=graders, totals=totals, environ=environ)


async def run_job(settings: RunSettings, *, on_progress: OnProgress = ignore_progress) -> RunResult:
    """Run a job from its file to its verdict.

    Raises:
        AuthorError: Found before anything was sent.
        StoreError: The disk failed while the run was under way; what was acknowledged is kept.
    """
    began_s = time.monotonic()
    settings = restore_call(settings)
    prepared = prepare(settings, on_progress=on_progress)
    _require_prices(prepared)
    async with open_targets(prepared) as (targets, target_notes):
        with open_folder(settings, prepared.loaded.name) as (folder, index):
            lanes, notes = plan_lanes(prepared, index)
            budget = make_budget(
                prepared.loaded,
                prepared.plan,
                index,
                started_s=began_s,
                allows_unknown_cost=settings.allows_unknown_cost,
            )
            shortages = [f"warning: {text}" for text in list_shortages(prepared.loaded.job.budget, prepared.totals)]
            on_progress(
                Progress(
                    stage="asking",
                    prepared=prepared,
                    folder=folder,
                    lanes=[lane.progress for lane in lanes],
                    n_settled=prepared.totals.n_rows - sum(lane.progress.total for lane in lanes),
                    notes=[*target_notes, *notes, *shortages],
                    budget=budget,
                )
            )
            caught_signal, problems = await ask(
                prepared, folder, index=index, lanes=lanes, targets=targets, budget=budget, on_progress=on_progress
            )
            on_progress(Progress(stage="closing", prepared=prepared, folder=folder, notes=problems))
            return close_run(
                folder,
                index,
                loaded=prepared.loaded,
                plan=prepared.plan,
                graders=prepared.graders,
                totals=prepared.totals,
                lanes={(lane.endpoint, lane.wire_model): lane.progress for lane in lanes},
                lane_facts=_describe_lanes(prepared, lanes),
                budget=describe_budget(budget),
                call=describe_call(settings),
                wall_s=time.monotonic() - began_s,
                is_gate_wanted=settings.is_gate_wanted,
                interrupted_exit_code=EXIT_BY_SIGNAL.get(caught_signal) if caught_signal else None,
            )


def _require_prices(prepared: Prepared) -> None:
    """Refuse a budget in USD that nobody can keep, unless it is to be kept as far as prices are known."""
    problem = find_price_problem(prepared.loaded, prepared.plan.models)
    if problem is not None and not prepared.settings.allows_unknown_cost:
        raise ConfigError([problem])


def _describe_lanes(prepared: Prepared, lanes: Sequence[LaneWork]) -> list[dict[str, Any]]:
    endpoints = prepared.loaded.job.endpoints
    return [
        describe_lane(
            lane.progress,
            endpoints[lane.endpoint],
            find_own_limits(_list_models(prepared, lane.endpoint, lane.wire_model)),
        )
        for lane in lanes
    ]


def _list_models(prepared: Prepared, endpoint: str, wire_model: str) -> list[ModelOptions]:
    """Return the models of one lane."""
    return [model for model in prepared.plan.models if (model.endpoint, model.wire_model) == (endpoint, wire_model)]


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
            name: make_target(options, environ=prepared.environ, base_url=base_urls[name])
            for name, options in fitted.items()
        }
        yield targets, notes


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
    if options.simulator.url is not None:
        await anyio.to_thread.run_sync(check_running_simulator, options.simulator)
        return options.simulator.url.rstrip("/") + "/chat"
    simulator = await stack.enter_async_context(serve(options.simulator))
    return simulator.url + "/chat"


def plan_lanes(prepared: Prepared, index: JournalIndex) -> tuple[list[LaneWork], list[str]]:
    """Return the lanes with what is left to ask in each, and what is worth saying about it."""
    todo: dict[tuple[str, str], int] = {}
    names: dict[tuple[str, str], list[str]] = {}
    for model in prepared.plan.models:
        lane = (str(model.endpoint), model.wire_model)
        todo.setdefault(lane, 0)
        names.setdefault(lane, []).append(model.name)
    n_changed = 0
    if len(index):
        lane_by_model = {name: lane for lane, models in names.items() for name in models}
        for request in prepared.plan.requests():
            entry = index.get(request.row_id)
            n_changed += entry is not None and entry.request_key != request.request_key
            todo[lane_by_model[request.model]] += not is_settled(
                entry, request, retry_all_errors=prepared.settings.retry_all_errors
            )
    else:
        for estimate in prepared.totals.models:
            model = next(model for model in prepared.plan.models if model.name == estimate.model)
            todo[str(model.endpoint), model.wire_model] += estimate.requests
    lanes = []
    for (endpoint, wire_model), total in todo.items():
        models = names[endpoint, wire_model]
        limits = find_own_limits(_list_models(prepared, endpoint, wire_model))
        lanes.append(
            LaneWork(
                endpoint=endpoint,
                wire_model=wire_model,
                requests=_iterate_unsettled(prepared, index, models),
                progress=LaneProgress(endpoint=endpoint, model=", ".join(models), total=total),
                requests_per_minute=limits.requests_per_minute,
                tokens_per_minute=limits.tokens_per_minute,
            )
        )
    return lanes, _note_resume(prepared, index, n_changed=n_changed)


def _iterate_unsettled(prepared: Prepared, index: JournalIndex, models: Sequence[str]) -> Iterator[Request]:
    for request in prepared.plan.requests(models=models):
        entry = index.get(request.row_id)
        if entry is None:
            yield request
        elif not is_settled(entry, request, retry_all_errors=prepared.settings.retry_all_errors):
            billed_usd = entry.billed_usd
            if entry.status in FINISHED:
                outcome = index.read_outcome(request.row_id)
                billed_usd = outcome.billed_usd if outcome is not None else None
            yield replace(request, prior_attempts=entry.attempts, prior_billed_usd=billed_usd)


def _note_resume(prepared: Prepared, index: JournalIndex, *, n_changed: int) -> list[str]:
    notes = [f"warning: {warning.render()}" for warning in prepared.loaded.warnings]
    if not len(index):
        return notes
    if index.torn_bytes:
        notes.append(f"the journal ended in a torn record of {index.torn_bytes} bytes; it was cut off")
    if index.dropped_bytes:
        notes.append(f"{index.dropped_bytes} damaged bytes of the journal were left out; what they held is asked again")
    if index.in_doubt:
        notes.append(f"requests in flight when the run stopped, sent once more: {len(index.in_doubt)}")
    earlier = index.sessions[0].get("job_digest") if index.sessions else None
    if earlier not in (None, prepared.loaded.digest):
        changed = ", ".join(_list_changed_keys(index.sessions[0].get("job", {}), prepared.loaded.raw)) or "its texts"
        notes.append(f"the job has changed since the run began ({changed}); rows asked again: {n_changed}")
    elif n_changed:
        notes.append(f"rows that the dataset has changed since the run began, asked again: {n_changed}")
    return notes


def _list_changed_keys(before: Any, after: Any, path: str = "") -> list[str]:
    """Return the key paths at which two jobs differ."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        keys = list(dict.fromkeys([*before, *after]))
        return [
            changed
            for key in keys
            for changed in _list_changed_keys(before.get(key), after.get(key), f"{path}.{key}" if path else str(key))
        ]
    return [] if before == after else [path]


async def ask(
    prepared: Prepared,
    folder: RunFolder,
    *,
    index: JournalIndex,
    lanes: Sequence[LaneWork],
    targets: Mapping[str, Target],
    budget: RunBudget | None,
    on_progress: OnProgress,
) -> tuple[int | None, list[str]]:
    """Dispatch every lane into the journal.

    Returns:
        The signal that ended it early, None when none did; and what went wrong that ends no run.
    """
    stop, began_s = StopSignal(), time.monotonic()
    failure: Exception | None = None
    with _open_journal(prepared, folder, index) as journal, EventLog(folder) as log:
        interrupts = _Interrupts(stop, log, on_progress)
        log.append("began", at=datetime.now(UTC), call=len(index.sessions), rows=sum(_count_rows(lanes)))
        async with anyio.create_task_group() as group:
            group.start_soon(interrupts.watch, group)
            group.start_soon(_tick, lanes, budget, on_progress)
            try:
                await dispatch(
                    lanes,
                    targets=targets,
                    prices={model.name: model.price for model in prepared.plan.models},
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
        problems = [log.problem] if log.problem is not None else []
    if failure is not None:
        raise failure
    return interrupts.number, problems


def _count_rows(lanes: Sequence[LaneWork]) -> Iterator[int]:
    return (lane.progress.total for lane in lanes)


def _note_end(log: EventLog, lanes: Sequence[LaneWork], budget: RunBudget | None, *, asked_s: float) -> None:
    """Write how the asking ended; a lane that does not know how long it took, took all the time."""
    for lane in lanes:
        if lane.progress.wall_s is None:
            lane.progress.wall_s = asked_s
    done = sum(lane.progress.done for lane in lanes)
    reason = budget.is_spent if budget is not None else None
    log.append("ended", at=datetime.now(UTC), seconds=asked_s, rows_done=done, budget=reason)


def _open_journal(prepared: Prepared, folder: RunFolder, index: JournalIndex) -> Journal:
    """Return the journal with the facts of this call; what the disk refuses here is found before sending."""
    try:
        journal = Journal(folder, durability=prepared.loaded.job.durability, index=index)
        journal.append_session(_session_facts(prepared, folder))
    except StoreError as error:
        raise UsageError(str(error)) from error
    return journal


def _session_facts(prepared: Prepared, folder: RunFolder) -> dict[str, Any]:
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
    }


async def _tick(lanes: Sequence[LaneWork], budget: RunBudget | None, on_progress: OnProgress) -> None:
    progress = Progress(stage="asking", lanes=[lane.progress for lane in lanes], budget=budget)
    while True:
        await anyio.sleep(TICK_S)
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
