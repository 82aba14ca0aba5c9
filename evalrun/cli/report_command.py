"""`evalrun report`: the reports again, from the tables."""

from pathlib import Path

import click

from evalrun.cli.console import print_json, show_path
from evalrun.cli.job_options import json_option, reports_option
from evalrun.cli.run_argument import RUN_HELP, open_run, run_argument
from evalrun.closing import render_run
from evalrun.records import SCHEMA_VERSION


@click.command("report", epilog=RUN_HELP)
@run_argument
@click.option(
    "--format", "formats", type=click.Choice(["html", "markdown", "junit"]), multiple=True,
    help="What to render; repeatable. Default: what the job says.",
)  # fmt: skip
@click.option("--include", type=click.Choice(["full", "outputs", "none"]), help="Texts that go into the report.")
@reports_option
@json_option
def command(run: str, *, formats: tuple[str, ...], include: str | None, reports_dir: Path, as_json: bool) -> None:
    """Render RUN's reports again. Reads its tables, sends nothing."""
    folder = open_run(run, reports_dir=reports_dir)
    with folder.lock():
        paths = render_run(folder, formats=formats or None, include=include)
    if as_json:
        print_json({"schema_version": SCHEMA_VERSION, "run_id": folder.path.name, "files": [str(p) for p in paths]})
        return
    for path in paths:
        click.echo(show_path(path))
