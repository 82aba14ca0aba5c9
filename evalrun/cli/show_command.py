"""`evalrun show`: a run's rows, failing ones first, with prompt, output and reasons."""

import csv
import itertools
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from evalrun.cli.console import clean_text, count_noun, format_seconds, print_json, print_note
from evalrun.cli.csv_cells import escape_formula
from evalrun.cli.job_options import json_option, reports_option
from evalrun.cli.journal_view import JournalFilter, print_journal
from evalrun.cli.lane_table import print_lanes, require_lanes
from evalrun.cli.results import SIMULATED
from evalrun.cli.row_reference import ROW_HELP, make_row_test
from evalrun.cli.run_argument import RUN_HELP, open_run, run_argument
from evalrun.closing import mend_run
from evalrun.errors import UsageError
from evalrun.records import SCHEMA_VERSION, Status
from evalrun.run_tables import RunTables
from evalrun.store.folder import RunFolder
from evalrun.store.journal_scan import scan_journal
from evalrun.store.manifest import read_manifest
from evalrun.store.parquet import scan_rows
from evalrun.store.runs import find_run

Row = Mapping[str, Any]
Graded = tuple[Row, Sequence[Row]]

EXCERPT_CHARS = 600
"""Longest excerpt of a text on the terminal; `--full` shows all."""

_CSV_COLUMNS = (
    "sample_id", "category", "prompt", "model", "repeat", "status", "error_code", "passed", "score", "output",
    "prompt_tokens", "completion_tokens", "cost_usd", "latency_s",
)  # fmt: skip

_FILTERED = ("model", "prompt", "category", "status")

_NAMES = ("row_id", "sample_id", *_FILTERED)
"""What filters go by, but for the verdict."""


@click.command("show", epilog=RUN_HELP)
@run_argument
@click.option("--failed", is_flag=True, help="Only rows that failed a grader or got no answer.")
@click.option("--sample", "samples", multiple=True, metavar="GLOB", help="Only these samples; repeatable.")
@click.option("--model", "models", multiple=True, metavar="GLOB", help="Only these models; repeatable.")
@click.option("--prompt", "prompts", multiple=True, metavar="GLOB", help="Only these prompts; repeatable.")
@click.option("--category", "categories", multiple=True, metavar="GLOB", help="Only these categories; repeatable.")
@click.option(
    "--status", "statuses", multiple=True, type=click.Choice([status.value for status in Status]),
    help="Only rows of this status; repeatable.",
)  # fmt: skip
@click.option("--limit", type=click.IntRange(min=0), default=10, show_default=True, help="Rows to show; 0 = all.")
@click.option("--full", is_flag=True, help="Show texts whole.")
@click.option("--lanes", is_flag=True, help="Tell why the run took as long as it did, lane by lane.")
@click.option("--row", "rows", multiple=True, metavar="ROW", help=ROW_HELP)
@click.option("--journal", is_flag=True, help="Show the journal, record by record, also of a run that has not ended.")
@click.option("--raw", is_flag=True, help="Show the server's reply as it came, from the journal.")
@click.option(
    "--format", "output_format", type=click.Choice(["text", "jsonl", "csv"]), default="text", show_default=True
)
@reports_option
@json_option
def command(  # noqa: PLR0913 - one argument for each option
    run: str, *, failed: bool, limit: int, full: bool, lanes: bool, journal: bool, raw: bool,
    output_format: str, as_json: bool, reports_dir: Path, rows: tuple[str, ...], **filters: tuple[str, ...],
) -> int:  # fmt: skip
    """Show RUN's rows, failing ones first."""
    if journal:
        ctx = click.get_current_context()
        _refuse_beside_journal(ctx)
        is_named = _make_filter(filters, ()) if any(filters.values()) else None
        wanted = JournalFilter(references=rows, is_named=is_named)
        is_limited = limit > 0 and ctx.get_parameter_source("limit") is not ParameterSource.DEFAULT
        is_json = as_json or output_format == "jsonl"
        folder = find_run(run, reports_dir=reports_dir)
        return print_journal(folder, wanted, limit=limit if is_limited else None, is_full=full, as_json=is_json)
    if lanes:
        require_lanes(find_run(run, reports_dir=reports_dir))
    folder = open_run(run, reports_dir=reports_dir)
    holder = folder.find_holder()
    if holder is not None:
        print_note(f"note: process {holder} is at work in this run; what is shown is as it stood at its last end")
    if lanes:
        print_lanes(read_manifest(folder), as_json=as_json)
        return 0
    mend_run(folder)
    manifest, tables = read_manifest(folder), RunTables(folder)
    is_wanted = _make_filter(filters, rows)
    chosen = _choose_rows(tables, is_wanted, is_failed_only=failed, limit=limit)
    if (any(filters.values()) or rows) and not failed:
        chosen = _require_any(chosen, folder)
    if as_json:
        output_format = "json"
    if output_format == "jsonl":
        _write_jsonl(chosen, is_simulated=manifest["is_simulated"])
    elif output_format == "json":
        _write_json(chosen, manifest)
    elif output_format == "csv":
        _write_csv(chosen, is_simulated=manifest["is_simulated"])
    else:
        n_shown = _write_text(folder, chosen, manifest, excerpt_chars=None if full else EXCERPT_CHARS, is_raw=raw)
        n_rows = n_shown if n_shown != limit else _count_rows(folder, tables, is_wanted, is_failed_only=failed)
        click.echo(_describe_end(n_shown, n_rows))
    return 0


