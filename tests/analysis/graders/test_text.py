"""The plain text checks."""

import pytest

from evalrun.analysis.graders.marks import MAX_EXCERPT_CHARS, quote_excerpt
from evalrun.analysis.graders.text import grade_contains, grade_exact
from evalrun.grader_options import ContainsOptions, ExactOptions, IcontainsOptions

EXACT = [
    ("18", "18", {}, True),
    (" 18\n", "18", {}, True),
    (" 18\n", "18", {"strip": False}, False),
    ("18", " 18 ", {}, True),
    ("Paris", "paris", {}, False),
    ("Paris", "paris", {"ignore_case": True}, True),
    ("STRASSE", "straße", {"ignore_case": True}, True),
    ("é", "e\u0301", {}, False),
    ("a  b", "a b", {}, False),
    ("", "", {}, True),
    ("", "x", {}, False),
    ("กรุงเทพ", "กรุงเทพ", {}, True),
    ("{{ 7*7 }}", "49", {}, False),
    ("a\r\nb", "a\nb", {}, False),
    ("\ud800", "\ud800", {}, True),
]


@pytest.mark.parametrize(("output", "expected", "options", "passed"), EXACT)
def test_exact_decides(output: str, expected: str, options: dict[str, bool], passed: bool) -> None:
    """Texts are equal code point by code point, but for the ends and the case that options leave out."""
    record = ExactOptions(type="exact", expected="-", **options)  # type: ignore[arg-type]  # keywords of one type
    assert grade_exact(output, expected, record).passed is passed


CONTAINS = [
    ("The answer is 18.", "18", True, True),
    ("The answer is Eighteen.", "eighteen", False, True),
    ("", "x", False, False),
    ("x" * 100_000 + "needle", "needle", True, True),
    ("ÄPFEL", "äpfel", False, True),
    ("STRASSE", "straße", False, True),
    ("a\nb", "a b", False, False),
    ("\x1b[31mred\x1b[0m", "red", True, True),
    ("คำตอบคือ ๑๘", "๑๘", True, True),
]


@pytest.mark.parametrize(("output", "value", "contains", "icontains"), CONTAINS)
def test_contains_decides(output: str, value: str, contains: bool, icontains: bool) -> None:
    """The value is found anywhere, with or without regard to case."""
    strict = grade_contains(output, value, ContainsOptions(type="contains", value=value))
    lenient = grade_contains(output, value, IcontainsOptions(type="icontains", value=value))
    assert (strict.passed, lenient.passed) == (contains, icontains)


def test_exact_reason_names_the_option_that_would_pass() -> None:
    """A near miss says which option makes it a hit."""
    mark = grade_exact("Paris", "paris", ExactOptions(type="exact", expected="paris"))
    assert "ignore_case" in mark.reason


def test_exact_reason_shows_the_first_difference_of_long_texts() -> None:
    """Two long texts are quoted around the place where they part."""
    mark = grade_exact("a" * 500 + "X", "a" * 500 + "Y", ExactOptions(type="exact", expected="-"))
    assert "X" in mark.reason
    assert "from character" in mark.reason
    assert len(mark.reason) < 200


def test_reason_is_capped_and_prints_safely() -> None:
    """A hostile output of 10 MB gives a short reason without control characters or surrogates."""
    hostile = "\x1b]52;c;\x07\u202e\ud800" + "x" * 10_000_000
    quoted = quote_excerpt(hostile)
    assert len(quoted) < MAX_EXCERPT_CHARS + 60
    assert quoted.isprintable()
