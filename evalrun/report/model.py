"""What a report is made from: the run's manifest, summary, verdict and rows, as plain values.

Dicts with the columns of results.parquet and grades.parquet enter, frozen records leave. Invariant: texts are clipped
here, once, so that no rendering has to hold more of a row than it may show; the tables keep the whole text.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Any, Literal

from evalrun.quick_init import with_quick_init
from evalrun.records import Status, Summary, Verdict
from evalrun.report.text import clip

Include = Literal["full", "outputs", "none"]

MAX_TEXT_CHARS = 20_000
"""Longest text a report keeps of one message, output or sample field."""

_EXPECTED_NAMES = ("expected", "answer", "target", "label", "reference", "ideal")

# Made once: `json.loads` and `json.dumps` make or check much for each call that a short text does not need.
_DECODER = json.JSONDecoder()
_ENCODER = json.JSONEncoder(ensure_ascii=False)
_JSON_SPACES = " \t\r\n"


class Mark(StrEnum):
    """What a row is shown as, worst first: the order of every item list."""

    FAIL = "fail"
    ERROR = "error"
    UNGRADED = "ungraded"
    PENDING = "pending"
    FILTERED = "filtered"
    PASS = "pass"  # noqa: S105 - a verdict, no password

    # Enum's own hash is a function of Python, and marks are looked up several times a row.
    __hash__ = str.__hash__


MARK_WORDS: Mapping[Mark, str] = {
    Mark.FAIL: "failed",
    Mark.ERROR: "error",
    Mark.UNGRADED: "not graded",
    Mark.PENDING: "pending",
    Mark.FILTERED: "filtered",
    Mark.PASS: "passed",
}
"""How each mark is said in words."""

# By plain text: members of an enum take long to hash.
_MARKS_WITHOUT_ANSWER = {status.value: Mark(status) for status in (Status.ERROR, Status.PENDING, Status.FILTERED)}


@with_quick_init
@dataclass(frozen=True, slots=True, kw_only=True)
class ReportMessage:
    """One message of a prompt as sent, content parts joined."""

    role: str
    text: str


@with_quick_init
@dataclass(frozen=True, slots=True, kw_only=True)
class ReportGrade:
    """One grader's verdict on a row."""

    grader: str
    type: str
    passed: bool | None
    """None when the grader could not decide."""
    score: float | None
    """0..1; None when the grader could not decide."""
    reason: str
    hard: bool
    error_code: str | None
    """None when the grader decided."""


