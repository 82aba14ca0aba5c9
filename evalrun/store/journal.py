"""Append-only JSONL of outcomes: the truth while a run is alive.

Records enter through `Journal.append` and are in the file when it returns; outcomes are *acknowledged* when they are as
durable as the job asked for: written (`process`), or forced to disk by the group's fdatasync (`power`). One writer, one
`write` per record. The first error of the disk ends the journal: what was acknowledged stays, nothing more is taken.
"""

import os
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from evalrun.errors import StoreError
from evalrun.records import Attempt, Outcome, Started
from evalrun.store.disk_room import BLOCK_BYTES, describe_error, describe_room
from evalrun.store.folder import FILE_MODE, RunFolder, sync_folder
from evalrun.store.journal_format import Kind, encode_frame, encode_record, parse_frame
from evalrun.store.journal_index import Entry as Entry
from evalrun.store.journal_index import InDoubt as InDoubt
from evalrun.store.journal_index import JournalIndex as JournalIndex
from evalrun.store.journal_scan import scan_journal as scan_journal
from evalrun.store.segment_files import list_segments, make_segment_path

SEGMENT_BYTES = 256 * 1024 * 1024
"""A segment that has reached this size is followed by a new one."""

SYNC_WINDOW_S = 0.2
"""How long outcomes wait to share one fdatasync; the loss window of a power failure is this and the sync itself."""

_OPEN_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW


