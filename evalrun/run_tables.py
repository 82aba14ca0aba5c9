"""A run's results and grades as they belong together, also where a crash came between their two files.

A run folder enters; rows with their grades, or a lazy frame of the results, leave. Grades are written first and are the
truth: results that are older get score and verdict from them, in memory while they are read and on disk when `mend` is
called. Attempts are written before both, and only ever grow: results say how many of them they know. Reading changes
nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalrun.analysis.graders.grader_set import combine_grades
from evalrun.errors import StoreError
from evalrun.records import ANSWERED
from evalrun.store.folder import RunFolder
from evalrun.store.graded_rows import scan_graded_rows
from evalrun.store.parquet import (
    grades_match,
    make_graded_blocks,
    make_lazy_frame,
    read_metadata,
    scan_rows,
    scan_table,
    write_results,
)
from evalrun.store.picked_rows import TableCounts, count_rows, pick_first, scan_picked_rows
from evalrun.store.tables import RESULTS

if TYPE_CHECKING:
    import polars as pl

ResultAndGrades = tuple[dict[str, Any], list[dict[str, Any]]]

N_ATTEMPTS = "n_attempts"
"""Fact of the results' file: how many attempts, from the first one on, its rows are made of."""

_MADE_BY_THE_WRITER = frozenset({"schema_version", "grades_digest"})


class RunTables:
    """The tables of a run that has ended at least once.

    Args:
        folder: The run.

    Raises:
        StoreError: A table is not there, not Parquet, or the two are of different rows.
        SchemaMismatchError: A table is of another version.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.is_behind = not grades_match(folder)
        """Whether the results on disk are older than the grades."""
        self._folder = folder
        self._facts = read_metadata(folder.grades_path)
        if self.is_behind:
            self._check_same_rows()

    @property
    def n_attempts(self) -> int | None:
        """How many attempts of attempts.parquet the results know, which a crash may have left behind; None for all."""
        told = read_metadata(self._folder.results_path).get(N_ATTEMPTS)
        return None if told is None else int(told)

    @property
    def grades_digest(self) -> str | None:
        """Digest of the grades; None when the file names none."""
        return self._facts.get("grades_digest")

    @property
    def facts(self) -> dict[str, str]:
        """What the grades' file says of the run: run_id, digests, the gate that was asked for."""
        return {key: value for key, value in self._facts.items() if key not in _MADE_BY_THE_WRITER}

    @property
    def grades_path(self) -> Path:
        """One row per row and grader."""
        return self._folder.grades_path

    def scan(self) -> Iterator[ResultAndGrades]:
        """Yield each row of the results with its grades, in plan order; score and verdict are those of the grades."""
        for row, grades in scan_graded_rows(self._folder):
            if self.is_behind:
                row["score"], row["passed"] = combine_grades(
                    (grade["score"], grade["passed"], grade["weight"]) for grade in grades
                )
            yield row, grades

    def scan_verdicts(self) -> Iterator[Mapping[str, Any]]:
        """Yield `passed` of each row, in plan order: less to read than the whole rows."""
        if not self.is_behind:
            yield from scan_rows(self._folder.results_path, ["passed"])
            return
        for row, _ in self.scan():
            yield {"passed": row["passed"]}

    def scan_first(
        self, *, n_passed: int, n_others: int, columns: Sequence[str], grade_columns: Sequence[str]
    ) -> Iterator[ResultAndGrades]:
        """Yield the first rows that passed, and the first of the others, in plan order, with their grades.

        Args:
            n_passed: Most rows that passed.
            n_others: Most other rows.
            columns: Columns of the results that are needed; rows may hold more.
            grade_columns: Columns of the grades that are needed.
        """
        is_picked = pick_first(self.scan_results(), n_passed=n_passed, n_others=n_others)
        if self.is_behind:
            return compress(self.scan(), is_picked)
        return scan_picked_rows(self._folder, is_picked, columns=columns, grade_columns=grade_columns)

    def count_rows(self) -> TableCounts:
        """Return how many rows, samples, categories and repeats the results hold."""
        return count_rows(self.scan_results())

    def scan_results(self) -> "pl.LazyFrame":
        """Return the results as a lazy frame: one row per planned row; columns in docs/schema.md."""
        if not self.is_behind:
            return scan_table(self._folder.results_path)
        return make_lazy_frame(RESULTS, lambda: (row for row, _ in self.scan()))

    def mend(self) -> None:
        """Write the results anew where they are behind; the caller holds the folder's lock.

        Raises:
            StoreError: The disk refused; both files are as they were.
        """
        if self.is_behind:
            known = {} if self.n_attempts is None else {N_ATTEMPTS: str(self.n_attempts)}
            write_results(self._folder, make_graded_blocks(self.scan()), {**self.facts, **known})
            self.is_behind = False

    def _check_same_rows(self) -> None:
        """Refuse grades of other outcomes than the results: a resume that was killed while it wrote its tables."""
        n_grades = sum(1 for _ in scan_rows(self._folder.grades_path, ["row_id"]))
        if sum(self._count_fitting()) != n_grades:
            run = self._folder.run_id
            msg = f"grades.parquet of {run} holds other rows than its results.parquet: the run is being written, or "
            msg += f"was killed then. Wait for it; else make the tables anew: evalrun run JOB --resume {run}, or grade "
            msg += f"the rows that are there: evalrun grade {run}"
            raise StoreError(msg)

    def _count_fitting(self) -> Iterator[int]:
        for row, grades in scan_graded_rows(self._folder):
            if row["status"] in ANSWERED:
                yield sum(grade["request_key"] == row["request_key"] for grade in grades)
