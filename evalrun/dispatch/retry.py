"""Whether a failed attempt is followed by another, and after how long: the one retry layer, decided by tenacity.

A failure and the row's tally enter, seconds to wait leave. Nothing sleeps here: the wait is an order to the dispatcher,
so that a waiting row holds no slot. The first attempt of a row costs nothing of this.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import tenacity
from tenacity.stop import stop_base
from tenacity.wait import wait_base

from evalrun.errors import ApiError, DamagedReplyError, TimedOutError, TransientError
from evalrun.options import RetryOptions
from evalrun.records import LANE_STOPPING, ErrorCode

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
    n_throttled: int = 0
    """Attempts refused for the lane's pace: they do not count against the row either."""
    throttled_s: float = 0.0
    """Seconds from the first of those refusals to the latest one."""
    _throttled_at_s: float | None = None
    _doubts: tuple[_Doubt, ...] = ()

    @property
    def n_counted(self) -> int:
        """Attempts that count against the row."""
        return self.n - self.n_forgiven - self.n_throttled

    @property
    def n_backed_off(self) -> int:
        """Attempts that make the next wait longer: refusals for the lane's pace do, outages do not."""
        return self.n - self.n_forgiven

    def note(self, error: ApiError) -> None:
        """Count the kinds of failure that have limits of their own."""
        self.n_timeouts += _is_late(error)
        self.n_damaged += isinstance(error, DamagedReplyError) or error.code == ErrorCode.ERROR_IN_200

    def throttle(self, now_s: float) -> None:
        """Take the latest attempt off the tally: the lane was too fast, whichever row it sent."""
        self.n_throttled += 1
        if self._throttled_at_s is None:
            self._throttled_at_s = now_s
        self.throttled_s = now_s - self._throttled_at_s

    def forgive(self, error: ApiError) -> None:
        """Take the latest attempt, noted before, off the tally: the whole lane failed."""
        self._take_off(is_timeout=_is_late(error))

    def doubt(self, error: ApiError, sent_at_s: float, failed_at_s: float) -> None:
        """Remember when the latest attempt failed: an outage that is known only later may have been the cause."""
        self._doubts += (_Doubt(sent_at_s, failed_at_s, _is_late(error)),)

    def weigh(self, has_caused: Callable[[float, float], bool]) -> None:
        """Take off the tally what turned out to be the whole lane's.

        Args:
            has_caused: Tells it of an attempt, from when it left and when it failed.
        """
        doubts, self._doubts = self._doubts, ()
        for doubt in doubts:
            if has_caused(doubt.sent_at_s, doubt.failed_at_s):
                self._take_off(is_timeout=doubt.is_timeout)
            else:
                self._doubts += (doubt,)

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
            stop=tenacity.stop_after_attempt(options.max_attempts) | _StopByKind(options),
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
    """Ends the retries of a row for failures that have limits of their own.

    Some may cost money each time. Refusals for the lane's pace cost none and are not the row's, but a row that is
    refused again and again while others are let in is refused for something else: it has as many of them as attempts,
    and as much time as a lane that lets nothing in.
    """

    def __init__(self, options: RetryOptions) -> None:
        self._options = options

    def __call__(self, retry_state: tenacity.RetryCallState) -> bool:
        options, tries = self._options, _get_tries(retry_state)
        is_refused_for_good = tries.n_throttled >= options.max_attempts and tries.throttled_s >= options.max_pause_s
        is_costly = tries.n_timeouts > options.max_timeouts or tries.n_damaged > MAX_DAMAGED_RETRIES
        return is_costly or is_refused_for_good


class _WaitAsAsked(wait_base):
    """Full jitter below an exponential bound, or what the server asked for when that is longer."""

    def __init__(self, options: RetryOptions, rng: random.Random) -> None:
        self._options = options
        self._rng = rng

    def __call__(self, retry_state: tenacity.RetryCallState) -> float:
        error = _get_error(retry_state)
        asked_s = error.retry_after_s if isinstance(error, ApiError) else None
        n_attempts = _get_tries(retry_state).n_backed_off
        bound_s = make_backoff_bound(n_attempts, base_s=self._options.base_s, max_s=self._options.max_s)
        return max(self._rng.uniform(0, bound_s), asked_s or 0.0)


def make_backoff_bound(attempt: int, *, base_s: float, max_s: float) -> float:
    """Return the upper bound of the wait after the given attempt, 1-based: it doubles each time, up to `max_s`."""
    doublings = min(max(attempt - 1, 0), 64)  # Beyond that any bound is reached, and a float would overflow.
    return float(min(base_s * 2**doublings, max_s))


def _can_pass(error: BaseException) -> bool:
    """The server's own word comes first, then the kind of failure; what stops the lane is never asked again."""
    if isinstance(error, ApiError) and error.should_retry is not None:
        return error.should_retry and error.code not in LANE_STOPPING
    return isinstance(error, TransientError)


def _get_tries(retry_state: tenacity.RetryCallState) -> Tries:
    tries: Tries = retry_state.args[0]
    return tries


def _get_error(retry_state: tenacity.RetryCallState) -> BaseException | None:
    return None if retry_state.outcome is None else retry_state.outcome.exception()
