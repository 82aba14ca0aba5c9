"""Reading the last number of a text."""

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalrun.analysis.graders.numbers import find_last_number, render_number

CASES = [
    ("18", "18"),
    ("#### 18", "18"),
    ("A: 18\n\n", "18"),
    ("18.", "18"),
    ("18.0", "18"),
    ("$18", "18"),
    ("$18.50 in total", "37/2"),
    ("-$5", "-5"),
    ("$-5", "-5"),
    ("€1,234", "1234"),
    ("฿250", "250"),
    ("1,234.5", "2469/2"),
    ("1,234,567", "1234567"),
    ("1,00,000", "100000"),
    ("12,34", "34"),
    ("1,2,3", "3"),
    ("1,234,5678", "5678"),
    ("1_000_000", "1000000"),
    ("1 234", "234"),
    ("1\u00a0234", "234"),
    ("1.234,5", "5"),
    ("−3", "-3"),
    ("–3", "-3"),
    ("x = -3", "-3"),
    ("(-3)", "-3"),
    ("16-3", "3"),
    ("12–15", "15"),
    ("5 - 3", "3"),
    ("A-1", "1"),
    ("--5", "5"),
    ("+7", "7"),
    ("1/2", "1/2"),
    ("-1/2", "-1/2"),
    ("1 / 2", "1/2"),
    ("1 1/2 cups", "3/2"),
    ("-1 1/2", "-3/2"),
    ("7 5/2", "5/2"),
    ("½", "1/2"),
    ("3½", "7/2"),
    ("1⁄4", "1/4"),
    ("1/0", "0"),
    ("1/2/2024", "2024"),
    ("16 / 2 = 8", "8"),
    (r"\frac{1}{2}", "1/2"),
    (r"\boxed{\dfrac{3}{4}}", "3/4"),
    (r"\boxed{1{,}234}", "1234"),
    (r"-\$5", "-5"),
    ("1e3", "1000"),
    ("1E-2", "1/100"),
    ("2.5e+3.", "2500"),
    ("2e", "2"),
    ("1.5 × 10^3", "1500"),
    (r"3 \times 10^{-2}", "3/100"),
    ("12 %", "12"),
    ("100%.", "100"),
    (".5", "1/2"),
    ("5/10=<<5/10=.5>>.5", "1/2"),
    ("...5", "5"),
    ("３１４", "314"),
    ("１２，３４５円", "12345"),
    ("１，２３４円", "1234"),
    ("๑๘ บาท", "18"),
    ("١٢٫٥", "25/2"),
    ("\u200f-٣", "-3"),
    ("۱٬۲۳۴", "1234"),
    ("**18**", "18"),
    ("`18`", "18"),
    ("18km", "18"),
    ("first 1\nthen 2\nno number here", "2"),
    ("1\r\n2\r\n", "2"),
    ("3.14.", "157/50"),
    ("v1.2.3", "3"),
    ("0.1", "1/10"),
    ("007", "7"),
    ("0,001", "1"),
]


@pytest.mark.parametrize(("text", "value"), CASES)
def test_last_number_is_read_exactly(text: str, value: str) -> None:
    """Each form that people and models write is read as one exact fraction."""
    found = find_last_number(text)
    assert found is not None
    assert found.value == Fraction(value)


@pytest.mark.parametrize(
    "text", ["", "   ", "no number", "eighteen", "十二", "x²", "-", "$", "%", "1".replace("1", "")]
)
def test_text_without_a_number_has_none(text: str) -> None:
    """Words, superscripts and signs alone are no numbers."""
    assert find_last_number(text) is None


@pytest.mark.parametrize("text", ["1e999999999", "1e-99999", "9" * 5000, "2 × 10^9999999"])
def test_number_out_of_range_has_no_value(text: str) -> None:
    """A number that would fill the memory is found, without a value."""
    found = find_last_number(text)
    assert found is not None
    assert found.value is None


@settings(deadline=None, max_examples=60)
@given(st.text())
def test_reading_never_raises(text: str) -> None:
    """Any text is read without an exception."""
    find_last_number(text)


@settings(deadline=None, max_examples=60)
@given(st.text(alphabet="0123456789.,-+/eE%$ _\n×^{}\\frac½١−"))
def test_reading_never_raises_on_near_numbers(text: str) -> None:
    """Any jumble of what numbers are made of is read without an exception."""
    find_last_number(text)


@settings(deadline=None, max_examples=60)
@given(st.integers(-(10**30), 10**30))
def test_integer_is_read_back(value: int) -> None:
    """An integer is read as itself, plain and grouped."""
    for text in (str(value), f"the total is {value:,}."):
        found = find_last_number(text)
        assert found is not None
        assert found.value == value


@settings(deadline=None, max_examples=60)
@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**9), max_value=10**9, places=6))
def test_decimal_is_read_back_exactly(value: object) -> None:
    """A decimal number keeps every digit."""
    found = find_last_number(f"= {value}")
    assert found is not None
    assert found.value == Fraction(str(value))


@pytest.mark.parametrize("line", ["1," * 500_000, "9" * 1_000_000, "1/" * 500_000, "-" * 1_000_000, "1 " * 500_000])
def test_hostile_line_is_read_in_linear_time(line: str) -> None:
    """A megabyte of near-numbers ends (the suite's own time limit watches)."""
    find_last_number(line)


@pytest.mark.parametrize(
    ("value", "text"),
    [("18", "18"), ("1/2", "0.5"), ("1/3", "1/3"), ("-7/2", "-3.5"), ("1" + "0" * 399, "1" + "0" * 399)],
)
def test_number_is_written_as_people_write_it(value: str, text: str) -> None:
    """Whole numbers and decimals plain, other fractions as fractions."""
    assert render_number(Fraction(value)) == text
