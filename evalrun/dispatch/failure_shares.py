"""How often attempts fail on a lane when it is up, and how surprising a run of failures is then.

Answers and settled failures enter; surprise leaves, in nats: minus the logarithm of a chance. A share is kept for each
number of attempts that a row has behind it. A row that the server fails whenever it sees it is retried, and at the end
of a plan only such rows are left: all fail, and yet it is no outage. Where such rows exist, nearly all fifth attempts
fail, so that a failed one says next to nothing; where failures come at random, it says as much as any other.
"""

import math
from collections.abc import Sequence
from typing import Final

N_KINDS: Final = 5
"""Attempts told apart: the first to the fourth, and all later ones."""

_QUICK_FLOOR: Final = 0.5
"""Least failure share that is reckoned with, as a rule: a lane that was clean may turn into a flapping one."""
_SLOW_FLOOR: Final = 0.1
"""The same for first attempts that took long to fail: each further failure costs more than a needless pause."""
_PART_FLOOR: Final = 0.03
"""The same where some are still out: it only slows a lane down, until the next answer."""
_CEILING: Final = 0.8
"""Largest failure share of first attempts that is reckoned with: a lane that fails more often than that is down more
than it is up, and 62 failures in a row are an outage whatever came before."""
_RETRY_CEILING: Final = 0.98
"""The same for retries, where a share near 1 is what rows that always fail look like."""

_REMEMBERED: Final = 200
"""Attempts after which the past has faded to 1/e: a lane that turns from clean to flapping is known within so many."""
_FADING: Final = 1 - 1 / _REMEMBERED
_MARGIN_SDS: Final = 2.0
"""Standard deviations by which the failure share is taken for larger than it was seen to be."""
_N_PRIOR: Final = 10
"""Attempts that the first guess of a share is worth."""
_FIRST_GUESS: Final = 0.5
_RETRY_GUESS: Final = 0.9
"""Until retries were seen to be answered, they are taken for rows that always fail."""


def find_kind(attempt: int) -> int:
    """Return the kind, 0-based, of a row's attempt, 1-based."""
    return min(max(attempt, 1), N_KINDS) - 1


class FailureShares:
    """What part of a lane's attempts fails, by kind."""

    def __init__(self) -> None:
        self._shares = [_Share(_RETRY_GUESS if kind else _FIRST_GUESS) for kind in range(N_KINDS)]

    def note_answered(self, kind: int) -> None:
        """Count an attempt that was answered."""
        self._shares[kind].n_answered += 1

    def note_failed(self, n_failed: Sequence[int]) -> None:
        """Count failures, by kind, that were no outage."""
        for share, n in zip(self._shares, n_failed, strict=True):
            if n:
                share.add_failed(n)

    def measure_run(self, n_failed: Sequence[int], *, is_slow: bool) -> float:
        """Return how surprising it is, if there is no outage, that these and no others came back.

        Args:
            n_failed: Failures in a row, by kind.
            is_slow: True when the first attempts among them took long to fail.
        """
        return -sum(n * math.log(self._bound(kind, is_slow=is_slow)) for kind, n in enumerate(n_failed) if n)

    def measure_part(self, n_failed: int, n: int) -> float:
        """Return how surprising it is, if there is no outage, that so many of n first attempts have failed.

        Chernoff's bound: the chance of a share of at least q where p is expected is at most exp(-n KL(q, p)).
        """
        expected = min(max(self._shares[0].guess_upper(), _PART_FLOOR), _CEILING)
        if n_failed <= expected * n:
            return 0.0
        seen = n_failed / n
        others = 0.0 if n_failed == n else (1 - seen) * math.log((1 - seen) / (1 - expected))
        return n * (seen * math.log(seen / expected) + others)

    def _bound(self, kind: int, *, is_slow: bool) -> float:
        share = self._shares[kind].guess_upper()
        if kind:
            return min(max(share, _QUICK_FLOOR), _RETRY_CEILING)
        return min(max(share, _SLOW_FLOOR if is_slow else _QUICK_FLOOR), _CEILING)


class _Share:
    """The share of attempts that fail, with the past fading away."""

    __slots__ = ("_n", "_n_failed", "n_answered")

    def __init__(self, first_guess: float) -> None:
        self.n_answered = 0
        """Attempts answered since a failure was last added or the share asked for; counted, and weighed only then."""
        self._n = float(_N_PRIOR)
        self._n_failed = first_guess * _N_PRIOR

    def add_failed(self, n: int) -> None:
        """Count attempts that failed; at least one."""
        self._add_answered()
        self._n_failed = self._n_failed * _FADING**n + self._add(n)

    def guess_upper(self) -> float:
        """Return the upper end of what the share may be; above 1 when little is known."""
        self._add_answered()
        share = self._n_failed / self._n
        return share + _MARGIN_SDS * math.sqrt(max(0.0, share * (1 - share)) / self._n)

    def _add_answered(self) -> None:
        if self.n_answered:
            self._n_failed *= _FADING**self.n_answered
            self._add(self.n_answered)
            self.n_answered = 0

    def _add(self, n: int) -> float:
        """Count attempts, and return what they weigh: each fades as the next one comes."""
        faded = _FADING**n
        weight = (1 - faded) / (1 - _FADING)
        self._n = self._n * faded + weight
        return weight
