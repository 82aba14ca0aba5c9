"""What runs took, from their folders: the account that the command, Python, run.json and the reports share.

Run folders enter; a summary with its money, or any grouping of several runs' requests and how their tables agree,
leave. Reading changes nothing.
"""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalrun.analysis.account import KEYS, AccountTables, add_up, complete_summary
from evalrun.analysis.reconciliation import Reconciliation, add_sides, reconcile
from evalrun.analysis.summary import summarize
from evalrun.errors import UsageError
from evalrun.records import Summary
from evalrun.run_tables import RunTables
from evalrun.store.folder import RunFolder
from evalrun.store.manifest import read_manifest
from evalrun.store.parquet import read_metadata, scan_table

if TYPE_CHECKING:
    import polars as pl

_TOLERANCE_USD = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class RunCheck:
    """One run of an account, and how its tables and its summary agree."""

    folder: RunFolder
    manifest: Mapping[str, Any]
    sums: Reconciliation
    summary_usd: float | None
    """What run.json says was billed; None when an older evalrun wrote it, or nothing is known."""

    @property
    def n_in_doubt(self) -> int:
        """Requests that were in flight at a crash: billed or not is unknown, and no table has them."""
        found = (self.manifest.get("in_doubt"), self.manifest.get("asked_again_after_doubt"))
        return sum(count for count in found if isinstance(count, int))

    @property
    def agrees(self) -> bool:
        """Whether rows, attempts and summary tell the same, but for differences that have a reason."""
        if self.sums.n_off:
            return False
        difference = float(self.sums.attempts_usd) - (self.summary_usd or 0.0)
        return self.summary_usd is None or abs(difference) <= _TOLERANCE_USD * max(1.0, abs(self.summary_usd))


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What runs took."""

    groups: "pl.DataFrame"
    """As `analysis.account.add_up` returns them."""
    total: Mapping[str, Any]
    """The same figures over all groups."""
    checks: tuple[RunCheck, ...]
    """One for each run."""

    @property
    def sums(self) -> Reconciliation:
        """Both sides of the money of all runs."""
        return add_sides(check.sums for check in self.checks)

    @property
    def is_simulated(self) -> bool:
        """Whether any of it was asked of a simulator."""
        return any(check.manifest.get("is_simulated") for check in self.checks)


def summarize_run(folder: RunFolder, tables: RunTables, *, is_simulated: bool) -> Summary:
    """Return the figures of a run, with what was billed; that is None where attempts.parquet was taken away.

    Args:
        folder: The run.
        tables: Its tables.
        is_simulated: Whether any endpoint was a simulator.

    Raises:
        StoreError: attempts.parquet or judge.parquet cannot be read.
    """
    summary = summarize(tables.scan_results(), tables.grades_path, is_simulated=is_simulated)
    return complete_summary(summary, open_tables(folder, tables)) if folder.attempts_path.exists() else summary


def load_account(folders: Sequence[RunFolder], by: Sequence[str] = ()) -> Account:
    """Return what runs took together.

    Args:
        folders: Runs that have ended at least once, each one once.
        by: Some of `analysis.account.KEYS`.

    Raises:
        UsageError: A key is not among them.
        StoreError: A table cannot be read.
    """
    check_keys(by)
    runs = [open_tables(folder, RunTables(folder)) for folder in folders]
    checks = tuple(_check(folder, run) for folder, run in zip(folders, runs, strict=True))
    figures = add_up(runs, by)
    return Account(groups=figures.groups, total=figures.total.row(0, named=True), checks=checks)


def check_keys(by: Sequence[str]) -> None:
    """Refuse what requests cannot be grouped by.

    Raises:
        UsageError: Names the unknown key, and the one that was meant.
    """
    for key in by:
        if key not in KEYS:
            near = difflib.get_close_matches(key, KEYS, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise UsageError(f"usage cannot be told by {key!r}", hint=f"{hint}There are: {', '.join(KEYS)}")


def open_tables(folder: RunFolder, tables: RunTables) -> AccountTables:
    """Return the tables of a run that its account is made from.

    Raises:
        StoreError: One of them cannot be read.
    """
    attempts, n_known = _open(folder.attempts_path), tables.n_attempts
    return AccountTables(
        run_id=folder.run_id,
        results=tables.scan_results(),
        # A resume that died before its results were there had written its attempts already.
        attempts=attempts if n_known is None else attempts.head(n_known),
        judge=_open(folder.judge_path) if folder.judge_path.exists() else None,
    )


def _open(path: Path) -> "pl.LazyFrame":
    read_metadata(path)  # Says what is wrong with a file, and what to do; a lazy frame would say it later, and worse.
    return scan_table(path)


def _check(folder: RunFolder, run: AccountTables) -> RunCheck:
    manifest = read_manifest(folder)
    billed = manifest.get("totals", {}).get("billed_usd")
    usd = float(billed) if isinstance(billed, int | float) and not isinstance(billed, bool) else None
    return RunCheck(folder=folder, manifest=manifest, sums=reconcile(run), summary_usd=usd)
