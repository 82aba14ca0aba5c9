"""The retry budget: a fifth of the traffic, a trickle always, and never a wait of more than a second."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalrun.dispatch.retry_budget import RETRY_RATIO, WINDOW_S, RetryBudget

START_S = 1e6


def retry_all(budget: RetryBudget, from_s: float, to_s: float) -> int:
    """Send retries as early as the budget lets them; return how many left."""
    n, now_s = 0, from_s
    while (now_s := budget.opens_at_s(now_s)) < to_s:
        budget.note_request(now_s)
        budget.note_retry(now_s)
        n += 1
    return n


def send_first(budget: RetryBudget, n: int, now_s: float) -> None:
    """Send first attempts, all at once."""
    for _ in range(n):
        budget.note_request(now_s)


@pytest.mark.parametrize("concurrency", [1, 7, 64])
def test_trickle_is_one_retry_per_slot_and_second(concurrency: int) -> None:
    """A lane that sends nothing but retries gets `concurrency` a second, and a second's worth at the start."""
    assert retry_all(RetryBudget(concurrency), START_S, START_S + 100) == pytest.approx(101 * concurrency, abs=30)


def test_trickle_is_smooth() -> None:
    """Spent, it lets one retry out at a time, evenly spaced."""
    budget = RetryBudget(4)
    retry_all(budget, START_S, START_S + 1)
    opens_at_s = budget.opens_at_s(START_S + 1)
    budget.note_request(opens_at_s)
    budget.note_retry(opens_at_s)
    assert budget.opens_at_s(opens_at_s) == pytest.approx(opens_at_s + 0.25)


def test_fifth_of_the_traffic_may_be_retries() -> None:
    """A thousand first attempts let 250 retries pass at once: a fifth of 1,250 requests."""
    budget = RetryBudget(1)
    send_first(budget, 1000, START_S)
    n_at_once = 0
    while budget.opens_at_s(START_S) <= START_S:
        budget.note_request(START_S)
        budget.note_retry(START_S)
        n_at_once += 1
    assert n_at_once == pytest.approx(1000 * RETRY_RATIO / (1 - RETRY_RATIO), abs=2)


def test_traffic_is_forgotten_after_a_minute() -> None:
    """Requests of more than a window ago buy no retries; those of just now do."""
    budget = RetryBudget(1)
    send_first(budget, 1000, START_S)
    assert retry_all(budget, START_S + WINDOW_S + 5, START_S + WINDOW_S + 15) <= 12
    send_first(budget, 1000, START_S + 100)
    assert retry_all(budget, START_S + 100 + WINDOW_S - 2, START_S + 100 + WINDOW_S - 1) > 200


def test_first_attempts_never_wait() -> None:
    """Nothing but retries is asked about: first attempts only fill the budget."""
    budget = RetryBudget(1)
    send_first(budget, 10, START_S)
    assert budget.opens_at_s(START_S) == START_S


def test_retries_paid_by_traffic_leave_no_debt() -> None:
    """After a burst that the share paid for, the trickle goes on at its rate at once."""
    budget = RetryBudget(2)
    send_first(budget, 1000, START_S)
    retry_all(budget, START_S, START_S + 0.5)
    now_s = START_S + WINDOW_S + 5
    budget.note_retry(now_s)
    budget.note_retry(now_s)
    assert budget.opens_at_s(now_s) == pytest.approx(now_s + 0.5)


@given(
    st.integers(1, 100),
    st.lists(st.tuples(st.floats(0, 90), st.booleans()), max_size=200),
)
def test_no_retry_waits_for_more_than_a_second(concurrency: int, steps: list[tuple[float, bool]]) -> None:
    """After any schedule the next retry is at most a second away, and is let through at the time told."""
    budget, now_s = RetryBudget(concurrency), START_S
    for wait_s, is_retry in steps:
        now_s += wait_s
        if is_retry:
            now_s = budget.opens_at_s(now_s)
            assert budget.opens_at_s(now_s) == now_s
        budget.note_request(now_s)
        if is_retry:
            budget.note_retry(now_s)
        assert now_s <= budget.opens_at_s(now_s) <= now_s + 1 / concurrency + 1e-6


@given(st.integers(1, 20), st.lists(st.floats(0, 3), min_size=50, max_size=300))
def test_retries_stay_within_the_budget(concurrency: int, gaps_s: list[float]) -> None:
    """Over any minute: at most a fifth of the requests, or the trickle and its second's head start."""
    budget, now_s = RetryBudget(concurrency), START_S
    sent: list[tuple[float, bool]] = []
    for gap_s in gaps_s:
        now_s += gap_s
        budget.note_request(now_s)
        sent.append((now_s, False))
        while budget.opens_at_s(now_s) <= now_s:
            budget.note_request(now_s)
            budget.note_retry(now_s)
            sent.append((now_s, True))
    window = [is_retry for sent_s, is_retry in sent if sent_s > now_s - WINDOW_S]
    n_trickle = concurrency * (WINDOW_S + 1)
    assert sum(window) <= RETRY_RATIO * len(window) + n_trickle + 1
