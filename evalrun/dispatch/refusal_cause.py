"""Whether refusals follow our send rate: those of an upstream pool, or of a key that others use, do not.

Sends and refusals enter with their times, a verdict leaves. A constant limit shows itself by what it lets in: whatever
its kind, a window or a bucket, it does not refuse while over every span we send far less than it has let in over an
equal one. Refusals that come nevertheless have another cause, and sending more slowly does not spare a single one of
them. Invariant: no verdict under a limit that stays as it is and is counted over a minute or less.
"""

import math
from collections import deque
from collections.abc import Sequence
from itertools import accumulate
from typing import Final

SPANS_S: Final = (4, 8, 16, 32)
"""Spans over which what left is compared with what was let in before. A limit is felt over one of them, or between:
one that is felt over less is not met by a lane that is paced evenly."""
UNEXPLAINED_SHARE: Final = 1 / 3
"""A refusal is unexplained when over each span at most this share left of what was once let in. A bucket that holds a
minute's worth lets in (60 + 32) / 32 = 2.9 times its rate over the longest span, and no limit more; with a half, a
bucket that was drained at the start is mistaken (18 of 240 trials), with a third none."""
KEPT_S: Final = 1800
"""What was let in longer ago proves nothing: providers change limits, and others come to use the key. With
ten minutes a lane half of whose requests are refused can forget its best before it has gone slowly for long enough."""
FIRST_BELIEF_S: Final = 120.0
"""A verdict holds so long, then the rate is learned anew: if the refusals still do not follow it, for twice as long.
Learning anew takes about a minute of going slowly."""
MAX_BELIEF_S: Final = 3600.0
JUDGED: Final = 60
"""Requests by which the share of refusals is judged, before a verdict and while it holds."""
MAX_RISE: Final = 0.3
"""A share that rises by more once nothing holds the lane back shows that the rate matters: the verdict was wrong, as it
is after a limit was lowered. Chance makes as much of it once in a few hundred times at the worst."""
MAX_DOUBT_S: Final = KEPT_S / 2
"""After such an error no verdict is reached for as long as the next one would hold, but not until all that was let in
is forgotten: if it was chance after all, the lane must find its way back."""


class RefusalCause:
    """Tells whether refusals have to do with the rate at which we send."""

    def __init__(self) -> None:
        self._seconds: deque[list[int]] = deque()
        """(second, sent, refused of them), the latest last."""
        self.lasts_until_s = -math.inf
        """Until when the verdict holds that the rate has nothing to do with refusals."""
        self._doubts_until_s = -math.inf
        self._belief_s = FIRST_BELIEF_S
        self._n_watched = self._n_watched_refused = 0
        self._share = 1.0
        """Of refusals, before the verdict."""

    def is_rate(self, now_s: float) -> bool:
        """Tell whether refusals are taken to be for the rate, as they are until the contrary is shown."""
        return now_s >= self.lasts_until_s

    def note_sent(self, now_s: float) -> None:
        """Count a request that leaves."""
        second = int(now_s // 1)
        seconds = self._seconds
        if seconds and seconds[-1][0] >= second:
            seconds[-1][1] += 1
        else:
            seconds.append([second, 1, 0])
            while seconds[0][0] < second - KEPT_S:
                seconds.popleft()
        self._n_watched += 1

    def note_refused(self, sent_at_s: float, now_s: float) -> None:
        """Count a request that was not let in."""
        second = int(sent_at_s // 1)
        for entry in reversed(self._seconds):
            if entry[0] <= second:
                entry[2] += entry[2] < entry[1]
                break
        self._n_watched_refused += 1
        if self._n_watched >= JUDGED:
            if not self.is_rate(now_s) and self._n_watched_refused > (self._share + MAX_RISE) * self._n_watched:
                self.lasts_until_s = now_s
                self._doubts_until_s = now_s + min(self._belief_s, MAX_DOUBT_S)
            self._n_watched = self._n_watched_refused = 0

    def find_other(self, now_s: float) -> bool:
        """Judge a refusal that came after something was let in: return whether it shows that the rate is not the cause.

        From then on nothing is, until the verdict has to be tried again.
        """
        if now_s < self._doubts_until_s or not self._is_unexplained(now_s):
            return False
        self._n_watched = self._n_watched_refused = 0
        self._share = self._find_share()
        self.lasts_until_s = now_s + self._belief_s
        self._belief_s = min(2 * self._belief_s, MAX_BELIEF_S)
        return True

    def _find_share(self) -> float:
        """Return the share of refusals among the latest requests."""
        n_sent = n_refused = 0
        for _, sent, refused in reversed(self._seconds):
            n_sent, n_refused = n_sent + sent, n_refused + refused
            if n_sent >= JUDGED:
                break
        return n_refused / n_sent

    def _is_unexplained(self, now_s: float) -> bool:
        if not self._seconds:
            return False
        first, now = self._seconds[0][0], int(now_s // 1)
        sent, let_in = [0] * (now - first + 1), [0] * (now - first + 1)
        for second, n_sent, n_refused in self._seconds:
            sent[second - first] = n_sent
            let_in[second - first] = n_sent - n_refused
        totals = [0, *accumulate(let_in)]
        # Of what left, the second that has just begun is counted too: rather too much than too little.
        return all(sum(sent[-span_s - 1 :]) <= UNEXPLAINED_SHARE * _find_most(totals, span_s) for span_s in SPANS_S)


def _find_most(totals: Sequence[int], span_s: int) -> int:
    """Return the most that was let in over any span of so many seconds."""
    return max((late - early for early, late in zip(totals, totals[span_s:], strict=False)), default=0)
