"""`python -m tests.cli.spend_recorder FILE ARGUMENTS`: evalrun, with its reservations written down.

The budget is the product's own, with an ear in it: at the end the file holds, as JSON, by how much the requests that
were in flight when the last one left took more than was held back for them. That is the documented bound.
"""

import json
import sys
from decimal import Decimal
from pathlib import Path

from evalrun import spending
from evalrun.cli.main import main
from evalrun.dispatch.budget import Reservation, RunBudget, Spent


class RecordingBudget(RunBudget):
    """A budget that keeps what is in flight, and what of it took more than was held back for it."""

    latest: "RecordingBudget | None" = None

    def __init__(self, *limits: Decimal | float | None, **facts: Decimal | float) -> None:
        super().__init__(*limits, **facts)  # type: ignore[arg-type]  # Handed on as they come.
        self.over_usd: dict[int, Decimal] = {}
        self.over_tokens: dict[int, int] = {}
        self.n_sent = 0
        self.most_in_flight = 0
        self._in_flight: dict[int, Reservation] = {}
        RecordingBudget.latest = self

    def reserve(self, wanted: Reservation, now_s: float) -> bool:
        """Note a request that leaves: what is in flight now is what the bound is about."""
        if not super().reserve(wanted, now_s):
            return False
        self._in_flight[id(wanted)] = wanted
        self.over_usd = dict.fromkeys(self._in_flight, Decimal(0))
        self.over_tokens = dict.fromkeys(self._in_flight, 0)
        self.n_sent += 1
        self.most_in_flight = max(self.most_in_flight, len(self._in_flight))
        return True

    def settle(self, reservation: Reservation, actual: Spent) -> None:
        """Note what a request took more than was held back for it, if it is one of the last."""
        super().settle(reservation, actual)
        number = id(reservation)
        del self._in_flight[number]
        if number in self.over_usd:
            self.over_usd[number] = max(Decimal(0), (actual.usd or Decimal(0)) - (reservation.usd or Decimal(0)))
            self.over_tokens[number] = max(0, (actual.tokens or 0) - reservation.tokens)

    def write(self, path: Path) -> None:
        """Write the figures of this call."""
        figures = {
            "bound_usd": str(sum(self.over_usd.values(), Decimal(0))),
            "bound_tokens": sum(self.over_tokens.values()),
            "n_sent": self.n_sent,
            "most_in_flight": self.most_in_flight,
            "n_left": len(self._in_flight),
        }
        path.write_text(json.dumps(figures), encoding="utf-8")


if __name__ == "__main__":
    vars(spending)["RunBudget"] = RecordingBudget
    exit_code = main(sys.argv[2:])
    if RecordingBudget.latest is not None:
        RecordingBudget.latest.write(Path(sys.argv[1]))
    sys.exit(exit_code)
