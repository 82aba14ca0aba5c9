"""Failure shares: what is learned from the past, and how much a run of failures says."""

import math
import random

import pytest

from evalrun.dispatch.failure_shares import N_KINDS, FailureShares, find_kind

ENOUGH = -math.log(1e-6)


def learn(failed_share: float, *, kind: int = 0, n: int = 2000, seed: int = 1) -> FailureShares:
    """Return shares that have seen n attempts of one kind."""
    shares, rng = FailureShares(), random.Random(seed)
    for _ in range(n):
        if rng.random() < failed_share:
            shares.note_failed(count(1, kind=kind))
        else:
            shares.note_answered(kind)
    return shares


def count(n: int, *, kind: int = 0) -> list[int]:
    """Return n failures of one kind."""
    return [n if other == kind else 0 for other in range(N_KINDS)]


def find_needed(shares: FailureShares, *, kind: int = 0, is_slow: bool = False) -> int:
    """Return how many failures in a row have a chance of less than one in a million."""
    return next(n for n in range(1, 10_000) if shares.measure_run(count(n, kind=kind), is_slow=is_slow) >= ENOUGH)


@pytest.mark.parametrize(
    ("failed_share", "is_slow", "least", "most"),
    [
        (0.0, False, 20, 20),
        (0.0, True, 6, 6),
        (0.4, False, 20, 28),
        (0.5, False, 20, 40),
        (0.6, False, 28, 50),
        (0.6, True, 28, 50),
        (0.99, False, 62, 62),
    ],
)
def test_needed_failures_follow_the_share(failed_share: float, is_slow: bool, least: int, most: int) -> None:
    """The more a lane fails when it is up, the longer a run must be; 20 at least, or 6 slow ones, and 62 at most."""
    needed = {find_needed(learn(failed_share, seed=seed), is_slow=is_slow) for seed in range(20)}
    assert least <= min(needed) <= max(needed) <= most


def test_lane_that_knows_little_is_careful() -> None:
    """Before the shares are known, a run must be longer than on a lane known to be clean."""
    assert find_needed(FailureShares()) > 40
    assert find_needed(learn(0.0, n=10)) == 20


def test_retries_say_little_until_retries_were_answered() -> None:
    """Nobody knows whether a retried row ever passes, before one has; where they do, a failed one says as much."""
    late = find_kind(5)
    assert find_needed(FailureShares(), kind=late) > 300
    assert find_needed(learn(0.3, kind=late), kind=late) == 20
    assert find_needed(learn(1.0, kind=late), kind=late) > 300


def test_attempts_are_told_apart_up_to_the_fifth() -> None:
    """Kinds go by the row's attempts; all late ones are of one kind."""
    assert [find_kind(attempt) for attempt in (0, 1, 2, 5, 6, 100)] == [0, 0, 1, 4, 4, 4]


def test_past_fades() -> None:
    """A lane that turned from clean to failing half is known for it after a few hundred attempts."""
    shares = learn(0.0)
    for _ in range(300):
        shares.note_failed(count(1))
        shares.note_answered(0)
    assert find_needed(shares) > 20


def test_failures_noted_together_count_as_one_by_one() -> None:
    """The order of counting makes no difference worth naming."""
    one_by_one, together = learn(0.0), learn(0.0)
    for _ in range(50):
        one_by_one.note_failed(count(1))
    together.note_failed(count(50))
    measured = [shares.measure_run(count(30), is_slow=True) for shares in (one_by_one, together)]
    assert measured[0] == pytest.approx(measured[1], rel=0.05)


def test_part_that_failed_surprises_above_its_share_only() -> None:
    """As many failures as expected are no surprise; Chernoff's bound is reached where all failed."""
    shares = learn(0.0)
    assert shares.measure_part(0, 0) == shares.measure_part(1, 50) == 0.0
    assert 0 < shares.measure_part(10, 50) < shares.measure_part(20, 50)
    assert shares.measure_part(6, 6) == pytest.approx(6 * math.log(1 / 0.03))
