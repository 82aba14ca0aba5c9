"""Which rows of a run its reports hold: all of a small one, of a large one those that did not pass first.

The run's tables enter; report rows in plan order leave, and counts of all rows, those left out included. Memory is
bounded by two limits, of rows and of characters, whatever the size of the run.
"""

from evalrun.report.model import GRADE_COLUMNS, ROW_COLUMNS, ReportRow, RowCounts, build_report_row, count_chars
from evalrun.run_tables import RunTables

MAX_REPORT_ROWS = 20_000
"""Most rows that a report holds."""

MAX_REPORT_CHARS = 40_000_000
"""Most characters of their texts; the page stops at half of it, but each text stands there once."""


def choose_report_rows(tables: RunTables) -> tuple[list[ReportRow], RowCounts]:
    """Return the rows a report holds, in plan order, and what the whole run holds; passing rows are left out first."""
    counts = RowCounts(**tables.count_rows()._asdict())
    chosen = _Chosen()
    # The limit of rows goes by verdicts alone: of rows beyond it nothing else is read.
    rows = tables.scan_first(
        n_passed=max(MAX_REPORT_ROWS - counts.n_not_passed, 0),
        n_others=MAX_REPORT_ROWS,
        columns=ROW_COLUMNS,
        grade_columns=GRADE_COLUMNS,
    )
    for place, (row, grades) in enumerate(rows):
        is_passed = row["passed"] is True
        if chosen.has_room(is_passed=is_passed):
            chosen.add(place, build_report_row(row, grades), is_passed=is_passed)
    return chosen.list_rows(), counts


class _Chosen:
    """The rows taken so far; passing ones give way to others when the texts grow too long."""

    def __init__(self) -> None:
        self._wanting: dict[int, ReportRow] = {}
        self._passed: dict[int, ReportRow] = {}
        self._n_chars = 0

    def has_room(self, *, is_passed: bool) -> bool:
        """Return whether another row may be added."""
        return self._n_chars < MAX_REPORT_CHARS or (not is_passed and bool(self._passed))

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
