"""What a comparison of a planned size could show.

A number of samples enters, and how often two sides were seen to differ; the smallest drop that would probably show
leaves.
"""

from dataclasses import dataclass

from evalrun.analysis.stats import detectable_difference
from evalrun.job.ranges import History

ASSUMED_DISCORDANCE = 0.2
"""Share of samples on which two sides differ, where no earlier run tells."""
ALPHA, POWER = 0.05, 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanPower:
    """What a paired comparison with the run that is planned could show."""

    n_samples: int
    discordance: float
    """Share of samples on which the two sides differ."""
    learned_from: str | None
    """run_id of the run whose two best arms differ so; None when the share is assumed."""
    detectable_drop: float | None
    """Smallest drop of the pass rate that shows with 80 % power at the 5 % level, one-sided; None when even a drop from
    all to none would not."""


def estimate_power(n_samples: int, history: History | None) -> PlanPower:
    """Return what a comparison could show.

    Args:
        n_samples: Samples that both sides answer.
        history: What an earlier run of the job saw.
    """
    seen = history.discordance if history is not None else None
    # Two arms that never differed say little of how often others will.
    discordance = seen or ASSUMED_DISCORDANCE
    return PlanPower(
        n_samples=n_samples,
        discordance=discordance,
        learned_from=history.run_id if history is not None and seen else None,
        detectable_drop=detectable_difference(discordance, n_samples, alpha=ALPHA, power=POWER),
    )
