"""The checks by overlap with a reference: f1 as SQuAD counts it, rouge-l as the package rouge-score does.

Both score 0..1 and pass from the grader's `threshold` on. Time grows with the output alone, as long as the reference is
of a sane length: beyond `MAX_WORK` rouge-l cannot decide.
"""

import re
import string
from collections import Counter
from functools import lru_cache

from evalrun.analysis.graders.marks import Mark, quote_excerpt
from evalrun.errors import GraderFaultError
from evalrun.grader_options import F1Options, RougeLOptions

MAX_WORK = 2_000_000_000
"""Words of the output that the reference has, times words of the reference: above it, rouge-l takes seconds."""

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ROUGE_WORDS = re.compile(r"[a-z0-9]+")


def grade_f1(output: str, expected: str, options: F1Options) -> Mark:
    """Return the F1 of the words that output and reference share.

    Source: SQuAD's evaluate-v1.1.py (Rajpurkar et al., 2016): lower case, then ASCII punctuation dropped, then the
    articles a, an, the. As in version 2.0 of it, an empty side scores 1 against an empty one, else 0.
    """
    score = compute_f1(output, expected)
    return _make_scored_mark("F1", score, options.threshold, expected, output)


def compute_f1(output: str, expected: str) -> float:
    """Return the F1 of two texts, 0..1.

    Example:
        >>> compute_f1("The Eiffel Tower.", "Eiffel tower in Paris")
        0.6666666666666666
    """
    found, wanted = _split_squad(output), _split_squad(expected)
    if not found or not wanted:
        return float(found == wanted)
    n_shared = sum((Counter(found) & Counter(wanted)).values())
    return _combine(n_shared, len(found), len(wanted))


def grade_rouge_l(output: str, expected: str, options: RougeLOptions) -> Mark:
    """Return the F-measure of ROUGE-L, without stemming.

    Source: Lin (2004), and the package rouge-score 0.1.2, whose words are runs of a-z and 0-9 after lower-casing.

    Raises:
        GraderFaultError: Output and reference are too long to be compared.
    """
    return _make_scored_mark("ROUGE-L", compute_rouge_l(output, expected), options.threshold, expected, output)


def compute_rouge_l(output: str, expected: str) -> float:
    """Return the F-measure of ROUGE-L of two texts, 0..1; 0 when either has no words.

    Example:
        >>> compute_rouge_l("the cat is on the mat", "the cat sat on the mat")
        0.8333333333333334

    Raises:
        GraderFaultError: The texts are too long to be compared.
    """
    found, wanted = split_rouge_words(output), _split_reference(expected)
    if not found or not wanted:
        return 0.0
    return _combine(_count_common(found, wanted), len(found), len(wanted))


def split_rouge_words(text: str) -> list[str]:
    """Return the words of a text as rouge-score takes them."""
    return _ROUGE_WORDS.findall(text.lower())


@lru_cache(maxsize=64)
def _split_reference(text: str) -> tuple[str, ...]:
    return tuple(split_rouge_words(text))


def _split_squad(text: str) -> list[str]:
    return _ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split()


def _count_common(found: list[str], wanted: tuple[str, ...]) -> int:
    """Return the length of the longest common subsequence.

    Each word of the reference is one bit of an integer, so that a word of the output takes a few operations on it.

    Source: Hyyrö, "Bit-parallel LCS-length computation revisited" (2004).
    """
    places: dict[str, int] = {}
    for index, word in enumerate(wanted):
        places[word] = places.get(word, 0) | (1 << index)
    shared = [bits for word in found if (bits := places.get(word)) is not None]
    if len(shared) * len(wanted) > MAX_WORK:
        message = f"{len(found)} words against {len(wanted)} of `expected` are too many to compare"
        raise GraderFaultError("grader_timeout", message)
    everything = (1 << len(wanted)) - 1
    state = everything
    for bits in shared:
        matched = state & bits
        state = ((state + matched) | (state - matched)) & everything
    return len(wanted) - state.bit_count()


def _combine(n_shared: int, n_found: int, n_wanted: int) -> float:
    """Return the harmonic mean of precision and recall, in the order of operations of both references."""
    if not n_shared:
        return 0.0
    precision, recall = n_shared / n_found, n_shared / n_wanted
    return 2 * precision * recall / (precision + recall)


def _make_scored_mark(name: str, score: float, threshold: float, expected: str, output: str) -> Mark:
    reason = (
        f"{name} {score:.3f}, wanted {threshold:g}: expected {quote_excerpt(expected)}, found {quote_excerpt(output)}"
    )
    return Mark(score, score >= threshold, reason)
