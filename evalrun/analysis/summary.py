"""A run in figures: one summary per arm, and the best arm against each other.

Results and grades enter as tables, a `Summary` leaves. Rows are aggregated by the frame engine, streaming; what comes
to Python is one record per arm, per arm and category, and counts of pairs. Unknown stays None, unanswered rows are
counted beside every rate and never inside it.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from evalrun.analysis import stats
from evalrun.analysis.headline import PairFigures, write_headline
from evalrun.records import ANSWERED, FINISHED, ArmSummary, PairTest, Rate, Status, Summary

NO_CATEGORY = "(none)"
"""Where rows without a category are counted when other rows have one."""

_ARM = ["model", "prompt"]
_ROW = ["row_1", "row_2"]
_ANSWERED = sorted(ANSWERED)
_FINISHED = sorted(FINISHED)


class _Arm(NamedTuple):
    model: str
    prompt: str


class _Frames(NamedTuple):
    arms: pl.DataFrame
    """One row per arm."""
    samples: pl.DataFrame
    """One row per sample with a verdict; per arm i columns k{i} (passed repeats) and n{i} (scored repeats)."""
    categories: pl.DataFrame
    """One row per number of an arm and category."""
    statuses: pl.DataFrame
    errors: pl.DataFrame
    graded: pl.DataFrame
    """One row per number of an arm: counts that need the grades."""
    metrics: pl.DataFrame
    """One row per number of an arm and metric."""


def summarize(results: pl.LazyFrame | Path, grades: pl.LazyFrame | Path, *, is_simulated: bool) -> Summary:
    """Return the figures of a run.

    The interval of a pass rate is Wilson's at 95 % over samples: with repeats, n is the number of samples with a
    verdict and k the sum of their means. Latencies are those of answered rows asked in this run. Costs are those of
    the attempts that gave the outcomes; retries are in `billed_usd` of the table.

    Args:
        results: Table with the columns of results.parquet, or its path.
        grades: Table with the columns of grades.parquet, or its path.
        is_simulated: Whether any endpoint was a simulator.
    """
    rows = pl.scan_parquet(results, glob=False) if isinstance(results, Path) else results
    marks = pl.scan_parquet(grades, glob=False) if isinstance(grades, Path) else grades
    frames = _collect(rows, marks)
    keys = [_Arm(*key) for key in frames.arms.select(_ARM).iter_rows()]
    arms = [_build_arm(index, frames) for index in range(len(keys))]
    order = sorted(range(len(keys)), key=lambda i: (-_rank_value(arms[i]), keys[i]))
    figures = _compare_with_best(order, keys, frames.samples)
    tests = tuple(figure.test for figure in figures)
    ranked = tuple(arms[i] for i in order)
    return Summary(
        arms=ranked,
        best=tests[0] if tests else None,
        tests=tests,
        headline=write_headline(ranked, figures),
        statuses={status.value: 0 for status in Status} | dict(frames.statuses.iter_rows()),
        errors=dict(frames.errors.sort("count", "error_code", descending=[True, False]).iter_rows()),
        is_simulated=is_simulated,
    )


def _collect(rows: pl.LazyFrame, marks: pl.LazyFrame) -> _Frames:
    # One query after the other: side by side they would hold a million rows several times.
    rows = _bring_together(rows)
    arms = _run(rows.group_by(_ARM).agg(_arm_columns()).sort(_ARM))
    keys = [_Arm(*key) for key in arms.select(_ARM).iter_rows()]
    numbered = _number(rows, keys)
    by_row = numbered.select(*_ROW, "arm", "sample", "passed")
    marks = marks.select(*_name_row(), "metric", "score", "passed", "hard")
    return _Frames(
        arms=arms.with_row_index("arm").join(_run(_latency_table(numbered)), on="arm", how="left").drop("arm"),
        samples=_run(_sample_table(numbered, len(keys))),
        categories=_run(_category_table(numbered)),
        statuses=_run(rows.group_by("status").agg(pl.len().cast(pl.Int64).alias("count"))),
        errors=_run(
            rows.filter(pl.col("error_code").is_not_null() & pl.col("status").is_in([Status.ERROR, Status.PENDING]))
            .group_by("error_code")
            .agg(pl.len().cast(pl.Int64).alias("count"))
        ),
        graded=_run(_graded_table(by_row, marks)),
        metrics=_run(_metric_table(by_row, marks)),
    )


def _run(query: pl.LazyFrame) -> pl.DataFrame:
    return query.collect(engine="streaming")


def _bring_together(rows: pl.LazyFrame) -> pl.LazyFrame:
    """Return the rows with those of one sample beside each other: as they are, where they stand in plan order."""
    name = pl.col("sample_id").hash()
    heads = rows.select(name.alias("name")).filter((pl.col("name") != pl.col("name").shift(1)).fill_null(value=True))
    # Two samples that share a hash look like one that stands apart: sorting then was not needed, and does no harm.
    is_together = _run(heads.select(pl.len() == pl.col("name").n_unique())).item()
    return rows if is_together else rows.sort("sample_id", maintain_order=True)


def _number(rows: pl.LazyFrame, keys: Sequence[_Arm]) -> pl.LazyFrame:
    """Return what is counted by sample, with numbers for arms and samples: names would take ten times the memory."""
    arm = pl.lit(None, pl.UInt32)
    for index, key in enumerate(keys):
        is_arm = (pl.col("model") == key.model) & (pl.col("prompt") == key.prompt)
        arm = pl.when(is_arm).then(pl.lit(index, pl.UInt32)).otherwise(arm)
    is_asked = pl.col("status").is_in(_ANSWERED) & pl.col("reused_from").is_null()
    return rows.select(
        *_name_row(),
        arm.alias("arm"),
        pl.col("sample_id").rle_id().alias("sample"),
        "category",
        "passed",
        pl.when(is_asked).then(pl.col("latency_s")).alias("latency_s"),
    )


def _arm_columns() -> list[pl.Expr]:
    status, cost = pl.col("status"), pl.col("cost_usd")
    answered = status.is_in(_ANSWERED)
    counted = {
        "n_errors": status == Status.ERROR,
        "n_pending": status == Status.PENDING,
        "n_filtered": status == Status.FILTERED,
        "n_truncated": status == Status.TRUNCATED,
        "n_empty": status == Status.EMPTY,
        "n_refused": status == Status.REFUSED,
        "n_answered": answered,
        "n_cost_unknown": answered & cost.is_null(),
        "n_usage_missing": answered & (pl.col("usage_source") == "missing"),
        "n_reused": pl.col("reused_from").is_not_null(),
        "n_scored": pl.col("passed").is_not_null(),
        "n_passed": pl.col("passed").fill_null(value=False),
    }
    return [
        pl.len().cast(pl.Int64).alias("n_total"),
        *(condition.sum().cast(pl.Int64).alias(name) for name, condition in counted.items()),
        pl.col("score").mean().alias("mean_score"),
        *(_sum_known(pl.col(name).cast(pl.Int64)).alias(name) for name in ("prompt_tokens", "completion_tokens")),
        # An error is no outcome: what its last attempt took, known or estimated, is billed and wasted.
        _sum_known(cost.filter(status.is_in(_FINISHED))).alias("cost_usd"),
        _sum_known(cost.filter(answered)).alias("answered_usd"),
        pl.col("attempts").cast(pl.Int64).sum().alias("attempts"),
    ]


def _sum_known(column: pl.Expr) -> pl.Expr:
    """Return the sum of what is known; null, not 0, when nothing is."""
    return pl.when(column.count() > 0).then(column.sum())


def _latency_table(numbered: pl.LazyFrame) -> pl.LazyFrame:
    latency = pl.col("latency_s")
    return (
        numbered.filter(latency.is_not_null())
        .select("arm", "latency_s")
        .group_by("arm")
        .agg(
            latency.quantile(0.5, "linear").alias("latency_p50_s"),
            latency.quantile(0.95, "linear").alias("latency_p95_s"),
        )
    )


def _sample_table(numbered: pl.LazyFrame, n_arms: int) -> pl.LazyFrame:
    columns = []
    for index in range(n_arms):
        is_arm = pl.col("arm") == index
        columns.append((is_arm & pl.col("passed")).sum().cast(pl.UInt32).alias(f"k{index}"))
        columns.append(is_arm.sum().cast(pl.UInt32).alias(f"n{index}"))
    return _keep_scored(numbered).group_by("sample").agg(columns).drop("sample")


def _category_table(numbered: pl.LazyFrame) -> pl.LazyFrame:
    return (
        _keep_scored(numbered)
        .group_by("arm", "category")
        .agg(
            pl.col("passed").sum().cast(pl.Int64).alias("n_passed"),
            pl.len().cast(pl.Int64).alias("n_scored"),
            pl.col("sample").n_unique().cast(pl.Int64).alias("n_samples"),
        )
        .sort("arm", "category")
    )


def _keep_scored(numbered: pl.LazyFrame) -> pl.LazyFrame:
    return numbered.filter(pl.col("passed").is_not_null())


def _name_row() -> list[pl.Expr]:
    """Return 128 bits in place of a row_id, which is a digest anyway, of 64 letters."""
    return [pl.col("row_id").hash(seed).alias(name) for seed, name in enumerate(_ROW)]


def _graded_table(by_row: pl.LazyFrame, marks: pl.LazyFrame) -> pl.LazyFrame:
    # Only grades that failed hard or could not decide are joined: few rows, whatever the size of the run.
    is_broken = pl.col("hard") & ~pl.col("passed").fill_null(value=True)
    is_undecided = pl.col("passed").is_null()
    notable = (
        marks.filter(is_broken | is_undecided)
        .group_by(_ROW)
        .agg(
            is_broken.any().alias("broken"),
            is_undecided.any().alias("undecided"),
            (is_undecided & pl.col("hard")).any().alias("hard_undecided"),
        )
    )
    joined = by_row.join(notable, on=_ROW, how="inner")
    per_sample = joined.group_by("arm", "sample").agg(
        pl.col("broken").any(),
        pl.col("hard_undecided").any(),
        (pl.col("undecided") & pl.col("passed").is_null()).sum().cast(pl.Int64).alias("n_ungraded"),
    )
    return per_sample.group_by("arm").agg(
        pl.col("n_ungraded").sum(),
        pl.col("broken").sum().cast(pl.Int64).alias("n_hard_failures"),
        (pl.col("hard_undecided") & ~pl.col("broken")).sum().cast(pl.Int64).alias("n_hard_undecided"),
    )


def _metric_table(by_row: pl.LazyFrame, marks: pl.LazyFrame) -> pl.LazyFrame:
    named = marks.filter(pl.col("metric").is_not_null() & pl.col("score").is_not_null())
    return (
        named.select(*_ROW, "metric", pl.col("score").alias("mark"))
        .join(by_row.select(*_ROW, "arm"), on=_ROW, how="inner")
        .group_by("arm", "metric")
        .agg(pl.col("mark").mean())
        .sort("arm", "metric")
    )


def _build_arm(index: int, frames: _Frames) -> ArmSummary:
    row = frames.arms.row(index, named=True)
    is_arm = pl.col("arm") == index
    graded = frames.graded.filter(is_arm).to_dicts()
    counts = graded[0] if graded else {"n_ungraded": 0, "n_hard_failures": 0, "n_hard_undecided": 0}
    n_samples, rate = _build_arm_rate(index, row, frames.samples)
    n_answered, n_passed = row.pop("n_answered"), row.pop("n_passed")
    usd = row.pop("answered_usd") if not row["n_cost_unknown"] else row.pop("answered_usd") and None
    if row["n_cost_unknown"] and not row["cost_usd"]:
        row["cost_usd"] = None  # Refused attempts cost nothing for certain; that is no known cost of the answers.
    kept = {name: value for name, value in row.items() if name not in _ARM}
    return ArmSummary(
        model=row["model"],
        prompt=row["prompt"],
        pass_rate=rate,
        n_samples=n_samples,
        n_ungraded=counts["n_ungraded"],
        n_hard_failures=counts["n_hard_failures"],
        n_hard_undecided=counts["n_hard_undecided"],
        usd_per_1k=usd / n_answered * 1000 if usd is not None and n_answered else None,
        usd_per_correct=usd / n_passed if usd is not None and n_passed else None,
        metrics=dict(frames.metrics.filter(is_arm).select("metric", "mark").iter_rows()),
        categories=_build_categories(frames.categories.filter(is_arm)),
        **kept,
    )


def _build_arm_rate(index: int, row: Mapping[str, Any], samples: pl.DataFrame) -> tuple[int, Rate]:
    scored = samples.filter(pl.col(f"n{index}") > 0)
    n_samples = scored.height
    passed = float(scored.select((pl.col(f"k{index}") / pl.col(f"n{index}")).sum()).item()) if n_samples else 0.0
    return n_samples, _make_rate(row["n_passed"], row["n_scored"], sample_passes=passed, n_samples=n_samples)


def _build_categories(rows: pl.DataFrame) -> dict[str, Rate]:
    if rows["category"].null_count() == rows.height:
        return {}
    rates = {}
    for row in rows.iter_rows(named=True):
        passes = row["n_passed"] / row["n_scored"] * row["n_samples"]
        rates[NO_CATEGORY if row["category"] is None else row["category"]] = _make_rate(
            row["n_passed"], row["n_scored"], sample_passes=passes, n_samples=row["n_samples"]
        )
    return rates


def _make_rate(passed: int, n: int, *, sample_passes: float, n_samples: int) -> Rate:
    low, high = stats.wilson(min(sample_passes, float(n_samples)), n_samples)
    return Rate(passed=passed, n=n, value=passed / n if n else None, low=low, high=high)


def _rank_value(arm: ArmSummary) -> float:
    return -1.0 if arm.pass_rate.value is None else arm.pass_rate.value


def _compare_with_best(order: Sequence[int], keys: Sequence[_Arm], samples: pl.DataFrame) -> list[PairFigures]:
    """Return the best arm's test against each other arm that shares scored samples with it, in rank order."""
    figures = []
    for other in order[1:]:
        counts = _count_pairs(samples, order[0], other)
        if counts:
            figures.append(_test_pairs(keys[other], counts))
    adjusted = stats.holm([figure.test.p_value for figure in figures])
    return [figure.with_p_value(p_value) for figure, p_value in zip(figures, adjusted, strict=True)]


