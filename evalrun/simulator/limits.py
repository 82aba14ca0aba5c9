"""Rate limits and quota of one simulated model: who is let in now, who is refused, and for how long.

Enters: the options, the time of a clock that never goes back, what a request asks for. Leaves: nothing, or a denial
with the refusal in OpenAI's words and the wait after which asking again succeeds. A pure state machine: it reads no
clock and sleeps never. Kept always: a request that waits as told does not meet the same limit again, unless others came
first.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from operator import itemgetter
from typing import Final, Literal

from evalrun.options import SimulatedLimits
from evalrun.simulator.refusal import Refusal

RAMP_WINDOW_S: Final = 10.0
"""Windows that `max_growth` compares."""

RAMP_FREE_REQUESTS: Final = 10
"""Requests in a window that are no ramp, however few there were in the one before."""

CONCURRENCY_WAIT_S: Final = 1.0
"""What a client over the concurrency limit is told to wait: nobody knows when a request ends."""

DAY_MINUTES: Final = 1440
SLACK: Final = 1e-6
"""Of a request, a token, a second: sums of floats do not come out even."""


Kind = Literal["requests", "tokens"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Denial:
    """Why a request is not let in."""

    refusal: Refusal
    wait_s: float | None = None
    """Until asking again may succeed; None = waiting does not help."""
    is_quota: bool = False
    """True when the quota is spent; else it is a matter of rates."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """What one limit still lets through, as rate-limit headers tell it."""

    per_minute: float
    remaining: float
    """0 at least."""
    reset_s: float
    """Until all of it is there again, if nobody asks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowances:
    """The limits of one model that have one; None = no such limit."""

    requests: Allowance | None = None
    tokens: Allowance | None = None
    requests_of_day: Allowance | None = None
    """The same rate counted by the day, which is how some vendors tell it."""


