"""Runs the scenarios of `tests/lanes` at full size and prints their tables: `python -m benchmarks.lanes [SCENARIO…]`.

Everything is counted at the server, which is a process of its own. The last column says whether what lanes promise was
held; the exit code is 1 when anything was not.
"""

import argparse
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence

from benchmarks.lanes import rivals, scenarios
from benchmarks.lanes.tables import Table

SCENARIOS: dict[str, Callable[[argparse.Namespace], Sequence[Table]]] = {
    "limits": scenarios.run_limits,
    "waits": scenarios.run_waits,
    "outage": scenarios.run_outages,
    "faults": scenarios.run_faults,
    "endurance": scenarios.run_endurance,
    "rivals": rivals.run_rivals,
}


def main() -> None:
    """Run what is asked for, or all of it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lanes", description="lanes at full size")
    parser.add_argument("scenario", nargs="*", metavar="SCENARIO", help=f"{', '.join(SCENARIOS)}; default: all of them")
    parser.add_argument("--speed", type=float, default=1, help="seconds of limits, waits and outages in one real one")
    parser.add_argument("--rows", type=int, default=None, help="of each scenario; default: each has its own")
    parser.add_argument("--seed", type=int, default=0, help="of latencies and of jitter")
    given = parser.parse_args()
    if unknown := set(given.scenario) - set(SCENARIOS):
        parser.error(f"no scenario is called {', '.join(sorted(unknown))}; there are {', '.join(SCENARIOS)}")
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores, speed {given.speed:g}, seed {given.seed}")
    is_held = True
    for name in given.scenario or SCENARIOS:
        begin_s = time.monotonic()
        for table in SCENARIOS[name](given):
            print(f"\n{table.write()}", flush=True)
            is_held = is_held and table.is_held
        print(f"\n{name}: {time.monotonic() - begin_s:.0f} s", flush=True)
    sys.exit(0 if is_held else 1)


if __name__ == "__main__":
    main()
