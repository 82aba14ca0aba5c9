"""Which rows a report of a large run holds, and that it says how many it leaves out."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from evalrun import report_rows
from evalrun.report.junit import render_junit
from evalrun.report.markdown import render_markdown
from evalrun.report.model import ReportData
from evalrun.report.render import render_html
from evalrun.report_rows import choose_report_rows
from evalrun.run_tables import ResultAndGrades, RunTables
from evalrun.store.folder import RunFolder
from evalrun.store.parquet import make_graded_blocks, write_results
from tests.report.fake_run import make_run
from tests.store.fake_records import make_folder, make_grade, make_outcome, make_request
from tests.store.table_rows import build_grade_row, build_result_row

_NO_TEXT = {"sample": "{}", "request": "{}", "refusal": None, "reasoning": None, "tool_calls": None, "flags": None}


def write_tables(tmp_path: Path, verdicts: str, *, chars: int = 10) -> RunTables:
    """Write rows from a string of 1 (passed), 0 (failed) and e (error), two of a sample; only errors have no grade."""
    folder = make_folder(tmp_path)
    rows = [_make_row(number, verdict, chars) for number, verdict in enumerate(verdicts)]
    write_results(folder, make_graded_blocks(rows), {"run_id": folder.run_id})
    return RunTables(folder)


def _make_row(number: int, verdict: str, chars: int) -> ResultAndGrades:
    is_error, passed = verdict == "e", {"1": True, "0": False, "e": None}[verdict]
    row = build_result_row(make_request(number), make_outcome(number), run_id="r", pending_code="interrupted")
    row |= _NO_TEXT | {
        "row_id": f"{number:064}",
        "sample_id": f"s{number // 2}",
        "category": "ab"[number % 2],
        "repeat": number % 2,
        "status": "error" if is_error else "ok",
        "output": None if is_error else "x" * chars,
        "passed": passed,
    }
    grade = make_grade(number, passed=passed, score=float(passed or 0), reason="")
    return row, [] if is_error else [build_grade_row(grade) | {"row_id": row["row_id"], "grader": f"g{number}"}]


def choose(tmp_path: Path, verdicts: str, *, chars: int = 10) -> tuple[str, list[int]]:
    """Return the verdicts of the chosen rows, and their numbers; every row has its own grades."""
    rows, _ = choose_report_rows(write_tables(tmp_path, verdicts, chars=chars))
    numbers = [int(row.row_id) for row in rows]
    found = [[grade.grader for grade in row.grades] for row in rows]
    assert found == [[] if verdicts[number] == "e" else [f"g{number}"] for number in numbers]
    return "".join(verdicts[number] for number in numbers), numbers


def test_small_run_is_shown_whole(tmp_path: Path) -> None:
    """Every row in plan order, and counts of samples, categories and repeats."""
    rows, counts = choose_report_rows(write_tables(tmp_path, "1e0110"))
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
def test_passing_rows_are_left_out_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verdicts: str, expected: str
) -> None:
    """Over the limit of rows what did not pass is shown, wherever it stands."""
    monkeypatch.setattr(report_rows, "MAX_REPORT_ROWS", 4)
    chosen, numbers = choose(tmp_path, verdicts)
    assert chosen == expected
    assert numbers == sorted(numbers)


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [("111000", "000"), ("101010", "000"), ("000111", "000"), ("110", "110"), ("00000", "000")],
)
def test_long_texts_leave_out_passing_rows_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verdicts: str, expected: str
) -> None:
    """Over the limit of characters, too, passing rows give way, also those that were taken before."""
    monkeypatch.setattr(report_rows, "MAX_REPORT_CHARS", 300)
    assert choose(tmp_path, verdicts, chars=100)[0] == expected


def test_run_of_no_rows_has_an_empty_report(tmp_path: Path) -> None:
    """Nothing to choose from is no error."""
    rows, counts = choose_report_rows(write_tables(tmp_path, ""))
    assert (rows, counts.n_rows, counts.n_samples, counts.n_repeats) == ([], 0, 0, 1)


def test_rows_are_chosen_by_the_grades_where_the_results_are_older(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A grading that died between its two files has the report that it would have had."""
    monkeypatch.setattr(report_rows, "MAX_REPORT_ROWS", 3)
    folder = RunFolder(write_tables(tmp_path / "new", "1100").grades_path.parent)
    older = RunFolder(write_tables(tmp_path / "old", "0011").grades_path.parent)
    folder.results_path.write_bytes(older.results_path.read_bytes())
    rows, counts = choose_report_rows(RunTables(folder))
    assert [(int(row.row_id), row.passed) for row in rows] == [(0, True), (2, False), (3, False)]
    assert counts.n_not_passed == 2


def test_reports_count_what_they_leave_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Page, summary and JUnit of a run that is too large tell its true size, not that of what they show."""
    monkeypatch.setattr(report_rows, "MAX_REPORT_ROWS", 3)
    rows, counts = choose_report_rows(write_tables(tmp_path, "0101" * 500))
    run = make_run(n_samples=4)
    data = ReportData(manifest=run.manifest, summary=run.summary, verdict=run.verdict, rows=rows, counts=counts)
    page, text, junit = render_html(data), render_markdown(data), render_junit(data)
    assert "1,997 of 2,000 rows are left out" in page
    assert _has_all(text, ["samples **1,000** (2 categories)", "2 repeats"])
    assert '<property name="rows_left_out" value="1997"/>' in junit


def test_markdown_names_the_true_number_of_failures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first twenty of all failures of the run, not of those that were chosen."""
    monkeypatch.setattr(report_rows, "MAX_REPORT_ROWS", 30)
    rows, counts = choose_report_rows(write_tables(tmp_path, "0" * 90))
    run = make_run(n_samples=4)
    data = ReportData(manifest=run.manifest, summary=run.summary, verdict=run.verdict, rows=rows, counts=counts)
    assert "The first 20 of 90." in render_markdown(data)


def _has_all(text: str, parts: Sequence[str]) -> bool:
    return all(part in text for part in parts)
