"""Which rows a report of a large run holds, and that it says how many it leaves out."""

from collections.abc import Sequence
from typing import Any

import pytest

from evalrun import report_rows
from evalrun.report.junit import render_junit
from evalrun.report.markdown import render_markdown
from evalrun.report.model import ReportData
from evalrun.report.render import render_html
from evalrun.report_rows import choose_report_rows
from tests.report.fake_run import make_run

Rows = list[tuple[dict[str, Any], list[dict[str, Any]]]]


def make_rows(verdicts: str, *, chars: int = 10) -> Rows:
    """Return rows of results from a string of 1 (passed), 0 (failed) and e (error), each a sample of its own."""
    return [
        (
            {
                "row_id": f"{number:064}",
                "sample_id": f"s{number // 2}",
                "category": "ab"[number % 2],
                "prompt": "p",
                "model": "m",
                "repeat": number % 2,
                "status": "error" if verdict == "e" else "ok",
                "output": None if verdict == "e" else "x" * chars,
                "passed": {"1": True, "0": False, "e": None}[verdict],
            },
            [],
        )
        for number, verdict in enumerate(verdicts)
    ]


def choose(verdicts: str, *, chars: int = 10) -> tuple[str, list[int]]:
    """Return the verdicts of the chosen rows, and their numbers."""
    rows, _ = choose_report_rows(make_rows(verdicts, chars=chars), n_not_passed=len(verdicts) - verdicts.count("1"))
    numbers = [int(row.row_id) for row in rows]
    return "".join(verdicts[number] for number in numbers), numbers


def test_small_run_is_shown_whole() -> None:
    """Every row in plan order, and counts of samples, categories and repeats."""
    rows, counts = choose_report_rows(make_rows("1e0110"), n_not_passed=3)
    assert [int(row.row_id) for row in rows] == list(range(6))
    assert (counts.n_rows, counts.n_not_passed, counts.n_samples, counts.n_categories, counts.n_repeats) == (
        6,
        3,
        3,
        2,
        2,
    )


@pytest.mark.parametrize(
    ("verdicts", "expected"), [("11100111", "1100"), ("1100e0011", "00e0"), ("11111111", "1111"), ("0" * 9, "0000")]
)
def test_passing_rows_are_left_out_first(monkeypatch: pytest.MonkeyPatch, verdicts: str, expected: str) -> None:
    """Over the limit of rows what did not pass is shown, wherever it stands."""
    monkeypatch.setattr(report_rows, "MAX_REPORT_ROWS", 4)
    chosen, numbers = choose(verdicts)
    assert chosen == expected
    assert numbers == sorted(numbers)


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [("111000", "000"), ("101010", "000"), ("000111", "000"), ("110", "110"), ("00000", "000")],
)
def test_long_texts_leave_out_passing_rows_first(monkeypatch: pytest.MonkeyPatch, verdicts: str, expected: str) -> None:
    """Over the limit of characters, too, passing rows give way, also those that were taken before."""
    monkeypatch.setattr(report_rows, "MAX_REPORT_CHARS", 300)
    assert choose(verdicts, chars=100)[0] == expected


def test_reports_count_what_they_leave_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Page, summary and JUnit of a run that is too large tell its true size, not that of what they show."""
    monkeypatch.setattr(report_rows, "MAX_REPORT_ROWS", 3)
    rows, counts = choose_report_rows(make_rows("0101" * 500), n_not_passed=1000)
    run = make_run(n_samples=4)
    data = ReportData(manifest=run.manifest, summary=run.summary, verdict=run.verdict, rows=rows, counts=counts)
    page, text, junit = render_html(data), render_markdown(data), render_junit(data)
    assert "1,997 of 2,000 rows are left out" in page
    assert _has_all(text, ["samples **1,000** (2 categories)", "2 repeats"])
    assert '<property name="rows_left_out" value="1997"/>' in junit


def test_markdown_names_the_true_number_of_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first twenty of all failures of the run, not of those that were chosen."""
    monkeypatch.setattr(report_rows, "MAX_REPORT_ROWS", 30)
    rows, counts = choose_report_rows(make_rows("0" * 90), n_not_passed=90)
    run = make_run(n_samples=4)
    data = ReportData(manifest=run.manifest, summary=run.summary, verdict=run.verdict, rows=rows, counts=counts)
    assert "The first 20 of 90." in render_markdown(data)


def _has_all(text: str, parts: Sequence[str]) -> bool:
    return all(part in text for part in parts)
