"""The run as GitHub Markdown: verdict, leaderboard and the first failures, small enough for a step summary.

ReportData enters, a text below 900 KB leaves. Invariant: text of data stands in code spans and fenced blocks, whose
fences are longer than any run of backticks inside, or is plain words; it cannot become markup, a link or a mention.
"""

import re
from collections.abc import Sequence

from evalrun.records import Finding
from evalrun.report.arms import ArmView, build_arm_views
from evalrun.report.facts import build_facts
from evalrun.report.figures import (
    choose_latency_unit,
    choose_usd_digits,
    format_count,
    format_latency,
    format_p,
    format_percent,
    format_points,
    format_usd_column,
)
from evalrun.report.model import MARK_WORDS, Mark, ReportData, ReportRow, count_rows, explain_row, order_worst_first
from evalrun.report.text import clip, make_excerpt, make_visible
from evalrun.report.words import word_report_plainly

MAX_BYTES = 900_000
"""GitHub drops a step summary of more than 1,024 KB as a whole."""

MAX_FAILURES = 20
MAX_ARMS = 100
MAX_FINDINGS = 50
MAX_WARNINGS = 20

_OUTCOMES = {
    "pass": "✅ Pass",
    "fail": "❌ Fail",
    "no_verdict": "⚠️ No verdict",
    "none": "⚪ No gate",
}
_COMPARISONS = {
    "<": "&lt;",
    ">": "&gt;",
    "≤": "≤",
    "≥": "≥",
    "=": "=",
    "≈": "≈",
    "·": "·",
    "×": "×",
    "–": "–",
    "…": "…",
}
# Letters and digits with plain punctuation around them: no sign of Markdown, no dot or colon between letters.
_PLAIN_WORD = re.compile(
    r"[“‘\"'(+−±-]?(?:[^\W_]|[-'’−–](?=[^\W_])|[.,](?=\d)|(?<=\d):(?=\d))+[%.,;:!?)”’\"']*|%[.,;:)]*"
)
# What GitHub makes a link of by itself: commit hashes and GH-12.
_REFERENCE = re.compile(r"\W*(?:[0-9a-f]{7,}|gh-\d+)\W*", re.IGNORECASE)
_LIST_MARK = re.compile(r"\d{1,9}[.)]")

_MAX_NAME_CHARS = 80
_MAX_SENTENCE_CHARS = 600
_MAX_OUTPUT_CHARS = 1_500


def render_markdown(data: ReportData) -> str:
    """Return the report as Markdown, below 900 KB."""
    data = word_report_plainly(data)
    facts = build_facts(data)
    parts = [f"# {_code(facts.title)}: {_OUTCOMES.get(data.verdict.outcome, _OUTCOMES['none'])}"]
    if data.summary.is_simulated:
        parts.append("> **Simulated.** The answers come from evalrun's built-in simulator, not from a real model.")
    parts += [_quote_plain(data.summary.headline), _quote_plain(data.verdict.headline)]
    parts += _write_findings(data.verdict.findings)
    parts += _write_leaderboard(build_arm_views(data.summary))
    parts.append(_write_facts(data))
    parts += _write_warnings(facts.warnings)
    parts += _write_errors(data)
    parts += _write_failures(data)
    where = "The whole report is `report.html` in the run's folder."
    parts.append(f"Run {_code(facts.run_id)}, {_quote_plain(facts.started)}. {where}")
    return _fit([part for part in parts if part])


def _fit(parts: list[str]) -> str:
    """Join parts until the size is reached, whatever came in; say so when it is."""
    kept, size = [], 0
    for part in parts:
        size += len(part.encode()) + 2
        if size > MAX_BYTES - 200:
            kept.append("The rest is left out: the summary would be too large. All of it is in `report.html`.")
            break
        kept.append(part)
    return "\n\n".join(kept) + "\n"


def _write_findings(findings: Sequence[Finding]) -> list[str]:
    words = {"pass": "✅", "fail": "❌"}
    shown = sorted(findings, key=lambda finding: finding.outcome == "pass")
    lines = [
        f"- {words.get(finding.outcome, '⚠️')} {_code(finding.rule)} {_quote_plain(finding.message)}"
        + "".join(f" {_code(name)}" for name in (finding.model, finding.prompt) if name is not None)
        for finding in shown[:MAX_FINDINGS]
    ]
    return ["\n".join([*lines, *_count_rest(len(shown) - MAX_FINDINGS, "findings")])] if lines else []


def _write_leaderboard(views: Sequence[ArmView]) -> list[str]:
    if not views:
        return []
    shown = views[:MAX_ARMS]
    unit = choose_latency_unit([view.arm.latency_p95_s for view in shown])
    digits_1k = choose_usd_digits([view.arm.usd_per_1k for view in shown])
    digits_correct = choose_usd_digits([view.arm.usd_per_correct for view in shown])
    columns = (
        "#", "model", "prompt", "pass rate", "95% interval", "n", "against the best", "errors", "truncated",
        "USD per 1k", "USD per correct", "tokens in / out", f"p50 / p95, {unit}",
    )  # fmt: skip
    head = [f"| {' | '.join(columns)} |", "|--:|---|---|--:|:-:|--:|---|--:|--:|--:|--:|--:|--:|"]
    rows = [_write_arm(view, unit, digits_1k, digits_correct) for view in shown]
    notes = ["≈ means that the data do not tell the arm from the best one."] if any(v.is_tied for v in shown) else []
    rest = _count_rest(len(views) - MAX_ARMS, "arms")
    return ["## Leaderboard", "\n".join([*head, *rows]), *notes, *rest]


