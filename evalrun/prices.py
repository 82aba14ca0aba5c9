"""What the models of a run cost: who says so, and from when on.

The job's prices, those of its price file and those of the price library meet in one book before anything is sent; who
reckons a cost asks the book for the price at the time of the request.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from evalrun.options import PriceOptions
from evalrun.records import CostSource


@dataclass(frozen=True, slots=True)
class ModelPrices:
    """What one model costs, at one time and another."""

    entries: tuple[PriceOptions, ...] = ()
    source: CostSource = CostSource.TABLE
    """Who says so: `table` for the job and its price file, `library` for the price library."""

    @classmethod
    def of(cls, price: PriceOptions | None) -> "ModelPrices":
        """Return the prices of a model that costs the same at all times; none for None."""
        return cls(() if price is None else (price,))

    def __bool__(self) -> bool:
        return bool(self.entries)

    def find(self, at: datetime) -> PriceOptions | None:
        """Return the price that holds at a time; None when none does."""
        del at
        return self.entries[-1] if self.entries else None


NO_PRICES: Final = ModelPrices()
"""Of a model whose price nobody knows."""

PriceBook = Mapping[str, ModelPrices]
"""The prices of a run, by model label; a model that is not in it has none."""
