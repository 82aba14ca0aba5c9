"""Stored outcomes: found by what was asked, handed out once, small in memory, unmoved by damage."""

import json
import shutil
import tracemalloc
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest

from evalrun.errors import JournalDamagedError, SchemaMismatchError
from evalrun.records import Outcome
from evalrun.store.folder import RunFolder
from evalrun.store.journal import Journal
from evalrun.store.journal_format import Kind, encode_frame, encode_record, parse_frame
from evalrun.store.reuse import StoredOutcomes, read_first_keys
from tests.store.fake_records import make_error, make_folder, make_id, make_outcome, make_started

OLD, OTHER = "20261122-120000-aaaaaa", "20261122-130000-bbbbbb"


def write_run(tmp_path: Path, run_id: str, outcomes: Iterable[Outcome]) -> RunFolder:
    """Write a run's journal."""
    folder = make_folder(tmp_path, run_id)
    with Journal(folder, durability="process") as journal:
        journal.append_session({"run_id": run_id})
        for outcome in outcomes:
            journal.append(outcome)
    return folder


def take(stored: StoredOutcomes, row: int, key: int) -> str | None:
    """Take an outcome; return its text."""
    outcome = stored.take(make_id(f"row{row}"), make_id(f"key{key}"))
    if outcome is None:
        return None
    assert outcome.completion is not None
    return outcome.completion.output


def with_key(number: int, key: int) -> Outcome:
    """Return the outcome of a row that asked a certain request."""
    return make_outcome(number, request_key=make_id(f"key{key}"))


def test_outcome_is_handed_out_once(tmp_path: Path) -> None:
    """The second taker of a request gets the next stored outcome, then nothing."""
    folder = write_run(tmp_path, OLD, [with_key(1, 7), with_key(2, 7), make_outcome(3)])
    with StoredOutcomes() as stored:
        assert stored.add_run(folder) == 3
        assert [take(stored, 9, 7) for _ in range(3)] == ["answer 1", "answer 2", None]
        assert take(stored, 9, 8) is None


def test_outcome_of_the_same_row_comes_first(tmp_path: Path) -> None:
    """Among equal requests a row gets its own answer back."""
    folder = write_run(tmp_path, OLD, [with_key(number, 7) for number in range(4)])
    with StoredOutcomes() as stored:
        stored.add_run(folder)
        assert [take(stored, row, 7) for row in (2, 3, 8, 0, 9)] == [
            "answer 2",
            "answer 3",
            "answer 0",
            "answer 1",
            None,
        ]


def test_outcome_tells_the_run_and_row_that_asked(tmp_path: Path) -> None:
    """A chain of reuses leads to the first run; the row is named when it is another one."""
    passed_on = make_outcome(1, reused_from=OLD, reused_row_id=make_id("row5"))
    folder = write_run(tmp_path, OTHER, [passed_on, make_outcome(2)])
    with StoredOutcomes() as stored:
        stored.add_run(folder)
        chained, own = (stored.take(make_id(f"row{n}"), make_id(f"key{n}")) for n in (1, 2))
    assert chained is not None
    assert own is not None
    assert (chained.reused_from, chained.reused_row_id) == (OLD, make_id("row5"))
    assert (own.reused_from, own.reused_row_id) == (OTHER, None)


def test_outcome_counts_once_however_many_runs_hold_it(tmp_path: Path) -> None:
    """The run that asked, a run that reused it, and a copy of the folder under another name give one outcome."""
    asked = write_run(tmp_path, OLD, [make_outcome(1)])
    reused = write_run(tmp_path, OTHER, [make_outcome(1, reused_from=OLD)])
    copy = asked.path.with_name("a-copy")
    shutil.copytree(asked.path, copy)
    with StoredOutcomes() as stored:
        assert [stored.add_run(folder) for folder in (reused, asked, RunFolder.open(copy))] == [1, 0, 0]
        assert [take(stored, row, 1) for row in (5, 6)] == ["answer 1", None]


def test_rows_without_an_answer_are_not_stored(tmp_path: Path) -> None:
    """Errors, and requests that were only started, are nothing to take."""
    folder = write_run(tmp_path, OLD, [make_error(1)])
    with Journal(folder, durability="process") as journal:
        journal.append(make_started(2))
    with StoredOutcomes() as stored:
        assert stored.add_run(folder) == 0


def test_earlier_answer_of_a_row_stays_findable(tmp_path: Path) -> None:
    """A row that was asked twice with different requests has left two outcomes that are paid for."""
    folder = write_run(tmp_path, OLD, [with_key(1, 1), with_key(1, 2)])
    with StoredOutcomes() as stored:
        stored.add_run(folder)
        assert (take(stored, 1, 1), take(stored, 1, 2)) == ("answer 1", "answer 1")


def test_own_run_gives_a_row_its_own_answers_only(tmp_path: Path) -> None:
    """`find_own` finds what the same row answered; what the run itself took before is not handed out again."""
    old = write_run(tmp_path, OLD, [make_outcome(1), make_outcome(2)])
    own = write_run(tmp_path, OTHER, [make_outcome(1, reused_from=OLD), make_outcome(3)])
    with StoredOutcomes(own) as stored:
        stored.add_run(old)
        assert take(stored, 9, 1) is None
        assert take(stored, 9, 2) == "answer 2"
        assert stored.find_own(make_id("row3"), make_id("key3")) is not None
        assert stored.find_own(make_id("row1"), make_id("key1")) is not None
        assert stored.find_own(make_id("row9"), make_id("key3")) is None