def _count_pairs(samples: pl.DataFrame, best: int, other: int) -> Counter[tuple[Fraction, Fraction]]:
    """Return how often each pair of sample means occurs, over samples scored on both sides."""
    columns = [f"k{best}", f"n{best}", f"k{other}", f"n{other}"]
    grouped = samples.filter((pl.col(columns[1]) > 0) & (pl.col(columns[3]) > 0)).group_by(columns).len()
    counts: Counter[tuple[Fraction, Fraction]] = Counter()
    for best_k, best_n, other_k, other_n, times in grouped.iter_rows():
        counts[Fraction(best_k, best_n), Fraction(other_k, other_n)] += times
    return counts


def _test_pairs(other: _Arm, counts: Mapping[tuple[Fraction, Fraction], int]) -> PairFigures:
    differences: Counter[Fraction] = Counter()
    for (left, right), times in counts.items():
        differences[left - right] += times
    n = sum(counts.values())
    best_only = sum(times for value, times in differences.items() if value > 0)
    other_only = sum(times for value, times in differences.items() if value < 0)
    is_binary = all(mean in {0, 1} for pair in counts for mean in pair)
    if is_binary:
        both = counts.get((Fraction(1), Fraction(1)), 0)
        table = stats.Table(both, other_only, best_only, n - both - best_only - other_only)
        low, high = stats.tango(table)
        p_value = stats.mcnemar_exact(other_only, best_only).two_sided
    else:
        low, high = stats.normal_interval(differences)
        p_value = stats.sign_flip_counts(differences).p_value
    mean, variance = stats.mean_and_variance(differences)
    test = PairTest(
        model=other.model,
        prompt=other.prompt,
        n_pairs=n,
        best_only=best_only,
        other_only=other_only,
        difference=mean,
        low=low,
        high=high,
        p_value=p_value,
    )
    return PairFigures(test=test, variance=variance, discordance=(best_only + other_only) / n if is_binary else None)
