"""A job checked in full before anything is sent: every row, every template and every grader.

Settings enter and a Prepared leaves, or every problem at once.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from evalrun.analysis.graders.grader_set import GraderSet
from evalrun.closing import make_grader_set
from evalrun.job.config import LoadedJob
from evalrun.job.estimate import PlanTotals
from evalrun.job.plan import Plan
from evalrun.resuming import RunSettings, load_for


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A job that was checked in full; nothing was sent."""

    settings: RunSettings
    loaded: LoadedJob
    plan: Plan
    graders: GraderSet
    totals: PlanTotals
    environ: Mapping[str, str]


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
    totals = plan.check(check_sample=graders.check_sample, on_progress=on_checked)
    # What the rows gave cause to warn of is shown wherever the job's own warnings are.
    loaded = replace(loaded, warnings=(*loaded.warnings, *totals.warnings))
    return Prepared(settings=settings, loaded=loaded, plan=plan, graders=graders, totals=totals, environ=environ)
