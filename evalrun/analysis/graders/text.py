"""The plain text checks: exact, contains, icontains."""

from evalrun.analysis.graders.marks import Mark, describe_difference, make_mark, quote_excerpt
from evalrun.grader_options import ContainsOptions, ExactOptions, IcontainsOptions


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
