"""All graders of a job, at work."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalrun.analysis.graders.build import digest_options
from evalrun.analysis.graders.grader_set import UNGRADED, GraderSet
from evalrun.analysis.graders.stored_options import parse_grader
from evalrun.errors import ConfigError
from evalrun.grader_options import (
    ChoiceOptions,
    ContainsOptions,
    ExactOptions,
    GraderOptions,
    JsonOptions,
    JsonSchemaOptions,
    NumericOptions,
    RegexOptions,
)
from evalrun.records import Sample


def make_set(*graders: GraderOptions, defaults: Sequence[GraderOptions] = (), **keywords: Any) -> GraderSet:
    """Return the grader set of a job with these graders."""
    return GraderSet(graders, defaults, vars_=keywords.pop("vars_", {}), **keywords)


def make_row(output: str | None, sample: Mapping[str, Any] | None = None, **columns: Any) -> dict[str, Any]:
    """Return one row as results.parquet has it."""
    row = {"row_id": "r", "request_key": "k", "status": "ok", "sample_id": "s", "repeat": 0}
    return {**row, "output": output, "sample": json.dumps(sample or {}), **columns}


def make_sample(row: Mapping[str, Any], *graders: Mapping[str, Any]) -> Sample:
    """Return a sample as the job room makes it."""
    return Sample(sample_id="s", row=row, category=None, where="data.jsonl:7", graders=graders)


def contains(value: str, **common: Any) -> ContainsOptions:
    """Return a contains grader."""
    return ContainsOptions(type="contains", value=value, **common)


def test_row_passes_when_every_grader_passes() -> None:
    """Score is 1 and the verdict true when all checks pass."""
    graded = make_set(contains("a"), contains("b")).grade_row(make_row("ab"))
    assert (graded.score, graded.passed) == (1.0, True)


def test_row_score_is_the_weighted_mean() -> None:
    """Weights count in the score, not in the verdict."""
    graded = make_set(contains("a", weight=3), contains("z")).grade_row(make_row("a"))
    assert (graded.score, graded.passed) == (0.75, False)


def test_row_of_weightless_grades_has_a_verdict_but_no_score() -> None:
    """A mean over no weight is unknown, not 0."""
    graded = make_set(contains("a", weight=0)).grade_row(make_row("a"))
    assert (graded.score, graded.passed) == (None, True)


@pytest.mark.parametrize(("other", "passed"), [("a", None), ("z", False)])
def test_row_with_an_undecided_grader_is_unknown_unless_one_failed(other: str, passed: bool | None) -> None:
    """A void grade leaves the row without verdict, except where another grader failed it."""
    undecided = NumericOptions(type="numeric", expected="{{ n }}")
    graded = make_set(undecided, contains(other)).grade_row(make_row("a", {"n": "none"}))
    assert graded.passed is passed
    assert [grade.error_code for grade in graded.grades] == ["grader_error", None]
    assert (graded.grades[0].score, graded.grades[0].passed) == (None, None)


@pytest.mark.parametrize("status", ["filtered", "error", "pending"])
def test_row_without_an_answer_has_no_grades(status: str) -> None:
    """An outage is never a wrong answer."""
    assert make_set(contains("a")).grade_row(make_row(None, status=status)) == UNGRADED


@pytest.mark.parametrize("status", ["ok", "truncated", "refused", "empty"])
def test_row_with_an_answer_is_graded(status: str) -> None:
    """Answers are graded, a null output (tool calls only) as the empty text."""
    graded = make_set(contains("a")).grade_row(make_row(None, status=status))
    assert (graded.score, graded.passed) == (0.0, False)


def test_row_to_which_no_grader_applies_is_ungraded() -> None:
    """No check, no verdict."""
    assert make_set().grade_row(make_row("a")) == UNGRADED
    assert make_set(contains("a", when="kind == 'x'")).grade_row(make_row("a", {"kind": "y"})) == UNGRADED


def test_when_picks_the_samples() -> None:
    """A grader applies where its expression is true."""
    graders = make_set(contains("a", when="kind == 'x'"), contains("b", name="rest", when="kind != 'x'"))
    graded = graders.grade_row(make_row("a", {"kind": "x"}))
    assert [grade.grader for grade in graded.grades] == ["contains"]


def test_when_that_fails_makes_the_grade_void() -> None:
    """A condition on a column that a stored sample lacks cannot decide, and says so."""
    graded = make_set(contains("a", when="kind == 'x'")).grade_row(make_row("a"))
    assert graded.passed is None
    assert "kind" in graded.grades[0].reason


def test_not_turns_the_verdict_round() -> None:
    """`not` inverts score and verdict and says so."""
    graded = make_set(contains("a", not_=True)).grade_row(make_row("a"))
    assert (graded.score, graded.passed) == (0.0, False)
    assert "`not` forbids" in graded.grades[0].reason


@pytest.mark.parametrize(("threshold", "passed"), [(0.0, True), (1.0, False)])
def test_threshold_decides_by_score(threshold: float, passed: bool) -> None:
    """With a threshold the score decides."""
    assert make_set(contains("z", threshold=threshold)).grade_row(make_row("a")).passed is passed


def test_names_are_unique_within_a_row_and_stable_across_samples() -> None:
    """The job's graders keep their names whatever graders a sample brings."""
    own = [{"type": "contains", "value": "c"}, {"type": "contains", "value": "d", "name": "mine"}]
    graders = make_set(contains("a"), contains("b"), defaults=[ExactOptions(type="exact", expected="x")])
    names = [grade.grader for grade in graders.grade_row(make_row("a", {"graders": own})).grades]
    assert names == ["exact", "contains-3", "mine", "contains", "contains-2"]


