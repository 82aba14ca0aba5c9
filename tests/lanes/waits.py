"""Lanes that are told to wait: by every form of Retry-After, beside a lane of the same endpoint that is not.

Two lanes share the slots of one endpoint; one request of the first is answered with 429 and a wait.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import anyio

from evalrun.records import Status
from tests.lanes.asking import Asked, ask, iterate_requests
from tests.lanes.fast_clock import run_at
from tests.lanes.scripts import Wait, WaitForm
from tests.lanes.servers import Ledger, serve

WAITS_S: Final[dict[WaitForm, float]] = {
    "seconds": 3,
    "float": 2.5,
    "ms": 2.75,
    "date": 3,
    "date of a wrong clock": 3,
}
"""Every form, and a wait that it can say."""
MAX_LATE_S: Final = 0.3
MIN_OTHER_PACE: Final = 0.95
N_ROWS: Final = 80
N_OTHER_ROWS: Final = 240
CONCURRENCY: Final = 16
LATENCY_S: Final = 0.4
_NTH: Final = 40
_SAME_S: Final = 0.01
"""Between the moment from which the lane counts and the one at which it says so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What came of one form."""

    form: WaitForm
    wait_s: float
    asked: Asked
    ledger: Ledger

    @property
    def shut_s(self) -> float:
        """When the lane heard that it has to wait."""
        return self.asked.find_events("gate_shut")[0]

    @property
    def n_while_waiting(self) -> int:
        """Requests of the lane that arrived before the wait was over, less those that had left when it began."""
        n_before = sum(model == "m" and at_s <= self.shut_s for at_s, model in self.asked.started_at_s)
        return self.ledger.count_arrivals(0, self.shut_s + self.wait_s - _SAME_S, "m") - n_before

    @property
    def late_s(self) -> float:
        """From the end of the wait to the first request that arrived after it."""
        until_s = self.shut_s + self.wait_s - _SAME_S
        return min(each.at_s for each in self.ledger.arrivals if each.model == "m" and each.at_s >= until_s) - until_s

    @property
    def other_pace(self) -> float:
        """How many times as many requests of the other lane arrived during the wait as in a time before it."""
        span_s = LATENCY_S * 3
        before = self.ledger.count_arrivals(self.shut_s - span_s, self.shut_s, "other") / span_s
        return self.ledger.count_arrivals(self.shut_s, self.shut_s + self.wait_s, "other") / self.wait_s / before

    @property
    def is_complete(self) -> bool:
        """True when every row was answered, and one request refused."""
        return self.asked.statuses == {Status.OK: N_ROWS + N_OTHER_ROWS} and self.ledger.n_throttled == 1

    @property
    def is_held(self) -> bool:
        """True when the lane waited as long as it was told, no longer, and alone."""
        is_exact = self.n_while_waiting == 0 and self.late_s <= MAX_LATE_S
        return self.is_complete and is_exact and self.other_pace >= MIN_OTHER_PACE


def run_waits(*, speed: float) -> Sequence[Result]:
    """Wait in every form, side by side."""
    plans = [
        Wait(form=form, model="m", nth=_NTH, wait_s=wait_s, latency_s=LATENCY_S) for form, wait_s in WAITS_S.items()
    ]
    asked: dict[WaitForm, Asked] = {}
    with serve(plans, speed=speed) as servers:
        urls = {form: server.base_url for form, server in zip(WAITS_S, servers, strict=True)}

        async def run_one(form: WaitForm) -> None:
            lanes = [(model, n, iterate_requests(n, model=model)) for model, n in _LANES]
            asked[form] = await ask(urls[form], *lanes, speed=speed, concurrency=CONCURRENCY, keeps_times=True)

        async def run_all() -> None:
            async with anyio.create_task_group() as group:
                for form in WAITS_S:
                    group.start_soon(run_one, form)

        run_at(speed, run_all)
    return [
        Result(form=form, wait_s=wait_s, asked=asked[form], ledger=server.ledger)
        for (form, wait_s), server in zip(WAITS_S.items(), servers, strict=True)
    ]


_LANES: Final = (("m", N_ROWS), ("other", N_OTHER_ROWS))
