"""Two lanes for a long time, a quick one and a slow one: what is left behind, and whether either starves.

What a process holds is read before and after: tasks, file descriptors, objects, memory. The first thousands of requests
warm up, and are not counted.
"""

import asyncio
import gc
import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from evalrun.options import ProfileOptions, SimulatorOptions
from evalrun.records import Attempt, Outcome, Started, Status
from tests.lanes.asking import Asked, ask, iterate_requests
from tests.lanes.fast_clock import run_at
from tests.lanes.servers import Ledger, serve

CONCURRENCY: Final = 64
QUICK_MS: Final = 5.0
SLOW_MS: Final = 200.0
MAX_GROWTH_BYTES: Final = 10 * 1024**2
MAX_NEW_OBJECTS: Final = 1000
_KIB: Final = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What a process holds."""

    n_tasks: int
    n_descriptors: int
    n_objects: int
    """That the garbage collector knows."""
    memory_bytes: int

    @classmethod
    def read(cls) -> "Held":
        """Return what this process holds now."""
        gc.collect()
        status = Path("/proc/self/status").read_text(encoding="ascii")
        found = re.search(r"VmRSS:\s*(\d+) kB", status)
        assert found is not None
        return cls(
            n_tasks=len(asyncio.all_tasks()),
            n_descriptors=sum(1 for _ in Path("/proc/self/fd").iterdir()),
            n_objects=len(gc.get_objects()),
            memory_bytes=int(found.group(1)) * _KIB,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What came of it."""

    n_by_lane: Mapping[str, int]
    asked: Asked
    ledger: Ledger
    before: Held
    after: Held
    leanest: Mapping[str, int]
    """Fewest answers of each lane in any second in which both had rows left."""
    mean_slots: Mapping[str, float]
    """In use by each lane, on average over the answers of such times."""

    @property
    def is_complete(self) -> bool:
        """True when each row was answered once, by one request."""
        n = sum(self.n_by_lane.values())
        is_once = self.asked.n_with_outcome == self.ledger.n_requests == n and self.asked.n_twice == 0
        return is_once and self.asked.statuses == {Status.OK: n}

    @property
    def n_slots_lost(self) -> int:
        """Slots that are still counted as in use."""
        return sum(progress.in_flight for progress in self.asked.progress)

    @property
    def is_clean(self) -> bool:
        """True when no task, no descriptor, no slot and no more than a few objects are left behind."""
        before, after = self.before, self.after
        is_same = (before.n_tasks, before.n_descriptors) == (after.n_tasks, after.n_descriptors)
        return is_same and self.n_slots_lost == 0 and after.n_objects - before.n_objects <= MAX_NEW_OBJECTS

    @property
    def is_lean(self) -> bool:
        """True when memory is back where it was."""
        return self.after.memory_bytes - self.before.memory_bytes <= MAX_GROWTH_BYTES


def run_endurance(n_quick: int, n_slow: int, *, n_warm: int, speed: float = 1) -> Result:
    """Ask so many of each lane, after so many to warm up."""
    n_by_lane = {"quick": n_quick, "slow": n_slow}
    profiles = {"quick": ProfileOptions(latency_ms=QUICK_MS), "slow": ProfileOptions(latency_ms=SLOW_MS)}
    plan = SimulatorOptions(answer="fine", profiles=profiles)
    shares = _Shares(n_by_lane)
    held: list[Held] = []

    async def ask_for(url: str, sizes: Mapping[str, int], *, is_counted: bool) -> Asked:
        lanes = [(model, n, iterate_requests(n, model=model)) for model, n in sizes.items()]
        on_record = shares.note if is_counted else None
        return await ask(url, *lanes, speed=speed, concurrency=CONCURRENCY, on_record=on_record)

    async def run() -> Asked:
        await ask_for(warm.base_url, {"quick": n_warm // 2, "slow": n_warm // 2}, is_counted=False)
        held.append(Held.read())
        asked = await ask_for(server.base_url, n_by_lane, is_counted=True)
        held.append(Held.read())
        return asked

    with serve([plan, plan], speed=speed) as (warm, server):
        asked = run_at(speed, run)
    return Result(
        n_by_lane=n_by_lane,
        asked=asked,
        ledger=server.ledger,
        before=held[0],
        after=held[1],
        leanest=shares.find_leanest(),
        mean_slots=shares.find_mean_slots(),
    )


class _Shares:
    """What each lane gets while both have rows left."""

    def __init__(self, n_by_lane: Mapping[str, int]) -> None:
        self._n_left = dict(n_by_lane)
        self._n_out = dict.fromkeys(n_by_lane, 0)
        self._n_slots = dict.fromkeys(n_by_lane, 0)
        self._answered: dict[str, Counter[int]] = {lane: Counter() for lane in n_by_lane}

    def note(self, record: Started | Attempt | Outcome) -> None:
        """Count a record."""
        lane = record.row_id.split("-")[1]
        if isinstance(record, Started):
            self._n_out[lane] += 1
        elif isinstance(record, Outcome):
            if all(self._n_left.values()):
                for each, n_out in self._n_out.items():
                    self._n_slots[each] += n_out
                self._answered[lane][math.floor(asyncio.get_running_loop().time())] += 1
            self._n_out[lane] -= 1
            self._n_left[lane] -= 1

    def find_leanest(self) -> dict[str, int]:
        """Return the fewest answers of each lane in a whole second; 0 where there was none."""
        seconds = sorted({second for counts in self._answered.values() for second in counts})
        whole = range(seconds[0] + 1, seconds[-1])
        return {lane: min((counts[second] for second in whole), default=0) for lane, counts in self._answered.items()}

    def find_mean_slots(self) -> dict[str, float]:
        """Return how many slots each lane had, on average over the answers."""
        n_answered = sum(counts.total() for counts in self._answered.values())
        return {lane: n_slots / n_answered for lane, n_slots in self._n_slots.items()}
