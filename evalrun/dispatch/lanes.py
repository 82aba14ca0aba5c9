"""One lane: endpoint × wire model, paced and stopped together. Pure state over `now`: no I/O, no clock of its own.

Requests enter as they leave and come back; out comes when the next one may leave, what is waited for, and what becomes
of a row that failed. A lane joins what holds it back: its own pacer and its endpoint's, the limit in flight, the outage
circuit, and for retries their budget. Invariants: a stopped lane never opens again; nothing leaves before the last of
them opens.
"""

import random
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from enum import Enum
from typing import Final, NamedTuple

from evalrun.dispatch.lane_log import LaneLog
from evalrun.dispatch.outage import Outage
from evalrun.dispatch.pacing import Pacer
from evalrun.dispatch.ramp import FIRST_GROWTH, START, WARY_GROWTH, Ramp
from evalrun.dispatch.rate_facts import has_rate_facts, read_rate_facts
from evalrun.dispatch.retry import RetryPolicy, Tries
from evalrun.dispatch.retry_budget import RetryBudget
from evalrun.dispatch.token_guess import TokenGuess
from evalrun.dispatch.usage_estimates import UsageEstimator
from evalrun.errors import ApiError, TerminalError
from evalrun.lane_progress import LaneProgress
from evalrun.options import RetryOptions
from evalrun.records import LANE_STOPPING, ErrorCode

MAX_ALIKE_REFUSALS: Final = 20
"""So many first rows refused alike, and nothing else heard, stop a lane: its job looks wrong."""

_OUTAGE: Final = frozenset(
    {
        ErrorCode.CONNECT,
        ErrorCode.DNS,
        ErrorCode.RESET,
        ErrorCode.TIMEOUT_CONNECT,
        ErrorCode.TIMEOUT_FIRST_BYTE,
        ErrorCode.TIMEOUT_IDLE,
        ErrorCode.TIMEOUT_TOTAL,
        ErrorCode.SERVER_ERROR,
        ErrorCode.OVERLOADED,
    }
)
"""Codes that say nothing about the request: when nothing else is heard, the endpoint is down."""
_SYSTEMATIC: Final = frozenset({ErrorCode.BAD_REQUEST, ErrorCode.CONTEXT_LENGTH, ErrorCode.ERROR_IN_200})
_SLOW_DOWN: Final = re.compile(rb'"slow_down"')
"""OpenAI's word for a request rate that grew too fast."""
_TOO_LARGE: Final = re.compile(rb"request too large", re.IGNORECASE)
"""What OpenAI says of a request that takes more than a whole minute's tokens: no pace would let it in."""

_TOO_MANY_REQUESTS: Final = 429


class Fate(Enum):
    """What becomes of a row whose attempt failed."""

    RETRY = "retry"
    """It is asked again after its wait."""
    FAIL = "fail"
    """It ends as an error."""
    FAIL_AND_STOP = "fail_and_stop"
    """It ends as an error, and its lane stops."""
    PARK_AND_STOP = "park_and_stop"
    """It stays pending with the failure's code, and its lane stops."""
    HOLD = "hold"
    """It is not asked again, but the lane has never answered: an error if it ever does, pending if not."""


class Ruling(NamedTuple):
    """What a lane decides about a row that failed."""

    fate: Fate
    wait_s: float = 0.0
    """Seconds until the row may be asked again, when it is."""