def test_given_names_that_clash_are_numbered() -> None:
    """Two graders of one name stay apart."""
    graded = make_set(contains("a", name="x"), contains("a", name="x")).grade_row(make_row("a"))
    assert [grade.grader for grade in graded.grades] == ["x", "x-2"]


def test_grade_carries_what_the_tables_need() -> None:
    """Metric, hard, weight and digest go into the grade."""
    options = contains("a", metric="m", hard=True, weight=2)
    grade = make_set(options).grade_row(make_row("a")).grades[0]
    assert (grade.metric, grade.hard, grade.weight, grade.type) == ("m", True, 2, "contains")
    assert grade.grader_digest == digest_options(options)
    assert len(grade.grader_digest) == 16


def test_template_sees_columns_id_repeat_and_vars() -> None:
    """`expected` is rendered over the whole scope."""
    options = ExactOptions(type="exact", expected="{{ answer }}/{{ sample_id }}/{{ repeat }}/{{ vars.tone }}")
    graders = make_set(options, vars_={"tone": "dry"})
    for repeat in (0, 1):
        assert graders.grade_row(make_row(f"18/s/{repeat}/dry", {"answer": 18}, repeat=repeat)).passed


def test_rendered_value_is_never_rendered_again() -> None:
    """A dataset value with template marks stays text."""
    graded = make_set(ExactOptions(type="exact", expected="{{ answer }}")).grade_row(
        make_row("{{ 7*7 }}", {"answer": "{{ 7*7 }}"})
    )
    assert graded.passed is True


def test_big_integer_is_kept_exactly() -> None:
    """An integer beyond 64 bits reaches the template digit by digit."""
    options = ExactOptions(type="exact", expected="{{ n }}")
    assert make_set(options).grade_row(make_row(str(2**70 + 1), {"n": 2**70 + 1})).passed


def test_same_sample_text_under_two_ids_is_told_apart() -> None:
    """What is kept between rows never leaks from one sample into another."""
    graders = make_set(ExactOptions(type="exact", expected="{{ sample_id }}"))
    assert [graders.grade_row(make_row(name, sample_id=name)).passed for name in ("a", "b", "a")] == [True] * 3


def test_json_expected_is_templated_whole_or_inside_its_strings() -> None:
    """A template gives JSON text; a JSON value has its strings rendered."""
    whole = JsonOptions(type="json", expected='{"n": {{ n }}}')
    inside = JsonOptions(type="json", expected={"name": "{{ name }}", "tags": ["{{ name }}", 1]})
    sample = {"n": 3, "name": "Ann"}
    assert make_set(whole).grade_row(make_row('{"n": 3}', sample)).passed
    assert make_set(inside).grade_row(make_row('{"name": "Ann", "tags": ["Ann", 1]}', sample)).passed


