"""The choice check."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalrun.analysis.graders.choice import find_choice, find_expected_fault, grade_choice
from evalrun.errors import GraderFaultError
from evalrun.grader_options import ChoiceOptions

CASES = [
    ("B", "B"),
    ("b", "B"),
    ("(B)", "B"),
    ("[B]", "B"),
    ("**B**", "B"),
    ("**(B)**", "B"),
    ("B.", "B"),
    ("B)", "B"),
    (" B \n", "B"),
    ('"B"', "B"),
    ("`B`", "B"),
    ("Answer: B", "B"),
    ("answer: b", "B"),
    ("ANSWER: (D)", "D"),
    ("**Answer:** B", "B"),
    ("Answer B", "B"),
    ("Answer:\n\n**C**", "C"),
    ("The answer is B", "B"),
    ("The answer is B.", "B"),
    ("The answer is (B).", "B"),
    ("The correct answer is **B) Paris**", "B"),
    ("The answer is A because it fits", "A"),
    ("So the final answer is: C", "C"),
    ("My choice: option (D)", "D"),
    ("The best option would be C.", "C"),
    ("B is correct; A is not", "B"),
    ("(B) is the right one", "B"),
    ("option B", "B"),
    ("Option A is wrong, so option B", "B"),
    ("I choose C.", "C"),
    ("B. Paris", "B"),
    ("B) Paris is the capital", "B"),
    ("(B) Paris", "B"),
    ("B, because A is too small", "B"),
    ("B because A is too small", "B"),
    ("A good choice is B", "B"),
    ("A careful look shows that it is D", "D"),
    ("I think it's C", "C"),
    ("Answer: I think it is C", "C"),
    ("It is clearly (C), a capital", "C"),
    ("A) 1\nB) 2\nC) 3\nThe answer is (C).", "C"),
    ("A) 1\nB) 2\nC) 3\n\nSo C", "C"),
    ("The answer is A. Wait. The answer is B.", "B"),
    (r"\boxed{B}", "B"),
    (r"\boxed{\text{B}}", "B"),
    (r"$\boxed{(C)}$", "C"),
    ("<answer>B</answer>", "B"),
    ("答案是B", "B"),
    ("答案：Ｂ", "B"),
    ("（B）", "B"),
    ("คำตอบ: C", "C"),
    ("Respuesta: D", "D"),
    ("A", "A"),
    ("A.", "A"),
    ("Answer: A", "A"),
    ("", None),
    ("None of them", None),
    ("I", None),
    ("A good question", None),
    ("I think B or C", None),
    ("Answer: B or C", None),
    ("A) 1\nB) 2", None),
    ("The answer is Belgium", None),
    ("Answer: a good one", None),
    ("ABCD", None),
    ("The answer is 42", None),
]


@pytest.mark.parametrize(("output", "letter"), CASES)
def test_choice_is_found(output: str, letter: str | None) -> None:
    """The clearest statement decides; the article and the pronoun are words."""
    assert find_choice(output, "ABCD") == letter


@pytest.mark.parametrize(("expected", "passed"), [("B", True), ("b", True), ("(B)", True), ("B.", True), ("C", False)])
def test_choice_decides(expected: str, passed: bool) -> None:
    """The expected letter may be written in the forms that datasets use."""
    assert grade_choice("The answer is B", expected, ChoiceOptions(type="choice", expected="-")).passed is passed


def test_choice_reason_says_what_was_chosen() -> None:
    """A failure names both letters, or that there was no clear choice."""
    options = ChoiceOptions(type="choice", expected="B", choices="ABCD")
    assert grade_choice("Answer: C", "B", options).reason == "expected B, chose C"
    assert "no clear choice" in grade_choice("B or C", "B", options).reason


def test_choice_cannot_decide_without_an_expected_letter() -> None:
    """An expected text that is no letter makes the grade void, and preflight names it."""
    options = ChoiceOptions(type="choice", expected="Paris", choices="ABCD")
    with pytest.raises(GraderFaultError, match="not one of the letters"):
        grade_choice("B", "Paris", options)
    assert "not one of the letters ABCD" in str(find_expected_fault("Paris", options))


@pytest.mark.parametrize(
    ("output", "choices", "letter"), [("True: T", "TF", "T"), ("Answer: 3", "1234", "3"), ("y", "YN", "Y")]
)
def test_choice_takes_other_letters(output: str, choices: str, letter: str) -> None:
    """`choices` may be any set of single characters."""
    assert find_choice(output, choices) == letter


@settings(deadline=None, max_examples=60)
@given(st.text(), st.sampled_from(["ABCD", "ABCDEFGHIJ", "TF", "]^-\\"]))
def test_choice_never_raises(output: str, choices: str) -> None:
    """Any output gets a letter or none."""
    assert find_choice(output, choices) in {*choices, None}


HOSTILE = [
    "answer: " + " " * 200_000,
    "answer" * 50_000,
    "answer:" * 50_000,
    "(" * 200_000,
    "B " * 100_000,
    "A) x\n" * 50_000,
]


@pytest.mark.parametrize("output", [*HOSTILE, "answer" + " -" * 100_000, "B" + "*" * 200_000, "Answer: B or " * 20_000])
def test_hostile_output_is_read_in_linear_time(output: str) -> None:
    """Many thousand near-choices end (the suite's own time limit watches)."""
    find_choice(output, "ABCD")
