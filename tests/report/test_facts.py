"""The run strip says what was run, and what must be known before trusting it."""

from dataclasses import replace

from evalrun.report.facts import build_facts
from evalrun.report.model import ReportData, build_report_row
from tests.report.fake_run import make_data, make_result, make_run


def read_tiles(data: ReportData) -> dict[str, str]:
    """Return the tiles as one text each."""
    return {fact.name: f"{fact.value} | {fact.note}" for fact in build_facts(data).tiles}


def test_tiles_say_what_the_run_took() -> None:
    """Samples, rows, requests, errors, tokens, spend and time are told with what they mean."""
    tiles = read_tiles(make_run(n_samples=60))
    assert tiles["Samples"] == "60 | 6 categories"
    assert tiles["Rows"] == "360 | 2 prompts × 3 models"
    assert "retries" in tiles["Requests"]
    assert tiles["Wall time"] == "2 min 05 s | estimated 1 min 00 s to 5 min 00 s"
    assert " | estimated $" in tiles["Spend"]


def test_unknown_spend_is_said() -> None:
    """An unknown cost is a word and a count of rows, never a zero."""
    tiles = read_tiles(make_run(n_samples=12, has_prices=False))
    assert tiles["Spend"].startswith("unknown | + ")
    assert "rows of unknown cost" in tiles["Spend"]


def test_facts_of_an_empty_manifest_are_unknown() -> None:
    """A manifest that lacks everything still gives a strip."""
    tiles = read_tiles(make_data([], manifest={}))
    assert tiles["Requests"] == "unknown | "
    assert tiles["Spend"] == "unknown | "
    assert build_facts(make_data([], manifest={})).run_id == "unknown"


def test_repeats_are_told_in_the_grid() -> None:
    """A repeated run says how often each row was asked."""
    rows = [build_report_row(make_result(repeat=repeat), []) for repeat in range(3)]
    assert read_tiles(make_data(rows))["Rows"] == "3 | 1 prompt × 1 model × 3 repeats"


def test_warnings_count_what_may_mislead() -> None:
    """Cut, empty, filtered, refused, ungraded and pending rows are each counted in a warning."""
    statuses = ("truncated", "empty", "filtered", "refused", "pending", "pending")
    rows = [build_report_row(make_result(sample_id=str(i), status=s, passed=None), []) for i, s in enumerate(statuses)]
    data = make_data(rows)
    warnings = " ".join(build_facts(replace(data, manifest=dict(data.manifest) | {"warnings": []})).warnings)
    for part in (
        "2 rows are pending; “evalrun run configs/support.yaml --resume 20261122-153045-a1b2c3” goes on.",
        "1 answer was cut off",
        "1 answer was empty",
        "1 answer is a refusal",
        "1 row was stopped by a content filter",
        "3 answers could not be graded",
    ):
        assert part in warnings


def test_warnings_name_the_model_that_answered() -> None:
    """A reply under another name than was asked for is told with that name."""
    row = build_report_row(make_result(flags='["model_mismatch"]', response_model="gpt-5.1-2026"), [])
    assert "1 reply of gpt-5.1 came under another name: “gpt-5.1-2026”." in build_facts(make_data([row])).warnings


def test_warnings_tell_stopped_lanes() -> None:
    """A lane that was stopped is named with its code."""
    data = make_run(n_samples=6)
    lane = {"endpoint": "gateway", "model": "gpt-5.1", "stopped_by": "quota", "stop_message": "pay"}
    told = build_facts(replace(data, manifest=dict(data.manifest) | {"lanes": [lane, {"model": "x"}]})).warnings
    assert "The lane of gpt-5.1 at gateway was stopped by “quota”: pay" in told


def test_prices_are_those_of_the_run() -> None:
    """The price table has the columns that any price names, and says which models have none."""
    data = make_run(n_samples=6)
    prices = {"a": {"input": "1.25", "output": "10.0", "tiers": []}, "b": None}
    facts = build_facts(replace(data, manifest=dict(data.manifest) | {"prices": prices}))
    assert facts.price_columns == ("input", "output")
    assert [(price.model, price.rates) for price in facts.prices] == [("a", ("1.25", "10.0")), ("b", ("", ""))]


def test_requests_sent_again_after_a_crash_are_told_apart_from_retries() -> None:
    """What was in flight when a call was killed is no retry, may have been billed, and is said wherever it counts."""
    data = make_run(n_samples=6)
    totals = {"requests": 36, "attempts": 73}
    manifest = {**data.manifest, "totals": totals, "n_calls": 3, "asked_again_after_doubt": 16, "in_doubt": 1}
    crashed = replace(data, manifest=manifest)
    facts = build_facts(crashed)
    assert read_tiles(crashed)["Requests"] == "36 | 73 attempts, 21 retries, 16 sent once more after a crash"
    about = {fact.name: fact.value for fact in facts.details}
    assert about["Calls"] == "3"
    assert about["Sent once more after a crash"] == "16 requests, their first cost unknown"
    told = " ".join(facts.warnings)
    assert "16 requests were in flight when the run broke off and were sent once more; they may have been" in told
    assert "1 request was in flight when the run ended and has no outcome; it may have been billed" in told


def test_run_that_was_never_killed_says_nothing_of_it() -> None:
    """A run of one call has no words for crashes."""
    data = make_run(n_samples=6)
    facts = build_facts(replace(data, manifest={**data.manifest, "n_calls": 1, "asked_again_after_doubt": 0}))
    assert not [warning for warning in facts.warnings if "in flight" in warning]
    assert not {"Calls", "Sent once more after a crash"} & {fact.name for fact in facts.details}


def test_wall_time_is_that_of_all_calls() -> None:
    """The time stands beside the rows of all calls; where a killed one left no word it is a lower bound."""
    data = make_run(n_samples=6)
    manifest = {**data.manifest, "n_calls": 2, "earlier_calls": [{"wall_s": 60.0}]}
    assert read_tiles(replace(data, manifest=manifest))["Wall time"].startswith("3 min 05 s | 2 calls, estimated")
    manifest["earlier_calls"] = [{"wall_s": None}]
    tile = read_tiles(replace(data, manifest=manifest))["Wall time"]
    assert tile.startswith("≥ 2 min 05 s | 2 calls, 1 of unknown time, estimated")


def test_no_error_is_no_alarm() -> None:
    """Pending rows have a warning of their own; a count of 0 errors is not shown as one."""
    rows = [build_report_row(make_result(status="pending", passed=None), [])]
    (tile,) = [fact for fact in build_facts(make_data(rows)).tiles if fact.name == "Errors"]
    assert (tile.value, tile.is_alarming) == ("0", False)


def test_spend_stands_beside_what_was_estimated_of_the_call() -> None:
    """Low, expected and high of the rows that the last call asked, and what they took; unknown costs are said."""
    data = make_run(n_samples=6)
    call = {
        "n_rows": 12,
        "usd": {"low": 1.0, "expected": 2.0, "high": None},
        "took": {"usd": 1.5, "usd_unknown": 3},
    }
    manifest = {**data.manifest, "estimate": {"call": call}}
    told = "estimated $1.00 – $2.00 – unknown, took $1.50 + unknown"
    assert told in read_tiles(replace(data, manifest=manifest))["Spend"]
    assert f"last call {told}" in read_tiles(replace(data, manifest={**manifest, "n_calls": 2}))["Spend"]
