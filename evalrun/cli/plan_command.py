"""`evalrun plan`: what a run would ask, use, cost and take; nothing is sent."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from evalrun.cli.console import (
    Column,
    clean_text,
    format_count,
    format_seconds,
    format_usd,
    make_table,
    open_console,
    print_json,
    print_note,
)
from evalrun.cli.job_options import budget_option, job_argument, job_options, json_option, make_settings
from evalrun.cli.progress import describe_plan
from evalrun.job.estimate import Range
from evalrun.pipeline import Prepared, prepare
from evalrun.records import SCHEMA_VERSION
from evalrun.spending import find_price_problem, list_shortages


@click.command("plan")
@job_argument
@job_options
@budget_option
@json_option
def command(job: Path, *, as_json: bool, **options: Any) -> None:
    """Show what a run of JOB would do: requests, tokens, USD and time, low to high, per model. No network."""
    prepared = prepare(make_settings(job, options))
    for warning in prepared.loaded.warnings:
        print_note(f"warning: {warning.render()}")
    if as_json:
        budget = prepared.loaded.job.budget
        print_json(
            {
                "schema_version": SCHEMA_VERSION,
                "job": prepared.loaded.name,
                **asdict(prepared.totals),
                "budget": None if budget is None else asdict(budget),
                "budget_problems": _list_budget_problems(prepared),
            }
        )
        return
    _print_plan(job, prepared)


def _print_plan(job: Path, prepared: Prepared) -> None:
    console = open_console()
    console.print(clean_text(describe_plan(prepared, n_settled=0)))
    columns = [
        Column("model"),
        Column("endpoint", rank=4),
        Column("requests", is_number=True),
        Column("tokens in", is_number=True, rank=3),
        Column("tokens out, low – expected – high", is_number=True, rank=2),
        Column("USD, low – expected – high", is_number=True),
        Column("time, low – high", is_number=True, rank=1),
    ]
    rows = [
        [
            estimate.model,
            estimate.endpoint,
            format_count(estimate.requests),
            format_count(estimate.prompt_tokens.expected),
            format_range(estimate.completion_tokens, format_count),
            format_range(estimate.usd, format_usd),
            f"{format_seconds(estimate.time_s.low)} – {format_seconds(estimate.time_s.high)}",
        ]
        for estimate in prepared.totals.models
    ]
    console.print(make_table(columns, rows, width=console.width))
    totals = prepared.totals
    console.print(
        f"in all: {format_count(totals.n_rows)} requests, {format_range(totals.usd, format_usd)}, "
        f"{format_seconds(totals.time_s.low)} – {format_seconds(totals.time_s.high)}"
    )
    for text in _list_budget_problems(prepared):
        console.print(clean_text(f"budget: {text}"))
    console.print("tokens are estimated from the text; nothing was sent")
    console.print(f"next: evalrun run {clean_text(str(job))}")


def _list_budget_problems(prepared: Prepared) -> list[str]:
    """Return why a run would be refused for its budget, and which limits it is expected to pass."""
    loaded = prepared.loaded
    problem = find_price_problem(loaded, prepared.plan.models)
    refusal = [f"{problem.message}; `run` refuses this: {problem.hint}"] if problem is not None else []
    return [*refusal, *list_shortages(loaded.job.budget, prepared.totals)]


def format_range(values: Range, write: Callable[[float | None], str]) -> str:
    """Return low – expected – high, or the one word for unknown."""
    if values.expected is None:
        return write(None)
    return f"{write(values.low)} – {write(values.expected)} – {write(values.high)}"
