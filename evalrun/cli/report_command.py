"""`evalrun report`: the reports again, from the tables."""

from pathlib import Path

import click

from evalrun.cli.console import print_json, show_path
from evalrun.cli.job_options import json_option, reports_option
from evalrun.cli.run_argument import RUN_HELP, hold_run, open_run, run_argument
from evalrun.closing import render_run
from evalrun.errors import UsageError
from evalrun.records import SCHEMA_VERSION


@click.command("report", epilog=RUN_HELP)
@run_argument
@click.option(
    "--format", "formats", type=click.Choice(["html", "markdown", "junit"]), multiple=True,
    help="What to render; repeatable. Default: what the job says.",
)  # fmt: skip
@click.option("--include", type=click.Choice(["full", "outputs", "none"]), help="Texts that go into the report.")
@click.option(
    "--to", "into", type=click.Path(path_type=Path), metavar="DIR",
    help="Write the files there; the run folder stays as it is, and may be read-only or in use.",
)  # fmt: skip
@reports_option
@json_option
def command(
    run: str, *, formats: tuple[str, ...], include: str | None, into: Path | None, reports_dir: Path, as_json: bool
) -> None:
    """Render RUN's reports again. Reads its tables, sends nothing."""
    folder = open_run(run, reports_dir=reports_dir)
    if into is None:
        with hold_run(folder, hint="or write the reports elsewhere: --to DIR"):
            paths = render_run(folder, formats=formats or None, include=include)
    else:
        _make_folder(into)
        paths = render_run(folder, formats=formats or None, include=include, into=into)
    if as_json:
        print_json({"schema_version": SCHEMA_VERSION, "run_id": folder.path.name, "files": [str(p) for p in paths]})
        return
    for path in paths:
        click.echo(show_path(path))


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot make the folder {path}: {error.strerror or error}") from error
