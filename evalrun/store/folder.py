"""The run folder: names, permissions, the lock, and files that appear whole or not at all.

A reports folder, a job name and a run_id enter; paths inside one run folder leave. Folders are 0700 and files 0600
whatever the umask; nothing inside is reached through a symbolic link; no name comes from data unsanitised.
"""

import errno
import fcntl
import os
import secrets
import shutil
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from random import Random

from evalrun.errors import FolderBusyError, StoreError
from evalrun.store.disk_room import BLOCK_BYTES, describe_error, describe_room, find_errno

FOLDER_MODE = 0o700
FILE_MODE = 0o600

MANIFEST_NAME = "run.json"
JOURNAL_NAME = "journal"
EVENTS_NAME = "events.jsonl"

_LOCK_NAME = ".lock"
_TEMP_PREFIX = ".tmp-"
_MAX_NAME_BYTES = 120
_PROBE_BYTES = 64 * 1024
_KEPT_CATEGORIES = ("L", "M", "N")
_LONGEST_NAME_BYTES = 64
"""Room for what a run folder holds, below itself: parts of tables are the longest."""


@dataclass(frozen=True, slots=True)
class RunFolder:
    """One run's folder, `reports/<job>/<run_id>/`."""

    path: Path
    """The folder itself, absolute."""

    @classmethod
    def create(cls, reports_dir: Path, job_name: str, run_id: str) -> "RunFolder":
        """Make the folder of a new run, and prove that it can be written.

        Raises:
            StoreError: A part of the path is a file or a link, cannot be written, or the run is there already.
        """
        reports = Path(os.path.abspath(reports_dir))  # noqa: PTH100 - resolve() would follow the user's own links
        job_folder = reports / make_folder_name(job_name)
        path = job_folder / run_id
        _check_length(path)
        missing = [place for place in (reports, *reports.parents) if not _is_there(place)]
        _make_folder(reports, may_be_link=True)
        for place in missing:
            _force_name(place)
        _make_folder(job_folder)
        _make_folder(path, must_be_new=True)
        _make_folder(path / JOURNAL_NAME)
        folder = cls(path)
        folder.check_writable()
        return folder

    @classmethod
    def open(cls, path: Path) -> "RunFolder":
        """Open a run's folder for reading or for a resume.

        Raises:
            StoreError: There is no such folder, it holds no run, or its journal is a link.
        """
        resolved = path.resolve()
        if not is_run_folder(resolved):
            msg = f"{path} is not a run folder: it holds neither {MANIFEST_NAME} nor {JOURNAL_NAME}/"
            raise StoreError(msg)
        if (resolved / JOURNAL_NAME).is_symlink():
            msg = f"{resolved / JOURNAL_NAME} is a symbolic link, which a run folder never holds; put the folder back"
            raise StoreError(msg)
        return cls(resolved)

    @property
    def run_id(self) -> str:
        """The run's id: the folder's name."""
        return self.path.name

    @property
    def job_name(self) -> str:
        """The job's name as a folder name: that of the folder above."""
        return self.path.parent.name

    @property
    def journal_dir(self) -> Path:
        """Folder of the journal's segments."""
        return self.path / JOURNAL_NAME

    @property
    def manifest_path(self) -> Path:
        """`run.json`, written last."""
        return self.path / MANIFEST_NAME

    @property
    def events_path(self) -> Path:
        """What the run and its lanes decided, and when: one JSON object per line."""
        return self.path / EVENTS_NAME

    @property
    def results_path(self) -> Path:
        """One row per planned row."""
        return self.path / "results.parquet"

    @property
    def attempts_path(self) -> Path:
        """One row per HTTP attempt."""
        return self.path / "attempts.parquet"

    @property
    def grades_path(self) -> Path:
        """One row per row and grader."""
        return self.path / "grades.parquet"

    @property
    def judge_path(self) -> Path:
        """One row per request to a judge; there only when a judge was asked."""
        return self.path / "judge.parquet"

    @property
    def html_path(self) -> Path:
        """The report as one page."""
        return self.path / "report.html"

    @property
    def markdown_path(self) -> Path:
        """The report as Markdown."""
        return self.path / "report.md"

    @property
    def junit_path(self) -> Path:
        """The report as JUnit XML."""
        return self.path / "junit.xml"

    @property
    def summary_path(self) -> Path:
        """The report's figures as JSON."""
        return self.path / "summary.json"

    def check_writable(self) -> None:
        """Prove that a file can be made in the folder and in its journal, before anything is sent.

        Raises:
            StoreError: A file cannot be made; the message says where and why.
        """
        for place in (self.path, self.journal_dir):
            try:
                _make_temp(place).unlink()
            except OSError as error:
                raise _explain(error, place, "write into") from error

    def make_journal_dir(self) -> None:
        """Make the journal's folder where there is none: a run that was imported has asked nothing so far.

        Raises:
            StoreError: It cannot be made, or is a link.
        """
        _make_folder(self.journal_dir)

    def force_names(self) -> None:
        """Force the names on the way to the journal to disk: without them a power failure loses it with all it holds.

        Raises:
            StoreError: The disk refused.
        """
        for place in (self.journal_dir, self.path, self.path.parent):
            _force_name(place)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder against other processes; leftovers of a killed one are swept.

        Raises:
            FolderBusyError: Another process holds it.
            StoreError: The lock file cannot be made, or the file system has no locks.
        """
        handle = self._take_lock()
        try:
            for place in (self.path, self.journal_dir):
                _sweep_temps(place)
            yield
        finally:
            # Closing releases the lock; the file stays, since removing it would race with the next holder.
            os.close(handle)

    def find_holder(self) -> str | None:
        """Return the number of the process that holds the folder, `unknown` where it left none; None when nobody does.

        To ask, the lock is shared for a moment: whoever wants it whole in just that moment is refused.
        """
        try:
            handle = os.open(self.path / _LOCK_NAME, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:  # Never locked, or not ours to read.
            return None
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _read_holder(handle)
        except OSError:  # A file system without locks: nobody holds one.
            return None
        else:
            return None
        finally:
            os.close(handle)

    def _take_lock(self) -> int:
        path = self.path / _LOCK_NAME
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, FILE_MODE)
        except OSError as error:
            raise _explain(error, path, "write") from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.fchmod(handle, FILE_MODE)  # The umask may have taken bits away.
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        except BlockingIOError as error:
            holder = _read_holder(handle)
            os.close(handle)
            msg = f"{self.path} is in use by another evalrun (process {holder}); wait for it, or stop it"
            raise FolderBusyError(msg) from error
        except OSError as error:
            os.close(handle)
            raise _explain(error, path, "lock") from error
        return handle


def _read_holder(handle: int) -> str:
    return os.pread(handle, 32, 0).decode("ascii", "replace").strip() or "unknown"


def make_run_id(now: datetime, rng: Random) -> str:
    """Return an id that sorts by time, to the millisecond, and carries entropy: `20261122-153045123-a1b2c3`.

    Args:
        now: Time of the run's start, with its time zone.
        rng: Source of the last six digits; a `SystemRandom` outside of tests.
    """
    return f"{now.astimezone(UTC):%Y%m%d-%H%M%S}{now.microsecond // 1000:03d}-{rng.getrandbits(24):06x}"


def make_folder_name(job_name: str) -> str:
    """Return a job's name as a folder name: letters, marks and digits of any script, `_`, `-` and `.` stay.

    Everything else becomes `-`; a name never begins with a dot, is never empty (`job`), and never longer than 120
    bytes in UTF-8.
    """
    text = unicodedata.normalize("NFC", job_name)
    kept = "".join(c if c in "_-." or unicodedata.category(c)[0] in _KEPT_CATEGORIES else "-" for c in text)
    short = kept.encode()[:_MAX_NAME_BYTES].decode(errors="ignore")
    return short.strip("-.") or "job"


def is_run_folder(path: Path) -> bool:
    """Tell whether a folder holds a run: a manifest, or a journal at least. One that may not be read holds none."""
    try:
        return (path / MANIFEST_NAME).is_file() or (path / JOURNAL_NAME).is_dir()
    except OSError:  # Another user's, or a name that is too long for the disk.
        return False


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Write a file so that its name holds the old content or the whole new one, also after a power failure.

    Args:
        path: The final name; an older file there is replaced at the end only.
        write: Fills the file at the path it is given: hidden, empty, in the same folder.

    Raises:
        StoreError: The disk refused; the older file is as it was.
    """
    with stage_file(path) as staged:
        write(staged.temp_path)
        staged.commit()


