import dataclasses
import errno
import os
import resource
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd  # type: ignore[import-untyped]
import polars as pl
import pyarrow.parquet as pq  # type: ignore[import-untyped]
import pytest

from evalrun.errors import SchemaMismatchError, StoreError
from evalrun.store.folder import RunFolder
from evalrun.store.parquet import (
    CHUNK_ROWS,
    MIN_GROUP_ROWS,
    grades_match,
    make_blocks,
    make_graded_blocks,
    make_polars_schema,
    read_metadata,
    scan_rows,
    write_attempts,
    write_results,
    write_table,
)
from evalrun.store.tables import ATTEMPTS, GRADES, RESULTS
from tests.store.fake_records import make_attempt, make_error, make_folder, make_grade, make_outcome, make_request
from tests.store.table_rows import build_attempt_row, build_grade_row, build_result_row

FACTS = {"run_id": "run", "job_digest": "abc"}
Pair = tuple[dict[str, Any], list[dict[str, Any]]]


def _make_rows(n_rows: int, n_grades: int = 2) -> Iterator[Pair]:
    """Make graded rows; every third one is an error, which has no grades."""
    for number in range(n_rows):
        outcome = make_error(number) if number % 3 == 2 else make_outcome(number)
        row = build_result_row(make_request(number), outcome, run_id="run", pending_code="lane_stopped")
        if outcome.completion is None:
            yield row, []
            continue
        row |= {"score": 1.0, "passed": True}
        yield row, [build_grade_row(make_grade(number, f"g{grader}")) for grader in range(n_grades)]


def _list_names(folder: RunFolder) -> list[str]:
    return sorted(path.name for path in folder.path.iterdir())


def test_results_and_grades_come_back_as_written(tmp_path: Path) -> None:
    """Across chunks and row groups every row is there, in order, with its values, and its grades beside it."""
    folder = make_folder(tmp_path)
    n_rows = CHUNK_ROWS + 10
    expected = list(_make_rows(n_rows))
    written = write_results(folder, make_graded_blocks(iter(expected)), FACTS)
    assert (written.n_results, written.n_grades) == (n_rows, sum(len(grades) for _, grades in expected))
    assert list(scan_rows(folder.results_path)) == [_order(row) for row, _ in expected]
    assert list(scan_rows(folder.grades_path)) == [grade for _, grades in expected for grade in grades]
    assert _list_names(folder) == ["grades.parquet", "journal", "results.parquet"]


def _order(row: dict[str, Any]) -> dict[str, Any]:
    return {column.name: row[column.name] for column in RESULTS}


