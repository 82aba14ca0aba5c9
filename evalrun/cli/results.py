"""How a finished run is told on the terminal: leaderboard, headline, verdict, and the next command to type."""

import math
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
    show_path,
)
from evalrun.cli.lane_words import describe_stops
from evalrun.records import ArmSummary, ErrorCode, Finding, Rate, Summary, Verdict
from evalrun.resume_words import MARKED_RESUME_COMMAND
from evalrun.store.manifest import is_finished

if TYPE_CHECKING:
    from evalrun.closing import RunResult
    from evalrun.store.folder import RunFolder

MAX_REASON_CHARS = 300
"""Longest example of an error on the terminal."""

MARGIN = 1.2
"""A limit that is proposed is so many times what the whole run is expected to take by what it took so far."""

MIN_ANSWERED = 20
"""So many answers of a model tell what its other rows will take."""

SIMULATED = "SIMULATED: answers come from evalrun's own simulator, not from real models."

_NEXT = "the command below"
"""What reasons say for the command that goes on: it is the last line printed."""

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
    columns, rows = _build_leaderboard(summary)
    console.print(make_table(columns, rows, width=console.width))
    for line in _describe(result, resume_hint):
        console.print(clean_text(line))
    sys.stdout.flush()


def _build_leaderboard(summary: Summary) -> tuple[list[Column], list[list[str]]]:
    columns = [
        Column("model"),
        Column("prompt"),
        Column("passed", is_number=True),
        Column("95 % interval", is_number=True, rank=1),
        Column("scored", is_number=True, rank=2),
        Column("errors", is_number=True, rank=3),
        Column("pending", is_number=True, rank=3),
        Column("tokens in/out", is_number=True, rank=7),
        Column("USD", is_number=True, rank=5),
        Column("USD/1k", is_number=True, rank=8),
        Column("p50", is_number=True, rank=6),
        Column("p95", is_number=True, rank=6),
    ]
    rows = [_build_row(arm) for arm in summary.arms]
    if not any(arm.n_pending for arm in summary.arms):
        at = [column.heading for column in columns].index("pending")
        columns.pop(at)
        rows = [[*row[:at], *row[at + 1 :]] for row in rows]
    return columns, rows


