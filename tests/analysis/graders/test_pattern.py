"""The regex check."""

import pytest
import regex

from evalrun.analysis.graders.pattern import compile_pattern, estimate_pattern_size, find_pattern_fault, grade_regex
from evalrun.errors import GraderFaultError
from evalrun.grader_options import RegexOptions

CASES = [
    ("answer: 42", r"\d+", 0, None, True),
    ("none", r"\d+", 0, None, False),
    ("answer: 42", r"answer: (\d+)", 1, "42", True),
    ("answer: 41", r"answer: (\d+)", 1, "42", False),
    ("answer: 42", r"answer: (?P<n>\d+)", "n", "42", True),
    ("b", r"(a)|b", 1, "a", False),
    ("b", r"(a)|b", 1, None, True),
    ("x\ny", r"^y$", 0, None, False),
    ("x\ny", r"(?m)^y$", 0, None, True),
    ("", r"^$", 0, None, True),
    ("HELLO", r"(?i)hello", 0, None, True),
    ("ไทย", r"\p{Thai}+", 0, "ไทย", True),
    ("1 2", r"\d", 0, "2", False),
]


@pytest.mark.parametrize(("output", "pattern", "group", "expected", "passed"), CASES)
def test_regex_decides(output: str, pattern: str, group: int | str, expected: str | None, passed: bool) -> None:
    """The first match decides; with `expected` its group must equal that."""
    options = RegexOptions(type="regex", pattern=pattern, group=group, expected=expected)
    assert grade_regex(output, expected, options).passed is passed


@pytest.mark.parametrize("pattern", [r"^(a|aa)+$", r"(x+x+)+y|^(a|aa)+$"])
def test_regex_ends_a_catastrophic_pattern_as_a_timeout(pattern: str) -> None:
    """A hostile output cannot hold the run: the search ends as `grader_timeout`."""
    output = "a" * 60 + "x" * 60 + "!"
    with pytest.raises(GraderFaultError) as caught:
        grade_regex(output, None, RegexOptions(type="regex", pattern=pattern))
    assert caught.value.code == "grader_timeout"


FAULTS = [
    (RegexOptions(type="regex", pattern="(a"), "does not compile"),
    (RegexOptions(type="regex", pattern="a", group=1), "no group 1"),
    (RegexOptions(type="regex", pattern="(?P<x>a)", group="y"), "no group named 'y'"),
    (RegexOptions(type="regex", pattern="a", group=-1), "no group -1"),
    (RegexOptions(type="regex", pattern="((a{9999}){9999}){9999}"), "counted repeats"),
    (RegexOptions(type="regex", pattern="(" * 5000 + ")" * 5000), "does not compile"),
    (RegexOptions(type="regex", pattern="a" * 30_000), "longer than"),
]


@pytest.mark.parametrize(("options", "text"), FAULTS)
def test_regex_fault_is_found_before_anything_is_sent(options: RegexOptions, text: str) -> None:
    """A pattern that does not compile, or lacks the group, or would fill the memory, is told in words."""
    assert text in str(find_pattern_fault(options.pattern, options.group))


SIZES = [("a", 1), ("abc", 3), ("(ab){3}", 6), ("((a{9}){9}){9}", 729), (r"[a{5}]{4}", 4), (r"\(a{2}", 3), ("a{2,}", 2)]


@pytest.mark.parametrize(("pattern", "size"), [*SIZES, ("a{0,9}", 1), ("(a", 1), ("a)", 2), (r"\d{4}-\d{2}", 7)])
def test_pattern_size_multiplies_nested_repeats(pattern: str, size: int) -> None:
    """The size is that of the pattern with its counted repeats written out."""
    assert estimate_pattern_size(pattern) == size


def test_ordinary_patterns_compile() -> None:
    """The memory bound does not stand in the way of what people write."""
    for source in (r"(?:\d{1,3},){0,5}\d{3}", r"\b[A-Z]{2,40}\b", r"^(?:[^,]{0,500},){20}", "(?:ab){1000}"):
        assert isinstance(compile_pattern(source), regex.Pattern)
