"""The json-schema check."""

import re
from typing import Any

import pytest

from evalrun.analysis.graders.json_schema import build_validator, grade_json_schema
from evalrun.errors import GraderFaultError
from evalrun.grader_options import JsonSchemaOptions

OPTIONS = JsonSchemaOptions(type="json-schema", schema_=True)
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "minLength": 1}, "age": {"type": "integer", "minimum": 0}},
    "required": ["name"],
    "additionalProperties": False,
}

CASES: list[tuple[str, Any, bool]] = [
    ('{"name": "Ann", "age": 3}', PERSON, True),
    ('```json\n{"name": "Ann"}\n```', PERSON, True),
    ('{"age": 3}', PERSON, False),
    ('{"name": "Ann", "age": -1}', PERSON, False),
    ('{"name": "Ann", "age": 3.0}', PERSON, True),
    ('{"name": "Ann", "age": true}', PERSON, False),
    ('{"name": "Ann", "x": 1}', PERSON, False),
    ("Ann", PERSON, False),
    ("[]", PERSON, False),
    ("1", True, True),
    ("1", False, False),
    ('{"a": 1}', {"prefixItems": [{"type": "string"}]}, True),
    ("[1]", {"prefixItems": [{"type": "string"}]}, False),
    ('"b"', {"enum": ["a", "b"]}, True),
    ('{"k1": 1}', {"patternProperties": {"^k": {"type": "integer"}}, "additionalProperties": False}, True),
    ('{"k1": "x"}', {"patternProperties": {"^k": {"type": "integer"}}}, False),
    ('{"z": 1}', {"patternProperties": {"^k": {"type": "integer"}}, "additionalProperties": False}, False),
    ('{"z": 1}', {"patternProperties": {"^k": {}}, "additionalProperties": {"type": "integer"}}, True),
    ('"abc"', {"pattern": "^[a-c]+$"}, True),
    ('"abd"', {"pattern": "^[a-c]+$"}, False),
    ("3", {"$defs": {"n": {"type": "integer"}}, "$ref": "#/$defs/n"}, True),
    ("[1]", {"$schema": "http://json-schema.org/draft-07/schema#", "items": [{"type": "string"}]}, False),
    ('"no mail"', {"format": "email"}, True),
]


@pytest.mark.parametrize(("output", "schema", "passed"), CASES)
def test_schema_decides(output: str, schema: Any, passed: bool) -> None:
    """Draft 2020-12 decides, unless the schema names another draft."""
    assert grade_json_schema(output, build_validator(schema), OPTIONS).passed is passed


def test_schema_reason_names_the_path() -> None:
    """A failure says where and what, and how many more there are."""
    schema = {"properties": {"items": {"items": {"type": "number"}}}}
    mark = grade_json_schema('{"items": [1, "x", "y"]}', build_validator(schema), OPTIONS)
    assert re.fullmatch(r"\$\.items\[[12]\]: '[xy]' is not of type 'number' \(and 1 more\)", mark.reason)


FAULTS: list[tuple[Any, str]] = [
    ({"type": "strin"}, "$.type"),
    ({"required": "name"}, "$.required"),
    ({"$ref": "#/$defs/missing"}, "points to nothing"),
    ({"$ref": "http://127.0.0.1:9/schema.json"}, "never fetched"),
    ({"$ref": "https://example.com/schema.json"}, "never fetched"),
    ({"properties": {"a": {"$ref": "file:///etc/passwd"}}}, "never fetched"),
    ({"pattern": "(a"}, "pattern"),
    ({"properties": {"a": {"pattern": "((a{9999}){9999}){9999}"}}}, "pattern"),
]


@pytest.mark.parametrize(("schema", "text"), FAULTS)
def test_schema_fault_is_found_when_it_is_built(schema: Any, text: str) -> None:
    """A schema that cannot work is told at once; nothing is fetched for it."""
    with pytest.raises(ValueError, match=re.escape(text)):
        build_validator(schema)


def test_schema_may_refer_to_its_own_id_and_to_meta_schemas() -> None:
    """References inside the document and to the published drafts resolve without a network."""
    own = {
        "$id": "https://example.com/a",
        "$defs": {"n": {"$id": "n", "type": "integer"}},
        "$ref": "https://example.com/n",
    }
    assert grade_json_schema("1", build_validator(own), OPTIONS).passed
    meta = {"$ref": "https://json-schema.org/draft/2020-12/schema"}
    assert not grade_json_schema('{"type": 1}', build_validator(meta), OPTIONS).passed


@pytest.mark.parametrize(
    "schema", [{"pattern": "^(a|aa)+$"}, {"patternProperties": {"^(a|aa)+$": {}}, "additionalProperties": False}]
)
def test_schema_pattern_is_bounded_in_time(schema: Any) -> None:
    """A catastrophic pattern in a schema ends as `grader_timeout`."""
    text = "a" * 60 + "!"
    output = f'"{text}"' if "pattern" in schema else f'{{"{text}": 1}}'
    with pytest.raises(GraderFaultError) as caught:
        grade_json_schema(output, build_validator(schema), OPTIONS)
    assert caught.value.code == "grader_timeout"


def test_endless_reference_is_a_fault_not_a_crash() -> None:
    """A schema that refers to itself without end raises, and the grader set makes that a void grade."""
    validator = build_validator({"$ref": "#"})
    with pytest.raises(RecursionError):
        grade_json_schema("1", validator, OPTIONS)
