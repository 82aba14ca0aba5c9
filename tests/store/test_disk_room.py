import errno
import os
from pathlib import Path

import pytest

from evalrun.store.disk_room import describe_error, describe_room, find_errno


def make_error(number: int) -> OSError:
    """Return an error of the system."""
    return OSError(number, os.strerror(number))


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (make_error(errno.ENOSPC), errno.ENOSPC),
        (OSError("No space left on device (os error 28)"), errno.ENOSPC),
        (RuntimeError("parquet: underlying IO error: File too large (os error 27)"), errno.EFBIG),
        (RuntimeError("parquet: transport error"), None),
    ],
)
def test_find_errno_reads_numbers_and_texts(error: Exception, expected: int | None) -> None:
    """The number is found where Python holds it, and where a library in Rust only writes it."""
    assert find_errno(error) == expected


def test_describe_error_takes_the_words_of_the_system() -> None:
    """A library's wrapping goes; an error without a number keeps its own words."""
    assert describe_error(RuntimeError("parquet: IO (os error 28)")) == os.strerror(errno.ENOSPC)
    assert describe_error(RuntimeError("transport error")) == "transport error"


def test_describe_room_tells_what_is_needed_and_what_is_free(tmp_path: Path) -> None:
    """On a full disk both are told; what the unfinished file takes counts as free."""
    error, path = make_error(errno.ENOSPC), tmp_path / "file"
    stats = os.statvfs(tmp_path)
    words = describe_room(error, path, needs="at least 4,096 bytes", returned_bytes=0)
    assert words.startswith("; it needs at least 4,096 bytes, ")
    told = int(words.split()[-3].replace(",", ""))
    assert 0 < told <= stats.f_blocks * stats.f_frsize
    assert words.endswith(" are free")


@pytest.mark.parametrize("number", [errno.EDQUOT, errno.EFBIG])
def test_describe_room_of_a_limit_does_not_tell_the_disk(tmp_path: Path, number: int) -> None:
    """A quota, or a limit of a file's size, is not what the disk has free."""
    words = describe_room(make_error(number), tmp_path / "file", needs="at least 10 bytes")
    assert words == "; it needs at least 10 bytes"


def test_describe_room_is_silent_about_other_errors(tmp_path: Path) -> None:
    """More room would not mend them."""
    assert describe_room(make_error(errno.EIO), tmp_path / "file", needs="at least 10 bytes") == ""


def test_describe_room_is_told_even_where_the_disk_says_nothing(tmp_path: Path) -> None:
    """A folder that is gone has no free bytes to tell."""
    words = describe_room(make_error(errno.ENOSPC), tmp_path / "none" / "file", needs="at least 10 bytes")
    assert words == "; it needs at least 10 bytes"
