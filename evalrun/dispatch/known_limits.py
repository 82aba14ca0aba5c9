"""Limits that the job gives or headers tell, paced below what they allow; and how a server counts tokens.

Amounts and times enter, the time from which more may leave comes out. A limit that is not known holds nothing back.
"""

import math
from typing import Final

from evalrun.dispatch.buckets import RateBucket

KNOWN_SHARE: Final = 0.95
"""Share of a known limit that is used. The rest pays for clocks and networks that make requests arrive in bunches, and
for servers that count a minute otherwise than we do."""
BURST_S: Final = 0.25
"""Seconds of a rate that may be saved up: enough to make good for a late wake-up, too little to pass a limit that is
enforced by the second."""
FIRST_BELIEF_S: Final = 300.0
"""Two refusals within this time make us believe that tokens count as asked for; so long, then for twice that."""
MAX_BELIEF_S: Final = 3600.0


class KnownLimit:
    """A limit that is known, or may become so.

    Args:
        per_minute: As the job gives it; None = unknown, headers may tell it.
        now_s: Monotonic time.
        burst_s: Seconds of it that may be saved up.
    """

    def __init__(self, per_minute: float | None, now_s: float, *, burst_s: float = BURST_S) -> None:
        self.per_minute = per_minute
        """The limit as told, not as paced; None = unknown."""
        self._is_given = per_minute is not None
        self._burst_s = burst_s
        self._bucket: RateBucket | None = None
        if per_minute is not None:
            self._bucket = self._make_bucket(per_minute, now_s)

    def learn(self, per_minute: float | None, now_s: float) -> bool:
        """Take a limit from headers, unless the job gives one; return whether that changed anything."""
        if per_minute is None or self._is_given or per_minute == self.per_minute:
            return False
        self.per_minute = per_minute
        if self._bucket is None:
            self._bucket = self._make_bucket(per_minute, now_s)
        else:
            self._bucket.opens_at_s(now_s)
            self._bucket.per_minute = per_minute * KNOWN_SHARE
        return True

    def opens_at_s(self, now_s: float) -> float:
        """Return the time from which more may be taken; not after `now_s` when that is now."""
        return now_s if self._bucket is None else self._bucket.opens_at_s(now_s)

    def take(self, amount: float, now_s: float) -> None:
        """Take an amount; what is not there is owed."""
        if self._bucket is not None:
            self._bucket.take(amount, now_s)

    def give_back(self, amount: float, now_s: float) -> None:
        """Return what was taken and not used; below 0, take what was used and not taken."""
        if self._bucket is not None:
            self._bucket.give_back(amount, now_s)

    def lower_to(self, balance: float, now_s: float) -> None:
        """Forget what is saved up above the given balance."""
        if self._bucket is not None:
            self._bucket.lower_to(balance, now_s)

    def hold_until(self, until_s: float, now_s: float) -> None:
        """Open no earlier than the given time, with nothing saved up."""
        if self._bucket is not None:
            self._bucket.hold_until(until_s, now_s)

    def _make_bucket(self, per_minute: float, now_s: float) -> RateBucket:
        return RateBucket(per_minute * KNOWN_SHARE, burst_s=self._burst_s, now_s=now_s)


class AskedCount:
    """Whether the server counts the tokens that a request asks for, not those that it uses.

    OpenAI does, others do not, and nobody says it. It is believed once refusals come while we send more than the limit
    by that count; if wrongly, the lane is slower than it might be, so the belief is tried again after a while.
    """

    def __init__(self, per_minute: float | None, now_s: float) -> None:
        self.limit = KnownLimit(per_minute, now_s, burst_s=1.0)
        """The limit of tokens by that count; nothing waits for it."""
        self._suspected_s = -math.inf
        self._believed_until_s = -math.inf
        self._belief_s = FIRST_BELIEF_S

    def is_believed(self, now_s: float) -> bool:
        """Tell whether tokens that were asked for and not used are lost."""
        return now_s < self._believed_until_s

    def note_refused(self, now_s: float) -> bool:
        """Note the first refusal of an episode, and return whether it turned the belief."""
        if self.is_believed(now_s) or self.limit.opens_at_s(now_s) <= now_s:
            return False
        if now_s > self._suspected_s + FIRST_BELIEF_S and self._belief_s == FIRST_BELIEF_S:
            self._suspected_s = now_s
            return False
        self._believed_until_s = now_s + self._belief_s
        self._belief_s = min(2 * self._belief_s, MAX_BELIEF_S)
        return True
