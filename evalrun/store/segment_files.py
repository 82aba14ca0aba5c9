"""The files of a journal: which segments there are, and records read from them by their place.

A folder enters; paths in order, and bytes of one segment leave. Segments are opened for reading when they are first
needed, and kept open until `close`.
"""

import os
from pathlib import Path
from typing import NamedTuple

from evalrun.errors import JournalDamagedError
from evalrun.store.segment_lines import open_segment

SEGMENT_GLOB = "[0-9][0-9][0-9][0-9][0-9][0-9].jsonl"


class Place(NamedTuple):
    """Where a record lies."""

    segment: int
    offset: int
    n_bytes: int


class SegmentFiles:
    """The segments of one journal, open for reading.

    Args:
        journal_dir: Their folder.
    """

    def __init__(self, journal_dir: Path) -> None:
        self._journal_dir = journal_dir
        self._handles: dict[int, int] = {}

    def read(self, place: Place) -> bytes:
        """Return the bytes of a place; fewer when the segment ends before.

        Raises:
            StoreError: The segment is no regular file.
            OSError: It cannot be read.
        """
        handle = self._handles.get(place.segment)
        if handle is None:
            handle = open_segment(make_segment_path(self._journal_dir, place.segment))
            self._handles[place.segment] = handle
        return os.pread(handle, place.n_bytes, place.offset)

    def make_changed_error(self, place: Place) -> JournalDamagedError:
        """Return what is raised for a place that no longer holds the record that was indexed there."""
        path = make_segment_path(self._journal_dir, place.segment)
        msg = f"{path}: the record at byte {place.offset} changed since it was indexed; is another program writing "
        return JournalDamagedError(msg + "there?")

    def close(self) -> None:
        """Close what was opened."""
        while self._handles:
            os.close(self._handles.popitem()[1])


def make_segment_path(journal_dir: Path, segment: int) -> Path:
    """Return the path of a segment; the first one is 1."""
    return journal_dir / f"{segment:06d}.jsonl"


def list_segments(journal_dir: Path) -> list[Path]:
    """List the segments in order.

    Raises:
        JournalDamagedError: One between the first and the last is gone.
    """
    paths = sorted(journal_dir.glob(SEGMENT_GLOB))
    for number, path in enumerate(paths, start=1):
        if path != make_segment_path(journal_dir, number):
            msg = f"{make_segment_path(journal_dir, number)} is gone, while later segments are there; put it back"
            raise JournalDamagedError(msg)
    return paths
