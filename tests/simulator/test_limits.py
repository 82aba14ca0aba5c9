"""Tests of the limits: a state machine over a clock that the test turns."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalrun.options import SimulatedLimits
from evalrun.simulator.limits import CONCURRENCY_WAIT_S, RAMP_FREE_REQUESTS, Limiter, write_duration

START_S = 1000.0


def make_limiter(**limits: Any) -> Limiter:
    """Return the limits of the model `careful`."""
    return Limiter(SimulatedLimits(**limits), "careful")


def count_admitted(limiter: Limiter, now_s: float, n: int, *, tokens: int = 0) -> int:
    """Send n requests at one time, each over at once; return how many were let in."""
    n_admitted = 0
    for _ in range(n):
        if limiter.admit(now_s, tokens=tokens) is None:
            limiter.leave()
            n_admitted += 1
    return n_admitted


def test_no_limits_let_everything_in() -> None:
    """A model without limits never denies."""
    assert count_admitted(make_limiter(), START_S, 1000, tokens=10**9) == 1000


def test_steady_bucket_refills_one_by_one() -> None:
    """A minute's requests are there at once, then one for each share of the minute."""
    limiter = make_limiter(requests_per_minute=60)
    assert count_admitted(limiter, START_S, 100) == 60
    assert count_admitted(limiter, START_S + 0.9, 100) == 0
    assert count_admitted(limiter, START_S + 3.5, 100) == 3
    assert count_admitted(limiter, START_S + 1000, 100) == 60


def test_fixed_windows_refill_at_their_borders() -> None:
    """With windows of a second, 600 a minute are 10 a second, however they fall into it; unused ones are lost."""
    limiter = make_limiter(requests_per_minute=600, window_s=1)
    assert [count_admitted(limiter, START_S + at, 100) for at in (0.0, 0.99, 1.0, 1.5, 7.0)] == [10, 0, 10, 0, 10]


def test_window_smaller_than_one_request_lets_one_in_and_owes_it() -> None:
    """6 a minute in windows of a second are one every ten seconds, not none at all."""
    limiter = make_limiter(requests_per_minute=6, window_s=1)
    assert [count_admitted(limiter, START_S + at, 5) for at in (0, 5, 9, 10, 19, 20)] == [1, 0, 0, 1, 0, 1]


def test_denied_request_is_told_when_to_come_back() -> None:
    """Status, type, code and words are OpenAI's, with limit, use and wait."""
    limiter = make_limiter(requests_per_minute=3)
    assert count_admitted(limiter, START_S, 3) == 3
    denial = limiter.admit(START_S)
    assert denial is not None
    assert denial.wait_s == pytest.approx(20)
    assert not denial.is_quota
    refusal = denial.refusal
    assert (refusal.status, refusal.kind, refusal.code) == (429, "requests", "rate_limit_exceeded")
    assert refusal.message.startswith(
        "Rate limit reached for careful in organization org-simulator on requests per min (RPM): "
        "Limit 3, Used 3, Requested 1. Please try again in 20s."
    )


def test_tokens_are_taken_as_asked_for() -> None:
    """A request takes its tokens at once, and what cannot pass in a minute is told to be too large."""
    limiter = make_limiter(tokens_per_minute=1000)
    assert count_admitted(limiter, START_S, 10, tokens=300) == 3
    denial = limiter.admit(START_S, tokens=300)
    assert denial is not None
    assert denial.refusal.kind == "tokens"
    assert denial.wait_s == pytest.approx(12)
    denial = limiter.admit(START_S + 600, tokens=1001)
    assert denial is not None
    assert denial.wait_s is None
    assert "Request too large" in denial.refusal.message
    assert "Limit 1000, Requested 1001" in denial.refusal.message


def test_tokens_charged_afterwards_are_owed() -> None:
    """Output that nobody had limited counts when it is made, even beyond what is there."""
    limiter = make_limiter(tokens_per_minute=600)
    assert limiter.admit(START_S, tokens=100) is None
    limiter.charge(START_S, 1100)
    denial = limiter.admit(START_S, tokens=100)
    assert denial is not None
    assert denial.wait_s == pytest.approx(70)


def test_longest_lasting_limit_is_named() -> None:
    """Of two limits in the way, the wait is that of the later one, so that one wait is enough."""
    limiter = make_limiter(requests_per_minute=60, tokens_per_minute=60)
    assert count_admitted(limiter, START_S, 60, tokens=1) == 60
    denial = limiter.admit(START_S, tokens=30)
    assert denial is not None
    assert denial.refusal.kind == "tokens"
    assert denial.wait_s == pytest.approx(30)


def test_concurrency_counts_requests_under_way() -> None:
    """A place is free when a request has left."""
    limiter = make_limiter(concurrency=2)
    assert [limiter.admit(START_S) is None for _ in range(3)] == [True, True, False]
    denial = limiter.admit(START_S)
    assert denial is not None
    assert (denial.refusal.status, denial.wait_s) == (429, CONCURRENCY_WAIT_S)
    limiter.leave()
    assert limiter.admit(START_S) is None


