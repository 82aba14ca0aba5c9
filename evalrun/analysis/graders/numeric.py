"""The numeric check: the last number of the output against the expected number, compared exactly."""

from fractions import Fraction

from evalrun.analysis.graders.marks import Mark, make_mark, quote_end, quote_excerpt
from evalrun.analysis.graders.numbers import find_last_number, read_expected_number, render_number
from evalrun.errors import GraderFaultError
from evalrun.grader_options import NumericOptions


def grade_numeric(output: str, expected: str, options: NumericOptions) -> Mark:
    """Return whether the last number of the output is the expected one, within the tolerance.

    Both are exact fractions, and the tolerance is the decimal number as written: 0.3 is within 0.1 of 0.2. An output
    with no number fails.

    Raises:
        GraderFaultError: The expected text has no number in range.
    """
    target = read_expected_number(expected)
    if target is None:
        raise GraderFaultError("grader_error", f"the expected text {quote_excerpt(expected)} has no number")
    wanted = render_number(target)
    found = find_last_number(output)
    if found is None:
        return make_mark(passed=False, reason=f"expected {wanted}, but there is no number in {quote_end(output)}")
    if found.value is None:
        return make_mark(passed=False, reason=f"expected {wanted}, but the last number, {found.text}, is out of range")
    if found.value == target:
        return make_mark(passed=True, reason=f"the last number is {wanted}")
    tolerance = Fraction(repr(options.tolerance))
    is_near = abs(found.value - target) <= tolerance
    within = f" within {options.tolerance:g}" if tolerance else ""
    return make_mark(passed=is_near, reason=f"expected {wanted}{within}, the last number is {found.text.strip()}")


def find_expected_fault(expected: str) -> str | None:
    """Return why a rendered `expected` cannot be used, or None."""
    if read_expected_number(expected) is None:
        return f"renders {quote_excerpt(expected)}, which has no number"
    return None
