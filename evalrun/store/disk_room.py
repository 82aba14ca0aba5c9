"""What a disk refused, in figures: the system's error number, the bytes that were wanted and those that are free.

An error enters, as Python or as a library of ours tells it; words for a message leave. Nothing here writes.
"""

import errno
import os
import re
from contextlib import suppress
from pathlib import Path

BLOCK_BYTES = 4096
"""Disks give whole blocks, to a small file and to a folder, too."""

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_NUMBER_IN_TEXT = re.compile(r"\(os error (\d{1,4})\)")
"""How Rust, and so polars, ends the text of an error of the system."""


def find_errno(error: Exception) -> int | None:
    """Return the system's number of an error, also of one that tells it in its text only; None when it tells none."""
    number = getattr(error, "errno", None)
    if isinstance(number, int):
        return number
    told = _NUMBER_IN_TEXT.search(str(error))
    return int(told[1]) if told else None


def describe_error(error: Exception) -> str:
    """Return the system's words for an error; those of the error where the system has none."""
    number = find_errno(error)
    return os.strerror(number) if number else str(error)


def describe_room(error: Exception, path: Path, *, needs: str, returned_bytes: int = 0) -> str:
    """Return how much was wanted and how much is free, when that is what an error is about; "" for any other.

    Args:
        error: What the disk said.
        path: The file, or where it was to be.
        needs: What it takes to go on, e.g. "at least 4,096 bytes".
        returned_bytes: Taken by the unfinished file, and free again once it is removed.
    """
    number = find_errno(error)
    if number not in _NO_ROOM:
        return ""
    room = f"; it needs {needs}"
    if number == errno.ENOSPC:  # A quota and a limit of a file's size are not told by the disk.
        with suppress(OSError):
            stats = os.statvfs(path.parent)
            room += f", {stats.f_bavail * stats.f_frsize + returned_bytes:,} are free"
            if stats.f_files and not stats.f_favail:
                room += " and no room for one more file"
    return room
