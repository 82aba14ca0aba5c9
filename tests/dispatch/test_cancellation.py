"""A dispatch that is ended at any moment, in any way: what the lanes count stays right, and no row ends twice."""

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalrun.errors import ConnectionFaultError
from evalrun.records import Attempt, ErrorCode, Outcome, Request, Started, Status
from tests.dispatch.rig import make_requests
from tests.dispatch.virtual import Deed, Interrupt, Ledger, Serve, refuse, run_virtually

CONCURRENCY = 6
LOST = ConnectionFaultError(ErrorCode.RESET, "connection reset")


def serve_at_random(seed: int) -> Serve:
    """Return a server of answers, faults of all kinds, waits that it asks for, and an outage."""
    rng = random.Random(seed)

    def serve(now_s: float, _request: Request) -> Deed:
        after_s, draw = rng.uniform(0.0, 1.0), rng.random()
        if 4 <= now_s < 7 or draw < 0.15:
            return refuse(503, after_s=after_s)
        if draw < 0.25:
            return Deed(after_s=after_s, error=LOST)
        if draw < 0.3:
            return refuse(429, after_s=after_s, retry_after="2")
        return refuse(400, after_s=after_s) if draw < 0.35 else Deed(after_s=after_s)

    return serve


def run_interrupted(seed: int, *interrupts: tuple[float, Interrupt]) -> Ledger:
    """Dispatch two lanes, and end them."""
    lanes = make_requests(60), make_requests(40, model="other")
    return run_virtually(
        serve_at_random(seed), *lanes, concurrency=CONCURRENCY, seed=seed, interrupts=sorted(interrupts)
    )


def check_counters(ledger: Ledger) -> None:
    """Check what the lanes count against what was recorded."""
    assert [progress.in_flight for progress in ledger.progress] == [0, 0]
    assert ledger.in_flight == 0
    assert ledger.most_in_flight <= CONCURRENCY
    finished = [outcome for outcome in ledger.outcomes if outcome.status is not Status.PENDING]
    assert sum(progress.done for progress in ledger.progress) == len(finished)
    assert sum(progress.errors for progress in ledger.progress) == ledger.count(Status.ERROR)
    assert max(Counter(outcome.row_id for outcome in ledger.outcomes).values(), default=0) <= 1
    attempts = [record for record in ledger.records if isinstance(record, Attempt)]
    started = [record for record in ledger.records if isinstance(record, Started)]
    assert len(started) == len(ledger.arrivals)
    assert sum(progress.retries for progress in ledger.progress) <= len(attempts) <= len(started)


def find_in_doubt(ledger: Ledger) -> set[str]:
    """Return the rows that left and have neither an outcome nor a failed attempt to show for it."""
    open_rows: set[str] = set()
    for record in ledger.records:
        if isinstance(record, Started):
            open_rows.add(record.row_id)
        elif isinstance(record, Attempt | Outcome):
            open_rows.discard(record.row_id)
    return open_rows


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1000), st.floats(0, 15), st.sampled_from(["stop", "cancel", "scope"]), st.floats(0, 2))
def test_counters_are_right_whenever_the_dispatch_ends(seed: int, at_s: float, how: Interrupt, later_s: float) -> None:
    """Stopped, given up, or cancelled from outside, and once more: nothing is in flight, no row ended twice."""
    ledger = run_interrupted(seed, (at_s, how), (at_s + later_s, "cancel"))
    check_counters(ledger)
    assert len(find_in_doubt(ledger)) <= CONCURRENCY


@pytest.mark.parametrize("seed", range(4))
def test_stop_leaves_no_row_in_doubt_and_no_wait_open(seed: int) -> None:
    """What is in flight comes back, what waits is given back, and the lane's last wait is counted to its end."""
    ledger = run_interrupted(seed, (3.0 + seed, "stop"))
    check_counters(ledger)
    assert find_in_doubt(ledger) == set()
    assert [(progress.waiting_for, progress.waiting_until_s) for progress in ledger.progress] == [(None, 0.0)] * 2


def test_wait_that_an_interrupt_ends_is_counted() -> None:
    """A run that is stopped while its only lane waits says what it waited for, and how long."""
    ledger = run_virtually(
        lambda now_s, _request: Deed(after_s=1.0) if now_s < 5 else refuse(429, retry_after="500"),
        make_requests(100),
        concurrency=1,
        interrupts=[(65.0, "stop")],
    )
    assert ledger.progress[0].waited_s == {"retry_after": pytest.approx(60.0)}
    assert ledger.ended_s == 65.0
