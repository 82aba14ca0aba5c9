"""Numbers are said the same way everywhere, and the unknown is never a zero."""

import pytest

from evalrun.report import figures


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "unknown"),
        (0, "0"),
        (999, "999"),
        (9_999, "9,999"),
        (12_345, "12.3 k"),
        (1_234_567, "1.23 M"),
        (2.5e9, "2.5 B"),
    ],
)
def test_format_compact_keeps_three_digits(value: float | None, text: str) -> None:
    """Large numbers are shortened, small ones are whole."""
    assert figures.format_compact(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "unknown"),
        (0, "$0"),
        (0.000123, "$0.000123"),
        (0.0898, "$0.0898"),
        (1.5, "$1.50"),
        (123.456, "$123.46"),
        (12_345.6, "$12,346"),
    ],
)
def test_format_usd_tells_small_sums_apart(value: float | None, text: str) -> None:
    """Small sums keep their digits; an unknown sum is no zero."""
    assert figures.format_usd(value) == text


@pytest.mark.parametrize(
    ("values", "digits"), [([0.26, 0.0084], 4), ([0.00028, 0.000012], 6), ([12.0, 3.5], 2), ([None, 0.0], 2), ([], 2)]
)
def test_choose_usd_digits_fits_the_smallest_sum(values: list[float | None], digits: int) -> None:
    """A column has as many decimals as its smallest sum needs."""
    assert figures.choose_usd_digits(values) == digits


@pytest.mark.parametrize(("value", "text"), [(0.041, "+4.1"), (-0.041, "−4.1"), (0.0001, "±0.0"), (0.0, "±0.0")])
def test_format_points_carries_its_sign(value: float, text: str) -> None:
    """A difference has a sign, a true minus, and none for zero."""
    assert figures.format_points(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.0001, "p < 0.001"), (0.0123, "p = 0.012"), (0.326, "p = 0.33"), (1.0, "p = 1")]
)
def test_format_p_keeps_two_digits(value: float, text: str) -> None:
    """A p-value is never shown as zero."""
    assert figures.format_p(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "unknown"),
        (0.05, "50 ms"),
        (1.84, "1.8 s"),
        (125.4, "2 min 05 s"),
        (3_600.0, "1 h 00 min"),
        (11_220.0, "3 h 07 min"),
    ],
)
def test_format_duration_chooses_its_unit(value: float | None, text: str) -> None:
    """Wall times are said in the unit that people would use."""
    assert figures.format_duration(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "unknown"),
        ("2026-11-22T15:30:45+00:00", "22 Nov 2026, 15:30 UTC"),
        ("2026-11-22T15:30:45Z", "22 Nov 2026, 15:30 UTC"),
        ("soon", "soon"),
    ],
)
def test_format_time_reads_iso(value: str | None, text: str) -> None:
    """Times are said in words; what is no time is shown as it came."""
    assert figures.format_time(value) == text


@pytest.mark.parametrize(
    ("value", "number"), [("1.5", 1.5), (2, 2.0), (None, None), ("x", None), (True, None), ([], None)]
)
def test_read_number_takes_decimal_text(value: object, number: float | None) -> None:
    """Manifests may hold decimals as text; what is no number is unknown."""
    assert figures.read_number(value) == number


@pytest.mark.parametrize(
    ("values", "unit", "texts"),
    [([0.03, 0.0042, None], "ms", ["30", "4.2", "–"]), ([0.5, 12.0, None], "s", ["0.50", "12.0", "–"])],
)
def test_latency_column_has_one_unit(values: list[float | None], unit: str, texts: list[str]) -> None:
    """All latencies of a column share a unit, chosen by the largest."""
    assert figures.choose_latency_unit(values) == unit
    assert [figures.format_latency(value, unit) for value in values] == texts


def test_format_percent_says_nothing_for_nothing() -> None:
    """A rate over no row is a dash."""
    assert figures.format_percent(None) == "–"
    assert figures.format_count(None) == "–"
