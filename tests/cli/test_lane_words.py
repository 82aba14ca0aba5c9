"""Words for a lane: how long it waits, until when and for what; how fast it is; what was spent of how much."""

import re
from decimal import Decimal

import pytest

from evalrun.cli.lane_words import (
    RATE_WINDOW_S,
    RateMeter,
    describe_flight,
    describe_limits,
    describe_rate,
    describe_spend,
    describe_stops,
    describe_wait,
)
from evalrun.dispatch.budget import Reservation, RunBudget, Spent
from evalrun.dispatch.stops import RESUME_HINT
from evalrun.lane_progress import LaneProgress


def make_lane(**facts: object) -> LaneProgress:
    """Return a lane of which some things are known."""
    lane = LaneProgress(endpoint="demo", model="sim", total=200)
    for name, value in facts.items():
        setattr(lane, name, value)
    return lane


def make_budget(**limits: float | Decimal) -> RunBudget:
    """Return a budget of which one request has taken USD 0.25 and 30 tokens."""
    given = {"usd": None, "tokens": None, "requests": None, "wall_s": None, **limits}
    budget = RunBudget(*given.values(), started_s=100.0)  # type: ignore[arg-type]
    reservation = Reservation(Decimal("0.5"), 50)
    assert budget.reserve(reservation, 100.0)
    budget.note_request()
    budget.settle(reservation, Spent(Decimal("0.25"), 30))
    return budget


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("retry_after", "asked by the server"),
        ("requests_per_minute", "requests per minute"),
        ("tokens_per_minute", "tokens per minute"),
        ("learned_rate", "rate learned from 429s"),
        ("outage", "the endpoint does not answer"),
        ("retry_budget", "too many retries"),
        ("budget", "room in the budget"),
        ("something_new", "something new"),
    ],
)
def test_wait_says_how_long_until_when_and_for_what(reason: str, words: str) -> None:
    """The local time tells whoever comes back later."""
    text = describe_wait(make_lane(waiting_until_s=130.0, waiting_for=reason), 100.0)
    assert text is not None
    assert re.fullmatch(rf"waits 30\.0 s until \d\d:\d\d:\d\d \({words}\)", text)


def test_wait_without_a_reason_is_told_by_what_came_before() -> None:
    """429s make it a rate limit; without any the endpoint does not answer."""
    assert str(describe_wait(make_lane(waiting_until_s=9.0, rate_limited=1), 0.0)).endswith("(rate limit)")
    assert str(describe_wait(make_lane(waiting_until_s=9.0), 0.0)).endswith("(the endpoint does not answer)")


def test_short_wait_is_the_pace_of_the_lane() -> None:
    """Between two requests of a paced lane nothing flickers; a probe's pause is told all the same."""
    lane = make_lane(waiting_until_s=100.1, waiting_for="requests_per_minute")
    assert describe_wait(lane, 100.0) == "paced (requests per minute)"
    lane.state, lane.waiting_for = "probing", "outage"
    assert str(describe_wait(lane, 100.0)).startswith("waits 100 ms until")


def test_lane_that_is_open_or_stopped_does_not_wait() -> None:
    """A wait that is over, and one of a lane that sends nothing any more, is none."""
    assert describe_wait(make_lane(waiting_until_s=100.0, waiting_for="outage"), 100.0) is None
    assert describe_wait(make_lane(waiting_until_s=130.0, stopped_by="quota"), 100.0) is None


def test_flight_is_shown_with_its_limit_once_there_is_one() -> None:
    """The limit grows and shrinks; before the first request there is none."""
    assert describe_flight(make_lane(in_flight=3, limit=8)) == "3/8 in flight"
    assert describe_flight(make_lane(in_flight=0)) == "0 in flight"


def test_rate_is_that_of_the_last_seconds() -> None:
    """What was fast a minute ago does not flatter a lane that stands still."""
    meter, lane = RateMeter(), make_lane()
    assert meter.read(lane) is None
    meter.note(lane, 0.0)
    assert meter.read(lane) is None
    lane.acknowledged = 50
    meter.note(lane, 5.0)
    assert meter.read(lane) == 10.0
    meter.note(lane, 5.0 + RATE_WINDOW_S)
    assert meter.read(lane) == 0.0


@pytest.mark.parametrize(("rate", "words"), [(None, "–/s"), (0.0, "0.0/s"), (12.34, "12.3/s"), (1234.5, "1,234/s")])
def test_rate_is_written_with_as_many_digits_as_tell_something(rate: float | None, words: str) -> None:
    """Unknown is a dash, never 0."""
    assert describe_rate(rate) == words


def test_spend_is_shown_against_the_budget() -> None:
    """With a limit in USD the run's own count stands beside it; otherwise what this call knows of."""
    assert describe_spend(0.5, has_unknown=True) == "$0.5000 + unknown spent"
    assert describe_spend(0.1, has_unknown=False, budget=make_budget(tokens=100)) == "$0.1000 spent"
    budget = make_budget(usd=Decimal(1))
    assert describe_spend(0.1, has_unknown=False, budget=budget) == "$0.2500 of $1.0000 spent"


def test_other_limits_are_shown_where_they_are_set() -> None:
    """Tokens, requests, time: only those that the job limits."""
    assert describe_limits(None, 0.0) == []
    assert describe_limits(make_budget(usd=Decimal(1)), 0.0) == []
    budget = make_budget(tokens=1000, requests=7, wall_s=60)
    assert describe_limits(budget, 130.0) == [
        "30 of 1,000 tokens",
        "1 of 7 requests",
        "30.0 s of the budget's time left",
    ]
    assert describe_limits(make_budget(wall_s=60), 500.0) == ["0 ms of the budget's time left"]


def test_lanes_that_stop_for_one_reason_are_told_together() -> None:
    """Each reason is one line, and the command that goes on stands where the lane could not know it."""
    told = [("a", f"mend the key, then {RESUME_HINT}"), ("b", "other"), ("c", f"mend the key, then {RESUME_HINT}")]
    assert describe_stops(told, command="`evalrun run j.yaml --resume r`") == [
        "a, c stopped: mend the key, then `evalrun run j.yaml --resume r` goes on from here",
        "b stopped: other",
    ]
