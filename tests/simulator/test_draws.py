"""Tests of the simulator's draws."""

import math

import pytest

from evalrun.simulator.draws import digest_request, draw_is_right, draw_latency_s, draw_uniform

Z_999 = 3.2905
"""Two-sided 99.9 % quantile of the normal distribution."""


def count_right(accuracy: float, n: int, *, arm: bytes = b"arm", seed: int = 1) -> list[bool]:
    """Return what n samples drew in one arm."""
    return [draw_is_right(seed, str(i), digest_request(seed, arm, str(i), 0), accuracy=accuracy) for i in range(n)]


@pytest.mark.parametrize("accuracy", [0.02, 0.3, 0.5, 0.7, 0.86, 0.9, 0.99])
@pytest.mark.parametrize("seed", [1, 2, -7])
def test_accuracy_is_met_within_its_interval(accuracy: float, seed: int) -> None:
    """Over 2,000 samples the rate of right answers lies within the 99.9 % interval of the set accuracy."""
    n = 2000
    rate = sum(count_right(accuracy, n, seed=seed)) / n
    assert abs(rate - accuracy) <= Z_999 * math.sqrt(accuracy * (1 - accuracy) / n)


def test_accuracy_of_zero_and_one_are_never_and_always() -> None:
    """The ends of the scale are exact."""
    assert (sum(count_right(0, 500)), sum(count_right(1, 500))) == (0, 500)


def test_arms_are_correlated_as_documented() -> None:
    """Two arms of accuracy 0.5 are both right with probability 1/4 + asin(ρ)/2π = 1/3, not 1/4."""
    n = 4000
    both = sum(map(all, zip(count_right(0.5, n), count_right(0.5, n, arm=b"other"), strict=True))) / n
    assert abs(both - 1 / 3) <= Z_999 * math.sqrt(2 / 9 / n)


def test_a_higher_accuracy_turns_wrong_answers_only() -> None:
    """The same request stays right when its profile gets better: common random numbers."""
    pairs = zip(count_right(0.7, 1000), count_right(0.8, 1000), strict=True)
    assert all(better or not worse for worse, better in pairs)


def test_uniform_draws_depend_on_purpose_and_index() -> None:
    """One digest gives independent numbers for different purposes and choices."""
    digest = digest_request(1, b"body", "s1", 0)
    draws = {draw_uniform(digest, purpose, index) for purpose in ("a", "b") for index in range(100)}
    assert len(draws) == 200


def test_latency_is_log_normal_around_its_median() -> None:
    """Half of the latencies lie below the median, and their logarithms spread as set."""
    latencies = [draw_latency_s(digest_request(1, b"body", str(i), 0), median_ms=20, spread=0.25) for i in range(2000)]
    logs = [math.log(latency / 0.020) for latency in latencies]
    n_below = sum(log < 0 for log in logs)
    deviation = math.sqrt(sum(log * log for log in logs) / len(logs))
    assert abs(n_below - 1000) <= Z_999 * math.sqrt(500)
    assert deviation == pytest.approx(0.25, rel=0.06)


def test_latency_without_spread_is_the_median() -> None:
    """Spread 0 means always the median; median 0 means none at all."""
    digest = digest_request(1, b"body", "s1", 0)
    assert draw_latency_s(digest, median_ms=15, spread=0) == 0.015
    assert draw_latency_s(digest, median_ms=0, spread=2) == 0


def test_latency_stays_below_an_hour() -> None:
    """The longest median with the widest spread cannot sleep for days."""
    drawn = (draw_latency_s(digest_request(1, b"b", str(i), 0), median_ms=600_000, spread=3) for i in range(300))
    assert max(drawn) == 3600.0
