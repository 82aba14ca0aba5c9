"""`evalrun list`: the runs of a folder, newest first."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from evalrun.cli.console import (
    Column,
    format_count,
    format_seconds,
    format_usd,
    make_table,
    open_console,
    print_json,
    print_note,
)
from evalrun.cli.job_options import json_option, reports_option
from evalrun.records import SCHEMA_VERSION
from evalrun.store.manifest import REGRADING_KEY
from evalrun.store.runs import RunEntry, list_runs
from evalrun.wall_time import read_wall_time

_STATES = {"pass": "pass", "fail": "fail", "no_verdict": "no verdict", "none": "done"}
"""A finished run's verdict, as the list says it."""

DAMAGED = "damaged"
"""State of a run whose run.json cannot be read; the journal may well be whole."""


@click.command("list")
@reports_option
@json_option
def command(*, reports_dir: Path, as_json: bool) -> None:
    """List the runs below the reports folder, newest first."""
    runs = [_describe(entry) for entry in list_runs(reports_dir)]
    if as_json:
        print_json({"schema_version": SCHEMA_VERSION, "runs": runs})
        return
    if not runs:
        click.echo(f"no runs below {reports_dir}; next: evalrun run JOB")
        return
    columns = [
        Column("run", is_number=True),
        Column("job"),
        Column("state", rank=1),
        Column("rows", is_number=True, rank=2),
        Column("USD", is_number=True, rank=3),
        Column("took", is_number=True, rank=4),
    ]
    rows = [
        [
            run["run_id"],
            run["job"] + (" (simulated)" if run["is_simulated"] else ""),
            run["state"],
            format_count(run["rows"]),
            format_usd(run["usd"]) + (" + ?" if run["usd_unknown_rows"] and run["usd"] is not None else ""),
            _write_time(run),
        ]
        for run in runs
    ]
    console = open_console()
    console.print(make_table(columns, rows, width=console.width))
    for run in runs:
        if run["problem"] is not None:
            print_note(f"{run['run_id']}: {run['problem']}")


def _describe(entry: RunEntry) -> dict[str, Any]:
    """Return one run in figures; a run that has not ended, or whose run.json is damaged, has none."""
    manifest = entry.manifest or {}
    totals, wall = manifest.get("totals", {}), read_wall_time(manifest)
    return {
        "run_id": entry.folder.run_id,
        "job": manifest.get("job_name", entry.folder.job_name),
        "state": _name_state(entry),
        "problem": entry.problem,
        "rows": _read_number(totals.get("rows")),
        "usd": _read_number(totals.get("usd")),
        "usd_unknown_rows": _read_number(totals.get("usd_unknown_rows")),
        "wall_s": _read_number(manifest.get("wall_s")),
        "total_wall_s": wall.seconds,
        "n_calls_of_unknown_time": wall.n_unknown if entry.manifest is not None else None,
        "is_simulated": manifest.get("is_simulated", False),
        "path": str(entry.folder.path),
    }


def _write_time(run: Mapping[str, Any]) -> str:
    """Return what all calls took; of one that was killed that is unknown, and the sum then a lower bound."""
    is_bound = run["total_wall_s"] is not None and run["n_calls_of_unknown_time"]
    return ("≥ " if is_bound else "") + format_seconds(run["total_wall_s"])


def _name_state(entry: RunEntry) -> str:
    if entry.problem is not None:
        return DAMAGED
    if entry.manifest is None or not entry.is_finished:
        return "unfinished"
    if REGRADING_KEY in entry.manifest:
        return "grading unfinished"
    outcome: str = entry.manifest["verdict"]["outcome"]
    return _STATES.get(outcome, outcome)


def _read_number(value: Any) -> float | None:
    """Return what a figure of run.json says; None when it is no number."""
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None
