"""When the next request may leave: limits of the job, limits that headers tell, refusals, and what they teach.

What leaves, what comes back and what its headers say enter with their time; out comes the time from which a request
may leave. Nothing sleeps here. A known limit is paced smoothly at 95 %, so that it is not met; an unknown one is
learned from the first refusal on. Invariants: nothing leaves before a wait that the server asked for is over, and after
it the lane begins slowly, with nothing saved up.
"""

import math
from collections.abc import Callable
from typing import Final, Literal

from evalrun.dispatch.buckets import RateBucket
from evalrun.dispatch.known_limits import BURST_S, AskedCount, KnownLimit
from evalrun.dispatch.learned_rate import LearnedRate
from evalrun.dispatch.rate_facts import RateFacts
from evalrun.dispatch.refusal_cause import RefusalCause

FIRST_PAUSE_S: Final = 1.0
"""Wait after a refusal without Retry-After; it doubles while nothing is let in."""
MAX_PAUSE_S: Final = 60.0
"""Longest such wait: most limits are counted by the minute."""
MAX_RESET_S: Final = 600.0
"""Resets further off are of an hour's or a day's limit. Where that one refills steadily, the header tells when it is
full again, not when the next request passes; a refusal will say."""
NEAR_MINUTE_S: Final = 54.0
"""A per-minute limit with nothing left and a reset so far off refills steadily: pacing is enough."""

WaitReason = Literal["retry_after", "requests_per_minute", "tokens_per_minute", "learned_rate"]
OnNote = Callable[[str, float, float], None]
"""Takes what was decided, when (monotonic, in seconds), and its value.

`requests_per_minute`, `tokens_per_minute`: a limit that headers tell · `retry_after`: seconds of a wait that the server
asked for · `pause`: of one that it did not · `reset`: of one until a limit's reset · `learned_rate`: requests per
minute after a cut · `counts_as_asked`: 1, unused tokens are not given back for a while · `not_by_rate`: seconds in
which refusals do not lower the rate, since they come at any.
"""

_SAME_S: Final = 0.2
"""Waits that end so close together are one note."""


def ignore_note(what: str, now_s: float, value: float) -> None:
    """Listen to nothing."""
    del what, now_s, value


