"""Rows and attempts of a run, compared: differences that have a reason, and those that have none."""

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from evalrun.analysis.account import AccountTables
from evalrun.analysis.reconciliation import Reconciliation, add_sides, reconcile
from tests.analysis.arms import make_result
from tests.analysis.test_account import Book, make_failure, make_try

NOTHING = Reconciliation(
    rows_usd=Decimal(0),
    attempts_usd=Decimal(0),
    n_rows_unknown=0,
    partly_usd=Decimal(0),
    n_attempts_unknown=0,
    gone_usd=Decimal(0),
    n_gone=0,
    off_usd=Decimal(0),
    n_off=0,
)


def make_plain() -> Book:
    """Return a run of one row, answered at the second attempt."""
    book = Book()
    book.add(make_result("m", 1, True, cost_usd=0.5), make_failure(0.25), make_try(0.5))
    return book


PLAIN = replace(NOTHING, rows_usd=Decimal("0.75"), attempts_usd=Decimal("0.75"))


def add_attempt(book: Book, row_id: str, cost_usd: float | None) -> AccountTables:
    """Return the tables with one more attempt."""
    book.attempts.append({"row_id": row_id, "request_key": "k", "attempt": 9, **make_try(cost_usd)})
    return book.close()


def test_both_sides_of_a_run_are_equal() -> None:
    """Rows and attempts tell the same; judges are on both sides."""
    book = make_plain()
    assert reconcile(book.close()) == PLAIN
    book.add(make_result("j", "judged", None, cost_usd=0.125), make_try(0.125), is_judge=True)
    assert reconcile(book.close()) == replace(PLAIN, rows_usd=Decimal("0.875"), attempts_usd=Decimal("0.875"))


def test_empty_run_is_in_order() -> None:
    """No rows and no attempts are equal."""
    assert reconcile(Book().close()) == NOTHING


def test_attempts_of_a_row_that_is_gone_are_the_difference() -> None:
    """What rows took that the job no longer has stands apart, and contradicts nothing."""
    found = reconcile(add_attempt(make_plain(), "gone", 0.125))
    assert found == replace(PLAIN, attempts_usd=Decimal("0.875"), gone_usd=Decimal("0.125"), n_gone=1)


def test_row_of_unknown_sum_is_known_in_part() -> None:
    """One unknown attempt makes the row's sum unknown; the others are still on the attempts' side."""
    book = Book()
    book.add(make_result("m", 1, True, cost_usd=0.5), make_failure(None), make_try(0.5))
    half = Decimal("0.5")
    wanted = replace(NOTHING, attempts_usd=half, partly_usd=half, n_rows_unknown=1, n_attempts_unknown=1)
    assert reconcile(book.close()) == wanted


@pytest.mark.parametrize(
    ("change", "off_usd"),
    [({"billed_usd": 0.750000001}, "0.000000001"), ({"billed_usd": 0.0}, "-0.75"), ({"row_id": "another"}, "0.75")],
    ids=["more", "nothing", "another row"],
)
def test_row_that_its_attempts_do_not_bear_out_is_a_contradiction(change: dict[str, Any], off_usd: str) -> None:
    """A billionth of a dollar without a reason is found, and so is a row without attempts."""
    book = make_plain()
    book.results[0] |= change
    found = reconcile(book.close())
    assert (found.n_off, found.off_usd) == (1, Decimal(off_usd))


def test_known_sum_of_unknown_attempts_is_a_contradiction() -> None:
    """A row that names a sum though one of its attempts has none is damaged, or of another time."""
    book = make_plain()
    assert reconcile(add_attempt(book, book.results[0]["row_id"], None)).n_off == 1


def test_last_digits_of_large_amounts_are_no_contradiction() -> None:
    """Numbers that are rounded one by one differ in their last digit from their rounded sum."""
    book = Book()
    tries = [make_failure(usd) for usd in (123456.1, 654321.2, 98765.3)]
    book.add(make_result("m", 1, True, cost_usd=0.1), *tries, make_try(0.1))
    book.results[0]["billed_usd"] = 123456.1 + 654321.2 + 98765.3 + 0.1
    assert reconcile(book.close()).n_off == 0


def test_sides_of_several_runs_add_up() -> None:
    """Each sum and each count of several runs is the sum of theirs."""
    one, two = reconcile(make_plain().close()), reconcile(add_attempt(make_plain(), "gone", 0.125))
    both = add_sides([one, two])
    assert both == replace(
        PLAIN, rows_usd=Decimal("1.5"), attempts_usd=Decimal("1.625"), gone_usd=Decimal("0.125"), n_gone=1
    )
    assert add_sides([one]) == one
