"""Rows of a run that its job no longer has: kept in the journal, left out of the tables, and told of.

What the journal holds and which of its rows the plan still has enter; what run.json says of the others leaves. A row
that comes back unchanged is a finished row again, and nothing is asked.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from decimal import Decimal
from typing import Any

from evalrun.errors import StoreError
from evalrun.records import Outcome
from evalrun.store.folder import RunFolder
from evalrun.store.journal_index import JournalIndex
from evalrun.store.manifest import read_manifest

MAX_LISTED = 100
"""Most stale rows that run.json lists by name; all are counted."""

_NAMES = ("sample_id", "prompt", "model", "repeat")


def describe_stale(folder: RunFolder, index: JournalIndex, is_planned: bytearray) -> dict[str, Any] | None:
    """Return what run.json tells of stale rows; None when there are none.

    Args:
        folder: The run; its tables are still those of the call before.
        index: Its journal.
        is_planned: By number of the row in the index: whether the plan has it. Rows beyond its end are new.

    Returns:
        `rows`, `statuses` (rows by status), `billed_usd` (None when any is unknown) and `listed`: `row_id`,
        `sample_id`, `prompt`, `model`, `repeat` and `status` of the first ones. Names are None where no call has ended
        that had the row, since the journal knows rows by their ids only.
    """
    stale = [number for number, planned in enumerate(is_planned) if not planned]
    outcomes = (index.read_numbered(number, with_attempt=False) for number in stale)
    statuses, usd, listed = _count(outcome for outcome in outcomes if outcome is not None)
    if not statuses:
        return None
    names = _find_names(folder, set(listed))
    return {
        "rows": statuses.total(),
        "statuses": dict(statuses),
        "billed_usd": None if usd is None else round(float(usd), 12),
        "listed": [
            {"row_id": row_id, **(names.get(row_id) or dict.fromkeys(_NAMES)), "status": status}
            for row_id, status in listed.items()
        ],
    }


def _count(outcomes: Iterable[Outcome]) -> tuple[Counter[str], Decimal | None, dict[str, str]]:
    """Return rows by status, what they cost this run, and the status of the first ones by row_id."""
    statuses: Counter[str] = Counter()
    usd: Decimal | None = Decimal(0)
    listed: dict[str, str] = {}
    for outcome in outcomes:
        statuses[outcome.status.value] += 1
        usd = None if usd is None or outcome.billed_usd is None else usd + outcome.billed_usd
        if len(listed) < MAX_LISTED:
            listed[outcome.row_id] = outcome.status.value
    return statuses, usd, listed


def _find_names(folder: RunFolder, wanted: set[str]) -> Mapping[str, Mapping[str, Any]]:
    """Return the names of rows that an earlier call's tables or run.json know."""
    found: dict[str, Mapping[str, Any]] = {}
    with suppress(StoreError):  # No call has ended yet, or its files are damaged: then the ids must do.
        known = (read_manifest(folder).get("stale") or {}).get("listed", ())
        found |= {row["row_id"]: {name: row[name] for name in _NAMES} for row in known}
    # A late import: few runs have stale rows, and what reads tables takes longer to load than the rest of a run.
    from evalrun.store.parquet import scan_rows

    for path in (folder.results_path, folder.judge_path):
        with suppress(StoreError):
            for row in scan_rows(path, ["row_id", *_NAMES]):
                if row["row_id"] in wanted:
                    found[row["row_id"]] = {name: row[name] for name in _NAMES}
    return found
