"""Rows of the tables become rows of a report."""

import json
import math

import pytest

from evalrun.report.model import (
    MAX_TEXT_CHARS,
    Include,
    Mark,
    ReportMessage,
    build_report_row,
    explain_row,
    order_worst_first,
)
from tests.report.fake_run import make_grade, make_result


@pytest.mark.parametrize(
    ("status", "passed", "mark"),
    [
        ("ok", True, Mark.PASS),
        ("ok", False, Mark.FAIL),
        ("ok", None, Mark.UNGRADED),
        ("truncated", False, Mark.FAIL),
        ("empty", True, Mark.PASS),
        ("refused", None, Mark.UNGRADED),
        ("error", None, Mark.ERROR),
        ("pending", None, Mark.PENDING),
        ("filtered", None, Mark.FILTERED),
    ],
)
def test_row_mark_follows_status_and_verdict(status: str, passed: bool | None, mark: Mark) -> None:
    """A row without an answer is never shown as a wrong answer."""
    assert build_report_row(make_result(status=status, passed=passed), []).mark == mark


def test_row_puts_expected_fields_first() -> None:
    """What the answer should be stands before the sample's other columns."""
    row = build_report_row(make_result(sample='{"question": "q", "tags": ["a"], "answer": "4", "expected": 4}'), [])
    assert row.fields == (("expected", "4"), ("answer", "4"), ("question", "q"), ("tags", '["a"]'))


def test_row_joins_content_parts_and_names_the_others() -> None:
    """Text parts are shown, other parts are named and never loaded."""
    content = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": "data:,x"}}]
    row = build_report_row(make_result(request=json.dumps({"messages": [{"role": "user", "content": content}]})), [])
    part = '{"type": "image_url", "image_url": {"url": "data:,x"}}'
    shown = f"What is this?\n[image_url, {len(part)} characters] {part}"
    assert row.messages == (ReportMessage(role="user", text=shown),)


def test_row_shows_messages_without_content() -> None:
    """A message that only calls tools shows its calls."""
    body = {"messages": [{"role": "assistant", "tool_calls": [{"id": "1"}]}]}
    row = build_report_row(make_result(request=json.dumps(body)), [])
    assert row.messages[0].text == '{"tool_calls": [{"id": "1"}]}'


def test_row_keeps_parameters_apart_from_messages() -> None:
    """The request's other keys are shown as parameters."""
    assert build_report_row(make_result(), []).params == '{"temperature": 0}'


def test_row_clips_long_texts() -> None:
    """No text of a row is longer than a report may show."""
    row = build_report_row(make_result(output="x" * 100_000), [make_grade(reason="y" * 100_000)])
    assert len(row.output or "") < MAX_TEXT_CHARS + 100
    assert len(row.grades[0].reason) < MAX_TEXT_CHARS + 100


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_row_takes_no_number_that_is_none(number: float) -> None:
    """NaN and infinity count as unknown."""
    row = build_report_row(make_result(score=number, cost_usd=number, latency_s=number), [make_grade(score=number)])
    assert (row.score, row.cost_usd, row.latency_s, row.grades[0].score) == (None, None, None, None)


def test_row_survives_columns_that_are_no_json() -> None:
    """A table written elsewhere may lack what evalrun writes; the row is shown all the same."""
    row = build_report_row(make_result(sample="{", request="[]", flags="x"), [])
    assert (row.fields, row.messages, row.params, row.flags) == ((), (), None, ())


def test_row_needs_only_its_names_and_status() -> None:
    """Absent columns count as null."""
    row = build_report_row({"row_id": "r", "sample_id": "s", "prompt": "p", "model": "m", "status": "pending"}, [])
    assert (row.mark, row.output, row.attempts) == (Mark.PENDING, None, 0)


@pytest.mark.parametrize(
    ("include", "text"), [("full", "correct: expected 5; format: grader_error"), ("none", "correct, format")]
)
def test_explain_row_tells_each_failed_grader(include: Include, text: str) -> None:
    """Reasons are told, or only names when texts must stay out."""
    grades = [
        make_grade(passed=False, reason="expected 5"),
        make_grade(grader="format", passed=False, reason="", error_code="grader_error"),
        make_grade(grader="tone", passed=True),
    ]
    row = build_report_row(make_result(passed=False), grades)
    assert explain_row(row, include=include) == text


def test_explain_row_tells_why_there_is_no_answer() -> None:
    """An error is told by code, HTTP status and message."""
    columns = {"status": "error", "error_code": "overloaded", "http_status": 503, "error_message": "busy"}
    row = build_report_row(make_result(**columns, passed=None), [])
    assert explain_row(row, include="full") == "overloaded: HTTP 503: busy"
    assert explain_row(row, include="none") == "overloaded: HTTP 503"


def test_explain_row_tells_an_ungraded_row() -> None:
    """A row that no grader applies to says so; a pass needs no word."""
    assert (
        explain_row(build_report_row(make_result(passed=None), []), include="full")
        == "no grader applies to this sample"
    )
    assert explain_row(build_report_row(make_result(), []), include="full") == ""


def test_rows_are_ordered_worst_first_and_then_by_plan() -> None:
    """Failures come first; within a mark the plan's order stays."""
    passed = [True, False, None, False]
    rows = [build_report_row(make_result(sample_id=str(i), passed=p), []) for i, p in enumerate(passed)]
    assert [row.sample_id for row in order_worst_first(rows)] == ["1", "3", "2", "0"]


def test_status_is_not_said_twice() -> None:
    """A message that begins with the HTTP status is not given the status once more."""
    columns = {"status": "error", "error_code": "rate_limited", "http_status": 429, "passed": None}
    row = build_report_row(make_result(**columns, error_message="HTTP 429: slow down"), [])
    assert explain_row(row, include="full") == "rate_limited: HTTP 429: slow down"
    assert explain_row(row, include="none") == "rate_limited: HTTP 429"
    other = build_report_row(make_result(**columns, error_message="HTTP 4290 is none"), [])
    assert explain_row(other, include="full") == "rate_limited: HTTP 429: HTTP 4290 is none"


def test_row_keeps_numbers_that_no_machine_word_holds() -> None:
    """A sample's whole number of thirty digits is shown digit by digit."""
    row = build_report_row(make_result(sample=f' {{"n": {10**29 + 1}}}\n'), [])
    assert row.fields == (("n", str(10**29 + 1)),)


def test_column_with_more_than_one_value_is_no_json() -> None:
    """What follows a value is not passed over: such a text is a foreign file's."""
    assert build_report_row(make_result(sample='{"a": 1} {"b": 2}'), []).fields == ()
