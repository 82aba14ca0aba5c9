"""Keys that graders have in common, over all types: `not`, `threshold`, `strip`, `ignore_case`, templates, digests."""

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalrun.analysis.graders.build import digest_options
from evalrun.analysis.graders.grader_set import GraderSet
from evalrun.analysis.graders.stored_options import parse_grader
from evalrun.errors import ConfigError
from evalrun.records import Sample
from tests.analysis.graders.test_verdicts import CASES, grade
from tests.analysis.graders.verdicts import Case

DECIDED = [case for kind, case in CASES if case[2] is not None and kind != "transform" and "not" not in case[1]]
TEXTS = st.text("aAbßSs \n", max_size=8)
FILLED = TEXTS.filter(str.strip)


def check(keys: Mapping[str, Any], sample: Mapping[str, Any]) -> str:
    """Return what is found wrong with a grader of a sample before anything is sent."""
    graders = GraderSet([parse_grader(keys, where="job")], [], vars_={})
    found = graders.check_sample(Sample(sample_id="s", row=sample, category=None, where="data:1", graders=()))
    return " ".join(problem.message for problem in found)


@pytest.mark.parametrize("case", [case for case in DECIDED if "threshold" not in case[1]])
def test_not_turns_every_verdict_round(case: Case) -> None:
    """Whatever the type: what passed fails, what failed passes."""
    output, keys, verdict = case
    assert grade({**keys, "not": True}, output=output)[0] is (not verdict)


@given(TEXTS, FILLED)
def test_ignore_case_and_strip_only_ever_let_more_pass(output: str, value: str) -> None:
    """A looser comparison never fails what the stricter one passed."""
    for kind, key in (("exact", "expected"), ("starts-with", "value"), ("ends-with", "value")):
        strict = grade({"type": kind, key: value, "strip": False}, output=output)[0]
        assert not strict or grade({"type": kind, key: value, "strip": True}, output=output)[0]
        assert not strict or grade({"type": kind, key: value, "strip": False, "ignore_case": True}, output=output)[0]


@given(TEXTS, FILLED)
def test_text_checks_agree_with_each_other(output: str, value: str) -> None:
    """An equal text begins and ends with the value, and what does contains it."""
    exact = grade({"type": "exact", "expected": value, "strip": False}, output=output)[0]
    starts = grade({"type": "starts-with", "value": value, "strip": False}, output=output)[0]
    ends = grade({"type": "ends-with", "value": value, "strip": False}, output=output)[0]
    contains = grade({"type": "contains", "value": value}, output=output)[0]
    assert not exact or (starts and ends)
    assert not (starts or ends) or contains
    assert contains == grade({"type": "contains-all", "values": [value]}, output=output)[0]
    assert contains == grade({"type": "contains-any", "values": [value]}, output=output)[0]


EMPTY = [
    ({"type": "contains", "value": "{{ x }}"}, "`value` renders to nothing"),
    ({"type": "contains-all", "values": ["a", "{{ x }}"]}, "`values` renders to nothing"),
    ({"type": "contains-any", "values": "{{ list }}"}, "`values` renders to an empty list"),
    ({"type": "contains-any", "values": "{{ number }}"}, "no JSON list of texts"),
    ({"type": "starts-with", "value": "{{ x }}"}, "`value` renders to nothing"),
    ({"type": "json-path", "path": "$.a", "equals": "{{ x }}"}, "`equals` renders to nothing"),
    ({"type": "f1", "expected": "{{ x }}", "threshold": 1}, "`expected` renders to nothing"),
    ({"type": "rouge-l", "expected": "{{ x }}", "threshold": 1}, "no word of a–z or digits"),
    ({"type": "levenshtein", "expected": "{{ x }}", "max_distance": 1}, "`expected` renders to nothing"),
    ({"type": "finish-reason", "value": "{{ x }}"}, "`value` renders to nothing"),
    ({"type": "tool-call", "tool": "t", "arguments": {"q": "{{ nope }}"}}, "nope"),
]


@pytest.mark.parametrize(("keys", "text"), EMPTY)
def test_expected_that_renders_to_nothing_is_found_before(keys: Mapping[str, Any], text: str) -> None:
    """With the key that holds it."""
    assert text in check(keys, {"x": " ", "list": [], "number": 5})


REFUSED = [
    ({"type": "latency", "max_s": 1, "transform": "strip_think"}, "does not read the text that `transform` picks from"),
    ({"type": "exact", "expected": "a", "transform": {"regex": "("}}, "does not compile"),
    ({"type": "exact", "expected": "a", "transform": {"regex": "a", "group": 1}}, "no group 1"),
    ({"type": "exact", "expected": "a", "transform": ["strip_think", {"json_path": "a"}]}, "is not a JSONPath"),
    ({"type": "exact", "expected": "a", "transform": {"after": "a", "regex": "b"}}, "exactly one"),
    ({"type": "exact", "expected": "a", "transform": {"group": 1}}, "exactly one"),
    ({"type": "exact", "expected": "a", "transform": "strip_thnk"}, "'strip_think' or 'strip_fences'"),
    ({"type": "json-path", "path": "$", "matches": "("}, "does not compile"),
    ({"type": "json-path", "path": "$", "matches": "a", "equals": 1}, "not both"),
    ({"type": "word-count"}, "`min`, `max` or both"),
    ({"type": "word-count", "min": 2, "max": 1}, "`min` 2 is above `max` 1"),
    ({"type": "word-count", "min": -1}, "0 or more"),
    ({"type": "word-count", "min": 1.5}, "a number"),
    ({"type": "f1", "expected": "a"}, "needs `threshold`"),
    ({"type": "f1", "expected": "a", "threshold": 2}, "1 at most"),
    ({"type": "contains-all", "values": []}, "a list"),
    ({"type": "contains-all", "values": ["a", 1]}, "a list"),
    ({"type": "starts-with", "value": " "}, "renders to nothing"),
    ({"type": "rouge-l", "expected": "ไทย", "threshold": 1}, "no word of a–z or digits"),
    ({"type": "tool-call", "tool": "t", "arguments": [1]}, "a mapping"),
]


@pytest.mark.parametrize(("keys", "text"), REFUSED)
def test_grader_that_cannot_work_is_refused(keys: Mapping[str, Any], text: str) -> None:
    """Before any row is graded, in words."""
    with pytest.raises(ConfigError, match=text.replace("(", "\\(")):
        GraderSet([parse_grader(keys, where="job")], [], vars_={})


def test_digest_of_an_old_grader_stays_as_it_was() -> None:
    """A key that came later changes nothing where it is not used: old runs still pair with new ones."""
    options = parse_grader({"type": "contains", "value": "a"}, where="job")
    assert digest_options(options) == "e7133b0ecea92078"
    changed = parse_grader({"type": "contains", "value": "a", "transform": "strip_think"}, where="job")
    assert digest_options(changed) != digest_options(options)
