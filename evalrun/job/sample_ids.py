"""Ids of samples: given ones checked to be unique, others made from the row's content.

Only hashes are kept: 16 bytes an id, whatever the number of samples.
"""

import re
from array import array
from collections.abc import Mapping
from typing import Any

from evalrun.job.canonical import encode_json, make_digest
from evalrun.job.scalars import name_value

MAX_ID_BYTES = 1024
"""Longest id."""

_UNUSABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")

DIGEST_CHARS = 16
"""Hex digits of an id that is made from the row."""


class HashSet:
    """A set of 64-bit hashes in one flat array: a Python set of a million takes 100 MB, this one 16."""

    __slots__ = ("_count", "_mask", "_slots")

    def __init__(self) -> None:
        """Start empty."""
        self._slots = array("q", [0]) * 1024
        self._mask = 1023
        self._count = 0

    def add(self, key: int) -> bool:
        """Add a hash; True when it was not there before."""
        key = key or 1  # 0 marks a free slot.
        slots, mask = self._slots, self._mask
        index = key & mask
        while slots[index]:
            if slots[index] == key:
                return False
            index = (index + 1) & mask
        slots[index] = key
        self._count += 1
        if self._count * 2 > mask:
            self._grow()
        return True

    def _grow(self) -> None:
        old = self._slots
        self._mask = len(old) * 2 - 1
        self._slots = slots = array("q", [0]) * (2 * len(old))  # Made in place: `bytes` would be there a second time.
        for key in old:
            if key:
                index = key & self._mask
                while slots[index]:
                    index = (index + 1) & self._mask
                slots[index] = key


class IdMaker:
    """Gives each row its id, and tells given ids that were there before.

    Args:
        repeated: Digest ids that a full scan found more than once; None when this is that full scan. A later scan
            needs nothing else, so that several of them can run beside each other.
    """

    __slots__ = ("_counts", "_repeated", "_seen")

    def __init__(self, repeated: frozenset[str] | None = None) -> None:
        """Start a scan."""
        self._seen = HashSet() if repeated is None else None
        self._repeated = repeated
        self._counts: dict[str, int] = {}

    @property
    def repeated(self) -> frozenset[str]:
        """Digest ids seen more than once so far."""
        return frozenset(self._counts)

    def is_new(self, sample_id: str) -> bool:
        """Note a given id; False when one with its hash was there before."""
        return self._seen is None or self._seen.add(hash(sample_id))

    def make_id(self, row: Mapping[str, Any]) -> str:
        """Return the id of a row without one: a digest of its content, and -2, -3 after it for rows equal to it."""
        digest = make_digest(row)[:DIGEST_CHARS]
        if self._seen is not None:
            is_first = digest not in self._counts and self._seen.add(hash(digest))
        else:
            is_first = self._repeated is None or digest not in self._repeated
        if is_first:
            return digest
        start = 1 if self._seen is not None else 0
        number = self._counts.get(digest, start) + 1
        self._counts[digest] = number
        return digest if number == 1 else f"{digest}-{number}"


def read_id(value: Any) -> str:
    """Return a given id as text; a number or boolean becomes its JSON text.

    Raises:
        ValueError: The value cannot be an id; the message says why.
    """
    if not isinstance(value, str):
        if isinstance(value, bool | int | float):
            return encode_json(value).decode()
        msg = f"an id must be text or a number, got {name_value(value)}"
        raise ValueError(msg)
    if not value.strip():
        msg = "the id is empty"
        raise ValueError(msg)
    if not value.isprintable() and _UNUSABLE.search(value):  # Few ids need the search: what it finds is not printable.
        msg = f"the id {value[:60]!r} holds a control character"
        raise ValueError(msg)
    # Counting bytes is left to ids that could be too long.
    if len(value) * 4 > MAX_ID_BYTES and len(value.encode()) > MAX_ID_BYTES:
        msg = f"the id {value[:40]!r}… is longer than {MAX_ID_BYTES} bytes"
        raise ValueError(msg)
    return value
