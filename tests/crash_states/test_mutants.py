"""The harness is worth what it catches."""

from pathlib import Path
from random import Random

import pytest

from tests.crash_states.examination import examine
from tests.crash_states.mutants import MUTANTS
from tests.crash_states.recorder import Told
from tests.crash_states.workloads import Desk, record_fresh


@pytest.mark.parametrize("name", MUTANTS)
def test_harness_flags_a_mutant(name: str, monkeypatch: pytest.MonkeyPatch, ram: Path) -> None:
    """Each step of the protocol that is left out shows in some state."""
    mutant = MUTANTS[name]
    mutant.apply(monkeypatch)
    recording = record_fresh(Desk(ram / "desk"))
    first_step = recording.log.find_last(Told) if mutant.is_of_tables else 0
    result = examine(recording, ram / "states", Random(1), n_random=1, first_step=first_step, is_one_enough=True)
    assert result.n_violations
