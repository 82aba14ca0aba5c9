"""Text on the terminal can neither steer it nor lie about what it says."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from evalrun.cli.console import Column, clean_text, count_noun, format_percent, format_seconds, format_usd, make_table
from evalrun.cli.csv_cells import escape_formula


@given(st.text())
def test_clean_text_holds_no_control_character(text: str) -> None:
    """Nothing but newline and tab below space passes, nor C1, bidi controls or surrogates."""
    cleaned = clean_text(text)
    assert [sign for sign in cleaned if ord(sign) < 32 and sign not in "\n\t"] == []
    assert [sign for sign in cleaned if 0x7F <= ord(sign) <= 0x9F or 0x202A <= ord(sign) <= 0x202E] == []
    cleaned.encode()


def test_clean_text_shows_what_it_took() -> None:
    """A terminal escape is shown, not dropped."""
    assert clean_text("a\x1b]52;c;x\x07b") == "a\\u001b]52;c;x\\u0007b"


@pytest.mark.parametrize(
    ("cell", "safe"),
    [("=1+1", "'=1+1"), ("-1.5", "-1.5"), ("-cmd", "'-cmd"), ("@x", "'@x"), ("plain", "plain"), ("+1e3", "+1e3")],
)
def test_escape_formula_defuses_text_and_leaves_numbers(cell: str, safe: str) -> None:
    """Formula starts are prefixed; a number is no formula."""
    assert escape_formula(cell) == safe


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "–"), (0.0304, "30 ms"), (1.25, "1.2 s"), (150, "2 min 30 s"), (7260, "2 h 01 min")],
)
def test_format_seconds_chooses_the_unit(seconds: float | None, text: str) -> None:
    """A duration is told in the unit a person would choose; unknown is a dash."""
    assert format_seconds(seconds) == text


def test_unknown_is_never_zero() -> None:
    """An unknown cost or rate is said to be unknown."""
    assert (format_usd(None), format_percent(None)) == ("unknown", "–")


def test_count_noun_knows_one() -> None:
    """One row, two rows."""
    assert (count_noun(1, "row"), count_noun(2000, "row")) == ("1 row", "2,000 rows")


COLUMNS = [Column("model"), Column("passed", is_number=True), Column("USD", is_number=True, rank=1)]


@pytest.mark.parametrize(("width", "headings"), [(80, ["model", "passed", "USD"]), (24, ["model", "passed"])])
def test_table_drops_whole_columns_and_cuts_no_figure(width: int, headings: list[str]) -> None:
    """Where it is narrow a column of higher rank is left out; what is shown is whole."""
    table = make_table(COLUMNS, [["sim-careful", "91.7 %", "$0.0079"]], width=width)
    shown = io.StringIO()
    Console(file=shown, width=width).print(table)
    assert [column.header for column in table.columns] == headings
    assert "sim-careful" in shown.getvalue()
    assert "91.7 %" in shown.getvalue()


def test_small_cost_is_not_shown_as_zero() -> None:
    """A cost that rounds to nothing is said to be small; zero is zero."""
    assert (format_usd(0.0), format_usd(0.0079), format_usd(120.0)) == ("$0.0000", "$0.0079", "$120.00")
    assert (format_usd(0.000364), format_usd(0.00001), format_usd(3e-8)) == ("$0.00036", "$0.000010", "<$0.0000001")
