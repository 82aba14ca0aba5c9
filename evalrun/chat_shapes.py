"""Shapes of JSON values: what a value may be, and each way in which one differs.

A shape and a value enter; faults leave, each with its path, what was expected and what came. Shapes know nothing of
HTTP, files or wording: who reports a fault chooses the words. Keys that a shape does not name pass untouched.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

FaultPath = tuple[str | int, ...]


class FaultKind(StrEnum):
    """In which way a value differs from its shape."""

    TYPE = "type"
    """It is of another JSON type."""
    MISSING = "missing"
    """A required key is not there."""
    CHOICE = "choice"
    """It is none of the words that are known."""
    BELOW = "below"
    ABOVE = "above"
    TOO_FEW = "too_few"
    """An array has fewer items than `bound`."""
    TOO_MANY = "too_many"
    """An array or an object has more items than `bound`."""
    TOO_LONG = "too_long"
    """A string has more characters than `bound`."""
    PATTERN = "pattern"
    """A string does not match `expected`, a regular expression."""
    KEY = "key"
    """A key of a map is not one that may stand there; `got` is the key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParamFault:
    """One way in which a value differs from what is documented."""

    path: FaultPath = ()
    """Keys and 0-based positions that lead from the value checked to the one at fault; () for itself."""
    kind: FaultKind
    expected: str
    """What may stand there, in JSON's words: `a number`, `an array of strings`, `'low', 'high'`, `at most 2`."""
    got: Any
    """The value itself; None when there is none."""
    bound: float | None = None
    """The limit that was passed; None for kinds without one."""
    unit: str = ""
    """What the bound counts: `number`, `integer`, `characters`, `items` or `pairs`."""
    choices: tuple[str, ...] = ()
    """The words that are known; empty for other kinds."""

    def under(self, key: str | int) -> "ParamFault":
        """Return the fault as seen from the object or array that holds the value."""
        return replace(self, path=(key, *self.path))


Faults = Sequence[ParamFault]
NO_FAULTS: Faults = ()


class Shape(ABC):
    """What a JSON value may be; null is looked at by whoever holds the value."""

    __slots__ = ("expected", "types")

    def __init__(self, expected: str, *types: type) -> None:
        """Name the shape.

        Args:
            expected: In JSON's words, with an article.
            types: Exact Python types of such values as JSON parsers give them: `bool` is no `int`.
        """
        self.expected = expected
        self.types = frozenset(types)

    def check(self, value: Any) -> Faults:
        """Return every way in which a value differs; empty when it fits."""
        if type(value) in self.types:
            return self._look_inside(value)
        return [ParamFault(kind=FaultKind.TYPE, expected=self.expected, got=value)]

    @abstractmethod
    def _look_inside(self, value: Any) -> Faults:
        """Check a value of the right type."""

    @abstractmethod
    def describe(self) -> str:
        """Return the shape in words, for a table: `number from 0 to 2`."""


class Boolean(Shape):
    """True or false."""

    __slots__ = ()

    def __init__(self) -> None:
        """Name the shape."""
        super().__init__("a boolean", bool)

    def _look_inside(self, value: Any) -> Faults:  # noqa: ARG002 - every boolean fits
        return NO_FAULTS

    def describe(self) -> str:
        """Return the shape in words."""
        return "boolean"


class Number(Shape):
    """A number within bounds, both included; None = no bound."""

    __slots__ = ("_high", "_low", "_unit")

    def __init__(self, low: float | None = None, high: float | None = None) -> None:
        """Keep the bounds."""
        super().__init__("a number", int, float)
        self._low, self._high, self._unit = low, high, "number"

    def _look_inside(self, value: Any) -> Faults:
        if self._low is not None and value < self._low:
            kind, words, bound = FaultKind.BELOW, f"at least {self._low}", self._low
        elif self._high is not None and value > self._high:
            kind, words, bound = FaultKind.ABOVE, f"at most {self._high}", self._high
        else:
            return NO_FAULTS
        return [ParamFault(kind=kind, expected=words, got=value, bound=bound, unit=self._unit)]

    def describe(self) -> str:
        """Return the shape in words."""
        if self._low is None or self._high is None:
            return self._unit + (f" ≥ {self._low}" if self._low is not None else "")
        # The bounds of 64 bits say no more than that.
        return f"64-bit {self._unit}" if self._high == 2**63 - 1 else f"{self._unit} from {self._low} to {self._high}"


