"""The json check."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalrun.analysis.graders.json_value import ANYTHING, NotJsonError, grade_json, parse_json, read_json_output
from evalrun.errors import GraderFaultError
from evalrun.grader_options import JsonOptions

OPTIONS = JsonOptions(type="json")

CASES: list[tuple[str, Any, bool]] = [
    ('{"a": 1}', ANYTHING, True),
    ("[1, 2]", ANYTHING, True),
    ("42", ANYTHING, True),
    ('"text"', ANYTHING, True),
    ("null", ANYTHING, True),
    ('\ufeff{"a": 1}\n', ANYTHING, True),
    ("", ANYTHING, False),
    ("Here it is: {}", ANYTHING, False),
    ("{'a': 1}", ANYTHING, False),
    ('{"a": 1,}', ANYTHING, False),
    ('{"a": 1} {"b": 2}', ANYTHING, False),
    ('{"a": NaN}', ANYTHING, False),
    ('{"a": Infinity}', ANYTHING, False),
    ('{"a": -Infinity}', ANYTHING, False),
    ('{"a": 1e400}', ANYTHING, False),
    ("9" * 5000, ANYTHING, False),
    ('```json\n{"a": 1}\n```', {"a": 1}, True),
    ('Sure:\n```json\n{"a": 1}\n```\nDone.', {"a": 1}, True),
    ('```\n{"a": 1}\n```', {"a": 1}, True),
    ('~~~\n{"a": 1}\n~~~', {"a": 1}, True),
    ('```json\r\n{"a": 1}\r\n```\r\n', {"a": 1}, True),
    ('```json\n{"a": 0}\n```\nor rather\n```json\n{"a": 1}\n```', {"a": 1}, True),
    ('```python\n{"a": 1}\n```', {"a": 1}, False),
    ('```json\n{"a": 1}', {"a": 1}, False),
    ("```json\n```", ANYTHING, False),
    ('{"b": 2, "a": 1}', {"a": 1, "b": 2}, True),
    ('{"a": 1.0}', {"a": 1}, True),
    ('{"a": true}', {"a": 1}, False),
    ('{"a": 1}', {"a": True}, False),
    ('{"a": "1"}', {"a": 1}, False),
    ('{"a": null}', {"a": None}, True),
    ('{"a": 1, "b": 2}', {"a": 1}, False),
    ("{}", {"a": 1}, False),
    ("[1, 2]", [2, 1], False),
    ("[1, 2, 3]", [1, 2], False),
    ('{"a": [{"b": "x"}]}', {"a": [{"b": "x"}]}, True),
    ("0.1", 0.1, True),
    ("12345678901234567890123", 12345678901234567890123, True),
    ('{"a": 1, "a": 2}', {"a": 2}, True),
]


@pytest.mark.parametrize(("output", "expected", "passed"), CASES)
def test_json_decides(output: str, expected: Any, passed: bool) -> None:
    """One JSON value, alone or in a fence, equal in value to the expected one."""
    assert grade_json(output, expected, OPTIONS).passed is passed


REASONS = [
    ('{"a": {"b": 2}}', {"a": {"b": 1}}, "$.a.b: expected 1, found 2"),
    ("[1]", [1, 2], "$: expected 2 items, found 1"),
    ('{"b": 1}', {"a": 1}, "$: missing key 'a'; unexpected key 'b'"),
    ("{", {}, "line 1, column 2"),
    ("", {}, "the output is empty"),
    ("NaN", {}, "NaN is not JSON"),
]


@pytest.mark.parametrize(("output", "expected", "text"), REASONS)
def test_json_reason_names_the_place(output: str, expected: Any, text: str) -> None:
    """A failure says where the first difference or fault is."""
    assert text in grade_json(output, expected, OPTIONS).reason


@pytest.mark.parametrize("output", ["[" * 200_000, '{"a":' * 200_000, "[" * 200_000 + "]" * 200_000])
def test_json_nested_too_deep_is_a_fault(output: str) -> None:
    """Nesting that cannot be read makes the grade void, not wrong, and does not end the process."""
    with pytest.raises(GraderFaultError, match="nested too deep") as caught:
        grade_json(output, ANYTHING, OPTIONS)
    assert caught.value.code == "grader_error"


@settings(deadline=None, max_examples=60)
@given(st.text())
def test_json_refuses_any_text_in_words(text: str) -> None:
    """Any text is JSON or refused with `NotJsonError`."""
    try:
        read_json_output(text)
    except NotJsonError as error:
        assert str(error)  # noqa: PT017 - both outcomes are right


@settings(deadline=None, max_examples=60)
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner)))
def test_json_value_equals_itself(value: Any) -> None:
    """What JSON writes and reads back is equal to where it came from."""
    assert grade_json(json.dumps(value), value, OPTIONS).passed
    assert parse_json(json.dumps(value)) == value


@pytest.mark.parametrize("output", ["```a\n" * 100_000, "```\n" * 100_001, "```json\n{\n" * 50_000, "~~~`" * 100_000])
def test_hostile_fences_are_read_in_linear_time(output: str) -> None:
    """Many thousand fences end (the suite's own time limit watches)."""
    assert grade_json(output, ANYTHING, OPTIONS).passed is False
