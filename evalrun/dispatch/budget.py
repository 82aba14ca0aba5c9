"""The run's own limits: USD, tokens, requests, wall time; held back before a request leaves, settled when it is back.

Estimates enter and a yes or no leaves; pure state, time is an argument. Invariant: a request is let out only while all
that is spent and all that is reserved, its own share included, stay within every limit.
"""

from collections.abc import Mapping
from decimal import Context, Decimal
from typing import Any, NamedTuple

from evalrun.cost import PER_TOKEN, choose_rates
from evalrun.dispatch.stops import RESUME_HINT
from evalrun.dispatch.token_guess import TokenEstimate
from evalrun.options import PriceOptions
from evalrun.prices import ModelPrices

_EXACT = Context(prec=200)
"""Sums of amounts with many digits are never rounded: what was held back must come back to the last of them."""

_TIER_SLACK = 2
"""A prompt may turn out to be twice, or half, what was estimated, and so land in another price tier."""


class Reservation(NamedTuple):
    """What is held back for one request while it is under way."""

    usd: Decimal | None
    """None when its price is unknown."""
    tokens: int


class Spent(NamedTuple):
    """What a request took in the end. None = unknown: its reservation stands for it."""

    usd: Decimal | None
    tokens: int | None
    is_estimate: bool = False
    """Nobody told it: the reservation stands for it where that is larger."""


def make_reservation(estimate: TokenEstimate, prices: ModelPrices) -> Reservation:
    """Return what to hold back for a request: its estimate at the dearest rates that could apply.

    Neither the tier of the prompt, nor what of it is read from or written to the cache, nor what is sound, nor the
    service tier is known before the reply: the dearest of each counts, and of a price that changes, the dearest of its
    times.

    Args:
        estimate: Its tokens.
        prices: Its model's.
    """
    if not prices:
        return Reservation(None, estimate.total_tokens)
    usd = max(_price_dearest(estimate, price) for price in prices.entries)
    return Reservation(usd, estimate.total_tokens)


def _price_dearest(estimate: TokenEstimate, price: PriceOptions) -> Decimal:
    prompt = estimate.prompt_tokens
    low, high = prompt // _TIER_SLACK, prompt * _TIER_SLACK
    within = {tier.above_prompt_tokens + 1 for tier in price.tiers if low <= tier.above_prompt_tokens < high}
    candidates = [choose_rates(price, size) for size in {low, *within}]
    rate_input = max(max(rates.input, rates.cached_input, rates.cache_write, rates.audio_input) for rates in candidates)
    rate_output = max(max(rates.output, rates.reasoning, rates.audio_output) for rates in candidates)
    multiplier = max([Decimal(1), *filter(None, price.multipliers.values())])
    return (prompt * rate_input + estimate.output_tokens * rate_output) * PER_TOKEN * multiplier


def lean(actual: Decimal | None, held: Decimal, *, is_estimate: bool) -> Decimal:
    """Return what an amount counts for: one that is unknown or estimated, for as much as was held back at least.

    Args:
        actual: What was told, or estimated; None when neither.
        held: What was held back.
        is_estimate: Whether nobody told it.
    """
    if actual is None:
        return held
    return max(actual, held) if is_estimate else actual


