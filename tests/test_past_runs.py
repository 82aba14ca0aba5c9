"""What a run tells of the next one, read from its run.json alone."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalrun.job.ranges import Seen
from evalrun.past_runs import parse_history
from evalrun.plan_power import ASSUMED_DISCORDANCE, estimate_power

JOB: dict[str, Any] = {
    "models": [{"name": "m", "model": "wire", "price": {"input": 1}}, "not a mapping"],
    "prompts": [{"name": "p", "user": "{{ question }}"}, {"name": "q", "user": "Say hello."}],
}
ARM: dict[str, Any] = {
    "model": "m",
    "prompt": "p",
    "rows": 40,
    "prompt_tokens": 110.0,
    "completion_tokens": 20.0,
    "completion_deviation": 5.0,
    "cached_tokens": 55.0,
    "cache_write_tokens": 0.0,
    "reasoning_tokens": 10.0,
}
SEEN = Seen(
    n_rows=40,
    prompt_ratio=1.1,
    completion_tokens=20.0,
    completion_deviation=5.0,
    cached_ratio=0.5,
    reasoning_ratio=0.5,
)


def make_manifest(**arm: Any) -> dict[str, Any]:
    """Return the parts of a run.json that tell of later runs, with one arm changed."""
    return {
        "run_id": "20261123-010203-abcdef",
        "job": JOB,
        "estimate": {"prompt_tokens_by_rule": {"m": {"p": 100.0, "q": 10.0}}},
        "observed": {"arms": [{**ARM, **arm}], "discordance": 0.1},
    }


def test_history_tells_what_was_seen_of_each_arm() -> None:
    """Means become ratios to what was estimated, cached and reasoning tokens shares of their side."""
    history = parse_history(make_manifest(), JOB)
    assert history is not None
    assert (history.run_id, dict(history.seen), history.discordance) == (
        "20261123-010203-abcdef",
        {("m", "p"): SEEN},
        0.1,
    )


@pytest.mark.parametrize(
    ("change", "is_known"),
    [
        ({}, True),
        ({"models": [{"name": "m", "model": "wire", "price": {"input": 9}}]}, True),
        ({"models": [{"name": "m", "model": "other wire"}]}, False),
        ({"prompts": [{"name": "p", "user": "Shorter: {{ question }}"}]}, False),
        ({"prompts": []}, False),
    ],
)
def test_history_tells_nothing_of_what_the_job_has_changed(change: dict[str, Any], is_known: bool) -> None:
    """An arm whose model or prompt is written differently now is unknown; another price changes no tokens."""
    assert (parse_history(make_manifest(), {**JOB, **change}) is not None) == is_known


@pytest.mark.parametrize(
    "arm",
    [
        {"rows": 4},
        {"rows": None},
        {"prompt_tokens": 0},
        {"prompt_tokens": "many"},
        {"completion_tokens": -1},
        {"completion_deviation": float("nan")},
        {"completion_deviation": True},
        {"model": "another"},
    ],
)
def test_history_passes_over_what_it_cannot_use(arm: dict[str, Any]) -> None:
    """Too few rows and figures that cannot be tell nothing, and are no error: somebody may have edited the file."""
    assert parse_history(make_manifest(**arm), JOB) is None


@given(
    observed=st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*ARM, "arms"]), inner, max_size=9),
        max_leaves=20,
    )
)
def test_history_survives_any_run_json(observed: Any) -> None:
    """Whatever stands where figures should, the plan goes on."""
    manifest = {**make_manifest(), "observed": {"arms": observed, "discordance": observed}}
    history = parse_history(manifest, JOB)
    assert history is None or all(seen.n_rows >= 5 for seen in history.seen.values())


def test_power_goes_by_the_earlier_run_where_it_tells() -> None:
    """The share of differing pairs is that of its best arms, else the assumed one; no sample shows nothing."""
    history = parse_history(make_manifest(), JOB)
    seen, assumed, none = estimate_power(1544, history), estimate_power(1544, None), estimate_power(0, None)
    assert (seen.discordance, seen.learned_from) == (0.1, "20261123-010203-abcdef")
    assert seen.detectable_drop == pytest.approx(0.02, abs=1e-4)
    assert (assumed.discordance, assumed.learned_from) == (ASSUMED_DISCORDANCE, None)
    assert none.detectable_drop is None
