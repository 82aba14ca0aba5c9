"""JUnit XML: well formed whatever the data say, with the reason where CI shows it."""

import xml.etree.ElementTree as ET
from collections import Counter
from dataclasses import replace

import pytest

from evalrun.report import junit
from evalrun.report.model import ReportData, build_report_row
from evalrun.report.text import make_visible, strip_for_xml
from tests.report.fake_run import make_data, make_grade, make_result, make_run
from tests.report.golden_files import check_golden
from tests.report.hostile import PAYLOADS
from tests.report.hostile_run import make_hostile_run


def parse(data: ReportData) -> ET.Element:
    """Return the document's root."""
    return ET.fromstring(junit.render_junit(data).encode())


@pytest.mark.parametrize("payload", PAYLOADS)
def test_junit_is_well_formed_and_keeps_the_text(payload: str) -> None:
    """Hostile text stays text: the document parses, and the failure tells it."""
    root = parse(make_hostile_run(payload))
    shown = strip_for_xml(make_visible(payload))
    failure = root.find(".//failure")
    assert failure is not None
    assert f"output:\n{shown}" in (failure.text or "")
    assert {element.tag for element in root.iter()} == {
        "testsuites", "testsuite", "properties", "property", "testcase", "failure", "error", "skipped",
    }  # fmt: skip


def test_junit_is_as_it_was() -> None:
    """The whole document of a small run equals the golden file."""
    check_golden("junit.xml", junit.render_junit(make_run(n_samples=12, seed=3)))


def test_junit_names_are_unique_and_stable() -> None:
    """Ids that XML makes equal get a number, in plan order, the same each time."""
    rows = [build_report_row(make_result(sample_id=name), []) for name in ("a", "a\ufffe", "a\uffff", "")]
    names = [case.get("name") for case in parse(make_data(rows)).iter("testcase")]
    assert names == ["a", "a (2)", "a (3)", "(no id)"]


def test_junit_names_carry_the_repeat() -> None:
    """Repeated samples have one case a repeat."""
    rows = [build_report_row(make_result(repeat=repeat), []) for repeat in range(2)]
    assert [case.get("name") for case in parse(make_data(rows)).iter("testcase")] == ["s1 [0]", "s1 [1]"]


def test_junit_classname_is_job_model_prompt() -> None:
    """CI groups cases by arm."""
    case = parse(make_data([build_report_row(make_result(), [])])).find(".//testcase")
    assert case is not None
    assert case.get("classname") == "support-answers.gpt-5.1.terse"


@pytest.mark.parametrize(
    ("columns", "grades", "tag"),
    [
        ({"passed": True}, 1, None),
        ({"passed": False}, 1, "failure"),
        ({"status": "error", "error_code": "overloaded", "passed": None}, 0, "error"),
        ({"status": "pending", "error_code": "budget", "passed": None}, 0, "skipped"),
        ({"status": "filtered", "passed": None}, 0, "skipped"),
        ({"passed": None}, 1, "error"),
        ({"passed": None}, 0, "skipped"),
    ],
)
def test_junit_tells_wrong_from_unanswered(columns: dict[str, object], grades: int, tag: str | None) -> None:
    """A failed check is a failure, an API fault an error, what was not judged is skipped."""
    grade = make_grade(passed=columns["passed"], error_code="grader_error" if columns["passed"] is None else None)
    case = parse(make_data([build_report_row(make_result(**columns), [grade] * grades)])).find(".//testcase")
    assert case is not None
    assert [child.tag for child in case] == ([tag] if tag else [])


def test_junit_counts_agree_with_its_cases() -> None:
    """The totals of each suite, and of all, are those of the elements inside."""
    root = parse(make_run(n_samples=60))
    for suite in [root, *root.iter("testsuite")]:
        tags = Counter(child.tag for case in suite.iter("testcase") for child in case)
        counts = [suite.get(name) for name in ("tests", "failures", "errors", "skipped")]
        n_cases = len(list(suite.iter("testcase")))
        assert counts == [str(n) for n in (n_cases, tags["failure"], tags["error"], tags["skipped"])]


def test_junit_says_simulated() -> None:
    """Each suite says whether its answers were simulated."""
    properties = {p.get("name"): p.get("value") for p in parse(make_run(n_samples=6)).iter("property")}
    assert properties["simulated"] == "true"


def test_junit_without_texts_holds_none() -> None:
    """`include: none` keeps outputs and reasons out."""
    assert "perhaps 41" not in junit.render_junit(make_run(n_samples=30, include="none"))


def test_junit_cuts_texts_when_the_file_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the limit a failure keeps its reason only."""
    monkeypatch.setattr(junit, "MAX_TEXT_BYTES", 1_000)
    grade = make_grade(passed=False, reason="r" * 900)
    rows = [build_report_row(make_result(sample_id=str(i), passed=False), [grade]) for i in range(9)]
    failures = [failure.text or "" for failure in parse(make_data(rows)).iter("failure")]
    assert "output:" in failures[0]
    assert "output:" not in failures[-1]
    assert len(failures[-1]) < 300


def test_junit_takes_a_manifest_without_times() -> None:
    """Unknown times are left out, not made up."""
    data = make_run(n_samples=6)
    root = parse(replace(data, manifest={}))
    assert root.get("time") is None
    assert root.get("name") == "evalrun"
    suite = root.find("testsuite")
    assert suite is not None
    assert suite.get("timestamp") is None
