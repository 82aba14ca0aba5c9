"""Results and grades side by side, as reports and `show` read them.

A run folder enters; each row of results.parquet leaves with its rows of grades.parquet. Both tables are in plan order,
so one pass over each is enough and nothing is kept.
"""

from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import itemgetter
from typing import Any

from evalrun.store.folder import RunFolder
from evalrun.store.parquet import scan_rows

GradedRow = tuple[dict[str, Any], list[dict[str, Any]]]


def scan_graded_rows(folder: RunFolder) -> Iterator[GradedRow]:
    """Return each row of the results with its grades; rows that were not graded have none.

    Raises:
        StoreError: A table is not there or not Parquet.
    """
    return join_grades(scan_rows(folder.results_path), scan_rows(folder.grades_path))


def join_grades(rows: Iterable[dict[str, Any]], grades: Iterable[dict[str, Any]]) -> Iterator[GradedRow]:
    """Yield each row with its grades; both come in plan order, and every grade is of one of the rows."""
    groups = groupby(grades, key=itemgetter("row_id"))
    row_id, group = next(groups, (None, iter(())))
    for row in rows:
        if row["row_id"] != row_id:
            yield row, []
            continue
        yield row, list(group)
        row_id, group = next(groups, (None, iter(())))
