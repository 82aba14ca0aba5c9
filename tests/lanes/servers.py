"""Servers in a process of their own: scripted ones and simulators, each with its ledger, told by pipe.

`with serve([...]) as servers` starts one process for all of them; a plan is a script or the options of a simulator.
When the context is left, each server's `ledger` is there: what the other side of the wire counted. All clocks are the
machine's monotonic one, times the speed.
"""

import json
import pickle
import subprocess
import sys
import time
from base64 import b64decode, b64encode
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import anyio.to_thread

from evalrun.options import SimulatorOptions
from evalrun.simulator.server import serve as serve_simulator
from tests.fake_endpoint import FakeEndpoint, FakeReply, SeenRequest
from tests.lanes.fast_clock import run_at
from tests.lanes.scripts import Script

ROOT = Path(__file__).parents[2]
MAX_END_S = 60.0


class Plan(Protocol):
    """A scripted server."""

    def make(self) -> Script:
        """Return what it does with each request."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request as it arrived at a scripted server."""

    at_s: float
    """In seconds of the scenario."""
    model: str
    status: int
    """That it was answered with; 0 = not at all."""


@dataclass(slots=True)
class Ledger:
    """What a server counted."""

    arrivals: list[Arrival] = field(default_factory=list)
    """Empty for a simulator, which counts without times."""
    totals: Mapping[str, int] = field(default_factory=dict)
    """A simulator's own counts; empty for a scripted server."""
    per_key: Sequence[int] = ()
    """Requests of each key that a simulator lists."""
    max_in_flight: int = 0

    @property
    def n_requests(self) -> int:
        """Every request that arrived."""
        return self.totals["requests"] if self.totals else len(self.arrivals)

    @property
    def n_throttled(self) -> int:
        """Those that were answered with 429."""
        return self.totals["rate_limited"] if self.totals else self.count_statuses()[429]

    def count_statuses(self) -> Counter[int]:
        """Return how many requests were answered with each status."""
        return Counter(arrival.status for arrival in self.arrivals)

    def count_arrivals(self, from_s: float, to_s: float, model: str | None = None) -> int:
        """Return how many requests arrived in a span of time."""
        return sum(from_s <= each.at_s < to_s and model in {None, each.model} for each in self.arrivals)


@dataclass(slots=True)
class Server:
    """One server of the process."""

    base_url: str
    ledger: Ledger = field(default_factory=Ledger)
    """Filled when the process has ended."""


@contextmanager
def serve(plans: Sequence[Plan | SimulatorOptions], *, speed: float = 1, port: int = 0) -> Iterator[list[Server]]:
    """Run servers in a process of their own; their ledgers are read when the context is left without an error.

    Args:
        plans: What each of them does.
        speed: Their seconds in one of the wall's.
        port: Of the simulator, when there is only that one; 0 = any free one.
    """
    told = b64encode(pickle.dumps((list(plans), speed, port))).decode()
    command = [sys.executable, "-m", "tests.lanes.servers"]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(f"{told}\n")
            process.stdin.flush()
            servers = [Server(url) for url in json.loads(process.stdout.readline())]
            yield servers
            text, _ = process.communicate(timeout=MAX_END_S)
            for server, ledger in zip(servers, json.loads(text), strict=True):
                arrivals = [Arrival(*arrival) for arrival in ledger.pop("arrivals")]
                server.ledger = Ledger(arrivals=arrivals, **ledger)
        finally:
            process.kill()


# In the process of the servers


def main() -> None:
    """Serve the plans of the first line of input until there is no more input, then print the ledgers."""
    plans, speed, port = pickle.loads(b64decode(sys.stdin.readline()))
    run_at(speed, partial(_serve_all, plans, speed, port))


async def _serve_all(plans: Sequence[Plan | SimulatorOptions], speed: float, port: int) -> None:
    readers: list[Callable[[], dict[str, Any]]] = []
    urls: list[str] = []
    async with AsyncExitStack() as stack:
        threads = stack.enter_context(ExitStack())
        for plan in plans:
            if isinstance(plan, SimulatorOptions):
                simulator = await stack.enter_async_context(serve_simulator(plan, port=port, grace_s=0))
                urls.append(f"{simulator.url}/v1")
                readers.append(partial(_read_simulator, simulator.ledger.to_json))
            else:
                scripted = _Scripted(plan.make(), speed)
                urls.append(threads.enter_context(scripted.endpoint).base_url)
                readers.append(scripted.read)
        print(json.dumps(urls), flush=True)  # noqa: T201 - the pipe to the parent
        await anyio.to_thread.run_sync(sys.stdin.read)
        print(json.dumps([read() for read in readers]), flush=True)  # noqa: T201 - the pipe to the parent


def _read_simulator(to_json: Any) -> dict[str, Any]:
    shown = to_json(has_detail=True)
    per_key = [key["requests"] for key in shown["detail"]]
    return {
        "arrivals": [],
        "totals": shown["totals"],
        "per_key": per_key,
        "max_in_flight": shown["max_in_flight"],
    }


class _Scripted:
    """A scripted server whose seconds are shorter."""

    def __init__(self, script: Script, speed: float) -> None:
        self._script = script
        self._speed = speed
        self._arrivals: list[tuple[float, str, int]] = []
        self.endpoint = FakeEndpoint(default=self._serve)

    def read(self) -> dict[str, Any]:
        return {"arrivals": self._arrivals, "max_in_flight": self.endpoint.max_in_flight}

    def _serve(self, seen: SeenRequest) -> FakeReply:
        now_s = time.monotonic() * self._speed
        reply = self._script(seen, now_s)
        self._arrivals.append((now_s, seen.json["model"], 0 if reply.raw is not None else reply.status))
        return replace(reply, delay_s=reply.delay_s / self._speed)


if __name__ == "__main__":
    main()
