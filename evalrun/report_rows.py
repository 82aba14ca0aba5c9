"""Which rows of a run its reports hold: all of a small one, of a large one those that did not pass first.

Rows with their grades enter; report rows in plan order leave, and counts of all rows, those left out included. Memory
is bounded by two limits, of rows and of characters, whatever the size of the run.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from evalrun.report.model import ReportRow, RowCounts, build_report_row, count_chars

MAX_REPORT_ROWS = 20_000
"""Most rows that a report holds."""

MAX_REPORT_CHARS = 40_000_000
"""Most characters of their texts; the page stops at half of it, but each text stands there once."""


_ResultAndGrades = tuple[dict[str, Any], list[dict[str, Any]]]


def choose_report_rows(rows: Iterable[_ResultAndGrades], *, n_not_passed: int) -> tuple[list[ReportRow], RowCounts]:
    """Return the rows a report holds, in plan order, and what the whole run holds; passing rows are left out first.

    Args:
        rows: All rows of the run with their grades, in plan order.
        n_not_passed: How many of them did not pass.
    """
    counter = _Counter()
    chosen = _Chosen(room_for_passed=max(MAX_REPORT_ROWS - n_not_passed, 0))
    for place, (row, grades) in enumerate(counter.count(rows)):
        if chosen.has_room(is_passed=row["passed"] is True):
            chosen.add(place, build_report_row(row, grades), is_passed=row["passed"] is True)
    return chosen.list_rows(), counter.make_counts(n_not_passed)


class _Chosen:
    """The rows taken so far; passing ones give way to others when the texts grow too long.

    Args:
        room_for_passed: Most passing rows.
    """

    def __init__(self, *, room_for_passed: int) -> None:
        self._room_for_passed = room_for_passed
        self._wanting: dict[int, ReportRow] = {}
        self._passed: dict[int, ReportRow] = {}
        self._n_chars = 0

    def has_room(self, *, is_passed: bool) -> bool:
        """Return whether another row may be added."""
        if is_passed:
            return len(self._passed) < self._room_for_passed and self._n_chars < MAX_REPORT_CHARS
        return len(self._wanting) < MAX_REPORT_ROWS and (self._n_chars < MAX_REPORT_CHARS or bool(self._passed))

    def add(self, place: int, row: ReportRow, *, is_passed: bool) -> None:
        """Add a row; passing rows that stand last go where there are too many characters."""
        (self._passed if is_passed else self._wanting)[place] = row
        self._n_chars += count_chars(row)
        while not is_passed and self._n_chars > MAX_REPORT_CHARS and self._passed:
            _, left_out = self._passed.popitem()
            self._n_chars -= count_chars(left_out)

    def list_rows(self) -> list[ReportRow]:
        """Return the rows in plan order."""
        return [row for _, row in sorted({**self._wanting, **self._passed}.items())]


class _Counter:
    """Counts rows while they go by, in plan order: a sample's stand together."""

    def __init__(self) -> None:
        self._n_rows = 0
        self._n_samples = 0
        self._last_repeat = 0
        self._last_sample: str | None = None
        self._categories: set[str] = set()

    def count(self, rows: Iterable[_ResultAndGrades]) -> Iterator[_ResultAndGrades]:
        """Pass the rows on."""
        for row, grades in rows:
            self._add(row)
            yield row, grades

    def make_counts(self, n_not_passed: int) -> RowCounts:
        """Return what went by."""
        return RowCounts(
            n_rows=self._n_rows,
            n_not_passed=n_not_passed,
            n_samples=self._n_samples,
            n_categories=len(self._categories),
            n_repeats=self._last_repeat + 1,
        )

    def _add(self, row: Mapping[str, Any]) -> None:
        self._n_rows += 1
        if row["sample_id"] != self._last_sample:
            self._last_sample = row["sample_id"]
            self._n_samples += 1
        self._last_repeat = max(self._last_repeat, row["repeat"])
        if row["category"] is not None:
            self._categories.add(row["category"])
