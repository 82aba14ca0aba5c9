"""Whether the tables of a run tell the same of its money: what rows say they were billed, and what their attempts took.

The tables of one run enter, the sums of both sides and each reason why they differ leave. A difference that has no
reason is a contradiction: one of the files is not of this run's end.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import Any

import polars as pl

from evalrun.analysis.account import ROW, AccountTables, name_rows, read_usd

_NOTHING = Decimal(0)
_QUANTUM_USD = 1e-12
_FLOAT_STEP = 2e-15
"""Two sums of the same large amounts may differ by so much of them: more digits a number does not hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciliation:
    """Both sides of a run's money. rows_usd + gone_usd + partly_usd = attempts_usd, but for `off_usd`."""

    rows_usd: Decimal
    """Sum of `billed_usd` over the rows, judges included, as far as it is known."""
    attempts_usd: Decimal
    """Sum of `cost_usd` over the attempts, as far as it is known."""
    n_rows_unknown: int
    """Rows whose `billed_usd` is null."""
    partly_usd: Decimal
    """What is known of the attempts of those rows."""
    n_attempts_unknown: int
    """Attempts whose cost is null: without a price, or without anything to estimate from."""
    gone_usd: Decimal
    """What attempts of rows took that the job no longer has."""
    n_gone: int
    """Such attempts."""
    off_usd: Decimal
    """By how much the rows that contradict their attempts say more than these."""
    n_off: int
    """Such rows."""


def reconcile(run: AccountTables) -> Reconciliation:
    """Return both sides of a run's money, row by row."""
    tables = [run.results] if run.judge is None else [run.results, run.judge]
    rows = pl.concat([name_rows(table, read_usd("billed_usd")) for table in tables])
    cost = pl.col("cost_usd")
    attempts = (
        name_rows(run.attempts, read_usd("cost_usd"))
        .group_by(ROW)
        .agg(cost.sum().alias("usd"), cost.is_null().sum().alias("n_unknown"), pl.len().alias("n"))
    )
    return _read_sums(
        attempts.select(pl.col("usd", "n_unknown", "n").sum()),
        rows.join(attempts, on=ROW, how="left").select(_compare_rows()),
    )


def add_sides(runs: Iterable[Reconciliation]) -> Reconciliation:
    """Return both sides of several runs together; there is at least one."""
    each = [asdict(run) for run in runs]
    return Reconciliation(**{name: sum(run[name] for run in each) for name in each[0]})


def _compare_rows() -> list[pl.Expr]:
    billed, usd = pl.col("billed_usd"), pl.col("usd").fill_null(_NOTHING)
    n, n_unknown = pl.col("n").fill_null(0), pl.col("n_unknown").fill_null(0)
    difference = billed.cast(pl.Float64) - usd.cast(pl.Float64)
    allowed = _QUANTUM_USD * (n + 1) + _FLOAT_STEP * usd.cast(pl.Float64)
    is_off = billed.is_not_null() & ((difference.abs() > allowed) | (n_unknown > 0))
    is_unknown = billed.is_null()
    return [
        billed.sum().alias("rows_usd"),
        is_unknown.sum().alias("n_rows_unknown"),
        pl.when(is_unknown).then(usd).sum().alias("partly_usd"),
        pl.when(is_off).then(billed - usd).sum().alias("off_usd"),
        is_off.sum().alias("n_off"),
        usd.sum().alias("usd"),
        n.sum().alias("n"),
    ]


def _read_sums(attempts: pl.LazyFrame, rows: pl.LazyFrame) -> Reconciliation:
    all_attempts = _read_row(attempts)
    found = _read_row(rows)
    return Reconciliation(
        attempts_usd=all_attempts["usd"],
        n_attempts_unknown=all_attempts["n_unknown"],
        gone_usd=all_attempts["usd"] - found.pop("usd"),
        n_gone=all_attempts["n"] - found.pop("n"),
        **found,
    )


def _read_row(frame: pl.LazyFrame) -> dict[str, Any]:
    row = frame.collect(engine="streaming").row(0, named=True)
    return {name: _NOTHING if value is None and name.endswith("usd") else value for name, value in row.items()}
