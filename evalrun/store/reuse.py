"""Finished outcomes of older runs, found by what was asked; each is handed out at most once.

Journals of older runs enter, about 80 bytes a stored outcome; outcomes leave, read back from their files and proven
again. An older run may be finished, killed or still alive: what its journal proves is taken, without its lock.
"""

import os
import re
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from evalrun.errors import JournalDamagedError
from evalrun.records import FINISHED, Outcome, Status
from evalrun.store.folder import RunFolder
from evalrun.store.journal_format import Kind, parse_body, parse_frame
from evalrun.store.journal_index import RowTable
from evalrun.store.journal_scan import PlacedFrame, scan_good_frames
from evalrun.store.segment_lines import open_segment
from evalrun.store.stored_outcome import is_digest, is_run_id, parse_stored_outcome

# The head of nearly every `done` body, up to where a chain of reuses would show; what does not match is parsed as JSON.
_HEAD = re.compile(
    rb'\{"row_id":"([0-9a-f]{64})","request_key":"([0-9a-f]{64})","index":\d+,"status":"([a-z]+)","attempts":\d+,'
    rb'(?:"error_code":"[a-z0-9_]+",)?(?:"is_billed_estimated":true,)?(?:"billed_usd":"[0-9.E+-]+",)?'
    rb'(?:"cost_usd":"[0-9.E+-]+",)?"cost_source":"[a-z]+",(?!"reused_from")'
)
_STATUSES = frozenset(status.value for status in Status)
_OWN = ""
"""Stands for the run that takes, in place of a run_id: there a row is found by what it asked, whoever asked it."""


class _Head(NamedTuple):
    """What is needed to find an outcome again."""

    row_id: str
    request_key: str
    status: str
    reused_from: str | None = None
    reused_row_id: str | None = None


