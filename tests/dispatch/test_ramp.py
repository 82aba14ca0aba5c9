"""The limit of requests in flight: when it grows, and when it is cut."""

from hypothesis import given
from hypothesis import strategies as st

from evalrun.dispatch.ramp import COOL_DOWN_S, OVERLOAD_PAUSE_S, Ramp


def answer(ramp: Ramp, n: int, *, now_s: float = 100.0) -> None:
    """Let answers come while every slot is used."""
    for _ in range(n):
        ramp.note_answer(ramp.limit, now_s)


def make_ramp(limit: int, hard_cap: int = 1000) -> Ramp:
    """Return a ramp that has never been refused."""
    return Ramp(hard_cap, start=limit)


def test_limit_starts_small_and_below_the_cap() -> None:
    """Few requests leave at first, never more than the cap allows."""
    assert [Ramp(100).limit, Ramp(3).limit, Ramp(1).limit, Ramp(100, start=0).limit] == [8, 3, 1, 1]


def test_limit_grows_fourfold_in_a_round_of_answers() -> None:
    """Until the first refusal each round of answers makes the limit four times as large, up to the cap."""
    ramp = make_ramp(8, hard_cap=400)
    limits = []
    for _ in range(4):
        answer(ramp, ramp.limit)
        limits.append(ramp.limit)
    assert limits == [32, 128, 400, 400]


def test_limit_grows_only_when_it_is_used() -> None:
    """Four fifths of the slots must be in use; else a larger limit would be no finding."""
    ramp = make_ramp(10)
    ramp.note_answer(7, 0)
    assert ramp.limit == 10
    ramp.note_answer(8, 0)
    assert ramp.limit == 13


def test_refusal_cuts_once_per_episode() -> None:
    """Refusals that come together cut the limit once; one that comes later cuts it again."""
    ramp = make_ramp(100)
    for late_s in (0.0, 0.1, COOL_DOWN_S - 0.1):
        ramp.note_throttled(10 + late_s)
    assert ramp.limit == 70
    ramp.note_throttled(10 + COOL_DOWN_S)
    assert ramp.limit == 49


def test_answers_during_the_cool_down_do_not_count() -> None:
    """What was answered just after a cut left before it."""
    ramp = make_ramp(100)
    ramp.note_throttled(10)
    answer(ramp, 50, now_s=10 + COOL_DOWN_S - 0.1)
    assert ramp.limit == 70
    answer(ramp, 5, now_s=10 + COOL_DOWN_S)
    assert ramp.limit == 75


def test_limit_grows_slowly_past_what_was_refused() -> None:
    """What was refused is regained fast; beyond, a round of answers adds a tenth, and 1 at least."""
    large, small = make_ramp(100), make_ramp(4)
    for ramp, n_regained in ((large, 30), (small, 2)):
        ramp.note_throttled(0)
        answer(ramp, n_regained)
    assert (large.limit, small.limit) == (100, 4)
    answer(large, 101)
    answer(small, 5)
    assert (large.limit, small.limit) == (110, 5)


def test_limit_never_falls_below_one() -> None:
    """However often it is refused, a lane may have one request in flight."""
    ramp = make_ramp(8)
    for n in range(50):
        ramp.note_throttled(n * COOL_DOWN_S)
    assert ramp.limit == 1


def test_overload_pauses_growth_and_cuts_nothing() -> None:
    """A single 5xx takes no slot away; the limit waits before it grows."""
    ramp = make_ramp(10)
    ramp.note_overload(50)
    answer(ramp, 10, now_s=50 + OVERLOAD_PAUSE_S - 0.1)
    assert ramp.limit == 10
    answer(ramp, 10, now_s=50 + OVERLOAD_PAUSE_S)
    assert ramp.limit == 40


def test_overload_that_lasts_pauses_growth_half_of_the_time() -> None:
    """Where a 5xx comes every second for ever, the limit still grows, every other while."""
    ramp = make_ramp(10)
    limits = []
    for second in range(40):
        ramp.note_overload(50.0 + second)
        answer(ramp, 1, now_s=50.5 + second)
        limits.append(ramp.limit)
    assert limits[9] == 10
    assert limits[19] == limits[29] == 40
    assert limits[39] == 70


@given(
    hard_cap=st.integers(1, 600),
    events=st.lists(st.tuples(st.sampled_from("ato"), st.floats(0, 4), st.integers(0, 600)), max_size=200),
)
def test_limit_stays_between_one_and_the_cap(hard_cap: int, events: list[tuple[str, float, int]]) -> None:
    """Whatever comes, at least one request may be in flight, and never more than the cap."""
    ramp, now_s = Ramp(hard_cap), 0.0
    for what, wait_s, in_flight in events:
        now_s += wait_s
        match what:
            case "a":
                ramp.note_answer(in_flight, now_s)
            case "t":
                ramp.note_throttled(now_s)
            case _:
                ramp.note_overload(now_s)
        assert 1 <= ramp.limit <= hard_cap


def test_refusals_that_have_nothing_to_do_with_us_leave_no_trace() -> None:
    """Once they are known to come at any rate, the slots are regained at once, as fast as at first."""
    ramp = make_ramp(40, hard_cap=400)
    ramp.note_throttled(0.0)
    cut = ramp.limit
    ramp.note_answer(cut, 0.1)
    assert ramp.limit == cut < 40
    ramp.forget_refusals()
    answer(ramp, cut, now_s=0.1)
    assert ramp.limit == 4 * cut
