"""An endpoint that is down for a while: it answers 500, resets connections, or is not there at all.

What arrives while it is down, and what arrives after it, is counted at the server; where nobody listens there is no
server to count, and the client's own count of what it sent stands in.
"""

import math
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Literal

import anyio
import anyio.to_thread

from evalrun.options import ProfileOptions, SimulatorOptions
from evalrun.records import Status
from tests.lanes.asking import Asked, ask, iterate_requests
from tests.lanes.fast_clock import run_at
from tests.lanes.scripts import Outage
from tests.lanes.servers import Server, serve

How = Literal["500", "reset", "refused"]
MAX_AMPLIFICATION = 1.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How large the load is, and how long the outage; times in seconds of the scenario."""

    n_rows: int
    concurrency: int
    latency_s: float
    begins_s: float
    lasts_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What came of an outage."""

    how: How
    shape: Shape
    asked: Asked
    n_during: int
    """Requests while the endpoint was down."""
    n_after: int
    """Requests after it."""
    n_left: int
    """Rows without an answer when it came back."""
    down_s: float
    up_s: float
    """When it came back."""

    @property
    def amplification(self) -> float:
        """Requests for each row that was left, after the outage."""
        return self.n_after / self.n_left

    @property
    def most_during(self) -> float:
        """How many there may be while it is down: the slots, and one probe per second."""
        return self.shape.concurrency + self.down_s

    @property
    def late_s(self) -> float:
        """From the end of the outage until the lane knew of it."""
        return self.asked.find_events("outage_over")[-1] - self.up_s

    @property
    def is_complete(self) -> bool:
        """True when no row failed."""
        return self.asked.statuses == {Status.OK: self.shape.n_rows}

    @property
    def is_held(self) -> bool:
        """True when no row failed, few requests met the outage, and no storm came after it."""
        is_calm = self.n_during <= self.most_during and self.amplification <= MAX_AMPLIFICATION
        return self.is_complete and is_calm


def run_outage(how: How, shape: Shape, *, speed: float) -> Result:
    """Ask an endpoint that goes down and comes back."""
    return _run_refused(shape, speed) if how == "refused" else _run_answered(how, shape, speed)


async def _ask(url: str, shape: Shape, speed: float) -> Asked:
    lane = ("m", shape.n_rows, iterate_requests(shape.n_rows))
    return await ask(url, lane, speed=speed, concurrency=shape.concurrency, keeps_times=True)


def _run_answered(how: Literal["500", "reset"], shape: Shape, speed: float) -> Result:
    plan = Outage(begins_s=shape.begins_s, lasts_s=shape.lasts_s, how=how, latency_s=shape.latency_s)
    with serve([plan], speed=speed) as servers:
        url = servers[0].base_url
        asked = run_at(speed, lambda: _ask(url, shape, speed))
    ledger = servers[0].ledger
    down_s = ledger.arrivals[0].at_s + shape.begins_s
    up_s = down_s + shape.lasts_s
    n_answered = sum(each.status == 200 and each.at_s < up_s for each in ledger.arrivals)
    return Result(
        how=how,
        shape=shape,
        asked=asked,
        n_during=ledger.count_arrivals(down_s, up_s),
        n_after=ledger.count_arrivals(up_s, math.inf),
        n_left=shape.n_rows - n_answered,
        down_s=shape.lasts_s,
        up_s=up_s,
    )


def _run_refused(shape: Shape, speed: float) -> Result:
    """Stop the server's process in the middle, and start another on its port later."""
    plans = [SimulatorOptions(answer="fine", profiles={"m": ProfileOptions(latency_ms=shape.latency_s * 1000)})]
    asked: list[Asked] = []
    times_s: list[float] = []
    servers: list[Server] = []

    async def fail() -> None:
        await anyio.sleep(shape.begins_s)
        await anyio.to_thread.run_sync(first.close)
        times_s.append(anyio.current_time())
        await anyio.sleep(shape.lasts_s)
        port = int(servers[0].base_url.rsplit(":", 1)[1].split("/")[0])
        begin = partial(serve, plans, speed=speed, port=port)
        servers.extend(await anyio.to_thread.run_sync(lambda: second.enter_context(begin())))
        times_s.append(anyio.current_time())

    async def run_both() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(fail)
            asked.append(await _ask(servers[0].base_url, shape, speed))

    with ExitStack() as first, ExitStack() as second:
        servers.extend(first.enter_context(serve(plans, speed=speed)))
        run_at(speed, run_both)
    down_s, up_s = times_s
    return Result(
        how="refused",
        shape=shape,
        asked=asked[0],
        n_during=sum(down_s <= at_s < up_s for at_s, _ in asked[0].started_at_s),
        n_after=servers[1].ledger.n_requests,
        n_left=shape.n_rows - servers[0].ledger.totals["completions"],
        down_s=up_s - down_s,
        up_s=up_s,
    )