class StagedFile:
    """A file on its way: filled under a hidden name, then moved to its own.

    Args:
        path: The final name.
        temp_path: The hidden name, in the same folder.
    """

    def __init__(self, path: Path, temp_path: Path) -> None:
        self.path = path
        self.temp_path = temp_path

    def flush(self) -> None:
        """Force the content to disk, so that the commit itself is short."""
        with self.temp_path.open("rb") as handle:
            os.fsync(handle.fileno())

    def explain(self, error: Exception) -> StoreError:
        """Return what a library's error means for the file that it was filling.

        Polars keeps the system's error of a write of the footer to itself ("transport error"): then the disk is asked.
        """
        cause = error if find_errno(error) is not None else self._probe() or error
        return _explain(cause, self.path, "write", temp_path=self.temp_path)

    def _probe(self) -> OSError | None:
        """Return what the disk says to more bytes in the hidden file; None when it takes them."""
        try:
            with self.temp_path.open("ab") as handle:
                handle.write(bytes(_PROBE_BYTES))
        except OSError as error:
            return error
        return None

    def commit(self) -> None:
        """Force the content to disk, move it to the final name, force the folder to disk."""
        self.flush()
        self.temp_path.replace(self.path)
        sync_folder(self.path.parent)


@contextmanager
def stage_file(path: Path) -> Iterator[StagedFile]:
    """Make the hidden file that `StagedFile.commit` moves to `path`; removed when left without a commit.

    Raises:
        StoreError: The disk refused.
    """
    temp_path: Path | None = None
    try:
        temp_path = _make_temp(path.parent)
        yield StagedFile(path, temp_path)
    except OSError as error:
        raise _explain(error, path, "write", temp_path=temp_path) from error
    finally:
        if temp_path is not None:
            with suppress(OSError):  # It has moved; or the disk refuses, and the next holder of the lock sweeps it.
                temp_path.unlink()