@pytest.mark.parametrize("cut", [1, 30, 200])
def test_torn_tail_is_skipped_and_left(tmp_path: Path, cut: int) -> None:
    """What a killed run left torn is not used and not mended."""
    folder = write_run(tmp_path, OLD, [make_outcome(1), make_outcome(2)])
    segment = folder.journal_dir / "000001.jsonl"
    torn = segment.read_bytes()[:-cut]
    segment.write_bytes(torn)
    with StoredOutcomes() as stored:
        assert stored.add_run(folder) == 1
    assert segment.read_bytes() == torn


def test_damage_in_the_middle_costs_that_record_only(tmp_path: Path) -> None:
    """A flipped bit loses one outcome, which is asked again; the others are taken."""
    folder = write_run(tmp_path, OLD, [make_outcome(number) for number in range(3)])
    segment = folder.journal_dir / "000001.jsonl"
    data = bytearray(segment.read_bytes())
    data[data.index(b"answer 1")] ^= 1
    segment.write_bytes(data)
    with StoredOutcomes() as stored:
        assert stored.add_run(folder) == 2
        assert [take(stored, n, n) for n in range(3)] == ["answer 0", None, "answer 2"]


def test_record_that_changed_since_is_never_handed_out(tmp_path: Path) -> None:
    """An outcome proves itself again when it is read."""
    folder = write_run(tmp_path, OLD, [make_outcome(1)])
    segment = folder.journal_dir / "000001.jsonl"
    with StoredOutcomes() as stored:
        stored.add_run(folder)
        segment.write_bytes(segment.read_bytes().replace(b"answer 1", b"answer X"))
        with pytest.raises(JournalDamagedError, match="changed since it was read"):
            take(stored, 1, 1)


def test_journal_of_another_version_is_refused(tmp_path: Path) -> None:
    """A journal that this version cannot read is no empty one."""
    folder = write_run(tmp_path, OLD, [make_outcome(1)])
    segment = folder.journal_dir / "000001.jsonl"
    segment.write_bytes(segment.read_bytes().replace(b'{"v":1,', b'{"v":9,'))
    with StoredOutcomes() as stored, pytest.raises(SchemaMismatchError, match="version 9"):
        stored.add_run(folder)


def test_stored_outcome_takes_little_memory(tmp_path: Path) -> None:
    """At most about 100 bytes a stored outcome stay in memory."""
    n_rows = 4_000
    folder = write_run(tmp_path, OLD, (make_outcome(number) for number in range(n_rows)))
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        with StoredOutcomes() as stored:
            stored.add_run(folder)
            after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (after - before) / n_rows < 110


def test_equal_requests_are_taken_in_order_without_a_search(tmp_path: Path) -> None:
    """Thousands of rows that ask the same are handed out in the order of the journal."""
    folder = write_run(tmp_path, OLD, (with_key(number, 0) for number in range(2_000)))
    with StoredOutcomes() as stored:
        stored.add_run(folder)
        assert [take(stored, 5_000 + n, 0) for n in range(2_001)] == [*(f"answer {n}" for n in range(2_000)), None]


def test_first_keys_are_those_of_finished_outcomes(tmp_path: Path) -> None:
    """A look at the start of a journal gives the requests it has answered, as far as it is read."""
    folder = write_run(tmp_path, OLD, [make_error(0), *(make_outcome(number) for number in range(1, 50))])
    everything = read_first_keys(folder, max_bytes=10**9)
    assert everything == {make_id(f"key{number}") for number in range(1, 50)}
    assert 0 < len(read_first_keys(folder, max_bytes=10_000)) < 49


def test_record_that_evalrun_does_not_write_is_left_out(tmp_path: Path) -> None:
    """It is not handed out, the next answer to the request is, and the number left out is said."""
    folder = write_run(tmp_path, OLD, [])
    bodies: list[dict[str, Any]] = [
        {"row_id": 5},
        {"row_id": make_id("row1"), "request_key": make_id("key1"), "status": ["ok"]},
    ]
    honest = encode_record(with_key(2, 1))
    frame = parse_frame(honest)
    assert frame is not None
    odd = json.loads(frame.body) | {"row_id": make_id("row1"), "http_status": 10**9}
    forged = [encode_frame(Kind.DONE, body) for body in bodies]
    raw = b"[1,2]"
    forged.append(b'{"v":1,"t":"done","crc":"%08x","b":%b}\n' % (crc32(raw), raw))
    with (folder.journal_dir / "000001.jsonl").open("ab") as segment:
        segment.write(b"".join(forged) + encode_frame(Kind.DONE, odd) + honest)
    with StoredOutcomes() as stored:
        assert stored.add_run(folder) == 2
        assert take(stored, 1, 1) == "answer 2"
        assert take(stored, 1, 1) is None
        assert stored.list_notes() == [f"warning: 4 records of {OLD} are not as evalrun writes them and were left out"]
    assert read_first_keys(folder, max_bytes=10**6) == {make_id("key1")}
