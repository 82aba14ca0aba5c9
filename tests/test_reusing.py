"""What earlier calls of a run took for a row, as its next outcome will tell it."""

from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from evalrun.records import Attempt, Outcome, Started
from evalrun.store.journal import Journal, scan_journal
from evalrun.store.prior_attempts import read_prior
from tests.store.fake_records import (
    make_error,
    make_failed_attempt,
    make_folder,
    make_id,
    make_outcome,
    make_request,
    make_started,
)

CENT = Decimal("0.01")
FINISHED = make_outcome(1, billed_usd=CENT)
EDITED = make_request(1, request_key=make_id("edited"))


@pytest.mark.parametrize(
    ("records", "prior"),
    [
        ([], (0, Decimal(0))),
        ([FINISHED], (1, CENT)),
        ([FINISHED, make_started(1, 2)], (2, None)),
        ([FINISHED, make_started(1, 2), make_started(1, 3), make_failed_attempt(1, 3)], (3, None)),
        ([FINISHED, make_failed_attempt(1, 2, CENT), make_failed_attempt(1, 3, CENT)], (3, 3 * CENT)),
        ([FINISHED, make_failed_attempt(1, 2, None)], (2, None)),
        ([FINISHED, make_failed_attempt(1, 2, None), make_outcome(1, attempts=3, billed_usd=CENT)], (3, CENT)),
        ([make_error(1, billed_usd=CENT), make_failed_attempt(1, 2, CENT)], (2, 2 * CENT)),
        ([make_error(1, billed_usd=CENT), make_started(1, 2)], (2, None)),
    ],
)
def test_prior_cost_counts_what_followed_the_newest_outcome(
    tmp_path: Path, records: list[Started | Attempt | Outcome], prior: tuple[int, Decimal | None]
) -> None:
    """Attempts after a finished outcome, of a row edited since, are counted; one in flight makes the cost unknown."""
    folder = make_folder(tmp_path)
    known: list[Any] = []
    with scan_journal(folder, for_append=True) as live:
        with Journal(folder, durability="process", index=live) as journal:
            for record in records:
                journal.append(record)
        known.append(read_prior(live, EDITED.row_id, live.get(EDITED.row_id)))
    with scan_journal(folder) as scanned:
        known.append(read_prior(scanned, EDITED.row_id, scanned.get(EDITED.row_id)))
    assert known == [(*prior, False)] * 2


def test_prior_cost_that_holds_an_estimate_is_known_for_one(tmp_path: Path) -> None:
    """It stays part of what the row has cost, also when the row is finished by an outcome of another run."""
    folder = make_folder(tmp_path)
    failed = make_error(1, billed_usd=CENT, is_billed_estimated=True)
    for record in (failed, replace(FINISHED, is_billed_estimated=True)):
        with (
            scan_journal(folder, for_append=True) as index,
            Journal(folder, durability="process", index=index) as journal,
        ):
            journal.append(record)
            assert read_prior(index, EDITED.row_id, index.get(EDITED.row_id)) == (1, CENT, True)
