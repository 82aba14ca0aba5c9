"""Tests of values made for a JSON Schema."""

from contextlib import suppress
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings

from evalrun.simulator.json_values import make_value
from evalrun.simulator.patterns import SpentError
from evalrun.simulator.schemas import NoValueError, Schema
from tests.simulator.test_patterns import make_pick
from tests.simulator.test_schemas import DEFINITIONS, SCHEMA

NODE: dict[str, Any] = {
    "type": "object",
    "properties": {
        "value": {"type": "integer"},
        "children": {"type": "array", "items": {"$ref": "#/$defs/node"}},
        "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
    },
    "required": ["value", "children", "next"],
    "additionalProperties": False,
}
LONG = {"type": "array", "minItems": 300}
SATISFIABLE: dict[str, Any] = {
    "nothing": {},
    "all types": {
        "type": "object",
        "properties": {
            kind: {"type": kind} for kind in ("string", "number", "integer", "boolean", "null", "array", "object")
        },
        "required": ["string", "number", "integer", "boolean", "null", "array", "object"],
        "additionalProperties": False,
    },
    "a schema in itself": {"$defs": {"node": NODE}, "$ref": "#/$defs/node"},
    "a schema in itself by its root": {
        "type": "object",
        "properties": {"name": {"type": "string"}, "parts": {"type": "array", "items": {"$ref": "#"}}},
        "required": ["name", "parts"],
    },
    "a schema in itself that may end anywhere": {"type": "object", "properties": {"next": {"$ref": "#"}}},
    "a schema in itself or anything": {
        "type": "object",
        "properties": {"next": {"anyOf": [{"$ref": "#"}, True, {"type": "array"}]}},
        "required": ["next"],
    },
    "two references": {
        "$defs": {"low": {"type": "integer", "minimum": 7}, "high": {"type": "number", "maximum": 7}},
        "allOf": [{"$ref": "#/$defs/low"}, {"$ref": "#/$defs/high"}],
    },
    "pattern": {"type": "string", "pattern": "^[A-Z]{3}-\\d+$", "minLength": 9},
    "long text": {"type": "string", "minLength": 300, "maxLength": 300},
    "no text": {"type": "string", "maxLength": 0},
    "formats": {
        "type": "array",
        "prefixItems": [{"format": "date"}, {"format": "uuid", "maxLength": 5}],
        "minItems": 2,
    },
    "decimal bounds": {"type": "number", "minimum": 2.5, "exclusiveMaximum": 2.5001},
    "negative": {"type": "integer", "maximum": -1},
    "exclusive": {"type": "integer", "exclusiveMinimum": 3, "exclusiveMaximum": 5},
    "multiple": {"type": "integer", "multipleOf": 7, "minimum": 15, "maximum": 21},
    "decimal multiple": {"type": "number", "multipleOf": 0.25, "minimum": 0.3},
    "whole multiple of a decimal": {"type": "integer", "multipleOf": 1.5, "minimum": 1},
    "wide bounds": {"type": "number", "minimum": -1.7e308, "maximum": 1.7e308},
    "null or number": {"type": ["null", "integer"], "minimum": 4},
    "unique members": {"type": "array", "items": {"enum": ["x", "y", "z"]}, "minItems": 3, "uniqueItems": True},
    "contains": {"type": "array", "contains": {"const": 3}, "minContains": 2, "items": {"type": "integer"}},
    "all of": {
        "allOf": [
            {"type": "object", "properties": {"x": {"type": "integer", "minimum": 3}}, "required": ["x"]},
            {"properties": {"x": {"maximum": 3}, "y": {"const": [1]}}, "required": ["y"]},
        ]
    },
    "any of twice": {"allOf": [{"anyOf": [{"minimum": 5}, {"type": "null"}]}, {"anyOf": [{"type": "integer"}]}]},
    "one of by tag": {
        "oneOf": [
            {
                "type": "object",
                "properties": {"kind": {"const": "a"}, "n": {"type": "integer"}},
                "required": ["kind", "n"],
            },
            {"type": "object", "properties": {"kind": {"const": "b"}}, "required": ["kind"]},
        ]
    },
    "if then else": {
        "type": "object",
        "properties": {"k": {"const": 1}},
        "required": ["k"],
        "if": {"properties": {"k": {"const": 1}}},
        "then": {"required": ["m"]},
        "else": False,
    },
    "not": {"type": "string", "not": {"const": "amber"}},
    "required beyond properties": {"type": "object", "required": ["free"], "additionalProperties": {"type": "boolean"}},
    "at least so many": {"type": "object", "minProperties": 3, "additionalProperties": {"type": "integer"}},
    "pattern properties": {
        "type": "object",
        "patternProperties": {"^n_": {"type": "integer"}},
        "additionalProperties": False,
        "required": ["n_a"],
    },
    "optional that cannot be": {"type": "object", "properties": {"never": False, "b": {"type": "null"}}},
    "true": True,
    "many properties": {
        "type": "object",
        "properties": {f"p{n}": {"type": "string"} for n in range(2000)},
        "required": [f"p{n}" for n in range(2000)],
        "additionalProperties": False,
    },
}


