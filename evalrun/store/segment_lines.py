"""The lines of one journal segment, in a bounded amount of memory, whoever wrote it and whatever it is.

A path enters and lines leave, good or bad. What is no regular file is refused before it is read, since a pipe would be
waited for without end. A long line is kept only when it proves itself: of any other the beginning is enough.
"""

import os
import stat
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple
from zlib import crc32

from evalrun.errors import SchemaMismatchError, StoreError
from evalrun.store.journal_format import (
    FORMAT_VERSION,
    Frame,
    find_heads,
    parse_frame,
    parse_head,
    parse_other_version,
)

MAX_LINE_BYTES = 640 * 1024 * 1024
"""Ten times the largest reply: a record holds its text up to four times, escaped. What is longer is none of ours."""

_PIECE_BYTES = 1024 * 1024
_HEAD_BYTES = 64
_MAX_HEADS = 16
"""Places in a bad line at which a good frame is looked for, the last ones: each costs a reading of the rest."""


class JournalLine(NamedTuple):
    """One line of a segment, good or bad, or the part of a damaged line that is a good frame."""

    path: Path
    number: int
    """1-based, in its segment."""
    offset: int
    data: bytes
    frame: Frame | None
    """None when the line does not prove itself."""
    n_more: int = 0
    """Bytes of a long bad line that follow `data`, and were passed over."""

    @property
    def n_bytes(self) -> int:
        """How much of the segment the line takes."""
        return len(self.data) + self.n_more


def open_segment(path: Path) -> int:
    """Open a segment for reading; return the handle.

    Raises:
        StoreError: It is a pipe, a device or a folder.
        OSError: It cannot be opened.
    """
    # Without O_NONBLOCK a pipe would hold the process until somebody writes into it.
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        msg = f"{path} is no regular file, so it holds no journal; nothing was read. Put the run's own file there, or "
        raise StoreError(msg + "leave that run out")
    return handle


def scan_segment(path: Path, *, take: Callable[..., bool] | None = None) -> Iterator[JournalLine]:
    """Yield every line of a segment, in order; nothing on disk changes.

    Args:
        path: The segment.
        take: Is given each line and its `offset` until a bad one comes; a line that it takes (True) is not yielded.

    Raises:
        SchemaMismatchError: Another version of evalrun wrote it.
        StoreError: It is no regular file.
        OSError: The segment cannot be read.
    """
    offset = number = 0
    with os.fdopen(open_segment(path), "rb", buffering=_PIECE_BYTES) as lines:
        while data := lines.readline(_PIECE_BYTES):
            number += 1
            is_long = len(data) == _PIECE_BYTES and data[-1] != 10
            if is_long or take is None or not take(data, offset=offset):
                frame = None if is_long else parse_frame(data)
                if frame is not None:
                    yield JournalLine(path, number, offset, data, frame)
                else:
                    for line in (_read_long_line if is_long else _split_damaged)(path, number, offset, data, lines):
                        if line.frame is None:
                            take = None
                            _check_version(line)
                        yield line
            offset = lines.tell() if is_long else offset + len(data)


def _check_version(line: JournalLine) -> None:
    """Refuse a segment that another version began; a version begins a segment of its own, so a lone line is damage."""
    version = parse_other_version(line.data)
    if line.offset == 0 and version is not None and not _is_ours_from_line_2(line):
        advice = "update evalrun" if version > FORMAT_VERSION else "use the version of evalrun that wrote it"
        msg = f"{line.path} is a journal of version {version}, this evalrun reads version {FORMAT_VERSION}; nothing "
        msg += f"was changed. To read it, {advice}"
        raise SchemaMismatchError(msg)


def _is_ours_from_line_2(line: JournalLine) -> bool:
    """Tell whether what follows the first line proves itself: then the version in the first one is a flipped bit."""
    with os.fdopen(open_segment(line.path), "rb") as lines:
        lines.seek(line.n_bytes)
        data = lines.readline(_PIECE_BYTES)
        return parse_frame(data) is not None or (len(data) == _PIECE_BYTES and parse_head(data) is not None)


def _split_damaged(path: Path, number: int, offset: int, data: bytes, _: BinaryIO) -> list[JournalLine]:
    """Return a bad line; a good frame that hangs on it, because the newline before it was lost, comes by itself."""
    for start in deque(find_heads(data, start=1), maxlen=_MAX_HEADS):
        frame = parse_frame(data[start:])
        if frame is not None:
            return [
                JournalLine(path, number, offset, data[:start], None),
                JournalLine(path, number, offset + start, data[start:], frame),
            ]
    return [JournalLine(path, number, offset, data, None)]


def _read_long_line(path: Path, number: int, offset: int, first: bytes, lines: BinaryIO) -> list[JournalLine]:
    """Return a line of which the first piece was read, as `_split_damaged` does, and go on behind it."""
    starts, end = _survey_long_line(offset, first, lines)
    found = [JournalLine(path, number, offset, first, None, end - offset - len(first))]
    for start in starts:
        if end - start <= MAX_LINE_BYTES and _proves_itself(lines, start, end):
            lines.seek(start)
            data = lines.read(end - start)
            kept = first[: start - offset]
            bad = JournalLine(path, number, offset, kept, None, start - offset - len(kept))
            found = [*([bad] if start > offset else []), JournalLine(path, number, start, data, parse_frame(data))]
            break
    lines.seek(end)
    return found


def _survey_long_line(offset: int, first: bytes, lines: BinaryIO) -> tuple[list[int], int]:
    """Return where in a long line a frame may begin, and where the line ends."""
    is_whole = parse_head(first) is not None
    starts = deque((offset + start for start in find_heads(first, start=1)), maxlen=_MAX_HEADS)
    end, tail = offset + len(first), first[-_HEAD_BYTES:]
    while tail[-1] != 10 and (piece := lines.readline(_PIECE_BYTES)):
        # A head may lie across two pieces; one that lies in the first of them was found there.
        seam = end - len(tail)
        starts.extend(seam + start for start in find_heads(tail + piece) if seam + start not in starts)
        end += len(piece)
        tail = (tail + piece)[-_HEAD_BYTES:]
    return [*([offset] if is_whole else []), *starts], end


def _proves_itself(lines: BinaryIO, start: int, end: int) -> bool:
    """Tell whether a frame stands between two places, by reading it piece by piece."""
    lines.seek(end - 2)
    if lines.read(2) != b"}\n":
        return False
    lines.seek(start)
    head = parse_head(lines.read(_HEAD_BYTES))
    if head is None:
        return False
    n_head_bytes, expected = head
    lines.seek(start + n_head_bytes)
    checksum, n_left = 0, end - 2 - start - n_head_bytes
    while n_left > 0 and (piece := lines.read(min(_PIECE_BYTES, n_left))):
        checksum = crc32(piece, checksum)
        n_left -= len(piece)
    return n_left == 0 and checksum == expected
