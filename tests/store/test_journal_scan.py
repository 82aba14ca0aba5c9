from collections.abc import Iterator
from pathlib import Path
from zlib import crc32

import pytest

from evalrun.errors import JournalDamagedError, SchemaMismatchError, StoreError
from evalrun.records import Outcome
from evalrun.store.folder import RunFolder
from evalrun.store.journal import Journal, scan_journal
from evalrun.store.journal_format import encode_record
from evalrun.store.journal_index import JournalIndex
from tests.ram_disk import make_ram_folder
from tests.store.fake_records import make_folder, make_id, make_outcome, make_started


@pytest.fixture
def folder() -> Iterator[RunFolder]:
    """A run with three finished rows, each with its started record."""
    with make_ram_folder() as ram:
        folder = make_folder(ram)
        with Journal(folder, durability="process") as journal:
            journal.append_session({"session": 1})
            for number in range(3):
                journal.append(make_started(number))
                journal.append(make_outcome(number, last_attempt=None))
        yield folder


def _segment(folder: RunFolder, number: int = 1) -> Path:
    return folder.journal_dir / f"{number:06d}.jsonl"


def _expect(row: int, *, n_records: int) -> Outcome | None:
    """Return what is known of a row when so many records are left: one of the call, then two of each row."""
    return make_outcome(row, last_attempt=None) if n_records > 2 * (row + 1) else None


def _read(index: JournalIndex, row: int) -> Outcome | None:
    return index.read_outcome(make_id(f"row{row}"))


def test_scan_cuts_a_tail_torn_at_every_byte_of_the_last_three_records(folder: RunFolder) -> None:
    """Wherever the file ends, every whole record before is kept, the rest is counted, and writing goes on."""
    whole = _segment(folder).read_bytes()
    ends = [position + 1 for position, byte in enumerate(whole) if byte == 10]
    for length in range(ends[-4], len(whole)):
        _segment(folder).write_bytes(whole[:length])
        kept = [end for end in ends if end <= length]
        with scan_journal(folder) as index:
            assert (index.n_records, index.torn_bytes) == (len(kept), length - kept[-1])
            assert [_read(index, row) for row in range(3)] == [_expect(row, n_records=len(kept)) for row in range(3)]
        assert _segment(folder).read_bytes() == whole[:length]
        if length % 7 == 0:  # Reading is checked at every byte, cutting at some.
            scan_journal(folder, for_append=True).close()
            assert _segment(folder).read_bytes() == whole[: kept[-1]]
    scan_journal(folder, for_append=True).close()
    with Journal(folder, durability="process") as journal:
        journal.append(make_outcome(9))
    with scan_journal(folder) as index:
        assert index.read_outcome(make_id("row9")) == make_outcome(9)


def test_scan_reports_a_bit_flipped_at_every_byte_of_a_record(folder: RunFolder) -> None:
    """Damage before good records stops the reader with file and place; a repair keeps all the others."""
    whole = _segment(folder).read_bytes()
    lines = whole.splitlines(keepends=True)
    start = len(b"".join(lines[:3]))
    for position in range(start, start + len(lines[3])):
        damaged = bytearray(whole)
        damaged[position] ^= 1
        _segment(folder).write_bytes(damaged)
        with pytest.raises(JournalDamagedError, match=r"000001\.jsonl:4: .*byte \d+ is damaged"):
            scan_journal(folder)
        assert _segment(folder).read_bytes() == damaged


def test_scan_repairs_a_bit_flipped_at_every_byte_of_a_record(folder: RunFolder) -> None:
    """Whichever byte it is, the repair keeps every other record as it was, and counts what it left out."""
    whole = _segment(folder).read_bytes()
    lines = whole.splitlines(keepends=True)
    start = len(b"".join(lines[:4]))
    with make_ram_folder() as ram:
        for position in range(start, start + len(lines[4])):
            damaged = bytearray(whole)
            damaged[position] ^= 1 << position % 8
            other = make_folder(ram, f"run{position}")
            _segment(other).write_bytes(damaged)
            with scan_journal(other, repair=True) as index:
                assert (index.n_records, index.dropped_bytes) == (6, len(lines[4]))
                assert [_read(index, row) for row in range(3)] == [
                    make_outcome(0, last_attempt=None),
                    None,
                    make_outcome(2, last_attempt=None),
                ]