def _refuse_beside_journal(ctx: click.Context) -> None:
    """Refuse options that mean nothing for records, rather than pass them over."""
    idle = [f"--{name}" for name in ("failed", "lanes", "raw") if ctx.params[name]]
    if ctx.params["output_format"] == "csv":
        idle.append("--format csv")
    if idle:
        raise UsageError(f"{', '.join(idle)} cannot go with --journal", hint="`--json` writes one object per record")


def is_failing(row: Row) -> bool:
    """Return whether a row wants a look: a failed grader, or no answer."""
    return row["passed"] is False or row["status"] in {"error", "pending", "filtered"}


def _make_filter(filters: Mapping[str, tuple[str, ...]], references: Sequence[str]) -> Callable[[Row], bool]:
    columns = {
        "samples": "sample_id", "models": "model", "prompts": "prompt", "categories": "category", "statuses": "status",
    }  # fmt: skip
    wanted = {columns[name]: globs for name, globs in filters.items() if globs}
    is_meant = make_row_test(references) if references else None

    def is_wanted(row: Row) -> bool:
        if is_meant is not None and not is_meant(row["row_id"]):
            return False
        return all(any(fnmatchcase(str(row[column]), glob) for glob in globs) for column, globs in wanted.items())

    return is_wanted


def _choose_rows(
    tables: RunTables, is_wanted: Callable[[Row], bool], *, is_failed_only: bool, limit: int
) -> Iterator[Graded]:
    """Yield failing rows, then the others, each in plan order, until the limit."""
    n_shown = 0
    for wants_failing in (True,) if is_failed_only else (True, False):
        for row, grades in tables.scan():
            if is_failing(row) is wants_failing and is_wanted(row):
                yield row, grades
                n_shown += 1
                if limit and n_shown >= limit:
                    return


def _count_rows(folder: RunFolder, tables: RunTables, is_wanted: Callable[[Row], bool], *, is_failed_only: bool) -> int:
    """Return how many rows there are to choose from, those beyond the limit included."""
    names = scan_rows(folder.results_path, _NAMES)
    rows = ({**name, **verdict} for name, verdict in zip(names, tables.scan_verdicts(), strict=True))
    return sum((not is_failed_only or is_failing(row)) and is_wanted(row) for row in rows)


def _require_any(chosen: Iterator[Graded], folder: RunFolder) -> Iterator[Graded]:
    """Pass the rows on; refuse filters that no row of the run meets.

    Raises:
        UsageError: No row matches; names what there is.
    """
    first = next(chosen, None)
    if first is None:
        kinds: dict[str, set[str]] = {name: set() for name in _FILTERED}
        for row in scan_rows(folder.results_path, _FILTERED):
            for name, values in kinds.items():
                values.add(str(row[name]))
        known = "; ".join(f"{name}: {', '.join(sorted(values)[:12])}" for name, values in kinds.items())
        raise UsageError(f"no row of {folder.run_id} matches the filters", hint=f"there are: {known}")
    return itertools.chain([first], chosen)


def _write_jsonl(chosen: Iterator[Graded], *, is_simulated: bool) -> None:
    for row, grades in chosen:
        record = {"simulated": is_simulated, **row, "grades": [dict(grade) for grade in grades]}
        sys.stdout.write(json.dumps(record, ensure_ascii=False, default=str) + "\n")


