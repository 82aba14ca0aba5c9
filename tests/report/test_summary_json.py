"""summary.json: numbers as numbers, the unknown as null."""

import json
import math
from dataclasses import replace
from decimal import Decimal

from evalrun.report.summary_json import build_summary_json
from tests.report.fake_run import make_data, make_run
from tests.report.golden_files import check_golden


def test_summary_json_is_as_it_was() -> None:
    """The whole object of a small run equals the golden file."""
    text = json.dumps(build_summary_json(make_run(n_samples=12, seed=3)), ensure_ascii=False, indent=2, allow_nan=False)
    check_golden("summary.json", text + "\n")


def test_summary_json_has_its_keys() -> None:
    """Programs find what the contract promises."""
    assert list(build_summary_json(make_run(n_samples=6))) == [
        "schema_version", "simulated", "run", "headline", "arms", "best", "tests", "statuses", "errors", "verdict",
        "estimate",
    ]  # fmt: skip


def test_summary_json_writes_unknown_as_null() -> None:
    """An unknown cost is null, and so is a number that JSON cannot hold."""
    data = make_run(n_samples=6, has_prices=False)
    arm = replace(data.summary.arms[0], metrics={"m": math.nan})
    summary = build_summary_json(replace(data, summary=replace(data.summary, arms=(arm,))))
    assert summary["arms"][0]["usd_per_1k"] is None
    assert summary["arms"][0]["metrics"] == {"m": None}
    assert summary["run"]["totals"]["usd"] is None


def test_summary_json_writes_decimals_as_numbers() -> None:
    """Money that a manifest holds as text or decimal becomes a number."""
    manifest = {"totals": {"usd": "1.25", "requests": 3, "other": Decimal("0.5"), "odd": "x"}, "wall_s": 2}
    run = build_summary_json(make_data([], manifest=manifest))["run"]
    assert run["totals"] == {"usd": 1.25, "requests": 3, "other": 0.5, "odd": None}
    assert run["wall_s"] == 2.0


def test_summary_json_tells_of_all_calls_and_of_requests_sent_again() -> None:
    """Who reads JSON only learns how many requests may have been billed unseen, and what the calls took in all."""
    doubts = {"n_calls": 3, "in_doubt": 1, "asked_again_after_doubt": 16}
    manifest = {**doubts, "wall_s": 2, "earlier_calls": [{"wall_s": 3.0}, {"wall_s": None}]}
    run = build_summary_json(make_data([], manifest=manifest))["run"]
    assert {key: run[key] for key in doubts} == doubts
    assert (run["wall_s"], run["total_wall_s"], run["n_calls_of_unknown_time"]) == (2.0, 5.0, 1)
    assert build_summary_json(make_data([], manifest={}))["run"]["in_doubt"] is None


def test_summary_json_of_an_empty_run_is_whole() -> None:
    """A run without rows has every key."""
    summary = build_summary_json(make_data([], manifest={}))
    assert (summary["arms"], summary["best"], summary["tests"]) == ([], None, [])
    json.dumps(summary, allow_nan=False)


def test_summary_json_says_which_lanes_stopped_and_why() -> None:
    """Who reads JSON only learns the cause and the fix as well; a lane that went on is not listed."""
    told = {"endpoint": "gateway", "model": "a", "stopped_by": "quota", "stop_message": "add credit"}
    budget = {"requests": {"limit": 3, "spent": 3}, "ended_by": "budget: 3 of 3 requests spent"}
    manifest = {"lanes": [told, {**told, "model": "b", "stopped_by": None}], "budget": budget}
    run = build_summary_json(make_data([], manifest=manifest))["run"]
    assert run["stopped"] == [{"endpoint": "gateway", "model": "a", "code": "quota", "message": "add credit"}]
    assert run["budget"] == budget
