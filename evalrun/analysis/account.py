"""What runs took, in tokens and money: any grouping of their requests, and their sum.

Results and attempts of runs enter as lazy tables, one row of figures per group leaves. Money is summed as decimals of
1e-12 USD, so that no order of adding changes a digit. Each group obeys one equation: what was billed and not wasted is
what its outcomes cost, those of older runs left out. What is unknown is counted and in no sum.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import polars as pl

from evalrun.records import ANSWERED, FINISHED, ArmSummary, Summary, UsageSource

KEYS = ("model", "prompt", "category", "run", "day", "role", "status")
"""What requests can be grouped by. `day` is the attempt's start, in UTC."""

CANDIDATE = "candidate"
JUDGE = "judge"

MONEY = pl.Decimal(38, 12)
"""USD to 1e-12, as exact as the tables hold them."""

LARGEST_USD = 1e12
"""An amount above it is no price that anybody asks: it counts as unknown."""

ROW = ("row_1", "row_2")
"""128 bits in place of a row_id, which is a digest anyway, of 64 letters."""

_ASKED = "asked"
_FINISHED = sorted(FINISHED)
_ANSWERED = sorted(ANSWERED)
_ONE = "one"
"""A key that all rows share, so that a grouping by nothing is one like any other."""

_ROW_KEYS = ("model", "prompt", "category", "role", "status")
_TOKENS = ("prompt_tokens", "cached_tokens", "cache_write_tokens", "completion_tokens", "reasoning_tokens")


class AccountTables(NamedTuple):
    """The tables of one run."""

    run_id: str
    results: pl.LazyFrame
    """Columns of results.parquet."""
    attempts: pl.LazyFrame
    """Columns of attempts.parquet."""
    judge: pl.LazyFrame | None = None
    """Columns of results.parquet, one row per request of a judge; None when the run has none."""


class Figures(NamedTuple):
    """What runs took, by group and in all; what the columns are stands at `add_up`."""

    groups: pl.DataFrame
    total: pl.DataFrame
    """One row, without keys."""


def add_up(runs: Sequence[AccountTables], by: Sequence[str] = ()) -> Figures:
    """Return what runs took.

    Args:
        runs: The runs; one after the other is read, so that memory does not grow with their number.
        by: Some of `KEYS`; with none, all is one group.

    Returns:
        One row per group, sorted by its keys, null last. Columns: the keys (str, `day` date; null where a request has
        none: no category, never sent here, or of a row that its job no longer has), then `requests`, `rows`,
        `answered`, `passed`, `reused`, `uncached_input_tokens`, `cache_read_tokens`, `cache_write_tokens`,
        `output_tokens` (without reasoning), `reasoning_tokens`, `wasted_prompt_tokens`, `wasted_completion_tokens`,
        `reused_prompt_tokens`, `reused_completion_tokens` (i64), `cost_usd`, `billed_usd`, `wasted_usd`,
        `estimated_usd`, `reused_usd`, `usd_per_1k`, `usd_per_correct` (f64, null when unknown), `n_cost_unknown`,
        `n_billed_unknown`, `n_usage_missing` (i64).
    """
    tally = _merge(pl.concat([_tally_run(run, by) for run in runs]), by)
    total = _finish(_merge(tally, ()))
    return Figures(_finish(tally.sort(by, nulls_last=True), by) if by else total, total)


def complete_summary(summary: Summary, run: AccountTables) -> Summary:
    """Return a summary with what was billed, wasted and estimated: of each arm, and of the run as a whole.

    Args:
        summary: Of the same run.
        run: Its tables.
    """
    by = ("model", "prompt", "role")
    tally = _tally_run(run, by)
    arms = tally.filter(pl.col("role") == CANDIDATE)
    by_arm = {(row["model"], row["prompt"]): row for row in _finish(arms, by).iter_rows(named=True)}
    total = _finish(_merge(tally, ())).row(0, named=True)
    return replace(
        summary,
        arms=tuple(_complete_arm(arm, by_arm[arm.model, arm.prompt]) for arm in summary.arms),
        billed_usd=total["billed_usd"],
        wasted_usd=total["wasted_usd"],
        estimated_usd=total["estimated_usd"],
        n_billed_unknown=total["n_billed_unknown"],
    )


def name_rows(table: pl.LazyFrame, *columns: pl.Expr | str) -> pl.LazyFrame:
    """Return columns of a table under short names of its rows."""
    return table.select(*(pl.col("row_id").hash(seed).alias(name) for seed, name in enumerate(ROW)), *columns)


