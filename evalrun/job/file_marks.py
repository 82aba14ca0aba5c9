"""What the files of a job looked like when they were read first, so that a change while a run is alive is noticed.

Paths and contents enter; words for what became of a file leave. A stat is asked first, and a content only where the
stat differs.
"""

import os
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

Stamp = tuple[int, int, int, int]
"""Device, inode, size and mtime in ns: a file that was replaced has another inode, an edited one another time."""


class FileChange(NamedTuple):
    """One file that is not what it was."""

    path: Path
    message: str
    """The file, and what became of it."""


class _Mark(NamedTuple):
    shown: str
    stamp: Stamp | None
    """None when the file could not be looked at."""
    digest: bytes | None
    """Of the content; None where only the caller can tell whether it is the same."""


class FileMarks:
    """Marks of files, made at the first sight of each."""

    def __init__(self) -> None:
        """Start without a file."""
        self._marks: dict[Path, _Mark] = {}

    def note(self, path: Path, shown: str) -> None:
        """Remember a file; one that is known stays as it was seen first.

        Args:
            path: The file.
            shown: Its name in messages.
        """
        if path not in self._marks:
            self._marks[path] = _Mark(shown, _read_stamp(path), None)

    def note_content(self, path: Path, stamp: os.stat_result, content: bytes) -> None:
        """Remember a file with its content, so that another file of the same content is no change.

        Args:
            path: The file.
            stamp: As it was before it was read.
            content: What was read.
        """
        if path not in self._marks:
            self._marks[path] = _Mark(str(path), _make_stamp(stamp), _digest(content))

    def find_changes(self) -> list[FileChange]:
        """Return every file that is another one, was written to, or is gone."""
        changes = []
        for path, mark in self._marks.items():
            stamp = _read_stamp(path)
            if stamp != mark.stamp and not _is_same_content(path, mark):
                changes.append(FileChange(path, f"{mark.shown} {_describe(mark.stamp, stamp)}"))
        return changes

    def renew(self, path: Path) -> None:
        """Take a file as it is now for the one that was seen first: its content is known to be the same."""
        self._marks[path] = self._marks[path]._replace(stamp=_read_stamp(path))


def _read_stamp(path: Path) -> Stamp | None:
    try:
        return _make_stamp(path.stat())
    except OSError:
        return None


def _make_stamp(stat: os.stat_result) -> Stamp:
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns


def _digest(content: bytes) -> bytes:
    return blake2b(content, digest_size=16).digest()


def _is_same_content(path: Path, mark: _Mark) -> bool:
    if mark.digest is None:
        return False
    try:
        return _digest(path.read_bytes()) == mark.digest
    except OSError:
        return False


def _describe(before: Stamp | None, now: Stamp | None) -> str:
    if now is None:
        return "is gone"
    return "has changed" if before is not None and before[:2] == now[:2] else "was replaced"
