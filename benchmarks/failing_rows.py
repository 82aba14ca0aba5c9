"""A plan of which most requests fail, on a clock that jumps: `python -m benchmarks.failing_rows [ROWS]`.

The real dispatcher against a server that answers 40 % with 503 and loses another 20 % of the replies. Hours of back-off
take no time, so that what is left is memory: it must not grow with the plan. Prints it at each tenth of the rows.
"""

import itertools
import random
import re
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import trio
import trio.testing

from benchmarks.dispatch_only import ANSWER, PLAIN, PRICES, make_reply, make_request
from evalrun.dispatch.dispatcher import Clock, LaneWork, StopSignal, dispatch
from evalrun.dispatch.transport import Reply, Target, make_target
from evalrun.errors import ConnectionFaultError
from evalrun.lane_progress import LaneProgress
from evalrun.options import EndpointOptions
from evalrun.records import ErrorCode, Outcome, Started

BEGAN = datetime(2026, 11, 22, tzinfo=UTC)
CONCURRENCY = 64
P_BUSY, P_LOST = 0.4, 0.2


@dataclass(slots=True)
class Count:
    """What was seen, in counters only."""

    n_rows: int
    rng: random.Random = field(default_factory=lambda: random.Random(1))
    n_requests: int = 0
    n_ended: int = 0
    n_unfinished: int = 0
    most_unfinished: int = 0

    def record(self, item: Any) -> None:
        """Take a record as a journal does."""
        if isinstance(item, Started):
            self.n_requests += 1
            self.n_unfinished += item.attempt == 1
            self.most_unfinished = max(self.most_unfinished, self.n_unfinished)
        elif isinstance(item, Outcome):
            self.n_unfinished -= 1
            self.n_ended += 1
            if self.n_ended % max(1, self.n_rows // 10) == 0:
                print(
                    f"{self.n_ended:9,d} rows ended  {self.n_requests:9,d} requests  {trio.current_time():9,.0f} s  "
                    f"unfinished {self.n_unfinished:4d} (most {self.most_unfinished})  {read_memory_mib():6.1f} MiB",
                    flush=True,
                )

    async def send(self, body: bytes, headers: Sequence[tuple[str, str]] = (), *, n_choices: int = 1) -> Reply:
        """Answer, refuse, or lose the reply."""
        del body, headers, n_choices
        await anyio.sleep(self.rng.uniform(0.2, 1.0))
        draw = self.rng.random()
        if draw < P_LOST:
            raise ConnectionFaultError(ErrorCode.RESET, "connection reset")
        if draw < P_LOST + P_BUSY:
            return make_reply(503, PLAIN, b'{"error": {"message": "busy"}}')
        return make_reply(200, PLAIN, ANSWER)

    def mask(self, completion: Any) -> Any:
        """Return it: nothing here is secret."""
        return completion


def read_memory_mib() -> float:
    """Return the memory that this process holds now."""
    found = re.search(r"VmRSS:\s*(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
    return int(found.group(1)) / 1024 if found else 0.0


async def send_all(count: Count) -> None:
    """Dispatch the whole plan on one lane."""
    progress = LaneProgress(endpoint="e", model="m", total=count.n_rows)
    requests = itertools.repeat(make_request("m"), count.n_rows)

    @asynccontextmanager
    async def connect(_target: Target) -> AsyncIterator[Any]:
        yield count

    await dispatch(
        [LaneWork(endpoint="e", wire_model="m", requests=requests, progress=progress)],
        targets={
            "e": make_target(EndpointOptions(base_url="http://127.0.0.1:1/v1", concurrency=CONCURRENCY), environ={})
        },
        prices={"m": PRICES},
        on_record=count.record,
        stop=StopSignal(),
        rng=random.Random(1),
        clock=Clock(now_s=trio.current_time, utc_now=lambda: BEGAN + timedelta(seconds=trio.current_time())),
        connect=connect,
    )
    expected = (P_BUSY + P_LOST) ** 6
    print(f"errors {progress.errors / count.n_rows:.4f}, p^max_attempts {expected:.4f}; 429s {progress.rate_limited}")


def main() -> None:
    """Run it."""
    n_rows = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    trio.run(send_all, Count(n_rows), clock=trio.testing.MockClock(autojump_threshold=0))


if __name__ == "__main__":
    main()
