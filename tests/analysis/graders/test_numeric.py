"""The numeric check."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalrun.analysis.graders.numeric import find_expected_fault, grade_numeric
from evalrun.errors import GraderFaultError
from evalrun.grader_options import NumericOptions

CASES = [
    ("The answer is 18.", "18", 0.0, True),
    ("18.00", "18", 0.0, True),
    ("She makes $1,018 a day", "1018", 0.0, True),
    ("17", "18", 0.0, False),
    ("17", "18", 1.0, True),
    ("0.3", "0.2", 0.1, True),
    ("0.3000001", "0.2", 0.1, False),
    ("1/3", "0.333", 0.001, True),
    ("1/3", "0.333", 0.0, False),
    ("12 %", "12", 0.0, True),
    ("12 %", "0.12", 0.0, False),
    ("no idea", "18", 0.0, False),
    ("", "0", 0.0, False),
    ("18, or maybe 19", "18", 0.0, False),
    ("18", "The total is 18\n#### 18", 0.0, True),
    ("9007199254740993", "9007199254740992", 0.0, False),
    ("1e3", "1000", 0.0, True),
    ("1e999999999", "1", 0.0, False),
    ("1e22", "1e+22", 0.0, True),
    ("−3", "-3", 0.0, True),
]


@pytest.mark.parametrize(("output", "expected", "tolerance", "passed"), CASES)
def test_numeric_decides(output: str, expected: str, tolerance: float, passed: bool) -> None:
    """The last number is compared exactly, within the decimal tolerance."""
    options = NumericOptions(type="numeric", expected="-", tolerance=tolerance)
    assert grade_numeric(output, expected, options).passed is passed


def test_numeric_reason_says_what_was_expected_and_found() -> None:
    """A failure names both numbers."""
    mark = grade_numeric("I get 17.", "18", NumericOptions(type="numeric", expected="18"))
    assert mark.reason == "expected 18, the last number is 17"


def test_numeric_without_a_number_fails_with_a_reason() -> None:
    """An output without a number is wrong, not an error."""
    mark = grade_numeric("I refuse.", "18", NumericOptions(type="numeric", expected="18"))
    assert (mark.score, mark.passed) == (0.0, False)
    assert "no number in 'I refuse.'" in mark.reason


def test_numeric_cannot_decide_without_an_expected_number() -> None:
    """An expected text without a number makes the grade void, never wrong, and preflight names it."""
    with pytest.raises(GraderFaultError, match="has no number"):
        grade_numeric("18", "n/a", NumericOptions(type="numeric", expected="n/a"))
    assert "has no number" in str(find_expected_fault("n/a"))


@settings(deadline=None, max_examples=60)
@given(st.text(), st.floats(0, 1e6))
def test_numeric_never_raises(output: str, tolerance: float) -> None:
    """Any output gets a verdict."""
    mark = grade_numeric(output, "18", NumericOptions(type="numeric", expected="18", tolerance=tolerance))
    assert mark.passed in {True, False}