class Limiter:
    """Lets requests to one model in, or denies them.

    Args:
        options: The limits.
        model: Its id, for the messages.
    """

    def __init__(self, options: SimulatedLimits, model: str) -> None:
        self._options = options
        self._model = model
        window_s = options.window_s
        per_minute, tokens_per_minute = options.requests_per_minute, options.tokens_per_minute
        self._requests = None if per_minute is None else _Bucket(per_minute, window_s=window_s)
        self._tokens = None if tokens_per_minute is None else _Bucket(tokens_per_minute, window_s=window_s)
        self._day = None if per_minute is None else _Bucket(per_minute, n_minutes=DAY_MINUTES)
        self._ramp = None if options.max_growth is None else _Ramp(options.max_growth)
        self._n_in_flight = 0
        self._spent_tokens = 0

    @property
    def has_token_limit(self) -> bool:
        """True when `admit` looks at the tokens of a request; counting them can be spared otherwise."""
        return self._tokens is not None

    def admit(self, now_s: float, *, tokens: int = 0) -> Denial | None:
        """Let a request in and take what it asks for, or tell why not; a request let in must `leave`.

        Args:
            now_s: Of a clock that never goes back.
            tokens: Prompt, and as much output as the request allows.
        """
        if self._options.quota_tokens is not None and self._spent_tokens >= self._options.quota_tokens:
            return Denial(refusal=_QUOTA_SPENT, is_quota=True)
        denial = self._deny_by_rate(now_s, tokens)
        if denial is not None:
            if not self._options.rejected_count:
                return denial
            self._take(now_s, tokens, is_refused=True)
            return self._deny_by_rate(now_s, tokens) or denial
        self._take(now_s, tokens)
        if self._ramp is not None:
            self._ramp.take(now_s)
        self._n_in_flight += 1
        return None

    def leave(self) -> None:
        """Count a request that was let in as over."""
        self._n_in_flight -= 1

    def charge(self, now_s: float, tokens: int) -> None:
        """Take tokens that were not known when the request was let in; what is not there is owed."""
        if self._tokens is not None:
            self._tokens.take(now_s, tokens)

    def bill(self, tokens: int) -> None:
        """Count tokens to the quota."""
        self._spent_tokens += tokens

    def read(self, now_s: float) -> Allowances:
        """Return what each limit still lets through."""
        buckets = {"requests": self._requests, "tokens": self._tokens, "requests_of_day": self._day}
        told = {name: bucket.read(now_s) for name, bucket in buckets.items() if bucket is not None}
        return Allowances(**told)

    def _take(self, now_s: float, tokens: int, *, is_refused: bool = False) -> None:
        for bucket, amount in ((self._requests, 1), (self._tokens, tokens), (self._day, 1)):
            if bucket is not None:
                bucket.take(now_s, amount, is_refused=is_refused)

    def _deny_by_rate(self, now_s: float, tokens: int) -> Denial | None:
        if self._ramp is not None and not self._ramp.has_room(now_s):
            return Denial(refusal=_SLOW_DOWN, wait_s=self._ramp.wait_s(now_s))
        most = self._options.concurrency
        if most is not None and self._n_in_flight >= most:
            message = (
                f"Rate limit reached for {self._model} in organization {_ORGANIZATION} on concurrent requests: "
                f"Limit {most}, Used {self._n_in_flight}, Requested 1. Please try again when one of them has ended."
            )
            return Denial(refusal=_make_rate_refusal(message, "requests"), wait_s=CONCURRENCY_WAIT_S)
        if self._tokens is not None and tokens > self._tokens.per_minute:
            return self._deny_too_large(tokens, self._tokens.per_minute)
        return self._deny_by_bucket(now_s, tokens)

    def _deny_by_bucket(self, now_s: float, tokens: int) -> Denial | None:
        """Name the limit that lasts longest."""
        asked: tuple[tuple[Kind, _Bucket | None, int], ...] = (
            ("requests", self._requests, 1),
            ("tokens", self._tokens, tokens),
        )
        waits = [(bucket.wait_s(now_s, n), kind, bucket, n) for kind, bucket, n in asked if bucket is not None]
        worst = max(waits, key=itemgetter(0), default=None)
        if worst is None or worst[0] <= 0:
            return None
        wait_s, kind, bucket, amount = worst
        limit = bucket.per_minute
        message = (
            f"Rate limit reached for {self._model} in organization {_ORGANIZATION} on {_KINDS[kind]}: "
            f"Limit {limit:g}, Used {math.ceil(min(limit, limit - bucket.level))}, Requested {amount}. "
            f"Please try again in {write_duration(wait_s)}. {_VISIT}"
        )
        return Denial(refusal=_make_rate_refusal(message, kind), wait_s=wait_s)

    def _deny_too_large(self, tokens: int, limit: float) -> Denial:
        message = (
            f"Request too large for {self._model} in organization {_ORGANIZATION} on {_KINDS['tokens']}: "
            f"Limit {limit:g}, Requested {tokens}. The input or output tokens must be reduced in order to run "
            f"successfully. {_VISIT}"
        )
        return Denial(refusal=_make_rate_refusal(message, "tokens"))


class _Bucket:
    """What a limit lets through: full at first, refilled steadily or at the windows' borders.

    A full bucket lets through even what is more than it holds, and owes the rest: a request larger than a window's
    share would else never pass.
    """

    __slots__ = ("_capacity", "_filled_at_s", "_per_s", "_window_s", "level", "per_minute")

    def __init__(self, per_minute: float, *, window_s: float | None = None, n_minutes: int = 1) -> None:
        self.per_minute = per_minute
        self._per_s = per_minute / 60
        self._window_s = window_s
        self._capacity = per_minute * n_minutes if window_s is None else self._per_s * window_s
        self._filled_at_s = -math.inf
        self.level = self._capacity
        """What is there as of the last call; below 0 it is owed."""

    def take(self, now_s: float, amount: float, *, is_refused: bool = False) -> None:
        """Take an amount; a refused request takes at most what is there."""
        self._refill(now_s)
        least = min(self.level, 0.0) if is_refused else -math.inf
        self.level = max(least, self.level - amount)

    def wait_s(self, now_s: float, amount: float) -> float:
        """Return how long until an amount can be taken; 0 = now."""
        self._refill(now_s)
        return self._wait_for(now_s, min(amount, self._capacity))

    def read(self, now_s: float) -> Allowance:
        """Return what is there."""
        self._refill(now_s)
        return Allowance(
            per_minute=self.per_minute,
            remaining=max(0.0, self.level),
            reset_s=self._wait_for(now_s, self._capacity),
        )

    def _wait_for(self, now_s: float, level: float) -> float:
        missing = level - self.level
        if missing <= SLACK:
            return 0.0
        if self._window_s is None:
            return missing / self._per_s
        n_windows = math.ceil((missing - SLACK) / self._capacity)
        return (_find_window(now_s, self._window_s) + n_windows) * self._window_s - now_s

    def _refill(self, now_s: float) -> None:
        begins_at_s = now_s
        if self._window_s is not None:
            begins_at_s = _find_window(now_s, self._window_s) * self._window_s
        if begins_at_s > self._filled_at_s:
            self.level = min(self._capacity, self.level + (begins_at_s - self._filled_at_s) * self._per_s)
            self._filled_at_s = begins_at_s


