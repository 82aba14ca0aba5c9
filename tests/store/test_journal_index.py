import gc
import os
import tracemalloc
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from evalrun.errors import JournalDamagedError
from evalrun.records import ErrorCode, Status, Usage, UsageSource
from evalrun.store.folder import RunFolder
from evalrun.store.journal import Entry, InDoubt, Journal, JournalIndex, scan_journal
from evalrun.store.journal_format import parse_frame
from evalrun.store.journal_index import RowTable
from tests.store.fake_records import (
    make_attempt,
    make_error,
    make_failed_attempt,
    make_folder,
    make_id,
    make_outcome,
    make_started,
)


def _write(folder: RunFolder, *records: Any) -> JournalIndex:
    """Append records; return the index kept while writing, after checking that a scan knows the same."""
    live = scan_journal(folder, for_append=True)
    with Journal(folder, durability="process", index=live) as journal:
        for record in records:
            journal.append(record)
    with scan_journal(folder) as scanned:
        rows = {record.row_id for record in records}
        assert {row: scanned.get(row) for row in rows} == {row: live.get(row) for row in rows}
        assert (scanned.in_doubt, scanned.n_records) == (live.in_doubt, live.n_records)
    return live


def test_index_knows_a_finished_row(tmp_path: Path) -> None:
    """Status, key and attempts of an answered row are there, and the outcome comes back whole."""
    index = _write(make_folder(tmp_path), make_started(1), make_outcome(1))
    assert index.get(make_id("row1")) == Entry(Status.OK, None, make_id("key1"), 1, None)
    assert index.read_outcome(make_id("row1")) == make_outcome(1)
    index.close()


def test_index_keeps_the_newest_outcome_of_a_row(tmp_path: Path) -> None:
    """After an error and a later answer, the answer stands."""
    newest = make_outcome(1, attempts=2)
    with _write(make_folder(tmp_path), make_error(1), make_outcome(2), newest) as index:
        assert index.read_outcome(make_id("row1")) == newest
        assert len(index) == 2


def test_index_adds_up_attempts_and_cost_of_an_unfinished_row(tmp_path: Path) -> None:
    """A resume learns how often a row was asked and what that cost."""
    failed = make_failed_attempt(1, 1, Decimal("0.25")), make_failed_attempt(1, 2, Decimal("0.5"))
    with _write(make_folder(tmp_path), make_started(1), failed[0], make_started(1, 2), failed[1]) as index:
        assert index.get(make_id("row1")) == Entry(None, None, make_id("key1"), 2, Decimal("0.75"))
        assert index.read_outcome(make_id("row1")) is None


def test_index_keeps_cost_of_an_error_outcome(tmp_path: Path) -> None:
    """What an error has cost is known to the resume that asks it again."""
    error = make_error(1, ErrorCode.TIMEOUT_TOTAL, attempts=3, billed_usd=Decimal("0.1"))
    with _write(make_folder(tmp_path), error) as index:
        assert index.get(make_id("row1")) == Entry(Status.ERROR, "timeout_total", make_id("key1"), 3, Decimal("0.1"))


def test_index_knows_an_error_that_cannot_pass(tmp_path: Path) -> None:
    """A permanent error is known for one by the resume, until the row has another outcome."""
    permanent = make_error(1, ErrorCode.ERROR_IN_200, is_permanent=True)
    with _write(make_folder(tmp_path / "one"), permanent) as index:
        entry = index.get(make_id("row1"))
        assert entry is not None
        assert (entry.error_code, entry.is_permanent) == ("error_in_200", True)
        assert index.read_outcome(make_id("row1")) == permanent
    for later in (make_error(1, ErrorCode.ERROR_IN_200), make_outcome(1)):
        with _write(make_folder(tmp_path / later.status), permanent, later) as index:
            entry = index.get(make_id("row1"))
            assert entry is not None
            assert not entry.is_permanent


