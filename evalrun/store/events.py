"""The run's event log: what the lanes and the run decided, and when, for whoever asks afterwards why it was slow.

Decisions enter and become lines of `events.jsonl` in the run folder, `{"at", "lane", "what", "values"}`; the reader
gives them back. The log is a witness, not the truth: it is bounded, what goes beyond is counted, and a disk that
refuses it ends the log and never the run.
"""

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from types import TracebackType
from typing import Any

from evalrun.errors import StoreError
from evalrun.store.folder import FILE_MODE, RunFolder

MAX_PER_SECOND = 20
"""Events of one lane that are written in one second; beyond it only the first of each kind is, and the rest counted."""
MAX_LOG_BYTES = 64 * 1024 * 1024
"""A log of this size takes nothing more; what comes is counted."""
MAX_LINE_BYTES = 64 * 1024
"""No event is longer; what is longer in a log is no event."""
DROPPED = "dropped"
"""Kind of the event that says how many others (`n`) were not written before it."""

_OPEN_FLAGS = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
_END_RESERVE_BYTES = 4096
"""Kept free below `MAX_LOG_BYTES` for the counts that end a log."""
_MAX_TEXT_CHARS = 2000

Value = str | bool | int | float | Decimal | datetime | None
"""What an event can tell of itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One line of the log."""

    at: datetime
    """UTC."""
    lane: str | None
    """`endpoint/model`; None for what concerns the whole run."""
    what: str
    values: Mapping[str, Any]
    """JSON values."""


@dataclass(slots=True)
class _Second:
    """What one lane has told in one second."""

    number: int
    n_written: int = 0
    kinds: set[str] = field(default_factory=set)


class EventLog:
    """The one writer of a run's event log; a context manager.

    Args:
        folder: The run; its lock is held by the caller.
        max_per_second: See `MAX_PER_SECOND`.
        max_bytes: See `MAX_LOG_BYTES`.
        write: `os.write`, or a test's own.
    """

    def __init__(
        self,
        folder: RunFolder,
        *,
        max_per_second: int = MAX_PER_SECOND,
        max_bytes: int = MAX_LOG_BYTES,
        write: Callable[[int, memoryview], int] = os.write,
    ) -> None:
        self.problem: str | None = None
        """Why nothing more is written; None while all is well."""
        self.n_dropped = 0
        """Events that were not written, in this call."""
        self._path = folder.events_path
        self._max_per_second = max_per_second
        self._max_bytes = max_bytes
        self._write_bytes = write
        self._seconds: dict[str | None, _Second] = {}
        self._untold: dict[str | None, int] = {}
        self._last_at: datetime | None = None
        self._n_bytes = 0
        self._handle: int | None = None
        self._open()

    def __enter__(self) -> "EventLog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def append(self, what: str, *, at: datetime, lane: str | None = None, **values: Value) -> None:
        """Write an event, or count it when its lane has told enough in this second.

        Args:
            what: Its kind, one word of a small vocabulary.
            at: When it happened, with its time zone.
            lane: The lane it concerns; None for the whole run.
            values: What belongs to it. A number that is not finite is written as null.
        """
        self._last_at = at
        if not self._is_admitted(what, at, lane):
            self._drop(lane)
            return
        line = self._encode_dropped(lane, at) + _encode(what, at, lane, values)
        if self._write(line, self._max_bytes - _END_RESERVE_BYTES):
            self._untold.pop(lane, None)
        else:
            self._drop(lane)

    def close(self) -> None:
        """Write how many events were dropped since the last one that was not, and close the file."""
        if self._handle is None:
            return
        for lane in self._untold:
            assert self._last_at is not None  # Something was dropped, so something came.
            self._write(self._encode_dropped(lane, self._last_at), self._max_bytes)
        self._end(None)

    def _is_admitted(self, what: str, at: datetime, lane: str | None) -> bool:
        number = math.floor(at.timestamp())
        second = self._seconds.get(lane)
        if second is None or second.number != number:
            second = self._seconds[lane] = _Second(number)
        # The first of a kind always passes: that a lane stopped must not drown in its 429s.
        is_admitted = second.n_written < self._max_per_second or what not in second.kinds
        second.n_written += is_admitted
        second.kinds.add(what)
        return is_admitted

    def _drop(self, lane: str | None) -> None:
        self.n_dropped += 1
        self._untold[lane] = self._untold.get(lane, 0) + 1

    def _encode_dropped(self, lane: str | None, at: datetime) -> bytes:
        n = self._untold.get(lane)
        return b"" if n is None else _encode(DROPPED, at, lane, {"n": n})

    def _open(self) -> None:
        try:
            self._handle = os.open(self._path, _OPEN_FLAGS, FILE_MODE)
            os.fchmod(self._handle, FILE_MODE)  # The umask may have taken bits away.
            self._n_bytes = os.fstat(self._handle).st_size
            if self._n_bytes and os.pread(self._handle, 1, self._n_bytes - 1) != b"\n":
                self._write(b"\n", self._max_bytes)  # An earlier call died in the middle of a line.
        except OSError as error:
            self._end(error)

    def _write(self, line: bytes, max_bytes: int) -> bool:
        """Write a whole line; False when it was not: the log is full, or it has ended."""
        if self._handle is None or self._n_bytes + len(line) > max_bytes:
            return False
        try:
            left = memoryview(line)
            while left:
                left = left[self._write_bytes(self._handle, left) :]
        except OSError as error:
            with suppress(OSError):  # A torn line that stays is skipped by the reader.
                os.ftruncate(self._handle, self._n_bytes)
            self._end(error)
            return False
        self._n_bytes += len(line)
        return True

    def _end(self, error: OSError | None) -> None:
        if error is not None:
            why = error.strerror or error
            self.problem = f"cannot write {self._path}: {why}; the run goes on without its event log"
        if self._handle is not None:
            with suppress(OSError):
                os.close(self._handle)
            self._handle = None


