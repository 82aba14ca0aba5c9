"""Defects that the counts must show: each is a plausible way to make evalrun slower or fatter.

A mutant is planted into a process that is about to run a job; a seam that has moved fails here, loudly, since a guard
that finds nothing proves nothing.
"""

import os
from collections.abc import Callable
from typing import Any

from evalrun.store.journal import Journal

N_LAPS = 150
"""Laps of the extra loop, twice for each request: for its start and for its end."""


def _plant_at_append(do: Callable[[Any], object]) -> None:
    """Do something more with each record that the journal takes."""
    append = Journal.append

    def append_and_more(self: Journal, record: Any) -> Any:
        do(record)
        return append(self, record)

    Journal.append = append_and_more  # type: ignore[method-assign]


def plant_loop() -> None:
    """Walk through something small once more for each record."""
    _plant_at_append(lambda record: sum(record is None for _ in range(N_LAPS)))


def plant_kept() -> None:
    """Keep every record until the run ends."""
    kept: list[Any] = []
    _plant_at_append(kept.append)


def plant_stat() -> None:
    """Look at the disk for each record."""

    def look(record: Any) -> None:
        del record
        os.stat(os.curdir)  # noqa: PTH116 - pathlib would do more than the one system call

    _plant_at_append(look)


def plant_eager() -> None:
    """Load what only exact intervals need before anything is asked."""
    from scipy import special  # type: ignore[import-untyped]

    assert special is not None


MUTANTS: dict[str, Callable[[], None]] = {
    "loop": plant_loop,
    "kept": plant_kept,
    "stat": plant_stat,
    "eager": plant_eager,
}
"""What `probe` can plant, by name."""