class Integer(Number):
    """A whole number within bounds; 1.0 is none."""

    __slots__ = ()

    def __init__(self, low: int | None = None, high: int | None = None) -> None:
        """Keep the bounds."""
        super().__init__(low, high)
        self.expected, self.types, self._unit = "an integer", frozenset({int}), "integer"


class Text(Shape):
    """A string of limited length, of a pattern; None = any."""

    __slots__ = ("_max_chars", "_pattern")

    def __init__(self, max_chars: int | None = None, pattern: str | None = None) -> None:
        """Keep the limits."""
        super().__init__("a string", str)
        self._max_chars, self._pattern = max_chars, pattern

    def _look_inside(self, value: Any) -> Faults:
        if self._max_chars is not None and len(value) > self._max_chars:
            bound, words = self._max_chars, f"at most {self._max_chars} characters"
            return [ParamFault(kind=FaultKind.TOO_LONG, expected=words, got=value, bound=bound, unit="characters")]
        if self._pattern is not None and not re.fullmatch(self._pattern, value):
            return [ParamFault(kind=FaultKind.PATTERN, expected=f"^{self._pattern}$", got=value)]
        return NO_FAULTS

    def describe(self) -> str:
        """Return the shape in words."""
        return "string" + (f" of at most {self._max_chars} characters" if self._max_chars is not None else "")


class Choice(Shape):
    """One of some words."""

    __slots__ = ("words",)

    def __init__(self, *words: str) -> None:
        """Keep the words in their order."""
        super().__init__(f"one of {_quote(words)}" if len(words) > 1 else _quote(words), str)
        self.words = words

    def _look_inside(self, value: Any) -> Faults:
        if value in self.words:
            return NO_FAULTS
        return [ParamFault(kind=FaultKind.CHOICE, expected=_quote(self.words), got=value, choices=self.words)]

    def describe(self) -> str:
        """Return the shape in words."""
        return " or ".join(f"`{word}`" for word in self.words)


class List(Shape):
    """An array of equal shapes, of some length."""

    __slots__ = ("_item", "_max_items", "_min_items")

    def __init__(self, item: Shape, min_items: int = 0, max_items: int | None = None) -> None:
        """Name the array after its items."""
        article, _, noun = item.expected.partition(" ")
        super().__init__(f"an array of {'strings' if article not in ('a', 'an') else noun + 's'}", list)
        self._item, self._min_items, self._max_items = item, min_items, max_items

    def _look_inside(self, value: Any) -> Faults:
        if len(value) < self._min_items:
            bound, words = self._min_items, f"at least {self._min_items} items"
            return [ParamFault(kind=FaultKind.TOO_FEW, expected=words, got=value, bound=bound, unit="items")]
        if self._max_items is not None and len(value) > self._max_items:
            bound, words = self._max_items, f"at most {self._max_items} items"
            return [ParamFault(kind=FaultKind.TOO_MANY, expected=words, got=value, bound=bound, unit="items")]
        check = self._item.check
        return [fault.under(index) for index, item in enumerate(value) for fault in check(item)]

    def describe(self) -> str:
        """Return the shape in words."""
        many = f" of {self._min_items} to {self._max_items}" if self._max_items is not None else ""
        return f"array{many}: {self._item.describe()}"


class Map(Shape):
    """An object whose keys the author chooses.

    Args:
        value: Shape of every value.
        key: Shape of every key.
        max_pairs: None = any number.
    """

    __slots__ = ("_key", "_max_pairs", "_value")

    def __init__(self, value: Shape, *, key: Text, max_pairs: int | None = None) -> None:
        """Keep the shapes."""
        super().__init__("an object", dict)
        self._value, self._key, self._max_pairs = value, key, max_pairs

    def _look_inside(self, value: Any) -> Faults:
        if self._max_pairs is not None and len(value) > self._max_pairs:
            bound, words = self._max_pairs, f"at most {self._max_pairs} pairs"
            return [ParamFault(kind=FaultKind.TOO_MANY, expected=words, got=value, bound=bound, unit="pairs")]
        found: list[ParamFault] = []
        for key, item in value.items():
            wrong = self._key.check(key)
            found += [replace(fault, kind=FaultKind.KEY) for fault in wrong]
            if not wrong:
                found += [fault.under(key) for fault in self._value.check(item)]
        return found

    def describe(self) -> str:
        """Return the shape in words."""
        many = f" of at most {self._max_pairs} pairs" if self._max_pairs is not None else ""
        return f"object{many}, each value: {self._value.describe()}"


