"""Values that satisfy a JSON Schema, always the same ones for the same draws.

Enters: a schema that a client sent. Leaves: a value that it accepts, checked before it leaves, or NoValueError. Objects
hold all their known properties and arrays one item or as many as they must; deep down, only what is required, so that
a schema that refers to itself comes to an end.
"""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from evalrun.simulator.pattern_syntax import parse_pattern
from evalrun.simulator.patterns import MAX_TEXT_CHARS, Pick, make_matching_text
from evalrun.simulator.schema_parts import choose_type, leave_out, list_alternatives, merge_schemas
from evalrun.simulator.schemas import JsonObject, NoValueError, Schema

_ATTEMPTS: Final = 4
_STEPS_PER_VALUE: Final = 10
_DEEP: Final = 6
"""From this depth on only what is required is made."""
_MAX_DEPTH: Final = 40
_MAX_ITEMS: Final = 2_000
_SHOWN_NUMBER: Final = 100
"""Numbers without bounds lie below this one."""

# No digit, no letter standing alone, no capital: none of these reads as a number or a choice.
_WORDS: Final = ("amber", "birch", "cobalt", "delta", "ember", "fjord", "grove", "harbor", "indigo", "juniper")
_FORMATS: Final[Mapping[str, str]] = {
    "date-time": "2026-01-02T03:04:05Z",
    "date": "2026-01-02",
    "time": "03:04:05Z",
    "duration": "PT1H",
    "email": "simulator@example.com",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uri": "https://example.com/",
    "uri-reference": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
}


def make_value(schema: Schema, pick: Pick) -> Any:
    """Return a value that satisfies a schema.

    Raises:
        NoValueError: None was found.
        SpentError: Finding one takes too many steps.
    """
    reason = NoValueError("no value was found that satisfies it")
    for attempt in range(_ATTEMPTS):
        try:
            value = _Maker(schema, pick, attempt).make(schema.root, "", 0)
        except NoValueError as error:
            reason = error
            continue
        if schema.accepts(value):
            return value
    raise reason


