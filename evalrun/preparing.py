"""A job checked in full before anything is sent: every row, every template and every grader.

Settings enter and a Prepared leaves, or every problem at once.
"""

import os
import shlex
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

from evalrun.analysis.graders.grader_set import GraderSet
from evalrun.errors import DatasetError, InputChangedError, PromptError
from evalrun.job.config import LoadedJob
from evalrun.job.estimate import PlanTotals
from evalrun.job.plan import Plan
from evalrun.job.ranges import History
from evalrun.job_graders import make_grader_set
from evalrun.judge_load import JudgeLoad
from evalrun.judge_rows import JudgeRows
from evalrun.options import ModelOptions
from evalrun.past_runs import load_history
from evalrun.resuming import RunSettings, load_for
from evalrun.store.folder import RunFolder


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A job that was checked in full; nothing was sent."""

    settings: RunSettings
    loaded: LoadedJob
    plan: Plan
    graders: GraderSet
    judges: JudgeRows
    totals: PlanTotals
    judge_load: JudgeLoad
    """What the judges would be asked."""
    environ: Mapping[str, str]
    history: History | None = None
    """What an earlier run of the job saw; None when none can tell."""

    def list_models(self) -> list[ModelOptions]:
        """Return the models that are asked, candidates and judges, each once."""
        return list({model.name: model for model in (*self.plan.models, *self.judges.models)}.values())


def _ignore_count(n_checked: int) -> None:
    del n_checked


def prepare(settings: RunSettings, *, on_checked: Callable[[int], None] = _ignore_count) -> Prepared:
    """Check a job in full: the file, every row, every template and grader. Sends nothing and needs no key.

    Args:
        settings: The job, and what is said beside it.
        on_checked: Hears how many samples were checked so far.

    Raises:
        AuthorError: Anything the job's author must mend, every problem at once.
    """
    environ = dict(os.environ)
    loaded = load_for(settings, environ)
    plan = Plan(loaded, settings.selection)
    graders = make_grader_set(loaded)
    history = load_history(loaded, settings.reports_dir)
    judges = JudgeRows(loaded, graders)
    judge_load = JudgeLoad(loaded, plan, graders, judges)
    totals = plan.check(
        check_sample=judge_load.check_sample if judges else graders.check_sample,
        on_progress=on_checked,
        history=history,
    )
    plan.require_unchanged()  # What changed meanwhile was seen in part only.
    # What the rows gave cause to warn of is shown wherever the job's own warnings are.
    loaded = replace(loaded, warnings=(*loaded.warnings, *totals.warnings))
    return Prepared(
        settings=settings,
        loaded=loaded,
        plan=plan,
        graders=graders,
        judges=judges,
        totals=totals,
        judge_load=judge_load,
        environ=environ,
        history=history,
    )


@contextmanager
def watching(prepared: Prepared, folder: RunFolder) -> Iterator[None]:
    """Tell what went wrong with a job's files within the block as what it is: they were in order at the check.

    Args:
        prepared: The job as it was checked.
        folder: The run, of which something may have been sent already.

    Raises:
        InputChangedError: A file of the job has changed, or can no longer be read.
    """
    try:
        yield
    except (DatasetError, PromptError) as error:
        raise InputChangedError(_explain_change(prepared, folder, error)) from error


def _explain_change(prepared: Prepared, folder: RunFolder, error: DatasetError | PromptError) -> str:
    changes = prepared.plan.find_changes()
    what = [f"{change} while the run was under way" for change in changes]
    what = what or [f"{problem.render()}\n    it was in order when the run began" for problem in error.problems]
    resume = f"evalrun run {shlex.quote(str(prepared.settings.job_path))} --resume {shlex.quote(str(folder.path))}"
    return "\n".join(
        [
            *what,
            f"    what was answered is kept in the journal of {folder.path}; no tables were written",
            f"    put the file back as it was, then: {resume}",
            "    with the file as it is now, the same command asks the rows that it changed",
        ]
    )
