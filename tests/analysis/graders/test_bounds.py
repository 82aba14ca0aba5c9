"""What graders take at most: hostile patterns end, long outputs take time in proportion."""

import json
from collections.abc import Mapping
from time import thread_time
from typing import Any

import pytest

from evalrun.analysis.graders import pattern
from evalrun.analysis.graders.grader_set import GraderSet
from evalrun.analysis.graders.stored_options import parse_grader
from evalrun.errors import ConfigError
from tests.analysis.graders.test_verdicts import grade

HOSTILE = "a" * 60 + "x" * 60 + "!"
EVIL = "^(a|aa)+$"
KEYS: Mapping[str, int] = {HOSTILE: 1}

BOUNDED: list[tuple[str, Mapping[str, Any]]] = [
    (HOSTILE, {"type": "regex", "pattern": EVIL}),
    (HOSTILE, {"type": "regex", "pattern": "^((a|aa)+|b)*$"}),
    (HOSTILE, {"type": "regex", "pattern": "^(?:a?){60}(a|aa)+$"}),
    (HOSTILE, {"type": "exact", "expected": "a", "transform": {"regex": EVIL}}),
    (json.dumps(HOSTILE), {"type": "json-path", "path": "$", "matches": EVIL}),
    (json.dumps([HOSTILE]), {"type": "json-path", "path": f"$[?match(@, '{EVIL}')]"}),
    (json.dumps(HOSTILE), {"type": "json-schema", "schema": {"pattern": EVIL}}),
    (json.dumps(KEYS), {"type": "json-schema", "schema": {"patternProperties": {EVIL: {}}}}),
    (json.dumps(KEYS), {"type": "json-schema", "schema": {"propertyNames": {"pattern": EVIL}}}),
    (
        json.dumps(KEYS),
        {"type": "json-schema", "schema": {"patternProperties": {EVIL: {}}, "additionalProperties": False}},
    ),
    (
        json.dumps(KEYS),
        {"type": "json-schema", "schema": {"unevaluatedProperties": False, "patternProperties": {EVIL: {}}}},
    ),
    (
        json.dumps(KEYS),
        {
            "type": "json-schema",
            "schema": {
                "$defs": {"evil": {"patternProperties": {EVIL: {}}}},
                "unevaluatedProperties": False,
                "anyOf": [{"$ref": "#/$defs/evil"}],
            },
        },
    ),
    (
        json.dumps(KEYS),
        {
            "type": "json-schema",
            "schema": {
                "$schema": "https://json-schema.org/draft/2019-09/schema",
                "unevaluatedProperties": False,
                "allOf": [{"patternProperties": {EVIL: {}}}],
            },
        },
    ),
]


@pytest.fixture
def short_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let searches and checks end sooner: the test shows that they end, not after how long."""
    monkeypatch.setattr(pattern, "CHECK_TIMEOUT_S", 0.3)
    monkeypatch.setattr(pattern, "MATCH_TIMEOUT_S", 0.1)


@pytest.mark.parametrize(("output", "keys"), BOUNDED)
@pytest.mark.usefixtures("short_limits")
def test_hostile_output_ends_as_a_timeout(output: str, keys: Mapping[str, Any]) -> None:
    """Wherever a pattern stands, it runs in the engine that knows a limit, and the answer is not wrong for it."""
    passed, code, reason = grade(keys, output=output)
    assert (passed, code) == (None, "grader_timeout"), reason


@pytest.mark.usefixtures("short_limits")
def test_many_slow_searches_end_together() -> None:
    """A thousand keys, each of which would take its second, have one deadline."""
    keys = {f"{HOSTILE}{number}": 1 for number in range(1_000)}
    schema = {"additionalProperties": {"pattern": EVIL}}
    began_s = thread_time()
    output = json.dumps(dict.fromkeys(keys, HOSTILE))
    assert grade({"type": "json-schema", "schema": schema}, output=output)[1] == "grader_timeout"
    assert thread_time() - began_s < 10


REFUSED_PATHS = [
    ("$[?@.a == $..a]", "not comparable"),
    ("$[?$[*].x]", "look back"),
    ("$[?match(@.a, @.b)]", "not taken from the output"),
    ("$[?match(@.a, '(')]", "does not compile"),
    ("$" + "[0]" * 3_000, "longer"),
    ("$[?" + "(" * 900 + "@" + ")" * 900 + "]", "nested too deep"),
    ("items", r"expected '\$'"),
    ("", "text that is not empty"),
]


@pytest.mark.parametrize(("path", "text"), REFUSED_PATHS)
def test_path_that_cannot_be_bounded_is_refused(path: str, text: str) -> None:
    """Before anything is sent, with the place."""
    with pytest.raises(ConfigError, match=text):
        GraderSet([parse_grader({"type": "json-path", "path": path}, where="job.yaml:3")], [], vars_={})


MEGABYTES_10 = 10_000_000
LONG: list[tuple[str, Mapping[str, Any]]] = [
    ("a" * MEGABYTES_10, {"type": "exact", "expected": "b"}),
    ("a" * MEGABYTES_10, {"type": "contains-any", "values": ["b", "c"], "ignore_case": True}),
    ("ab" * (MEGABYTES_10 // 2), {"type": "icontains", "value": "abb"}),
    ("a" * MEGABYTES_10, {"type": "levenshtein", "expected": "b", "max_distance": 3}),
    ("a " * (MEGABYTES_10 // 2), {"type": "rouge-l", "expected": "b c", "threshold": 0.5}),
    ("a. " * (MEGABYTES_10 // 3), {"type": "f1", "expected": "b c", "threshold": 0.5}),
    ("<think>" * (MEGABYTES_10 // 7), {"type": "exact", "expected": "b", "transform": "strip_think"}),
    ("```\n" * (MEGABYTES_10 // 4) + "x", {"type": "exact", "expected": "b", "transform": "strip_fences"}),
    ("#" * MEGABYTES_10, {"type": "exact", "expected": "b", "transform": {"after": "###"}}),
    ("i can't " * (MEGABYTES_10 // 8), {"type": "refusal"}),
]


@pytest.mark.parametrize(("output", "keys"), LONG, ids=lambda value: value["type"] if isinstance(value, dict) else "")
def test_long_output_takes_time_in_proportion(output: str, keys: Mapping[str, Any]) -> None:
    """Ten megabytes are decided, with a reason that is short; a quadratic check would run into the suite's limit."""
    passed, code, reason = grade(keys, output=output)
    assert (passed, code) == (False, None)
    assert len(reason) < 1_000
