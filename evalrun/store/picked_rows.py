"""Some rows of a run with their grades, picked by their verdicts before any text is read.

A table of results enters; counts of all its rows, or the first rows that passed and that did not, leave. Of rows that
are not picked no more than the verdict is turned into values of Python.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import polars as pl

from evalrun.store.folder import RunFolder
from evalrun.store.graded_rows import GradedRow, join_grades
from evalrun.store.parquet import scan_rows, scan_table

_IS_PASSED = pl.col("passed").fill_null(value=False)


class TableCounts(NamedTuple):
    """What a table of results holds."""

    n_rows: int
    n_not_passed: int
    """Rows whose verdict is not a pass, unanswered ones included."""
    n_samples: int
    n_categories: int
    n_repeats: int
    """1 when there are no rows."""


def count_rows(results: pl.LazyFrame) -> TableCounts:
    """Return what a table holds.

    Args:
        results: Columns of results.parquet, in plan order: a sample's rows stand together.
    """
    is_new_sample = pl.col("sample_id").ne_missing(pl.col("sample_id").shift(1))
    counts = results.select(
        pl.len().alias("n_rows"),
        (~_IS_PASSED).sum().alias("n_not_passed"),
        is_new_sample.sum().alias("n_samples"),
        pl.col("category").drop_nulls().n_unique().alias("n_categories"),
        (pl.col("repeat").max().fill_null(0) + 1).alias("n_repeats"),
    )
    return TableCounts(**counts.collect(engine="streaming").row(0, named=True))


def has_hard_grades(grades: pl.LazyFrame) -> bool:
    """Return whether any grade is a contract's; False when there are none.

    Args:
        grades: Columns of grades.parquet.
    """
    return bool(grades.select(pl.col("hard").any()).collect(engine="streaming").item())


def pick_first(results: pl.LazyFrame, *, n_passed: int, n_others: int) -> pl.Series:
    """Return for each row whether it is one of the first that passed, or of the first that did not.

    Args:
        results: Columns of results.parquet, in plan order.
        n_passed: Most rows that passed.
        n_others: Most other rows.
    """
    is_passed = results.select(_IS_PASSED).collect(engine="streaming").to_series()
    is_other = ~is_passed
    return (is_passed & (is_passed.cum_sum() <= n_passed)) | (is_other & (is_other.cum_sum() <= n_others))


def scan_picked_rows(
    folder: RunFolder, is_picked: pl.Series, *, columns: Sequence[str], grade_columns: Sequence[str]
) -> Iterator[GradedRow]:
    """Yield picked rows with their grades, in plan order.

    Args:
        folder: A run whose two tables belong together.
        is_picked: For each row of the results, what `pick_first` returns.
        columns: Columns of the results to read, `row_id` among them.
        grade_columns: Columns of the grades to read, `row_id` among them.

    Raises:
        StoreError: A table is not there or not Parquet.
    """
    if is_picked.all():
        is_grade_picked = None
    else:
        row_ids = [row["row_id"] for row in scan_rows(folder.results_path, ["row_id"], is_picked=is_picked)]
        is_of_picked = pl.col("row_id").is_in(pl.Series(row_ids, dtype=pl.String).implode())
        is_grade_picked = scan_table(folder.grades_path).select(is_of_picked).collect(engine="streaming").to_series()
    return join_grades(
        scan_rows(folder.results_path, columns, is_picked=is_picked),
        scan_rows(folder.grades_path, grade_columns, is_picked=is_grade_picked),
    )
