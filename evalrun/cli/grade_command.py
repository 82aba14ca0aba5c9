"""`evalrun grade`: new graders on stored answers."""

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import click

from evalrun.cli.console import print_json
from evalrun.cli.job_options import json_option, reports_option
from evalrun.cli.progress import ProgressDisplay
from evalrun.cli.results import print_result
from evalrun.cli.run_argument import RUN_HELP, hold_run, open_run, run_argument
from evalrun.closing import RunResult, read_summary, regrade
from evalrun.errors import UsageError
from evalrun.job.config import LoadedJob, load_env_file, load_job
from evalrun.job_graders import make_grader_set
from evalrun.store.folder import RunFolder
from evalrun.store.manifest import read_manifest


@click.command("grade", epilog=RUN_HELP)
@run_argument
@click.option(
    "--job", type=click.Path(path_type=Path), help="Job whose graders and gate apply; default: the run's own."
)
@reports_option
@json_option
def command(run: str, *, job: Path | None, reports_dir: Path, as_json: bool) -> int:
    """Grade RUN's stored answers again, with its job's graders as they are now.

    Asks no model for new answers; judges are asked what they have not said yet. Replaces the run's grades, verdict and
    reports.
    """
    folder = open_run(run, reports_dir=reports_dir)
    environ = dict(os.environ)
    loaded = load_job(job, environ=environ) if job is not None else _load_own_job(read_manifest(folder), environ)
    with hold_run(folder):
        result = _grade(folder, loaded, environ)
    if as_json:
        print_json({**read_summary(folder), "exit_code": result.exit_code})
    else:
        print_result(result)
    return result.exit_code


def _grade(folder: RunFolder, loaded: LoadedJob, environ: Mapping[str, str]) -> RunResult:
    """Grade with the job's judges, or at once when it has none."""
    if not make_grader_set(loaded).list_judge_options():
        return regrade(folder, loaded)
    # A late import: what asks takes a while to load, and most gradings ask nobody.
    import anyio

    from evalrun.judge_grading import grade_with_judges

    with ProgressDisplay() as display:
        call = partial(grade_with_judges, folder, loaded, environ, on_progress=display.show)
        return anyio.run(call, backend="asyncio", backend_options={"use_uvloop": True})


def _load_own_job(manifest: Mapping[str, Any], environ: dict[str, str]) -> LoadedJob:
    """Load the run's job as it is now, with the changes that the run's command line made.

    The variables of its `--env-file` are added to the environment given.
    """
    if manifest["job_path"] is None:
        raise UsageError("the run was imported without a job", hint="name a job with --job FILE")
    path, call = Path(manifest["job_path"]), manifest["call"]
    if not path.exists():
        raise UsageError(f"the run's job file {path} is not there", hint="name a job with --job FILE")
    if call["env_file"] is not None:
        environ |= load_env_file(Path(call["env_file"]))
    return load_job(path, overrides=call["overrides"], variables=call["variables"], environ=environ)
