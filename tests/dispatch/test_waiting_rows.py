"""Rows between two attempts, on a fake clock: how many wait, how long, and which of them cost their row an attempt."""

import random
from collections import Counter

import pytest

from evalrun.dispatch.retry_budget import RETRY_RATIO, WINDOW_S
from evalrun.dispatch.schedule import MAX_WAITING_IN_DOUBT, MAX_WAITING_PER_SLOT
from evalrun.errors import ConnectionFaultError
from evalrun.options import RetryOptions
from evalrun.records import Attempt, ErrorCode, Outcome, Request, Started, Status
from tests.dispatch.rig import make_requests
from tests.dispatch.test_lane_scenarios import serve_limited
from tests.dispatch.test_pacing_scenarios import COLUMNS, IN_FLIGHT, N_ROWS, compute_ideal_s
from tests.dispatch.virtual import Deed, Ledger, Serve, refuse, run_virtually

LOST = ConnectionFaultError(ErrorCode.RESET, "connection reset")


def serve_faulty(seed: int, *, share: float = 0.6, most_s: float = 1.0) -> Serve:
    """Return a server that fails a share of its requests: two thirds by 503, one third by losing the reply."""
    rng = random.Random(seed)

    def serve(_now_s: float, _request: Request) -> Deed:
        draw, after_s = rng.random(), rng.uniform(0.2, 1.0) * most_s
        if draw < share * 2 / 3:
            return refuse(503, after_s=after_s)
        return Deed(after_s=after_s, error=LOST) if draw < share else Deed(after_s=after_s)

    return serve


def find_most_unfinished(ledger: Ledger) -> int:
    """Return how many rows at most had left and had no outcome yet."""
    unfinished: set[str] = set()
    most = 0
    for record in ledger.records:
        if isinstance(record, Started):
            unfinished.add(record.row_id)
            most = max(most, len(unfinished))
        elif isinstance(record, Outcome):
            unfinished.discard(record.row_id)
    return most


def list_retries(ledger: Ledger) -> list[float]:
    """Return when retries arrived: a start is recorded as its request leaves."""
    started = [record for record in ledger.records if isinstance(record, Started)]
    return [at_s for (at_s, _), record in zip(ledger.arrivals, started, strict=True) if record.attempt > 1]


# How many


@pytest.mark.parametrize(("share", "concurrency"), [(0.6, 16), (0.85, 8), (0.6, 1)])
def test_lane_that_fails_does_not_eat_the_plan(share: float, concurrency: int) -> None:
    """However many fail, and however slowly retries may leave, the rows that wait are a few for each slot."""
    ledger = run_virtually(serve_faulty(1, share=share), make_requests(60 * concurrency), concurrency=concurrency)
    most_waiting = MAX_WAITING_PER_SLOT * concurrency + MAX_WAITING_IN_DOUBT
    assert len(ledger.outcomes) == 60 * concurrency
    assert find_most_unfinished(ledger) <= most_waiting + concurrency


@pytest.mark.soak
def test_rows_that_wait_stay_few_over_a_hundred_thousand() -> None:
    """The same over a plan in which 60 % of all requests fail: nothing grows with it."""
    ledger = run_virtually(serve_faulty(1), make_requests(100_000), concurrency=64)
    assert len(ledger.outcomes) == 100_000
    assert find_most_unfinished(ledger) <= (MAX_WAITING_PER_SLOT + 1) * 64 + MAX_WAITING_IN_DOUBT


def test_lane_full_of_waiting_rows_says_so() -> None:
    """While every row that was taken backs off, no new one is taken, and that is what the lane waits for."""
    rng = random.Random(1)
    ledger = run_virtually(
        lambda _now_s, _request: Deed() if rng.random() < 0.5 else refuse(500),
        make_requests(300),
        concurrency=1,
        retry=RetryOptions(base_s=20),
    )
    assert len(ledger.outcomes) == 300
    assert ledger.progress[0].waited_s["back_off"] > 60


def test_retries_are_bounded_by_the_traffic() -> None:
    """Of a server that fails half at random, a second sees as many retries as the budget has, and the lane slows."""
    concurrency = 4
    ledger = run_virtually(serve_faulty(2, share=0.5, most_s=0.02), make_requests(1500), concurrency=concurrency)
    per_second = Counter(int(at_s) for at_s in list_retries(ledger))
    n_spare = 2 * concurrency  # A second's worth saved up, and what comes in meanwhile.
    for second, n_retries in per_second.items():
        n_window = ledger.count_arrivals(second + 1 - WINDOW_S, second + 1)
        assert n_retries <= RETRY_RATIO * n_window + n_spare
    assert ledger.progress[0].waited_s["retry_budget"] > 10
    assert len(ledger.outcomes) == 1500


