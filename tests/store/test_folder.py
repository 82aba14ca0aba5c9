import errno
import os
import random
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalrun.errors import FolderBusyError, StoreError
from evalrun.store.folder import RunFolder, make_folder_name, make_run_id, write_atomically
from tests.store.fake_records import make_folder

HOLDER = """
import sys
from pathlib import Path
from evalrun.store.folder import RunFolder
with RunFolder.open(Path(sys.argv[1])).lock():
    print("held", flush=True)
    sys.stdin.read()
"""


def _make_writer(text: str) -> Callable[[Path], None]:
    """Return a function that fills a file with a text."""

    def write(path: Path) -> None:
        path.write_text(text)

    return write


def test_folder_is_private_whatever_the_umask(tmp_path: Path) -> None:
    """Folders are 0700 and files 0600, with an open and with a closed umask."""
    for mask in (0o000, 0o377):
        old_mask = os.umask(mask)
        try:
            folder = make_folder(tmp_path, f"run{mask}")
            write_atomically(folder.summary_path, _make_writer("{}"))
            with folder.lock():
                pass
        finally:
            os.umask(old_mask)
        places = [folder.path, folder.path.parent, folder.journal_dir]
        assert [path.stat().st_mode & 0o777 for path in places] == [0o700] * 3
        assert folder.summary_path.stat().st_mode & 0o777 == 0o600
        assert (folder.path / ".lock").stat().st_mode & 0o777 == 0o600


def test_folder_has_the_names_of_the_contract(tmp_path: Path) -> None:
    """Files carry the names that programs hold on to."""
    folder = make_folder(tmp_path)
    paths = [
        folder.manifest_path,
        folder.results_path,
        folder.attempts_path,
        folder.grades_path,
        folder.html_path,
        folder.markdown_path,
        folder.junit_path,
        folder.summary_path,
    ]
    assert [path.name for path in paths] == [
        "run.json",
        "results.parquet",
        "attempts.parquet",
        "grades.parquet",
        "report.html",
        "report.md",
        "junit.xml",
        "summary.json",
    ]
    assert (folder.job_name, folder.run_id) == ("job", "20261122-120000-abcdef")


def test_folder_create_refuses_a_run_that_is_there(tmp_path: Path) -> None:
    """Two runs never share a folder."""
    make_folder(tmp_path)
    with pytest.raises(StoreError, match="is there already"):
        make_folder(tmp_path)


def test_folder_create_refuses_a_file_in_the_way(tmp_path: Path) -> None:
    """A file where a folder belongs is named, with what to do."""
    (tmp_path / "reports").write_text("")
    with pytest.raises(StoreError, match=r"reports is a file where a folder is needed; .*-o"):
        make_folder(tmp_path)


def test_folder_create_refuses_a_path_below_a_file(tmp_path: Path) -> None:
    """A file as a part of the path is named, with what to do."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="a part of that path is a file; choose another folder with -o"):
        RunFolder.create(tmp_path / "file" / "reports", "job", "run")


def test_folder_create_refuses_a_link_as_job_folder(tmp_path: Path) -> None:
    """A job folder that points elsewhere is not followed."""
    (tmp_path / "reports").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "reports" / "job").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match="is a symbolic link"):
        make_folder(tmp_path)
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_folder_create_refuses_an_unwritable_place() -> None:
    """A place that takes no files is found before anything is sent, also by root."""
    with pytest.raises(StoreError, match=r"cannot make the folder /proc/evalrun"):
        RunFolder.create(Path("/proc/evalrun"), "job", "run")


def test_folder_create_works_behind_a_link_of_the_user(tmp_path: Path) -> None:
    """`reports` itself may be a link that the user made."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "reports").symlink_to(tmp_path / "disk")
    make_folder(tmp_path)
    assert (tmp_path / "disk" / "job").is_dir()


def test_folder_open_refuses_what_is_no_run(tmp_path: Path) -> None:
    """Neither an empty folder nor a missing one is taken for a run."""
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(StoreError, match="is not a run folder"):
            RunFolder.open(path)


def test_folder_open_refuses_a_linked_journal(tmp_path: Path) -> None:
    """A journal that lies elsewhere is not followed."""
    folder = make_folder(tmp_path)
    folder.journal_dir.rename(tmp_path / "elsewhere")
    folder.journal_dir.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match="is a symbolic link"):
        RunFolder.open(folder.path)


def test_folder_works_after_it_was_moved(tmp_path: Path) -> None:
    """A copied or moved run opens and locks: nothing in it names its old place."""
    moved = make_folder(tmp_path).path.rename(tmp_path / "moved")
    with RunFolder.open(moved).lock():
        assert (moved / ".lock").is_file()


