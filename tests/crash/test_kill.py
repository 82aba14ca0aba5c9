"""SIGKILL at random instants, and proof that the harness would notice.

A thousand kills: `python -m tests.crash.kill --kills 1000 --seed 1`.
"""

import os
import re

import pytest

from tests.crash.calls import Nursery
from tests.crash.kill import Killer
from tests.crash.mutants import MUTANTS
from tests.crash.site import Site

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs process handles of Linux")

LOST = r"were announced|were shown as done|not in the journal|differs from that of an unkilled run"

HUNTS = {
    "no-flush": ("length", LOST),
    "buffered-writer": ("length", LOST),
    "no-checksum": ("length", r"were finished, the resume found|differs from that|good records follow it"),
    "non-atomic-rename": ("name", r"is not whole"),
    "wrong-key": ("length", r"finished after \d+ sendings, and sent again"),
    "late-start": ("length", r"were announced"),
}
"""By defect: where kills find it soonest, while asking or while files are written, and how it is told."""

MAX_KILLS_TO_FIND = 60


def test_killed_runs_lose_nothing_and_pay_nothing_twice(site: Site, nursery: Nursery) -> None:
    """After each of 20 kills what was shown as done is kept, and no finished request is ever sent again."""
    tally = Killer(site, nursery, seed=20).kill(20)
    assert tally.violations == []
    assert tally.kills >= 20
    assert tally.acknowledged > 0
    assert tally.in_flight > 0


@pytest.mark.parametrize("mutant", sorted(HUNTS))
def test_kills_find_a_planted_defect(site: Site, nursery: Nursery, mutant: str) -> None:
    """An evalrun that flushes late, believes any line, renames in pieces or keys by process does not pass."""
    aim, told = HUNTS[mutant]
    tally = Killer(site, nursery, seed=1, mutant=mutant, aims=[aim]).kill(MAX_KILLS_TO_FIND, max_violations=1)
    assert any(re.search(told, text) for text in tally.violations), tally.render()


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_five_hundred_kills_lose_nothing(site: Site, nursery: Nursery) -> None:
    """What twenty kills may miss."""
    assert Killer(site, nursery, seed=500).kill(500, minutes=10).violations == []


def test_every_mutant_is_hunted_somewhere() -> None:
    """A defect that no test plants proves nothing."""
    assert set(MUTANTS) == {*HUNTS, "truncating-write"}
