"""A segment is read in bounded memory, whoever wrote it and whatever it is."""

import os
import socket
import tracemalloc
from pathlib import Path

import pytest

from evalrun.errors import StoreError
from evalrun.store.folder import RunFolder
from evalrun.store.journal import Journal, scan_journal
from evalrun.store.journal_format import Kind, encode_frame
from evalrun.store.journal_scan import read_first_session, scan_good_frames, scan_segment
from tests.store.fake_records import make_folder, make_outcome

GOOD = encode_frame(Kind.RUN, {"run_id": "x"})
LONG = encode_frame(Kind.RUN, {"text": "y" * 3_000_000})


def make_run(tmp_path: Path) -> tuple[RunFolder, Path]:
    """Make a run of two rows."""
    folder = make_folder(tmp_path)
    with Journal(folder, durability="process") as journal:
        journal.append_session({"run_id": folder.run_id})
        for number in range(2):
            journal.append(make_outcome(number))
    return folder, folder.journal_dir / "000001.jsonl"


@pytest.mark.parametrize("kind", ["pipe", "socket", "device", "folder"])
def test_segment_that_is_no_file_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    """A pipe is not waited for: every reader of a journal says in clear words that it holds none."""
    folder = make_folder(tmp_path)
    path = folder.journal_dir / "000001.jsonl"
    with socket.socket(socket.AF_UNIX) as server:
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "socket":
            handle = os.open(folder.journal_dir, os.O_RDONLY)  # The path of a test is longer than a socket's may be.
            server.bind(f"/proc/self/fd/{handle}/{path.name}")
            os.close(handle)
        elif kind == "device" and os.geteuid() == 0:
            try:
                os.mknod(path, 0o600 | 0o020000, os.makedev(1, 5))
            except PermissionError:
                pytest.skip("may not make a device")
        else:
            path.mkdir()
        for read in (scan_journal, read_first_session, lambda each: list(scan_good_frames(each))):
            with pytest.raises(StoreError, match="journal"):
                read(folder)


def test_sparse_tail_is_passed_over_piece_by_piece(tmp_path: Path) -> None:
    """A line of 100 MB that proves nothing costs a few megabytes, and counts as torn to the last byte."""
    folder, path = make_run(tmp_path)
    n_bytes = path.stat().st_size
    os.truncate(path, 100_000_000)
    tracemalloc.start()
    try:
        with scan_journal(folder) as index:
            assert (len(index), index.torn_bytes) == (2, 100_000_000 - n_bytes)
            assert len(list(index.scan_attempts())) == 2
        assert len(list(scan_good_frames(folder))) == 3
        assert tracemalloc.get_traced_memory()[1] < 16_000_000
    finally:
        tracemalloc.stop()


def test_long_line_is_kept_when_it_proves_itself(tmp_path: Path) -> None:
    """A record of several megabytes is read whole, also when it hangs on a bad line; a flipped bit leaves it out."""
    path = tmp_path / "000001.jsonl"
    flipped = LONG.replace(b"yyy", b"yzy", 1)
    torn = LONG[:2_500_000]
    path.write_bytes(GOOD + LONG + flipped + torn + LONG + bytes(2_000_000) + GOOD)
    lines = list(scan_segment(path))
    assert [line.frame is not None for line in lines] == [True, True, False, False, True, False, True]
    assert [line.data for line in lines if line.frame is not None] == [GOOD, LONG, LONG, GOOD]
    assert [line.n_bytes for line in lines] == [len(x) for x in (GOOD, LONG, flipped, torn, LONG)] + [
        2_000_000,
        len(GOOD),
    ]
    assert [line.offset for line in lines] == [sum(line.n_bytes for line in lines[:n]) for n in range(len(lines))]


def test_line_of_many_beginnings_is_read_in_no_time(tmp_path: Path) -> None:
    """A line that begins like a record at 20,000 places is not proven at each of them."""
    path = tmp_path / "000001.jsonl"
    path.write_bytes(GOOD[:40] * 20_000 + b"\n" + GOOD)
    assert [line.frame is not None for line in scan_segment(path)] == [False, True]
