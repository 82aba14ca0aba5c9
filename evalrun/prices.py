"""What the models of a run cost: who says so, and from when on.

The job's prices, those of its price file and those of the price library meet in one book before anything is sent; who
reckons a cost asks the book for the price at the time of the request.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Final

from evalrun.options import PriceOptions
from evalrun.records import CostSource

_DATE: Final = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_MOMENT: Final = re.compile(r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(?::\d{2}(?:\.\d{1,6})?)?(Z|[+-]\d{2}:\d{2})?", re.ASCII)
_ALWAYS: Final = datetime.min.replace(tzinfo=UTC)


def parse_valid_from(text: str | None) -> datetime | None:
    """Return when a price begins, in UTC; None for one that always held.

    Args:
        text: A date, which begins at midnight in UTC, or a date and time with its zone.

    Raises:
        ValueError: It is neither.
    """
    if text is None:
        return None
    match = _MOMENT.fullmatch(text)
    if match is not None and match.group(1) is None:
        msg = f"{text!r} names no zone: 12:00Z is noon in UTC, 12:00+02:00 two hours earlier"
        raise ValueError(msg)
    try:
        if _DATE.fullmatch(text):
            day = date.fromisoformat(text)
            return datetime(day.year, day.month, day.day, tzinfo=UTC)
        if match is not None:
            return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        msg = f"{text!r} is not in the calendar"
        raise ValueError(msg) from error
    msg = f"{text[:60]!r} is no date: write 2026-08-21, or 2026-08-21T12:00Z"
    raise ValueError(msg)


@dataclass(frozen=True, slots=True)
class ModelPrices:
    """What one model costs, at one time and another.

    Raises:
        ValueError: A `valid_from` is no date.
    """

    entries: tuple[PriceOptions, ...] = ()
    source: CostSource = CostSource.TABLE
    """Who says so: `table` for the job and its price file, `library` for the price library."""
    origin: str = ""
    """Where they stand, for a reader: a place in a file, or the library's name of the model."""
    library: str | None = None
    """The price library with its version; None when the prices are not from there."""
    _newest_first: tuple[tuple[datetime, PriceOptions], ...] = field(init=False, repr=False, compare=False)
    _only: PriceOptions | None = field(init=False, repr=False, compare=False)
    """The price of a model that costs the same at all times, as most do."""

    def __post_init__(self) -> None:
        """Sort the prices once, since each attempt asks."""
        dated = [(parse_valid_from(price.valid_from) or _ALWAYS, price) for price in self.entries]
        dated.sort(key=lambda each: each[0], reverse=True)
        object.__setattr__(self, "_newest_first", tuple(dated))
        is_constant = len(dated) == 1 and dated[0][0] == _ALWAYS
        object.__setattr__(self, "_only", dated[0][1] if is_constant else None)

    @classmethod
    def of(cls, price: PriceOptions | None) -> "ModelPrices":
        """Return the prices of a model that has one price, or none."""
        return cls(() if price is None else (price,))

    def __bool__(self) -> bool:
        return bool(self.entries)

    def find(self, at: datetime) -> PriceOptions | None:
        """Return the newest price that holds at a time; None when none holds yet."""
        return self._only or self._search(at)

    def _search(self, at: datetime) -> PriceOptions | None:
        for starts_at, price in self._newest_first:
            if starts_at <= at:
                return price
        return None

    @property
    def first_valid_from(self) -> str | None:
        """When the first of the prices begins, as written; None when one always held or there are none."""
        return self._newest_first[-1][1].valid_from if self._newest_first else None


NO_PRICES: Final = ModelPrices()
"""Of a model whose price nobody knows."""

PriceBook = Mapping[str, ModelPrices]
"""The prices of a run, by model label; a model that is not in it has none."""


def list_unpriced(book: PriceBook, models: Iterable[str], at: datetime) -> list[str]:
    """Return the models of which no price holds at a time.

    Args:
        book: The prices.
        models: Their labels.
        at: With its zone.
    """
    return [model for model in models if book.get(model, NO_PRICES).find(at) is None]
