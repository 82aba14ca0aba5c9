import errno
import itertools
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from evalrun.errors import StoreError
from evalrun.store.folder import RunFolder
from evalrun.store.journal import Journal, JournalIndex, scan_journal
from tests.store.fake_records import make_folder, make_id, make_outcome, make_started

WRITER = """
import sys
from pathlib import Path
from evalrun.store.folder import RunFolder
from evalrun.store.journal import Journal
from tests.store.fake_records import make_outcome, make_started
folder, start = RunFolder.open(Path(sys.argv[1])), int(sys.argv[2])
with Journal(folder, durability=sys.argv[3], segment_bytes=50_000) as journal:
    told = 0
    for number in range(start, start + 100_000):
        journal.append(make_started(number))
        journal.append(make_outcome(number))
        if journal.acknowledged > told:
            told = journal.acknowledged
            sys.stdout.write(f"{start + told}\\n")
            sys.stdout.flush()
"""


def _read_numbers(folder: RunFolder) -> list[int]:
    with scan_journal(folder) as index:
        found = [number for number in range(200) if index.read_outcome(make_id(f"row{number}")) is not None]
        assert len(found) <= index.n_records
    return found


@pytest.mark.parametrize("durability", ["process", "power"])
def test_journal_acknowledges_every_outcome_when_closed(tmp_path: Path, durability: str) -> None:
    """After a close all outcomes are durable and come back."""
    folder = make_folder(tmp_path)
    with Journal(folder, durability=durability) as journal:
        for number in range(10):
            journal.append(make_started(number))
            journal.append(make_outcome(number))
    assert (journal.acknowledged, journal.failure) == (10, None)
    assert _read_numbers(folder) == list(range(10))


def test_journal_in_process_mode_acknowledges_after_the_write(tmp_path: Path) -> None:
    """An outcome counts as soon as the kernel has it; a started record never counts."""
    with Journal(make_folder(tmp_path), durability="process") as journal:
        journal.append(make_started(1))
        assert journal.acknowledged == 0
        journal.append(make_outcome(1))
        assert journal.acknowledged == 1


def test_journal_in_power_mode_acknowledges_only_after_the_sync(tmp_path: Path) -> None:
    """What has not been forced to disk is not reported as kept; the group follows on its own."""
    seen: list[int] = []

    def sync(handle: int) -> None:
        seen.append(journal.acknowledged)
        os.fdatasync(handle)

    with Journal(make_folder(tmp_path), durability="power", sync=sync) as journal:
        for number in range(5):
            journal.append(make_outcome(number))
        deadline = time.monotonic() + 30
        while journal.acknowledged < 5 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert journal.acknowledged == 5
        assert seen[0] == 0


def test_journal_begins_a_new_segment_at_the_size(tmp_path: Path) -> None:
    """A full segment is followed by the next; all outcomes come back, and a later writer goes on in the last one."""
    folder = make_folder(tmp_path)
    for start in (0, 20):
        with Journal(folder, durability="power", segment_bytes=4000) as journal:
            for number in range(start, start + 20):
                journal.append(make_outcome(number))
    sizes = [path.stat().st_size for path in sorted(folder.journal_dir.iterdir())]
    assert len(sizes) > 5
    assert max(sizes) <= 4000
    assert _read_numbers(folder) == list(range(40))


def test_journal_syncs_a_full_segment_before_the_next_holds_anything(tmp_path: Path) -> None:
    """A power failure never leaves a torn segment before a good one."""
    folder = make_folder(tmp_path)
    n_segments_at_sync: list[int] = []

    def sync(_handle: int) -> None:
        n_segments_at_sync.append(len(list(folder.journal_dir.iterdir())))

    with Journal(folder, durability="power", segment_bytes=1, sync=sync) as journal:
        for number in range(4):
            journal.append(make_started(number))
    assert n_segments_at_sync == [1, 2, 3, 4]


def test_journal_ends_when_the_next_segment_cannot_be_made(tmp_path: Path) -> None:
    """A segment that cannot be opened refuses all that follows; the full one is whole."""
    folder = make_folder(tmp_path)
    with Journal(folder, durability="power", segment_bytes=1) as journal:
        journal.append(make_outcome(0))
        (folder.journal_dir / "000002.jsonl").mkdir()
        for number in (1, 2):
            with pytest.raises(StoreError, match=r"cannot open the journal .*000002\.jsonl"):
                journal.append(make_outcome(number))
    (folder.journal_dir / "000002.jsonl").rmdir()
    assert _read_numbers(folder) == [0]


def test_journal_writes_the_rest_after_a_short_write(tmp_path: Path) -> None:
    """A kernel that takes a few bytes at a time loses nothing."""
    folder = make_folder(tmp_path)
    with Journal(folder, durability="process", write=lambda handle, data: os.write(handle, data[:7])) as journal:
        for number in range(3):
            journal.append(make_outcome(number))
    assert _read_numbers(folder) == [0, 1, 2]


