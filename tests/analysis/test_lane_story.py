"""Why a run was slow, in words."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalrun.analysis.lane_story import LaneStory, tell_lane, tell_lanes


def make_lane(**facts: Any) -> dict[str, Any]:
    """Return a lane as run.json holds it."""
    plain = {"endpoint": "gateway", "model": "gpt-5.1", "retries": 0, "rate_limited": 0, "stopped_by": None}
    return {**plain, "waited_s": {}, "history": [], **facts}


def tell(**facts: Any) -> str:
    """Return the sentence on a lane of a run of 100 seconds."""
    return tell_lane(make_lane(**facts), wall_s=100.0).sentence


def note(what: str, value: Any = None, at_s: float = 0.0) -> dict[str, Any]:
    """Return an entry of a lane's history."""
    return {"at_s": at_s, "what": what, "value": value}


def test_story_of_a_slow_lane() -> None:
    """Waits come longest first with the limit and its source, then 429s, retries, outages, and what would help."""
    lane = make_lane(
        retries=14,
        rate_limited=3,
        waited_s={"retry_after": 4.0, "tokens_per_minute": 61.2, "outage": 12.4},
        history=[note("tokens_per_minute", 50_000), note("retry_after", 4), note("tokens_per_minute", 90_000, 3.5)],
    )
    assert tell_lanes({"wall_s": 100.0, "lanes": [lane]}) == (
        LaneStory(
            endpoint="gateway",
            model="gpt-5.1",
            sentence=(
                "61 % of the time waiting for tokens per minute (limit 90,000 from headers), 12 % with the endpoint "
                "not answering, 4 % pausing as the server asked; 3 × 429; 14 retries; outage 12 s"
            ),
            advice="a smaller `max_completion_tokens`, or a higher limit at the provider, would make this lane faster",
            waited_share={"tokens_per_minute": 0.612, "outage": 0.124, "retry_after": 0.04},
        ),
    )


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("retry_after", "50 % of the time pausing as the server asked"),
        ("requests_per_minute", "50 % of the time waiting for requests per minute"),
        ("learned_rate", "50 % of the time waiting at the send rate learned from 429s"),
        ("concurrency", "50 % of the time with every slot in use"),
        ("ramp", "50 % of the time at an in-flight limit that 429s had cut"),
        ("retry_budget", "50 % of the time waiting with retries, which may be a fifth of the requests"),
        ("back_off", "50 % of the time with nothing to send but rows in back-off"),
        ("budget", "50 % of the time waiting for room in the run's budget"),
        ("new_reason", "50 % of the time waiting (new reason)"),
    ],
)
def test_each_reason_has_its_words(reason: str, words: str) -> None:
    """A reason that this version does not know is told by its name."""
    assert tell(waited_s={reason: 50}) == words


def test_short_waits_are_not_told() -> None:
    """A lane that waited for less than one per cent of the time was not held back."""
    assert tell(waited_s={"retry_after": 0.9}) == "hardly ever held back"
    assert tell() == "hardly ever held back"


def test_lane_without_history_says_so() -> None:
    """A run of an earlier version is told by its counters alone, with no guess."""
    lane = {"endpoint": "e", "model": "m", "retries": 1, "rate_limited": 1200}
    story = tell_lane(lane, wall_s=None)
    assert story.sentence == "no history of its waits was kept; 1,200 × 429; 1 retry"
    assert (story.advice, story.waited_share) == (None, {})


def test_outages_are_counted_and_last() -> None:
    """Several outages are told together with the time they took."""
    history = [note("outage", at_s=1.0), note("outage_over", at_s=2.0), note("outage", at_s=50.0)]
    told = tell(waited_s={"outage": 75}, history=history)
    assert told == "75 % of the time with the endpoint not answering; 2 outages, 1 min 15 s"
    assert tell(waited_s={"outage": 0.2}, history=history[:1]) == "hardly ever held back; outage under 1 s"
    assert tell(waited_s={"outage": 3700}).endswith("; outage 1 h 01 min")
    assert tell(waited_s={"outage": 0}, history=history) == "hardly ever held back"


def test_burst_of_a_few_milliseconds_is_no_outage() -> None:
    """Nobody waited for it, not even where the whole run was as short."""
    lane = make_lane(waited_s={"outage": 0.007}, history=[note("outage")], wall_s=0.02)
    assert tell_lane(lane, wall_s=None).sentence == "hardly ever held back"


@pytest.mark.parametrize("wall_s", [0.0, 4.0])
def test_lane_that_waited_for_an_outage_all_the_time_says_so(wall_s: float) -> None:
    """Its last outcome, or none, came before the wait: that was its time, and what would help is told."""
    story = tell_lane(make_lane(waited_s={"outage": 60.0}, wall_s=wall_s, asked=0), wall_s=61.0)
    assert story.sentence == "100 % of the time with the endpoint not answering; outage 1 min 00 s"
    assert str(story.advice).startswith("see why the endpoint did not answer")


