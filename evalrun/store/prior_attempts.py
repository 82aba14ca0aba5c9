"""What a row took before its answer: the attempts that a run made for it already, whatever they asked.

A journal's index and a row enter; the number of its attempts leaves, and what they cost.
"""

from dataclasses import replace
from decimal import Decimal
from typing import NamedTuple

from evalrun.records import FINISHED, Request
from evalrun.store.journal_index import Entry, JournalIndex


class Prior(NamedTuple):
    """What a run did for a row until now."""

    attempts: int
    billed_usd: Decimal | None
    """What those cost; None when unknown."""
    is_estimated: bool = False
    """Whether an estimate is part of that."""


def read_prior(index: JournalIndex, row_id: str, entry: Entry | None) -> Prior:
    """Return the attempts that a run made for a row, and what they cost.

    Args:
        index: The run's journal.
        row_id: The row.
        entry: What the index knows of it; None when it never saw it.
    """
    if entry is None:
        return Prior(0, Decimal(0))
    if entry.status not in FINISHED:
        return Prior(entry.attempts, entry.billed_usd, entry.is_billed_estimated)
    outcome = index.read_outcome(row_id, with_attempt=False)
    until_then = outcome.billed_usd if outcome is not None else None
    since = index.find_later_cost(row_id)
    billed_usd = None if until_then is None or since is None else until_then + since
    return Prior(entry.attempts, billed_usd, entry.is_billed_estimated)


def add_prior(request: Request, index: JournalIndex, entry: Entry | None) -> Request:
    """Return a request that knows what its row took until now; the arguments are as for `read_prior`."""
    if entry is None:
        return request
    attempts, billed_usd, is_estimated = read_prior(index, request.row_id, entry)
    return replace(request, prior_attempts=attempts, prior_billed_usd=billed_usd, is_prior_estimated=is_estimated)