@pytest.mark.parametrize(("rejected_count", "n_admitted"), [(False, 5), (True, 0)])
def test_refused_requests_use_up_the_limit_if_asked(rejected_count: bool, n_admitted: int) -> None:
    """With `rejected_count` a client that keeps knocking is never let in; one that waits is, as told."""
    limiter = make_limiter(requests_per_minute=60, rejected_count=rejected_count)
    assert count_admitted(limiter, START_S, 60) == 60
    knocks = [count_admitted(limiter, START_S + 0.5 * i, 1) for i in range(1, 11)]
    assert sum(knocks) == n_admitted
    denial = limiter.admit(START_S + 5.2)
    assert denial is not None
    assert denial.wait_s is not None
    assert limiter.admit(START_S + 5.2 + denial.wait_s) is None


def test_quota_is_a_wall() -> None:
    """Once the tokens are spent every request is refused for good, in OpenAI's words, with no wait."""
    limiter = make_limiter(quota_tokens=100)
    assert limiter.admit(START_S) is None
    limiter.bill(99)
    assert limiter.admit(START_S) is None
    limiter.bill(1)
    denial = limiter.admit(START_S + 1e6)
    assert denial is not None
    assert (denial.is_quota, denial.wait_s) == (True, None)
    assert (denial.refusal.status, denial.refusal.kind, denial.refusal.code) == (
        429,
        "insufficient_quota",
        "insufficient_quota",
    )


def test_ramp_may_grow_by_the_factor_only() -> None:
    """Each window lets in so many times what the one before did; a pause starts over."""
    limiter = make_limiter(max_growth=2)
    sent = [count_admitted(limiter, START_S + 10 * i, 1000) for i in range(4)]
    assert sent == [RAMP_FREE_REQUESTS * 2**i for i in range(4)]
    denial = limiter.admit(START_S + 34)
    assert denial is not None
    assert (denial.refusal.status, denial.refusal.code) == (503, "slow_down")
    assert denial.wait_s == pytest.approx(6)
    assert count_admitted(limiter, START_S + 100, 1000) == RAMP_FREE_REQUESTS


def test_allowances_tell_what_is_left() -> None:
    """Remaining and reset are those of the moment; limits that there are not are not told."""
    limiter = make_limiter(requests_per_minute=60)
    count_admitted(limiter, START_S, 30)
    told = limiter.read(START_S + 3)
    assert told.tokens is None
    assert told.requests is not None
    assert told.requests_of_day is not None
    assert told.requests.remaining == pytest.approx(33)
    assert told.requests.reset_s == pytest.approx(27)
    assert told.requests_of_day.remaining == pytest.approx(60 * 1440 - 27)


@given(
    rate=st.floats(0.5, 10_000),
    tokens_rate=st.floats(100, 1e6),
    window_s=st.none() | st.sampled_from([0.1, 1.0, 10.0, 60.0]),
    steps=st.lists(st.tuples(st.floats(0, 5), st.integers(0, 100)), min_size=1, max_size=40),
    rejected_count=st.booleans(),
)
def test_who_waits_as_told_is_let_in(
    rate: float, tokens_rate: float, window_s: float | None, steps: list[tuple[float, int]], rejected_count: bool
) -> None:
    """Whatever came before, a denied request that waits the time it was told is let in, if nobody comes between."""
    limiter = make_limiter(
        requests_per_minute=rate, tokens_per_minute=tokens_rate, window_s=window_s, rejected_count=rejected_count
    )
    now_s = 123_456.789
    for pause_s, tokens in steps:
        now_s += pause_s
        denial = limiter.admit(now_s, tokens=tokens)
        if denial is not None:
            assert denial.wait_s is not None
            assert denial.wait_s > 0
            now_s += denial.wait_s
            assert limiter.admit(now_s, tokens=tokens) is None


@given(
    rate=st.integers(1, 600),
    window_s=st.none() | st.sampled_from([1.0, 10.0]),
    pauses=st.lists(st.floats(0, 2), min_size=1, max_size=200),
)
def test_rate_is_never_exceeded(rate: int, window_s: float | None, pauses: list[float]) -> None:
    """However requests fall, no more pass than a full bucket and what has refilled since."""
    limiter = make_limiter(requests_per_minute=rate, window_s=window_s)
    now_s = START_S
    n_admitted = 0
    for pause_s in pauses:
        now_s += pause_s
        n_admitted += count_admitted(limiter, now_s, 3)
    burst = rate if window_s is None else max(1.0, rate * window_s / 60)
    assert n_admitted <= burst + (now_s - START_S + (window_s or 0)) * rate / 60 + 1e-3


@pytest.mark.parametrize(
    ("duration_s", "decimals", "text"),
    [
        (0, 3, "0s"),
        (0.0001, 3, "1ms"),
        (0.017, 3, "17ms"),
        (1, 3, "1s"),
        (1.2, 3, "1.2s"),
        (90, 3, "1m30s"),
        (360, 3, "6m0s"),
        (3600, 3, "1h0m0s"),
        (86_399.5, 3, "23h59m59.5s"),
        (59.9999, 3, "1m0s"),
        (7.66, 2, "7.66s"),
        (179.56, 2, "2m59.56s"),
        (0.014, 2, "20ms"),
        (10, 0, "10s"),
    ],
)
def test_duration_is_written_as_go_does(duration_s: float, decimals: int, text: str) -> None:
    """Units and fractions are those seen in OpenAI's and Groq's headers; fractions of the last digit round up."""
    assert write_duration(duration_s, decimals=decimals) == text