def read_usd(name: str) -> pl.Expr:
    """Return a column of USD as decimals; null for what is no amount of money."""
    return pl.when(pl.col(name).abs() < LARGEST_USD).then(pl.col(name)).cast(MONEY).alias(name)


def _complete_arm(arm: ArmSummary, group: dict[str, float]) -> ArmSummary:
    return replace(
        arm,
        billed_usd=group["billed_usd"],
        wasted_usd=group["wasted_usd"],
        estimated_usd=group["estimated_usd"],
        n_billed_unknown=int(group["n_billed_unknown"]),
    )


def _tally_run(run: AccountTables, by: Sequence[str]) -> pl.DataFrame:
    """Return the plain sums of one run, by group: counts and known money, which sums of several runs can be made of."""
    rows = _read_rows(run.results, CANDIDATE)
    if run.judge is not None:
        rows = pl.concat([rows, _read_rows(run.judge, JUDGE)])
    attempts = _join_rows(run.attempts, rows)
    if "day" in by:
        rows = _find_days(rows, attempts)
    keys = [_ONE, *by]
    known = (pl.lit(run.run_id).alias("run"), pl.lit(0, pl.Int8).alias(_ONE))
    of_rows = rows.with_columns(*known).group_by(keys).agg(_row_sums()).collect(engine="streaming")
    of_attempts = attempts.with_columns(*known).group_by(keys).agg(_attempt_sums()).collect(engine="streaming")
    return _merge(pl.concat([of_rows, of_attempts], how="diagonal"), by)


def _read_rows(results: pl.LazyFrame, role: str) -> pl.LazyFrame:
    """Return what the account needs of rows: who they are, what they asked, and what their outcome took."""
    is_finished = pl.col("status").is_in(_FINISHED)
    return name_rows(
        results,
        pl.col("request_key").hash().alias(_ASKED),
        *(name for name in _ROW_KEYS if name != "role"),
        pl.lit(role).alias("role"),
        *_TOKENS,
        read_usd("cost_usd"),
        "passed",
        pl.col("started_at").dt.date().alias("day"),
        pl.col("reused_from").is_not_null().alias("is_reused"),
        is_finished.alias("is_finished"),
        pl.col("status").is_in(_ANSWERED).alias("is_answered"),
    )


def _join_rows(attempts: pl.LazyFrame, rows: pl.LazyFrame) -> pl.LazyFrame:
    """Return the attempts with the keys of their rows, and whether each gave its row the outcome that stands.

    That is the one that answered what the row asks now: an edited row has answers to other questions as well. Attempts
    of a row that the job no longer has find none.
    """
    is_own = pl.col("is_finished") & ~pl.col("is_reused")
    owners = rows.select(*ROW, *_ROW_KEYS, pl.when(is_own).then(_ASKED).alias("asked_by_row"))
    gave = pl.col("error_code").is_null() & (pl.col(_ASKED) == pl.col("asked_by_row")).fill_null(value=False)
    own = name_rows(
        attempts,
        pl.col("request_key").hash().alias(_ASKED),
        pl.col("started_at").dt.date().alias("day"),
        "error_code",
        "prompt_tokens",
        "completion_tokens",
        (pl.col("usage_source") == UsageSource.ESTIMATED).alias("is_estimated"),
        read_usd("cost_usd"),
    )
    return own.join(owners, on=ROW, how="left").with_columns(gave.alias("gave"))


def _find_days(rows: pl.LazyFrame, attempts: pl.LazyFrame) -> pl.LazyFrame:
    """Return the rows on the day of the attempt that gave their outcome; without one, of their first attempt."""
    days = attempts.filter("gave").group_by(ROW).agg(pl.col("day").max().alias("day_of_outcome"))
    day = pl.when(~pl.col("is_reused")).then(pl.coalesce("day_of_outcome", "day"))
    return rows.join(days, on=ROW, how="left").with_columns(day.alias("day"))


