"""Runs of failures: counted in the order of sending, whatever the order of the ends."""

import math

from hypothesis import given
from hypothesis import strategies as st

from evalrun.dispatch.failure_runs import FailureRuns, Run

OUT, FAILED, ANSWERED = "out", "failed", "answered"


def fail(runs: FailureRuns, sent_at_s: float, *, now_s: float = 100.0, kind: int = 0) -> Run | None:
    """Let one request fail."""
    return runs.note_failed(Run.of_one(sent_at_s, now_s, kind=kind))


def make_runs(n: int) -> FailureRuns:
    """Return runs with requests sent at 1..n, all of them out."""
    runs = FailureRuns()
    for sent_at_s in range(1, n + 1):
        runs.note_sent(float(sent_at_s))
    return runs


def test_undecided_request_stands_between_two_runs() -> None:
    """Failures sent before and after a request that is still out are no run together, until it fails too."""
    runs = make_runs(3)
    first, last = fail(runs, 1.0), fail(runs, 3.0)
    assert first is not None
    assert last is not None
    assert (sum(first.n_by_kind), sum(last.n_by_kind)) == (1, 1)
    merged = fail(runs, 2.0)
    assert merged is not None
    assert (merged.n_by_kind[0], merged.sent_at_s) == (3, 1.0)


def settle(runs: FailureRuns, sent_at_s: float) -> int:
    """Note an answer and return how many failures of first attempts that settles."""
    settled = runs.note_answered(sent_at_s)
    return 0 if settled is None else settled.n_by_kind[0]


def test_answer_settles_what_was_sent_before_it() -> None:
    """Failures older than an answered request are settled; those sent after it still count."""
    runs = make_runs(4)
    fail(runs, 1.0)
    fail(runs, 4.0)
    assert settle(runs, 3.0) == 1
    assert (runs.n_first, runs.n_out) == (1, 0)
    assert fail(runs, 2.0) is None
    assert settle(runs, 2.0) == 0


def test_run_knows_how_long_first_attempts_took_to_fail() -> None:
    """From the first request sent to the latest failure of a first attempt; retries do not stretch it."""
    runs = make_runs(2)
    fail(runs, 1.0, now_s=5.0)
    run = fail(runs, 2.0, now_s=90.0, kind=1)
    assert run is not None
    assert (run.first_span_s, run.failed_at_s) == (4.0, 5.0)
    assert Run.of_one(1.0, 90.0, kind=1).first_span_s == 0.0


def test_request_taken_back_leaves_no_trace() -> None:
    """Its neighbours become one run; it counts as neither failed nor answered."""
    runs = make_runs(3)
    fail(runs, 1.0)
    fail(runs, 3.0)
    run = runs.take_back(2.0)
    assert run is not None
    assert run.n_by_kind[0] == runs.n_first == 2


def test_answer_to_an_unknown_request_settles_its_run() -> None:
    """An answer to a request that was never noted as sent clears the run it may stand in, and no later one."""
    runs = make_runs(2)
    fail(runs, 1.5)
    fail(runs, 2.0)
    assert settle(runs, 1.2) == 2
    assert runs.n_first == 0
    assert settle(make_runs(0), math.inf) == 0


@given(st.lists(st.tuples(st.sampled_from([OUT, OUT, FAILED, FAILED, FAILED, ANSWERED]), st.integers(0, 10**6))))
def test_runs_are_those_of_the_whole_history(steps: list[tuple[str, int]]) -> None:
    """After any schedule, the run a failure joins is the one that a look at all requests ever sent finds."""
    runs, fates = FailureRuns(), list[str]()
    for fate, pick in steps:
        out = [index for index, other in enumerate(fates) if other == OUT]
        if fate == OUT or not out:
            runs.note_sent(float(len(fates)))
            fates.append(OUT)
            continue
        chosen = out[pick % len(out)]
        fates[chosen] = fate
        if fate == ANSWERED:
            runs.note_answered(float(chosen))
            continue
        run = fail(runs, float(chosen))
        expected = find_run(fates, chosen)
        assert (run.n_by_kind[0] if run is not None else None) == (len(expected) or None)
        assert run is None or run.sent_at_s == expected[0]


def find_run(fates: list[str], index: int) -> list[int]:
    """Return the requests around the given one that failed without a gap; none when a later one was answered."""
    if ANSWERED in fates[index:]:
        return []
    first = last = index
    while first > 0 and fates[first - 1] == FAILED:
        first -= 1
    while last + 1 < len(fates) and fates[last + 1] == FAILED:
        last += 1
    return list(range(first, last + 1))