def test_grades_survive_the_way_over_part_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More grades than memory is meant to hold go over parts on disk, and come out in order."""
    monkeypatch.setattr("evalrun.store.parquet._PART_ROWS", 3000)
    folder = make_folder(tmp_path)
    written = write_results(folder, make_graded_blocks(_make_rows(4000, 3)), FACTS)
    expected = [grade for _, grades in _make_rows(4000, 3) for grade in grades]
    assert written.n_grades == len(expected)
    assert list(scan_rows(folder.grades_path)) == expected


def test_tables_have_their_types_also_when_all_values_are_null(tmp_path: Path) -> None:
    """No type is guessed from the data: an empty table and one of nulls have the columns of any other."""
    folder = make_folder(tmp_path)
    for rows in (iter([]), iter([next(_make_rows(1))])):
        write_results(folder, make_graded_blocks(rows), FACTS)
        write_attempts(folder, make_blocks([], ATTEMPTS))
        for path, columns in (
            (folder.results_path, RESULTS),
            (folder.grades_path, GRADES),
            (folder.attempts_path, ATTEMPTS),
        ):
            assert pl.read_parquet_schema(path) == make_polars_schema(columns)


def test_files_carry_version_digests_and_facts(tmp_path: Path) -> None:
    """Key-value metadata names version, run, job, and one digest in results and grades."""
    folder = make_folder(tmp_path)
    written = write_results(folder, make_graded_blocks(_make_rows(3)), FACTS)
    expected = {"schema_version": "1", "run_id": "run", "job_digest": "abc", "grades_digest": written.grades_digest}
    assert read_metadata(folder.results_path) == expected
    assert read_metadata(folder.grades_path) == expected
    raw = pq.read_metadata(folder.results_path).metadata
    assert raw[b"evalrun.grades_digest"] == written.grades_digest.encode()


def test_grades_digest_follows_the_grades_alone(tmp_path: Path) -> None:
    """Equal grades have equal digests; another reason makes another digest."""
    digests = []
    for number, reason in enumerate(["equal", "equal", "other"]):
        rows = [(row, [grade | {"reason": reason} for grade in grades]) for row, grades in _make_rows(3)]
        digests.append(
            write_results(make_folder(tmp_path, f"run{number}"), make_graded_blocks(iter(rows)), FACTS).grades_digest
        )
    assert digests[0] == digests[1] != digests[2]


def test_grades_match_tells_files_of_two_passes_apart(tmp_path: Path) -> None:
    """A crash between the two renames is found: new grades beside old results do not match."""
    folder, other = make_folder(tmp_path, "a"), make_folder(tmp_path, "b")
    assert not grades_match(folder)
    write_results(folder, make_graded_blocks(_make_rows(3)), FACTS)
    assert grades_match(folder)
    write_results(other, make_graded_blocks(_make_rows(3, 1)), FACTS)
    other.grades_path.rename(folder.grades_path)
    assert not grades_match(folder)
    assert not grades_match(other)


def test_tables_are_readable_without_evalrun(tmp_path: Path) -> None:
    """polars, DuckDB, pandas and pyarrow see the same rows, types and joins."""
    folder = make_folder(tmp_path)
    write_results(folder, make_graded_blocks(_make_rows(30)), FACTS)
    write_attempts(folder, make_blocks([build_attempt_row(make_attempt(number)) for number in range(30)], ATTEMPTS))
    results, grades = str(folder.results_path), str(folder.grades_path)
    frame = pl.read_parquet(results)
    assert frame.filter(pl.col("status") == "ok")["prompt_tokens"].sum() == 20 * 57
    newest = "max(started_at) = timestamptz '2026-11-22 12:00:00.151+00'"
    with duckdb.connect() as connection:
        found = connection.execute(
            f"select count(*), {newest} from '{results}' join '{grades}' using (row_id)"
        ).fetchall()
    assert found == [(40, True)]
    pandas_frame = pd.read_parquet(results)
    assert pandas_frame["passed"].isna().sum() == 10
    assert str(pandas_frame["started_at"].dtype) == "datetime64[ms, UTC]"
    table = pq.read_table(folder.attempts_path)
    assert (table.num_rows, table.column_names) == (30, [column.name for column in ATTEMPTS])


def test_tables_are_compressed_in_row_groups(tmp_path: Path) -> None:
    """Files are zstd, so that large runs stay small and parts can be read alone."""
    folder = make_folder(tmp_path)
    write_attempts(folder, make_blocks((build_attempt_row(make_attempt(number)) for number in range(45_000)), ATTEMPTS))
    metadata = pq.read_metadata(folder.attempts_path)
    assert [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)] == [20_000, 20_000, 5_000]
    assert metadata.row_group(0).column(0).compression == "ZSTD"


def test_long_texts_make_small_row_groups(tmp_path: Path) -> None:
    """The longer the texts, the fewer rows a reader has to hold at once; every row comes back, short or long."""
    texts = [f"{number} " + "x" * (100_000 if number < 250 else 1) for number in range(600)]
    columns = tuple(column for column in ATTEMPTS if column.name == "row_id")
    n_rows = write_table(
        tmp_path / "t.parquet", columns, make_blocks(({"row_id": text} for text in texts), columns), {}
    )
    metadata = pq.read_metadata(tmp_path / "t.parquet")
    assert (n_rows, metadata.row_group(0).num_rows) == (600, MIN_GROUP_ROWS)
    assert [row["row_id"] for row in scan_rows(tmp_path / "t.parquet")] == texts


def test_tables_are_private(tmp_path: Path) -> None:
    """Files with prompts and outputs are for their owner only."""
    folder = make_folder(tmp_path)
    write_results(folder, make_graded_blocks(_make_rows(3)), FACTS)
    assert folder.results_path.stat().st_mode & 0o777 == 0o600
    assert folder.grades_path.stat().st_mode & 0o777 == 0o600


class _StopHereError(Exception):
    """What a caller's own iterator may raise."""


def test_failed_write_keeps_the_older_files(tmp_path: Path) -> None:
    """When the rows end in an error, that error comes out, both older files are whole, and nothing is left over."""
    folder = make_folder(tmp_path)
    digest = write_results(folder, make_graded_blocks(_make_rows(5)), FACTS).grades_digest

    def fail() -> Iterator[Pair]:
        yield from _make_rows(CHUNK_ROWS * 2)
        raise _StopHereError

    with pytest.raises(_StopHereError):
        write_results(folder, make_graded_blocks(fail()), FACTS)
    assert read_metadata(folder.results_path)["grades_digest"] == digest
    assert grades_match(folder)
    assert _list_names(folder) == ["grades.parquet", "journal", "results.parquet"]


def test_rows_are_made_in_the_thread_of_the_caller(tmp_path: Path) -> None:
    """Graders and the journal are used from one thread only, whatever polars does beside it."""
    threads = set()

    def make() -> Iterator[Pair]:
        for pair in _make_rows(CHUNK_ROWS * 2):
            threads.add(threading.get_ident())
            yield pair

    write_results(make_folder(tmp_path), make_graded_blocks(make()), FACTS)
    assert threads == {threading.get_ident()}