def _row_sums() -> list[pl.Expr]:
    is_finished, is_answered, is_reused = pl.col("is_finished"), pl.col("is_answered"), pl.col("is_reused")
    cost, prompt, completion = pl.col("cost_usd"), pl.col("prompt_tokens"), pl.col("completion_tokens")
    own, taken = is_finished & ~is_reused, is_finished & is_reused
    # As money is reckoned: a part is never more than its whole.
    read = pl.min_horizontal(pl.col("cached_tokens").fill_null(0), prompt.fill_null(0))
    written = pl.min_horizontal(pl.col("cache_write_tokens").fill_null(0), prompt.fill_null(0) - read)
    reasoning = pl.min_horizontal(pl.col("reasoning_tokens").fill_null(0), completion.fill_null(0))
    # A reply that certainly cost nothing has no tokens that could be missing.
    lacks_usage = (prompt.is_null() | completion.is_null()) & (cost.is_null() | (cost != 0))
    return [
        pl.len().cast(pl.Int64).alias("rows"),
        _count(is_answered).alias("answered"),
        _count(pl.col("passed").fill_null(value=False)).alias("passed"),
        _count(taken).alias("reused"),
        _sum(prompt.fill_null(0) - read - written, own).alias("uncached_input_tokens"),
        _sum(read, own).alias("cache_read_tokens"),
        _sum(written, own).alias("cache_write_tokens"),
        _sum(completion.fill_null(0) - reasoning, own).alias("output_tokens"),
        _sum(reasoning, own).alias("reasoning_tokens"),
        _sum(prompt, taken).alias("reused_prompt_tokens"),
        _sum(completion, taken).alias("reused_completion_tokens"),
        _sum(cost, is_finished).alias("cost_usd"),
        _sum(cost, taken).alias("reused_usd"),
        _sum(cost, is_answered).alias("answered_usd"),
        _count(is_finished & cost.is_null()).alias("n_cost_unknown"),
        _count(taken & cost.is_null()).alias("n_reused_unknown"),
        _count(is_answered & cost.is_null()).alias("n_answered_unknown"),
        _count(own & lacks_usage).alias("n_usage_missing"),
    ]


def _attempt_sums() -> list[pl.Expr]:
    cost, is_wasted = pl.col("cost_usd"), ~pl.col("gave")
    return [
        pl.len().cast(pl.Int64).alias("requests"),
        _sum(pl.col("prompt_tokens"), is_wasted).alias("wasted_prompt_tokens"),
        _sum(pl.col("completion_tokens"), is_wasted).alias("wasted_completion_tokens"),
        cost.sum().alias("billed_usd"),
        _sum(cost, is_wasted).alias("wasted_usd"),
        _sum(cost, pl.col("is_estimated")).alias("estimated_usd"),
        _count(cost.is_null()).alias("n_billed_unknown"),
        _count(is_wasted & cost.is_null()).alias("n_wasted_unknown"),
    ]


def _count(condition: pl.Expr) -> pl.Expr:
    return condition.sum().cast(pl.Int64)


def _sum(column: pl.Expr, condition: pl.Expr) -> pl.Expr:
    return pl.when(condition).then(column).sum()


def _merge(tally: pl.DataFrame, by: Sequence[str]) -> pl.DataFrame:
    """Return a tally with one row per group; sums that a part did not know add nothing."""
    sums = [name for name in tally.columns if name not in {*KEYS, _ONE}]
    added = [pl.col(name).sum() for name in sums]
    return tally.group_by(by).agg(added) if by else tally.select(added)


def _finish(tally: pl.DataFrame, by: Sequence[str] = ()) -> pl.DataFrame:
    """Return figures to be read: money as numbers, null where a part of it is all unknown, and what follows from it."""
    known = tally.with_columns(
        _hide_unknown(name, unknown)
        for name, unknown in (
            ("cost_usd", "n_cost_unknown"),
            ("billed_usd", "n_billed_unknown"),
            ("wasted_usd", "n_wasted_unknown"),
            ("reused_usd", "n_reused_unknown"),
        )
    )
    usd = pl.when(pl.col("n_answered_unknown") == 0).then(pl.col("answered_usd").cast(pl.Float64))
    answered, passed = pl.col("answered"), pl.col("passed")
    return known.select(
        *by,
        "requests", "rows", "answered", "passed", "reused",
        "uncached_input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens", "reasoning_tokens",
        "wasted_prompt_tokens", "wasted_completion_tokens", "reused_prompt_tokens", "reused_completion_tokens",
        *(pl.col(f"{name}_usd").cast(pl.Float64) for name in ("cost", "billed", "wasted", "estimated", "reused")),
        (pl.when(answered > 0).then(usd / answered) * 1000).round(12).alias("usd_per_1k"),
        pl.when(passed > 0).then(usd / passed).round(12).alias("usd_per_correct"),
        "n_cost_unknown", "n_billed_unknown", "n_usage_missing",
    )  # fmt: skip


def _hide_unknown(name: str, unknown: str) -> pl.Expr:
    """Return a sum, null when nothing of it is known: what certainly cost nothing says nothing of the rest."""
    return pl.when((pl.col(unknown) == 0) | (pl.col(name) != 0)).then(pl.col(name)).alias(name)
