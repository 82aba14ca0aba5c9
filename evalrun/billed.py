"""What attempts took: the figures that an arm and a whole run have alike.

A record of its own, since both are made without it, from the rows, and get it from the attempts afterwards.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Billed:
    """USD of attempts. All is None until the attempts were looked at (`analysis/account`)."""

    billed_usd: float | None = None
    """What the attempts took in this run, as far as it is known; None when nothing of it is known. That of a whole run
    includes rows that its job no longer has."""
    wasted_usd: float | None = None
    """The part of attempts that gave no outcome: failed, of a question that was edited since, of rows that are gone."""
    estimated_usd: float | None = None
    """The part that rests on estimated tokens."""
    n_billed_unknown: int = 0
    """Attempts of unknown cost."""