def test_lock_is_refused_while_another_process_holds_it(tmp_path: Path) -> None:
    """A second process gets an error that names the holder, and the lock once the holder died."""
    folder = make_folder(tmp_path)
    command = [sys.executable, "-c", HOLDER, str(folder.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(FolderBusyError, match=rf"in use by another evalrun \(process {holder.pid}\)"),
            folder.lock(),
        ):
            pytest.fail("the lock was given twice")
        holder.kill()
    with folder.lock():
        pass


def test_lock_sweeps_what_a_killed_process_left(tmp_path: Path) -> None:
    """Hidden temporary files and folders of an earlier call go; everything else stays."""
    folder = make_folder(tmp_path)
    (folder.path / ".tmp-old").write_text("half a file")
    (folder.path / ".tmp-parts").mkdir()
    (folder.path / ".tmp-parts" / "0.arrow").write_text("part")
    (folder.journal_dir / ".tmp-repair").write_text("half a segment")
    folder.summary_path.write_text("{}")
    with folder.lock():
        assert sorted(path.name for path in folder.path.iterdir()) == [".lock", "journal", "summary.json"]
        assert list(folder.journal_dir.iterdir()) == []


def test_lock_follows_no_link(tmp_path: Path) -> None:
    """A lock file that points elsewhere is refused, and its target left alone."""
    folder = make_folder(tmp_path)
    target = tmp_path / "target"
    target.write_text("keep")
    (folder.path / ".lock").symlink_to(target)
    with pytest.raises(StoreError, match="symbolic link"), folder.lock():
        pytest.fail("a link was locked")
    assert target.read_text() == "keep"


def test_write_atomically_replaces_the_whole_file(tmp_path: Path) -> None:
    """The new content stands under the name, and nothing else is left."""
    path = tmp_path / "file"
    path.write_text("old")
    write_atomically(path, _make_writer("new"))
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), ValueError("a bug")])
def test_write_atomically_keeps_the_old_file_when_writing_fails(tmp_path: Path, error: Exception) -> None:
    """Whatever stops the writer, the older file is as it was, and no temporary file stays."""
    path = tmp_path / "file"
    path.write_text("old")

    def write(temp: Path) -> None:
        temp.write_text("half")
        raise error

    expected = StoreError if isinstance(error, OSError) else ValueError
    with pytest.raises(expected):
        write_atomically(path, write)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_write_atomically_says_how_many_bytes_a_full_disk_lacks(tmp_path: Path) -> None:
    """At least what was written until then, and at least as much as the older file took."""
    path = tmp_path / "file"

    def write(temp: Path) -> None:
        temp.write_bytes(bytes(10_000))
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(
        StoreError, match=r"file: No space left on device; it needs at least 10,001 bytes, [\d,]+ are f"
    ):
        write_atomically(path, write)
    path.write_bytes(bytes(30_000))
    with pytest.raises(StoreError, match=r"it needs at least 30,000 bytes, .*free space on that disk"):
        write_atomically(path, write)


def test_write_atomically_never_writes_through_a_link(tmp_path: Path) -> None:
    """A link under the final name is replaced, not followed."""
    target, path = tmp_path / "target", tmp_path / "file"
    target.write_text("keep")
    path.symlink_to(target)
    write_atomically(path, _make_writer("new"))
    assert (target.read_text(), path.read_text(), path.is_symlink()) == ("keep", "new", False)


def test_make_run_id_sorts_by_time_and_carries_entropy() -> None:
    """Later runs sort later, whatever their time zone; two of one second differ."""
    rng = random.Random(1)
    now = datetime(2026, 11, 22, 15, 30, 45, tzinfo=UTC)
    first = make_run_id(now, rng)
    assert first.startswith("20261122-153045000-")
    assert make_run_id(now, rng) != first
    assert make_run_id((now + timedelta(seconds=1)).astimezone(timezone(timedelta(hours=-9))), rng) > first


@pytest.mark.parametrize(
    ("job_name", "expected"),
    [
        ("gsm8k-mini", "gsm8k-mini"),
        ("../../etc/passwd", "etc-passwd"),
        ("/abs", "abs"),
        ("..", "job"),
        ("", "job"),
        ("数学 テスト", "数学-テスト"),
        ("हिन्दी", "हिन्दी"),
        ("a\x00b\nc\x1b[31m", "a-b-c--31m"),
        (".hidden", "hidden"),
        ("v1.2_x", "v1.2_x"),
    ],
)
def test_make_folder_name_keeps_letters_and_nothing_dangerous(job_name: str, expected: str) -> None:
    """Letters of any script stay; separators, controls and leading dots go."""
    assert make_folder_name(job_name) == expected


@given(st.text(st.characters(codec=None), max_size=300))
def test_make_folder_name_is_always_one_safe_part_of_a_path(job_name: str) -> None:
    """No job name, however odd, leaves its folder or overflows a file name."""
    name = make_folder_name(job_name)
    assert Path(name).name == name
    assert not name.startswith(".")
    assert len(name.encode()) <= 120
    assert make_folder_name(name) == name