def _build_row(arm: ArmSummary) -> list[str]:
    return [
        arm.model,
        arm.prompt,
        format_percent(arm.pass_rate.value),
        format_interval(arm.pass_rate),
        f"{format_count(arm.n_scored)}/{format_count(arm.n_total)}",
        format_count(arm.n_errors),
        format_count(arm.n_pending),
        f"{format_count(arm.prompt_tokens)}/{format_count(arm.completion_tokens)}",
        format_usd(arm.cost_usd) + (" + ?" if arm.n_cost_unknown and arm.cost_usd is not None else ""),
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
    lines += _describe_judges(result.manifest)
    lines += _describe_rows_of_other_times(result.manifest)
    lines += _describe_doubts(result.manifest)
    lines += _describe_estimate(result.manifest)
    lines += _describe_reasons(result.manifest)
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


def _describe_judges(manifest: Mapping[str, Any]) -> list[str]:
    """Return what the judges were asked and what it cost; nothing of a run without any."""
    judge = manifest.get("judge")
    if judge is None:
        return []
    counts = ", ".join(f"{format_count(count)} {status}" for status, count in judge["counts"].items())
    unknown = " + unknown" if judge["usd_unknown_requests"] else ""
    asked = f"judges ({', '.join(judge['models'])}): {count_noun(judge['requests'], 'request')} ({counts})"
    return [f"{asked}, {format_usd(judge['billed_usd'])}{unknown}"]


def _describe_rows_of_other_times(manifest: Mapping[str, Any]) -> list[str]:
    """Return what older runs gave, and what this run has that its job no longer asks."""
    lines = []
    reused, stale = manifest.get("reused"), manifest.get("stale")
    if reused is not None:
        rows = f"{format_count(reused['rows'])} of {format_count(manifest['totals']['rows'])} rows"
        usd = format_usd(reused["usd"]) + (" + unknown" if reused["usd_unknown_rows"] else "")
        lines.append(f"{rows} taken over from older runs; {usd} not spent again")
    if stale is not None:
        count = format_count(stale["rows"])
        lines.append(f"rows that the job no longer has, kept in the journal and left out of the tables: {count}")
    return lines


def _describe_doubts(manifest: Mapping[str, Any]) -> list[str]:
    """Return which requests may have been billed though nobody saw their answers."""
    n_again, n_lost = manifest.get("asked_again_after_doubt"), manifest.get("in_doubt")
    lines = []
    if n_again:
        what = f"in flight when the run broke off, and sent once more: {count_noun(n_again, 'request')}"
        lines.append(f"{what}; what the first sending cost is unknown, and in no sum here")
    if n_lost:
        what = f"in flight when the run ended, without an outcome: {count_noun(n_lost, 'request')}"
        lines.append(f"{what}; billed or not is unknown, and in no sum here")
    return lines


def _describe_estimate(manifest: Mapping[str, Any]) -> list[str]:
    """Return what was expected of this call beside what it took; in tokens where the cost is unknown."""
    call = (manifest.get("estimate") or {}).get("call")
    if call is None or not call["n_rows"]:  # An earlier version did not keep it; or nothing was left to ask.
        return []
    took, unknown = call["took"], " + unknown" if call["took"]["usd_unknown"] else ""
    if call["usd"]["expected"] is not None:
        return [f"estimated {_join_bounds(call['usd'], format_usd)}, took {format_usd(took['usd'])}{unknown}"]
    tokens = [
        f"{_join_bounds(call[kind], format_count)} tokens {way}, took {format_count(took[kind])}"
        for kind, way in (("prompt_tokens", "in"), ("completion_tokens", "out"))
    ]
    return [f"estimated {'; '.join(tokens)}"]


def _join_bounds(bounds: Mapping[str, float | None], write: Callable[[float | None], str]) -> str:
    return " – ".join(write(bounds[name]) for name in ("low", "expected", "high"))


def _describe_reasons(manifest: Mapping[str, Any]) -> list[str]:
    """Return why lanes stopped, and one example of each other error, in the server's words."""
    stopped = [lane for lane in manifest["lanes"] if lane["stopped_by"] not in {None, ErrorCode.BUDGET}]
    told_lanes = [(str(lane["model"]), str(lane["stop_message"])) for lane in stopped]
    reasons = [f"  {line}" for line in describe_stops(told_lanes, command=_NEXT)]
    codes = {lane["stopped_by"] for lane in stopped}
    examples = {code: text for code, text in manifest["error_examples"].items() if code not in codes}
    told = {ErrorCode.LANE_STOPPED, ErrorCode.BUDGET}
    reasons += [f"  {code}: {text[:MAX_REASON_CHARS]}" for code, text in examples.items() if code not in told]
    return [*reasons, *_describe_budget(manifest)]


def _describe_budget(manifest: Mapping[str, Any]) -> list[str]:
    """Return what ended the budget when rows are left over for it."""
    budget = manifest.get("budget")
    if budget is None or budget["ended_by"] is None or not manifest["errors"].get(ErrorCode.BUDGET):
        return []
    return [f"  {budget['ended_by'].replace(MARKED_RESUME_COMMAND, _NEXT)}"]


def describe_verdict(verdict: Verdict) -> list[str]:
    """Return the gate's verdict and what failed it, as lines."""
    if verdict.outcome == "none":
        return [verdict.headline] if verdict.exit_code else []
    sign = _VERDICT_SIGNS[verdict.outcome]
    worth_saying = [_describe_finding(finding) for finding in verdict.findings if finding.outcome != "pass"]
    if len(worth_saying) == 1:
        return ["", f"{sign} · {worth_saying[0]}"]
    reason = verdict.reason.replace(MARKED_RESUME_COMMAND, _NEXT)
    return ["", f"{sign} · {reason}", *(f"  {line}" for line in worth_saying)]


def _describe_finding(finding: Finding) -> str:
    arm = " · ".join(name for name in (finding.model, finding.prompt) if name)
    return f"{finding.rule}: {arm + ' ' if arm else ''}{finding.message.replace(MARKED_RESUME_COMMAND, _NEXT)}"


def make_resume_hint(job: Path, result: "RunResult") -> str | None:
    """Return the command that goes on with a run; None when nothing is left to ask."""
    if is_finished(result.manifest):
        return None
    return " ".join([make_resume_command(job, result.folder), *_raise_limits(result)])


def make_resume_command(job: Path, folder: "RunFolder") -> str:
    """Return the command that goes on with the run in a folder."""
    return f"evalrun run {shlex.quote(str(job))} --resume {shlex.quote(show_path(folder.path))}"


def _raise_limits(result: "RunResult") -> Iterator[str]:
    """Yield the options that raise what ended a budget, or would end it again, to what the whole run may take."""
    budget = result.manifest.get("budget")
    if budget is None or budget["ended_by"] is None:
        return
    for key in ("usd", "tokens", "requests"):
        limit = budget[key]["limit"]
        if limit is None:
            continue
        wanted = MARGIN * (budget[key]["spent"] + _foresee_rest(result, key))
        if wanted > limit:
            yield f"--budget-usd {_round_up(wanted)}" if key == "usd" else f"--set budget.{key}={math.ceil(wanted)}"


def _foresee_rest(result: "RunResult", key: str) -> float:
    """Return what the rows left may take of a limit.

    It goes by what rows like them took, with room for as many requests at once as there are slots. While few of them
    were answered, what is held back for the largest counts for each: it may be far too much, and is never too little.
    """
    manifest = result.manifest
    counts, facts = manifest["counts"], manifest["budget"][key]
    n_rows, n_pending = sum(counts.values()), counts["pending"]
    n_left = n_pending + counts.get("error", 0)
    n_asked = n_rows - n_pending - sum(arm.n_reused for arm in result.summary.arms)
    mean = facts["spent"] / n_asked if n_asked > 0 else 0.0
    if key == "requests":
        return float(n_left * max(1.0, mean))
    largest = facts.get("largest_request")
    if largest is None:  # An earlier version did not keep it.
        return float(max(n_left * mean, facts["limit"]))
    most = n_left * max(largest, mean)
    usual = _add_up_usual(result.summary.arms, key)
    if usual is not None:
        return float(min(most, max(n_left * mean, usual) + largest * _count_slots(manifest)))
    estimate = manifest["estimate"]["usd"] if key == "usd" else {}
    foreseen = estimate.get("high") or estimate.get("expected") or 0.0  # Models that were not asked at all count here.
    return float(max(most, foreseen * n_left / n_rows))


def _add_up_usual(arms: Sequence[ArmSummary], key: str) -> float | None:
    """Return what the rows left take if each takes as much as those of its arm; None while that is not known."""
    total = 0.0
    for arm in arms:
        n_left = arm.n_pending + arm.n_errors
        n_answered = arm.n_total - n_left
        if not n_left:
            continue
        if n_answered < MIN_ANSWERED:
            return None
        took = arm.cost_usd if key == "usd" else (arm.prompt_tokens or 0) + (arm.completion_tokens or 0)
        total += n_left * (took or 0.0) / n_answered
    return total


def _count_slots(manifest: Mapping[str, Any]) -> int:
    """Return how many requests may be in flight at once, over all endpoints."""
    slots = {lane["endpoint"]: lane.get("concurrency") or 1 for lane in manifest["lanes"]}
    return sum(slots.values())


def _round_up(usd: float) -> str:
    """Return an amount with two digits that tell something, never less."""
    digits = max(2, 1 - math.floor(math.log10(usd)))
    return f"{math.ceil(usd * 10**digits) / 10**digits:.{digits}f}"