def _write_json(chosen: Iterator[Graded], manifest: Mapping[str, Any]) -> None:
    rows = [{**row, "grades": [dict(grade) for grade in grades]} for row, grades in chosen]
    facts = {"schema_version": SCHEMA_VERSION, "run_id": manifest["run_id"], "simulated": manifest["is_simulated"]}
    print_json({**facts, "rows": rows})


def _write_csv(chosen: Iterator[Graded], *, is_simulated: bool) -> None:
    writer = csv.writer(sys.stdout)
    writer.writerow(["simulated", *_CSV_COLUMNS, "reasons"])
    for row, grades in chosen:
        reasons = "; ".join(f"{grade['grader']}: {grade['reason']}" for grade in grades if grade["passed"] is False)
        cells = ["" if row[column] is None else str(row[column]) for column in _CSV_COLUMNS]
        simulated = "true" if is_simulated else "false"
        writer.writerow([escape_formula(cell) for cell in [simulated, *cells, reasons]])


def _write_text(
    folder: RunFolder,
    chosen: Iterator[Graded],
    manifest: Mapping[str, Any],
    *,
    excerpt_chars: int | None,
    is_raw: bool,
) -> int:
    """Print rows as text, and return how many."""
    n_repeats = manifest["job"].get("repeats", manifest["job"].get("epochs", 1))
    if manifest["is_simulated"]:
        click.echo(SIMULATED)
    index = scan_journal(folder) if is_raw else None
    n_shown = 0
    for row, grades in chosen:
        n_shown += 1
        click.echo("\n".join(_describe_row(row, grades, excerpt_chars, n_repeats)))
        if index is not None:
            outcome = index.read_outcome(row["row_id"])
            body = outcome.last_attempt.body if outcome is not None and outcome.last_attempt is not None else None
            reused = row["reused_from"]
            none = "none" if reused is None else f"in the journal of {reused}, the run that asked"
            click.echo("  raw reply: " + clean_text(body if body is not None else none))
    return n_shown


def _describe_end(n_shown: int, n_rows: int) -> str:
    """Return how many rows were shown, and of how many."""
    if not n_shown:
        return "no row matches"
    if n_shown < n_rows:
        return f"\n{n_shown:,} of {count_noun(n_rows, 'row')} shown; --limit 0 shows all"
    return f"\n{count_noun(n_shown, 'row')} shown"


def _describe_row(row: Row, grades: Sequence[Row], excerpt_chars: int | None, n_repeats: int) -> list[str]:
    mark = {True: "✓", False: "✗", None: "?"}[row["passed"]]
    repeat = f" {row['repeat'] + 1}/{n_repeats}" if n_repeats > 1 else ""
    lines = [
        "",
        clean_text(
            f"{mark} {row['sample_id']}{repeat} · {row['model']} · {row['prompt']} · {row['status']}"
            f" · {_describe_time(row)}"
        ),
    ]
    for message in json.loads(row["request"]).get("messages", []):
        content = message.get("content")
        text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
        lines += _indent(f"{message.get('role')}:", text, excerpt_chars)
    if row["output"] is not None:
        lines += _indent("output:", row["output"], excerpt_chars)
    if row["error_code"] is not None:
        lines += _describe_error(row, excerpt_chars)
    for grade in grades:
        verdict = {True: "passed", False: "failed", None: "not graded"}[grade["passed"]]
        lines += _indent(f"{grade['grader']} {verdict}:", grade["reason"] or "", excerpt_chars)
    return lines


def _describe_time(row: Row) -> str:
    """Return how long the answer took; one of an older run took no time in this one."""
    return format_seconds(row["latency_s"]) if row["reused_from"] is None else f"taken over from {row['reused_from']}"


def _describe_error(row: Row, excerpt_chars: int | None) -> list[str]:
    """Return why a row has no answer; one that was never sent has no message of its own."""
    if row["error_message"]:
        return _indent(f"{row['error_code']}:", row["error_message"], excerpt_chars)
    is_unasked = row["status"] == Status.PENDING and not row["attempts"]
    return [f"  {clean_text(row['error_code'])}" + (": not asked" if is_unasked else "")]


def _indent(label: str, text: str, excerpt_chars: int | None) -> list[str]:
    """Return a labelled text, cleaned, cut and indented."""
    if excerpt_chars is not None and len(text) > excerpt_chars:
        text = f"{text[:excerpt_chars]} … ({len(text) - excerpt_chars} more characters; --full shows them)"
    first, *rest = clean_text(text).splitlines() or [""]
    return [f"  {clean_text(label)} {first}", *(f"    {line}" for line in rest)]
