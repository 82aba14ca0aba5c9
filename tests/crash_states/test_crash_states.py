"""After a power failure at any instant everything that was promised is there, and nothing that was never written."""

from pathlib import Path
from random import Random

import pytest

from evalrun.store.journal_format import Kind
from tests.crash_states.choices import iterate_choices
from tests.crash_states.disk import Kept, Log, Named, Tree
from tests.crash_states.examination import examine
from tests.crash_states.history import History
from tests.crash_states.recorder import Told
from tests.crash_states.workloads import FRESH_WORKLOADS, Desk, Recording, record_fresh, record_recovered


@pytest.mark.parametrize("name", FRESH_WORKLOADS)
def test_power_failure_takes_nothing_that_was_promised(ram: Path, name: str) -> None:
    """In the states of a run, of its resume and of a new grading: all told outcomes, whole files, one story."""
    recording = FRESH_WORKLOADS[name](Desk(ram / "desk"))
    result = examine(recording, ram / "states", Random(name), n_random=0, every=6)
    assert result.violations == []
    assert result.n_states > 120
    assert result.n_torn > 12


def _draw_crash(recording: Recording, seed: int) -> tuple[int, Tree]:
    """Return an instant in the middle of the asking, something told already, and what a power failure left then."""
    rng = Random(seed)
    history = History(recording.log, recording.run)
    last = recording.log.find_last(Told)
    points = [n for n in range(last) if history.list_told(n)]
    wanted = rng.choice(points)
    for point in recording.log.replay():
        if point.n_steps == wanted:
            return wanted, point.build(rng.choice(list(iterate_choices(point, rng, n_random=20))))
    raise AssertionError


def _count_sent_again(recording: Recording) -> int:
    """Return how many requests were sent of rows that lay done on the disk when the recording began."""
    history = History(recording.log, recording.run)
    done = {history.describe_line(line)[1] for line in history.list_told(0)}
    return sum(kind is Kind.STARTED and row_id in done for kind, row_id in history.list_later())


@pytest.mark.parametrize("seed", [1, 2])
def test_resume_after_a_power_failure_ends_as_if_nothing_had_been(ram: Path, seed: int) -> None:
    """The recovery itself survives a second failure, sends nothing that was done, and ends with the same table."""
    whole = record_fresh(Desk(ram / "whole"))
    n_steps, tree = _draw_crash(whole, seed)
    desk = Desk(ram / "crashed")
    desk.lay(tree)
    recovered = record_recovered(desk, "recovery")
    n_told = len(History(whole.log, whole.run).list_told(n_steps))
    assert len(History(recovered.log, recovered.run).list_told(0)) >= n_told > 0
    assert _count_sent_again(recovered) == 0
    assert recovered.stories[-1]["scores"] == whole.stories[-1]["scores"]
    assert examine(recovered, ram / "states", Random(seed), n_random=0, every=10).violations == []


def _cut_log_behind(log: Log, name: str) -> Log:
    """Return the log up to the step that made a file or folder of a name."""
    made = [
        number for number, step in enumerate(log.steps, start=1) if isinstance(step, Named) and name in dict(step.added)
    ]
    return Log(log.steps[: made[0]], log.folders)


@pytest.mark.parametrize("name", ["journal", "000001.jsonl"])
def test_power_failure_after_a_kill_takes_nothing_that_was_promised(ram: Path, name: str) -> None:
    """What a killed process had made and not yet forced, the next one forces before it relies on it."""
    whole = record_fresh(Desk(ram / "whole"))
    before = _cut_log_behind(whole.log, name)
    *_, last = before.replay()
    desk = Desk(ram / "killed")
    desk.lay(last.build([Kept(change) for _, change in last.pending]))
    resumed = record_recovered(desk, "killed", before)
    result = examine(resumed, ram / "states", Random(3), n_random=0, every=10)
    assert result.violations == []


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_ten_thousand_crash_states_hold(ram: Path) -> None:
    """The same over all instants and many more choices."""
    results = [
        examine(record(Desk(ram / name / "desk")), ram / name / "states", Random(name), n_random=20)
        for name, record in FRESH_WORKLOADS.items()
    ]
    assert [result.violations for result in results] == [[]] * len(results)
    assert sum(result.n_trees for result in results) >= 10_000