class RunBudget:
    """What a run may spend, over all its calls, lanes and judges; the wall time counts for one call.

    The worst case is bounded. When the last request is let out, spent + reserved ≤ limit; after it nothing leaves. So
    what a run spends above a limit is at most the sum of (actual − reserved)⁺ over the requests then in flight, of
    which there are no more than the endpoints' `concurrency` together. A request with an output limit that the server
    keeps to can pass its reservation by its prompt only. The limit on requests is never passed. A request whose true
    cost is never told counts with its reservation: a bill may differ from the books by what such requests took more.

    A reservation is as a rule too large, and what is left of it comes back. So a refusal ends the run only when not
    even the return of everything reserved would make room; until then the request has to wait for something in flight,
    of which there is always some. What stays unspent is less than one request's reservation.

    Args:
        usd: Limit; None = no limit, as for the others.
        tokens: Prompt and output tokens.
        requests: Attempts sent.
        wall_s: Seconds from `started_s`.
        started_s: Monotonic time at which this call began.
        spent_usd: What earlier calls of the run spent, estimated where it is unknown.
        spent_tokens: The same in tokens.
        spent_requests: The same in attempts.
        allows_unknown_cost: Let requests without a price pass the limit on USD uncounted.
    """

    def __init__(  # noqa: PLR0913 - four limits and where the run stands, as the job and the journal have them
        self,
        usd: Decimal | None,
        tokens: int | None,
        requests: int | None,
        wall_s: float | None,
        *,
        started_s: float,
        spent_usd: Decimal = Decimal(0),
        spent_tokens: int = 0,
        spent_requests: int = 0,
        allows_unknown_cost: bool = False,
    ) -> None:
        self._usd = _Purse("usd", usd, spent_usd)
        self._tokens = _Purse("tokens", tokens, Decimal(spent_tokens))
        self._requests = _Purse("requests", requests, Decimal(spent_requests))
        self._wall_s = wall_s
        self._started_s = started_s
        self._allows_unknown_cost = allows_unknown_cost
        self._n_estimated = 0
        self._refused: tuple[_Purse, Decimal] | None = None
        self._is_unpriced = False
        self._is_late = False

    @property
    def deadline_s(self) -> float | None:
        """Monotonic time at which the wall time is used up; None without a limit."""
        return None if self._wall_s is None else self._started_s + self._wall_s

    @property
    def is_spent(self) -> str | None:
        """Why nothing more may leave in this call, and what to do; None while something may. Once said, it stands."""
        if self._is_late:
            return f"budget: {self._wall_s:g} s of wall time used; {RESUME_HINT}, for as long again"
        if self._is_unpriced:
            return (
                "budget: the price of the next request is unknown; give its model a `price`, "
                f"or remove `budget.usd`, then {RESUME_HINT}"
            )
        if self._refused is None:
            return None
        purse, wanted = self._refused
        return f"budget: {purse.describe(wanted)}; raise `budget.{purse.key}`, then {RESUME_HINT}"

    def reserve(self, wanted: Reservation, now_s: float) -> bool:
        """Hold back what a request may take, and the request itself; False when it may not leave now.

        After False, `is_spent` tells whether the run ends or the request waits until another one is settled.

        Args:
            wanted: Its estimate.
            now_s: Monotonic time.
        """
        self.note_time(now_s)
        is_unpriced = wanted.usd is None and self._usd.limit is not None and not self._allows_unknown_cost
        if self._is_late or self._is_unpriced or self._refused is not None:
            return False
        if is_unpriced:
            self._is_unpriced = True
            return False
        amounts = self._split(wanted)
        for purse, amount in amounts:
            purse.note_wanted(amount)
        self._refused = next(((purse, amount) for purse, amount in amounts if not purse.could_ever_fit(amount)), None)
        if self._refused is not None or not all(purse.has_room(amount) for purse, amount in amounts):
            return False
        for purse, amount in amounts:
            purse.reserved = _EXACT.add(purse.reserved, amount)
        return True

    def note_request(self) -> None:
        """Count a reserved request that leaves."""
        self._requests.move(Decimal(1), Decimal(1))

    def settle(self, reservation: Reservation, actual: Spent) -> None:
        """Put what a request took in the place of what was held back for it.

        Args:
            reservation: As it was reserved.
            actual: 0 where the server certainly did no work; None, or what is no amount, where it is unknown.
        """
        usd, tokens = _read_amount(actual.usd), _read_amount(actual.tokens)
        self._n_estimated += actual.is_estimate or usd is None or tokens is None
        held_usd, held_tokens = reservation.usd or Decimal(0), Decimal(reservation.tokens)
        self._usd.move(held_usd, lean(usd, held_usd, is_estimate=actual.is_estimate))
        self._tokens.move(held_tokens, lean(tokens, held_tokens, is_estimate=actual.is_estimate))

    def give_back(self, reservation: Reservation) -> None:
        """Undo a reservation whose request did not leave."""
        for purse, amount in self._split(reservation):
            purse.move(amount, Decimal(0))

    def note_time(self, now_s: float) -> None:
        """End the budget when its wall time is over."""
        self._is_late = self._is_late or (self.deadline_s is not None and now_s >= self.deadline_s)

    def describe(self) -> Mapping[str, Any]:
        """Return where the budget stands, for run.json: each limit (None = none), what was spent, and what ended it.

        `largest_request` is the most that a request of this call was to be let out with; None when none asked.
        """
        usd, tokens, requests = self._usd, self._tokens, self._requests
        return {
            "usd": {"limit": usd.limit, "spent": usd.spent, "largest_request": usd.largest},
            "tokens": {
                "limit": None if tokens.limit is None else int(tokens.limit),
                "spent": int(tokens.spent),
                "largest_request": None if tokens.largest is None else int(tokens.largest),
            },
            "requests": {
                "limit": None if requests.limit is None else int(requests.limit),
                "spent": int(requests.spent),
            },
            "wall_s": {"limit": self._wall_s},
            "n_estimated": self._n_estimated,
            "ended_by": self.is_spent,
        }

    def _split(self, wanted: Reservation) -> tuple[tuple["_Purse", Decimal], ...]:
        usd = Decimal(0) if wanted.usd is None else wanted.usd
        return (self._usd, usd), (self._tokens, Decimal(wanted.tokens)), (self._requests, Decimal(1))


