"""The checks by likeness: f1, rouge-l and levenshtein against their references."""

import string
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalrun.analysis.graders.edit_distance import compute_distance
from evalrun.analysis.graders.overlap import compute_f1, compute_rouge_l, split_rouge_words
from evalrun.errors import GraderFaultError

ROUGE_L = [
    ("the cat sat on the mat", "the cat is on the mat", 0.8333333333333334),
    ("testing one two", "testing", 0.5),
    ("The quick brown fox jumps over the lazy dog", "The quick brown dog jumps on the log.", 0.5882352941176471),
    ("a b c d e f g", "g f e d c b a", 0.14285714285714285),
    ("Don't stop; we're #1 at 3.5%!", "do not stop we are number 1 at 3 5", 0.631578947368421),
    ("Café crème, naïve", "cafe creme naive", 0.0),
    ("ไทย", "thai", 0.0),
    ("", "a", 0.0),
    ("x x x y", "x y x", 0.5714285714285715),
]
"""(reference, output, F-measure) as rouge-score 0.1.2 gave it, by `RougeScorer(["rougeL"]).score(reference, output)`.

The package is not installed for the suite: it brings nltk and 20 MB. On 20,000 random pairs it gave the same floats."""

WORDS = st.lists(st.sampled_from(["a", "the", "cat", "Dog", "é", "1", "x-y", "."]), max_size=12).map(" ".join)
LETTERS = st.text("ab\u0301c", max_size=14)


@pytest.mark.parametrize(("reference", "output", "score"), ROUGE_L)
def test_rouge_l_equals_rouge_score(reference: str, output: str, score: float) -> None:
    """Scores are those of the reference package to the last digits."""
    assert compute_rouge_l(output, reference) == pytest.approx(score, abs=1e-12)


@given(WORDS, WORDS)
def test_rouge_l_equals_the_table_of_the_textbook(reference: str, output: str) -> None:
    """The bits of an integer count what the table of the longest common subsequence counts."""
    found, wanted = split_rouge_words(output), split_rouge_words(reference)
    row = [0] * (len(wanted) + 1)
    for word in found:
        above, row = row, [0]
        for index, other in enumerate(wanted):
            row.append(above[index] + 1 if word == other else max(above[index + 1], row[index]))
    precision, recall = row[-1] / max(1, len(found)), row[-1] / max(1, len(wanted))
    score = 2 * precision * recall / (precision + recall) if row[-1] else 0.0
    assert compute_rouge_l(output, reference) == pytest.approx(score, abs=1e-12)


@given(WORDS, WORDS)
def test_f1_is_symmetric_and_bounded(left: str, right: str) -> None:
    """Precision and recall change places; a text is wholly like itself."""
    assert compute_f1(left, right) == pytest.approx(compute_f1(right, left), abs=1e-12)
    assert 0 <= compute_f1(left, right) <= 1
    assert compute_f1(left, left) == 1


@given(WORDS, WORDS)
def test_f1_equals_the_script_of_squad(reference: str, output: str) -> None:
    """The normalisation written step by step, as the script has it, gives the same."""

    def normalise(text: str) -> list[str]:
        plain = "".join(character for character in text.lower() if character not in string.punctuation)
        return [word for word in plain.split() if word not in {"a", "an", "the"}]

    found, wanted = normalise(output), normalise(reference)
    n_same = sum((Counter(found) & Counter(wanted)).values())
    both = len(found) + len(wanted)
    score = 2 * n_same / both if found and wanted else float(found == wanted)
    assert compute_f1(output, reference) == pytest.approx(score, abs=1e-12)


@given(LETTERS, LETTERS)
def test_distance_equals_the_table_of_the_textbook(left: str, right: str) -> None:
    """The bits of an integer count what the table of Wagner and Fischer counts."""
    row = list(range(len(right) + 1))
    for number, character in enumerate(left, 1):
        above, row = row, [number]
        for index, other in enumerate(right):
            row.append(min(above[index + 1] + 1, row[index] + 1, above[index] + (character != other)))
    assert compute_distance(left, right) == row[-1]


def test_texts_too_long_to_compare_are_undecided() -> None:
    """Work that would take seconds is refused, and is no wrong answer."""
    with pytest.raises(GraderFaultError, match="too many to compare"):
        compute_distance("ab" * 30_000, "ba" * 30_000 + "c")
    with pytest.raises(GraderFaultError, match="too many to compare"):
        compute_rouge_l("a " * 50_000, "a " * 50_000)
