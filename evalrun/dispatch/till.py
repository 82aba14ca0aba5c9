"""Holds tokens and money back for each request that leaves, and settles them when it is back.

One till serves all lanes of a dispatch. Requests enter, holds leave, or none: then everybody waits until something is
settled, or the run ends. A dispatch without a budget, on lanes whose tokens nobody counts, pays nothing for it.
"""

from collections.abc import Callable
from decimal import Decimal
from typing import Final, NamedTuple

from evalrun.dispatch.budget import Reservation, RunBudget, Spent, make_reservation
from evalrun.dispatch.outcomes import is_free
from evalrun.dispatch.token_guess import TokenEstimate, TokenGuess
from evalrun.errors import ApiError
from evalrun.prices import NO_PRICES, PriceBook
from evalrun.records import Attempt, CostSource, Request, Usage, UsageSource


class Hold(NamedTuple):
    """What is held back for one request under way."""

    estimate: TokenEstimate | None
    """None when nobody counts tokens."""
    reservation: Reservation | None
    """None without a budget."""

    @property
    def tokens(self) -> int:
        """What a token limit is asked for."""
        return 0 if self.estimate is None else self.estimate.total_tokens


_NOTHING: Final = Hold(None, None)


class Till:
    """What a dispatch may spend.

    Args:
        budget: The run's; None when it has none.
        prices: Of the models.
        on_end: Called once, when the run is over, with the reason.
    """

    def __init__(
        self,
        budget: RunBudget | None,
        prices: PriceBook,
        on_end: Callable[[str], None] = lambda _reason: None,
    ) -> None:
        self._budget = budget
        self._prices = prices
        self._on_end = on_end
        self._is_short = False
        self._has_ended = False
        self._listeners: list[Callable[[str | None], None]] = []

    @property
    def is_short(self) -> bool:
        """True while nothing may leave before something is settled."""
        return self._is_short

    @property
    def ended_by(self) -> str | None:
        """Why the run is over; None while it goes on."""
        return None if self._budget is None else self._budget.is_spent

    @property
    def deadline_s(self) -> float | None:
        """Monotonic time at which the wall time is used up; None without a limit."""
        return None if self._budget is None else self._budget.deadline_s

    def listen(self, listener: Callable[[str | None], None]) -> None:
        """Call the listener with None when there is room again, and with the reason when the run is over."""
        self._listeners.append(listener)

    def note_time(self, now_s: float) -> None:
        """End the run when its wall time is over."""
        if self._budget is not None:
            self._budget.note_time(now_s)
            self._heed_end(self._budget)

    def hold(self, request: Request, guess: TokenGuess, *, counts_tokens: bool, now_s: float) -> Hold | None:
        """Hold back what a request may take; None when it may not leave now.

        Args:
            request: It.
            guess: Its lane's.
            counts_tokens: Whether a limit of its lane is in tokens.
            now_s: Monotonic time.
        """
        if self._budget is None and not counts_tokens:
            return _NOTHING
        estimate = guess.estimate(
            request.body, max_output_tokens=request.max_output_tokens, n_choices=request.n_choices
        )
        if self._budget is None:
            return Hold(estimate, None)
        reservation = make_reservation(estimate, self._prices.get(request.model, NO_PRICES))
        if self._budget.reserve(reservation, now_s):
            return Hold(estimate, reservation)
        self._is_short = True
        self._heed_end(self._budget)
        return None

    def note_sent(self, hold: Hold) -> None:
        """Count a request that leaves."""
        if self._budget is not None and hold.reservation is not None:
            self._budget.note_request()

    def settle(self, hold: Hold, attempt: Attempt) -> None:
        """Put what an attempt took in the place of what was held back for it.

        Args:
            hold: As it was made.
            attempt: What came of it.
        """
        if self._budget is None or hold.reservation is None:
            return
        self._budget.settle(hold.reservation, find_spent(attempt))
        if self._is_short:
            self._is_short = False
            self._tell(None)

    def _heed_end(self, budget: RunBudget) -> None:
        reason = budget.is_spent
        if reason is None:
            return
        if not self._has_ended:
            self._has_ended = True
            self._on_end(reason)
        self._tell(reason)  # Each time: a row that was in flight may have come back to its queue since.

    def _tell(self, reason: str | None) -> None:
        for listener in self._listeners:
            listener(reason)


def find_spent(attempt: Attempt) -> Spent:
    """Return what an attempt takes from a budget: what it was told to have taken, else an estimate that says so."""
    usage = attempt.usage
    is_told = usage.source is not UsageSource.MISSING or attempt.cost_source is CostSource.REPORTED
    if attempt.cost_usd == 0 and not is_told:
        return Spent(Decimal(0), 0)  # A server that certainly did not bill did no work either.
    return Spent(attempt.cost_usd, count_tokens(usage), is_estimate=usage.source is UsageSource.ESTIMATED)


def count_tokens(usage: Usage) -> int | None:
    """Return the tokens that a reply tells, or that are estimated of it; None when neither."""
    if usage.prompt_tokens is None or usage.completion_tokens is None:
        return usage.total_tokens
    parts = usage.prompt_tokens + usage.completion_tokens
    return parts if usage.total_tokens is None else max(parts, usage.total_tokens)


def judge_used_tokens(hold: Hold, error: ApiError) -> int | None:
    """Return what a failed request used of a token limit; None when that is unknown.

    A refusal was counted as it came, if at all: its prompt stands, and what it might have generated did not come. A 429
    is not settled, and a reply that was lost may have been generated in full.
    """
    if not error.was_sent:
        return 0
    is_refused = is_free(error) and error.http_status != 429
    return hold.estimate.prompt_tokens if is_refused and hold.estimate is not None else None
