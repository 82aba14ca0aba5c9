"""`evalrun usage`: what runs took, in tokens and USD, and whether their tables tell the same."""

import csv
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evalrun.cli.console import (
    Column,
    clean_text,
    count_noun,
    format_count,
    format_usd,
    make_table,
    open_console,
    print_json,
    print_note,
)
from evalrun.cli.csv_cells import escape_formula
from evalrun.cli.job_options import json_option, reports_option
from evalrun.cli.results import SIMULATED
from evalrun.cli.run_argument import RUN_HELP, open_run
from evalrun.errors import StoreError, UsageError
from evalrun.records import SCHEMA_VERSION

if TYPE_CHECKING:
    from evalrun.run_accounts import Account, RunCheck
    from evalrun.store.folder import RunFolder

_BY = "model"

_NOBODY = {"category": "(none)", "day": "(not asked)"}
"""How a key that is null is shown; any other is null for attempts of rows that the job no longer has."""

_GONE = "(left the job)"

_TOKENS = (
    ("requests", "requests", 0), ("answered", "answered", 1), ("reused", "reused", 3),
    ("uncached_input_tokens", "input", 0), ("cache_read_tokens", "cached", 2), ("cache_write_tokens", "cache write", 2),
    ("output_tokens", "output", 0), ("reasoning_tokens", "reasoning", 2), ("wasted", "wasted in/out", 4),
)  # fmt: skip
"""Columns of the first table: figure, heading, rank."""

_MONEY = (
    ("cost_usd", "cost", 0), ("billed_usd", "billed", 0), ("wasted_usd", "wasted", 1),
    ("estimated_usd", "estimated", 2), ("usd_per_1k", "USD/1k", 3), ("usd_per_correct", "USD/correct", 3),
    ("unknown", "unknown", 1),
)  # fmt: skip
"""Columns of the second table."""

_ALWAYS = {"requests", "answered", "uncached_input_tokens", "output_tokens", "cost_usd", "billed_usd", "usd_per_1k"}
"""Columns that are shown even when there is nothing in them."""

_SUMS_AND_COUNTS = {"cost_usd": "n_cost_unknown", "billed_usd": "n_billed_unknown"}


@click.command("usage", epilog=RUN_HELP)
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@click.option(
    "--by", multiple=True, metavar="KEYS", default=(_BY,), show_default=True,
    help="What to group by: some of model, prompt, category, run, day, role, status, with commas between.",
)  # fmt: skip
@click.option("--csv", "as_csv", is_flag=True, help="Print one line of CSV per group.")
@click.option(
    "--parquet", "parquet_path", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
    help="Write the groups to FILE as well.",
)  # fmt: skip
@reports_option
@json_option
def command(
    runs: tuple[str, ...],
    *,
    by: tuple[str, ...],
    as_csv: bool,
    parquet_path: Path | None,
    reports_dir: Path,
    as_json: bool,
) -> None:
    """Tell what RUNs took: tokens and USD, what was reused, wasted and estimated. Sends nothing."""
    if as_json and as_csv:
        raise UsageError("--json cannot go with --csv", hint="choose one; --parquet FILE goes with either")
    from evalrun.run_accounts import check_keys, load_account

    keys = list(dict.fromkeys(key.strip() for text in by for key in text.split(",") if key.strip()))
    check_keys(keys)
    account = load_account(_open_runs(runs, reports_dir), keys)
    if parquet_path is not None:
        _write_parquet(account, parquet_path)
    if as_json:
        print_json(_to_json(account, keys))
    elif as_csv:
        _write_csv(account)
    else:
        _print_account(account, keys)
    sys.stdout.flush()
    _refuse_contradictions(account.checks)


