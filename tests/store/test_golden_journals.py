"""Journals as earlier versions wrote them: read for ever, never made anew."""

import shutil
from pathlib import Path

import pytest

from evalrun.errors import JournalDamagedError, SchemaMismatchError
from evalrun.records import Attempt, Outcome
from evalrun.store.folder import RunFolder
from evalrun.store.journal import Journal, scan_journal
from evalrun.store.journal_format import Kind, encode_record, parse_attempt, parse_body, parse_frame, parse_outcome
from tests.store.fake_records import make_folder, make_outcome

GOLDEN = Path(__file__).parent / "golden"
JOURNALS = ("journal-1-first", "journal-1")
"""As the first version with a journal wrote it (commit b2704aa), and as it was when the format was documented."""

LAST_ROW = {
    "journal-1-first": ("pending", "lane_stopped", 0, None, None, False),
    "journal-1": ("ok", None, 0, "Cairo", "20261121-120000-000009", False),
}
"""What became of the row that the two differ in: the first version knew no reuse."""


def make_run(tmp_path: Path, name: str) -> RunFolder:
    """Make a run folder that holds a golden journal."""
    folder = make_folder(tmp_path)
    shutil.copytree(GOLDEN / name, folder.journal_dir, dirs_exist_ok=True)
    return folder


@pytest.mark.parametrize("name", JOURNALS)
def test_golden_journal_is_read_in_full(tmp_path: Path, name: str) -> None:
    """Rows, calls, doubts and attempts of an older journal are what they were when it was written."""
    folder = make_run(tmp_path, name)
    with scan_journal(folder) as index:
        ids = [facts.row_id for facts in index.in_doubt]
        outcomes = [_describe(index.read_numbered(number)) for number in range(len(index))]
        attempts = [(attempt.attempt, attempt.error_code) for attempt in index.scan_attempts()]
        facts = (index.n_records, index.torn_bytes, index.n_asked_again, len(index.sessions), len(ids))
    assert facts == (21, 0, 1, 2, 1)
    assert outcomes == [
        ("ok", None, 2, "Paris", None, False),
        ("ok", None, 1, "Roma", None, False),
        ("ok", None, 1, "Krak\ud800w", None, False),
        ("error", "bad_request", 1, None, None, False),
        ("empty", None, 1, "", None, False),
        ("truncated", None, 2, "Os", None, False),
        ("error", "error_in_200", 1, None, None, name == "journal-1"),
        LAST_ROW[name],
    ]
    passed = (1, None)
    failures = [(1, "bad_request"), passed, (2, None), (1, "error_in_200")]
    assert attempts == [(1, "overloaded"), passed, (2, None), passed, *failures]


def _describe(outcome: Outcome | None) -> tuple[str, str | None, int, str | None, str | None, bool]:
    assert outcome is not None
    output = outcome.completion.output if outcome.completion is not None else None
    return (
        outcome.status.value,
        outcome.error_code,
        outcome.attempts,
        output,
        outcome.reused_from,
        outcome.is_permanent,
    )


@pytest.mark.parametrize("name", JOURNALS)
def test_golden_record_loses_no_key(name: str) -> None:
    """Each key of an older record is understood: written again, the record is the same."""
    for path in sorted((GOLDEN / name).iterdir()):
        for line in path.read_bytes().splitlines(keepends=True):
            frame = parse_frame(line)
            assert frame is not None
            if frame.kind in {Kind.ATTEMPT, Kind.DONE}:
                parse = parse_attempt if frame.kind is Kind.ATTEMPT else parse_outcome
                record: Attempt | Outcome = parse(frame.body)
                again = parse_frame(encode_record(record))
                assert again is not None
                assert parse_body(again.body) == parse_body(frame.body)


@pytest.mark.parametrize("name", JOURNALS)
def test_golden_journal_is_gone_on_with(tmp_path: Path, name: str) -> None:
    """New records follow older ones, and no byte of those changes."""
    folder = make_run(tmp_path, name)
    last = max(folder.journal_dir.iterdir())
    before = last.read_bytes()
    with scan_journal(folder, for_append=True) as index, Journal(folder, durability="process", index=index) as journal:
        journal.append(make_outcome(99))
        assert len(index) == 9
    assert last.read_bytes()[: len(before)] == before


def _replace_version(path: Path, *, n_lines: int | None = None) -> bytes:
    """Let the first lines of a segment, or all of them, name version 2; return the bytes written."""
    lines = path.read_bytes().splitlines(keepends=True)
    n_newer = len(lines) if n_lines is None else n_lines
    newer = [line.replace(b'{"v":1,', b'{"v":2,', 1) for line in lines[:n_newer]]
    written = b"".join([*newer, *lines[n_newer:]])
    path.write_bytes(written)
    return written


@pytest.mark.parametrize("segment", ["000001.jsonl", "000002.jsonl"])
def test_segment_of_a_newer_version_is_refused_and_left_alone(tmp_path: Path, segment: str) -> None:
    """A newer version is named with what to do, wherever it began; nothing is cut, also not by a repair."""
    folder = make_run(tmp_path, "journal-1")
    written = _replace_version(folder.journal_dir / segment)
    for options in ({}, {"for_append": True}, {"for_append": True, "repair": True}):
        with pytest.raises(SchemaMismatchError, match=rf"{segment} is a journal of version 2.*update evalrun"):
            scan_journal(folder, **options)
    assert (folder.journal_dir / segment).read_bytes() == written


def test_first_line_whose_version_alone_differs_is_damage(tmp_path: Path) -> None:
    """A flipped bit in a version is not a version: the good records behind it are kept by a repair."""
    folder = make_run(tmp_path, "journal-1")
    _replace_version(folder.journal_dir / "000001.jsonl", n_lines=1)
    with pytest.raises(JournalDamagedError, match=r"000001\.jsonl:1: "):
        scan_journal(folder)
    with scan_journal(folder, for_append=True, repair=True) as index:
        assert (index.n_records, len(index)) == (20, 8)
