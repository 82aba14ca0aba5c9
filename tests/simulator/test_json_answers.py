"""Tests of answers put where a schema has a place for them."""

from contextlib import suppress
from itertools import product
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings

from evalrun.simulator.json_answers import make_answer
from evalrun.simulator.schemas import NoValueError
from tests.simulator.test_patterns import make_pick
from tests.simulator.test_schemas import DEFINITIONS, SCHEMA


def of(**properties: Any) -> dict[str, Any]:
    """Return the schema of an object that must have all of these properties and no others."""
    return {
        "type": "object", "properties": properties, "required": list(properties), "additionalProperties": False,
    }  # fmt: skip


TEXT, NUMBER, WHOLE, YES_NO = ({"type": kind} for kind in ("string", "number", "integer", "boolean"))
LABEL = {"enum": ["positive", "negative", "neutral"]}
LETTER = {"type": "string", "enum": ["A", "B", "C", "D"]}


def say(schema: Any, answer: str | None, *, is_right: bool, seed: int = 1) -> Any:
    """Return the value made, which satisfies the schema."""
    value = make_answer(schema, answer, make_pick(seed), is_right=is_right)
    jsonschema.Draft202012Validator(schema).validate(value)
    return value


@pytest.mark.parametrize(
    ("schema", "answer", "place", "said"),
    [
        (of(answer=TEXT), "72", ["answer"], "72"),
        (of(answer=NUMBER), "72.5", ["answer"], 72.5),
        (of(answer=WHOLE), "1,234", ["answer"], 1234),
        (of(answer=YES_NO), "Yes", ["answer"], True),
        (of(answer=YES_NO), "false", ["answer"], False),
        (of(answer={"anyOf": [NUMBER, {"type": "null"}]}), "3", ["answer"], 3),
        (of(why=TEXT, n=WHOLE), "72", ["n"], 72),
        (of(why=TEXT, label=LABEL), "Positive", ["label"], "positive"),
        (of(why=TEXT, grade=LABEL), "NEUTRAL", ["grade"], "neutral"),
        (of(choice=LETTER), "(b)", ["choice"], "B"),
        (of(only=TEXT), " Lisbon ", ["only"], "Lisbon"),
        (of(steps={"type": "array", "items": of(output=TEXT)}, Final_Answer=TEXT), "x = 1", ["Final_Answer"], "x = 1"),
        (of(outer=of(inner=of(value=WHOLE)), note=TEXT), "-4", ["outer", "inner", "value"], -4),
        ({"$defs": {"n": WHOLE}, **of(result={"$ref": "#/$defs/n"})}, "5", ["result"], 5),
        (of(a=TEXT, b=TEXT, answer=LABEL, c=WHOLE), "negative", ["answer"], "negative"),
    ],
)
def test_answer_goes_to_its_place(schema: Any, answer: str, place: list[str], said: Any) -> None:
    """The right answer stands in the obvious place, a wrong one does not; both satisfy the schema."""
    for seed in range(5):
        right, wrong = (say(schema, answer, is_right=is_right, seed=seed) for is_right in (True, False))
        for name in place:
            right, wrong = right[name], wrong[name]
        assert (right, type(right)) == (said, type(said))
        assert wrong != said


@pytest.mark.parametrize(
    ("schema", "answer", "value"),
    [
        (of(a=WHOLE, b=TEXT), '{"a": 3, "b": "hello"}', {"a": 3, "b": "hello"}),
        ({"type": "array", "items": WHOLE}, "[1, 2]", [1, 2]),
        (WHOLE, "12", 12),
        (LABEL, "Positive", "positive"),
        (of(answer=of(label=LABEL, score=WHOLE)), '{"answer": {"label": "neutral", "score": 1}}',
         {"answer": {"label": "neutral", "score": 1}}),
    ],
)  # fmt: skip
def test_answer_may_be_the_whole_value(schema: Any, answer: str, value: Any) -> None:
    """An answer that the schema accepts as it is, is the reply; a wrong reply is another value."""
    assert say(schema, answer, is_right=True) == value
    assert say(schema, answer, is_right=False) != value


@pytest.mark.parametrize(
    ("schema", "answer"),
    [
        (of(first=TEXT, second=TEXT), "72"),
        (of(first=WHOLE, second=WHOLE), "72"),
        (of(n=WHOLE), "Lisbon"),
        (of(**{f"p{n}": TEXT for n in range(40)}), "Lisbon"),
        (of(names={"type": "array", "items": TEXT}), "Lisbon"),
    ],
)
def test_answer_without_an_obvious_place_is_not_said(schema: Any, answer: str) -> None:
    """Where two places would do, or none, the value is that of a client that told no answer."""
    assert say(schema, answer, is_right=True) == say(schema, None, is_right=True)


@pytest.mark.parametrize("schema", [of(answer={"const": "A"}), {"const": "A"}])
def test_reply_is_right_where_nothing_wrong_can_be_said(schema: Any) -> None:
    """A schema with one value only gets it."""
    assert say(schema, "A", is_right=False) == say(schema, "A", is_right=True)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(schema=SCHEMA)
def test_reply_satisfies_any_schema(schema: Any) -> None:
    """Whatever the schema and the answer, the value is accepted, or there is none."""
    document = {"$defs": DEFINITIONS, "allOf": [schema]}
    for answer, is_right in product(["72", "yes", "ab", '{"a": 1}', "[]", "\ud800", " "], [True, False]):
        with suppress(NoValueError):
            value = make_answer(document, answer, make_pick(1), is_right=is_right)
            jsonschema.Draft202012Validator(document).validate(value)


def test_value_nested_too_deep_is_refused() -> None:
    """A constant that no reader could follow is an error of the schema, not of the simulator."""
    deep: Any = []
    for _ in range(3000):
        deep = [deep]
    with pytest.raises(NoValueError, match="nested too deep"):
        make_answer({"type": "array", "enum": [deep], "uniqueItems": True}, "72", make_pick(1), is_right=True)


def test_schema_that_takes_too_long_is_refused() -> None:
    """Fifty patterns that each take all the steps there are, take them once."""
    slow = {"type": "string", "pattern": "((a|b){0,5}){2000}c^", "minLength": 1500}
    with pytest.raises(NoValueError, match="too many steps"):
        make_answer(of(**{f"p{n}": slow for n in range(50)}), None, make_pick(1), is_right=True)
