"""A run of several calls: its lanes over all of them, and each call by itself."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from evalrun.analysis.call_story import add_up_lanes, tell_calls
from evalrun.analysis.lane_story import tell_lane


def make_lane(model: str = "a", **facts: Any) -> dict[str, Any]:
    """Return a lane as run.json holds it, with ten rows asked in fifty seconds."""
    plain = {"endpoint": "gate", "model": model, "asked": 10, "retries": 1, "rate_limited": 2, "wall_s": 50.0}
    return {**plain, "stopped_by": None, "stop_message": None, "waited_s": {}, "history": [], **facts}


def make_manifest(**facts: Any) -> dict[str, Any]:
    """Return the run.json of a run of three calls, of which the second one died."""
    first = [make_lane(waited_s={"outage": 10.0, "retry_after": 5}, stopped_by="quota", stop_message="pay")]
    return {
        "n_calls": 3,
        "call_started_at": "2026-11-22T03:00:00+00:00",
        "wall_s": 60.0,
        "budget": None,
        "lanes": [make_lane(waited_s={"retry_after": 20.0}), make_lane("b")],
        "earlier_calls": [
            {"call": 1, "started_at": "2026-11-22T01:00:00+00:00", "wall_s": 60.0, "ended_by": None, "lanes": first},
            {"call": 2, "started_at": "2026-11-22T02:00:00+00:00", "wall_s": None, "ended_by": None, "lanes": None},
        ],
        **facts,
    }


def test_lanes_are_added_up_over_calls() -> None:
    """Counts and seconds are sums; what stopped an earlier call and was mended is no longer the lane's state."""
    first, second = add_up_lanes(make_manifest())
    assert (first["asked"], first["retries"], first["rate_limited"], first["wall_s"]) == (20, 2, 4, 100.0)
    assert first["waited_s"] == {"outage": 10.0, "retry_after": 25.0}
    assert first["stopped_by"] is None
    assert (second["model"], second["asked"]) == ("b", 10)
    assert tell_lane(first, wall_s=None).sentence == (
        "25 % of the time pausing as the server asked, 10 % with the endpoint not answering; 4 × 429; 2 retries; "
        "outage 10 s"
    )


def test_newest_limit_of_all_calls_is_the_one_told() -> None:
    """What headers told in the last call goes before what they told earlier."""
    notes = [[{"at_s": 1.0, "what": "tokens_per_minute", "value": value}] for value in (50_000, 90_000)]
    waits = {"tokens_per_minute": 40.0}
    earlier = {"call": 1, "wall_s": 50.0, "lanes": [make_lane(history=notes[0], waited_s=waits)]}
    manifest = make_manifest(lanes=[make_lane(history=notes[1], waited_s=waits)], earlier_calls=[earlier], n_calls=2)
    (lane,) = add_up_lanes(manifest)
    assert tell_lane(lane, wall_s=None).sentence.startswith(
        "80 % of the time waiting for tokens per minute (limit 90,000 from headers)"
    )


def test_each_call_has_its_story() -> None:
    """The call that died is named, and nothing is said of its lanes; the last one is told like the others."""
    first, second, last = tell_calls(make_manifest())
    assert first.lanes is not None
    assert first.lanes[0].sentence.endswith("stopped by quota: pay")
    assert (second.number, second.started_at, second.lanes) == (2, "2026-11-22T02:00:00+00:00", None)
    assert last.lanes is not None
    assert [lane.model for lane in last.lanes] == ["a", "b"]
    assert (last.number, last.started_at, last.wall_s) == (3, "2026-11-22T03:00:00+00:00", 60.0)


def test_lane_without_anything_to_ask_has_no_story_in_its_call() -> None:
    """A resume that asks one model tells of that one."""
    manifest = make_manifest(lanes=[make_lane(asked=0), make_lane("b")])
    assert [lane.model for lane in tell_calls(manifest)[-1].lanes or ()] == ["b"]


def test_budget_ends_a_call_only_if_it_stopped_a_lane() -> None:
    """A limit that was reached with the last row has left nothing over."""
    budget = {"ended_by": "budget: 10 of 10 requests spent"}
    ended = make_manifest(budget=budget, lanes=[make_lane(stopped_by="budget")])
    assert tell_calls(ended)[-1].ended_by == "budget: 10 of 10 requests spent"
    assert tell_calls(make_manifest(budget=budget))[-1].ended_by is None


def test_run_json_of_older_versions_is_one_call() -> None:
    """Without `earlier_calls` only the last call is known, and the sum is that call's."""
    manifest = {"n_calls": 4, "wall_s": 60.0, "lanes": [make_lane()]}
    (call,) = tell_calls(manifest)
    assert (call.number, call.started_at) == (4, None)
    assert add_up_lanes(manifest) == (make_lane(),)


KEYS = ["call", "lanes", "waited_s", "history", "asked", "wall_s", "model", "x"]
JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["call", "lanes", "waited_s", "history", "asked", "wall_s", "model", "x"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(
    manifest=st.fixed_dictionaries(
        {}, optional=dict.fromkeys(("earlier_calls", "lanes", "budget", "n_calls", "wall_s", "call_started_at"), JSON)
    )
)
def test_any_manifest_has_calls(manifest: dict[str, Any]) -> None:
    """Whatever stands in run.json, it is told or left out, never an error."""
    assert tell_calls(manifest)
    for lane in add_up_lanes(manifest):
        tell_lane(lane, wall_s=None)
