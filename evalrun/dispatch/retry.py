"""Whether a failed attempt is followed by another, and after how long: the one retry layer, decided by tenacity.

A failure and the row's tally enter, seconds to wait leave. Nothing sleeps here: the wait is an order to the dispatcher,
so that a waiting row holds no slot. The first attempt of a row costs nothing of this.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import tenacity
from tenacity.stop import stop_base
from tenacity.wait import wait_base

from evalrun.errors import ApiError, DamagedReplyError, TimedOutError, TransientError
from evalrun.options import RetryOptions
from evalrun.records import ErrorCode

MAX_DAMAGED_RETRIES = 2
"""Retries after a 200 that was no completion: each was probably billed, and a third rarely reads better."""


class _Doubt(NamedTuple):
    """A failure that counts against its row, unless it turns out to have been the whole lane's."""

    sent_at_s: float
    failed_at_s: float
    is_timeout: bool


@dataclass(slots=True, kw_only=True)
class Tries:
    """Tally of one row's attempts in this call."""

    n: int = 0
    """Attempts made."""
    n_forgiven: int = 0
    """Those that an outage of the whole lane caused: they do not count against the row."""
    n_timeouts: int = 0
    """Attempts that count and ran into a deadline after the body was sent."""
    n_damaged: int = 0
    """Attempts answered with a 200 that was no completion."""
    _doubts: list[_Doubt] = field(default_factory=list)

    @property
    def n_counted(self) -> int:
        """Attempts that count against the row."""
        return self.n - self.n_forgiven

    def note(self, error: ApiError) -> None:
        """Count the kinds of failure that have limits of their own."""
        self.n_timeouts += _is_late(error)
        self.n_damaged += isinstance(error, DamagedReplyError) or error.code == ErrorCode.ERROR_IN_200

    def forgive(self, error: ApiError) -> None:
        """Take the latest attempt, noted before, off the tally: the whole lane failed."""
        self._take_off(is_timeout=_is_late(error))

    def doubt(self, error: ApiError, sent_at_s: float, failed_at_s: float) -> None:
        """Remember when the latest attempt failed: an outage that is known only later may have been the cause."""
        self._doubts.append(_Doubt(sent_at_s, failed_at_s, _is_late(error)))

    def weigh(self, has_caused: Callable[[float, float], bool]) -> None:
        """Take off the tally what turned out to be the whole lane's.

        Args:
            has_caused: Tells it of an attempt, from when it left and when it failed.
        """
        doubts, self._doubts = self._doubts, []
        for doubt in doubts:
            if has_caused(doubt.sent_at_s, doubt.failed_at_s):
                self._take_off(is_timeout=doubt.is_timeout)
            else:
                self._doubts.append(doubt)

    def _take_off(self, *, is_timeout: bool) -> None:
        self.n_forgiven += 1
        self.n_timeouts -= is_timeout


def _is_late(error: ApiError) -> bool:
    return isinstance(error, TimedOutError) and error.was_sent


class RetryPolicy:
    """Decides over single failures.

    Args:
        options: Limits of the endpoint.
        rng: Source of the jitter.
    """

    def __init__(self, options: RetryOptions, rng: random.Random) -> None:
        # tenacity's own defaults retry for ever, at once, and wrap the error: all four are always given.
        self._machine = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(options.max_attempts) | _StopByKind(options.max_timeouts),
            wait=_WaitAsAsked(options, rng),
            retry=tenacity.retry_if_exception(_can_pass),
            reraise=True,
        )

    def decide(self, error: ApiError, tries: Tries) -> float | None:
        """Return the seconds to wait before the next attempt; None when there is to be none.

        Args:
            error: The failure of the latest attempt.
            tries: The row's tally, that attempt included.
        """
        state = tenacity.RetryCallState(self._machine, fn=None, args=(tries,), kwargs={})
        state.attempt_number = tries.n_counted
        state.set_exception((type(error), error, None))
        self._machine.begin()
        try:
            action = self._machine.iter(state)
        except ApiError:
            return None
        return float(action) if isinstance(action, tenacity.DoSleep) else None


class _StopByKind(stop_base):
    """Ends the retries of a row whose failures are of a kind that may cost money each time."""

    def __init__(self, max_timeouts: int) -> None:
        self._max_timeouts = max_timeouts

    def __call__(self, retry_state: tenacity.RetryCallState) -> bool:
        tries: Tries = retry_state.args[0]
        return tries.n_timeouts > self._max_timeouts or tries.n_damaged > MAX_DAMAGED_RETRIES


class _WaitAsAsked(wait_base):
    """Full jitter below an exponential bound, or what the server asked for when that is longer."""

    def __init__(self, options: RetryOptions, rng: random.Random) -> None:
        self._options = options
        self._rng = rng

    def __call__(self, retry_state: tenacity.RetryCallState) -> float:
        error = _get_error(retry_state)
        asked_s = error.retry_after_s if isinstance(error, ApiError) else None
        bound_s = make_backoff_bound(retry_state.attempt_number, base_s=self._options.base_s, max_s=self._options.max_s)
        return max(self._rng.uniform(0, bound_s), asked_s or 0.0)


def make_backoff_bound(attempt: int, *, base_s: float, max_s: float) -> float:
    """Return the upper bound of the wait after the given attempt, 1-based: it doubles each time, up to `max_s`."""
    doublings = min(max(attempt - 1, 0), 64)  # Beyond that any bound is reached, and a float would overflow.
    return float(min(base_s * 2**doublings, max_s))


def _can_pass(error: BaseException) -> bool:
    """The server's own word comes first, then the kind of failure."""
    if isinstance(error, ApiError) and error.should_retry is not None:
        return error.should_retry
    return isinstance(error, TransientError)


def _get_error(retry_state: tenacity.RetryCallState) -> BaseException | None:
    return None if retry_state.outcome is None else retry_state.outcome.exception()
