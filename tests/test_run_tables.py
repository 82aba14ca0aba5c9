"""Results that are older than their grades, read as if they were not."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from evalrun.run_tables import RunTables
from evalrun.store.folder import RunFolder
from evalrun.store.parquet import make_graded_blocks, write_results
from tests.store.fake_records import make_folder, make_grade, make_outcome, make_request
from tests.store.table_rows import build_grade_row, build_result_row

N_ROWS = 2_100
"""More than are turned into a frame at once."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run whose grades were replaced by a grading that died before the results."""
    folder = make_folder(tmp_path_factory.mktemp("run"))
    write_results(
        folder,
        make_graded_blocks((_make_row(n), [_make_grade(n, passed=False)]) for n in range(N_ROWS)),
        {"run_id": "r"},
    )
    newer = folder.grades_path.read_bytes()
    write_results(
        folder,
        make_graded_blocks((_make_row(n), [_make_grade(n, passed=True)]) for n in range(N_ROWS)),
        {"run_id": "r"},
    )
    folder.grades_path.write_bytes(newer)
    return folder


def _write(folder: RunFolder, *, passed: bool) -> None:
    rows = ((_make_row(n), [_make_grade(n, passed=passed)]) for n in range(N_ROWS))
    write_results(folder, make_graded_blocks(rows), {"run_id": "r"})


def _make_row(number: int) -> dict[str, Any]:
    row = build_result_row(make_request(number), make_outcome(number), run_id="r", pending_code="interrupted")
    return row | {"score": 1.0, "passed": True}


def _make_grade(number: int, *, passed: bool) -> dict[str, Any]:
    return build_grade_row(make_grade(number, passed=passed, score=float(passed)))


def test_frame_of_older_results_is_that_of_mended_ones(folder: RunFolder, tmp_path: Path) -> None:
    """What is read in memory is, cell by cell, what is on disk once the tables were mended."""
    in_memory = RunTables(folder).scan_results().collect()
    copy = make_folder(tmp_path)
    for name in ("results.parquet", "grades.parquet"):
        (copy.path / name).write_bytes((folder.path / name).read_bytes())
    tables = RunTables(copy)
    tables.mend()
    assert in_memory.equals(pl.read_parquet(copy.results_path))
    assert set(in_memory["passed"]) == {False}
    assert [row["passed"] for row in RunTables(folder).scan_verdicts()] == [False] * N_ROWS


@pytest.mark.parametrize("engine", ["in-memory", "streaming"])
def test_frame_of_older_results_takes_any_query(folder: RunFolder, engine: Any) -> None:
    """Columns, filters and heads that polars hands down give what they give on the whole frame."""
    frame = RunTables(folder).scan_results()
    whole = frame.collect()
    picked = (pl.col("repeat") == 0) & (pl.col("sample_id") > "s42")
    assert (
        frame.filter(picked)
        .select("row_id", "score")
        .collect(engine=engine)
        .equals(whole.filter(picked).select("row_id", "score"))
    )
    assert (
        frame.select("passed", "run_id").head(7).collect(engine=engine).equals(whole.select("passed", "run_id").head(7))
    )
    assert frame.select(pl.len()).collect(engine=engine).item() == N_ROWS


def test_reading_older_results_changes_no_file(folder: RunFolder) -> None:
    """The mended rows are in memory only."""
    before = {path: path.read_bytes() for path in folder.path.iterdir() if path.is_file()}
    RunTables(folder).scan_results().collect()
    assert {path: path.read_bytes() for path in folder.path.iterdir() if path.is_file()} == before
