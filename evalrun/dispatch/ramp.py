"""How many requests of a lane may be in flight: from a few to the hard cap, growing only while all of them are used.

Answers, refusals and overloads enter with their time, a whole number leaves. Invariant: 1 <= limit <= hard cap. The
send rate is not decided here but in `pacing`; this keeps a lane from meeting a server with hundreds of requests at
once, and from holding more of them than it needs.
"""

import math
from typing import Final

START: Final = 8
"""In flight at first: enough to learn how the server answers, few enough to be refused cheaply."""
SATURATED_SHARE: Final = 0.8
"""A limit of which less is used teaches nothing when it grows."""
CUT: Final = 0.7
"""What is left of the limit after a refusal, as of the send rate: gentle, since the gate stops the storm itself."""
FIRST_GROWTH: Final = 3.0
"""Slots that each answer adds before the first refusal: a round of answers makes the limit four times as large. Models
answer in seconds, and twofold growth would take half a minute to hundreds of slots; refusals are not more for it."""
WARY_GROWTH: Final = 1.0
"""The same, twofold, where a limit in tokens is known: how many each request takes shows in the first answers only."""
GROWTH: Final = 0.1
"""Share by which a limit that was refused is passed per round of answers, by 1 at least: one slot more says nothing
where sixty are in use."""
COOL_DOWN_S: Final = 2.0
"""Refusals so soon after a cut were on their way already, and answers so soon say nothing about the new limit."""
OVERLOAD_PAUSE_S: Final = 10.0
"""Growth waits so long after a 5xx: a server in trouble gets no more, but 5xx come singly and are no reason to cut. The
next ones are heeded after as long again: where some requests always fail, growth would else never come."""


class Ramp:
    """Adaptive limit of requests in flight.

    Args:
        hard_cap: The endpoint's concurrency, 1 or more; never passed.
        start: Where the limit begins.
        growth: Slots that each answer adds before the first refusal.
    """

    def __init__(self, hard_cap: int, *, start: int = START, growth: float = FIRST_GROWTH) -> None:
        self.limit = max(1, min(start, hard_cap))
        """Requests that may be in flight now."""
        self._hard_cap = hard_cap
        self._exact = float(self.limit)
        self._grows_fast_below = float(hard_cap)
        self._first_growth = self._fast_growth = growth
        self._cools_until_s = -math.inf
        self._grows_from_s = -math.inf
        self._heeds_overload_from_s = -math.inf

    def note_answer(self, in_flight: int, now_s: float) -> None:
        """Grow after an answer, if the limit is used: fast at first, slowly past what was refused.

        What was refused is regained twofold per round of answers: most refusals are for the rate, which `pacing` mends,
        and the lane then needs its slots again. (1,500 requests to a server that takes 600 per minute, in
        `tests.dispatch.test_pacing_scenarios`: 176 to 186 s so, 202 to 225 s with one slot per round after each cut.)

        Args:
            in_flight: Requests under way when the answer came, itself included.
            now_s: Monotonic time.
        """
        limit = self.limit
        if limit >= self._hard_cap or in_flight < SATURATED_SHARE * limit or now_s < self._grows_from_s:
            return
        growth = self._fast_growth if self._exact < self._grows_fast_below else max(GROWTH, 1.0 / self._exact)
        self._set(min(self._hard_cap, self._exact + growth))

    def note_throttled(self, now_s: float) -> None:
        """Cut the limit after a refusal, once per episode."""
        if now_s >= self._cools_until_s:
            self._grows_fast_below, self._fast_growth = self._exact, 1.0
            self._set(max(1.0, self._exact * CUT))
            self._cools_until_s = now_s + COOL_DOWN_S
            self._grows_from_s = max(self._grows_from_s, self._cools_until_s)

    def forget_refusals(self) -> None:
        """Regain every slot as fast as at first: the refusals have nothing to do with how much is sent."""
        self._grows_fast_below, self._fast_growth = float(self._hard_cap), self._first_growth
        self._cools_until_s = self._grows_from_s = -math.inf

    def note_overload(self, now_s: float) -> None:
        """Stop growing for a while after a failure that tells of trouble (5xx), half of the time at most."""
        if now_s >= self._heeds_overload_from_s:
            self._grows_from_s = max(self._grows_from_s, now_s + OVERLOAD_PAUSE_S)
            self._heeds_overload_from_s = now_s + 2 * OVERLOAD_PAUSE_S

    def _set(self, exact: float) -> None:
        self._exact = exact
        self.limit = int(exact)
