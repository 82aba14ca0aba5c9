"""A rate learned from refusals: the cut, the way back, and what is asked for beyond."""

import itertools

import pytest

from evalrun.dispatch.learned_rate import (
    CUT,
    FIRST_PER_S,
    MIN_PER_S,
    REGAIN_S,
    SLOW_DOUBLING_S,
    LearnedRate,
)


def send(rate: LearnedRate, per_s: float, *, begin_s: float = 0.0, end_s: float = 20.0) -> None:
    """Let requests leave steadily."""
    for n in itertools.count():
        at_s = begin_s + n / per_s
        if at_s >= end_s:
            return
        rate.note_sent(at_s)


def make_cut(per_s: float = 10, *, is_slow: bool = False) -> LearnedRate:
    """Return a rate that was refused after 20 s at a steady pace, and re-opens a second later."""
    rate = LearnedRate()
    send(rate, per_s)
    rate.cut(20.0, reopens_at_s=21.0, is_slow=is_slow)
    return rate


def test_nothing_is_learned_before_a_refusal() -> None:
    """Until a request is refused there is no rate to keep."""
    rate = LearnedRate()
    send(rate, 10)
    assert (rate.is_learned, rate.rate_per_s(20)) == (False, None)


@pytest.mark.parametrize("per_s", [0.083, 0.5, 10.0, 333.0])
def test_cut_goes_below_what_was_let_in(per_s: float) -> None:
    """The first rate is 0.7 of the measured one, be it five requests per minute or hundreds per second."""
    rate = LearnedRate()
    send(rate, per_s, end_s=100)
    assert rate.cut(100.0, reopens_at_s=101.0, is_slow=False) == pytest.approx(CUT * per_s, rel=0.15)


def test_refused_requests_are_not_measured() -> None:
    """Of twenty per second half are refused: ten are what the server lets in."""
    rate = LearnedRate()
    send(rate, 20)
    for n in range(200):
        rate.note_refused(n / 10)
    assert rate.cut(20.0, reopens_at_s=21.0, is_slow=False) == pytest.approx(7, rel=0.1)


def test_refusal_of_everything_leaves_a_slow_rate() -> None:
    """With nothing let in there is nothing to measure; the lane goes on singly."""
    rate = LearnedRate()
    for n in range(8):
        rate.note_sent(0.0)
        rate.note_refused(0.0)
        rate.note_refused(n - 99.0)
    assert rate.cut(0.1, reopens_at_s=1.1, is_slow=False) == pytest.approx(CUT * FIRST_PER_S)


def test_rate_comes_back_stays_and_then_asks_for_more() -> None:
    """Back at what was refused within `REGAIN_S`, a plateau there, growth beyond."""
    rate = make_cut()
    found = []
    for n in range(300):
        now_s = 21 + n / 10
        rate.note_sent(now_s)
        if n % 50 == 0:
            found.append(rate.rate_per_s(now_s))
    send(rate, 20, begin_s=51, end_s=60)
    found.append(rate.rate_per_s(21 + 3 * REGAIN_S))
    assert found == pytest.approx([7, 9.6, 10, 10.4, 13, 20.1, 34], rel=0.05)


def test_rate_stays_below_twice_what_leaves() -> None:
    """A lane that sends little does not earn the right to send much."""
    rate = make_cut()
    send(rate, 4, begin_s=21, end_s=120)
    assert rate.rate_per_s(120) == pytest.approx(8, rel=0.1)


def test_rate_holds_after_a_long_silence() -> None:
    """With nothing sent for minutes the rate is still what it was cut to, not nothing."""
    assert make_cut().rate_per_s(600) == pytest.approx(7, rel=0.05)


def test_rate_never_falls_below_its_floor() -> None:
    """Cut after cut, one request per minute may leave."""
    rate = LearnedRate()
    for n in range(60):
        rate.note_sent(n * 100.0)
        rate.cut(n * 100.0 + 1, reopens_at_s=n * 100.0 + 2, is_slow=False)
    assert rate.rate_per_s(5902) == pytest.approx(CUT * MIN_PER_S)


def test_held_rate_begins_again_uncut() -> None:
    """A refusal of all that left says nothing about the rate: it is not cut again, but begins again."""
    rate = make_cut()
    rate.hold(40.0)
    assert rate.rate_per_s(40) == pytest.approx(7, rel=0.05)


def test_slow_rate_doubles_in_its_time() -> None:
    """After `slow_down` growth has its own speed, and each further one halves it."""
    rate = make_cut(is_slow=True)
    send(rate, 10, begin_s=21, end_s=21 + SLOW_DOUBLING_S)
    assert rate.rate_per_s(21 + SLOW_DOUBLING_S) == pytest.approx(14, rel=0.1)
    rate.cut(81.0, reopens_at_s=82.0, is_slow=True)
    send(rate, 10, begin_s=82, end_s=82 + SLOW_DOUBLING_S)
    assert rate.rate_per_s(82 + SLOW_DOUBLING_S) == pytest.approx(7 * 2**0.5, rel=0.1)