def test_shares_never_add_up_to_more_than_the_whole() -> None:
    """A lane that waits after its last outcome is measured by a time that holds its waits."""
    story = tell_lane(make_lane(waited_s={"outage": 60.0, "retry_after": 43.0}, wall_s=100.0), wall_s=104.0)
    assert sum(story.waited_share.values()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({}, "asked nothing"),
        ({"stopped_by": "budget"}, "asked nothing; ended with the run's budget"),
        ({"stopped_by": "auth"}, "no row came to its end; stopped by auth"),
        ({"retries": 2}, "no row came to its end; 2 retries"),
    ],
)
def test_lane_without_an_outcome_is_not_taken_for_a_fast_one(facts: dict[str, Any], words: str) -> None:
    """A lane whose rows were all there already sent nothing; one that was stopped at once was not free either."""
    assert tell(asked=0, concurrency=8, **facts) == words


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"history": [note("requests_per_minute", 12.5)]}, " (limit 12.5 from headers)"),
        (
            {"history": [note("requests_per_minute", 600), note("requests_per_minute", 123.4)]},
            " (limit 123 from headers)",
        ),
        ({"history": [note("requests_per_minute")]}, ""),
        ({"history": [note("tokens_per_minute", 600)]}, ""),
        ({"limits": {"requests_per_minute": 600, "tokens_per_minute": 5}}, " (limit 600 from the job)"),
        ({"limits": {"requests_per_minute": None}}, ""),
        ({}, ""),
    ],
)
def test_limit_is_told_with_its_source(facts: dict[str, Any], words: str) -> None:
    """The job's limit is named, else the newest that headers told; what was not kept is left out."""
    story = tell(waited_s={"requests_per_minute": 50}, **facts)
    assert story == f"50 % of the time waiting for requests per minute{words}"


def test_learned_rate_is_told_with_its_last_cut() -> None:
    """A rate that 429s taught is where the newest cut put it."""
    history = [note("learned_rate", 900.0), note("pause", 1.0), note("learned_rate", 430.4)]
    assert tell(waited_s={"learned_rate": 50}, history=history) == (
        "50 % of the time waiting at the send rate learned from 429s (last cut to 430 a minute)"
    )


def test_way_of_counting_tokens_is_told() -> None:
    """A server that counts what a request may use makes short limits on the output worth while: it is said."""
    assert tell(history=[note("counts_as_asked", 1)]) == (
        "hardly ever held back; the server counts the tokens that a request may use, not those that it uses"
    )


def test_stopped_lane_says_why() -> None:
    """What stopped the lane ends its story, in the words that the run had for it."""
    assert tell(stopped_by="auth", stop_message="check the key in KEY").endswith(
        "; stopped by auth: check the key in KEY"
    )
    assert tell(stopped_by="auth").endswith("; stopped by auth")


def test_advice_is_for_the_longest_wait_that_can_be_helped() -> None:
    """Waits under a quarter of the time get none; one that nobody can change leaves the word to the next."""
    assert tell_lane(make_lane(waited_s={"concurrency": 24}), wall_s=100.0).advice is None
    story = tell_lane(make_lane(waited_s={"back_off": 40, "concurrency": 30}), wall_s=100.0)
    assert str(story.advice).startswith("a higher `concurrency`")


def test_lane_goes_by_its_own_time() -> None:
    """A lane that ended before the run did is measured by its own duration, and no share passes the whole."""
    lane = make_lane(waited_s={"concurrency": 30}, wall_s=40.0)
    assert tell_lane(lane, wall_s=100.0).waited_share == {"concurrency": 0.75}
    assert tell_lane(make_lane(waited_s={"concurrency": 300}), wall_s=100.0).waited_share == {"concurrency": 1.0}


def test_run_without_lanes_has_no_story() -> None:
    """A run in which nothing was asked tells nothing."""
    assert tell_lanes({}) == tell_lanes({"lanes": None}) == tell_lanes({"lanes": ["x"]}) == ()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(
    ["waited_s", "history", "limits", "retries", "rate_limited", "stopped_by", "stop_message", "wall_s"]
)


@given(JSON, st.dictionaries(NAMES, JSON | st.dictionaries(st.sampled_from(["outage", "ramp"]), JSON)))
def test_any_manifest_has_a_story(wall_s: Any, facts: dict[str, Any]) -> None:
    """A run.json that somebody changed by hand never fails, and no share leaves 0..1."""
    (story,) = tell_lanes({"wall_s": wall_s, "lanes": [make_lane(**facts)]})
    assert story.sentence
    assert all(0 <= share <= 1 for share in story.waited_share.values())


def test_lane_that_waited_for_nothing_names_its_concurrency() -> None:
    """Who was never held back was as fast as the replies, so many at a time."""
    assert tell(concurrency=16) == "hardly ever held back: its time is that of the replies, at most 16 at once"


def test_lane_that_the_budget_ended_leaves_the_limit_to_the_run() -> None:
    """All lanes of a run end with its budget: the limit is told once, not by each of them."""
    told = tell(stopped_by="budget", stop_message="budget: 4 of 4 requests spent")
    assert told == "hardly ever held back; ended with the run's budget"