class Pacer:
    """Paces one lane, or all lanes of an endpoint together.

    Args:
        requests_per_minute: Limit that the job gives; None = unknown.
        tokens_per_minute: The same for tokens, prompt and output.
        now_s: Monotonic time.
        on_note: Hears of each decision as it is made.
    """

    def __init__(
        self,
        *,
        requests_per_minute: float | None,
        tokens_per_minute: float | None,
        now_s: float,
        on_note: OnNote = ignore_note,
    ) -> None:
        self._requests = KnownLimit(requests_per_minute, now_s)
        self._requests.lower_to(0, now_s)  # Else the first second would see more than a limit by the second allows.
        self._tokens = KnownLimit(tokens_per_minute, now_s)
        self._as_asked = AskedCount(tokens_per_minute, now_s)
        self._learned = LearnedRate()
        self._learned_bucket: RateBucket | None = None
        self._cause = RefusalCause()
        self._gates: dict[WaitReason, float] = {}
        self._episode = _Episode()
        self._on_note = on_note

    @property
    def requests_per_minute(self) -> float | None:
        """The limit as the job or the headers tell it; None = unknown."""
        return self._requests.per_minute

    @property
    def tokens_per_minute(self) -> float | None:
        """The limit as the job or the headers tell it; None = unknown."""
        return self._tokens.per_minute

    def heeds_refusals(self, now_s: float) -> bool:
        """Tell whether refusals are taken to be for the rate at which we send, and not to come whatever it is."""
        return self._cause.is_rate(now_s)

    def opens_at_s(self, now_s: float) -> float:
        """Return the time from which a request may leave; not after `now_s` when that is now."""
        opens_at_s = max(self._requests.opens_at_s(now_s), self._tokens.opens_at_s(now_s))
        bucket = self._find_learned_bucket(now_s)
        if bucket is not None:
            opens_at_s = max(opens_at_s, bucket.opens_at_s(now_s))
        return max(opens_at_s, *self._gates.values()) if self._gates else opens_at_s

    def what_waits(self, now_s: float) -> WaitReason | None:
        """Return what holds the next request longest; None when it may leave."""
        reason, opens_at_s = max(self._list_waits(now_s), key=lambda wait: wait[1])
        return reason if opens_at_s > now_s else None

    def note_sent(self, tokens: float, now_s: float) -> None:
        """Count a request that leaves.

        Args:
            tokens: Reserved for it, prompt and output.
            now_s: Monotonic time.
        """
        self._episode.note_sent(now_s)
        self._learned.note_sent(now_s)
        self._cause.note_sent(now_s)
        self._requests.take(1, now_s)
        if tokens:
            self._tokens.take(tokens, now_s)
            self._as_asked.limit.take(tokens, now_s)
        bucket = self._find_learned_bucket(now_s)
        if bucket is not None:
            bucket.take(1, now_s)

    def note_settled(self, reserved: float, actual: float | None, now_s: float) -> None:
        """Settle the tokens of a request that was let in, answered or not.

        Args:
            reserved: As given to `note_sent`.
            actual: Really used; None = unknown, the reservation stands.
            now_s: Monotonic time.
        """
        if actual is not None and (actual > reserved or not self._as_asked.is_believed(now_s)):
            self._tokens.give_back(reserved - actual, now_s)

    def note_facts(self, facts: RateFacts, now_s: float) -> None:
        """Learn from the headers of a reply: limits that the job does not give, and what is left of them."""
        self._learn_limit("requests_per_minute", self._requests, facts.requests_per_minute, now_s)
        if self._learn_limit("tokens_per_minute", self._tokens, facts.tokens_per_minute, now_s):
            self._as_asked.limit.learn(facts.tokens_per_minute, now_s)
        remaining, reset_s = facts.remaining_requests, facts.reset_requests_s
        self._heed_remaining("requests_per_minute", self._requests, remaining, reset_s, now_s)
        remaining, reset_s = facts.remaining_tokens, facts.reset_tokens_s
        self._heed_remaining("tokens_per_minute", self._tokens, remaining, reset_s, now_s)

    def note_asked_to_wait(self, retry_after_s: float, now_s: float) -> None:
        """Note a Retry-After that is not about the rate, as of an overloaded server: wait, and learn nothing."""
        self._shut("retry_after", "retry_after", now_s + retry_after_s, now_s)

    def note_throttled(self, retry_after_s: float | None, now_s: float, *, sent_at_s: float | None = None) -> None:
        """Note a 429 for sending too fast: wait, and send more slowly from then on.

        A request that is refused is not settled: whether it was counted is unknown, so its reservation stands.

        Args:
            retry_after_s: What the server asks for; None = nothing. The row's own back-off is the row's business.
            now_s: Monotonic time.
            sent_at_s: When the refused request left; None = just now. One that left before the latest cut was under
                way already, and is no reason for another.
        """
        self._note_refused(retry_after_s, now_s, now_s if sent_at_s is None else sent_at_s, is_slow=False)

    def note_slow_down(self, retry_after_s: float | None, now_s: float, *, sent_at_s: float | None = None) -> None:
        """Note a 503 or 429 `slow_down`: as a 429, but from then on the rate grows slowly for good."""
        self._note_refused(retry_after_s, now_s, now_s if sent_at_s is None else sent_at_s, is_slow=True)

    # Waiting

    def _list_waits(self, now_s: float) -> list[tuple[WaitReason, float]]:
        """Return each reason to wait with its end; of equal ones the first is named."""
        waits: list[tuple[WaitReason, float]] = [(reason, until_s) for reason, until_s in self._gates.items()]
        waits.append(("requests_per_minute", self._requests.opens_at_s(now_s)))
        waits.append(("tokens_per_minute", self._tokens.opens_at_s(now_s)))
        bucket = self._find_learned_bucket(now_s)
        if bucket is not None:
            waits.append(("learned_rate", bucket.opens_at_s(now_s)))
        return waits

    def _find_learned_bucket(self, now_s: float) -> RateBucket | None:
        """Return the bucket of the learned rate, at its rate of now."""
        bucket = self._learned_bucket
        rate_per_s = None if bucket is None else self._learned.rate_per_s(now_s)
        if bucket is not None and rate_per_s is not None:
            bucket.opens_at_s(now_s)  # What was saved up until now was saved up at the rate until now.
            bucket.per_minute = rate_per_s * 60
        return bucket

    def _shut(self, reason: WaitReason, what: str, until_s: float, now_s: float) -> None:
        """Let nothing leave before the given time, and nothing be saved up until then."""
        before_s = self._gates.get(reason, -math.inf)
        if until_s <= max(before_s, now_s):
            return
        self._gates[reason] = until_s
        if until_s > before_s + _SAME_S:
            self._on_note(what, now_s, until_s - now_s)
        for limit in (self._requests, self._tokens):
            limit.hold_until(until_s, now_s)
        if self._learned_bucket is not None:
            self._learned_bucket.hold_until(until_s, now_s)

    # Learning

    def _learn_limit(self, what: WaitReason, limit: KnownLimit, per_minute: float | None, now_s: float) -> bool:
        if not limit.learn(per_minute, now_s):
            return False
        assert per_minute is not None  # Else there was nothing to learn.
        self._on_note(what, now_s, per_minute)
        return True

    def _heed_remaining(
        self, reason: WaitReason, limit: KnownLimit, remaining: float | None, reset_s: float | None, now_s: float
    ) -> None:
        """Save up no more than is left; when nothing is, wait for the reset before being refused."""
        if remaining is not None:
            limit.lower_to(remaining, now_s)
        if remaining == 0 and reset_s is not None and _is_worth_waiting(reset_s, limit):
            self._shut(reason, "reset", now_s + reset_s, now_s)

    def _note_refused(self, asked_s: float | None, now_s: float, sent_at_s: float, *, is_slow: bool) -> None:
        retry_after_s = asked_s if asked_s is not None and asked_s > 0 else None
        self._learned.note_refused(sent_at_s)
        self._cause.note_refused(sent_at_s, now_s)
        is_first = self._episode.note_refused(sent_at_s)
        is_fruitful = self._episode.is_fruitful
        pause_s = self._episode.choose_pause(retry_after_s, sent_at_s)
        self._shut("retry_after", "retry_after" if pause_s == retry_after_s else "pause", now_s + pause_s, now_s)
        if not is_first or not self._cause.is_rate(now_s):
            return
        reopens_at_s = self._gates.get("retry_after", now_s)
        if not is_fruitful and self._learned.is_learned:
            self._learned.hold(reopens_at_s)
            return
        if not is_slow and not self._learned.is_slow and self._cause.find_other(now_s):
            self._learned.forget()
            self._learned_bucket = None
            self._on_note("not_by_rate", now_s, self._cause.lasts_until_s - now_s)
            return
        if self._as_asked.note_refused(now_s):
            self._on_note("counts_as_asked", now_s, 1)
        rate_per_s = self._learned.cut(now_s, reopens_at_s=reopens_at_s, is_slow=is_slow)
        self._on_note("learned_rate", now_s, rate_per_s * 60)
        self._learned_bucket = RateBucket(rate_per_s * 60, burst_s=BURST_S, now_s=now_s)
        self._learned_bucket.hold_until(reopens_at_s, now_s)


