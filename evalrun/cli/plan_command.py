"""`evalrun plan`: what a run would ask, use, cost and take; nothing is sent."""

import shlex
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from evalrun.cli.console import (
    Column,
    clean_text,
    count_noun,
    format_count,
    format_percent,
    format_seconds,
    format_usd,
    make_table,
    open_console,
    print_json,
    print_note,
)
from evalrun.cli.explanation import EXPLAIN_HELP, print_explanation
from evalrun.cli.job_options import (
    budget_option,
    job_argument,
    job_options,
    json_option,
    make_settings,
    repeat_options,
    reports_option,
    require_cost_option,
    reuse_option,
)
from evalrun.cli.progress import describe_plan
from evalrun.errors import ConfigError
from evalrun.job.estimate import PlanTotals, scale_totals
from evalrun.job.ranges import Range
from evalrun.judge_load import add_judges
from evalrun.plan_power import PlanPower, estimate_power
from evalrun.preparing import Prepared, prepare
from evalrun.records import SCHEMA_VERSION
from evalrun.reuse_advice import ReuseForecast, forecast_reuse
from evalrun.spending import find_price_problem, list_cost_problems, list_shortages


@click.command("plan")
@job_argument
@job_options
@budget_option
@require_cost_option
@reuse_option
@click.option("--explain", "row", metavar="ROW", help=EXPLAIN_HELP)
@reports_option
@json_option
def command(
    job: Path, *, require_cost: bool, row: str | None, reports_dir: Path, as_json: bool, **options: Any
) -> None:
    """Show what a run of JOB would do: requests, tokens, USD and time, low to high, per model. No network."""
    settings = make_settings(job, options, reports_dir=reports_dir)
    prepared = prepare(settings)
    if require_cost and (problems := list_cost_problems(prepared.loaded, prepared.list_models())):
        raise ConfigError(problems)
    if row is not None:
        print_explanation(prepared, row, as_json=as_json)
        return
    forecast = forecast_reuse(settings, prepared.loaded, prepared.plan)
    totals = _leave_out_reused(prepared.totals, forecast)
    for note in prepared.loaded.notes:
        print_note(note)
    for warning in prepared.loaded.warnings:
        print_note(f"warning: {warning.render()}")
    for note in forecast.sources.notes if forecast is not None else ():
        print_note(note)
    if as_json:
        budget = prepared.loaded.job.budget
        print_json(
            {
                "schema_version": SCHEMA_VERSION,
                "job": prepared.loaded.name,
                **{key: value for key, value in asdict(totals).items() if key != "prompt_estimates"},
                "n_rows": prepared.totals.n_rows,
                "power": asdict(estimate_power(totals.n_samples, prepared.history)),
                "judges": [asdict(judge) for judge in prepared.judge_load.estimate(prepared.totals)],
                "budget": None if budget is None else asdict(budget),
                "budget_problems": _list_budget_problems(prepared, totals),
                "reuse": _describe_forecast(forecast),
            }
        )
        return
    _print_plan(job, prepared, totals, forecast)


def _leave_out_reused(totals: PlanTotals, forecast: ReuseForecast | None) -> PlanTotals:
    """Return what is left to ask when the runs that are named have given what they can."""
    if forecast is None or not forecast.is_asked_for or not forecast.taken.n_rows:
        return totals
    return scale_totals(
        totals, {each.model: each.requests - forecast.taken.models[each.model] for each in totals.models}
    )


def _describe_forecast(forecast: ReuseForecast | None) -> dict[str, Any] | None:
    """Return what would be reused as JSON values; None when no run is named and none would spare anything."""
    if forecast is None:
        return None
    taken = forecast.taken
    return {
        "asked_for": forecast.is_asked_for,
        "runs": [folder.run_id for folder in forecast.sources.folders],
        "requests": taken.n_rows,
        "models": dict(taken.models),
        "usd": float(taken.usd),
        "usd_unknown_requests": taken.n_unknown_cost,
    }


