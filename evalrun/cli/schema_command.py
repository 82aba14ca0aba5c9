"""`evalrun schema`: the JSON Schema that editors check job files with."""

import click

from evalrun.cli.console import print_json
from evalrun.job.schema import build_job_schema


@click.command("schema")
def command() -> None:
    """Print the JSON Schema of job files."""
    print_json(build_job_schema())
