"""A send rate learned from refusals, for a server that does not say its limit: CUBIC, as congestion control knows it.

Sends and refusals enter with their times, a rate leaves; None until the first refusal. After a refusal the rate is cut
below what was let in, comes back to it, stays near it for a while, and then asks for more, ever faster. Invariant: the
rate is the one after the cut, or else at most twice what is let in.

Source: COST_AND_PACING 4.1, on botocore's adaptive retry mode: the measured rate, the cut to 0.7, at most twice what is
measured. Its growth is counted in requests/s per s³, so that 2 s after a cut at 10/s it asks for more again, and each
time costs a refusal. Here the curve is stretched in time instead.
"""

from collections import deque
from typing import Final

CUT: Final = 0.7
"""Share of the measured rate that is left after a refusal (CUBIC's beta)."""
MAX_OVER_MEASURED: Final = 2.0
"""The rate stays below so many times what really leaves: a limit that nobody tries is not known to be there."""
REGAIN_S: Final = 10.0
"""From a cut back to the rate that was refused. Each cycle costs a refusal or more."""
REGAIN_REQUESTS: Final = 10.0
"""A slow lane regains its rate over at least so many requests, else each one would be another attempt to get more."""
MAX_REGAIN_S: Final = 60.0
"""But not later than this: most limits are counted by the minute."""
FIRST_PER_S: Final = 1.0
"""Rate to go on with when nothing was ever let in: one request tells as much as ten."""
MIN_PER_S: Final = 1 / 60
"""Slowest learned rate; botocore's 0.5/s is six times too fast for a key of 5 requests per minute."""
SLOW_DOUBLING_S: Final = 60.0
"""After `slow_down` the rate doubles no faster: such servers watch its growth, not its height. How much growth they
bear is not told (OpenAI's advice is a quarter of an hour for half as much again), so each further one doubles this."""
MAX_SLOW_DOUBLING_S: Final = 960.0

_MEASURED_S: Final = 3.0
_MEASURED_REQUESTS: Final = 6
_KEPT_S: Final = 120.0


class LearnedRate:
    """The rate at which a lane may send, as far as refusals have taught it."""

    def __init__(self) -> None:
        self._seconds: deque[list[int]] = deque(maxlen=int(_KEPT_S))
        self._first_s: float | None = None
        self._target_per_s: float | None = None
        self._cut_at_s = 0.0
        self._doubling_s: float | None = None

    @property
    def is_learned(self) -> bool:
        """True once there is a rate to keep."""
        return self._target_per_s is not None

    @property
    def is_slow(self) -> bool:
        """True once the server complained of growth."""
        return self._doubling_s is not None

    def note_sent(self, now_s: float) -> None:
        """Count a request that leaves."""
        if self._first_s is None:
            self._first_s = now_s
        second = int(now_s // 1)
        if self._seconds and self._seconds[-1][0] >= second:
            self._seconds[-1][1] += 1
        else:
            self._seconds.append([second, 1])

    def note_refused(self, sent_at_s: float) -> None:
        """Take back a request that was not let in; it says nothing about how many are."""
        second = int(sent_at_s // 1)
        for entry in reversed(self._seconds):
            if entry[0] <= second:
                entry[1] -= entry[1] > 0
                return

    def cut(self, now_s: float, *, reopens_at_s: float, is_slow: bool) -> float:
        """Lower the rate, and return what it is at the re-opening.

        Args:
            now_s: Monotonic time.
            reopens_at_s: When the lane may send again; growth begins there.
            is_slow: Whether the server complained of growth; from then on it is slow for good.
        """
        if is_slow:
            doubling_s = SLOW_DOUBLING_S if self._doubling_s is None else 2 * self._doubling_s
            self._doubling_s = min(doubling_s, MAX_SLOW_DOUBLING_S)
        target_per_s = self._measure(now_s) or FIRST_PER_S
        if self._target_per_s is not None:
            target_per_s = min(target_per_s, self._compute(now_s))
        self._target_per_s = max(MIN_PER_S, target_per_s)
        self._cut_at_s = reopens_at_s
        return CUT * self._target_per_s

    def forget(self) -> None:
        """Keep no rate until the next refusal: the refusals so far had nothing to do with it."""
        self._target_per_s = None

    def hold(self, reopens_at_s: float) -> None:
        """Begin growing from the cut rate again, at the given time: a refusal of all taught nothing about the rate."""
        self._cut_at_s = reopens_at_s

    def rate_per_s(self, now_s: float) -> float | None:
        """Return the rate as of now; None when none was learned."""
        if self._target_per_s is None:
            return None
        least = CUT * self._target_per_s
        return max(least, min(self._compute(now_s), MAX_OVER_MEASURED * self._measure(now_s)))

    def _compute(self, now_s: float) -> float:
        assert self._target_per_s is not None  # Both callers have looked.
        elapsed_s = max(0.0, now_s - self._cut_at_s)
        if self._doubling_s is not None:
            return float(CUT * self._target_per_s * 2 ** min(elapsed_s / self._doubling_s, 64))
        regain_s = min(max(REGAIN_S, REGAIN_REQUESTS / self._target_per_s), MAX_REGAIN_S)
        return self._target_per_s * (1 + (1 - CUT) * (elapsed_s / regain_s - 1) ** 3)

    def _measure(self, now_s: float) -> float:
        """Return how many requests per second were let in lately: over 3 s, or as long as it takes for 6 of them."""
        n_let_in, begin_s = 0, now_s - _KEPT_S
        for second, n in reversed(self._seconds):
            if second < begin_s:
                break
            n_let_in += n
            if n_let_in >= _MEASURED_REQUESTS and now_s - second >= _MEASURED_S:
                begin_s = float(second)
                break
        if self._first_s is not None:
            begin_s = max(begin_s, self._first_s)
        return n_let_in / max(1.0, now_s - begin_s)
