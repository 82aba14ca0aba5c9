from pathlib import Path
from typing import Any

import pytest

from evalrun.errors import JournalDamagedError
from evalrun.records import Completion, Outcome, Status
from evalrun.store.folder import RunFolder
from evalrun.store.journal import Journal
from evalrun.store.journal_index import JournalIndex
from evalrun.store.journal_scan import scan_journal
from evalrun.store.record_reader import IS_CLEANED, RecordReader, scan_attempt_records
from tests.store.fake_records import make_error, make_failed_attempt, make_folder, make_id, make_outcome, make_started

N_ROWS = 40


def _write(folder: RunFolder, *records: Any, segment_bytes: int = 10**9) -> JournalIndex:
    with Journal(folder, durability="process", segment_bytes=segment_bytes) as journal:
        for record in records:
            journal.append(record)
    return scan_journal(folder)


def _answer(number: int, output: str) -> Outcome:
    return make_outcome(number, completion=Completion(status=Status.OK, output=output))


def _read_outputs(folder: RunFolder, index: JournalIndex, numbers: range) -> dict[str, str]:
    ids = {make_id(f"row{number}"): make_id(f"key{number}") for number in numbers}
    places = {row_id: place for row_id, key in ids.items() if (place := index.find_answer(row_id, key)) is not None}
    with RecordReader(folder.journal_dir) as reader:
        return {row_id: record["completion"]["output"] for row_id, record in reader.read(places).items()}


@pytest.mark.parametrize(("segment_bytes", "n_chars"), [(10**9, 5), (20_000, 5), (10**9, 100_000)])
def test_reader_returns_each_row_its_newest_record(tmp_path: Path, segment_bytes: int, n_chars: int) -> None:
    """Rows that ended in any order, in one segment or many, short or long, each get what stands."""
    folder = make_folder(tmp_path)
    started = [make_started(number) for number in range(N_ROWS)]
    old = [_answer(number, "old") for number in range(0, N_ROWS, 3)]
    ended = [_answer(number, f"{number} " + "x" * n_chars) for number in reversed(range(N_ROWS))]
    index = _write(folder, *started, *old, *ended, segment_bytes=segment_bytes)
    expected = {make_id(f"row{number}"): f"{number} " + "x" * n_chars for number in range(N_ROWS)}
    assert _read_outputs(folder, index, range(N_ROWS + 2)) == expected


def test_answer_is_found_for_its_own_question_only(tmp_path: Path) -> None:
    """A row that now asks something else, one that never ended and an unknown one have no place."""
    index = _write(make_folder(tmp_path), make_started(1), make_outcome(1), make_started(2))
    keys = [("row1", "key1"), ("row1", "key2"), ("row2", "key2"), ("row3", "key3")]
    found = [index.find_answer(make_id(row), make_id(key)) is not None for row, key in keys]
    assert found == [True, False, False, False]


def test_reader_refuses_a_record_that_changed(tmp_path: Path) -> None:
    """What no longer proves itself is never taken for an answer."""
    folder = make_folder(tmp_path)
    index = _write(folder, make_started(1), _answer(1, "Ottawa"), make_started(2), _answer(2, "Vienna"))
    path = folder.journal_dir / "000001.jsonl"
    path.write_bytes(path.read_bytes().replace(b"Vienna", b"Berlin"))
    assert list(_read_outputs(folder, index, range(1, 2)).values()) == ["Ottawa"]
    with pytest.raises(JournalDamagedError, match="changed since it was indexed"):
        _read_outputs(folder, index, range(1, 3))


def test_reader_refuses_a_record_of_another_row(tmp_path: Path) -> None:
    """A place that now holds a whole record of another row is a change, too."""
    folder = make_folder(tmp_path)
    index = _write(folder, _answer(1, "one"), _answer(2, "two"))
    path = folder.journal_dir / "000001.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:-2], lines[-1], lines[-2]]))
    with pytest.raises(JournalDamagedError, match="changed since it was indexed"):
        _read_outputs(folder, index, range(1, 3))


def test_reader_escapes_lone_surrogates_and_says_so(tmp_path: Path) -> None:
    """Text that UTF-8 cannot hold comes out as its escape; a record without such text has no mark."""
    folder = make_folder(tmp_path)
    index = _write(folder, _answer(1, "a\ud800b"), _answer(2, "é"))
    places = {make_id(f"row{n}"): index.find_answer(make_id(f"row{n}"), make_id(f"key{n}")) for n in (1, 2)}
    with RecordReader(folder.journal_dir) as reader:
        records = list(reader.read({row_id: place for row_id, place in places.items() if place is not None}).values())
    assert [record["completion"]["output"] for record in records] == ["a\\ud800b", "é"]
    assert [record.get(IS_CLEANED) for record in records] == [True, None]


def test_scan_yields_the_attempts_that_the_index_yields(tmp_path: Path) -> None:
    """Failed and final attempts come in the order they were written; rows that were never sent have none."""
    folder = make_folder(tmp_path)
    never_sent = make_error(3, last_attempt=None)
    records = [make_started(1), make_failed_attempt(1), make_started(2), make_outcome(2), never_sent, make_outcome(1)]
    index = _write(folder, *records)
    found = [
        (record["row_id"], record.get("last_attempt", record)["attempt"])
        for record, _ in scan_attempt_records(folder.journal_dir)
    ]
    assert found == [(attempt.row_id, attempt.attempt) for attempt in index.scan_attempts()]
    assert [row_id for row_id, _ in found] == [make_id("row1"), make_id("row2"), make_id("row1")]


def test_scan_finds_an_attempt_behind_a_lost_newline(tmp_path: Path) -> None:
    """A record that hangs on the start of another request is not passed over with it."""
    folder = make_folder(tmp_path)
    _write(folder, make_started(1), make_started(2), make_outcome(1), make_outcome(2))
    path = folder.journal_dir / "000001.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines).replace(lines[-3], lines[-3][:-1]))
    assert [record["row_id"] for record, _ in scan_attempt_records(folder.journal_dir)] == [
        make_id("row1"),
        make_id("row2"),
    ]