@contextmanager
def make_temp_folder(parent: Path) -> Iterator[Path]:
    """Make a hidden folder for parts, removed with all it holds at the end.

    Raises:
        StoreError: The disk refused.
    """
    path = parent / f"{_TEMP_PREFIX}{secrets.token_hex(8)}"
    _make_folder(path, must_be_new=True)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def sync_folder(path: Path) -> None:
    """Force a folder's entries (new, renamed and removed names) to disk."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _force_name(path: Path) -> None:
    """Force a file's or folder's name in the folder above to disk, where that one may be read."""
    try:
        with suppress(PermissionError):
            sync_folder(path.parent)
    except OSError as error:
        raise _explain(error, path.parent, "force to disk") from error


def _make_temp(folder: Path) -> Path:
    path = folder / f"{_TEMP_PREFIX}{secrets.token_hex(8)}"
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, FILE_MODE)
    try:
        os.fchmod(handle, FILE_MODE)  # The umask may have taken bits away.
    finally:
        os.close(handle)
    return path


def _sweep_temps(folder: Path) -> None:
    """Remove what a killed process left; only the holder of the lock may."""
    for leftover in folder.glob(f"{_TEMP_PREFIX}*"):
        with suppress(OSError):
            if leftover.is_dir() and not leftover.is_symlink():
                shutil.rmtree(leftover)
            else:
                leftover.unlink()


def _make_folder(path: Path, *, must_be_new: bool = False, may_be_link: bool = False) -> None:
    try:
        path.mkdir(mode=FOLDER_MODE, parents=may_be_link)
        path.chmod(FOLDER_MODE)  # The umask may have taken bits away.
    except FileExistsError as error:
        if must_be_new:
            msg = f"{path} is there already; start again, which draws another run_id"
            raise StoreError(msg) from error
        _check_folder(path, may_be_link=may_be_link)
    except OSError as error:
        raise _explain(error, path, "make the folder") from error


def _check_length(path: Path) -> None:
    """Refuse a run folder in which the longest name would not fit, before anything is sent."""
    n_bytes = len(os.fsencode(path)) + _LONGEST_NAME_BYTES
    if n_bytes > os.pathconf("/", "PC_PATH_MAX"):
        msg = f"the path of the run folder {str(path)[:_MAX_NAME_BYTES]}… is too long; choose a shorter one with -o"
        raise StoreError(msg)


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # Too long, or below a folder that may not be searched: making it says what is wrong.
        return False


def _check_folder(path: Path, *, may_be_link: bool) -> None:
    if path.is_symlink() and not may_be_link:
        msg = f"{path} is a symbolic link, which evalrun does not follow; remove it, or choose another folder with -o"
        raise StoreError(msg)
    if not path.is_dir():
        msg = f"{path} is a file where a folder is needed; move it away, or choose another folder with -o"
        raise StoreError(msg)


def _explain(error: Exception, path: Path, action: str, *, temp_path: Path | None = None) -> StoreError:
    """Return what a disk's refusal means, with what to do; `temp_path` is the unfinished file."""
    advice = {
        errno.ENOSPC: "free space on that disk, then go on with --resume",
        errno.EDQUOT: "free space in your quota, then go on with --resume",
        errno.EFBIG: "raise the limit of a file's size (ulimit -f), then go on with --resume",
        errno.EACCES: "make it writable for this user, or choose another folder with -o",
        errno.EPERM: "make it writable for this user, or choose another folder with -o",
        errno.EROFS: "the file system is read-only; choose another folder with -o",
        errno.ENOTDIR: "a part of that path is a file; choose another folder with -o",
        errno.ENAMETOOLONG: "choose a folder with a shorter path with -o",
        errno.ELOOP: "it is a symbolic link, which evalrun does not follow; remove it",
        errno.ENOLCK: "the file system has no locks; choose a folder on another one with -o",
        errno.EOPNOTSUPP: "the file system has no locks; choose a folder on another one with -o",
    }.get(find_errno(error) or 0, "check the disk, or choose another folder with -o")
    taken_bytes = _measure(temp_path)
    # How much more the file would have taken nobody knows; an older one tells how large it may become.
    needed_bytes = max(taken_bytes + 1, _measure(path) if temp_path is not None else 0, BLOCK_BYTES)
    room = describe_room(error, path, needs=f"at least {needed_bytes:,} bytes", returned_bytes=taken_bytes)
    return StoreError(f"cannot {action} {path}: {describe_error(error)}{room}; {advice}")


def _measure(path: Path | None) -> int:
    """Return the size of a file in bytes; 0 when it is not there."""
    if path is not None:
        with suppress(OSError):
            return path.stat().st_size
    return 0
