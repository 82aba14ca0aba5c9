"""Tests of a client's JSON Schema: what it accepts, what it refuses to be."""

from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evalrun.simulator.patterns import SpentError
from evalrun.simulator.schemas import NoValueError, Schema, is_same

NUMBERS = st.sampled_from([0, 1, 2, -3, 2.5, 7, 1.0])
LEAF = st.none() | st.booleans() | NUMBERS | st.sampled_from(["", "a", "ab", "abc", "b1"])
VALUE = st.recursive(
    LEAF,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abx"), inner, max_size=3),
    max_leaves=6,
)
COUNT = st.integers(0, 3)


def _extend(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    parts = st.lists(inner, min_size=1, max_size=2)
    return st.fixed_dictionaries(
        {},
        optional={
            "properties": st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
            "patternProperties": st.dictionaries(st.sampled_from(["^a", "x"]), inner, max_size=1),
            "additionalProperties": inner,
            "propertyNames": st.just({"maxLength": 1}),
            "required": st.lists(st.sampled_from("abx"), max_size=2, unique=True),
            "items": inner,
            "prefixItems": parts,
            "contains": inner,
            "minContains": COUNT,
            "maxContains": COUNT,
            "anyOf": parts,
            "oneOf": parts,
            "allOf": parts,
            "not": inner,
            "if": inner,
            "then": inner,
            "else": inner,
            "$ref": st.sampled_from(["#/$defs/word", "#/$defs/a~1b"]),
        },
    )


PLAIN = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(
            ["string", "number", "integer", "boolean", "object", "array", "null", ["null", "array"]]
        ),
        "enum": st.lists(LEAF, min_size=1, max_size=3),
        "const": VALUE,
        "minimum": NUMBERS,
        "maximum": NUMBERS,
        "exclusiveMinimum": NUMBERS,
        "exclusiveMaximum": NUMBERS,
        "multipleOf": st.sampled_from([2, 0.5, 3]),
        "minLength": COUNT,
        "maxLength": COUNT,
        "pattern": st.sampled_from(["^a", "b$", "[0-9]", "^a?b*$"]),
        "minItems": COUNT,
        "maxItems": COUNT,
        "uniqueItems": st.booleans(),
        "minProperties": COUNT,
        "maxProperties": COUNT,
    },
)
SCHEMA = st.recursive(st.booleans() | PLAIN, _extend, max_leaves=5)
DEFINITIONS = {"word": {"type": ["string", "object", "array"]}, "a/b": {"not": {"const": 0}}}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(schema=SCHEMA, values=st.lists(VALUE, min_size=6, max_size=6))
def test_acceptance_agrees_with_a_reference(schema: Any, values: list[Any]) -> None:
    """For every keyword that is read, the answer is that of the jsonschema library."""
    document = {"$defs": DEFINITIONS, "allOf": [schema]}
    reference = jsonschema.Draft202012Validator(document)
    assert list(map(Schema(document).accepts, values)) == list(map(reference.is_valid, values))


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "foo"}, "schema.type"),
        ({"type": []}, "schema.type"),
        ({"properties": 5}, "schema.properties"),
        ({"properties": {"a": {"minLength": -1}}}, "schema.properties.a.minLength"),
        ({"anyOf": []}, "schema.anyOf"),
        ({"allOf": [{"required": [1]}]}, "schema.allOf[0].required"),
        ({"items": [{}]}, "schema.items"),
        ({"multipleOf": 0}, "schema.multipleOf"),
        ({"maximum": True}, "schema.maximum"),
        ({"enum": {}}, "schema.enum"),
        ([], "schema must be"),
    ],
)
def test_malformed_schema_is_refused(schema: Any, words: str) -> None:
    """A keyword with a value of the wrong type is named with its path."""
    with pytest.raises(NoValueError) as caught:
        Schema(schema)
    assert words in str(caught.value)


def test_schema_nested_too_deep_is_refused() -> None:
    """Depth is bounded before anything recurses over it."""
    schema: dict[str, Any] = {}
    for _ in range(200):
        schema = {"not": schema}
    with pytest.raises(NoValueError, match="deeper than"):
        Schema(schema)


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("https://example.com/x", "inside the schema"),
        ("#/list/none", "not there"),
        ("#/list/7", "not there"),
        ("#/none", "not there"),
        ("#/list", "an object or a boolean"),
        ("#/list/1", "#/list/1.type has a value"),
    ],
)
def test_reference_must_lead_into_the_schema(reference: str, words: str) -> None:
    """Nothing is fetched, and nothing that is no schema is taken for one."""
    schema = Schema({"list": [{}, {"type": "foo"}], "$ref": reference})
    with pytest.raises(NoValueError, match=words):
        schema.accepts(1)


@pytest.mark.parametrize("reference", ["#/list/0", "https://example.com/me#/list/0", "#/l%69st/0"])
def test_reference_is_resolved(reference: str) -> None:
    """Pointers lead through lists, through the schema's own id and through escapes."""
    schema = {"$id": "https://example.com/me", "list": [{"type": "null"}], "$ref": reference}
    assert [Schema(schema).accepts(value) for value in (None, 1)] == [True, False]


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"anyOf": [{"$ref": "#"}, {"$ref": "#"}]},
        {"$defs": {"a": {"allOf": [{"$ref": "#/$defs/a"}] * 3}}, "$ref": "#/$defs/a"},
    ],
)
def test_endless_schema_comes_to_an_end(schema: Any) -> None:
    """A schema that refers to itself without looking at a smaller value is refused, not followed for ever."""
    with pytest.raises(NoValueError, match="without an end"):
        Schema(schema).accepts(1)


def test_schemas_that_multiply_come_to_an_end() -> None:
    """Some definitions, each twice the next, are not a billion steps."""
    definitions: dict[str, Any] = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(25)}
    definitions["d25"] = {}
    with pytest.raises(SpentError):
        Schema({"$defs": definitions, "$ref": "#/$defs/d0"}).accepts(1)


@pytest.mark.parametrize(
    ("one", "other", "is_it"),
    [
        (1, 1.0, True),
        (True, 1, False),
        (0, False, False),
        ([1], [True], False),
        ({"a": [1]}, {"a": [1.0]}, True),
        ({}, [], False),
    ],
)
def test_sameness_is_jsons(one: Any, other: Any, is_it: bool) -> None:
    """Numbers are equal by value; true is no number."""
    assert is_same(one, other) is is_it


def test_number_beyond_all_bounds_is_no_multiple() -> None:
    """Where dividing overflows, the answer is no."""
    assert [Schema({"multipleOf": step}).accepts(value) for step, value in ((5e-324, 1.5), (0.5, 10**400))] == [
        False
    ] * 2
