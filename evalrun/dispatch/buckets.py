"""A rate as a balance that fills steadily: how much may leave now, and when the next may.

Amounts and times enter, the time from which more may leave comes out. Admission is by debt: a bucket is open while its
balance is above 0, and taking may push it below. Nobody needs to know the next amount before it is taken, and one that
is larger than a whole minute's passes too. Invariant: in any span of T seconds no more is taken, less what is given
back, than the burst, the rate times T, and one last amount.
"""

_OPEN = 1e-6
"""Balance at which a bucket opens: just above 0, since sums of floats do not come out even."""


class RateBucket:
    """How much of one limit may leave.

    Args:
        per_minute: The rate, above 0.
        burst_s: Seconds of the rate that are saved up at most while nothing leaves; with 0, single amounts leave.
        now_s: Monotonic time; the bucket begins with all that it can save.
    """

    __slots__ = ("_balance", "_burst_s", "_capacity", "_filled_at_s", "_per_s")

    def __init__(self, per_minute: float, *, burst_s: float = 1.0, now_s: float) -> None:
        self._burst_s = burst_s
        self.per_minute = per_minute
        self._filled_at_s = now_s
        self._balance = self._capacity

    @property
    def per_minute(self) -> float:
        """The rate. A new one keeps the balance, and holds from the last call on that was given a time."""
        return self._per_s * 60

    @per_minute.setter
    def per_minute(self, per_minute: float) -> None:
        self._per_s = per_minute / 60
        self._capacity = max(_OPEN, self._per_s * self._burst_s)

    def opens_at_s(self, now_s: float) -> float:
        """Return the time from which more may be taken; not after `now_s` when that is now."""
        self._refill(now_s)
        if self._balance >= _OPEN / 2:
            return self._filled_at_s
        return self._filled_at_s + (_OPEN - self._balance) / self._per_s

    def take(self, amount: float, now_s: float) -> None:
        """Take an amount; what is not there is owed."""
        self._refill(now_s)
        self._balance -= amount

    def give_back(self, amount: float, now_s: float) -> None:
        """Return what was taken and not used, at once and in full; below 0, take what was used and not taken."""
        self._refill(now_s)
        self._balance += amount

    def lower_to(self, balance: float, now_s: float) -> None:
        """Forget what is saved up above the given balance, 0 or more: the other side says that there is no more."""
        self._refill(now_s)
        self._balance = min(self._balance, max(balance, _OPEN))

    def hold_until(self, until_s: float, now_s: float) -> None:
        """Open no earlier than the given time, with nothing saved up; debts are paid off meanwhile."""
        self._refill(now_s)
        if until_s > self._filled_at_s:
            self._balance = min(_OPEN, self._balance + (until_s - self._filled_at_s) * self._per_s)
            self._filled_at_s = until_s

    def _refill(self, now_s: float) -> None:
        """Add what the time since has brought, up to what may be saved; what was given back may stand above that."""
        if now_s > self._filled_at_s:
            filled = min(self._capacity, self._balance + (now_s - self._filled_at_s) * self._per_s)
            self._balance = max(self._balance, filled)
            self._filled_at_s = now_s
