"""The retry policy: who is asked again, after how long, and how often."""

import random

import pytest

from evalrun.dispatch.retry import RetryPolicy, Tries, make_backoff_bound
from evalrun.errors import (
    ApiError,
    BadRequestError,
    ConnectionFaultError,
    DamagedReplyError,
    RateLimitedError,
    ServerFaultError,
    TimedOutError,
)
from evalrun.options import RetryOptions
from evalrun.records import LANE_STOPPING, ErrorCode

OPTIONS = RetryOptions(max_attempts=4, base_s=1, max_s=8, max_timeouts=1)
FAULT = ServerFaultError(ErrorCode.SERVER_ERROR, "x", http_status=500)


def decide(error: ApiError, tries: Tries, *, options: RetryOptions = OPTIONS, seed: int = 1) -> float | None:
    """Ask a fresh policy."""
    return RetryPolicy(options, random.Random(seed)).decide(error, tries)


@pytest.mark.parametrize(("attempt", "bound_s"), [(1, 1), (2, 2), (3, 4)])
def test_wait_is_full_jitter_below_a_doubling_bound(attempt: int, bound_s: float) -> None:
    """Waits spread over 0 to the bound, which doubles with each attempt."""
    waits = [decide(FAULT, Tries(n=attempt), seed=seed) or 0.0 for seed in range(300)]
    assert 0 <= min(waits) < 0.1 * bound_s
    assert 0.9 * bound_s < max(waits) <= bound_s


def test_bound_ends_at_the_longest_wait() -> None:
    """However many attempts, the bound is never above `max_s`."""
    assert make_backoff_bound(10**6, base_s=1, max_s=60) == 60.0


def test_server_is_waited_for_when_it_asks_for_longer() -> None:
    """The wait is the larger one of back-off and what the server asked for."""
    error = RateLimitedError(ErrorCode.RATE_LIMITED, "x", http_status=429, retry_after_s=30)
    assert decide(error, Tries(n=1)) == 30.0
    short = RateLimitedError(ErrorCode.RATE_LIMITED, "x", http_status=429, retry_after_s=0.001)
    assert decide(short, Tries(n=1)) == decide(FAULT, Tries(n=1))


def test_attempts_are_bounded() -> None:
    """After `max_attempts` there is no other."""
    assert decide(FAULT, Tries(n=3)) is not None
    assert decide(FAULT, Tries(n=4)) is None


def test_terminal_failure_is_not_asked_again() -> None:
    """A refused request is refused once."""
    assert decide(BadRequestError(ErrorCode.BAD_REQUEST, "x", http_status=400), Tries(n=1)) is None


@pytest.mark.parametrize("says", [True, False])
def test_server_has_the_last_word(says: bool) -> None:
    """`x-should-retry` overrides the kind of failure, but never the number of attempts."""
    for kind in (BadRequestError, ServerFaultError):
        error = kind(ErrorCode.SERVER_ERROR, "x", should_retry=says)
        assert (decide(error, Tries(n=1)) is not None) is says
        assert decide(error, Tries(n=4)) is None


@pytest.mark.parametrize("code", sorted(LANE_STOPPING))
def test_what_stops_the_lane_is_never_asked_again(code: ErrorCode) -> None:
    """A key that is refused is refused for all: `x-should-retry: true` makes nobody knock fifty times."""
    assert decide(BadRequestError(code, "x", should_retry=True), Tries(n=1)) is None


def test_timeouts_after_sending_have_their_own_limit() -> None:
    """Each may be billed: `max_timeouts` retries and no more, whatever `max_attempts` says."""
    tries, error = Tries(), TimedOutError(ErrorCode.TIMEOUT_TOTAL, "x")
    waits = []
    for attempt in (1, 2):
        tries.n = attempt
        tries.note(error)
        waits.append(decide(error, tries))
    assert [wait is None for wait in waits] == [False, True]


def test_timeouts_before_sending_are_ordinary() -> None:
    """Nothing left, nothing is billed: only `max_attempts` counts."""
    tries = Tries(n=3)
    error = TimedOutError(ErrorCode.TIMEOUT_CONNECT, "x", was_sent=False)
    for _ in range(3):
        tries.note(error)
    assert decide(error, tries) is not None


def test_damaged_replies_are_asked_for_twice_more() -> None:
    """A 200 without a completion was probably billed: two retries, then it is an error."""
    tries, error = Tries(), DamagedReplyError(ErrorCode.BODY_INVALID, "x", http_status=200)
    waits = []
    for attempt in (1, 2, 3):
        tries.n = attempt
        tries.note(error)
        waits.append(decide(error, tries))
    assert [wait is None for wait in waits] == [False, False, True]


def test_decision_leaves_no_trace_on_the_policy() -> None:
    """One policy serves all rows: a row that gave up says nothing about the next one."""
    policy = RetryPolicy(OPTIONS, random.Random(1))
    reset = ConnectionFaultError(ErrorCode.RESET, "x")
    assert policy.decide(reset, Tries(n=4)) is None
    assert policy.decide(reset, Tries(n=1)) is not None


def test_refusals_for_the_pace_do_not_count() -> None:
    """Neither against `max_attempts` nor for a later fault; but the row waits longer each time."""
    tries, error = Tries(), RateLimitedError(ErrorCode.RATE_LIMITED, "x", http_status=429)
    for n in range(1, 21):
        tries.n = n
        tries.throttle(10.0 * n)
        assert decide(error, tries) is not None
    assert (tries.n_counted, tries.n_throttled, tries.throttled_s) == (0, 20, 190.0)
    assert max(decide(error, tries, seed=seed) or 0.0 for seed in range(50)) > OPTIONS.max_s / 2
    tries.n = 21
    assert decide(FAULT, tries) is not None


@pytest.mark.parametrize(("n", "over_s", "is_asked_again"), [(4, 600.0, False), (3, 600.0, True), (40, 599.0, True)])
def test_row_that_is_refused_for_good_is_given_up(n: int, over_s: float, is_asked_again: bool) -> None:
    """As many refusals as attempts, over as much time as a lane that lets nothing in: both, not one of them."""
    tries, error = Tries(), RateLimitedError(ErrorCode.RATE_LIMITED, "x", http_status=429)
    for index in range(n):
        tries.n += 1
        tries.throttle(1000.0 + over_s * index / (n - 1))
    assert (decide(error, tries) is not None) is is_asked_again


def test_attempts_that_an_outage_caused_do_not_count() -> None:
    """Forgiven at once or afterwards: neither the attempt nor its deadline counts, and the wait begins anew."""
    tries, late = Tries(), TimedOutError(ErrorCode.TIMEOUT_TOTAL, "x")
    for attempt in range(1, 4):
        tries.n = attempt
        tries.note(late)
        tries.doubt(late, sent_at_s=attempt, failed_at_s=attempt + 10.0)
    assert decide(late, tries) is None
    tries.weigh(lambda sent_at_s, failed_at_s: sent_at_s >= 2 and failed_at_s > 11)
    assert (tries.n, tries.n_counted, tries.n_timeouts) == (3, 1, 1)
    tries.weigh(lambda _sent_at_s, _failed_at_s: True)
    tries.weigh(lambda _sent_at_s, _failed_at_s: True)
    assert (tries.n_counted, tries.n_timeouts) == (0, 0)
    assert (decide(late, tries) or 0.0) <= OPTIONS.base_s