def _print_plan(job: Path, prepared: Prepared, totals: PlanTotals, forecast: ReuseForecast | None) -> None:
    console = open_console()
    console.print(clean_text(describe_plan(prepared)))
    if forecast is not None and forecast.is_asked_for:
        console.print(clean_text(_describe_spared(forecast, prepared.totals.n_rows)))
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
        for estimate in totals.models
    ]
    console.print(make_table(columns, rows, width=console.width))
    console.print(
        f"in all: {format_count(totals.n_rows)} requests, {format_range(totals.usd, format_usd)}, "
        f"{format_seconds(totals.time_s.low)} – {format_seconds(totals.time_s.high)}"
    )
    for line in _describe_judges(prepared):
        console.print(clean_text(line))
    for text in _list_budget_problems(prepared, totals):
        console.print(clean_text(f"budget: {text}"))
    console.print(clean_text(_describe_power(estimate_power(totals.n_samples, prepared.history))))
    console.print(clean_text(f"{_describe_basis(totals)}; nothing was sent"))
    given = repeat_options(besides={"job", "row", "as_json"})
    if forecast is not None and not forecast.is_asked_for:
        console.print(clean_text(_describe_spared(forecast, prepared.totals.n_rows)))
        given += [f"--reuse {folder.run_id}" for folder in forecast.sources.folders]
    console.print(clean_text(" ".join(["next: evalrun run", shlex.quote(str(job)), *given])))


def _describe_basis(totals: PlanTotals) -> str:
    """Return where the estimate comes from."""
    n_arms, n_seen = sum(model.prompts for model in totals.models), sum(model.prompts_seen for model in totals.models)
    if totals.learned_from is None:
        return "tokens are estimated from the text, replies by rule: no earlier run of this job tells of them"
    others = f"; {n_arms - n_seen} of {n_arms} arms are new, and estimated by rule" if n_seen < n_arms else ""
    return f"tokens are estimated from the text, and by what run {totals.learned_from} took{others}"


def _describe_power(power: PlanPower) -> str:
    """Return what a comparison of this size could show, in one line."""
    share = format_percent(power.discordance)
    basis = f"{share} of them differ between the best arms of run {power.learned_from}"
    if power.learned_from is None:
        basis = f"{share} of them taken to differ"
    shown = "no drop at all" if power.detectable_drop is None else f"a drop of {100 * power.detectable_drop:.1f} points"
    return f"power: {format_count(power.n_samples)} paired samples show {shown} with 80 % power, {basis}"


def _describe_judges(prepared: Prepared) -> list[str]:
    """Return what each judge would be asked, a line for each."""
    return [
        f"judge {judge.model}: {count_noun(judge.requests, 'request')} if every row is answered, tokens in "
        f"{format_count(judge.prompt_tokens.expected)}, out {format_range(judge.completion_tokens, format_count)}, "
        f"{format_range(judge.usd, format_usd)}"
        for judge in prepared.judge_load.estimate(prepared.totals)
    ]


def _describe_spared(forecast: ReuseForecast, n_rows: int) -> str:
    """Return what the older runs spare, or would spare, in one line."""
    taken = forecast.taken
    runs = ", ".join(folder.run_id for folder in forecast.sources.folders) or "no run"
    verb = "spares" if forecast.is_asked_for else "would spare"
    unknown = f" and {format_count(taken.n_unknown_cost)} of unknown cost" if taken.n_unknown_cost else ""
    return (
        f"reuse: {runs} {verb} {format_count(taken.n_rows)} of {format_count(n_rows)} requests, which cost "
        f"{format_usd(float(taken.usd))}{unknown}"
    )


def _list_budget_problems(prepared: Prepared, totals: PlanTotals) -> list[str]:
    """Return why a run would be refused for its budget, and which limits it is expected to pass."""
    loaded = prepared.loaded
    problem = find_price_problem(loaded, prepared.list_models())
    refusal = [f"{problem.message}; `run` refuses this: {problem.hint}"] if problem is not None else []
    whole = add_judges(totals, prepared.judge_load.estimate(prepared.totals))
    return [*refusal, *list_shortages(loaded.job.budget, whole)]


def format_range(values: Range, write: Callable[[float | None], str]) -> str:
    """Return low – expected – high, or the one word for unknown."""
    if values.expected is None:
        return write(None)
    return f"{write(values.low)} – {write(values.expected)} – {write(values.high)}"
