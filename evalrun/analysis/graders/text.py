"""The plain text checks: exact, contains in its four forms, starts-with and ends-with."""

from collections.abc import Iterator, Sequence

from evalrun.analysis.graders.marks import Mark, describe_difference, make_mark, quote_end, quote_excerpt
from evalrun.grader_options import (
    ContainsAllOptions,
    ContainsAnyOptions,
    ContainsOptions,
    EndsWithOptions,
    ExactOptions,
    IcontainsOptions,
    StartsWithOptions,
)

_SHOWN_VALUES = 5


def grade_exact(output: str, expected: str, options: ExactOptions) -> Mark:
    """Return whether the output equals the expected text.

    Texts are compared code point by code point: no Unicode normalisation, no white space folded inside.
    """
    if options.strip:
        output, expected = output.strip(), expected.strip()
    if output == expected or (options.ignore_case and output.casefold() == expected.casefold()):
        return make_mark(passed=True, reason=f"equals {quote_excerpt(expected)}")
    reason = describe_difference(expected, output)
    if not options.ignore_case and output.casefold() == expected.casefold():
        reason += "; they differ only in case (`ignore_case: true` would pass)"
    elif not options.strip and output.strip() == expected.strip():
        reason += "; they differ only in white space at the ends (`strip: true` would pass)"
    return make_mark(passed=False, reason=reason)


def grade_contains(output: str, value: str, options: ContainsOptions | IcontainsOptions) -> Mark:
    """Return whether the output contains the value; `icontains` compares case-folded texts."""
    is_found = value in output
    if not is_found and options.type == "icontains":
        is_found = value.casefold() in output.casefold()
    if is_found:
        return make_mark(passed=True, reason=f"contains {quote_excerpt(value)}")
    if not output:
        return make_mark(passed=False, reason=f"expected {quote_excerpt(value)} in it, but the output is empty")
    return make_mark(passed=False, reason=f"expected {quote_excerpt(value)} in it, found {quote_excerpt(output)}")


def grade_contains_all(output: str, values: Sequence[str], options: ContainsAllOptions) -> Mark:
    """Return whether the output contains every value; the score is 1 or 0, whatever share of them is there."""
    missing = [value for value, is_found in _find_each(output, values, ignore_case=options.ignore_case) if not is_found]
    if not missing:
        return make_mark(passed=True, reason=f"contains {_count(values)}")
    reason = f"expected {_count(values)} in it, {len(missing)} missing: {_quote_few(missing)}"
    return make_mark(passed=False, reason=f"{reason}; found {quote_excerpt(output)}")


def grade_contains_any(output: str, values: Sequence[str], options: ContainsAnyOptions) -> Mark:
    """Return whether the output contains at least one value."""
    for value, is_found in _find_each(output, values, ignore_case=options.ignore_case):
        if is_found:
            return make_mark(passed=True, reason=f"contains {quote_excerpt(value)}")
    return make_mark(passed=False, reason=f"expected any of {_quote_few(values)} in it, found {quote_excerpt(output)}")


def grade_starts_with(output: str, value: str, options: StartsWithOptions) -> Mark:
    """Return whether the output begins with the value."""
    if options.strip:
        output, value = output.lstrip(), value.lstrip()
    if output.startswith(value) or (options.ignore_case and _is_equal_start(output, value)):
        return make_mark(passed=True, reason=f"starts with {quote_excerpt(value)}")
    return make_mark(
        passed=False, reason=f"expected {quote_excerpt(value)} at its start, found {quote_excerpt(output)}"
    )


def grade_ends_with(output: str, value: str, options: EndsWithOptions) -> Mark:
    """Return whether the output ends with the value."""
    if options.strip:
        output, value = output.rstrip(), value.rstrip()
    if output.endswith(value) or (options.ignore_case and _is_equal_start(output[::-1], value[::-1])):
        return make_mark(passed=True, reason=f"ends with {quote_excerpt(value)}")
    return make_mark(passed=False, reason=f"expected {quote_excerpt(value)} at its end, found {quote_end(output)}")


def _is_equal_start(output: str, value: str) -> bool:
    """Compare case-folded; folding can make a text longer (ß → ss), so as much of the output as the value can need."""
    return output[: 3 * len(value)].casefold().startswith(value.casefold())


def _find_each(output: str, values: Sequence[str], *, ignore_case: bool) -> Iterator[tuple[str, bool]]:
    folded = output.casefold() if ignore_case else ""
    for value in values:
        yield value, value in output or (ignore_case and value.casefold() in folded)


def _count(values: Sequence[str]) -> str:
    return f"all {len(values)} values" if len(values) > 1 else quote_excerpt(values[0])


def _quote_few(values: Sequence[str]) -> str:
    shown = ", ".join(quote_excerpt(value, max_chars=60) for value in values[:_SHOWN_VALUES])
    return shown if len(values) <= _SHOWN_VALUES else f"{shown} and {len(values) - _SHOWN_VALUES} more"