def test_json_expected_that_renders_no_json_makes_the_grade_void() -> None:
    """What cannot be compared with is no verdict."""
    graded = make_set(JsonOptions(type="json", expected="{{ n }}")).grade_row(make_row("1", {"n": "x y"}))
    assert graded.grades[0].error_code == "grader_error"


def test_numeric_expected_may_be_a_number() -> None:
    """A number in the job needs no quotes."""
    assert make_set(NumericOptions(type="numeric", expected=0.1)).grade_row(make_row("0.10")).passed


def test_hostile_pattern_makes_the_grade_void_and_keeps_the_others() -> None:
    """A timeout voids one grade; the row's other grades stand."""
    graders = make_set(RegexOptions(type="regex", pattern="^(a|aa)+$"), contains("a"))
    graded = graders.grade_row(make_row("a" * 60 + "!"))
    assert [grade.error_code for grade in graded.grades] == ["grader_timeout", None]
    assert graded.passed is None
    assert graded.score == 1.0


def test_deep_json_makes_the_grade_void() -> None:
    """Nesting beyond the reader voids the grade."""
    graded = make_set(JsonOptions(type="json")).grade_row(make_row("[" * 200_000))
    assert graded.grades[0].error_code == "grader_error"


def test_endless_schema_makes_the_grade_void() -> None:
    """A schema that recurses without end voids the grade and nothing else."""
    graded = make_set(JsonSchemaOptions(type="json-schema", schema_={"$ref": "#"})).grade_row(make_row("1"))
    assert graded.grades[0].error_code == "grader_error"


@pytest.mark.parametrize("sample", ["", "[]", "{", '{"graders": 5}', '{"graders": [5]}', '{"graders": "x"}'])
def test_unreadable_sample_leaves_the_row_ungraded(sample: str) -> None:
    """A damaged sample voids every grade, with the reason."""
    graded = make_set(contains("a")).grade_row(make_row("a") | {"sample": sample})
    assert (graded.score, graded.passed) == (None, None)
    assert [grade.error_code for grade in graded.grades] == ["grader_error", "grader_error"]


def test_reason_fits_into_parquet() -> None:
    """No lone surrogate reaches a reason."""
    graded = make_set(contains("\ud800")).grade_row(make_row("\udfff"))
    assert graded.grades[0].reason.encode()


def test_sample_graders_may_be_json_text() -> None:
    """A CSV column holds the list as text."""
    own = json.dumps([{"type": "contains", "value": "a"}])
    assert make_set().grade_row(make_row("a", {"graders": own})).passed


def test_dataset_grader_with_a_template_is_refused() -> None:
    """Templates come from the job only: preflight names it, and at work the row stays ungraded."""
    own = {"type": "contains", "value": "{{ answer }}"}
    graders = make_set()
    problems = graders.check_sample(make_sample({"answer": "a", "graders": [own]}, own))
    assert "literal values only" in problems[0].message
    assert graders.grade_row(make_row("a", {"answer": "a", "graders": [own]})).passed is None


def test_inline_sample_grader_may_hold_a_template() -> None:
    """The job's own samples are the job."""
    row = {"answer": "a", "graders": [{"type": "contains", "value": "{{ answer }}"}]}
    graders = make_set(inline_samples=[row])
    assert graders.check_sample(make_sample(row, *row["graders"])) == []  # type: ignore[arg-type]  # a plain literal
    assert graders.grade_row(make_row("a", row)).passed is True


def test_braces_in_a_pattern_of_a_dataset_grader_are_no_template() -> None:
    """A pattern is literal everywhere."""
    own = {"type": "regex", "pattern": r"\{\{x\}\}|{{"}
    assert make_set().grade_row(make_row("{{x}}", {"graders": [own]})).passed is True


