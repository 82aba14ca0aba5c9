"""evalrun from Python: run a job, load a run, look at its tables.

A job path or a RUN enters, a `Run` leaves: a thin handle on a run folder whose tables are polars LazyFrames.
"""

import asyncio
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio

from evalrun.closing import RunResult, load_result
from evalrun.job.plan import Selection
from evalrun.pipeline import run_job
from evalrun.records import Summary, Verdict
from evalrun.resuming import RunSettings
from evalrun.run_tables import RunTables
from evalrun.store.folder import RunFolder
from evalrun.store.parquet import scan_table
from evalrun.store.runs import find_run

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Run:
    """A run: its folder, tables, figures and verdict."""

    path: Path
    """The run folder."""
    summary: Summary
    verdict: Verdict
    manifest: Mapping[str, Any]
    """run.json."""
    exit_code: int
    """What the command line would have exited with."""

    @property
    def run_id(self) -> str:
        """The run's id: the folder's name."""
        return self.path.name

    @property
    def results(self) -> "pl.LazyFrame":
        """One row per row of the plan, in plan order; columns in docs/schema.md."""
        return RunTables(RunFolder(self.path)).scan_results()

    @property
    def grades(self) -> "pl.LazyFrame":
        """One row per row × grader; columns in docs/schema.md."""
        return scan_table(RunFolder(self.path).grades_path)

    @property
    def attempts(self) -> "pl.LazyFrame":
        """One row per HTTP attempt; columns in docs/schema.md."""
        return scan_table(RunFolder(self.path).attempts_path)

    def usage(self, by: str | Sequence[str] = ()) -> "pl.DataFrame":
        """Return what the run took, in tokens and USD: one row per group, columns in docs/accounting.md.

        Args:
            by: One or several of model, prompt, category, run, day, role, status; with none, all is one group.

        Raises:
            UsageError: A key is not among them.
        """
        from evalrun.run_accounts import load_account

        return load_account([RunFolder(self.path)], [by] if isinstance(by, str) else list(by)).groups

    def __repr__(self) -> str:
        """Show which run it is and what came out."""
        simulated = "simulated, " if self.summary.is_simulated else ""
        return f"<evalrun.Run {self.run_id} ({simulated}{self.verdict.outcome}): {self.summary.headline}>"

    def _repr_html_(self) -> str:
        """Show a notebook the headline and the verdict."""
        from html import escape

        simulated = "<b>simulated</b> · " if self.summary.is_simulated else ""
        return f"<p>{simulated}{escape(self.summary.headline)}</p><p>{escape(self.verdict.headline)}</p>"


async def run_async(  # noqa: PLR0913 - the command line's options, each by name
    job: str | Path,
    *,
    reports_dir: str | Path = "reports",
    overrides: Sequence[str] = (),
    variables: Mapping[str, str] | None = None,
    limit: int | None = None,
    models: Sequence[str] = (),
    prompts: Sequence[str] = (),
    where: str | None = None,
    resume: bool = False,
    reuse: str | Sequence[str] = (),
    allow_unknown_cost: bool = False,
    require_cost: bool = False,
) -> Run:
    """Run a job and return its run.

    Args:
        job: Path of the job file.
        reports_dir: Folder for run folders.
        overrides: As `--set`: `models[gpt-5.1].params.temperature=0`.
        variables: As `--var`.
        limit: Only the first N samples; None = all.
        models: Globs of model names; empty = all.
        prompts: Globs of prompt names; empty = all.
        where: Expression over the sample; None = all.
        resume: Go on with the job's newest unfinished run.
        reuse: A run, or several, whose outcomes are taken over; empty = those of the job's `reuse`.
        allow_unknown_cost: Ask models without a price under `budget.usd`; what they cost is not counted.
        require_cost: Refuse models whose price is unknown.

    Raises:
        AuthorError: Found before anything was sent.
        StoreError: The disk failed while the run was under way.
    """
    settings = RunSettings(
        job_path=Path(job),
        reports_dir=Path(reports_dir),
        overrides=tuple(overrides),
        variables=dict(variables or {}),
        selection=Selection(limit=limit, models=tuple(models), prompts=tuple(prompts), where=where),
        resume=resume,
        reuse=(reuse,) if isinstance(reuse, str) else tuple(reuse),
        allows_unknown_cost=allow_unknown_cost,
        requires_cost=require_cost,
    )
    return _open(await run_job(settings))


def run(job: str | Path, **options: Any) -> Run:
    """Run a job and return its run; the same as `run_async`, for callers that do not await.

    Inside a running event loop (a notebook) the run gets a thread and a loop of its own.

    Args:
        job: Path of the job file.
        **options: Those of `run_async`.
    """

    async def call() -> Run:
        return await run_async(job, **options)

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return anyio.run(call)
    return _run_in_thread(call)


def _run_in_thread(call: Any) -> Run:
    """Run one coroutine function in a loop of its own, in a thread of its own."""
    outcome: dict[str, Any] = {}

    def work() -> None:
        try:
            outcome["run"] = anyio.run(call)
        except BaseException as error:  # noqa: BLE001 - carried to the calling thread and raised there
            outcome["error"] = error

    thread = threading.Thread(target=work, name="evalrun")
    thread.start()
    thread.join()
    if "error" in outcome:
        raise outcome["error"]
    result: Run = outcome["run"]
    return result


def load(reference: str | Path, *, reports_dir: str | Path = "reports") -> Run:
    """Load a run that was made before.

    Args:
        reference: A run folder, a results file, a unique prefix of a run_id, a job's name, or `latest`.
        reports_dir: Where names are looked up.

    Raises:
        UsageError: There is no such run.
    """
    return _open(load_result(find_run(str(reference), reports_dir=Path(reports_dir))))


def _open(result: RunResult) -> Run:
    folder: RunFolder = result.folder
    return Run(
        path=folder.path,
        summary=result.summary,
        verdict=result.verdict,
        manifest=result.manifest,
        exit_code=result.exit_code,
    )
