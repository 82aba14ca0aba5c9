"""How a finished run is told on the terminal: leaderboard, headline, verdict, and the next command to type."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from evalrun.cli.console import (
    clean_text,
    format_count,
    format_percent,
    format_seconds,
    format_usd,
    make_table,
    open_console,
    show_path,
)
from evalrun.records import ArmSummary, Rate, Summary, Verdict
from evalrun.store.manifest import is_finished

if TYPE_CHECKING:
    from evalrun.closing import RunResult

SIMULATED = "SIMULATED: answers come from evalrun's own simulator, not from real models."

_VERDICT_SIGNS = {"pass": "✓ PASS", "fail": "✗ FAIL", "no_verdict": "? NO VERDICT"}


def print_result(result: "RunResult", *, resume_hint: str | None = None) -> None:
    """Print a run's figures to stdout.

    Args:
        result: The run.
        resume_hint: Command that goes on with it; None when nothing is left to ask.
    """
    console = open_console()
    summary = result.summary
    lines = [SIMULATED, ""] if summary.is_simulated else []
    console.print("\n".join(["", *lines]), end="")
    console.print(make_table(*_build_leaderboard(summary)))
    for line in _describe(result, resume_hint):
        console.print(clean_text(line))
    sys.stdout.flush()


def _build_leaderboard(summary: Summary) -> tuple[Sequence[tuple[str, str]], list[list[str]]]:
    columns = [
        ("model", "left"),
        ("prompt", "left"),
        ("passed", "right"),
        ("95 % interval", "right"),
        ("scored", "right"),
        ("errors", "right"),
        ("tokens in/out", "right"),
        ("USD", "right"),
        ("USD/1k", "right"),
        ("p50", "right"),
        ("p95", "right"),
    ]
    return columns, [_build_row(arm) for arm in summary.arms]


def _build_row(arm: ArmSummary) -> list[str]:
    return [
        arm.model,
        arm.prompt,
        format_percent(arm.pass_rate.value),
        format_interval(arm.pass_rate),
        f"{format_count(arm.n_scored)}/{format_count(arm.n_total)}",
        format_count(arm.n_errors + arm.n_pending),
        f"{format_count(arm.prompt_tokens)}/{format_count(arm.completion_tokens)}",
        format_usd(arm.cost_usd),
        format_usd(arm.usd_per_1k),
        format_seconds(arm.latency_p50_s),
        format_seconds(arm.latency_p95_s),
    ]


def format_interval(rate: Rate) -> str:
    """Return a rate's interval in per cent; `–` when nothing was scored."""
    return "–" if rate.value is None else f"{100 * rate.low:.1f} – {100 * rate.high:.1f}"


def _describe(result: "RunResult", resume_hint: str | None) -> list[str]:
    lines = ["", result.summary.headline]
    lines += _describe_odd_rows(result.summary)
    lines += describe_verdict(result.verdict)
    lines += ["", f"results: {show_path(result.folder.path)}"]
    report = result.folder.path / "report.html"
    if report.exists():
        lines.append(f"report:  {show_path(report)}")
    has_failures = any(arm.pass_rate.passed < arm.n_total for arm in result.summary.arms)
    look = f"evalrun show {shlex.quote(show_path(result.folder.path))}{' --failed' if has_failures else ''}"
    lines.append(f"next:    {resume_hint if resume_hint is not None else look}")
    return lines


def _describe_odd_rows(summary: Summary) -> list[str]:
    """Return one line for what is neither right nor wrong, when there is any."""
    odd = [f"{count} {status}" for status, count in summary.statuses.items() if status != "ok" and count]
    ungraded = sum(arm.n_ungraded for arm in summary.arms)
    if ungraded:
        odd.append(f"{ungraded} not graded")
    lines = ["rows that are not plain answers: " + ", ".join(odd)] if odd else []
    if summary.errors:
        kinds = ", ".join(f"{count} × {code}" for code, count in summary.errors.items())
        lines.append(f"without an answer: {kinds}")
    return lines


def describe_verdict(verdict: Verdict) -> list[str]:
    """Return the gate's verdict and what failed it, as lines."""
    if verdict.outcome == "none":
        return [verdict.headline] if verdict.exit_code else []
    lines = ["", f"{_VERDICT_SIGNS[verdict.outcome]} · {verdict.headline}"]
    worth_saying = [finding for finding in verdict.findings if finding.outcome != "pass"]
    return lines + [f"  {finding.rule}: {finding.message}" for finding in worth_saying]


def make_resume_hint(job: Path, result: "RunResult") -> str | None:
    """Return the command that goes on with a run; None when nothing is left to ask."""
    if is_finished(result.manifest):
        return None
    return f"evalrun run {shlex.quote(str(job))} --resume {shlex.quote(show_path(result.folder.path))}"