def _open_runs(references: Sequence[str], reports_dir: Path) -> "list[RunFolder]":
    """Return the runs meant, each once, mended where a crash came between their files."""
    from evalrun.closing import mend_run

    folders = {}
    for reference in references:
        folder = open_run(reference, reports_dir=reports_dir)
        key = folder.path.resolve()
        if key in folders:
            print_note(f"note: {reference} is {folder.run_id}, which is named already; it is counted once")
            continue
        holder = folder.find_holder()
        if holder is not None:
            print_note(f"note: process {holder} is at work in {folder.run_id}; it is counted as of its last end")
        mend_run(folder)
        folders[key] = folder
    return list(folders.values())


def _print_account(account: "Account", keys: Sequence[str]) -> None:
    console = open_console()
    if account.is_simulated:
        console.print(SIMULATED, end="\n\n")
    groups = [*account.groups.iter_rows(named=True)]
    rows = [*groups, account.total] if len(groups) > 1 else groups
    names = [_name_group(group, keys) for group in groups] + [["total", *[""] * (len(keys) - 1)]]
    is_cut = False
    for columns in (_TOKENS, _MONEY):
        shown = [column for column in columns if column[0] in _ALWAYS or any(_has(row, column[0]) for row in rows)]
        headings = [Column(key) for key in keys or ("",)]
        headings += [Column(heading, is_number=True, rank=rank) for _, heading, rank in shown]
        cells = [[*name, *(_write(row, column[0]) for column in shown)] for name, row in zip(names, rows, strict=False)]
        table = make_table(headings, cells, width=console.width)
        is_cut |= len(table.columns) < len(headings)
        console.print(table)
        console.print()
    for line in _describe_checks(account):
        console.print(clean_text(line))
    if is_cut:
        print_note("columns that do not fit are left out; --json and --csv have all")


def _name_group(group: Mapping[str, Any], keys: Sequence[str]) -> list[str]:
    return [_NOBODY.get(key, _GONE) if group[key] is None else str(group[key]) for key in keys] or ["total"]


def _has(row: Mapping[str, Any], name: str) -> bool:
    """Return whether a figure is worth a column."""
    if name == "wasted":
        return bool(row["wasted_prompt_tokens"] or row["wasted_completion_tokens"])
    return bool(_count_unknown(row)) if name == "unknown" else row[name] != 0


def _write(row: Mapping[str, Any], name: str) -> str:
    if name == "wasted":
        return f"{format_count(row['wasted_prompt_tokens'])}/{format_count(row['wasted_completion_tokens'])}"
    if name == "unknown":
        return format_count(_count_unknown(row))
    if name.startswith("usd") or name.endswith("_usd"):
        is_part = name in _SUMS_AND_COUNTS and row[_SUMS_AND_COUNTS[name]] and row[name] is not None
        return format_usd(row[name]) + (" + ?" if is_part else "")
    return format_count(row[name])


def _count_unknown(row: Mapping[str, Any]) -> int:
    """Return how many costs are unknown: of attempts, and of outcomes that were not asked here."""
    return max(int(row["n_billed_unknown"]), int(row["n_cost_unknown"]))


def _describe_checks(account: "Account") -> list[str]:
    """Return how rows, attempts and summary agree, and what is in none of them."""
    checks, sums = account.checks, account.sums
    parts = [f"rows {format_usd(float(sums.rows_usd))}"]
    for usd, n, what, why in (
        (sums.gone_usd, sums.n_gone, "attempt", "for rows that the job no longer has"),
        (sums.partly_usd, sums.n_rows_unknown, "row", "known in part"),
    ):
        if usd:
            parts.append(f"{format_usd(float(usd))} of {count_noun(n, what)} {why}")
    sign = _sign(is_equal=not sums.n_off)
    line = f"billed: {' + '.join(parts)} {sign} attempts {format_usd(float(sums.attempts_usd))}"
    told = [check.summary_usd for check in checks if check.summary_usd is not None]
    if len(told) == len(checks):
        line += f" {_sign(is_equal=all(check.agrees for check in checks))} summary {format_usd(sum(told))}"
    else:
        line += f"; run.json holds no such sum in {count_noun(len(checks) - len(told), 'run')}"
    return [line, *_describe_unknown(account), *_describe_reused(account.total)]


