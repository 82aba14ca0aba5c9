r"""Regular expressions as JSON Schema has them (ECMA-262), read into parts.

Enters: a pattern. Leaves: its parts; None when it holds what is not read here: look-around, back references, `\b`,
properties, possessive repetition. Read are literals, classes, groups, alternation, repetition, `^` and `$`.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

MAX_PATTERN_CHARS: Final = 2_000
"""Longest pattern that is read."""
MANY: Final = 2_000
"""Turns of a repetition without an upper bound."""

_MAX_DEPTH: Final = 40
_LAST_CHAR: Final = 0x10FFFF
Ranges = tuple[tuple[int, int], ...]
"""First and last code points of runs of characters."""


@dataclass(frozen=True, slots=True)
class Chars:
    """One character out of ranges."""

    ranges: Ranges


@dataclass(frozen=True, slots=True)
class Anchor:
    """`^` or `$`."""

    kind: Literal["^", "$"]


@dataclass(frozen=True, slots=True)
class Row:
    """One after the other."""

    parts: "tuple[Node, ...]"


@dataclass(frozen=True, slots=True)
class Either:
    """One of several."""

    branches: "tuple[Node, ...]"


@dataclass(frozen=True, slots=True)
class Repeat:
    """The same, `low` to `high` times."""

    part: "Node"
    low: int
    high: int
    """MANY when there is no bound."""


Node = Chars | Anchor | Row | Either | Repeat


def parse_pattern(pattern: str) -> Node | None:
    """Return a pattern's parts; None when it holds what is not read here, or is no pattern."""
    if len(pattern) > MAX_PATTERN_CHARS:
        return None
    try:
        return _Parser(pattern).parse()
    except (NotReadError, IndexError, ValueError):
        return None


class NotReadError(Exception):
    """The pattern holds what is not read here, or asks for too much."""


class _Parser:
    """Reads one pattern from left to right."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._at = 0
        self._depth = 0

    def parse(self) -> Node:
        node = self._read_either()
        if self._at < len(self._pattern):
            raise NotReadError
        return node

    def _peek(self) -> str:
        return self._pattern[self._at : self._at + 1]

    def _take(self) -> str:
        char = self._pattern[self._at]
        self._at += 1
        return char

    def _skip(self, text: str) -> bool:
        is_there = self._pattern.startswith(text, self._at)
        self._at += len(text) if is_there else 0
        return is_there

    def _read_either(self) -> Node:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise NotReadError
        branches = [self._read_row()]
        while self._skip("|"):
            branches.append(self._read_row())
        self._depth -= 1
        return branches[0] if len(branches) == 1 else Either(tuple(branches))

    def _read_row(self) -> Node:
        parts: list[Node] = []
        while self._peek() not in ("", "|", ")"):
            parts.append(self._read_repeat(self._read_one()))
        return Row(tuple(parts))

    def _read_one(self) -> Node:
        char = self._take()
        if char in "^$":
            return Anchor("^" if char == "^" else "$")
        if char == "(":
            return self._read_group()
        if char == "[":
            return self._read_class()
        if char == "\\":
            return Chars(self._read_escape())
        if char in "*+?{":
            raise NotReadError
        return Chars(_LINE if char == "." else _only(char))

    def _read_group(self) -> Node:
        if self._skip("?") and not self._skip(":"):
            if not self._skip("<") or self._peek() in ("=", "!"):
                raise NotReadError
            self._at = self._pattern.index(">", self._at) + 1
        node = self._read_either()
        if not self._skip(")"):
            raise NotReadError
        return node

    def _read_repeat(self, node: Node) -> Node:
        low, high = 1, 1
        if self._skip("*"):
            low, high = 0, MANY
        elif self._skip("+"):
            low, high = 1, MANY
        elif self._skip("?"):
            low, high = 0, 1
        elif self._skip("{"):
            end = self._pattern.index("}", self._at)
            first, comma, last = self._pattern[self._at : end].partition(",")
            low = _read_count(first)
            high = low if not comma else _read_count(last) if last else max(low, MANY)
            self._at = end + 1
        else:
            return node
        self._skip("?")  # A lazy repetition matches the same texts.
        if self._peek() in ("*", "+", "?", "{") or low > high:
            raise NotReadError
        return Repeat(node, low, high)

    def _read_class(self) -> Node:
        is_negated = self._skip("^")
        ranges: list[tuple[int, int]] = []
        while not self._skip("]"):
            found = self._read_class_atom()
            if len(found) == 1 and found[0][0] == found[0][1] and self._peek() == "-" and self._has_range_end():
                self._take()
                last = self._read_class_atom()
                found = ((found[0][0], last[0][1]),)
                if len(last) != 1 or found[0][0] > found[0][1]:
                    raise NotReadError
            ranges += found
        return Chars(_negate(ranges) if is_negated else tuple(ranges))

    def _has_range_end(self) -> bool:
        return self._pattern[self._at + 1 : self._at + 2] not in ("", "]")

    def _read_class_atom(self) -> Ranges:
        char = self._take()
        if char != "\\":
            return _only(char)
        return ((8, 8),) if self._skip("b") else self._read_escape()

    def _read_escape(self) -> Ranges:
        char = self._take()
        if char in _ESCAPED_CLASSES:
            return _ESCAPED_CLASSES[char]
        if char in _ESCAPED_CHARS:
            return _only(_ESCAPED_CHARS[char])
        if char in "xu":
            n_digits = 2 if char == "x" else 4
            digits = self._pattern[self._at : self._at + n_digits]
            self._at += n_digits
            if len(digits) < n_digits or not _HEX.issuperset(digits):
                raise NotReadError
            return _only(chr(int(digits, 16)))
        if char.isalnum():
            raise NotReadError
        return _only(char)


def _read_count(digits: str) -> int:
    if not (digits.isascii() and digits.isdigit()):
        raise NotReadError
    return int(digits)


def _only(char: str) -> Ranges:
    return ((ord(char), ord(char)),)


def _negate(ranges: Iterable[tuple[int, int]]) -> Ranges:
    return tuple(_scan_gaps(sorted(ranges)))


def _scan_gaps(ranges: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    start = 0
    for low, high in ranges:
        if low > start:
            yield start, low - 1
        start = max(start, high + 1)
    if start <= _LAST_CHAR:
        yield start, _LAST_CHAR


_HEX: Final = frozenset("0123456789abcdefABCDEF")
_DIGITS: Final = ((48, 57),)
_WORD: Final = ((48, 57), (65, 90), (95, 95), (97, 122))
_SPACE: Final = ((32, 32), (9, 13), (0xA0, 0xA0), (0xFEFF, 0xFEFF), (0x2028, 0x2029))
_LINE: Final = _negate([(10, 10), (13, 13), (0x2028, 0x2029)])
_ESCAPED_CLASSES: Final = {
    "d": _DIGITS,
    "D": _negate(_DIGITS),
    "w": _WORD,
    "W": _negate(_WORD),
    "s": _SPACE,
    "S": _negate(_SPACE),
}
_ESCAPED_CHARS: Final = {"n": "\n", "r": "\r", "t": "\t", "f": "\f", "v": "\v", "0": "\0"}