def test_only_so_many_sample_lineups_are_kept() -> None:
    """Memory does not grow with the number of different sample graders."""
    graders = make_set()
    for index in range(1000):
        graders.grade_row(make_row("a", {"graders": [{"type": "contains", "value": str(index)}]}, sample_id=str(index)))
    assert len(graders._lineups) <= 256


CHECKS: list[tuple[GraderOptions, dict[str, Any], str]] = [
    (contains("{{ answer }}"), {}, "'answer' is undefined"),
    (contains("{{ answer }}"), {"answer": ""}, "`value` renders to nothing"),
    (ExactOptions(type="exact", expected="{{ answer }}"), {"answer": "  "}, "`expected` renders to nothing"),
    (NumericOptions(type="numeric", expected="{{ answer }}"), {"answer": "n/a"}, "has no number"),
    (ChoiceOptions(type="choice", expected="{{ answer }}", choices="AB"), {"answer": "C"}, "not one of the letters AB"),
    (JsonOptions(type="json", expected="{{ answer }}"), {"answer": "x y"}, "is not JSON"),
    (RegexOptions(type="regex", pattern="a", expected="{{ answer }}"), {"answer": ""}, "renders to nothing"),
    (contains("a", when="kind == 1"), {}, "'kind' is undefined"),
    (contains("{{ answer }}", when="repeat == 1"), {}, "'answer' is undefined"),
]


@pytest.mark.parametrize(("options", "row", "text"), CHECKS)
def test_preflight_names_what_would_keep_a_sample_from_being_graded(
    options: GraderOptions, row: dict[str, Any], text: str
) -> None:
    """Each problem says what, and in which row."""
    problems = make_set(options).check_sample(make_sample(row))
    assert len(problems) == 1
    assert text in problems[0].message
    assert "data.jsonl:7" in problems[0].render()


def test_preflight_passes_a_good_sample_and_skips_what_does_not_apply() -> None:
    """No problem where all renders, or where `when` leaves the sample out."""
    graders = make_set(
        NumericOptions(type="numeric", expected="{{ answer }}"), contains("{{ x }}", when="answer == '0'")
    )
    assert graders.check_sample(make_sample({"answer": "#### 18"})) == []


def test_literal_empty_expected_is_meant() -> None:
    """`expected: ""` written out asks for an empty answer."""
    options = ExactOptions(type="exact", expected="")
    assert make_set(options).check_sample(make_sample({})) == []
    assert make_set(options).grade_row(make_row("")).passed is True


FAULTS: list[tuple[GraderOptions, str]] = [
    (contains("{{ answer"), "does not compile"),
    (contains("a", when="x =="), "does not compile"),
    (RegexOptions(type="regex", pattern="("), "does not compile"),
    (JsonSchemaOptions(type="json-schema", schema_={"type": "x"}), "the schema is not valid"),
    (JsonSchemaOptions(type="json-schema", file="x.json"), "is not read here"),
    (NumericOptions(type="numeric", expected="many"), "has no number"),
    (ChoiceOptions(type="choice", expected="Z", choices="AB"), "not one of the letters"),
    (JsonOptions(type="json", expected="hello"), "is not JSON"),
]


@pytest.mark.parametrize(("options", "text"), FAULTS)
def test_fault_of_a_job_grader_is_an_error_of_the_job(options: GraderOptions, text: str) -> None:
    """What cannot work is told when the set is built, with its place."""
    with pytest.raises(ConfigError) as caught:
        make_set(contains("a"), options)
    assert text in str(caught.value)
    assert "graders.1" in str(caught.value)


def test_all_faults_are_told_at_once() -> None:
    """Two bad graders give two problems."""
    bad = RegexOptions(type="regex", pattern="(")
    with pytest.raises(ConfigError) as caught:
        make_set(bad, defaults=[bad])
    assert [problem.where for problem in caught.value.problems] == ["defaults.graders.0.pattern", "graders.0.pattern"]