def _sign(*, is_equal: bool) -> str:
    return "=" if is_equal else "≠"


def _describe_unknown(account: "Account") -> list[str]:
    total = account.total
    n_doubt = sum(check.n_in_doubt for check in account.checks)
    unknown = []
    if total["n_billed_unknown"]:
        unknown.append(f"the cost of {count_noun(total['n_billed_unknown'], 'attempt')}")
    if n_doubt:
        unknown.append(f"what {count_noun(n_doubt, 'request')} in flight at a crash may have taken")
    return [f"unknown, and in no sum: {'; '.join(unknown)}"] if unknown else []


def _describe_reused(total: Mapping[str, Any]) -> list[str]:
    if not total["reused"]:
        return []
    rows = count_noun(total["reused"], "row")
    return [f"reused: {rows}, {format_usd(total['reused_usd'])} of the cost; billed in the runs that asked, not here"]


def _refuse_contradictions(checks: "Sequence[RunCheck]") -> None:
    """Say which runs have tables that cannot all be true.

    Raises:
        StoreError: There is one.
    """
    found = []
    for check in checks:
        run, sums = check.folder.run_id, check.sums
        if sums.n_off:
            rows = f"{count_noun(sums.n_off, 'row')} of {run} and their attempts"
            found.append(f"{rows} do not tell the same of what was billed: rows {sums.off_usd:+f} USD")
        elif not check.agrees:
            said = f"run.json of {run} says that {check.summary_usd} USD were billed"
            found.append(f"{said}, attempts.parquet {sums.attempts_usd:f}")
    if found:
        what = "; ".join(found)
        raise StoreError(f"{what}. One of the files is damaged, or of another time: evalrun run JOB --resume RUN makes "
                         "all of them anew from the journal")  # fmt: skip


def _write_csv(account: "Account") -> None:
    writer = csv.writer(sys.stdout)
    writer.writerow(["simulated", *account.groups.columns])
    simulated = "true" if account.is_simulated else "false"
    for row in account.groups.iter_rows():
        cells = ["" if cell is None else str(cell) for cell in row]
        writer.writerow([simulated, *(escape_formula(cell) for cell in cells)])


def _write_parquet(account: "Account", path: Path) -> None:
    """Write the groups to a file of the user's choice.

    Raises:
        UsageError: It cannot be written.
    """
    from evalrun.store.folder import write_atomically

    simulated = "true" if account.is_simulated else "false"
    facts = {"evalrun.schema_version": SCHEMA_VERSION, "evalrun.is_simulated": simulated}
    try:
        write_atomically(path, lambda temporary: account.groups.write_parquet(temporary, metadata=facts))
    except StoreError as error:
        raise UsageError(str(error)) from error


def _to_json(account: "Account", keys: Sequence[str]) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "simulated": account.is_simulated,
        "by": list(keys),
        "groups": account.groups.to_dicts(),
        "total": dict(account.total),
        "runs": [_describe_run(check) for check in account.checks],
    }


def _describe_run(check: "RunCheck") -> dict[str, Any]:
    sums = check.sums
    return {
        "run_id": check.folder.run_id,
        "job": check.manifest.get("job_name"),
        "path": str(check.folder.path),
        "simulated": bool(check.manifest.get("is_simulated")),
        "agrees": check.agrees,
        "rows_usd": float(sums.rows_usd),
        "attempts_usd": float(sums.attempts_usd),
        "summary_usd": check.summary_usd,
        "gone_usd": float(sums.gone_usd),
        "gone_attempts": sums.n_gone,
        "partly_known_usd": float(sums.partly_usd),
        "rows_unknown": sums.n_rows_unknown,
        "attempts_unknown": sums.n_attempts_unknown,
        "contradicting_rows": sums.n_off,
        "in_doubt": check.n_in_doubt,
    }