class _Purse:
    """One limit: what is spent of it and what is held back."""

    def __init__(self, key: str, limit: Decimal | int | None, spent: Decimal) -> None:
        self.key = key
        self.limit = None if limit is None else Decimal(limit)
        self.spent = spent
        self.reserved = Decimal(0)
        self.largest: Decimal | None = None
        """The most that was wanted for one request, what was refused included."""

    def note_wanted(self, amount: Decimal) -> None:
        if self.largest is None or amount > self.largest:
            self.largest = amount

    def has_room(self, amount: Decimal) -> bool:
        return self.limit is None or _EXACT.add(_EXACT.add(self.spent, self.reserved), amount) <= self.limit

    def could_ever_fit(self, amount: Decimal) -> bool:
        return self.limit is None or _EXACT.add(self.spent, amount) <= self.limit

    def move(self, held: Decimal, actual: Decimal) -> None:
        assert self.reserved >= held  # Each reservation is settled or given back once.
        self.reserved = _EXACT.subtract(self.reserved, held)
        self.spent = _EXACT.add(self.spent, actual)

    def describe(self, wanted: Decimal) -> str:
        """Return the state in words, as `USD 1.00 of USD 1.00 spent, 0.02 reserved`."""
        write = self._write_usd if self.key == "usd" else "{:,.0f}".format
        unit, noun = ("USD ", "") if self.key == "usd" else ("", f" {self.key}")
        limit = Decimal(0) if self.limit is None else self.limit
        reserved = f", {write(self.reserved)} reserved" if self.reserved else ""
        needs = f", and the next request may take {write(wanted)}" if self.key != "requests" else ""
        return f"{unit}{write(self.spent)} of {unit}{write(limit)}{noun} spent{reserved}{needs}"

    def _write_usd(self, value: Decimal) -> str:
        """Return an amount with two digits of the limit at least."""
        digits = max(2, 1 - self.limit.adjusted()) if self.limit else 2
        return f"{value:.{digits}f}"


def _read_amount(value: Decimal | int | None) -> Decimal | None:
    """Return an amount that can be counted; None for one that is unknown, negative or no number."""
    amount = None if value is None else Decimal(value)
    return amount if amount is not None and amount.is_finite() and amount >= 0 else None