def _make_full_disk(room_bytes: int) -> Callable[[int, memoryview], int]:
    """Return a write that takes so many bytes and then refuses: the last write is short, as on a real disk."""
    left = room_bytes

    def write(handle: int, data: memoryview) -> int:
        nonlocal left
        if not left:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        n_written = os.write(handle, data[:left])
        left -= n_written
        return n_written

    return write


def _append_until_error(journal: Journal, words: str) -> int:
    """Append outcomes until the disk refuses; return how many it took."""
    taken: list[int] = []
    with pytest.raises(StoreError, match=f"{words}.*--resume"):
        _append_for_ever(journal, taken)
    return len(taken)


def _append_for_ever(journal: Journal, taken: list[int]) -> None:
    for number in itertools.count():
        journal.append(make_outcome(number))
        taken.append(number)


@pytest.mark.parametrize("durability", ["process", "power"])
def test_journal_on_a_full_disk_keeps_whole_records_only(tmp_path: Path, durability: str) -> None:
    """Wherever space ends, the file ends behind a whole record, holds all that was acknowledged, and takes no more."""
    for room_bytes in range(1, 6000, 397):
        folder = make_folder(tmp_path, f"run{room_bytes}")
        journal = Journal(folder, durability=durability, write=_make_full_disk(room_bytes))
        n_appended = _append_until_error(journal, "No space left")
        with pytest.raises(StoreError, match="No space left"):
            journal.append(make_outcome(99))
        journal.close()
        assert isinstance(journal.failure, StoreError)
        assert journal.acknowledged == n_appended
        with scan_journal(folder) as index:
            assert (index.torn_bytes, index.n_records) == (0, n_appended)


@pytest.mark.parametrize(
    ("n_to_come", "words"),
    [(None, r"it needs at least 4,096 bytes"), (50, r"it needs about [\d,]+ bytes for 48 outcomes still to come")],
)
def test_journal_on_a_full_disk_says_how_much_it_needs(tmp_path: Path, n_to_come: int | None, words: str) -> None:
    """The message names the journal, the bytes for what is still to come, those that are free, and what is safe."""
    folder = make_folder(tmp_path)
    write = _make_full_disk(3000)
    with Journal(folder, durability="process", n_to_come=n_to_come, write=write) as journal:
        n_appended = _append_until_error(journal, rf"000001\.jsonl: No space left on device; {words}, [\d,]+ are free")
    assert n_appended == 2
    assert "; 2 outcomes of this call are safe." in str(journal.failure)


def test_journal_goes_on_after_space_was_freed(tmp_path: Path) -> None:
    """A later call resumes behind the last whole record."""
    folder = make_folder(tmp_path)
    with Journal(folder, durability="power", write=_make_full_disk(4000)) as journal:
        n_kept = _append_until_error(journal, "No space left")
    assert len(_read_numbers(folder)) == n_kept
    scan_journal(folder, for_append=True).close()
    with Journal(folder, durability="power") as journal:
        journal.append(make_outcome(n_kept))
    assert _read_numbers(folder) == list(range(n_kept + 1))


def test_journal_meets_a_real_limit_of_the_kernel(tmp_path: Path) -> None:
    """With a file size limit, the kernel writes a part and then refuses; the part is cut off again."""
    folder = make_folder(tmp_path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    old_handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, before[1]))
        with Journal(folder, durability="process") as journal:
            n_appended = _append_until_error(journal, "File too large")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, old_handler)
    with scan_journal(folder) as index:
        assert (index.torn_bytes, index.n_records) == (0, n_appended)
    assert n_appended > 0


@pytest.mark.parametrize("is_forever", [False, True])
def test_journal_never_trusts_a_sync_after_one_failed(tmp_path: Path, is_forever: bool) -> None:
    """After a failed fdatasync nothing is acknowledged, appended or synced any more, even if the next would succeed."""
    n_calls = 0

    def sync(_handle: int) -> None:
        nonlocal n_calls
        n_calls += 1
        if is_forever or n_calls == 1:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    journal = Journal(make_folder(tmp_path), durability="power", sync=sync)
    journal.append(make_outcome(1))
    deadline = time.monotonic() + 30
    while journal.failure is None and time.monotonic() < deadline:
        time.sleep(0.01)
    with pytest.raises(StoreError, match=r"cannot force to disk .*Input/output error"):
        journal.append(make_outcome(2))
    journal.close()
    assert (n_calls, journal.acknowledged) == (1, 0)


