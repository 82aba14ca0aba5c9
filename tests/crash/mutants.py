"""Defects that the harness must find: each is a plausible way to write evalrun that loses or pays twice.

A mutant is planted into a process that is about to call evalrun; the seams it needs are those of the real code, and a
seam that has moved fails here, loudly, since a harness that finds nothing proves nothing.
"""

import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from evalrun.job import bodies
from evalrun.store import folder, journal_format
from evalrun.store.journal import Journal

BUFFER_BYTES = 8192
GROUP_WINDOW_S = 0.05


class _Buffer:
    """Holds what should be in the file; `Journal` believes that it is."""

    def __init__(self, *, is_flushed_when_full: bool) -> None:
        self.lock = threading.Lock()
        self._held = bytearray()
        self._handle = -1
        self._is_flushed_when_full = is_flushed_when_full

    def write(self, handle: int, data: memoryview) -> int:
        """Take bytes as `os.write` would."""
        with self.lock:
            self._held += data
            self._handle = handle
            if self._is_flushed_when_full and len(self._held) >= BUFFER_BYTES:
                self._write_out()
        return len(data)

    def flush(self) -> None:
        """Write what is held."""
        with self.lock:
            self._write_out()

    def _write_out(self) -> None:
        while self._held:
            del self._held[: os.write(self._handle, self._held)]


def _plant_buffer(buffer: _Buffer) -> None:
    """Put a buffer between the journal and its file; it is written out when the journal is closed."""
    defaults = Journal.__init__.__kwdefaults__
    assert defaults is not None
    assert defaults["write"] is os.write
    assert defaults["sync"] is os.fdatasync
    close = Journal.close

    def sync(handle: int) -> None:
        buffer.flush()
        os.fdatasync(handle)

    def close_flushed(self: Journal) -> None:
        buffer.flush()
        close(self)

    defaults["write"] = buffer.write
    defaults["sync"] = sync
    Journal.close = close_flushed  # type: ignore[method-assign]


def plant_no_flush() -> None:
    """Write the journal through a buffer that nobody flushes, as `open(path, "ab")` gives."""
    _plant_buffer(_Buffer(is_flushed_when_full=True))


def plant_buffered_writer() -> None:
    """Write the journal in groups, twenty times a second, and call each record written at once."""
    buffer = _Buffer(is_flushed_when_full=False)
    _plant_buffer(buffer)

    def write_groups() -> None:
        while True:
            time.sleep(GROUP_WINDOW_S)
            buffer.flush()

    threading.Thread(target=write_groups, daemon=True).start()


def plant_no_checksum() -> None:
    """Believe every line that looks like a record."""
    holders = _list_holders("parse_frame")
    assert journal_format in holders
    for module in holders:
        module.parse_frame = _parse_anything


def _parse_anything(line: bytes) -> journal_format.Frame | None:
    head = journal_format._HEAD.match(line)
    if head is None or line[-2:] != b"}\n":
        return None
    return journal_format.Frame(journal_format._KINDS[head[1]], line[head.end() : -2])


def _list_holders(name: str) -> list[Any]:
    """Return the modules of the store that hold a function under its name."""
    return [module for path, module in sys.modules.items() if path.startswith("evalrun.") and hasattr(module, name)]


def plant_non_atomic_rename() -> None:
    """Copy a finished file to its name block by block, as a move across file systems does."""

    def commit(self: folder.StagedFile) -> None:
        self.flush()
        with self.temp_path.open("rb") as source, self.path.open("wb", buffering=0) as target:
            while block := source.read(1024):
                target.write(block)
                os.fsync(target.fileno())
        self.temp_path.unlink()
        folder.sync_folder(self.path.parent)

    assert callable(folder.StagedFile.commit)
    folder.StagedFile.commit = commit  # type: ignore[method-assign]


def plant_truncating_write() -> None:
    """Write the final file itself, as most programs do."""

    def commit(self: folder.StagedFile) -> None:
        self.path.write_bytes(self.temp_path.read_bytes())
        self.temp_path.unlink()

    assert callable(folder.StagedFile.commit)
    folder.StagedFile.commit = commit  # type: ignore[method-assign]


def plant_wrong_key() -> None:
    """Let a request's key depend on the process that asks, as a time or a port in it would."""
    assert isinstance(bodies.KEY_VERSION, int)
    bodies.KEY_VERSION = os.getpid()


def plant_late_start() -> None:
    """Write that a request was started when its reply is there."""
    from evalrun.records import Started

    append = Journal.append
    held: dict[str, Started] = {}

    def append_late(self: Journal, record: Any) -> None:
        if isinstance(record, Started):
            held[record.row_id] = record
            return
        started = held.pop(record.row_id, None)
        if started is not None:
            append(self, started)
        append(self, record)

    Journal.append = append_late  # type: ignore[method-assign]


MUTANTS: dict[str, Callable[[], None]] = {
    "no-flush": plant_no_flush,
    "buffered-writer": plant_buffered_writer,
    "no-checksum": plant_no_checksum,
    "non-atomic-rename": plant_non_atomic_rename,
    "truncating-write": plant_truncating_write,
    "wrong-key": plant_wrong_key,
    "late-start": plant_late_start,
}


def plant_mutant(name: str) -> None:
    """Plant a defect into this process."""
    MUTANTS[name]()
