"""`evalrun validate`: the strict check that every run begins with, alone."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from evalrun.cli.console import count_noun, print_json, print_note
from evalrun.cli.job_options import job_argument, job_options, json_option, make_settings
from evalrun.errors import AuthorError
from evalrun.preparing import prepare
from evalrun.records import SCHEMA_VERSION


@click.command("validate")
@job_argument
@job_options
@json_option
def command(job: Path, *, as_json: bool, **options: Any) -> None:
    """Check JOB strictly, every template and grader against every row. Sends nothing, needs no key."""
    try:
        prepared = prepare(make_settings(job, options))
    except AuthorError as error:
        if as_json:
            problems = [asdict(problem) for problem in error.problems]
            print_json({"schema_version": SCHEMA_VERSION, "job": str(job), "valid": False, "problems": problems})
        raise
    totals = prepared.totals
    for note in prepared.loaded.notes:
        print_note(note)
    for warning in prepared.loaded.warnings:
        print_note(f"warning: {warning.render()}")
    if as_json:
        print_json(
            {
                "schema_version": SCHEMA_VERSION,
                "job": prepared.loaded.name,
                "valid": True,
                "samples": totals.n_samples,
                "rows": totals.n_rows,
                "categories": dict(totals.categories),
                "warnings": [warning.render() for warning in prepared.loaded.warnings],
            }
        )
        return
    click.echo(f"{job} is valid: {count_noun(totals.n_samples, 'sample')}, {count_noun(totals.n_rows, 'row')}")
    click.echo(f"next: evalrun plan {job}")