def test_journal_close_raises_when_the_last_sync_fails(tmp_path: Path) -> None:
    """An error of the very last sync is not lost."""

    def sync(_handle: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    journal = Journal(make_folder(tmp_path), durability="power", sync=sync)
    journal.append(make_started(1))
    with pytest.raises(StoreError, match="Input/output error"):
        journal.close()


def test_journal_close_raises_what_no_append_could_tell(tmp_path: Path) -> None:
    """A sync that fails in the worker behind the last record is not lost: nobody appends after it."""

    def sync(_handle: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    journal = Journal(make_folder(tmp_path), durability="power", sync=sync)
    journal.append(make_outcome(1))
    deadline = time.monotonic() + 30
    while journal.failure is None and time.monotonic() < deadline:
        time.sleep(0.01)
    with pytest.raises(StoreError, match="Input/output error"):
        journal.close()
    assert journal.acknowledged == 0


def test_journal_keeps_the_error_of_the_block_before_its_own(tmp_path: Path) -> None:
    """An exception inside the block is the one that is seen; the disk's stays in `failure`."""

    def sync(_handle: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with pytest.raises(KeyError), Journal(make_folder(tmp_path), durability="power", sync=sync) as journal:
        raise KeyError
    assert journal.failure is not None


def test_journal_cuts_back_when_a_write_is_interrupted(tmp_path: Path) -> None:
    """An exception in the middle of a record leaves no half of it."""

    def write(handle: int, data: memoryview) -> int:
        os.write(handle, data[:9])
        raise KeyboardInterrupt

    folder = make_folder(tmp_path)
    with pytest.raises(KeyboardInterrupt), Journal(folder, durability="process", write=write) as journal:
        journal.append(make_outcome(1))
    assert (folder.journal_dir / "000001.jsonl").read_bytes() == b""


def test_journal_refuses_a_torn_tail(tmp_path: Path) -> None:
    """Nothing is ever appended to half a record."""
    folder = make_folder(tmp_path)
    with Journal(folder, durability="process") as journal:
        journal.append(make_outcome(1, error_message="x" * 200_000))
    path = folder.journal_dir / "000001.jsonl"
    whole = path.read_bytes()
    Journal(folder, durability="process").close()
    path.write_bytes(whole[:-1])
    with pytest.raises(StoreError, match="ends in the middle of a record"):
        Journal(folder, durability="process")


def test_journal_refuses_records_after_close(tmp_path: Path) -> None:
    """A closed journal says so; closing twice is harmless."""
    journal = Journal(make_folder(tmp_path), durability="power")
    journal.close()
    journal.close()
    with pytest.raises(StoreError, match="is closed"):
        journal.append(make_started(1))


def test_journal_follows_no_link(tmp_path: Path) -> None:
    """A link where the segment belongs is refused, and its target stays as it was."""
    folder = make_folder(tmp_path)
    target = tmp_path / "target"
    target.write_bytes(b"")
    (folder.journal_dir / "000001.jsonl").symlink_to(target)
    with pytest.raises(StoreError, match="cannot open the journal"):
        Journal(folder, durability="process")
    assert target.read_bytes() == b""


def test_journal_files_are_private_and_not_inherited(tmp_path: Path) -> None:
    """Segments are 0600 whatever the umask, and a child process does not get them."""
    folder = make_folder(tmp_path)
    old_mask = os.umask(0o377)
    try:
        journal = Journal(folder, durability="process")
    finally:
        os.umask(old_mask)
    try:
        assert (folder.journal_dir / "000001.jsonl").stat().st_mode & 0o777 == 0o600
        assert not os.get_inheritable(journal._handle)
    finally:
        journal.close()


def test_journal_keeps_a_given_index_current(tmp_path: Path) -> None:
    """What was just written can be read back without a scan, across segments."""
    folder = make_folder(tmp_path)
    with JournalIndex(folder.journal_dir) as index:
        with Journal(folder, durability="process", index=index, segment_bytes=3000) as journal:
            journal.append_session({"session": 1})
            for number in range(10):
                journal.append(make_outcome(number))
        assert [index.read_outcome(make_id(f"row{n}")) for n in range(10)] == [make_outcome(n) for n in range(10)]
        assert (index.sessions, index.n_records) == ([{"session": 1}], 11)


@pytest.mark.parametrize("durability", ["process", "power"])
def test_journal_loses_nothing_acknowledged_when_killed(tmp_path: Path, durability: str) -> None:
    """After each of ten kills at a random instant, every outcome that was told is in the journal."""
    folder = make_folder(tmp_path)
    rng = random.Random(f"kills {durability}")
    start = 0
    for n_kills in range(1, 11):
        command = [sys.executable, "-c", WRITER, str(folder.path), str(start), durability]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            told = writer.stdout.readline()
            time.sleep(rng.uniform(0, 0.05))
            writer.send_signal(signal.SIGKILL)
            told = (told + writer.stdout.read()).split("\n")[-2]
        with scan_journal(folder, for_append=True) as index:
            lost = [n for n in range(start, int(told)) if index.read_outcome(make_id(f"row{n}")) != make_outcome(n)]
            assert lost == []
            assert len(index.in_doubt) <= n_kills
            start = len(index)
