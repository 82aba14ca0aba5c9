"""Lines of a text file, plain or compressed: bounded in length and in expansion, and surely UTF-8.

A path enters; lines of bytes leave, with their line ends. Only LF ends a line: U+2028 and its like are data.
"""

import gzip
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, cast

from evalrun.errors import DatasetError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MAX_LINE_BYTES = 64 * 1024 * 1024
"""Longest line of a text dataset."""

MAX_EXPANSION = 200
"""A compressed file may expand to this many times its size, once it is past FREE_EXPANSION_BYTES."""

FREE_EXPANSION_BYTES = 1024 * 1024 * 1024

_DAMAGED = (EOFError, gzip.BadGzipFile, zlib.error, zstd.ZstdError)


@contextmanager
def open_source(path: Path, shown: str) -> Iterator[IO[bytes]]:
    """Open a file for reading, decompressed by its suffix.

    Raises:
        DatasetError: It cannot be opened, or turns out damaged within the block.
    """
    suffix = path.suffix.lower()
    try:
        with path.open("rb") as raw:
            if suffix == ".gz":
                with gzip.GzipFile(fileobj=raw) as unzipped:
                    yield cast("IO[bytes]", unzipped)
            elif suffix == ".zst":
                with zstd.ZstdFile(raw) as expanded:
                    yield cast("IO[bytes]", expanded)
            else:
                yield raw
    except _DAMAGED as error:
        message = f"the compressed file is damaged or cut off: {str(error) or type(error).__name__}"
        raise DatasetError(message, where=shown, hint="make or download it again") from error
    except OSError as error:
        raise DatasetError(f"the file cannot be read: {error.strerror or error}", where=shown) from error


def scan_lines(path: Path, shown: str) -> Iterator[bytes]:
    """Yield the lines of a text file; a byte order mark is dropped.

    Args:
        path: The file.
        shown: Its name in messages.

    Raises:
        DatasetError: It cannot be read, is UTF-16, has a line too long, or expands too far.
    """
    with open_source(path, shown) as stream:
        limit = _limit_bytes(path)
        n_bytes = 0
        for number, line in enumerate(iter(partial(stream.readline, MAX_LINE_BYTES + 1), b""), start=1):
            if len(line) > MAX_LINE_BYTES:
                message = f"the line is longer than {MAX_LINE_BYTES:,} bytes"
                raise DatasetError(message, where=f"{shown}:{number}", hint="is it a JSON list in a .jsonl file?")
            if limit is not None:
                n_bytes += len(line)
                if n_bytes > limit:
                    raise make_expansion_error(shown)
            if number == 1:
                _refuse_utf16(line, shown)
                line = line.removeprefix(b"\xef\xbb\xbf")
            yield line


def load_whole(path: Path, shown: str, max_bytes: int) -> bytes:
    """Read a whole file, decompressed.

    Raises:
        DatasetError: It cannot be read, is UTF-16, or is larger than `max_bytes`.
    """
    with open_source(path, shown) as stream:
        content = stream.read(max_bytes + 1)
    if len(content) > max_bytes:
        message = f"the file is larger than {max_bytes:,} bytes"
        raise DatasetError(message, where=shown, hint="write it as .jsonl, which is read line by line")
    _refuse_utf16(content, shown)
    return content.removeprefix(b"\xef\xbb\xbf")


def make_expansion_error(shown: str) -> DatasetError:
    """Return the error of a file that expands too far."""
    message = f"the file expands to more than {MAX_EXPANSION} times its size"
    return DatasetError(message, where=shown, hint="decompress it yourself if that is meant")


def explain_bad_utf8(content: bytes, error: UnicodeDecodeError) -> tuple[str, str]:
    """Return message and hint for bytes that are not UTF-8."""
    message = f"byte 0x{content[error.start]:02x} at column {error.start + 1} is not UTF-8"
    return message, "if it is Latin-1: iconv -f LATIN1 -t UTF-8 OLD > NEW"


def _limit_bytes(path: Path) -> int | None:
    if path.suffix.lower() not in {".gz", ".zst"}:
        return None
    return max(FREE_EXPANSION_BYTES, MAX_EXPANSION * path.stat().st_size)


def _refuse_utf16(start: bytes, shown: str) -> None:
    has_mark = start[:2] in {b"\xff\xfe", b"\xfe\xff"}
    if has_mark or (len(start) > 3 and (start[0:4:2] == b"\0\0" or start[1:4:2] == b"\0\0")):
        hint = "save it as UTF-8: iconv -f UTF-16 -t UTF-8 OLD > NEW"
        raise DatasetError("the file is UTF-16", where=f"{shown}:1", hint=hint)
