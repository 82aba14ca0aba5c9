"""Results and grades side by side, as reports and `show` read them.

A run folder enters; each row of results.parquet leaves with its rows of grades.parquet. Both tables are in plan order,
so one pass over each is enough and nothing is kept.
"""

from collections.abc import Iterator
from itertools import groupby
from typing import Any

from evalrun.store.folder import RunFolder
from evalrun.store.parquet import scan_rows

GradedRow = tuple[dict[str, Any], list[dict[str, Any]]]


def scan_graded_rows(folder: RunFolder) -> Iterator[GradedRow]:
    """Yield each row of the results with its grades; rows that were not graded have none.

    Raises:
        StoreError: A table is not there or not Parquet.
    """
    groups = groupby(scan_rows(folder.grades_path), key=lambda grade: grade["row_id"])
    row_id, group = next(groups, (None, iter(())))
    for row in scan_rows(folder.results_path):
        if row["row_id"] != row_id:
            yield row, []
            continue
        yield row, list(group)
        row_id, group = next(groups, (None, iter(())))