@pytest.mark.parametrize("name", SATISFIABLE)
def test_made_value_satisfies_its_schema(name: str) -> None:
    """Whatever is drawn, the jsonschema library accepts what was made."""
    schema = SATISFIABLE[name]
    validator = jsonschema.Draft202012Validator(schema)
    for seed in range(3):
        validator.validate(make_value(Schema(schema), make_pick(seed)))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(schema=SCHEMA)
def test_made_value_satisfies_any_schema(schema: Any) -> None:
    """For arbitrary combinations of keywords a value is right, or there is none."""
    document = {"$defs": DEFINITIONS, "allOf": [schema]}
    for seed in range(3):
        with suppress(NoValueError, SpentError):
            value = make_value(Schema(document), make_pick(seed))
            jsonschema.Draft202012Validator(document).validate(value)


def test_objects_hold_all_their_properties() -> None:
    """Optional properties are there too, so that clients see them."""
    value = make_value(Schema({"type": "object", "properties": {"a": {}, "b": {}}, "required": ["a"]}), make_pick(1))
    assert set(value) == {"a", "b"}


def test_value_depends_on_the_draws_alone() -> None:
    """The same draws make the same value; others make another one."""
    schema = {"type": "array", "items": {"type": "integer"}, "minItems": 8}
    made = [make_value(Schema(schema), make_pick(seed)) for seed in (1, 1, 2)]
    assert made[0] == made[1] != made[2]


@pytest.mark.parametrize(
    "schema",
    [
        False,
        {"type": "integer", "minimum": 5, "maximum": 3},
        {"type": "integer", "minimum": 1, "maximum": 2, "multipleOf": 7},
        {"type": "string", "minLength": 5, "maxLength": 3},
        {"type": "string", "minLength": 5000},
        {"type": "string", "pattern": "a^b"},
        {"type": "string", "not": {}},
        {"type": "array", "minItems": 5000},
        {"type": "number", "minimum": 1, "multipleOf": 5e-324},
        {"type": "array", "minItems": 2, "uniqueItems": True, "items": {"const": 1}},
        {"enum": [1, 2], "type": "string"},
        {"anyOf": [False, {"const": 1, "type": "string"}]},
        {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]},
        {"type": "object", "properties": {k: {"$ref": "#"} for k in "abcdefgh"}, "required": list("abcdefgh")},
        {"type": "array", "items": {"type": "array", "items": LONG, "minItems": 300}, "minItems": 300},
    ],
)
def test_schema_that_nothing_satisfies_is_refused(schema: Any) -> None:
    """Impossible, endless and huge values are an error, never a wrong value."""
    with pytest.raises((NoValueError, SpentError)):
        make_value(Schema(schema), make_pick(1))