def test_index_knows_of_a_bill_that_holds_an_estimate(tmp_path: Path) -> None:
    """An estimate in an attempt, or in a sum that an outcome names, stays part of the row's bill."""
    usage = Usage(prompt_tokens=3, completion_tokens=4, source=UsageSource.ESTIMATED)
    guessed = make_attempt(1, usage=usage, error_code="reset", maybe_billed=True)
    free = make_attempt(2, usage=usage, cost_usd=Decimal(0))
    records = [guessed, free, make_outcome(3, is_billed_estimated=True), make_outcome(4), make_outcome(1)]
    folder = make_folder(tmp_path)
    with _write(folder, *records):
        pass
    with scan_journal(folder, for_append=True) as live, Journal(folder, durability="process", index=live) as journal:
        for record in (guessed, free, make_outcome(3, is_billed_estimated=True)):
            journal.append(record)
        entries = [live.get(make_id(f"row{number}")) for number in (1, 2, 3, 4)]
        assert [entry is not None and entry.is_billed_estimated for entry in entries] == [True, False, True, False]
    with scan_journal(folder) as index:
        assert [index.get(make_id(f"row{number}")) for number in (1, 2, 3, 4)] == entries


def test_index_calls_the_cost_unknown_after_an_attempt_of_unknown_cost(tmp_path: Path) -> None:
    """One unknown part makes the sum unknown, never smaller."""
    records = make_failed_attempt(1, 1, None), make_failed_attempt(1, 2, Decimal("0.5"))
    with _write(make_folder(tmp_path), *records) as index:
        entry = index.get(make_id("row1"))
        assert entry is not None
        assert entry.billed_usd is None


def test_index_reads_usual_lines_as_it_reads_their_json(tmp_path: Path) -> None:
    """The fast way to read a line and the thorough one know the same of every row; a changed line takes neither."""
    folder = make_folder(tmp_path)
    records: list[Any] = [
        make_started(1), make_failed_attempt(1, 1, Decimal("0.25")), make_started(1, 2), make_outcome(1, attempts=2),
        make_started(2), make_error(2, ErrorCode.TIMEOUT_TOTAL, billed_usd=Decimal("0.1")),
        make_started(3), make_error(3, ErrorCode.ERROR_IN_200, is_permanent=True),
        make_started(4), make_started(4), make_outcome(5), make_started(5), make_started(6),
        make_outcome(7, is_billed_estimated=True), make_error(8, is_billed_estimated=True, billed_usd=Decimal("0.1")),
    ]  # fmt: skip
    fast = _write(folder, *records)
    thorough, n_usual = JournalIndex(folder.journal_dir), 0
    offset = 0
    for line in (folder.journal_dir / "000001.jsonl").read_bytes().splitlines(keepends=True):
        frame = parse_frame(line)
        assert frame is not None
        thorough.add_frame(frame, segment=1, offset=offset, length=len(line))
        usual = JournalIndex(folder.journal_dir)
        n_usual += usual.add_usual_line(line, segment=1, offset=offset)
        assert not usual.add_usual_line(line.replace(b'"index":', b'"index":1'), segment=1, offset=offset)
        offset += len(line)
    rows = {record.row_id for record in records}
    assert n_usual == len(records) - 2  # All but the failed attempt and the permanent error.
    assert {row: thorough.get(row) for row in rows} == {row: fast.get(row) for row in rows}
    assert (thorough.in_doubt, thorough.n_records) == (fast.in_doubt, fast.n_records)
    assert {row: thorough.read_outcome(row) for row in rows} == {row: fast.read_outcome(row) for row in rows}
    thorough.close()
    fast.close()


