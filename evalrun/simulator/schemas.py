"""A JSON Schema that a client sent: read once, resolved inside itself only, bounded in time.

Enters: the schema. Leaves: whether a value satisfies it. Draft 2020-12 but for `unevaluated…`, `dependent…` and
anchors, which are passed over like `format` and patterns that are not read. Nothing is fetched; nothing recurses
without an end.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final
from urllib.parse import unquote

from evalrun.simulator.pattern_syntax import parse_pattern
from evalrun.simulator.patterns import Budget, matches

MAX_DEPTH: Final = 60
"""Deepest nesting of schemas, references included."""
STEPS_PER_SCHEMA: Final = 2
"""Taken from the budget whenever a value is held against a schema."""

JsonObject = Mapping[str, Any]


class NoValueError(ValueError):
    """The schema is malformed, or no value was found that satisfies it; says why."""


class Schema:
    """One schema document.

    Args:
        root: The document, an object or a boolean.

    Raises:
        NoValueError: A keyword has a value of the wrong type; says where.
    """

    def __init__(self, root: Any) -> None:
        self.root = root
        self.budget = Budget()
        """For all that is done with this document."""
        self._resolved: dict[str, Any] = {}
        _check_form(root, "schema", 0)

    def resolve(self, reference: str) -> Any:
        """Return the schema that a `$ref` names.

        Raises:
            NoValueError: It does not lead into this document, or to no schema.
        """
        if reference not in self._resolved:
            found = self._find(reference)
            # It may stand where no schema is looked for, and so has not been looked at.
            _check_form(found, reference[:200], 0)
            self._resolved[reference] = found
        return self._resolved[reference]

    def _find(self, reference: str) -> Any:
        found = self.root
        own_id = found.get("$id") if isinstance(found, dict) else None
        if isinstance(own_id, str) and own_id:
            reference = reference.removeprefix(own_id)
        if not reference.startswith("#"):
            raise NoValueError(f"reference can only point to definitions inside the schema, not to {reference[:200]!r}")
        for name in unquote(reference[1:]).split("/")[1:]:
            key = name.replace("~1", "/").replace("~0", "~")
            if isinstance(found, dict) and key in found:
                found = found[key]
            elif isinstance(found, list) and key.isdecimal() and int(key) < len(found):
                found = found[int(key)]
            else:
                raise NoValueError(f"reference to a definition that is not there: {reference[:200]!r}")
        return found

    def accepts(self, value: Any, schema: Any = None) -> bool:
        """Tell whether a value satisfies the document, or one schema of it.

        Raises:
            NoValueError: The schema refers to itself without an end.
            SpentError: The document has asked for too many steps.
        """
        return self._accepts(value, self.root if schema is None else schema, 0)

    def finds(self, pattern: str, text: str) -> bool:
        """Tell whether a pattern is found in a text; True for patterns that are not read."""
        node = _parse_pattern(pattern)
        return node is None or matches(node, text, self.budget)

    def _accepts(self, value: Any, schema: Any, depth: int) -> bool:
        if isinstance(schema, bool):
            return schema
        self.budget.spend(STEPS_PER_SCHEMA)
        if depth > MAX_DEPTH:
            raise NoValueError("it refers to itself without an end, or is nested too deep")
        if not all(check(value, schema[name]) for name, check in _PLAIN_CHECKS.items() if name in schema):
            return False
        if "pattern" in schema and isinstance(value, str) and not self.finds(schema["pattern"], value):
            return False
        return self._accepts_parts(value, schema, depth + 1) and self._accepts_combined(value, schema, depth + 1)

    def _accepts_parts(self, value: Any, schema: JsonObject, depth: int) -> bool:
        if isinstance(value, dict):
            return all(self._accepts(item, part, depth) for item, part in self._scan_members(value, schema))
        if isinstance(value, list):
            if not all(self._accepts(item, part, depth) for item, part in _scan_items(value, schema)):
                return False
            if "contains" in schema:
                n_found = sum(self._accepts(item, schema["contains"], depth) for item in value)
                low, high = schema.get("minContains", 1), schema.get("maxContains", n_found)
                return bool(low <= n_found <= high)
        return True

    def _scan_members(self, value: JsonObject, schema: JsonObject) -> Iterator[tuple[Any, Any]]:
        """Yield what an object holds with the schemas that hold for it."""
        known, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
        rest, names = schema.get("additionalProperties", True), schema.get("propertyNames", True)
        for key, item in value.items():
            yield key, names
            if key in known:
                yield item, known[key]
            found = [part for pattern, part in patterns.items() if self.finds(pattern, key)]
            yield from ((item, part) for part in found)
            if key not in known and not found:
                yield item, rest

    def _accepts_combined(self, value: Any, schema: JsonObject, depth: int) -> bool:
        if "$ref" in schema and not self._accepts(value, self.resolve(schema["$ref"]), depth):
            return False
        if not all(self._accepts(value, part, depth) for part in schema.get("allOf", ())):
            return False
        if "anyOf" in schema and not any(self._accepts(value, part, depth) for part in schema["anyOf"]):
            return False
        if "oneOf" in schema and sum(self._accepts(value, part, depth) for part in schema["oneOf"]) != 1:
            return False
        if "not" in schema and self._accepts(value, schema["not"], depth):
            return False
        if "if" in schema:
            branch = "then" if self._accepts(value, schema["if"], depth) else "else"
            return branch not in schema or self._accepts(value, schema[branch], depth)
        return True


def is_same(one: Any, other: Any) -> bool:
    """Tell whether two JSON values are equal: 1 is 1.0, but true is not 1."""
    if one is other:
        return True
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(is_same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(is_same(value, other[key]) for key, value in one.items())
    return bool(one == other)


def is_of_type(value: Any, kind: str) -> bool:
    """Tell whether a JSON value is of one of JSON Schema's types."""
    if isinstance(value, bool):
        return kind == "boolean"
    if kind == "integer":
        return isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    return isinstance(value, _TYPES[kind])


