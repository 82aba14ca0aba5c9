"""What the journal says of each row, small enough for a million rows, and the way back to the full record.

Frames enter in the order they were written; leaves the newest outcome of each row, by place on disk. About 70 bytes per
row stay in memory: fixed-width columns and a hash table over them, no object per row. Only what is unfinished or in
flight costs more. A record read back proves itself again by its checksum and its row_id.
"""

import hashlib
import re
from array import array
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

from evalrun.records import FINISHED, Attempt, ErrorCode, Outcome, Started, Status, UsageSource
from evalrun.store.journal_format import (
    FORMAT_VERSION,
    Frame,
    Kind,
    parse_attempt,
    parse_body,
    parse_frame,
    parse_last_attempt,
    parse_outcome,
)
from evalrun.store.segment_files import Place, SegmentFiles, list_segments
from evalrun.store.segment_lines import scan_segment

_NO_OUTCOME = len(Status)
_STATUSES: tuple[Status | None, ...] = (*Status, None)
_STATUS_NUMBERS: dict[str, int] = {status: number for number, status in enumerate(Status)}
_STATUS_BYTES = {status.encode(): number for status, number in _STATUS_NUMBERS.items()}
_FINISHED_NUMBERS = frozenset(_STATUS_NUMBERS[status] for status in FINISHED)
_MAX_U16 = 65_535
_BLOCK_ROWS = 1_024
_OFFSET_BITS = 0xFF_FFFF_FFFF
_ZERO_USD = Decimal(0)

# Nearly every line, as `encode_record` writes it. What does not match is parsed as JSON, which takes much longer.
_USUAL_LINE = re.compile(
    rb'\{"v":%d,"t":"(started|done)","crc":"([0-9a-f]{8})","b":'
    % FORMAT_VERSION
    + rb'(?=\{"row_id":"(.{64})","request_key":"(.{64})","index":\d+,'
    rb'(?:"attempt":(\d+)\}\}\n|"status":"([a-z]+)","attempts":(\d+),'
    rb'(?:"error_code":"([a-z0-9_]+)",)?(?:"is_billed_estimated":(true),)?(?:"billed_usd":"([0-9.E+-]+)",)?'
    rb'"cost_(?:usd|source)":))',
    re.DOTALL,  # A run of any 64 bytes is one step, where letters and digits would be 64.
)
_NOTHING: dict[str, Any] = {}


class Entry(NamedTuple):
    """What a resume needs to know of a row."""

    status: Status | None
    """Of the newest outcome; None when the row has none: it failed or was in flight when the process died."""
    error_code: str | None
    request_key: str
    """Of the newest record."""
    attempts: int
    """Attempts so far over the whole run; one that was in flight when a process died counts."""
    billed_usd: Decimal | None
    """Cost so far of an unfinished row; None when unknown. Always None for a finished row: read its outcome."""
    is_permanent: bool = False
    """Whether the newest outcome is an error that cannot pass, though its code can."""
    is_billed_estimated: bool = False
    """Whether what the row has cost so far holds an estimate; of a finished row as well."""
    number: int = 0
    """The row's number, by first appearance in the journal, 0-based."""


class InDoubt(NamedTuple):
    """A request that was in flight when a process died: it may be sent once more."""

    row_id: str
    request_key: str
    attempt: int


_Flight = tuple[int, str, int]
"""A request that was started, and has no attempt or outcome after it so far: number of its row, request_key, attempt.

No named one: it is made for every request.
"""


class RowTable:
    """Rows numbered in the order of their first appearance, found again by row_id.

    An open-addressing hash table of 4-byte numbers over 16-byte digests: a dict of strings costs four times as much.
    """

    def __init__(self) -> None:
        self._digests = bytearray()
        self._n_rows = 0
        self._slots = array("I", bytes(4 * 1024))

    def __len__(self) -> int:
        return self._n_rows

    def find(self, row_id: str) -> int | None:
        """Return the number of a row; None when it never appeared."""
        digest = _digest_row_id(row_id)
        number = self._slots[self._find_slot(digest)]
        return number - 1 if number else None

    def find_or_add(self, row_id: str) -> int:
        """Return the number of a row, a new one when it never appeared."""
        digest = _digest_row_id(row_id)
        slot = self._find_slot(digest)
        if number := self._slots[slot]:
            return number - 1
        self._digests += digest
        self._n_rows += 1
        self._slots[slot] = self._n_rows
        if self._n_rows * 3 > len(self._slots) * 2:
            self._grow()
        return self._n_rows - 1

    def _find_slot(self, digest: bytes) -> int:
        """Return the slot that holds a digest, or the empty one where it belongs."""
        slots, digests = self._slots, self._digests
        mask = len(slots) - 1
        slot = hash(digest) & mask
        while number := slots[slot]:
            if digests[16 * number - 16 : 16 * number] == digest:
                break
            slot = (slot + 1) & mask
        return slot

    def _grow(self) -> None:
        """Double the table; its digests all differ, so that each only needs the next empty slot."""
        slots, digests = array("I", bytes(4 * 2 * len(self._slots))), self._digests
        mask = len(slots) - 1
        for number in range(1, self._n_rows + 1):
            slot = hash(bytes(digests[16 * number - 16 : 16 * number])) & mask
            while slots[slot]:
                slot = (slot + 1) & mask
            slots[slot] = number
        self._slots = slots


