"""Read the journal from the start: what proves itself is indexed, a torn tail is cut, damage is never passed over.

A run folder enters and an index leaves. Bytes that prove nothing and are followed by nothing good are a torn tail: they
were never acknowledged. Bytes that prove nothing but are followed by good records are damage, which stops the reader
unless a repair is asked for; a repair keeps every good record and the damaged file beside it.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from evalrun.errors import JournalDamagedError, SchemaMismatchError, StoreError
from evalrun.store.folder import RunFolder, sync_folder, write_atomically
from evalrun.store.journal_format import NOT_UNDERSTOOD, Frame, Kind, parse_body
from evalrun.store.journal_index import JournalIndex
from evalrun.store.segment_files import list_segments
from evalrun.store.segment_lines import JournalLine as JournalLine
from evalrun.store.segment_lines import scan_segment as scan_segment


class PlacedFrame(NamedTuple):
    """A good frame, and where it stands."""

    path: Path
    offset: int
    n_bytes: int
    frame: Frame


def scan_journal(folder: RunFolder, *, for_append: bool = False, repair: bool = False) -> JournalIndex:
    """Index the journal of a run.

    Args:
        folder: The run. With `for_append` or `repair` its lock is held by the caller.
        for_append: Cut a torn tail off the file, so that a `Journal` can go on behind the last good record; without
            it nothing on disk changes.
        repair: Keep all good records of a damaged journal: rewrite the segments without the damage, and keep each
            damaged file under `….jsonl.damaged`.

    Raises:
        JournalDamagedError: Good records follow a bad one, or a segment is gone, and no repair was asked for.
        SchemaMismatchError: Another version of evalrun wrote the journal.
        StoreError: A segment cannot be read, or the tail not be cut.
    """
    with _reading(folder):
        dropped_bytes = _repair_segments(folder) if repair else 0
        index = JournalIndex(folder.journal_dir)
        first_bad = _fill_index(index, folder)
        index.dropped_bytes = dropped_bytes
        if first_bad is not None and for_append:
            _cut_tail(folder, first_bad)
    return index


def read_first_session(folder: RunFolder) -> dict[str, Any] | None:
    """Return the facts of the call that began a run; None when its journal holds none.

    They are the first record, and nothing else is read. Where that one is damaged, those of the first later call that
    can be read are returned: a resume goes on with what its run began with, so they say the same.

    Raises:
        SchemaMismatchError: Another version of evalrun wrote the journal.
        StoreError: The journal cannot be read.
    """
    try:
        for placed in scan_good_frames(folder):
            if placed.frame.kind is Kind.RUN:
                return parse_body(placed.frame.body)
    except ValueError as error:
        msg = f"{folder.journal_dir}: the record of the call that began the run is not as evalrun writes it ({error})"
        raise SchemaMismatchError(msg) from error
    return None


def scan_good_frames(folder: RunFolder) -> Iterator[PlacedFrame]:
    """Yield every good frame of a journal, in order; what proves nothing is passed over and nothing on disk changes.

    For a reader of another run, killed or alive: what it cannot use, it leaves to that run's own resume.

    Raises:
        JournalDamagedError: A segment is gone.
        SchemaMismatchError: Another version of evalrun wrote the journal.
        StoreError: A segment cannot be read.
    """
    with _reading(folder):
        for path in list_segments(folder.journal_dir):
            for line in scan_segment(path):
                if line.frame is not None:
                    yield PlacedFrame(path, line.offset, len(line.data), line.frame)


@contextmanager
def _reading(folder: RunFolder) -> Iterator[None]:
    """Tell of a journal that the disk does not give."""
    try:
        yield
    except OSError as error:
        msg = f"cannot read the journal in {folder.journal_dir}: {error.strerror or error}; check the disk"
        raise StoreError(msg) from error


def _fill_index(index: JournalIndex, folder: RunFolder) -> JournalLine | None:
    """Take in every good record; return where the torn tail begins, None when there is none."""
    first_bad: JournalLine | None = None
    for segment, path in enumerate(list_segments(folder.journal_dir), start=1):
        for line in scan_segment(path, take=None if first_bad else partial(index.add_usual_line, segment=segment)):
            if line.frame is None:
                first_bad = first_bad or line
                index.torn_bytes += line.n_bytes
            elif first_bad is not None:
                raise _make_damaged_error(first_bad, line)
            else:
                _add_line(index, line, line.frame, segment)
    return first_bad


def _add_line(index: JournalIndex, line: JournalLine, frame: Frame, segment: int) -> None:
    try:
        index.add_frame(frame, segment=segment, offset=line.offset, length=len(line.data))
    except NOT_UNDERSTOOD as error:
        msg = f"{line.path}:{line.number}: a whole record that this version does not understand ({error!r}); use the "
        msg += "version of evalrun that wrote it"
        raise SchemaMismatchError(msg) from error


def _make_damaged_error(bad: JournalLine, good: JournalLine) -> JournalDamagedError:
    msg = f"{bad.path}:{bad.number}: the record at byte {bad.offset} is damaged, and good records follow it "
    msg += (
        f"({good.path.name}:{good.number}, byte {good.offset}); nothing was changed. Copy the folder to a safe place, "
    )
    msg += "then go on with --repair, which keeps every good record and asks the lost rows again"
    return JournalDamagedError(msg)


def _cut_tail(folder: RunFolder, first_bad: JournalLine) -> None:
    """Cut the file that holds the first bad byte there, and empty those behind it, which hold nothing good."""
    for path in list_segments(folder.journal_dir):
        if path < first_bad.path:
            continue
        handle = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            os.ftruncate(handle, first_bad.offset if path == first_bad.path else 0)
            os.fsync(handle)
        finally:
            os.close(handle)


def _repair_segments(folder: RunFolder) -> int:
    """Rewrite each damaged segment with its good records only; return how many bytes were left out."""
    dropped_bytes = 0
    for path in list_segments(folder.journal_dir):
        bad_bytes = sum(line.n_bytes for line in scan_segment(path) if line.frame is None)
        if bad_bytes:
            _keep_damaged(path)
            write_atomically(path, lambda temp, path=path: _write_good_lines(path, temp))  # type: ignore[misc]
            dropped_bytes += bad_bytes
    return dropped_bytes


def _keep_damaged(path: Path) -> None:
    """Give the damaged segment a second name, which the rewrite leaves alone."""
    number = 1
    while True:
        kept = path.with_name(f"{path.name}.damaged" + (f"-{number}" if number > 1 else ""))
        try:
            kept.hardlink_to(path)
        except FileExistsError:
            number += 1
            continue
        sync_folder(path.parent)
        return


def _write_good_lines(path: Path, temp: Path) -> None:
    with temp.open("wb") as target:
        for line in scan_segment(path):
            if line.frame is not None:
                target.write(line.data)
