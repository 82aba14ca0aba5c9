"""Lanes in run.json: what dispatch left, in the form in which their story is told."""

from evalrun.analysis.lane_story import tell_lane
from evalrun.lane_facts import LaneLimits, describe_lane, find_own_limits
from evalrun.options import EndpointOptions, ModelOptions
from evalrun.records import LaneProgress

ENDPOINT = EndpointOptions(base_url="https://x.test/v1", requests_per_minute=600, tokens_per_minute=90_000)


def test_own_limits_are_the_least_of_the_models_of_a_lane() -> None:
    """Models of one wire id share their lane, and so the strictest of their limits."""
    models = [
        ModelOptions(name="a", model="m", requests_per_minute=60),
        ModelOptions(name="b", model="m", requests_per_minute=30, tokens_per_minute=500),
        ModelOptions(name="c", model="m"),
    ]
    assert find_own_limits(models) == LaneLimits(30, 500)
    assert find_own_limits(models[2:]) == LaneLimits(None, None)


def test_lane_is_told_with_its_waits_and_limits() -> None:
    """What stands in run.json is what the words of `show --lanes` are made of."""
    lane = LaneProgress(endpoint="gateway", model="a", total=10)
    lane.done, lane.rate_limited, lane.wall_s = 10, 2, 100.00049
    lane.waited_s = {"tokens_per_minute": 61.0, "outage": 12.0}
    lane.history = [(0.51234, "tokens_per_minute", 90_000.0), (3.0, "outage", None)]
    facts = describe_lane(lane, ENDPOINT, LaneLimits(60, None))
    assert facts["limits"] == {"requests_per_minute": 60, "tokens_per_minute": 90_000}
    assert facts["history"] == [
        {"at_s": 0.512, "what": "tokens_per_minute", "value": 90_000.0},
        {"at_s": 3.0, "what": "outage", "value": None},
    ]
    assert (facts["asked"], facts["wall_s"]) == (10, 100.0)
    assert tell_lane(facts, wall_s=None).sentence == (
        "61 % of the time waiting for tokens per minute (limit 90,000 from the job); 2 × 429; outage 12 s"
    )


def test_lane_without_limits_has_none() -> None:
    """A limit that nobody gave is left out, not 0."""
    lane = LaneProgress(endpoint="gateway", model="a", total=0)
    facts = describe_lane(lane, EndpointOptions(base_url="https://x.test/v1"), LaneLimits(None, None))
    assert (facts["limits"], facts["wall_s"], facts["waited_s"]) == ({}, None, {})