PARSE_FAULTS: list[tuple[Any, str]] = [
    ("contains", "a grader is a mapping"),
    ({"type": "contain", "value": "a"}, "did you mean 'contains'"),
    ({"value": "a"}, "unknown grader type None"),
    ({"type": "contains"}, "needs `value`"),
    ({"type": "contains", "vlaue": "a"}, "did you mean 'value'"),
    ({"type": "contains", "value": 4}, "is text"),
    ({"type": "contains", "value": ""}, "is text"),
    ({"type": "contains", "value": "a", "hard": "yes"}, "is true or false"),
    ({"type": "contains", "value": "a", "weight": -1}, "is a number"),
    ({"type": "contains", "value": "a", "threshold": 2}, "is a number"),
    ({"type": "json-schema"}, "give exactly one"),
    ({"type": "numeric", "expected": True}, "is text"),
    ({"type": "exact", "expected": None}, "is text"),
    ({"type": "regex", "pattern": "a", "group": [1]}, "is a number or text"),
]


@pytest.mark.parametrize(("raw", "text"), PARSE_FAULTS)
def test_bad_sample_grader_is_told_in_words(raw: Any, text: str) -> None:
    """Unknown and missing keys and wrong kinds are named, with a suggestion where one is near."""
    with pytest.raises(ConfigError) as caught:
        parse_grader(raw, where="data.jsonl:7")
    assert text in str(caught.value)


def test_sample_grader_takes_the_keys_of_the_job_file() -> None:
    """`not` and `schema` are written as in a job."""
    options = parse_grader({"type": "json-schema", "schema": {"type": "object"}, "not": True}, where="x")
    assert dataclasses.asdict(options)["not_"] is True


def test_digest_changes_with_options_order_and_vars() -> None:
    """The set's digest covers everything that can change a verdict."""
    digests = {
        make_set(contains("a"), contains("b")).digest,
        make_set(contains("b"), contains("a")).digest,
        make_set(contains("a"), contains("b", weight=2)).digest,
        make_set(contains("a"), contains("b"), vars_={"x": 1}).digest,
    }
    assert len(digests) == 4
    assert make_set(contains("a")).digest == make_set(contains("a")).digest


ALL_KINDS: list[GraderOptions] = [
    ExactOptions(type="exact", expected="a"),
    contains("a"),
    RegexOptions(type="regex", pattern="a+b"),
    NumericOptions(type="numeric", expected="18"),
    ChoiceOptions(type="choice", expected="B"),
    JsonOptions(type="json", expected={"a": 1}),
    JsonSchemaOptions(type="json-schema", schema_={"type": "object"}),
]


@settings(deadline=None, max_examples=60)
@given(st.text())
def test_graders_never_raise_and_always_decide(output: str) -> None:
    """Any output gets seven decided grades."""
    graded = make_set(*ALL_KINDS).grade_row(make_row(output))
    assert [grade.error_code for grade in graded.grades] == [None] * 7
    assert graded.passed is False


@pytest.mark.parametrize("output", ["{{ x }}", "{% for %}", "\x1b[2J", "# h\n|a|", "x" * 10_000_000, "\x00", '{"a":1}'])
def test_output_is_data_only(output: str) -> None:
    """Templates, escapes, Markdown and 10 MB in an output are graded as text."""
    graded = make_set(*ALL_KINDS).grade_row(make_row(output))
    assert all(grade.error_code is None and len(grade.reason) < 1000 for grade in graded.grades)
    assert all(grade.reason.isprintable() for grade in graded.grades)


def test_sample_grader_may_hold_any_json_and_numbers() -> None:
    """`expected` of json and numeric graders takes plain values in a dataset row."""
    own = [{"type": "json", "expected": {"a": [1]}}, {"type": "numeric", "expected": 1, "not": True}]
    graded = make_set().grade_row(make_row('{"a": [1]}', {"graders": own}))
    assert [grade.passed for grade in graded.grades] == [True, False]


def test_lone_surrogates_in_a_stored_sample_are_read() -> None:
    """A sample that the fast reader refuses is read by the exact one."""
    row = make_row("\ud800", {"answer": "\ud800", "graders": [{"type": "contains", "value": "\ud800"}]})
    assert make_set(ExactOptions(type="exact", expected="{{ answer }}")).grade_row(row).passed is True


def test_preflight_of_a_job_without_graders_finds_nothing() -> None:
    """No grader, no problem."""
    assert make_set().check_sample(make_sample({})) == []
