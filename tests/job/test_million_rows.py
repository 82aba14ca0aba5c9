"""D13, a dataset of a million rows, in small: what check and plan keep in memory is counted, row by row.

The whole size is measured by `python -m benchmarks.million`.
"""

import gc
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from evalrun.job.plan import Plan
from tests.job.conftest import BODY, load, write_rows

N_FEW, N_MANY = 600, 3_000
MAX_BYTES_PER_ROW = 48
"""A hash of each id: 16 bytes, and more while their table grows. A row itself would be ten times as much."""


def make_plan(n_rows: int, *, has_ids: bool) -> Plan:
    """Return the plan of a job on so many rows, each of 500 bytes."""
    rows = [
        {**({"id": f"s{number}"} if has_ids else {}), "question": f"{number} " + "x" * 400, "answer": "4"}
        for number in range(n_rows)
    ]
    write_rows("d.jsonl", rows)
    return Plan(load(BODY + "dataset: d.jsonl\n"))


def measure_peak(work: Callable[[], object]) -> int:
    """Return the most memory that Python held at once while it worked, in bytes."""
    gc.collect()
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("has_ids", [True, False])
def test_d13_check_and_plan_keep_no_row(has_ids: bool) -> None:
    """The check before sending and the requests themselves stream: a row more costs bytes, not kilobytes."""
    peaks = {}
    for n_rows in (N_FEW, N_MANY):
        plan = make_plan(n_rows, has_ids=has_ids)
        checked = measure_peak(lambda plan=plan: plan.check())  # type: ignore[misc]
        planned = measure_peak(lambda plan=plan: sum(1 for _ in plan.requests()))  # type: ignore[misc]
        peaks[n_rows] = max(checked, planned)
    assert peaks[N_MANY] - peaks[N_FEW] < MAX_BYTES_PER_ROW * (N_MANY - N_FEW)


def test_d13_check_tells_how_far_it_is() -> None:
    """Long before the end of a large dataset there is something to show."""
    told: list[int] = []
    make_plan(N_FEW, has_ids=True).check(on_progress=told.append)
    assert told[-1] == N_FEW
    assert len(told) > 1
    assert told == sorted(told)


def test_d13_first_requests_need_the_first_rows_only(tmp_path: Path) -> None:
    """After the check the first request is made from the first row: it does not wait for the last."""
    plan = make_plan(10, has_ids=True)
    plan.check()
    with (tmp_path / "d.jsonl").open("ab") as file:
        file.write(b"no JSON\n")
    assert next(plan.requests()).sample.sample_id == "s0"