# Refused for the lane's pace


@pytest.mark.parametrize("has_retry_after", [True, False])
def test_refusals_for_the_pace_cost_no_row(has_retry_after: bool) -> None:
    """On a key that others use too, every other request is refused; however often one row is, it is answered."""
    rng = random.Random(1)
    hint = {"retry_after": "1"} if has_retry_after else {}

    def serve(_now_s: float, _request: Request) -> Deed:
        return refuse(429, after_s=0.1, **hint) if rng.random() < 0.5 else Deed(after_s=1.0)

    ledger = run_virtually(serve, make_requests(300), concurrency=16)
    refused = Counter(record.row_id for record in ledger.records if isinstance(record, Attempt))
    assert ledger.count(Status.OK) == 300
    assert max(refused.values()) > 6


def test_row_that_alone_is_refused_ends_in_time() -> None:
    """A row that gets 429s while all others are let in is an error after `max_pause_s`, not sooner, and not never."""
    ledger = run_virtually(
        lambda _now_s, request: refuse(429) if request.index == 7 else Deed(after_s=5.0),
        make_requests(2000),
        concurrency=8,
    )
    outcome = next(outcome for outcome in ledger.outcomes if outcome.index == 7)
    assert (outcome.status, outcome.error_code, ledger.count(Status.OK)) == (Status.ERROR, "rate_limited", 1999)
    assert outcome.started_at is not None
    assert outcome.finished_at is not None
    assert 600 <= (outcome.finished_at - outcome.started_at).total_seconds() <= 720
    assert 6 <= outcome.attempts <= 30


def test_request_too_large_for_any_minute_holds_nobody_up() -> None:
    """A 429 that says so is about its request: it costs attempts, and the lane does not slow down for it."""

    def serve(_now_s: float, request: Request) -> Deed:
        if request.index != 7:
            return Deed(after_s=1.0)
        body = (
            b'{"error": {"code": "rate_limit_exceeded", "message": "Request too large for m: Limit 10, Requested 20"}}'
        )
        return Deed(status=429, body=body)

    ledger = run_virtually(serve, make_requests(800), concurrency=8)
    outcome = next(outcome for outcome in ledger.outcomes if outcome.index == 7)
    assert (outcome.error_code, outcome.attempts) == ("rate_limited", 6)
    assert "learned_rate" not in [what for _, what, _ in ledger.progress[0].history]
    assert ledger.progress[0].rate_limited == 6


@pytest.mark.parametrize("retry_after", [None, "90"])
def test_lane_that_lets_nothing_in_stops(retry_after: str | None) -> None:
    """After `max_pause_s` of nothing but 429s the lane stops: rows stay pending, few requests were spent on it."""
    hint = {} if retry_after is None else {"retry_after": retry_after}
    ledger = run_virtually(
        lambda now_s, _request: Deed(after_s=1.0) if now_s < 10 else refuse(429, after_s=0.1, **hint),
        make_requests(1000),
        make_requests(1000, model="other")[:1],
        concurrency=8,
    )
    progress = ledger.progress[0]
    assert progress.stopped_by == "rate_limited"
    assert "nothing was let in for 6" in str(progress.stop_message)
    assert "--resume" in str(progress.stop_message)
    assert 600 <= ledger.ended_s <= 800
    assert {outcome.error_code for outcome in ledger.outcomes if outcome.status is not Status.OK} <= {
        "rate_limited",
        "lane_stopped",
    }
    assert ledger.count(Status.ERROR) == 0
    assert ledger.count_arrivals(11, 1000) <= 40


# One limit for several lanes


@pytest.mark.parametrize("has_headers", [False, True])
@pytest.mark.parametrize("column", list(COLUMNS)[1::2])
def test_lanes_of_one_key_share_its_limit_in_peace(column: str, has_headers: bool) -> None:
    """Three models, one limit that the server counts for all of them: each learns its part, and the sum is calm."""
    lanes = [make_requests(N_ROWS // 3, model=f"m{n}") for n in range(3)]
    server = COLUMNS[column].make_server(has_headers=has_headers)
    ledger = run_virtually(serve_limited(server, 0), *lanes, concurrency=IN_FLIGHT)
    assert ledger.count(Status.OK) == N_ROWS
    assert ledger.statuses.count(429) <= 200
    assert ledger.ended_s <= 1.5 * compute_ideal_s(0)
