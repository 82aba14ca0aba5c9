"""The command: `python -m benchmarks.whole [PART…]`, and `python -m benchmarks.whole install DIR [PEER…]`.

Tables of Markdown go to stdout, as RESULTS.md holds them; what is under way goes to stderr.
"""

import argparse
import os
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import evalrun
from benchmarks import startup
from benchmarks.whole.contenders import EVALRUN, Contender, find_contenders, install_peers, read_versions
from benchmarks.whole.sizes import (
    MEMORY_SIZES,
    REPORT_ROWS,
    measure_afterwards,
    measure_memory,
    print_afterwards,
    print_memory,
)
from benchmarks.whole.tools import measure_tools, print_tools
from benchmarks.whole.waiting import LOADS, measure_streams, measure_waiting, print_streams, print_waiting

SIZES = (5_000, 50_000)
N_AT_ONCE = 64
CORES = {"pinned": "clients on one core, servers on the other", "free": "clients and servers on all cores"}


def main() -> None:
    """Read the command line, measure, print."""
    if sys.argv[1:2] == ["install"]:
        _install(sys.argv[2:])
        return
    given = _parse(sys.argv[1:])
    there, absent = find_contenders(given.peers)
    if given.only:
        there = [one for one in there if one.name == EVALRUN or any(word in one.name for word in given.only)]
        absent = []
    _print_machine(given, there)
    for part in given.parts or [name for name in PARTS if name != "memory"]:
        PARTS[part](given, there, absent)


def _measure_tools(given: argparse.Namespace, there: list[Contender], absent: Sequence[str]) -> None:
    for n_prompts in given.prompts:
        found = measure_tools(
            there,
            n_prompts=n_prompts,
            n_turns=given.turns,
            n_at_once=N_AT_ONCE,
            peers=given.peers,
            is_pinned=given.cores == "pinned",
            most_for_peers=given.peer_prompts,
        )
        print_tools(found, absent, f"{n_prompts:,} prompts, {N_AT_ONCE} at once")


def _measure_waiting(given: argparse.Namespace, there: list[Contender], absent: Sequence[str]) -> None:
    is_pinned = given.cores == "pinned"
    for full in LOADS:
        load = replace(full, n_rounds=given.rounds or full.n_rounds)
        found = measure_waiting(load, there, n_turns=given.turns, peers=given.peers, is_pinned=is_pinned)
        print_waiting(load, found, absent)


def _measure_streams(given: argparse.Namespace, there: list[Contender], _absent: Sequence[str]) -> None:
    print_streams(measure_streams(there[0], n_turns=given.turns, is_pinned=given.cores == "pinned"))


def _measure_startup(given: argparse.Namespace, _there: list[Contender], _absent: Sequence[str]) -> None:
    startup.print_startup(given.turns)


def _measure_report(given: argparse.Namespace, there: list[Contender], _absent: Sequence[str]) -> None:
    print_afterwards(measure_afterwards(there[0], n_rows=given.report_rows, n_turns=given.turns, n_at_once=N_AT_ONCE))


def _measure_memory(given: argparse.Namespace, there: list[Contender], _absent: Sequence[str]) -> None:
    print_memory(measure_memory(there[0], sizes=given.memory_sizes, n_at_once=N_AT_ONCE))


PARTS: dict[str, Callable[[argparse.Namespace, list[Contender], Sequence[str]], None]] = {
    "tools": _measure_tools,
    "waiting": _measure_waiting,
    "streams": _measure_streams,
    "startup": _measure_startup,
    "report": _measure_report,
    "memory": _measure_memory,
}


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.whole", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; default: all but memory")
    parser.add_argument("--peers", type=Path, metavar="DIR", help="where the peers were installed")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="only evalrun and contenders with this in their name")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--prompts", type=int, nargs="+", default=SIZES, metavar="N")
    parser.add_argument(
        "--peer-prompts", type=int, metavar="N", help="at most so many for each peer, instead of its own limit"
    )
    parser.add_argument("--cores", choices=tuple(CORES), default="pinned", help="who runs where")
    parser.add_argument("--rounds", type=int, metavar="N", help="use each slot so often where replies take their time")
    parser.add_argument("--report-rows", type=int, default=REPORT_ROWS, metavar="N")
    parser.add_argument("--memory-sizes", type=int, nargs="+", default=MEMORY_SIZES, metavar="N")
    given = parser.parse_args(arguments)
    if unknown := [part for part in given.parts if part not in PARTS]:
        parser.error(f"no such part: {', '.join(unknown)}")
    if given.peers is not None:
        given.peers = given.peers.resolve()
    return given


def _install(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.whole install")
    parser.add_argument("peers", type=Path, metavar="DIR")
    parser.add_argument("names", nargs="*", metavar="PEER", help="default: all of peers.toml")
    given = parser.parse_args(arguments)
    if failed := install_peers(given.peers.resolve(), given.names):
        sys.exit(f"not installed: {', '.join(failed)}")


def _print_machine(given: argparse.Namespace, there: list[Contender]) -> None:
    versions = ", ".join(read_versions(there, given.peers))
    now = datetime.now(UTC)
    print(
        f"{now.day} {now:%B %Y %H:%M} UTC, {platform.machine()} {platform.system()} with {os.cpu_count()} cores (load "
        f"{os.getloadavg()[0]:.1f} at the start), Python {platform.python_version()}, evalrun {evalrun.__version__}, "
        f"{versions}; {CORES[given.cores]}; medians of {given.turns} turns (min–max)\n",
        flush=True,
    )


if __name__ == "__main__":
    main()
