"""What a check returns, and how it quotes texts it did not write.

A `Mark` is a decided verdict. A check that cannot decide raises `GraderFaultError` instead; it never returns a guess.
"""

from typing import NamedTuple

MAX_EXCERPT_CHARS = 200
"""Longest part of a text that a reason quotes."""

_CONTEXT_CHARS = 30


class Mark(NamedTuple):
    """A check's verdict on one output."""

    score: float
    """0..1."""
    passed: bool
    reason: str
    """Plain words: what was expected, what was found."""


def make_mark(*, passed: bool, reason: str) -> Mark:
    """Return the mark of a check that knows only right and wrong."""
    return Mark(1.0 if passed else 0.0, passed, reason)


def quote_excerpt(text: str, *, max_chars: int = MAX_EXCERPT_CHARS) -> str:
    r"""Return the start of a text in quotes, with what does not print written as escapes.

    Control characters, bidirectional marks and lone surrogates come out as `\x1b`, `\u202e`, `\ud800`, so that a
    reason is safe on a terminal and in Parquet.

    Example:
        >>> quote_excerpt("two\nlines")
        "'two\\nlines'"
    """
    if len(text) <= max_chars:
        return repr(text)
    return f"{text[:max_chars]!r}…"


def quote_end(text: str, *, max_chars: int = MAX_EXCERPT_CHARS) -> str:
    """Return the end of a text in quotes: where answers stand that come last."""
    if len(text) <= max_chars:
        return repr(text)
    return f"…{text[-max_chars:]!r}"


def describe_difference(expected: str, found: str) -> str:
    """Return both texts, from a little before their first difference where they are long.

    Example:
        >>> describe_difference("18", "19")
        "expected '18', found '19'"
    """
    start = 0
    if max(len(expected), len(found)) > MAX_EXCERPT_CHARS // 2:
        start = max(0, _count_equal_start(expected, found) - _CONTEXT_CHARS)
    place = f" (from character {start + 1} on)" if start else ""
    return f"expected {quote_excerpt(expected[start:])}, found {quote_excerpt(found[start:])}{place}"


def _count_equal_start(left: str, right: str) -> int:
    return next((i for i, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right)))
