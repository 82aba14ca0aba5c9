"""What a run's answers took: for the estimate of the next run, and beside the estimate of this one.

Lazy frames of results and attempts enter; JSON values for run.json leave. What no answer told is null or not there.
"""

from datetime import datetime
from typing import Any

import polars as pl

from evalrun.records import Summary, UsageSource


def observe_results(rows: pl.LazyFrame, summary: Summary) -> dict[str, Any]:
    """Return what the rows whose usage was reported took, by model and prompt.

    Args:
        rows: The table of results.
        summary: Its figures.

    Returns:
        `arms`: for each model and prompt with at least two such rows, their number and the mean tokens of each kind,
        and `completion_deviation`, the standard deviation of the completions. `discordance`: the share of samples on
        which the two best arms differ; null with fewer than two arms or with repeats.
    """
    told = rows.filter(
        (pl.col("usage_source") == UsageSource.REPORTED)
        & pl.col("prompt_tokens").is_not_null()
        & pl.col("completion_tokens").is_not_null()
    )
    optional = ("cached_tokens", "cache_write_tokens", "reasoning_tokens")
    frame = (
        told.group_by("model", "prompt")
        .agg(
            pl.len().cast(pl.Int64).alias("rows"),
            pl.col("prompt_tokens", "completion_tokens").mean(),
            pl.col("completion_tokens").std().alias("completion_deviation"),
            *(pl.col(name).fill_null(0).mean() for name in optional),
        )
        .filter(pl.col("rows") > 1)
        .sort("model", "prompt")
        .collect(engine="streaming")
    )
    return {"arms": frame.to_dicts(), "discordance": _find_discordance(summary)}


def add_up_attempts(attempts: pl.LazyFrame, *, since: datetime) -> dict[str, Any]:
    """Return what the attempts of one call took.

    Args:
        attempts: The table of attempts.
        since: When the call began, UTC.

    Returns:
        `attempts`; `prompt_tokens`, `completion_tokens` and `usd`, each over those that told it, 0 without attempts and
        null when none of them told; `usd_unknown`, the number of attempts whose cost is unknown.
    """
    told = ("prompt_tokens", "completion_tokens", "cost_usd")
    frame = (
        attempts.filter(pl.col("started_at") >= since)
        .select(
            pl.len().cast(pl.Int64).alias("attempts"),
            *(
                pl.when((pl.col(name).count() > 0) | (pl.len() == 0)).then(pl.col(name).sum()).alias(name)
                for name in told
            ),
            pl.col("cost_usd").null_count().cast(pl.Int64).alias("usd_unknown"),
        )
        .rename({"cost_usd": "usd"})
        .collect(engine="streaming")
    )
    return dict(frame.row(0, named=True))


def _find_discordance(summary: Summary) -> float | None:
    best = summary.best
    has_repeats = any(arm.n_samples != arm.n_scored for arm in summary.arms)
    if best is None or has_repeats or not best.n_pairs:
        return None
    return (best.best_only + best.other_only) / best.n_pairs
