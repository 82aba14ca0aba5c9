"""What a request costs does not creep up: steps, system calls, living objects and modules stay below their ceilings.

No clock is read. Where a ceiling is met, `python -m tests.footprint` shows where the steps go.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.footprint.ceilings import HEAVY, PYTHON, SEEN, SLACK, TOLERANCE
from tests.footprint.measures import (
    STRACE,
    Footprint,
    find_risen,
    measure_calls,
    measure_run,
    measure_start_up,
    open_job,
)

pytestmark = pytest.mark.skipif(sys.version_info[:2] != PYTHON, reason="the counts are those of another Python")
needs_strace = pytest.mark.skipif(STRACE is None, reason="strace is not installed, or may not trace")


@pytest.fixture(scope="module")
def job() -> Iterator[Path]:
    """Yield a job on a server that answers everything."""
    with open_job() as path:
        yield path


@pytest.fixture(scope="module")
def mutated(job: Path) -> Footprint:
    """Return what a run costs that walks, keeps and loads more than it should."""
    return measure_run(job, "loop", "kept", "eager")


def test_help_and_version_load_no_more_than_they_did() -> None:
    """`--help` and `--version` stay as small as they are."""
    assert find_risen(measure_start_up()) == []


def test_run_costs_no_more_than_it_did(job: Path) -> None:
    """Steps per row in each stage, what stays alive, and what is loaded first are below their ceilings."""
    assert find_risen(measure_run(job)) == []


@needs_strace
def test_run_makes_no_more_system_calls_than_it_did(job: Path) -> None:
    """A request is one send, one receive and two writes; what follows reads no more than it did."""
    assert find_risen(measure_calls(job)) == []


def test_loop_for_each_record_is_found(mutated: Footprint) -> None:
    """An extra loop in the path of each request is told as steps of the asking, with the function that takes them."""
    assert [line for line in find_risen(mutated) if line.startswith("asking/all: ") and "plant_loop" in line]


def test_kept_record_is_found(mutated: Footprint) -> None:
    """A record that outlives its request is told as blocks of memory that stay."""
    assert [line for line in find_risen(mutated) if line.startswith("alive/blocks: ")]


def test_library_that_is_loaded_too_early_is_found(mutated: Footprint) -> None:
    """Scipy before the first request is told by its name."""
    assert "run loads numpy, scipy" in find_risen(mutated)


@needs_strace
def test_look_at_the_disk_for_each_record_is_found(job: Path) -> None:
    """A system call more for each record is told by what it is about."""
    risen = find_risen(measure_calls(job, "stat"))
    assert [line.split(":")[0] for line in risen] == ["calls/other files"]


def test_count_above_its_ceiling_is_told_and_one_below_is_not() -> None:
    """A tenth more is let pass, one step beyond it is told; a part that never was, is told as well."""
    seen = SEEN["asking/store"].n
    ceiling = seen * TOLERANCE + SLACK["steps"]
    assert find_risen(Footprint(counts={"asking/store": ceiling, "asking/attic": SLACK["steps"]})) == []
    risen = find_risen(Footprint(counts={"asking/store": ceiling + 1, "asking/attic": SLACK["steps"] + 1}))
    assert risen == [
        "asking/attic: 6, at most 5 (seen before: 0)",
        f"asking/store: {ceiling + 1:g}, at most {ceiling:g} (seen before: {seen:g})",
    ]


@pytest.mark.parametrize("name", HEAVY)
def test_heavy_module_is_told(name: str) -> None:
    """What must not be loaded is named, with what loads it."""
    assert find_risen(Footprint(counts={}, heavy={name: ["scipy"]})) == [f"{name} loads scipy"]