class StoredOutcomes:
    """Outcomes that are paid for already; a context manager that closes the files it reads.

    Args:
        own: The run that takes them, when it has a journal already: what it took before is not handed out again, and
            an answer of its own to what a row asked earlier, and asks again now, is found by `find_own`.

    Raises:
        JournalDamagedError: A segment of its journal is gone.
        SchemaMismatchError: Another version of evalrun wrote it.
        StoreError: It cannot be read.
    """

    def __init__(self, own: RunFolder | None = None) -> None:
        # An outcome is known by the run and row that asked, so that it counts once however many runs pass it on.
        self._identities = RowTable()
        self._keys = RowTable()
        # By number of the key: the first and last of its outcomes, as number + 1; by number of the outcome: the next.
        self._firsts, self._lasts, self._nexts = array("I"), array("I"), array("I")
        self._places = array("Q")  # File in the upper 24 bits, offset in the lower 40.
        self._lengths = array("I")
        self._is_taken = bytearray()
        self._files: list[tuple[Path, str]] = []
        self._handles: dict[int, int] = {}
        self._origins: dict[str, None] = {}
        self.notes: list[str] = []
        """What is worth saying of how the runs were read."""
        self.left_out: Counter[str] = Counter()
        """Records that are not as evalrun writes them, and so are not taken, by the run that they stand in."""
        if own is not None:
            for head, placed, file in self._scan(own):
                self._add_own(head, placed, file)

    def __enter__(self) -> "StoredOutcomes":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the files that were opened for reading."""
        while self._handles:
            os.close(self._handles.popitem()[1])

    def add_run(self, folder: RunFolder) -> int:
        """Take in an older run; earlier ones are preferred to later ones. Returns how many outcomes were new.

        Raises:
            JournalDamagedError: A segment of its journal is gone.
            SchemaMismatchError: Another version of evalrun wrote it.
            StoreError: It cannot be read.
        """
        n_before = len(self._places)
        for head, placed, file in self._scan(folder):
            origin = head.reused_from or self._files[file][1]
            number = self._add(_identify(origin, head.reused_row_id or head.row_id, head.request_key), placed, file)
            if number is not None:
                self._origins.setdefault(origin)
                self._link(head.request_key, number)
        return len(self._places) - n_before

    def take(self, row_id: str, request_key: str) -> Outcome | None:
        """Hand out an outcome of a request, that of the same row first; None when none is left.

        Returns:
            The outcome as it is stored, with the run and row that asked it in `reused_from` and `reused_row_id`.

        Raises:
            JournalDamagedError: The record on disk is no longer the one that was found.
        """
        while True:
            number = self._find(row_id, request_key)
            if number is None:
                return None
            self._is_taken[number] = True
            outcome, run_id = self._read(number, request_key)
            if outcome is not None:
                break
        origin_row_id = outcome.reused_row_id or outcome.row_id
        return replace(
            outcome,
            reused_from=outcome.reused_from or run_id,
            reused_row_id=None if origin_row_id == row_id else origin_row_id,
        )

    def find_own(self, row_id: str, request_key: str) -> Outcome | None:
        """Return what the run's own row answered to this request at an earlier time; None when it never did.

        Raises:
            JournalDamagedError: The record on disk is no longer the one that was found.
        """
        number = self._identities.find(_identify(_OWN, row_id, request_key))
        return None if number is None else self._read(number, request_key)[0]

    def list_notes(self) -> list[str]:
        """Return what is worth saying of what was not taken."""
        notes = list(self.notes)
        for run_id, count in self.left_out.items():
            records = "1 record" if count == 1 else f"{count:,} records"
            verb, what = ("is", "was") if count == 1 else ("are", "were")
            notes.append(f"warning: {records} of {run_id} {verb} not as evalrun writes them and {what} left out")
        return notes

    def _scan(self, folder: RunFolder) -> Iterator[tuple[_Head, PlacedFrame, int]]:
        """Yield the finished outcomes of a journal, with the number of the file that each is in."""
        run_id, finished = folder.run_id, {status.value for status in FINISHED}
        for placed in scan_good_frames(folder):
            if placed.frame.kind is Kind.RUN:
                # A folder may have been copied or renamed; the run's own word tells that it is the same run.
                run_id = _read_run_id(placed.frame.body) or run_id
            elif placed.frame.kind is Kind.DONE:
                head = _read_head(placed.frame.body)
                if head is None:
                    self.left_out[run_id] += 1
                elif head.status in finished:
                    if not self._files or self._files[-1] != (placed.path, run_id):
                        self._files.append((placed.path, run_id))
                    yield head, placed, len(self._files) - 1

    def _add_own(self, head: _Head, placed: PlacedFrame, file: int) -> None:
        self._add(_identify(_OWN, head.row_id, head.request_key), placed, file)
        origin = head.reused_from or self._files[file][1]
        number = self._add(_identify(origin, head.reused_row_id or head.row_id, head.request_key), placed, file)
        if number is not None:
            self._is_taken[number] = True

    def _add(self, identity: str, placed: PlacedFrame, file: int) -> int | None:
        """Return the number of a new outcome; None when it is known already."""
        number = self._identities.find_or_add(identity)
        if number < len(self._places):
            return None
        self._places.append(file << 40 | placed.offset)
        self._lengths.append(placed.n_bytes)
        self._nexts.append(0)
        self._is_taken.append(False)
        return number

    def _link(self, request_key: str, number: int) -> None:
        """Put an outcome behind the others of its request."""
        key = self._keys.find_or_add(request_key)
        if key == len(self._firsts):
            self._firsts.append(number + 1)
            self._lasts.append(number + 1)
            return
        if self._firsts[key]:
            self._nexts[self._lasts[key] - 1] = number + 1
        else:
            self._firsts[key] = number + 1
        self._lasts[key] = number + 1

    def _find(self, row_id: str, request_key: str) -> int | None:
        """Return the number of an outcome that is not taken yet."""
        key = self._keys.find(request_key)
        if key is None:
            return None
        for origin in self._origins:
            number = self._identities.find(_identify(origin, row_id, request_key))
            if number is not None and not self._is_taken[number]:
                return number
        # Taken ones at the front are left behind for good, so that many equal requests cost no more than few.
        while (first := self._firsts[key]) and self._is_taken[first - 1]:
            self._firsts[key] = self._nexts[first - 1]
        return first - 1 if first else None

    def _read(self, number: int, request_key: str) -> tuple[Outcome | None, str]:
        """Return an outcome, None when it does not hold, and the run whose journal it stands in."""
        file, offset = self._places[number] >> 40, self._places[number] & 0xFF_FFFF_FFFF
        path, run_id = self._files[file]
        handle = self._handles.get(file)
        if handle is None:
            handle = self._handles[file] = open_segment(path)
        frame = parse_frame(os.pread(handle, self._lengths[number], offset))
        if frame is None or frame.kind is not Kind.DONE:
            msg = f"{path}: the record at byte {offset} changed since it was read; is another program writing there?"
            raise JournalDamagedError(msg)
        outcome = parse_stored_outcome(frame.body)
        if outcome is None or outcome.request_key != request_key:
            self.left_out[run_id] += 1
            return None, run_id
        return outcome, run_id


def read_first_keys(folder: RunFolder, *, max_bytes: int) -> set[str]:
    """Return the request_keys of the finished outcomes at the start of a journal.

    Args:
        folder: The run.
        max_bytes: How much of the journal is read, about; outcomes come nearly in the order of the plan.

    Raises:
        JournalDamagedError: A segment of its journal is gone.
        SchemaMismatchError: Another version of evalrun wrote it.
        StoreError: It cannot be read.
    """
    keys: set[str] = set()
    n_bytes, finished = 0, {status.value for status in FINISHED}
    for placed in scan_good_frames(folder):
        n_bytes += placed.n_bytes
        if n_bytes > max_bytes:
            break
        if placed.frame.kind is Kind.DONE:
            head = _read_head(placed.frame.body)
            if head is not None and head.status in finished:
                keys.add(head.request_key)
    return keys


def _identify(run_id: str, row_id: str, request_key: str) -> str:
    return f"{run_id}/{row_id}/{request_key}"


def _read_run_id(body: bytes) -> str | None:
    """Return the run that a call's record names; None when it names none that could be one."""
    try:
        run_id = parse_body(body).get("run_id")
    except ValueError:
        return None
    return run_id if is_run_id(run_id) else None


def _read_head(body: bytes) -> _Head | None:
    """Return how an outcome is found again; None when it is none that evalrun writes."""
    match = _HEAD.match(body)
    if match is not None:
        return _Head(match[1].decode(), match[2].decode(), match[3].decode())
    try:
        get = parse_body(body).get
    except ValueError:
        return None
    head = _Head(get("row_id"), get("request_key"), get("status"), get("reused_from"), get("reused_row_id"))  # type: ignore[arg-type]
    is_whole = (
        is_digest(head.row_id)
        and is_digest(head.request_key)
        and type(head.status) is str
        and head.status in _STATUSES
        and (head.reused_from is None or is_run_id(head.reused_from))
        and (head.reused_row_id is None or is_digest(head.reused_row_id))
    )
    return head if is_whole else None