_parse_pattern = lru_cache(maxsize=256)(parse_pattern)

_TYPES: Final[Mapping[str, Any]] = {
    "string": str,
    "number": int | float,
    "integer": int,
    "boolean": bool,
    "object": dict,
    "array": list,
    "null": type(None),
}


def _scan_items(value: Sequence[Any], schema: JsonObject) -> Iterator[tuple[Any, Any]]:
    first, rest = schema.get("prefixItems", ()), schema.get("items", True)
    yield from zip(value, first, strict=False)
    yield from ((item, rest) for item in value[len(first) :])


def _has_type(value: Any, kinds: str | list[str]) -> bool:
    return any(is_of_type(value, kind) for kind in ([kinds] if isinstance(kinds, str) else kinds))


def _is_multiple(value: Any, step: float) -> bool:
    if not is_of_type(value, "number"):
        return True
    if isinstance(value, int) and isinstance(step, int):
        return value % step == 0
    try:
        turns: float = value / step
        return math.isclose(turns, round(turns), abs_tol=1e-9)
    except OverflowError:
        return False


def _has_distinct_items(value: Any, is_wanted: bool) -> bool:  # noqa: FBT001 - called as every check is
    if not (is_wanted and isinstance(value, list)):
        return True
    return len({json.dumps(item, sort_keys=True) for item in value}) == len(value)


def _measure(kind: str, is_fine: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    """Return a check of values of one type; others pass."""
    return lambda value, bound: not is_of_type(value, kind) or is_fine(value, bound)


_PLAIN_CHECKS: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "type": _has_type,
    "enum": lambda value, members: any(is_same(value, member) for member in members),
    "const": is_same,
    "minimum": _measure("number", lambda value, bound: value >= bound),
    "maximum": _measure("number", lambda value, bound: value <= bound),
    "exclusiveMinimum": _measure("number", lambda value, bound: value > bound),
    "exclusiveMaximum": _measure("number", lambda value, bound: value < bound),
    "multipleOf": _is_multiple,
    "minLength": _measure("string", lambda value, bound: len(value) >= bound),
    "maxLength": _measure("string", lambda value, bound: len(value) <= bound),
    "minItems": _measure("array", lambda value, bound: len(value) >= bound),
    "maxItems": _measure("array", lambda value, bound: len(value) <= bound),
    "uniqueItems": _has_distinct_items,
    "minProperties": _measure("object", lambda value, bound: len(value) >= bound),
    "maxProperties": _measure("object", lambda value, bound: len(value) <= bound),
    "required": _measure("object", lambda value, names: all(name in value for name in names)),
}


def _check_form(schema: Any, path: str, depth: int) -> None:
    """Raise when a keyword's value is not of the type it must have."""
    if isinstance(schema, bool):
        return
    if not isinstance(schema, dict):
        raise NoValueError(f"{path} must be an object or a boolean")
    if depth > MAX_DEPTH:
        raise NoValueError(f"nested deeper than {MAX_DEPTH} levels")
    for name, value in schema.items():
        is_fine = _FORMS.get(name)
        if is_fine is not None and not is_fine(value):
            raise NoValueError(f"{path}.{name} has a value that JSON Schema does not allow there")
        for key, part in _scan_subschemas(name, value):
            _check_form(part, f"{path}.{key}", depth + 1)


def _scan_subschemas(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if name in _HOLDS_ONE:
        yield name, value
    elif name in _HOLDS_LIST:
        yield from ((f"{name}[{index}]", part) for index, part in enumerate(value))
    elif name in _HOLDS_MAP:
        yield from ((f"{name}.{key}", part) for key, part in value.items())


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_type(value: Any) -> bool:
    kinds = [value] if isinstance(value, str) else value
    return isinstance(kinds, list) and bool(kinds) and all(isinstance(kind, str) and kind in _TYPES for kind in kinds)


def _is_a(kind: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, kind)


_HOLDS_ONE: Final = frozenset(
    ("additionalProperties", "items", "contains", "propertyNames", "not", "if", "then", "else")
)
_HOLDS_LIST: Final = frozenset(("anyOf", "oneOf", "allOf", "prefixItems"))
_HOLDS_MAP: Final = frozenset(("properties", "patternProperties", "$defs", "definitions"))
_FORMS: Final[Mapping[str, Callable[[Any], bool]]] = {
    **dict.fromkeys(_HOLDS_LIST, lambda value: isinstance(value, list) and bool(value)),
    **dict.fromkeys(_HOLDS_MAP, _is_a(dict)),
    **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), _is_number),
    **dict.fromkeys(("minLength", "maxLength", "minItems", "maxItems", "minContains", "maxContains"), _is_count),
    **dict.fromkeys(("minProperties", "maxProperties"), _is_count),
    **dict.fromkeys(("pattern", "format", "$ref"), _is_a(str)),
    "type": _is_type,
    "enum": lambda value: isinstance(value, list) and bool(value),
    "multipleOf": lambda value: _is_number(value) and value > 0,
    "required": lambda value: isinstance(value, list) and all(isinstance(name, str) for name in value),
    "uniqueItems": _is_a(bool),
}
