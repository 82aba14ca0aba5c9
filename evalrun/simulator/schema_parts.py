"""Schemas taken apart and put together: which one must be satisfied when several hold at once, or one of several.

Enters: schemas of one document. Leaves: schemas that ask for both, the alternatives of one, the type to make. What
cannot be told by merging is left to the final check of the value made.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from evalrun.simulator.schemas import JsonObject

_MAX_ALTERNATIVES: Final = 64


def merge_schemas(one: Any, other: Any) -> Any:
    """Return one schema that asks for what both ask for; what cannot be told together is left to the final check."""
    if one is False or other is False:
        return False
    if one is True or other is True:
        return other if one is True else one
    merged = dict(one)
    for name, value in other.items():
        if name not in merged:
            merged[name] = value
        elif name in _MERGERS:
            merged[name] = _MERGERS[name](merged[name], value)
        elif name == "$ref":
            merged["allOf"] = [*merged.get("allOf", []), {name: value}]
    return merged


def _merge_properties(one: JsonObject, other: JsonObject) -> JsonObject:
    return {**one, **{name: merge_schemas(one[name], part) if name in one else part for name, part in other.items()}}


def _merge_types(one: Any, other: Any) -> list[str]:
    kinds, others = ([kind] if isinstance(kind, str) else list(kind) for kind in (one, other))
    shared = [kind for kind in kinds if kind in others]
    # Each integer is a number, so that the narrower of the two is asked for.
    if not shared and {*kinds, *others} >= {"integer", "number"}:
        shared = ["integer"]
    return shared or ["null"]


def _merge_alternatives(one: list[Any], other: list[Any]) -> list[Any]:
    return [merge_schemas(part, more) for part in one for more in other][:_MAX_ALTERNATIVES]


_MERGERS: Final[Mapping[str, Callable[[Any, Any], Any]]] = {
    "type": _merge_types,
    "properties": _merge_properties,
    "patternProperties": _merge_properties,
    "required": lambda one, other: list(dict.fromkeys((*one, *other))),
    "enum": lambda one, other: [member for member in one if member in other],
    "allOf": lambda one, other: [*one, *other],
    "anyOf": _merge_alternatives,
    "oneOf": _merge_alternatives,
    "not": lambda one, other: {"anyOf": [one, other]},
    "items": merge_schemas,
    "additionalProperties": merge_schemas,
    "uniqueItems": lambda one, other: one or other,
    **dict.fromkeys(("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties", "minContains"), max),
    **dict.fromkeys(("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties", "maxContains"), min),
}


def list_alternatives(schema: JsonObject, *, is_deep: bool) -> list[Any]:
    """Return the schemas of which one must hold, each with all the rest; [] when there is only one way."""
    for name in ("anyOf", "oneOf"):
        if name in schema:
            rest = leave_out(schema, name)
            return [merge_schemas(rest, part) for part in sorted(schema[name], key=_rank_deep if is_deep else _rank)]
    if "if" in schema:
        rest = leave_out(schema, "if", "then", "else")
        return [
            merge_schemas(merge_schemas(rest, schema["if"]), schema.get("then", True)),
            merge_schemas(rest, schema.get("else", True)),
        ]
    return []


def leave_out(schema: JsonObject, *names: str) -> dict[str, Any]:
    """Return a schema without some of its keywords."""
    return {name: value for name, value in schema.items() if name not in names}


def choose_type(schema: JsonObject) -> str:
    """Return the type to make: the first that is not null; when none is told, the one that other keywords speak of."""
    kinds = schema.get("type")
    if isinstance(kinds, str):
        return kinds
    if kinds:
        return next((kind for kind in kinds if kind != "null"), "null")
    return next((kind for kind, names in _TELLING.items() if not names.isdisjoint(schema)), "string")


_TELLING: Final[Mapping[str, frozenset[str]]] = {
    "object": frozenset(("properties", "required", "additionalProperties", "patternProperties", "minProperties")),
    "array": frozenset(("items", "prefixItems", "minItems", "maxItems", "contains", "uniqueItems")),
    "number": frozenset(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")),
}


def _rank(schema: Any) -> int:
    """Order alternatives: null last."""
    return int(isinstance(schema, dict) and schema.get("type") == "null")


def _rank_deep(schema: Any) -> int:
    """Order alternatives where a value must come to an end: those first that hold no others."""
    if not isinstance(schema, dict):
        return 0
    if "$ref" in schema or "allOf" in schema or "anyOf" in schema or "oneOf" in schema:
        return 2
    return int(choose_type(schema) in ("object", "array"))
