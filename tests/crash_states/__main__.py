"""Enumerates crash states at length: `python -m tests.crash_states --random 20 --exhaustive`."""

import argparse
import sys
import tempfile
import time
from pathlib import Path
from random import Random

from tests.crash_states.examination import Examination, examine
from tests.crash_states.workloads import FRESH_WORKLOADS, Desk
from tests.ram_disk import make_ram_folder


def main() -> int:
    """Record each workload, open its states, print a line for it; return 1 when anything was violated."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--random", type=int, default=20, help="random choices at each instant (default 20)")
    parser.add_argument("--exhaustive", action="store_true", help="every prefix, all but one, and one alone, too")
    parser.add_argument("--seed", type=int, default=1, help="draws the choices; the recordings are real and vary")
    options = parser.parse_args()
    results = []
    for record in FRESH_WORKLOADS.values():
        began_s = time.monotonic()
        with tempfile.TemporaryDirectory() as desk, make_ram_folder() as ram:
            result = examine(
                record(Desk(Path(desk))),
                ram / "states",
                Random(options.seed),
                n_random=options.random,
                is_exhaustive=options.exhaustive,
            )
        results.append(result)
        print_examination(result, time.monotonic() - began_s)
    n_violations = sum(result.n_violations for result in results)
    n_states, n_trees = sum(result.n_states for result in results), sum(result.n_trees for result in results)
    sys.stdout.write(f"{n_states} states, {n_trees} different trees, {n_violations} violations\n")
    return int(n_violations > 0)


def print_examination(result: Examination, seconds: float) -> None:
    """Print the figures of a recording, and the first violations in words."""
    sys.stdout.write(
        f"{result.name}: {result.n_states} states, {result.n_trees} different trees, at {result.n_points} instants in "
        f"{seconds:.0f} s; journals with a torn tail {result.n_torn}, that need --repair {result.n_damaged}; sets of "
        f"tables {result.n_stories}; "
        f"violations {result.n_violations}\n"
    )
    for violation in result.violations:
        sys.stdout.write(f"  {violation}\n")


if __name__ == "__main__":
    sys.exit(main())
