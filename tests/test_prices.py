"""Prices by date: which one holds, and since when."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalrun.options import PriceOptions
from evalrun.prices import NO_PRICES, ModelPrices, list_unpriced, parse_valid_from

START = datetime(2026, 1, 1, tzinfo=UTC)


def make_price(valid_from: str | None, rate: int = 1) -> PriceOptions:
    """Return a price that is told by its rate."""
    return PriceOptions(input=Decimal(rate), output=Decimal(rate), valid_from=valid_from)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-08-21", datetime(2026, 8, 21, tzinfo=UTC)),
        ("2026-08-21T12:00Z", datetime(2026, 8, 21, 12, tzinfo=UTC)),
        ("2026-08-21 12:00:30+02:00", datetime(2026, 8, 21, 10, 0, 30, tzinfo=UTC)),
        ("2026-08-21T00:00-07:00", datetime(2026, 8, 21, 7, tzinfo=UTC)),
        (None, None),
    ],
)
def test_valid_from_is_read_in_utc(text: str | None, moment: datetime | None) -> None:
    """A date is midnight in UTC; a time is taken in its own zone."""
    assert parse_valid_from(text) == moment


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("2026-08-21T12:00", "names no zone"),
        ("2026-02-30", "is not in the calendar"),
        ("2026-08-21T25:00Z", "is not in the calendar"),
        ("0001-01-01T00:00+14:00", "is not in the calendar"),
        ("20260821", "is no date"),
        ("2026-W34-5", "is no date"),
        ("yesterday", "is no date"),
        ("２０２６-08-21", "is no date"),
    ],
)
def test_valid_from_is_refused_where_it_is_no_moment(text: str, part: str) -> None:
    """A date that is not one, and a time that leaves its zone open, are errors."""
    with pytest.raises(ValueError, match=part):
        parse_valid_from(text)


def test_newest_price_that_holds_counts_from_its_first_moment() -> None:
    """A price takes over at its first moment, in whatever order the prices were written."""
    old, new = make_price(None, 1), make_price("2026-08-21", 2)
    change = datetime(2026, 8, 21, tzinfo=UTC)
    for prices in (ModelPrices((old, new)), ModelPrices((new, old))):
        assert prices.find(change - timedelta(microseconds=1)) is old
        assert prices.find(change) is new


def test_price_that_has_not_begun_is_none() -> None:
    """Before the first of the prices there is none, and the book says whose."""
    prices = ModelPrices((make_price("2026-08-21"), make_price("2026-09-01")))
    assert prices.find(START) is None
    assert prices.first_valid_from == "2026-08-21"
    assert list_unpriced({"a": prices, "b": ModelPrices.of(make_price(None))}, ["a", "b", "c"], START) == ["a", "c"]


def test_no_price_is_none_at_all_times() -> None:
    """A model that nobody has a price of has none, and counts as false."""
    assert (bool(NO_PRICES), NO_PRICES.find(START), NO_PRICES.first_valid_from) == (False, None, None)
    assert ModelPrices.of(None) == NO_PRICES


@given(days=st.lists(st.integers(0, 300), unique=True, max_size=6), is_open=st.booleans(), at=st.integers(-10, 310))
def test_price_found_is_the_one_a_search_finds(days: list[int], is_open: bool, at: int) -> None:
    """Whatever the dates and their order, the price found is the latest that is not later than the time."""
    entries = [make_price((START + timedelta(days=day)).date().isoformat(), day + 1) for day in days]
    entries += [make_price(None, 1000)] if is_open else []
    held = [day for day in days if day <= at]
    expected = max(held) + 1 if held else 1000 if is_open else None
    found = ModelPrices(tuple(entries)).find(START + timedelta(days=at))
    assert (None if found is None else int(found.input)) == expected
