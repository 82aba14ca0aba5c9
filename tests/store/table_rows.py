"""Single rows of the tables, made of records on the way that a run's records take: through the journal's lines."""

from typing import Any

from evalrun.records import Attempt, Grade, Outcome, Request
from evalrun.store.journal_format import encode_record
from evalrun.store.record_columns import (
    Columns,
    PlannedRow,
    build_attempt_columns,
    build_grade_columns,
    build_result_columns,
    make_pending,
    write_json,
)
from evalrun.store.record_reader import parse_record
from evalrun.store.tables import ATTEMPTS, GRADES, RESULTS, Column


def build_result_row(
    request: Request, outcome: Outcome | None, *, run_id: str = "run", pending_code: str = "lane_stopped"
) -> dict[str, Any]:
    """Return the row of results.parquet of a request that nobody has graded."""
    done = make_pending(request, pending_code) if outcome is None else _write_and_read(outcome)
    columns = build_result_columns([PlannedRow(request, write_json(request.sample.row), done)], run_id=run_id)
    return _take_only_row({**columns, "score": [None], "passed": [None]}, RESULTS)


def build_attempt_row(attempt: Attempt) -> dict[str, Any]:
    """Return the row of attempts.parquet of an attempt that failed."""
    return _take_only_row(build_attempt_columns([_write_and_read(attempt)]), ATTEMPTS)


def build_grade_row(grade: Grade) -> dict[str, Any]:
    """Return the row of grades.parquet of a grade."""
    return _take_only_row(build_grade_columns([grade]), GRADES)


def _write_and_read(record: Attempt | Outcome) -> Any:
    return parse_record(encode_record(record))


def _take_only_row(columns: Columns, table: tuple[Column, ...]) -> dict[str, Any]:
    assert set(columns) == {column.name for column in table}
    return {column.name: columns[column.name][0] for column in table}