@with_quick_init
@dataclass(frozen=True, slots=True, kw_only=True)
class ReportRow:
    """One row of the run with its grades, as reports show it. Null means as in results.parquet."""

    row_id: str
    sample_id: str
    category: str | None
    prompt: str
    model: str
    repeat: int
    """0-based."""
    mark: Mark
    status: str
    error_code: str | None
    error_message: str | None
    http_status: int | None
    attempts: int
    fields: tuple[tuple[str, str], ...]
    """The sample's columns as text, expected answers first."""
    messages: tuple[ReportMessage, ...]
    params: str | None
    """The request body without model and messages, JSON; None when there are no other keys."""
    output: str | None
    refusal: str | None
    reasoning: str | None
    tool_calls: str | None
    finish_reason: str | None
    response_model: str | None
    flags: tuple[str, ...]
    prompt_tokens: int | None
    cached_tokens: int | None
    completion_tokens: int | None
    reasoning_tokens: int | None
    cost_usd: float | None
    """None when unknown."""
    latency_s: float | None
    score: float | None
    passed: bool | None
    grades: tuple[ReportGrade, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RowCounts:
    """What a whole run holds, rows that its reports leave out included."""

    n_rows: int
    n_not_passed: int
    """Rows whose verdict is not a pass, unanswered ones included."""
    n_samples: int
    n_categories: int
    n_repeats: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportData:
    """Everything a rendering reads. All renderings of a run are made from one of these."""

    manifest: Mapping[str, Any]
    """run.json."""
    summary: Summary
    verdict: Verdict
    rows: Sequence[ReportRow]
    """In plan order."""
    include: Include = "full"
    """Texts to show: prompts and outputs, outputs only, or none."""
    counts: RowCounts | None = None
    """Of the whole run, where `rows` may lack some; None = `rows` are all there are."""


ROW_COLUMNS = (
    "row_id", "sample_id", "category", "prompt", "model", "repeat", "status", "error_code", "error_message",
    "http_status", "attempts", "sample", "request", "output", "refusal", "reasoning", "tool_calls", "finish_reason",
    "response_model", "flags", "prompt_tokens", "cached_tokens", "completion_tokens", "reasoning_tokens", "cost_usd",
    "latency_s", "score", "passed",
)  # fmt: skip
"""Columns of results.parquet that a report row is built from."""

GRADE_COLUMNS = ("row_id", "grader", "type", "passed", "score", "reason", "hard", "error_code")
"""Columns of grades.parquet that a report row is built from, and the row's id."""


def build_report_row(row: Mapping[str, Any], grades: Sequence[Mapping[str, Any]]) -> ReportRow:
    """Return one row as reports show it.

    Args:
        row: A row of results.parquet: `ROW_COLUMNS`, those that are absent count as null.
        grades: The rows of grades.parquet with the same `row_id`, in their order there: `GRADE_COLUMNS`.
    """
    request = _read_object(row.get("request"))
    return ReportRow(
        row_id=str(row["row_id"]),
        sample_id=str(row["sample_id"]),
        category=row.get("category"),
        prompt=str(row["prompt"]),
        model=str(row["model"]),
        repeat=int(row.get("repeat") or 0),
        mark=_choose_mark(str(row["status"]), row.get("passed")),
        status=str(row["status"]),
        error_code=row.get("error_code"),
        error_message=_clip(row.get("error_message")),
        http_status=row.get("http_status"),
        attempts=int(row.get("attempts") or 0),
        fields=_build_fields(_read_object(row.get("sample"))),
        messages=_build_messages(request.get("messages")),
        params=_build_params(request),
        output=_clip(row.get("output")),
        refusal=_clip(row.get("refusal")),
        reasoning=_clip(row.get("reasoning")),
        tool_calls=_clip(row.get("tool_calls")),
        finish_reason=row.get("finish_reason"),
        response_model=row.get("response_model"),
        flags=_read_flags(row.get("flags")),
        prompt_tokens=row.get("prompt_tokens"),
        cached_tokens=row.get("cached_tokens"),
        completion_tokens=row.get("completion_tokens"),
        reasoning_tokens=row.get("reasoning_tokens"),
        cost_usd=_read_finite(row.get("cost_usd")),
        latency_s=_read_finite(row.get("latency_s")),
        score=_read_finite(row.get("score")),
        passed=row.get("passed"),
        grades=tuple([_build_grade(grade) for grade in grades]),
    )


def count_rows(data: ReportData) -> RowCounts:
    """Return what the whole run holds, rows included that the report leaves out."""
    if data.counts is not None:
        return data.counts
    rows = data.rows
    return RowCounts(
        n_rows=len(rows),
        n_not_passed=sum(row.mark is not Mark.PASS for row in rows),
        n_samples=len({row.sample_id for row in rows}),
        n_categories=len({row.category for row in rows if row.category is not None}),
        n_repeats=max((row.repeat for row in rows), default=0) + 1,
    )


def count_chars(row: ReportRow) -> int:
    """Return about how many characters of text a row holds."""
    n_chars = 0
    for text in (row.output, row.refusal, row.reasoning, row.tool_calls, row.params, row.error_message):
        if text is not None:
            n_chars += len(text)
    for name, text in row.fields:
        n_chars += len(name) + len(text)
    for message in row.messages:
        n_chars += len(message.text)
    for grade in row.grades:
        n_chars += len(grade.reason)
    return n_chars


def explain_row(row: ReportRow, *, include: Include) -> str:
    """Return why a row is not a pass, in one short text; "" when there is nothing to say.

    Args:
        row: The row.
        include: With `none` only graders and codes are named, since reasons and messages quote texts.
    """
    if row.mark is Mark.FAIL:
        return _explain_grades([grade for grade in row.grades if grade.passed is False], include=include)
    if row.mark is Mark.UNGRADED:
        undecided = [grade for grade in row.grades if grade.passed is None]
        return _explain_grades(undecided, include=include) or "no grader applies to this sample"
    if row.mark in (Mark.ERROR, Mark.PENDING, Mark.FILTERED):
        message = row.error_message if include != "none" else None
        status = f"HTTP {row.http_status}" if row.http_status is not None else None
        if status is not None and message is not None and message.startswith(f"{status}:"):
            status = None  # Most messages begin with it.
        return ": ".join(part for part in (row.error_code, status, message) if part)
    return ""


def order_worst_first(rows: Sequence[ReportRow]) -> list[ReportRow]:
    """Return the rows by mark, worst first, each mark in plan order."""
    return [row for mark in Mark for row in rows if row.mark is mark]


def _explain_grades(grades: Sequence[ReportGrade], *, include: Include) -> str:
    if include == "none":
        return ", ".join(grade.grader for grade in grades)
    return "; ".join(f"{grade.grader}: {grade.reason or grade.error_code or 'no reason given'}" for grade in grades)


def _choose_mark(status: str, passed: bool | None) -> Mark:  # noqa: FBT001 - a column's value, null included
    mark = _MARKS_WITHOUT_ANSWER.get(status)
    if mark is not None:
        return mark
    if passed is None:
        return Mark.UNGRADED
    return Mark.PASS if passed else Mark.FAIL


def _build_grade(grade: Mapping[str, Any]) -> ReportGrade:
    return ReportGrade(
        grader=str(grade["grader"]),
        type=str(grade.get("type") or ""),
        passed=grade.get("passed"),
        score=_read_finite(grade.get("score")),
        reason=_clip(grade.get("reason")) or "",
        hard=bool(grade.get("hard")),
        error_code=grade.get("error_code"),
    )


def _build_fields(sample: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    names = _order_names(tuple(sample))
    return tuple([(clip(name, 200), clip(_write_text(sample[name]), MAX_TEXT_CHARS)) for name in names])


@lru_cache(maxsize=16)
def _order_names(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the columns with expected answers first; most samples of a run have the same ones."""
    ranks = {name: rank for rank, name in enumerate(_EXPECTED_NAMES)}
    return tuple(sorted(names, key=lambda name: ranks.get(name.lower(), len(ranks))))


def _build_messages(messages: Any) -> tuple[ReportMessage, ...]:
    if not isinstance(messages, list):
        return ()
    # A list first: a generator is resumed for each item, which takes as long as the item.
    return tuple(
        [
            ReportMessage(role=str(message.get("role", "")), text=clip(_join_content(message), MAX_TEXT_CHARS))
            for message in messages
            if isinstance(message, dict)
        ]
    )


def _join_content(message: Mapping[str, Any]) -> str:
    """Return a message's text; parts that are not text are named, never shown or loaded."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return _write_text({key: value for key, value in message.items() if key != "role"})
    return "\n".join(_describe_part(part) for part in content)


def _describe_part(part: Any) -> str:
    if isinstance(part, dict) and isinstance(part.get("text"), str):
        return str(part["text"])
    text = _write_text(part)
    kind = part.get("type") if isinstance(part, dict) else None
    return f"[{kind or 'part'}, {len(text):,} characters] {clip(text, 300)}"


def _build_params(request: Mapping[str, Any]) -> str | None:
    params = {key: value for key, value in request.items() if key not in ("model", "messages")}
    return clip(_write_text(params), MAX_TEXT_CHARS) if params else None


def _write_text(value: Any) -> str:
    return value if isinstance(value, str) else _ENCODER.encode(value)


def _read_finite(value: Any) -> float | None:
    """Read a number; NaN and infinity, which JSON cannot hold, count as unknown."""
    return float(value) if value is not None and math.isfinite(value) else None


def _clip(text: Any) -> str | None:
    return None if text is None else clip(str(text), MAX_TEXT_CHARS)


def _read_object(text: Any) -> Mapping[str, Any]:
    value = _read_json(text)
    return value if isinstance(value, dict) else {}


@lru_cache(maxsize=256)
def _read_flags(text: str | None) -> tuple[str, ...]:
    """Read a row's flags; a run has few different ones."""
    value = _read_json(text)
    return tuple(map(str, value)) if isinstance(value, list) else ()


def _read_json(text: Any) -> Any:
    """Read a JSON column. A text that is no JSON is a foreign file's: it is shown as absent."""
    if not isinstance(text, str):
        return text
    stripped = text.strip(_JSON_SPACES)
    try:
        value, end = _DECODER.raw_decode(stripped)
    except ValueError:
        return None
    return value if end == len(stripped) else None