def test_index_lists_what_was_in_flight(tmp_path: Path) -> None:
    """A started request without attempt or outcome is in doubt, and its cost is unknown."""
    folder = make_folder(tmp_path)
    with _write(folder, make_started(1), make_started(2), make_outcome(2), make_started(3)) as index:
        assert index.in_doubt == (
            InDoubt(make_id("row1"), make_id("key1"), 1),
            InDoubt(make_id("row3"), make_id("key3"), 1),
        )
        assert index.get(make_id("row1")) == Entry(None, None, make_id("key1"), 1, None)
    with _write(folder, make_started(1, 2), make_outcome(1, attempts=2)) as index:
        assert [doubt.row_id for doubt in index.in_doubt] == [make_id("row3")]
        assert index.asked_again == [InDoubt(make_id("row1"), make_id("key1"), 1)]
        assert index.n_asked_again == 1


def test_index_follows_a_changed_request_key(tmp_path: Path) -> None:
    """A row whose request changed carries the key of its newest record."""
    changed = make_outcome(1, request_key=make_id("other"))
    with _write(make_folder(tmp_path), make_outcome(1), changed) as index:
        entry = index.get(make_id("row1"))
        assert entry is not None
        assert entry.request_key == make_id("other")


def test_index_takes_keys_that_are_no_digests(tmp_path: Path) -> None:
    """Row ids and keys of another form are found all the same, and a later digest replaces such a key."""
    odd = make_outcome(1, row_id="row one", request_key="KEY ü")
    with _write(make_folder(tmp_path), odd, make_outcome(2)) as index:
        assert index.get("row one") == Entry(Status.OK, None, "KEY ü", 1, None)
        assert index.read_outcome("row one") == odd
    with _write(make_folder(tmp_path, "r2"), odd, make_outcome(1, row_id="row one")) as index:
        entry = index.get("row one")
        assert entry is not None
        assert entry.request_key == make_id("key1")


def test_index_reads_attempts_of_all_kinds_in_order(tmp_path: Path) -> None:
    """Failed attempts and the final ones inside outcomes come back in the order they were written."""
    failed, outcome = make_failed_attempt(1), make_outcome(1, attempts=2, last_attempt=make_attempt(1, 2))
    unsent = make_outcome(2, status=Status.PENDING, completion=None, last_attempt=None)
    with _write(make_folder(tmp_path), make_started(1), failed, outcome, unsent) as index:
        assert list(index.scan_attempts()) == [failed, make_attempt(1, 2)]


def test_index_notices_a_record_that_changed_on_disk(tmp_path: Path) -> None:
    """A record that no longer proves itself is never handed out."""
    folder = make_folder(tmp_path)
    with _write(folder, make_outcome(1)) as index:
        path = folder.journal_dir / "000001.jsonl"
        path.write_bytes(path.read_bytes().replace(b"answer 1", b"answer 2"))
        with pytest.raises(JournalDamagedError, match="changed since it was indexed"):
            index.read_outcome(make_id("row1"))


def test_index_has_its_sessions(tmp_path: Path) -> None:
    """The facts of every call come back in order."""
    folder = make_folder(tmp_path)
    for number in range(2):
        with Journal(folder, durability="process") as journal:
            journal.append_session({"session": number})
    with scan_journal(folder) as index:
        assert index.sessions == [{"session": 0}, {"session": 1}]


def test_row_table_finds_every_row_and_no_other() -> None:
    """Each row has one number, however often the table grew."""
    table = RowTable()
    names = [os.urandom(32).hex() for _ in range(5000)]
    assert [table.find_or_add(name) for name in names + names] == [*range(5000), *range(5000)]
    assert [table.find(name) for name in names] == list(range(5000))
    assert (len(table), table.find(os.urandom(32).hex())) == (5000, None)


def test_index_needs_at_most_150_bytes_a_row(tmp_path: Path) -> None:
    """Finished rows cost a fixed and small number of bytes in memory."""
    n_rows = 5_000
    tracemalloc.start()
    try:
        index = JournalIndex(tmp_path)
        for _ in range(n_rows):
            outcome = make_outcome(1, row_id=os.urandom(32).hex(), completion=None, last_attempt=None)
            index.add_record(outcome, segment=1, offset=0, length=1)
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] / n_rows <= 150
    finally:
        tracemalloc.stop()