def test_scan_takes_a_bit_flipped_at_every_byte_of_the_last_record_for_torn(folder: RunFolder) -> None:
    """No good record follows it: it is counted, cut off, and asked again."""
    whole = _segment(folder).read_bytes()
    lines = whole.splitlines(keepends=True)
    start = len(whole) - len(lines[-1])
    for position in range(start, len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << position % 8
        _segment(folder).write_bytes(damaged)
        with scan_journal(folder) as index:
            assert (index.n_records, index.torn_bytes) == (6, len(lines[-1]))
            assert _read(index, 2) is None


@pytest.mark.parametrize("position", [10, 150, -1])
def test_scan_repairs_damage_and_keeps_the_damaged_file(folder: RunFolder, position: int) -> None:
    """After a repair all good records are there, also the one glued to a lost newline, and nothing was thrown away."""
    whole = _segment(folder).read_bytes()
    lines = whole.splitlines(keepends=True)
    bad = bytearray(lines[3])
    bad[position] ^= 1
    damaged = b"".join([*lines[:3], bytes(bad), *lines[4:]])
    _segment(folder).write_bytes(damaged)
    with scan_journal(folder, repair=True) as index:
        assert (index.n_records, index.dropped_bytes) == (6, len(bad))
        assert index.read_outcome(make_id("row2")) == make_outcome(2, last_attempt=None)
        assert index.read_outcome(make_id("row1")) == make_outcome(1, last_attempt=None)
    assert (folder.journal_dir / "000001.jsonl.damaged").read_bytes() == damaged
    with scan_journal(folder) as index:
        assert (index.n_records, index.torn_bytes) == (6, 0)


def test_scan_repairs_a_second_time(folder: RunFolder) -> None:
    """Every repair keeps its own damaged file."""
    for _ in range(2):
        whole = bytearray(_segment(folder).read_bytes())
        whole[30] ^= 1
        _segment(folder).write_bytes(whole)
        scan_journal(folder, repair=True).close()
    names = sorted(path.name for path in folder.journal_dir.iterdir())
    assert names == ["000001.jsonl", "000001.jsonl.damaged", "000001.jsonl.damaged-2"]


def test_scan_takes_a_tail_of_nuls_for_torn(folder: RunFolder) -> None:
    """Zeros at the end, as file systems leave them after a power failure, are a torn tail."""
    whole = _segment(folder).read_bytes()
    _segment(folder).write_bytes(whole + bytes(5000))
    with scan_journal(folder, for_append=True) as index:
        assert (index.n_records, index.torn_bytes) == (7, 5000)
    assert _segment(folder).read_bytes() == whole


def test_scan_takes_a_tail_filled_with_nuls_from_any_byte_for_torn(folder: RunFolder) -> None:
    """A record whose end reads as NUL, as after a lost write, is torn: everything before it is kept."""
    whole = _segment(folder).read_bytes()
    last = whole.rindex(b"\n", 0, -1) + 1
    for start in range(last, len(whole)):
        _segment(folder).write_bytes(whole[:start] + bytes(len(whole) - start))
        with scan_journal(folder) as index:
            assert (index.n_records, index.torn_bytes) == (6, len(whole) - last)


def test_scan_for_reading_changes_nothing(folder: RunFolder) -> None:
    """A reader ignores a torn tail and leaves it to the one who holds the lock."""
    torn = _segment(folder).read_bytes()[:-5]
    _segment(folder).write_bytes(torn)
    with scan_journal(folder) as index:
        assert index.torn_bytes > 0
    assert _segment(folder).read_bytes() == torn


def test_scan_refuses_a_journal_of_another_version(folder: RunFolder) -> None:
    """A newer journal is named as such, never cut or rewritten."""
    newer = _segment(folder).read_bytes().replace(b'{"v":1,', b'{"v":2,')
    _segment(folder).write_bytes(newer)
    with pytest.raises(SchemaMismatchError, match="journal of version 2"):
        scan_journal(folder, for_append=True)
    assert _segment(folder).read_bytes() == newer


def test_scan_refuses_a_whole_record_that_it_does_not_understand(folder: RunFolder) -> None:
    """A good checksum over unknown words is another version's record, not damage."""
    line = encode_record(make_outcome(7))
    from_later = make_folder(folder.path.parent.parent.parent, "20261122-130000-abcdef")
    _segment(from_later).write_bytes(_with_checksum(line, b'"status":"ok"', b'"status":"postponed"'))
    with pytest.raises(SchemaMismatchError, match="does not understand"):
        scan_journal(from_later)


def test_scan_refuses_a_journal_with_a_missing_segment(folder: RunFolder) -> None:
    """A lost file in the middle is damage."""
    _segment(folder).rename(_segment(folder, 2))
    with pytest.raises(JournalDamagedError, match=r"000001\.jsonl is gone"):
        scan_journal(folder)


def test_scan_follows_no_link(folder: RunFolder) -> None:
    """A segment that is a symbolic link is not read."""
    target = folder.path / "elsewhere"
    _segment(folder).rename(target)
    _segment(folder).symlink_to(target)
    with pytest.raises(StoreError, match="cannot read the journal"):
        scan_journal(folder)


def test_scan_of_an_empty_journal_knows_no_row(tmp_path: Path) -> None:
    """A run that died before its first record is an empty index."""
    with scan_journal(make_folder(tmp_path), for_append=True) as index:
        assert (len(index), index.n_records, index.get(make_id("row1"))) == (0, 0, None)


def _with_checksum(line: bytes, old: bytes, new: bytes) -> bytes:
    body = line[line.index(b'"b":') + 4 : -2].replace(old, new)
    return b'{"v":1,"t":"done","crc":"%08x","b":%b}\n' % (crc32(body), body)