class JournalIndex:
    """The journal's rows, by row_id. Fed by `scan_journal`, and by `Journal` while it writes.

    Args:
        journal_dir: Folder of the segments.
    """

    def __init__(self, journal_dir: Path) -> None:
        self.sessions: list[dict[str, Any]] = []
        """Facts of each call of the run, oldest first."""
        self.n_records = 0
        """Good records of all kinds."""
        self.torn_bytes = 0
        """Bytes after the last good record, never acknowledged, cut or ignored."""
        self.dropped_bytes = 0
        """Damaged bytes before good records, left out because a repair was asked for."""
        self.asked_again: list[InDoubt] = []
        """Requests in doubt that a later call sent once more: the first sending, whose cost stays unknown."""
        self._journal_dir = journal_dir
        self._files = SegmentFiles(journal_dir)
        self._begin_rows()

    def _begin_rows(self) -> None:
        self._rows = RowTable()
        self._places = array("Q")  # Segment in the upper 24 bits, offset in the lower 40.
        self._lengths = array("I")
        self._keys = bytearray()  # 32 bytes per row.
        self._other_keys: dict[int, str] = {}
        self._statuses = bytearray()
        self._codes = bytearray()
        self._code_names: list[str | None] = [None, *(code.value for code in ErrorCode)]
        self._attempts = array("H")
        self._billed: dict[int, Decimal | None] = {}
        self._permanent: set[int] = set()
        self._estimated = bytearray()
        self._in_flight: dict[str, _Flight] = {}

    def __len__(self) -> int:
        """Return the number of rows that the journal knows."""
        return len(self._rows)

    def __enter__(self) -> "JournalIndex":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def n_asked_again(self) -> int:
        """How many requests in doubt were sent once more by a later call."""
        return len(self.asked_again)

    @property
    def in_doubt(self) -> tuple[InDoubt, ...]:
        """Requests that were started and have no attempt or outcome after it."""
        return tuple(InDoubt(row_id, *flight[1:]) for row_id, flight in self._in_flight.items())

    def find_doubt(self, row_id: str) -> InDoubt | None:
        """Return the row's request that was started and has no attempt or outcome after it; None when it has none."""
        flight = self._in_flight.get(row_id)
        return None if flight is None else InDoubt(row_id, *flight[1:])

    def get(self, row_id: str) -> Entry | None:
        """Return what is known of a row; None when the journal never saw it."""
        number = self._rows.find(row_id)
        if number is None:
            return None
        key = self._other_keys.get(number) or self._keys[32 * number : 32 * number + 32].hex()
        return Entry(
            status=_STATUSES[self._statuses[number]],
            error_code=self._code_names[self._codes[number]],
            request_key=key,
            attempts=self._attempts[number],
            billed_usd=None if row_id in self._in_flight else self._get_billed(number),
            is_permanent=number in self._permanent,
            is_billed_estimated=bool(self._estimated[number]),
            number=number,
        )

    def find_later_cost(self, row_id: str) -> Decimal | None:
        """Return what a finished row has cost since its outcome, asked something else then; None when unknown."""
        number = self._rows.find(row_id)
        if number is None or row_id in self._in_flight:
            return None
        return self._billed.get(number, _ZERO_USD)

    def find_answer(self, row_id: str, request_key: str) -> Place | None:
        """Return where the newest outcome of a row lies; None when there is none, or it is of another question."""
        number = self._rows.find(row_id)
        if number is None or self._statuses[number] == _NO_OUTCOME:
            return None
        key = self._other_keys.get(number) or self._keys[32 * number : 32 * number + 32].hex()
        return self._get_place(number) if key == request_key else None

    def read_outcome(self, row_id: str, *, with_attempt: bool = True) -> Outcome | None:
        """Read the newest outcome of a row back from disk; None when it has none.

        Args:
            row_id: The row.
            with_attempt: False leaves `last_attempt` out (None), which is faster; the tables do not need it.

        Raises:
            JournalDamagedError: The record on disk is no longer the one that was indexed.
        """
        number = self._rows.find(row_id)
        return None if number is None else self.read_numbered(number, with_attempt=with_attempt)

    def read_numbered(self, number: int, *, with_attempt: bool = True) -> Outcome | None:
        """Read the newest outcome of a row by the row's number, below `len`; the rest is as in `read_outcome`."""
        if self._statuses[number] == _NO_OUTCOME:
            return None
        place = self._get_place(number)
        frame = parse_frame(self._files.read(place))
        outcome = (
            parse_outcome(frame.body, with_attempt=with_attempt)
            if frame is not None and frame.kind is Kind.DONE
            else None
        )
        if outcome is None or self._rows.find(outcome.row_id) != number:
            raise self._files.make_changed_error(place)
        return outcome

    def scan_attempts(self) -> Iterator[Attempt]:
        """Read every attempt of the run, failed and final ones, in the order they were written."""
        for path in list_segments(self._journal_dir):
            for line in scan_segment(path):
                frame = line.frame
                if frame is None:
                    continue  # Torn or damaged: counted when the index was made.
                if frame.kind is Kind.ATTEMPT:
                    yield parse_attempt(frame.body)
                elif frame.kind is Kind.DONE and (last := parse_last_attempt(frame.body)) is not None:
                    yield last

    def close(self) -> None:
        """Close the segments that were opened for reading."""
        self._files.close()

    def forget_rows(self) -> None:
        """Close the index, and give the memory of its rows back: what follows the tables needs none of it."""
        self.close()
        self._begin_rows()

    def add_usual_line(self, line: bytes, *, segment: int, offset: int) -> bool:
        """Take in a line that was read and proves itself, when it is of the usual form; False for any other line."""
        match = _USUAL_LINE.match(line)
        if match is None:
            return False
        kind, crc, row_id, request_key, attempt, status, attempts, code, estimated, usd = match.groups()
        if line[-2:] != b"}\n" or crc32(line[match.end() : -2]) != int(crc, 16):
            return False
        if (kind == b"started") != (attempt is not None) or not (row_id.isalnum() and request_key.isalnum()):
            return False
        if attempt is not None:
            self._add_started(row_id.decode(), request_key.decode(), int(attempt))
            return True
        status_number = _STATUS_BYTES.get(status)
        if status_number is None:
            return False
        number = self._add_outcome(row_id.decode(), request_key.decode(), int(attempts), status_number)
        self._set_place(number, segment, offset, len(line))
        # What a finished row has cost stands in its outcome: it need not be read here.
        is_open = usd is not None and status_number not in _FINISHED_NUMBERS
        self._set_finish(number, code.decode() if code else None, Decimal(usd.decode()) if is_open else None)
        self._permanent.discard(number)
        if estimated is not None:
            self._estimated[number] = 1
        return True

    def add_frame(self, frame: Frame, *, segment: int, offset: int, length: int) -> None:
        """Take in a frame that was read."""
        self._add_fields(frame.kind, parse_body(frame.body), segment=segment, offset=offset, length=length)

    def _add_fields(self, kind: Kind, fields: dict[str, Any], *, segment: int, offset: int, length: int) -> None:
        if kind is Kind.RUN:
            self.add_session(fields)
            return
        row_id, request_key = fields["row_id"], fields["request_key"]
        if kind is Kind.STARTED:
            self._add_started(row_id, request_key, fields["attempt"])
        elif kind is Kind.ATTEMPT:
            number = self._add_attempt(row_id, request_key, fields["attempt"], _read_usd(fields.get("cost_usd")))
            is_estimate = fields.get("usage", _NOTHING).get("source") == UsageSource.ESTIMATED
            self._estimated[number] |= is_estimate and bool(_read_usd(fields.get("cost_usd")))
        else:
            number = self._add_outcome(row_id, request_key, fields["attempts"], _STATUS_NUMBERS[fields["status"]])
            self._set_place(number, segment, offset, length)
            self._set_finish(number, fields.get("error_code"), _read_usd(fields.get("billed_usd")))
            self._set_permanent(number, is_permanent=fields.get("is_permanent", False))
            self._estimated[number] |= fields.get("is_billed_estimated", False)

    def add_record(self, record: Started | Attempt | Outcome, *, segment: int, offset: int, length: int) -> None:
        """Take in a record that was written."""
        if isinstance(record, Started):
            self._add_started(record.row_id, record.request_key, record.attempt)
        elif isinstance(record, Attempt):
            number = self._add_attempt(record.row_id, record.request_key, record.attempt, record.cost_usd)
            self._estimated[number] |= record.is_cost_estimated
        else:
            status = _STATUS_NUMBERS[record.status]
            number = self._add_outcome(record.row_id, record.request_key, record.attempts, status)
            self._set_place(number, segment, offset, length)
            self._set_finish(number, record.error_code, record.billed_usd)
            self._set_permanent(number, is_permanent=record.is_permanent)
            self._estimated[number] |= record.is_billed_estimated

    def add_session(self, facts: dict[str, Any]) -> None:
        """Take in the facts of one call of the run."""
        self.n_records += 1
        self.sessions.append(facts)

    def _add_row(self, row_id: str, request_key: str, attempts: int) -> int:
        """Return the row's number; its key and its count of attempts are the newest ones."""
        self.n_records += 1
        flight = self._in_flight.get(row_id)
        if flight is not None and flight[1] == request_key:
            number = flight[0]  # Nearly every record but the first of a row: there is nothing to look up.
        else:
            number = self._rows.find_or_add(row_id)
            self._set_key(number, request_key)
        if attempts > self._attempts[number]:
            self._attempts[number] = min(attempts, _MAX_U16)
        return number

    def _set_key(self, number: int, request_key: str) -> None:
        if number == len(self._lengths):
            self._add_empty_rows()
        key = _pack_key(request_key)
        if key is None:
            self._other_keys[number] = request_key
        else:
            self._keys[32 * number : 32 * number + 32] = key
            if self._other_keys:
                self._other_keys.pop(number, None)

    def _add_empty_rows(self) -> None:
        """Make room for further rows in every column at once, since one by one is slower."""
        self._places.extend(bytes(_BLOCK_ROWS))
        self._lengths.extend(bytes(_BLOCK_ROWS))
        self._attempts.extend(bytes(_BLOCK_ROWS))
        self._statuses += bytes([_NO_OUTCOME]) * _BLOCK_ROWS
        self._codes += bytes(_BLOCK_ROWS)
        self._estimated += bytes(_BLOCK_ROWS)
        self._keys += bytes(32 * _BLOCK_ROWS)

    def _add_started(self, row_id: str, request_key: str, attempt: int) -> None:
        number = self._add_row(row_id, request_key, attempt)
        flight = self._in_flight.get(row_id)
        if flight is not None:
            # The process died with that request in flight: it was sent again, and its own cost stays unknown.
            self.asked_again.append(InDoubt(row_id, *flight[1:]))
            self._billed[number] = None
        self._in_flight[row_id] = (number, request_key, attempt)

    def _add_attempt(self, row_id: str, request_key: str, attempt: int, cost_usd: Decimal | None) -> int:
        number = self._add_row(row_id, request_key, attempt)
        self._in_flight.pop(row_id, None)
        billed_usd = self._billed.get(number, _ZERO_USD)  # Of a finished row: what came after its outcome.
        self._billed[number] = None if cost_usd is None or billed_usd is None else billed_usd + cost_usd
        return number

    def _add_outcome(self, row_id: str, request_key: str, attempts: int, status: int) -> int:
        number = self._add_row(row_id, request_key, attempts)
        self._in_flight.pop(row_id, None)
        self._statuses[number] = status
        return number

    def _get_billed(self, number: int) -> Decimal | None:
        """Return what an unfinished row has cost so far; None when unknown, and for a finished one."""
        is_finished = self._statuses[number] in _FINISHED_NUMBERS
        return None if is_finished else self._billed.get(number, _ZERO_USD)

    def _get_place(self, number: int) -> Place:
        place = self._places[number]
        return Place(place >> 40, place & _OFFSET_BITS, self._lengths[number])

    def _set_place(self, number: int, segment: int, offset: int, length: int) -> None:
        self._places[number] = segment << 40 | offset
        self._lengths[number] = length

    def _set_finish(self, number: int, error_code: str | None, billed_usd: Decimal | None) -> None:
        if error_code is None:
            self._codes[number] = 0
        else:
            if error_code not in self._code_names:
                self._code_names.append(error_code)
            self._codes[number] = self._code_names.index(error_code)
        if self._statuses[number] in _FINISHED_NUMBERS:
            self._billed.pop(number, None)
        else:
            self._billed[number] = billed_usd

    def _set_permanent(self, number: int, *, is_permanent: bool) -> None:
        if is_permanent:
            self._permanent.add(number)
        else:
            self._permanent.discard(number)


def _digest_row_id(row_id: str) -> bytes:
    if len(row_id) == 64:
        try:
            return bytes.fromhex(row_id[:32])
        except ValueError:
            pass
    return hashlib.sha256(row_id.encode("utf-8", "surrogatepass")).digest()[:16]


def _pack_key(request_key: str) -> bytes | None:
    """Return a sha256 in hex as its 32 bytes; None for any other text."""
    try:
        key = bytes.fromhex(request_key)
    except ValueError:
        return None
    return key if key.hex() == request_key and len(key) == 32 else None


def _read_usd(text: str | None) -> Decimal | None:
    return None if text is None else Decimal(text)
