"""What a run's answers and attempts took, for the next estimate and beside this one."""

from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest

from evalrun.analysis.observed import add_up_attempts, observe_results
from evalrun.records import Summary

BEGAN = datetime(2026, 11, 23, 4, tzinfo=UTC)
NO_ARMS = Summary(arms=(), best=None, tests=(), headline="", statuses={}, errors={}, is_simulated=True)
ROW_SCHEMA = {
    "model": pl.String,
    "prompt": pl.String,
    "usage_source": pl.String,
    "prompt_tokens": pl.Int64,
    "cached_tokens": pl.Int64,
    "cache_write_tokens": pl.Int64,
    "completion_tokens": pl.Int64,
    "reasoning_tokens": pl.Int64,
}
ATTEMPT_SCHEMA: dict[str, Any] = {
    "started_at": pl.Datetime("ms", "UTC"),
    "prompt_tokens": pl.Int64,
    "completion_tokens": pl.Int64,
    "cost_usd": pl.Float64,
}


def observe(*rows: tuple[str, int | None, int | None, int | None]) -> list[dict[str, Any]]:
    """Return what is told of rows of one arm: source of the usage, prompt, cached and completion tokens."""
    table = [("m", "p", source, asked, cached, None, answered, None) for source, asked, cached, answered in rows]
    frame = pl.DataFrame(table, schema=ROW_SCHEMA, orient="row")
    arms: list[dict[str, Any]] = observe_results(frame.lazy(), NO_ARMS)["arms"]
    return arms


def add_up(*attempts: tuple[int, int | None, float | None]) -> dict[str, Any]:
    """Return the sums over attempts: seconds after the call began, tokens of the completion, cost."""
    table = [(BEGAN + timedelta(seconds=at_s), 10, tokens, usd) for at_s, tokens, usd in attempts]
    return add_up_attempts(pl.DataFrame(table, schema=ATTEMPT_SCHEMA, orient="row").lazy(), since=BEGAN)


def test_observed_arm_has_means_of_what_was_reported() -> None:
    """Estimated and missing counts teach nothing; what a reply does not tell of its cache is none of it."""
    (arm,) = observe(
        ("reported", 10, 4, 20), ("reported", 30, None, 40), ("estimated", 900, 0, 900), ("missing", None, None, None)
    )
    assert (arm["rows"], arm["prompt_tokens"], arm["cached_tokens"], arm["completion_tokens"]) == (2, 20, 2, 30)
    assert arm["completion_deviation"] == pytest.approx(200**0.5)


def test_observed_arm_needs_two_rows() -> None:
    """One reply has no deviation, and is no arm that could be told of."""
    assert observe(("reported", 10, 4, 20)) == []


def test_attempts_of_earlier_calls_are_not_added() -> None:
    """What started before the call began is another call's."""
    assert add_up((-1, 5, 0.5), (0, 5, 0.25), (1, 6, 0.5)) == {
        "attempts": 2,
        "prompt_tokens": 20,
        "completion_tokens": 11,
        "usd": 0.75,
        "usd_unknown": 0,
    }


def test_unknown_cost_of_attempts_is_counted_and_never_zero() -> None:
    """Unknown costs stand beside the known sum; where none is known the sum is null, and 0 where nothing was sent."""
    some, none, nothing = add_up((0, 5, None), (1, None, 0.5)), add_up((0, None, None)), add_up()
    assert (some["usd"], some["usd_unknown"], some["completion_tokens"]) == (0.5, 1, 5)
    assert (none["usd"], none["usd_unknown"], none["completion_tokens"]) == (None, 1, None)
    assert (nothing["usd"], nothing["usd_unknown"], nothing["attempts"]) == (0, 0, 0)
