"""`evalrun grade`: new graders on stored answers."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from evalrun.cli.console import print_json
from evalrun.cli.job_options import json_option, reports_option
from evalrun.cli.results import print_result
from evalrun.cli.run_argument import RUN_HELP, hold_run, open_run, run_argument
from evalrun.closing import read_summary, regrade
from evalrun.errors import UsageError
from evalrun.job.config import LoadedJob, load_env_file, load_job
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

    Asks nothing anew. Replaces the run's grades, verdict and reports.
    """
    folder = open_run(run, reports_dir=reports_dir)
    loaded = load_job(job, environ=os.environ) if job is not None else _load_own_job(read_manifest(folder))
    with hold_run(folder):
        result = regrade(folder, loaded)
    if as_json:
        print_json({**read_summary(folder), "exit_code": result.exit_code})
    else:
        print_result(result)
    return result.exit_code


def _load_own_job(manifest: Mapping[str, Any]) -> LoadedJob:
    """Load the run's job as it is now, with the changes that the run's command line made."""
    if manifest["job_path"] is None:
        raise UsageError("the run was imported without a job", hint="name a job with --job FILE")
    path, call = Path(manifest["job_path"]), manifest["call"]
    if not path.exists():
        raise UsageError(f"the run's job file {path} is not there", hint="name a job with --job FILE")
    environ = dict(os.environ)
    if call["env_file"] is not None:
        environ |= load_env_file(Path(call["env_file"]))
    return load_job(path, overrides=call["overrides"], variables=call["variables"], environ=environ)
