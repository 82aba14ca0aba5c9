"""The levenshtein check: how many edits lie between the output and the expected text.

An edit inserts, deletes or replaces one code point. Texts whose lengths differ by more than `max_distance` are not
compared at all, so an output of any length costs no more than `expected` does.
"""

from evalrun.analysis.graders.marks import Mark, describe_difference, make_mark, quote_excerpt
from evalrun.errors import GraderFaultError
from evalrun.grader_options import LevenshteinOptions

MAX_WORK = 2_000_000_000
"""Product of the lengths (less what both begin and end with) above which a comparison takes seconds."""


def grade_levenshtein(output: str, expected: str, options: LevenshteinOptions) -> Mark:
    """Return whether at most `max_distance` edits lead from the expected text to the output.

    Raises:
        GraderFaultError: Both texts are too long to be compared.
    """
    if options.strip:
        output, expected = output.strip(), expected.strip()
    if output == expected:
        return make_mark(passed=True, reason=f"equals {quote_excerpt(expected)}")
    if options.ignore_case:
        output, expected = output.casefold(), expected.casefold()
    least = abs(len(output) - len(expected))
    if least > options.max_distance:
        reason = f"at least {least} edits away, {options.max_distance} allowed"
        return make_mark(passed=False, reason=f"{reason}: {describe_difference(expected, output)}")
    distance = compute_distance(output, expected)
    reason = f"{distance} edits away, {options.max_distance} allowed: {describe_difference(expected, output)}"
    return make_mark(passed=distance <= options.max_distance, reason=reason)


def compute_distance(left: str, right: str) -> int:
    """Return the Levenshtein distance of two texts.

    Each character of the shorter text is one bit of an integer, so that a character of the longer one takes a dozen
    operations on it, however long the shorter is (within reason).

    Example:
        >>> compute_distance("kitten", "sitting")
        3

    Source: Myers (1999), in the form of Hyyrö, "A bit-vector algorithm for computing Levenshtein and Damerau edit
    distances" (2003).

    Raises:
        GraderFaultError: The texts are too long to be compared.
    """
    left, right = _trim(left, right)
    if len(left) > len(right):
        left, right = right, left
    if not left:
        return len(right)
    if len(left) * len(right) > MAX_WORK:
        raise GraderFaultError("grader_timeout", f"{len(left)} and {len(right)} characters are too many to compare")
    places: dict[str, int] = {}
    for index, character in enumerate(left):
        places[character] = places.get(character, 0) | (1 << index)
    everything, last = (1 << len(left)) - 1, 1 << (len(left) - 1)
    plus, minus, distance = everything, 0, len(left)
    for character in right:
        equal = places.get(character, 0)
        diagonal = (((equal & plus) + plus) ^ plus) | equal | minus
        grows = minus | ~(diagonal | plus)
        shrinks = plus & diagonal
        distance += bool(grows & last) - bool(shrinks & last)
        grows, shrinks = (grows << 1) | 1, shrinks << 1
        plus = (shrinks | ~(diagonal | grows)) & everything
        minus = grows & diagonal & everything
    return distance


def _trim(left: str, right: str) -> tuple[str, str]:
    """Drop what both texts begin and end with: no edit is needed there."""
    start = _count_equal(left, right)
    left, right = left[start:], right[start:]
    end = _count_equal(left[::-1], right[::-1])
    return (left[:-end], right[:-end]) if end else (left, right)


def _count_equal(left: str, right: str) -> int:
    """Return how many characters two texts have alike at their start."""
    low, high = 0, min(len(left), len(right))
    while low < high:
        middle = (low + high + 1) // 2
        if left[low:middle] == right[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
