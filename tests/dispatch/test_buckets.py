"""Buckets of a rate: smooth release, debts, and what is given back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalrun.dispatch.buckets import RateBucket


def drain(bucket: RateBucket, *, now_s: float, amount: float = 1) -> int:
    """Take as often as the bucket is open, and return how often that was."""
    n = 0
    while bucket.opens_at_s(now_s) <= now_s:
        bucket.take(amount, now_s)
        n += 1
    return n


def test_bucket_releases_smoothly() -> None:
    """At 600 per minute one leaves every tenth of a second, after what was saved up at first."""
    bucket = RateBucket(600, burst_s=0, now_s=100)
    assert drain(bucket, now_s=100) == 1
    assert bucket.opens_at_s(100) == pytest.approx(100.1, abs=1e-5)
    assert drain(bucket, now_s=100.1001) == 1


@pytest.mark.parametrize(("burst_s", "n"), [(0.0, 1), (0.05, 1), (1.05, 11), (3.05, 31)])
def test_bucket_saves_up_no_more_than_its_burst(burst_s: float, n: int) -> None:
    """However long nothing leaves, at once leaves what the burst holds and one more, which is owed."""
    bucket = RateBucket(600, burst_s=burst_s, now_s=0)
    drain(bucket, now_s=0)
    assert drain(bucket, now_s=3600) == n


def test_bucket_is_open_at_the_time_it_names() -> None:
    """Who waits until the time that was told need not ask twice."""
    bucket = RateBucket(7, burst_s=0, now_s=0)
    now_s = 0.0
    for _ in range(1000):
        bucket.take(1, now_s)
        now_s = bucket.opens_at_s(now_s)
        assert bucket.opens_at_s(now_s) <= now_s
    assert now_s == pytest.approx(1000 * 60 / 7, rel=1e-3)


def test_amount_larger_than_a_minute_passes_and_is_owed() -> None:
    """A request above the limit leaves when the bucket is open; the next one waits until it is paid for."""
    bucket = RateBucket(60, now_s=0)
    bucket.take(121, 0)
    assert bucket.opens_at_s(0) == pytest.approx(120, abs=1e-3)


def test_what_is_given_back_counts_in_full() -> None:
    """Unused tokens are there at once, even above what may be saved up; they are not added to."""
    bucket = RateBucket(60, now_s=0)
    bucket.take(50, 0)
    bucket.give_back(60, 0)
    assert drain(bucket, now_s=5, amount=1.1) == 10


def test_giving_back_less_than_nothing_takes_more() -> None:
    """What was used above the reservation is owed."""
    bucket = RateBucket(60, now_s=0)
    bucket.give_back(-31, 0)
    assert bucket.opens_at_s(0) == pytest.approx(30, abs=1e-3)


def test_new_rate_keeps_the_balance() -> None:
    """A debt stays a debt when the rate changes, and is paid off at the new one."""
    bucket = RateBucket(60, now_s=0)
    bucket.take(11, 0)
    bucket.per_minute = 600
    assert bucket.per_minute == pytest.approx(600)
    assert bucket.opens_at_s(0) == pytest.approx(1, abs=1e-3)


def test_savings_are_lowered_but_never_below_nothing() -> None:
    """A balance above what the other side has left is forgotten; the bucket stays open."""
    bucket = RateBucket(600, burst_s=5, now_s=0)
    bucket.lower_to(2.5, 0)
    assert drain(bucket, now_s=0) == 3
    bucket = RateBucket(600, burst_s=5, now_s=0)
    bucket.lower_to(0, 0)
    assert drain(bucket, now_s=0) == 1


def test_lowering_forgives_no_debt() -> None:
    """What is owed stays owed."""
    bucket = RateBucket(60, now_s=0)
    bucket.take(11, 0)
    bucket.lower_to(5, 0)
    assert bucket.opens_at_s(0) == pytest.approx(10, abs=1e-3)


def test_held_bucket_opens_on_time_with_nothing_saved() -> None:
    """After a wait one leaves at once, and the next only as the rate says."""
    bucket = RateBucket(600, burst_s=5, now_s=0)
    bucket.hold_until(20, 0)
    assert bucket.opens_at_s(0) == 20
    assert drain(bucket, now_s=20) == 1
    bucket.hold_until(10, 20)
    assert bucket.opens_at_s(20) == pytest.approx(20.1, abs=1e-3)


def test_held_bucket_pays_its_debt_meanwhile() -> None:
    """A debt that the wait pays off delays nothing; what is left of it does."""
    paid, owing = RateBucket(60, now_s=0), RateBucket(60, now_s=0)
    paid.take(11, 0)
    owing.take(31, 0)
    for bucket in (paid, owing):
        bucket.hold_until(20, 0)
    assert paid.opens_at_s(0) == 20
    assert owing.opens_at_s(0) == pytest.approx(30, abs=1e-3)


@given(
    per_minute=st.floats(1, 1e6),
    burst_s=st.floats(0, 5),
    steps=st.lists(
        st.tuples(st.floats(0, 3), st.floats(0.1, 5000), st.sampled_from(["take", "hold", "lower"])), max_size=60
    ),
)
def test_no_more_is_taken_than_burst_rate_and_one_amount(
    per_minute: float, burst_s: float, steps: list[tuple[float, float, str]]
) -> None:
    """Over any time no more leaves than was saved up, the rate times the time, and one last amount."""
    bucket = RateBucket(per_minute, burst_s=burst_s, now_s=0)
    now_s = taken = largest = 0.0
    for wait_s, amount, what in steps:
        now_s += wait_s
        if what == "hold":
            bucket.hold_until(now_s + wait_s, now_s)
        elif what == "lower":
            bucket.lower_to(amount, now_s)
        elif bucket.opens_at_s(now_s) <= now_s:
            bucket.take(amount, now_s)
            taken += amount
            largest = max(largest, amount)
    per_s = per_minute / 60
    assert taken <= (burst_s * per_s + now_s * per_s + largest) * (1 + 1e-9) + 1e-3
