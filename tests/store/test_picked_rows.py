"""Rows picked by their verdicts, and what is told of all rows without reading their texts."""

import polars as pl
import pytest

from evalrun.store.picked_rows import TableCounts, count_rows, has_hard_grades, pick_first


@pytest.mark.parametrize(("hard", "expected"), [([False, True, False], True), ([False, False], False), ([], False)])
def test_hard_grades_are_found_wherever_they_stand(hard: list[bool], expected: bool) -> None:
    """One grade of a contract is enough; no grades at all have none."""
    assert has_hard_grades(pl.LazyFrame({"hard": hard}, schema={"hard": pl.Boolean})) is expected


@pytest.mark.parametrize(
    ("n_passed", "n_others", "expected"),
    [(2, 2, [0, 1, 2, 3]), (1, 9, [0, 1, 3, 4]), (0, 1, [1]), (9, 0, [0, 2, 5]), (0, 0, [])],
)
def test_first_rows_of_each_kind_are_picked(n_passed: int, n_others: int, expected: list[int]) -> None:
    """Each kind has a limit of its own, and a row without a verdict did not pass."""
    rows = pl.LazyFrame({"passed": [True, False, True, None, False, True]})
    picked = pick_first(rows, n_passed=n_passed, n_others=n_others)
    assert picked.arg_true().to_list() == expected


def test_counts_tell_samples_apart_by_their_neighbours() -> None:
    """Rows of one sample stand together; null is no category."""
    rows = pl.LazyFrame(
        {
            "sample_id": ["a", "a", "b", "c", "c"],
            "passed": [True, None, False, True, True],
            "category": [None, None, "x", "y", "x"],
            "repeat": [0, 1, 0, 0, 1],
        }
    )
    assert count_rows(rows) == TableCounts(n_rows=5, n_not_passed=2, n_samples=3, n_categories=2, n_repeats=2)