class _Ramp:
    """Lets the rate grow by a factor at most from one window to the next."""

    __slots__ = ("_max_growth", "_n_before", "_n_now", "_window")

    def __init__(self, max_growth: float) -> None:
        self._max_growth = max_growth
        self._window = -1
        self._n_before = 0
        self._n_now = 0

    def has_room(self, now_s: float) -> bool:
        """Tell whether one more request is no steeper than allowed."""
        self._turn(now_s)
        return self._n_now < max(RAMP_FREE_REQUESTS, self._n_before * self._max_growth)

    def take(self, now_s: float) -> None:
        """Count a request that was let in."""
        self._turn(now_s)
        self._n_now += 1

    def wait_s(self, now_s: float) -> float:
        """Return how long until the next window."""
        return (_find_window(now_s, RAMP_WINDOW_S) + 1) * RAMP_WINDOW_S - now_s

    def _turn(self, now_s: float) -> None:
        window = _find_window(now_s, RAMP_WINDOW_S)
        if window > self._window:
            self._n_before = self._n_now if window == self._window + 1 else 0
            self._n_now = 0
            self._window = window


def _find_window(now_s: float, window_s: float) -> int:
    """Return the number of the window that `now_s` is in; who waited for its border is behind it."""
    return math.floor((now_s + SLACK) / window_s)


def write_duration(duration_s: float, *, decimals: int = 3) -> str:
    """Return a duration as Go writes it and OpenAI's headers carry it: `17ms`, `1.2s`, `6m0s`; 0 is `0s`.

    Args:
        duration_s: 0 or more; rounded up, so that who waits so long has waited enough.
        decimals: Of a second; 0 to 3.
    """
    scale = 10**decimals
    units = math.ceil(duration_s * scale - SLACK)
    minutes, rest = divmod(units, 60 * scale)
    hours, minutes = divmod(minutes, 60)
    if 0 < units < scale:
        return f"{units * 1000 // scale}ms"
    seconds = f"{rest / scale:.{decimals}f}"
    seconds = seconds.rstrip("0").rstrip(".") if decimals else seconds
    return (f"{hours}h" if hours else "") + (f"{minutes}m" if hours or minutes else "") + f"{seconds}s"


_ORGANIZATION: Final = "org-simulator"
_VISIT: Final = "Visit https://platform.openai.com/account/rate-limits to learn more."
_KINDS: Final[Mapping[str, str]] = {"requests": "requests per min (RPM)", "tokens": "tokens per min (TPM)"}
_QUOTA_SPENT: Final = Refusal(
    message=(
        "You exceeded your current quota, please check your plan and billing details. For more information on this "
        "error, read the docs: https://platform.openai.com/docs/guides/error-codes/api-errors."
    ),
    code="insufficient_quota",
    status=429,
    kind="insufficient_quota",
)
_SLOW_DOWN: Final = Refusal(
    message=(
        "Slow down: a sudden increase in your request rate is impacting service reliability. Please reduce your rate "
        "to its original level, keep it there, then increase it gradually."
    ),
    code="slow_down",
    status=503,
    kind="service_unavailable_error",
)


def _make_rate_refusal(message: str, kind: Kind) -> Refusal:
    return Refusal(message=message, code="rate_limit_exceeded", status=429, kind=kind)