class EventScan:
    """The events of a run in the order of the log, read line by line; iterate it once.

    Args:
        folder: The run. A run without a log has no events.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.n_damaged = 0
        """Lines so far that are no events: torn by a crash, or not ours."""
        self._path = folder.events_path

    def __iter__(self) -> Iterator[Event]:
        """Yield each event.

        Raises:
            StoreError: The log is there and cannot be read.
        """
        try:
            with open(self._path, "rb", opener=_open_own) as stream:
                while line := stream.readline(MAX_LINE_BYTES):
                    event = _parse(line)
                    if event is None:
                        self.n_damaged += 1
                    else:
                        yield event
        except FileNotFoundError:
            return
        except OSError as error:
            msg = f"cannot read {self._path}: {error.strerror or error}; check its owner and the disk"
            raise StoreError(msg) from error


def _open_own(path: str, flags: int) -> int:
    """Open a file of the run folder, which holds no links; a pipe in its place blocks nobody."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def _encode(what: str, at: datetime, lane: str | None, values: Mapping[str, Value]) -> bytes:
    """Return an event as a line; a lone surrogate becomes its escape, which is what JSON calls it, too."""
    moment = at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    plain = {name: _make_plain(value) for name, value in values.items()}
    text = json.dumps({"at": moment, "lane": lane, "what": what, "values": plain}, ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8", "backslashreplace") + b"\n"


def _make_plain(value: Value) -> Any:
    if isinstance(value, str):
        return value if len(value) <= _MAX_TEXT_CHARS else value[: _MAX_TEXT_CHARS - 1] + "…"
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if isinstance(value, Decimal):
        value = round(float(value), 12)
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _parse(line: bytes) -> Event | None:
    """Return the event of a line; None for a line that is none."""
    try:
        fields = json.loads(line)
        at, lane, what, values = fields["at"], fields["lane"], fields["what"], fields["values"]
        moment = datetime.fromisoformat(at).astimezone(UTC)
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None
    is_event = isinstance(lane, str | None) and isinstance(what, str) and isinstance(values, dict)
    return Event(at=moment, lane=lane, what=what, values=values) if is_event else None
