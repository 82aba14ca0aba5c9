"""Lanes in run.json: what dispatch left, in the form in which their story is told."""

from pathlib import Path
from typing import Any

import pytest

from evalrun.analysis.lane_story import tell_lane
from evalrun.lane_facts import (
    MAX_EARLIER_CALLS,
    MAX_EARLIER_NOTES,
    LaneLimits,
    describe_lane,
    find_own_limits,
    load_earlier_calls,
)
from evalrun.lane_progress import LaneProgress
from evalrun.options import EndpointOptions, ModelOptions
from evalrun.store.folder import RunFolder
from evalrun.store.manifest import write_manifest
from tests.store.fake_records import make_folder, make_manifest

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
        "61 % of the time waiting for tokens per minute (limit 90,000 from the job), 12 % with the endpoint "
        "not answering; 2 × 429; outage 12 s"
    )


def test_lane_without_limits_has_none() -> None:
    """A limit that nobody gave is left out, not 0."""
    lane = LaneProgress(endpoint="gateway", model="a", total=0)
    facts = describe_lane(lane, EndpointOptions(base_url="https://x.test/v1"), LaneLimits(None, None))
    assert (facts["limits"], facts["wall_s"], facts["waited_s"]) == ({}, None, {})


def make_sessions(n: int) -> list[dict[str, Any]]:
    """Return the journal's sessions of so many calls."""
    return [{"started_at": f"call {number}"} for number in range(1, n + 1)]


def write_call(folder: RunFolder, n_calls: int, **facts: Any) -> None:
    """Write run.json as the end of a call does."""
    plain = {"n_calls": n_calls, "wall_s": 60.0, "budget": None, "lanes": [{"model": f"of call {n_calls}"}]}
    write_manifest(folder, make_manifest(**{**plain, **facts}))


def test_first_call_has_none_before_it(tmp_path: Path) -> None:
    """A run that was never resumed has no run.json to carry on."""
    assert load_earlier_calls(make_folder(tmp_path), make_sessions(1)) == []


def test_earlier_calls_are_carried_on_and_dead_ones_named(tmp_path: Path) -> None:
    """Calls 2 and 4 died: nothing is known of them but when they began; what the others told is kept over and over."""
    folder = make_folder(tmp_path)
    write_call(folder, 1, budget={"ended_by": "all spent"})
    write_call(folder, 3, earlier_calls=load_earlier_calls(folder, make_sessions(3)))
    calls = load_earlier_calls(folder, make_sessions(5))
    assert calls == [
        {
            "call": 1,
            "started_at": "call 1",
            "wall_s": 60.0,
            "ended_by": "all spent",
            "lanes": [{"model": "of call 1"}],
        },
        {"call": 2, "started_at": "call 2", "wall_s": None, "ended_by": None, "lanes": None},
        {"call": 3, "started_at": "call 3", "wall_s": 60.0, "ended_by": None, "lanes": [{"model": "of call 3"}]},
        {"call": 4, "started_at": "call 4", "wall_s": None, "ended_by": None, "lanes": None},
    ]


def test_earlier_calls_stay_small(tmp_path: Path) -> None:
    """Only the newest calls are told of, and of their histories the newest notes, with a count of the others."""
    folder = make_folder(tmp_path)
    notes = [{"at_s": float(n), "what": "retry_after", "value": 1.0} for n in range(500)]
    write_call(folder, 250, lanes=[{"model": "a", "history": notes}])
    calls = load_earlier_calls(folder, make_sessions(251))
    (lane,) = calls[-1]["lanes"]
    assert (len(calls), calls[-1]["call"]) == (MAX_EARLIER_CALLS, 250)
    assert len(lane["history"]) == MAX_EARLIER_NOTES
    assert lane["history"][0] == {"at_s": 437.0, "what": "forgotten", "value": 437}
    assert lane["history"][-1] == notes[-1]


def test_run_json_of_older_versions_is_carried_on(tmp_path: Path) -> None:
    """It holds the lanes of the last call only, and no word of the calls before."""
    folder = make_folder(tmp_path)
    write_manifest(folder, make_manifest(n_calls=2, wall_s=60.0, lanes=[{"model": "a"}]))
    first, second = load_earlier_calls(folder, make_sessions(3))
    assert (first["lanes"], second["lanes"]) == (None, [{"model": "a"}])


@pytest.mark.parametrize(
    "facts",
    [
        None,
        {"earlier_calls": 1, "lanes": "x", "n_calls": []},
        {"earlier_calls": ["x", {"call": {}}], "lanes": None, "n_calls": None, "budget": "x"},
    ],
)
def test_run_json_that_somebody_has_spoilt_ends_no_run(tmp_path: Path, facts: dict[str, Any] | None) -> None:
    """What earlier calls told is lost then; that they were is not."""
    folder = make_folder(tmp_path)
    if facts is None:
        folder.manifest_path.write_text("{", encoding="utf-8")
    else:
        write_manifest(folder, make_manifest(**facts))
    assert load_earlier_calls(folder, make_sessions(2)) == [
        {"call": 1, "started_at": "call 1", "wall_s": None, "ended_by": None, "lanes": None}
    ]