class Lane:
    """When requests of one lane may leave, and what its failures mean.

    Args:
        progress: Counters shared with whoever shows them.
        options: The endpoint's retry limits.
        rng: Source of all jitter.
        concurrency: The endpoint's, which no lane passes.
        requests_per_minute: The model's own limit; None = unknown.
        tokens_per_minute: The same for tokens.
        shared: Paces all lanes of the endpoint together; None when the job gives the endpoint no limit.
        log: Takes what is decided.
        now_s: Monotonic time.
    """

    def __init__(  # noqa: PLR0913 - what a lane is made of, all by name
        self,
        progress: LaneProgress,
        options: RetryOptions,
        rng: random.Random,
        *,
        concurrency: int = 32,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        shared: Pacer | None = None,
        log: LaneLog | None = None,
        now_s: float = 0.0,
    ) -> None:
        self.progress = progress
        self.guess = TokenGuess()
        self.estimator = UsageEstimator()
        self.is_proven = False
        """True once the lane answered anything but an outage."""
        self.counts_tokens = tokens_per_minute is not None or (
            shared is not None and shared.tokens_per_minute is not None
        )
        """True when a limit in tokens is known."""
        self.n_sent = 0
        """Attempts that left in this call."""
        self._options = options
        self._policy = RetryPolicy(options, rng)
        self._log = log or LaneLog(progress)
        self._own = Pacer(
            requests_per_minute=requests_per_minute,
            tokens_per_minute=tokens_per_minute,
            now_s=now_s,
            on_note=self._log.note,
        )
        self._shared = shared
        self._is_paced = requests_per_minute is not None or tokens_per_minute is not None
        # A lane whose rate is known may use all its slots at once: the pacing alone keeps it from meeting the server.
        has_rate = requests_per_minute is not None or (shared is not None and shared.requests_per_minute is not None)
        growth = WARY_GROWTH if self.counts_tokens else FIRST_GROWTH
        self._ramp = Ramp(concurrency, start=concurrency if has_rate else START, growth=growth)
        self._outage = Outage(options.base_s, options.max_s, options.max_pause_s, rng)
        self._retries = RetryBudget(concurrency)
        self._is_shut = False
        self._waits_since_s = 0.0
        self._heard_s: float | None = None
        self._refused_since_s: float | None = None
        """The first refusal for sending too fast since something was let in; None when something was since."""
        self._refused_alike: str | None = None
        self._n_refused_alike = 0
        self._may_refuse_alike = True
        progress.limit = self._ramp.limit

    @property
    def is_stopped(self) -> bool:
        """True once the lane sends nothing more in this call."""
        return self.progress.stopped_by is not None

    @property
    def is_over(self) -> bool:
        """True once an outage has lasted too long."""
        return self._outage.is_over

    @property
    def prefers_new_rows(self) -> bool:
        """True while a row never asked before tells more than one that failed: lest one bad row pass for an outage."""
        return self._outage.prefers_new_rows

    def find_silence_s(self, now_s: float) -> float | None:
        """Return the seconds since something was heard last; None when nothing ever was."""
        return None if self._heard_s is None else now_s - self._heard_s

    def find_refused_s(self, now_s: float) -> float | None:
        """Return for how long nothing has been let in; None when the latest of what came back was."""
        return None if self._refused_since_s is None else now_s - self._refused_since_s

    # When

    def opens_at_s(self, now_s: float) -> float | None:
        """Return the time from which a request may leave; None while only something coming back can open the lane."""
        in_flight = self.progress.in_flight
        if self.progress.stopped_by is not None or in_flight >= self._ramp.limit:
            return None
        opens_at_s = self._outage.opens_at_s(now_s, in_flight)
        if opens_at_s is None:
            return None
        if self._is_paced:
            opens_at_s = max(opens_at_s, self._own.opens_at_s(now_s))
        return opens_at_s if self._shared is None else max(opens_at_s, self._shared.opens_at_s(now_s))

    def retries_open_at_s(self, now_s: float) -> float:
        """Return the time from which a retry may leave, as far as the retry budget is concerned."""
        return self._retries.opens_at_s(now_s)

    def note_waiting(self, now_s: float, *, reason: str | None = None, until_s: float = 0.0) -> None:
        """Note that something is left to send and cannot leave.

        Args:
            now_s: Monotonic time.
            reason: What it waits for; None leaves it to the lane.
            until_s: When the wait ends, if that is known; 0 leaves it to the lane.
        """
        if self.is_stopped:
            return
        if reason is None:
            if self._is_simply_full():
                return
            reason, until_s = self._find_reason(now_s)
        if reason != self.progress.waiting_for:
            self._end_wait(now_s)
            self.progress.waiting_for = reason
            self._waits_since_s = now_s
        self.progress.waiting_until_s = until_s if reason is not None else 0.0
        self._show(now_s)

    def end_waiting(self, now_s: float) -> None:
        """Count a wait that ends with the dispatch."""
        if self.progress.waiting_for is not None:
            self._end_wait(now_s)

    def _is_simply_full(self) -> bool:
        """Tell whether every slot is in use and nothing else was ever in the way: then there is nothing to note."""
        progress = self.progress
        is_held_back = self._is_paced or self._shared is not None or self._outage.since_s is not None
        return not is_held_back and progress.in_flight >= self._ramp.limit and progress.waiting_for is None

    def _find_reason(self, now_s: float) -> tuple[str | None, float]:
        """Return what holds the next request longest, and until when; (None, 0) when every slot is in use."""
        outage_s = self._outage.opens_at_s(now_s, self.progress.in_flight)
        if outage_s is None:
            return ("outage", 0.0) if self._outage.is_open else (None, 0.0)
        waits: list[tuple[float, str | None]] = [(outage_s, "outage")]
        waits += [
            (pacer.opens_at_s(now_s), pacer.what_waits(now_s))
            for pacer in (self._own, self._shared)
            if pacer is not None
        ]
        until_s, reason = max(waits, key=lambda wait: wait[0])
        is_full = self.progress.in_flight >= self._ramp.limit and reason != "retry_after"
        return (None, 0.0) if until_s <= now_s or is_full else (reason, until_s)

    # Leaving and coming back

    def begin(self, tries: Tries, now_s: float, *, tokens: int = 0) -> float:
        """Count a request that leaves.

        Args:
            tries: Its row's tally, this attempt included.
            now_s: Monotonic time.
            tokens: Held back for it.

        Returns:
            The time by which the attempt is known to this lane.
        """
        progress = self.progress
        progress.in_flight += 1
        if progress.waiting_for is not None:
            self._end_wait(now_s)
        if self._is_shut:
            self._is_shut = False
            self._log.tell("reopened")
        self.n_sent += 1
        self._own.note_sent(tokens, now_s)
        if self._shared is not None:
            self._shared.note_sent(tokens, now_s)
        self._retries.note_request(now_s)
        if tries.n == 1:
            return self._outage.note_sent(now_s)
        self._retries.note_retry(now_s)
        return self._outage.note_sent(now_s, attempt=tries.n_counted)

    def end(self) -> None:
        """Count a request that came back, or was cancelled."""
        self.progress.in_flight -= 1

    def settle(self, reserved: int, used: int | None, now_s: float) -> None:
        """Put the tokens that a request used in the place of those held back; None = unknown."""
        if reserved:
            self._own.note_settled(reserved, used, now_s)
            if self._shared is not None:
                self._shared.note_settled(reserved, used, now_s)

    def note_facts(self, headers: Mapping[str, str], now_s: float, utc_now: Callable[[], datetime]) -> None:
        """Learn what the headers of a reply, an error's included, tell about limits.

        Args:
            headers: Names in lower case.
            now_s: Monotonic time.
            utc_now: The wall clock.
        """
        if not has_rate_facts(headers):
            return
        self._is_paced = True
        self._own.note_facts(read_rate_facts(headers, now=utc_now()), now_s)
        self.counts_tokens = self.counts_tokens or self._own.tokens_per_minute is not None

    def note_answer(self, sent_at_s: float, now_s: float) -> None:
        """Note a completion, or a refusal by a filter: the lane works. To be called after `end`."""
        self._note_let_in(sent_at_s, now_s)
        self._may_refuse_alike = False
        progress, ramp = self.progress, self._ramp
        ramp.note_answer(progress.in_flight + 1, now_s)
        if progress.limit != ramp.limit or progress.state != "open":
            self._show(now_s)

    def note_failure(self, error: ApiError, tries: Tries, *, sent_at_s: float, now_s: float) -> Ruling:
        """Note a failed attempt and return what becomes of its row. To be called after `end`.

        Args:
            error: The failure; never a content refusal, which is an answer.
            tries: The row's tally; its latest attempt is judged here.
            sent_at_s: What `begin` returned.
            now_s: Monotonic time.
        """
        tries.note(error)
        self._count_throttling(error)
        if self._is_pause_too_long(error):
            return Ruling(Fate.PARK_AND_STOP)
        self._heed_throttling(error, tries, sent_at_s, now_s)
        is_outage, is_refused = error.code in _OUTAGE, error.code == ErrorCode.RATE_LIMITED
        if is_outage:
            self._note_fault(error, tries, sent_at_s, now_s)
        elif is_refused:
            self._note_heard(sent_at_s, now_s)
        else:
            self._note_let_in(sent_at_s, now_s)
        self._show(now_s)
        if (is_outage and self._outage.is_over) or (is_refused and self._is_shut_out(now_s)):
            return Ruling(Fate.PARK_AND_STOP)
        tries.weigh(self._outage.has_caused)
        wait_s = self._policy.decide(error, tries)
        if wait_s is not None:
            return Ruling(Fate.RETRY, wait_s)
        if is_outage and not self.is_proven:
            return Ruling(Fate.HOLD)
        if error.code in LANE_STOPPING:
            return Ruling(Fate.PARK_AND_STOP)
        return Ruling(self._count_refusal(error))

    def stop(self, code: str, message: str, now_s: float) -> None:
        """Stop the lane; the first reason stands."""
        if not self.is_stopped:
            self.progress.stopped_by = code
            self.progress.stop_message = message
            self._end_wait(now_s)
            self._log.tell("lane_stopped", code=str(code), message=message)

    # What was heard

    def _note_let_in(self, sent_at_s: float, now_s: float) -> None:
        """Note a reply of the model behind the server's limits, or a refusal that has nothing to do with them."""
        self._note_heard(sent_at_s, now_s)
        self._refused_since_s = None

    def _note_heard(self, sent_at_s: float, now_s: float) -> None:
        outage = self._outage
        was_open_since_s = outage.since_s
        outage.note_answer(sent_at_s, now_s)
        if was_open_since_s is not None and outage.since_s is None:
            self._log.note("outage_over", now_s, now_s - was_open_since_s)
        self.is_proven = True
        self._heard_s = now_s

    def _note_fault(self, error: ApiError, tries: Tries, sent_at_s: float, now_s: float) -> None:
        """Note a failure that says nothing about its row."""
        was_open = self._outage.is_open
        if self._outage.note_failure(sent_at_s, now_s):
            tries.forgive(error)
        else:
            tries.doubt(error, sent_at_s, now_s)
        if self._outage.is_open and not was_open:
            self._log.note("outage", now_s)
        self._ramp.note_overload(now_s)

    def _count_throttling(self, error: ApiError) -> None:
        """Count and log a 429 whatever comes of it: one that stops the lane was seen as well."""
        is_refused = error.code == ErrorCode.RATE_LIMITED or error.http_status == _TOO_MANY_REQUESTS
        self.progress.rate_limited += is_refused
        if is_refused or _is_slow_down(error):
            self._log.tell("throttled", http_status=error.http_status, retry_after_s=error.retry_after_s)

    def _heed_throttling(self, error: ApiError, tries: Tries, sent_at_s: float, now_s: float) -> None:
        """Make the whole lane wait when the server asks for it: who is refused keeps nobody else from being refused."""
        retry_after_s, is_refused = error.retry_after_s, error.code == ErrorCode.RATE_LIMITED
        is_slow_down = _is_slow_down(error)
        if is_slow_down or (is_refused and not _says(error, _TOO_LARGE)):
            self._slow_down(error, sent_at_s, now_s, is_slow_down=is_slow_down)
            if is_refused:
                tries.throttle(now_s)
        elif retry_after_s is not None and not isinstance(error, TerminalError):
            self._own.note_asked_to_wait(retry_after_s, now_s)
        else:
            return
        self._is_paced = self._is_shut = True
        self.note_waiting(now_s)

    def _slow_down(self, error: ApiError, sent_at_s: float, now_s: float, *, is_slow_down: bool) -> None:
        """Send more slowly, and fewer at once."""
        note = self._own.note_slow_down if is_slow_down else self._own.note_throttled
        note(error.retry_after_s, now_s, sent_at_s=sent_at_s)
        if self._own.heeds_refusals(now_s):
            self._ramp.note_throttled(now_s)
        else:
            self._ramp.forget_refusals()
        if self._refused_since_s is None:
            self._refused_since_s = now_s

    def _is_shut_out(self, now_s: float) -> bool:
        """Tell whether nothing was let in for so long that waiting has become pointless; what is out may have been."""
        refused_s = self.find_refused_s(now_s)
        return refused_s is not None and refused_s >= self._options.max_pause_s and self.progress.in_flight == 0

    def _is_pause_too_long(self, error: ApiError) -> bool:
        asked_s = error.retry_after_s or 0.0
        return asked_s > self._options.max_pause_s and not isinstance(error, TerminalError)

    def _count_refusal(self, error: ApiError) -> Fate:
        """Count first rows that are all refused alike; anything else heard ends the count for good."""
        kind = f"{error.code} {error.http_status}"
        is_alike = error.code in _SYSTEMATIC and self._refused_alike in {None, kind}
        self._may_refuse_alike = self._may_refuse_alike and is_alike
        if not self._may_refuse_alike:
            return Fate.FAIL
        self._refused_alike = kind
        self._n_refused_alike += 1
        return Fate.FAIL_AND_STOP if self._n_refused_alike >= MAX_ALIKE_REFUSALS else Fate.FAIL

    # What is shown

    def _end_wait(self, now_s: float) -> None:
        progress = self.progress
        if progress.waiting_for is not None:
            waited_s = progress.waited_s.get(progress.waiting_for, 0.0) + now_s - self._waits_since_s
            progress.waited_s[progress.waiting_for] = waited_s
        progress.waiting_for = None
        progress.waiting_until_s = 0.0
        self._show(now_s)

    def _show(self, now_s: float) -> None:
        progress = self.progress
        limit = self._outage.find_limit(now_s)
        progress.limit = self._ramp.limit if limit is None else min(limit, self._ramp.limit)
        if self.is_stopped:
            progress.state = "stopped"
        elif self._outage.is_open:
            progress.state = "probing"
        else:
            progress.state = "open" if progress.waiting_for is None else "waiting"


def _is_slow_down(error: ApiError) -> bool:
    return error.code in {ErrorCode.RATE_LIMITED, ErrorCode.OVERLOADED} and _says(error, _SLOW_DOWN)


def _says(error: ApiError, words: re.Pattern[bytes]) -> bool:
    return error.body is not None and words.search(error.body) is not None