class _Maker:
    """Makes one value, part by part; each draw is named by the part's path."""

    def __init__(self, schema: Schema, pick: Pick, attempt: int) -> None:
        self._schema = schema
        self._pick = pick
        self._attempt = attempt

    def make(self, schema: Any, path: str, depth: int) -> Any:
        """Return a value for one schema of the document; only simple constraints are sure to hold."""
        self._schema.budget.spend(_STEPS_PER_VALUE)
        if schema is False or depth > _MAX_DEPTH:
            raise NoValueError(f"no value satisfies it at {path or 'its root'}")
        if schema is True:
            schema = {}
        if "$ref" in schema:
            target = self._schema.resolve(schema["$ref"])
            return self.make(merge_schemas(target, leave_out(schema, "$ref")), path, depth + 1)
        if "allOf" in schema:
            merged: Any = leave_out(schema, "allOf")
            for part in schema["allOf"]:
                merged = merge_schemas(merged, part)
            return self.make(merged, path, depth + 1)
        if "const" in schema:
            return schema["const"]
        if alternatives := list_alternatives(schema, is_deep=depth >= _DEEP):
            return self._try_each(alternatives, schema, path, depth)
        if "enum" in schema:
            return self._choose_member(schema, path)
        return self._make_typed(schema, path, depth)

    def _try_each(self, alternatives: list[Any], schema: JsonObject, path: str, depth: int) -> Any:
        for alternative in alternatives:
            try:
                value = self.make(alternative, path, depth + 1)
            except NoValueError:
                continue
            if self._schema.accepts(value, schema):
                return value
        raise NoValueError(f"no value satisfies it at {path or 'its root'}")

    def _choose_member(self, schema: JsonObject, path: str) -> Any:
        members = schema["enum"]
        start = int(self._draw(path) * len(members))
        for member in (*members[start:], *members[:start]):
            if self._schema.accepts(member, schema):
                return member
        raise NoValueError(f"no value of the enum satisfies it at {path or 'its root'}")

    def _make_typed(self, schema: JsonObject, path: str, depth: int) -> Any:
        kind = choose_type(schema)
        if kind == "null":
            return None
        if kind == "boolean":
            return self._draw(path) < 0.5
        if kind in ("integer", "number"):
            try:
                return _make_number(schema, self._draw(path), is_integer=kind == "integer")
            except OverflowError as error:
                raise NoValueError(f"no number of that size is made at {path or 'its root'}") from error
        if kind == "string":
            return self._make_text(schema, path)
        make: Callable[[JsonObject, str, int], Any] = self._make_array if kind == "array" else self._make_object
        return make(schema, path, depth)

    def _make_text(self, schema: JsonObject, path: str) -> str:
        low, high = schema.get("minLength", 0), schema.get("maxLength", MAX_TEXT_CHARS)
        if low > MAX_TEXT_CHARS or low > high:
            raise NoValueError(f"no text of {low} characters is made at {path or 'its root'}")
        node = parse_pattern(schema["pattern"]) if "pattern" in schema else None
        if node is not None:
            pick = partial(self._draw_at, path)
            text = make_matching_text(node, pick, self._schema.budget, min_chars=low, max_chars=high)
            if text is None:
                raise NoValueError(f"no text was found that matches the pattern at {path or 'its root'}")
            return text
        known = _FORMATS.get(schema.get("format", ""))
        if known is not None and low <= len(known) <= high:
            return known
        word = _WORDS[int(self._draw(path) * len(_WORDS))]
        return " ".join([word] * (1 + low // len(word)))[: max(low, len(word))][:high]

    def _make_array(self, schema: JsonObject, path: str, depth: int) -> list[Any]:
        first = schema.get("prefixItems", [])
        low = schema.get("minItems", 0)
        n_items = low if depth >= _DEEP else max(low, len(first), 1)
        n_items = max(n_items, schema.get("minContains", 1) if "contains" in schema else 0)
        n_items = min(n_items, schema.get("maxItems", n_items))
        if n_items > _MAX_ITEMS:
            raise NoValueError(f"no array of {n_items} items is made at {path or 'its root'}")
        items: list[Any] = []
        for index in range(n_items):
            part = first[index] if index < len(first) else schema.get("items", True)
            if "contains" in schema and index >= len(first):
                part = merge_schemas(part, schema["contains"])
            if part is False and n_items > low:
                break
            items.append(self._make_item(part, items, f"{path}/{index}", depth, schema))
        return items

    def _make_item(self, part: Any, items: list[Any], path: str, depth: int, array: JsonObject) -> Any:
        value = self.make(part, path, depth + 1)
        if not array.get("uniqueItems"):
            return value
        for turn in range(_DISTINCT_TURNS):
            if value not in items:
                break
            value = self.make(part, f"{path}~{turn}", depth + 1)
        return value

    def _make_object(self, schema: JsonObject, path: str, depth: int) -> dict[str, Any]:
        known, required = schema.get("properties", {}), dict.fromkeys(schema.get("required", []))
        made: dict[str, Any] = {}
        for name in dict.fromkeys((*known, *required)):
            is_required = name in required
            if not is_required and depth >= _DEEP:
                continue
            part = known.get(name, schema.get("additionalProperties", True))
            for pattern, more in schema.get("patternProperties", {}).items():
                if self._schema.finds(pattern, name):
                    part = more if part is False else merge_schemas(part, more)
            try:
                made[name] = self.make(part, f"{path}/{name}", depth + 1)
            except NoValueError:
                if is_required:
                    raise
        for index in range(schema.get("minProperties", 0) - len(made)):
            made[f"{_WORDS[index % len(_WORDS)]}_{index}"] = self.make(
                schema.get("additionalProperties", True), f"{path}/+{index}", depth + 1
            )
        return made

    def _draw_at(self, path: str, purpose: str) -> float:
        return self._draw(f"{path} {purpose}")

    def _draw(self, purpose: str) -> float:
        return self._pick(f"value {self._attempt} {purpose}")


_DISTINCT_TURNS: Final = 32


def _make_number(schema: JsonObject, uniform: float, *, is_integer: bool) -> float:
    """Return a number within its bounds, a multiple of what it must be a multiple of."""
    step = schema.get("multipleOf", 1 if is_integer else 0)
    if is_integer and isinstance(step, float):
        # The first whole number among the multiples of a/b in lowest terms is a.
        step = step.as_integer_ratio()[0]
    low = max(schema.get("minimum", -math.inf), schema.get("exclusiveMinimum", -math.inf))
    high = min(schema.get("maximum", math.inf), schema.get("exclusiveMaximum", math.inf))
    if low == -math.inf:
        low = min(0, high - _SHOWN_NUMBER) if high < math.inf else 0
    if high == math.inf:
        high = max(low + _SHOWN_NUMBER * (step or 1), low + 1)
    if low > high:
        raise NoValueError(f"no number lies between {low} and {high}")
    if not step:
        middle: float = low * (1 - uniform) + high * uniform
        rounded: float = round(middle, 2)
        return rounded if low < rounded < high else middle
    first, last = _divide_up(low, step), _divide_down(high, step)
    first += first * step <= schema.get("exclusiveMinimum", -math.inf)
    last -= last * step >= schema.get("exclusiveMaximum", math.inf)
    if first > last:
        raise NoValueError(f"no multiple of {step} lies between {low} and {high}")
    number: float = (first + int(uniform * (last - first + 1))) * step
    return number


def _divide_up(value: float, step: float) -> int:
    return -_divide_down(-value, step)


def _divide_down(value: float, step: float) -> int:
    return int(value // step)