class Journal:
    """The one writer of a run's journal; a context manager.

    Args:
        folder: The run; its lock is held by the caller.
        durability: `process` survives the death of the process, `power` that of the machine.
        index: Kept current with each append, so that no scan is needed after the run; None = no index.
        n_to_come: Outcomes that this call will append, as far as known: a full disk is told with the room they need.
        segment_bytes: Size at which a new segment begins.
        write: `os.write`, or a test's own.
        sync: `os.fdatasync`, or a test's own.

    Raises:
        StoreError: The journal cannot be opened, or its tail was not cut by `scan_journal(..., for_append=True)`.
    """

    def __init__(
        self,
        folder: RunFolder,
        *,
        durability: str,
        index: JournalIndex | None = None,
        n_to_come: int | None = None,
        segment_bytes: int = SEGMENT_BYTES,
        write: Callable[[int, memoryview], int] = os.write,
        sync: Callable[[int], None] = os.fdatasync,
    ) -> None:
        self.written = 0
        """Outcomes appended here."""
        self.acknowledged = 0
        """Those of them that are durable."""
        self.failure: StoreError | None = None
        """The first error of the disk; None while all is well."""
        self._journal_dir = folder.journal_dir
        self._is_power = durability == "power"
        self._index = index
        self._n_to_come = n_to_come
        self._segment_bytes = segment_bytes
        self._write = write
        self._sync = sync
        self._n_bytes = 0
        self._segment = max(1, len(list_segments(self._journal_dir)))
        if self._is_power:
            folder.force_names()
        self._handle, self._offset = self._open_segment(self._segment)
        self._is_closed = False
        self._has_sync_failed = False
        # The worker finds failures, too; one that no append has raised is raised at the end.
        self._is_failure_told = False
        # The worker syncs under this lock, so that a handle is never closed under it.
        self._sync_lock = threading.Lock()
        self._is_stopping = threading.Event()
        self._worker = threading.Thread(target=self._sync_groups, name="evalrun-journal-sync", daemon=True)
        if self._is_power:
            self._worker.start()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            with suppress(StoreError):  # The error that ends the block goes first; `failure` keeps this one.
                self.close()

    def append_session(self, facts: Mapping[str, Any]) -> None:
        """Append the facts of this call of the run.

        Raises:
            StoreError: The disk refused, now or earlier.
        """
        self._append_line(encode_frame(Kind.RUN, facts))
        if self._index is not None:
            self._index.add_session(dict(facts))

    def append(self, record: Started | Attempt | Outcome) -> None:
        """Append a record; when this returns, the death of the process no longer loses it.

        Raises:
            StoreError: The disk refused, now or earlier. The file ends behind the last whole record.
        """
        line = encode_record(record)
        offset = self._append_line(line)
        if self._index is not None:
            self._index.add_record(record, segment=self._segment, offset=offset, length=len(line))
        if isinstance(record, Outcome):
            self.written += 1
            if not self._is_power:
                self.acknowledged = self.written

    def close(self) -> None:
        """Acknowledge what is written and close the file.

        Raises:
            StoreError: The last sync failed; what it covered is not acknowledged.
        """
        if self._is_closed:
            return
        self._is_closed = True
        self._is_stopping.set()
        if self._is_power:
            self._worker.join()
            self._sync_written()
        try:
            os.close(self._handle)
        except OSError as error:  # Network file systems tell of a full disk here.
            self._fail(error, "close")
        if self.failure is not None and not self._is_failure_told:
            raise self.failure

    def _append_line(self, line: bytes) -> int:
        """Write a whole line or nothing; return the offset where it begins."""
        try:
            return self._append_whole(line)
        except StoreError:
            self._is_failure_told = self.failure is not None
            raise

    def _append_whole(self, line: bytes) -> int:
        if self.failure is not None:
            raise self.failure
        if self._is_closed:
            msg = f"the journal in {self._journal_dir} is closed"
            raise StoreError(msg)
        if self._offset and self._offset + len(line) > self._segment_bytes:
            self._begin_segment()
        offset = self._offset
        try:
            left = memoryview(line)
            while (n_written := self._write(self._handle, left)) < len(left):
                left = left[n_written:]
        except OSError as error:
            self._cut_back()
            raise self._fail(error, f"write byte {offset} of", record_bytes=len(line)) from error
        except BaseException:
            self._cut_back()
            raise
        self._offset = offset + len(line)
        self._n_bytes += len(line)
        return offset

    def _begin_segment(self) -> None:
        """Close the full segment and open the next; the full one is on disk before the next holds anything."""
        if self._is_power:
            self._sync_written()
            if self.failure is not None:
                raise self.failure
        try:
            handle, offset = self._open_segment(self._segment + 1)
        except StoreError as error:
            self.failure = error
            raise
        with self._sync_lock:
            os.close(self._handle)
            self._segment += 1
            self._handle, self._offset = handle, offset

    def _open_segment(self, segment: int) -> tuple[int, int]:
        """Open a segment behind its last record, making it where it is not there yet."""
        path = make_segment_path(self._journal_dir, segment)
        try:
            if not path.exists():
                handle = os.open(path, _OPEN_FLAGS | os.O_CREAT | os.O_EXCL, FILE_MODE)
                os.fchmod(handle, FILE_MODE)  # The umask may have taken bits away.
            else:
                handle = os.open(path, _OPEN_FLAGS)
            sync_folder(self._journal_dir)  # Also of an older segment: who made it may have been killed before this.
            offset = os.fstat(handle).st_size
        except OSError as error:
            room = describe_room(error, path, needs=self._describe_need(0))
            why = f"{describe_error(error)}{room}"
            msg = f"cannot open the journal {path}: {why}; check the folder's owner and the disk"
            raise StoreError(msg) from error
        if offset and not _ends_whole(path, offset):
            os.close(handle)
            msg = f"{path} ends in the middle of a record; scan it with for_append=True first"
            raise StoreError(msg)
        return handle, offset

    def _sync_groups(self) -> None:
        """Force written outcomes to disk, one fdatasync for all that came within the window. Runs in the worker."""
        while not self._is_stopping.wait(SYNC_WINDOW_S):
            if self.written != self.acknowledged:
                self._sync_written()

    def _sync_written(self) -> None:
        """Force to disk what is written, also what a later write error left whole; never again once it failed."""
        with self._sync_lock:
            n_written = self.written
            if self._has_sync_failed:
                return
            try:
                self._sync(self._handle)
            except OSError as error:
                # After a failed sync the kernel calls the lost pages clean: a second one would lie.
                self._has_sync_failed = True
                self._fail(error, "force to disk")
            else:
                self.acknowledged = n_written

    def _fail(self, error: OSError, action: str, *, record_bytes: int = 0) -> StoreError:
        path = make_segment_path(self._journal_dir, self._segment)
        room = describe_room(error, path, needs=self._describe_need(record_bytes))
        msg = f"cannot {action} the journal {path}: {describe_error(error)}{room}; {self.acknowledged} outcomes of "
        msg += "this call are safe. Free or mend the disk, then go on with --resume"
        self.failure = StoreError(msg)
        return self.failure

    def _describe_need(self, record_bytes: int) -> str:
        """Return how many bytes it takes to go on: to the end of the call, where enough is known for a guess."""
        n_left = (self._n_to_come or 0) - self.written
        if n_left <= 0 or not self.written:
            return f"at least {max(record_bytes, BLOCK_BYTES):,} bytes"
        return f"about {self._n_bytes * n_left // self.written:,} bytes for {n_left:,} outcomes still to come"

    def _cut_back(self) -> None:
        """Cut off what a failed write left, so that the file ends behind the last whole record."""
        with suppress(OSError):  # A torn tail that stays is cut by the next scan.
            os.ftruncate(self._handle, self._offset)


def _ends_whole(path: Path, n_bytes: int) -> bool:
    """Tell whether the last line of a segment proves itself; reads backwards, a record at most."""
    chunk_bytes = 64 * 1024
    with path.open("rb") as handle:
        while True:
            start = max(0, n_bytes - chunk_bytes)
            handle.seek(start)
            tail = handle.read()
            cut = tail.rfind(b"\n", 0, len(tail) - 1)
            if cut >= 0 or start == 0:
                return parse_frame(tail[cut + 1 :]) is not None
            chunk_bytes *= 4
