"""`evalrun init`: a job that runs at once, with no key."""

import json
from importlib import resources
from pathlib import Path

import click

from evalrun.errors import UsageError
from evalrun.job.schema import build_job_schema

STARTER_FILES = ("job.yaml", "samples.jsonl")


@click.command("init")
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False), default=Path())
def command(directory: Path) -> None:
    """Write a job, a small dataset and a schema into DIRECTORY (default: here). Overwrites nothing."""
    starter = resources.files("evalrun.cli") / "starter"
    texts = {name: (starter / name).read_text(encoding="utf-8") for name in STARTER_FILES}
    texts["job.schema.json"] = json.dumps(build_job_schema(), ensure_ascii=False, indent=2) + "\n"
    present = [name for name in texts if (directory / name).exists()]
    if present:
        raise UsageError(
            f"{directory / present[0]} is there already; nothing was written",
            hint="choose another folder: evalrun init DIR",
        )
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (directory / name).write_text(text, encoding="utf-8")
        click.echo(f"wrote {directory / name}")
    click.echo(f"next: evalrun run {directory / 'job.yaml'}")