class Record(Shape):
    """An object with known keys; others pass untouched. A null at an optional key counts as not given.

    Args:
        required: Keys that must be there.
        optional: Keys that may be.
        needs_one_of: Of these, one at least must say something; the first is reported.
    """

    __slots__ = ("_known", "_needs_one_of", "_optional", "_required")

    def __init__(
        self,
        required: Mapping[str, Shape] | None = None,
        optional: Mapping[str, Shape] | None = None,
        *,
        needs_one_of: tuple[str, ...] = (),
    ) -> None:
        """Keep the shapes by key."""
        super().__init__("an object", dict)
        self._required = dict(required or {})
        self._optional = dict(optional or {})
        self._known = self._required | self._optional
        self._needs_one_of = needs_one_of

    def _look_inside(self, value: Any) -> Faults:
        found: list[ParamFault] = []
        for key, shape in self._required.items():
            if key not in value:
                found.append(ParamFault(path=(key,), kind=FaultKind.MISSING, expected=shape.expected, got=None))
        for key, item in value.items():
            known = self._known.get(key)
            if known is None or (item is None and key in self._optional):
                continue
            if faults := known.check(item):
                found += [fault.under(key) for fault in faults]
        if self._needs_one_of and not any(value.get(key) not in _NOTHING for key in self._needs_one_of):
            first = self._needs_one_of[0]
            expected = self._optional[first].expected
            found.append(ParamFault(path=(first,), kind=FaultKind.TYPE, expected=expected, got=value.get(first)))
        return found

    def describe(self) -> str:
        """Return the shape in words; a key that may be left out is marked with `?`."""
        keys = [f"`{key}`" for key in self._required] + [f"`{key}`?" for key in self._optional]
        return f"object with {', '.join(keys)}" if keys else "object"


class Tagged(Shape):
    """An object whose shape follows from one of its keys.

    Args:
        tag: The key.
        cases: Shape by the key's value.
    """

    __slots__ = ("_cases", "_tag", "_tag_shape")

    def __init__(self, tag: str, cases: Mapping[str, Record]) -> None:
        """Keep the cases by word."""
        super().__init__("an object", dict)
        self._tag, self._cases = tag, dict(cases)
        self._tag_shape = Choice(*self._cases)

    def _look_inside(self, value: Any) -> Faults:
        word = value.get(self._tag)
        case = self._cases.get(word) if isinstance(word, str) else None
        if case is not None:
            return case.check(value)
        if self._tag in value:
            return [fault.under(self._tag) for fault in self._tag_shape.check(word)]
        expected = self._tag_shape.expected
        return [ParamFault(path=(self._tag,), kind=FaultKind.MISSING, expected=expected, got=None)]

    def describe(self) -> str:
        """Return the shape in words."""
        return f"object with `{self._tag}` {self._tag_shape.describe()}"


class Either(Shape):
    """A value of one of some shapes, told apart by their JSON type."""

    __slots__ = ("_by_type", "_shapes")

    def __init__(self, *shapes: Shape) -> None:
        """Name the union after its parts."""
        super().__init__(" or ".join(shape.expected for shape in shapes), *(t for one in shapes for t in one.types))
        self._shapes = shapes
        self._by_type = {kind: shape for shape in reversed(shapes) for kind in shape.types}

    def _look_inside(self, value: Any) -> Faults:
        return self._by_type[type(value)].check(value)

    def describe(self) -> str:
        """Return the shape in words."""
        return ", or ".join(shape.describe() for shape in self._shapes)


class Null(Shape):
    """Null, at a key that must be there."""

    __slots__ = ()

    def __init__(self) -> None:
        """Name the shape."""
        super().__init__("null", type(None))

    def _look_inside(self, value: Any) -> Faults:  # noqa: ARG002 - there is but one null
        return NO_FAULTS

    def describe(self) -> str:
        """Return the shape in words."""
        return "null"


_NOTHING: tuple[Any, ...] = (None, [], {})


def _quote(words: tuple[str, ...]) -> str:
    return ", ".join(f"'{word}'" for word in words)
