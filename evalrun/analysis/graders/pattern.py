"""The regex check, bounded in time: a catastrophic pattern ends as a grader fault, never as a wrong answer."""

from functools import lru_cache
from time import thread_time

import regex

from evalrun.analysis.graders.marks import Mark, describe_difference, make_mark, quote_excerpt
from evalrun.errors import GraderFaultError
from evalrun.grader_options import RegexOptions

MATCH_TIMEOUT_S = 1.0
"""CPU seconds that one search may take."""

CHECK_TIMEOUT_S = 10.0
"""CPU seconds that a check of many steps may take: a schema with its patterns, a JSONPath over a document."""

MAX_PATTERN_CHARS = 20_000
"""Longest pattern."""

MAX_PATTERN_SIZE = 100_000
"""Largest pattern once its counted repeats are written out: the engine does that, at about 300 bytes an item."""

_ITEM = regex.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\{(?P<least>\d+)(?:,\d*)?\}|.", regex.DOTALL)


@lru_cache(maxsize=512)
def compile_pattern(source: str) -> regex.Pattern[str]:
    """Return the compiled pattern.

    Raises:
        regex.error: The pattern is not valid, or would take too much memory: `(a{9999}){9999}` is refused.
    """
    if len(source) > MAX_PATTERN_CHARS:
        raise regex.error(f"it is longer than {MAX_PATTERN_CHARS} characters")
    if estimate_pattern_size(source) > MAX_PATTERN_SIZE:
        raise regex.error(f"its counted repeats make it larger than {MAX_PATTERN_SIZE} items")
    return regex.compile(source)


def estimate_pattern_size(source: str) -> int:
    """Return about how many items a pattern has once its counted repeats are written out, nested ones multiplied.

    Example:
        >>> estimate_pattern_size(r"(ab){3}")
        6
    """
    sizes, last = [0], 0
    for item in _ITEM.finditer(source):
        if item[0] == "(":
            sizes.append(0)
            last = 0
        elif item[0] == ")" and len(sizes) > 1:
            last = sizes.pop()
            sizes[-1] += last
        elif item["least"] is not None:
            sizes[-1] += last * (max(int(item["least"]), 1) - 1)
            last *= max(int(item["least"]), 1)
        else:
            sizes[-1] += 1
            last = 1
    return sum(sizes)


def find_pattern_fault(source: str, group: int | str = 0) -> str | None:
    """Return why a pattern cannot be used, or None: it does not compile, or has no such group."""
    try:
        pattern = compile_pattern(source)
    except Exception as error:  # noqa: BLE001 - the package raises more than its own error on hostile patterns
        return f"the pattern {quote_excerpt(source)} does not compile: {error}"
    if isinstance(group, bool) or (isinstance(group, int) and not 0 <= group <= pattern.groups):
        return f"the pattern has {pattern.groups} group(s), no group {group}"
    if isinstance(group, str) and group not in pattern.groupindex:
        names = ", ".join(map(repr, pattern.groupindex)) or "none"
        return f"the pattern has no group named {group!r}; named groups: {names}"
    return None


class Stopwatch:
    """Bounds the CPU time of one check whose steps are bounded each, but not their number."""

    __slots__ = ("_ends_s", "_what")

    def __init__(self, what: str) -> None:
        """Name what is timed; nothing is left before `start`."""
        self._what = what
        self._ends_s = 0.0

    def start(self) -> None:
        """Give the check its time: one check at a time, in one thread."""
        self._ends_s = thread_time() + CHECK_TIMEOUT_S

    def take_left_s(self) -> float:
        """Return the seconds that are left, at most those of one search.

        Raises:
            GraderFaultError: None are (`grader_timeout`).
        """
        left_s = self._ends_s - thread_time()
        if left_s <= 0:
            raise GraderFaultError("grader_timeout", f"{self._what} took longer than {CHECK_TIMEOUT_S:g} s")
        return min(left_s, MATCH_TIMEOUT_S)


def search_bounded(
    pattern: regex.Pattern[str], text: str, *, timeout_s: float | None = None, is_full: bool = False
) -> regex.Match[str] | None:
    """Return the first match; with `is_full` only one of the whole text.

    Raises:
        GraderFaultError: The search took longer than `timeout_s` CPU seconds, `MATCH_TIMEOUT_S` by default
            (`grader_timeout`).
    """
    timeout_s = MATCH_TIMEOUT_S if timeout_s is None else timeout_s
    try:
        search = pattern.fullmatch if is_full else pattern.search
        return search(text, timeout=timeout_s)
    except TimeoutError as error:
        raise GraderFaultError(
            "grader_timeout",
            f"the pattern {quote_excerpt(pattern.pattern)} took longer than {timeout_s:.3g} s"
            f" on {len(text)} characters; nested repeats such as (a|aa)+ do that: make them possessive or atomic",
        ) from error


def grade_regex(output: str, expected: str | None, options: RegexOptions) -> Mark:
    """Return whether the pattern is found and, with `expected`, whether the first match's group equals that.

    Raises:
        GraderFaultError: The search took too long.
    """
    match = search_bounded(compile_pattern(options.pattern), output)
    if match is None:
        reason = f"the pattern {quote_excerpt(options.pattern)} is not found in {quote_excerpt(output)}"
        return make_mark(passed=False, reason=reason)
    captured = match.group(options.group)
    if expected is None:
        found = match.group()
        return make_mark(
            passed=True, reason=f"the pattern {quote_excerpt(options.pattern)} matches {quote_excerpt(found)}"
        )
    if captured is None:
        reason = f"expected {quote_excerpt(expected)}, but group {options.group!r} took no part in the match"
        return make_mark(passed=False, reason=reason)
    if captured == expected:
        return make_mark(passed=True, reason=f"captured {quote_excerpt(expected)}")
    return make_mark(passed=False, reason=f"captured something else: {describe_difference(expected, captured)}")