class _Episode:
    """Refusals that belong together: those of requests that left between two cuts."""

    def __init__(self) -> None:
        self._began_s = -math.inf
        self._is_over = False
        self._n_sent = 0
        self._n_refused = 0
        self._n_fruitless = 0
        """Episodes in a row in which nothing was let in, the present one not counted."""

    def note_sent(self, now_s: float) -> None:
        """Count a request that leaves; the first one after a cut begins the next episode."""
        if self._is_over:
            self._n_fruitless = self._n_fruitless + 1 if self._n_refused >= self._n_sent else 0
            self._n_sent = self._n_refused = 0
            self._began_s = now_s
            self._is_over = False
        self._n_sent += 1

    def note_refused(self, sent_at_s: float) -> bool:
        """Count a refusal, and return whether it is the episode's first."""
        if sent_at_s < self._began_s:
            return False
        self._n_refused += 1
        is_first = not self._is_over
        self._is_over = True
        return is_first

    @property
    def is_fruitful(self) -> bool:
        """True when some of what left in this episode is not refused (yet)."""
        return self._n_sent > self._n_refused

    def choose_pause(self, retry_after_s: float | None, sent_at_s: float) -> float:
        """Return how long to wait: as the server asks, or longer once that has proved too short."""
        lasted_s = sent_at_s - self._began_s
        if lasted_s < 0:
            return retry_after_s or 0.0  # It was under way before the latest wait, which stands.
        own_s = min(FIRST_PAUSE_S * float(2 ** min(self._n_fruitless, 16)), MAX_PAUSE_S)
        if lasted_s > own_s and self._n_sent > self._n_refused:
            self._n_fruitless = 0
            own_s = FIRST_PAUSE_S
        if retry_after_s is None:
            return own_s
        return max(retry_after_s, own_s) if self._n_fruitless else retry_after_s


def _is_worth_waiting(reset_s: float, limit: KnownLimit) -> bool:
    """Tell whether waiting for a reset is what lets the next request pass."""
    refills_steadily = limit.per_minute is not None and NEAR_MINUTE_S <= reset_s <= 61
    return reset_s <= MAX_RESET_S and not refills_steadily