def _write_arm(view: ArmView, unit: str, digits_1k: int, digits_correct: int) -> str:
    arm, rate = view.arm, view.arm.pass_rate
    cells = [
        str(view.number),
        _code(arm.model),
        _code(arm.prompt),
        f"**{format_percent(rate.value)}**" if rate.value is not None else "–",
        f"{format_percent(rate.low)} – {format_percent(rate.high)}" if rate.value is not None else "–",
        f"{format_count(arm.n_scored)} / {format_count(arm.n_total)}",
        _write_test(view),
        format_count(arm.n_errors) + (f" + {format_count(arm.n_pending)} pending" if arm.n_pending else ""),
        format_count(arm.n_truncated),
        _write_usd(arm.usd_per_1k, digits_1k),
        _write_usd(arm.usd_per_correct, digits_correct),
        f"{format_count(arm.prompt_tokens)} / {format_count(arm.completion_tokens)}",
        f"{format_latency(arm.latency_p50_s, unit)} / {format_latency(arm.latency_p95_s, unit)}",
    ]
    return f"| {' | '.join(cells)} |"


def _write_test(view: ArmView) -> str:
    if view.is_best:
        return "best ≈" if view.is_tied else "best"
    if view.test is None:
        return "–"
    test = view.test
    interval = f"[{format_points(-test.high)}, {format_points(-test.low)}]"
    sign = "≈ " if view.is_tied else ""
    return f"{sign}{format_points(-test.difference)} {interval}, {format_p(test.p_value).replace('<', '&lt;')}"


def _write_usd(value: float | None, digits: int) -> str:
    return "unknown" if value is None else format_usd_column(value, digits).removeprefix("$")


def _write_facts(data: ReportData) -> str:
    # A dollar sign would begin a formula on GitHub.
    return " · ".join(
        f"{fact.name.lower()} **{fact.value}**" + (f" ({fact.note})" if fact.note else "")
        for fact in build_facts(data).tiles
    ).replace("$", "USD ")


def _write_warnings(warnings: Sequence[str]) -> list[str]:
    lines = [f"- ⚠️ {_quote_plain(warning)}" for warning in warnings[:MAX_WARNINGS]]
    return ["\n".join([*lines, *_count_rest(len(warnings) - MAX_WARNINGS, "warnings")])] if lines else []


def _write_errors(data: ReportData) -> list[str]:
    counts = sorted(data.summary.errors.items(), key=lambda item: (-item[1], item[0]))
    if not counts:
        return []
    return ["Errors: " + ", ".join(f"{_code(code)} × {format_count(count)}" for code, count in counts[:30]) + "."]


def _write_failures(data: ReportData) -> list[str]:
    failures = [row for row in order_worst_first(data.rows) if row.mark is not Mark.PASS]
    if not failures:
        return []
    head = "## Items that did not pass"
    if len(failures) > MAX_FAILURES:
        head += f"\n\nThe first {MAX_FAILURES} of {format_count(count_rows(data).n_not_passed)}."
    return [head, *(_write_failure(row, data) for row in failures[:MAX_FAILURES])]


def _write_failure(row: ReportRow, data: ReportData) -> str:
    names = [_code(row.sample_id), _code(row.model), _code(row.prompt)]
    if row.repeat:
        names.append(f"repeat {row.repeat}")
    # `details` needs a blank line after its summary before Markdown is read as such; the summary itself is plain.
    lines = [f"**{MARK_WORDS[row.mark]}** {' · '.join(names)}"]
    why = explain_row(row, include=data.include)
    if why:
        lines.append(_fence(clip(make_visible(why), _MAX_SENTENCE_CHARS)))
    if data.include != "none" and row.output:
        output = _fence(clip(make_visible(row.output), _MAX_OUTPUT_CHARS))
        lines.append(f"<details><summary>output</summary>\n\n{output}\n\n</details>")
    return "\n\n".join(lines)


def _count_rest(number: int, what: str) -> list[str]:
    return [f"… and {format_count(number)} more {what}."] if number > 0 else []


def _quote_plain(text: str) -> str:
    """Return a sentence with every word that could be markup, a link or a mention put into a code span of its own."""
    words = make_excerpt(make_visible(text), _MAX_SENTENCE_CHARS).split(" ")
    return " ".join(
        _COMPARISONS.get(word) or (word if _is_plain(word, is_first=number == 0) else _code(word))
        for number, word in enumerate(words)
    )


def _is_plain(word: str, *, is_first: bool) -> bool:
    if is_first and _LIST_MARK.fullmatch(word):
        return False
    return _PLAIN_WORD.fullmatch(word) is not None and _REFERENCE.fullmatch(word) is None


def _code(text: str) -> str:
    """Return a name as a code span that fits into a table cell."""
    # A table cell has no safe way to hold a pipe next to a backslash; the sign that looks like one is shown instead.
    shown = make_excerpt(make_visible(text), _MAX_NAME_CHARS).replace("|", "∣") or " "
    marks = "`" * (_find_longest_run(shown) + 1)
    pad = " " if shown.startswith("`") or shown.endswith("`") or len(marks) > 1 else ""
    return f"{marks}{pad}{shown}{pad}{marks}"


def _fence(text: str) -> str:
    """Return text as a fenced block that its own backticks cannot close."""
    marks = "`" * max(_find_longest_run(text) + 1, 3)
    return f"{marks}text\n{text}\n{marks}"


def _find_longest_run(text: str) -> int:
    return max((len(run) for run in re.findall("`+", text)), default=0)