def test_full_disk_keeps_the_older_file(tmp_path: Path) -> None:
    """A real refusal of the kernel in mid-write is a StoreError, and the older file is readable."""
    folder = make_folder(tmp_path)
    rows = [build_attempt_row(make_attempt(number, request_id=os.urandom(300).hex())) for number in range(2000)]
    write_attempts(folder, make_blocks(rows[:3], ATTEMPTS))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    old_handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
        with pytest.raises(StoreError, match=r"cannot write .*attempts\.parquet.*File too large"):
            write_attempts(folder, make_blocks(rows, ATTEMPTS))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, old_handler)
    assert len(list(scan_rows(folder.attempts_path))) == 3
    assert _list_names(folder) == ["attempts.parquet", "journal"]


def test_error_of_the_disk_in_the_rows_is_a_store_error(tmp_path: Path) -> None:
    """An OSError while rows are pulled names the file that could not be written."""

    def fail() -> Iterator[dict[str, Any]]:
        raise OSError(errno.EIO, os.strerror(errno.EIO))
        yield {}

    with pytest.raises(StoreError, match=r"attempts\.parquet: Input/output error"):
        write_attempts(make_folder(tmp_path), make_blocks(fail(), ATTEMPTS))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"attempt": "1"}, r"column attempt \(i16\)"),
        ({"attempt": 70_000}, r"column attempt \(i16\)"),
        ({"attempt": None}, "column attempt may not be null"),
        ({"wait_s": "soon"}, r"column wait_s \(f64\)"),
        ({"request_id": 7}, r"column request_id \(str\)"),
        ({"request_id": "\ud800"}, r"column request_id \(str\)"),
    ],
)
def test_row_that_does_not_fit_is_refused(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    """No value is bent to its column: a wrong one names the column."""
    row = build_attempt_row(make_attempt(1)) | change
    with pytest.raises(StoreError, match=words):
        write_attempts(make_folder(tmp_path), make_blocks([row], ATTEMPTS))


def test_row_that_lacks_a_column_is_refused(tmp_path: Path) -> None:
    """A missing column is never taken for null."""
    row = build_attempt_row(make_attempt(1))
    del row["request_id"]
    with pytest.raises(StoreError, match="column request_id"):
        write_attempts(make_folder(tmp_path), make_blocks([row], ATTEMPTS))


def test_text_of_any_kind_survives(tmp_path: Path) -> None:
    """NUL, emoji joiners, bidi marks, line separators and combining marks come back unchanged."""
    text = "\x00 \u200d👩\u200d🚀 \u202eabc\u2028\ufffd e\u0301 é \x1b[31m {{ 7*7 }}"
    outcome = make_outcome(1)
    assert outcome.completion is not None
    outcome = dataclasses.replace(outcome, completion=dataclasses.replace(outcome.completion, output=text))
    row = build_result_row(make_request(1), outcome, run_id="run", pending_code="lane_stopped")
    folder = make_folder(tmp_path)
    write_results(folder, make_graded_blocks(iter([(row, [])])), FACTS)
    assert [row["output"] for row in scan_rows(folder.results_path, ["output"])] == [text]


def test_scan_rows_reads_chosen_columns_in_small_steps(tmp_path: Path) -> None:
    """Only the named columns are read; the order is the file's."""
    folder = make_folder(tmp_path)
    write_results(folder, make_graded_blocks(_make_rows(50)), FACTS)
    rows = list(scan_rows(folder.results_path, ["sample_id", "score"], chunk_rows=7))
    assert [row["sample_id"] for row in rows] == [f"s{number}" for number in range(50)]
    assert set(rows[0]) == {"sample_id", "score"}


def test_missing_and_foreign_files_say_what_they_are(tmp_path: Path) -> None:
    """A missing table, one that is no Parquet, and one of other hands each get their own words."""
    path = tmp_path / "results.parquet"
    with pytest.raises(StoreError, match=r"is not there; .*--resume"):
        list(scan_rows(path))
    path.write_bytes(b"PAR1 no")
    with pytest.raises(StoreError, match="cannot read"):
        list(scan_rows(path))
    with pytest.raises(StoreError, match="cannot read"):
        read_metadata(path)
    pl.DataFrame({"a": [1]}).write_parquet(path)
    with pytest.raises(SchemaMismatchError, match=r"names no evalrun\.schema_version"):
        read_metadata(path)


def test_write_table_takes_any_columns(tmp_path: Path) -> None:
    """The writer knows no table by name."""
    path = tmp_path / "own.parquet"
    assert write_table(path, GRADES[:2], [{"row_id": ["a"], "request_key": ["b"]}], {"run_id": "r"}) == 1
    assert read_metadata(path) == {"schema_version": "1", "run_id": "r"}
