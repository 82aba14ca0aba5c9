"""What prices must agree on among themselves, and what of them looks like a slip.

Prices of one model with the key paths at which they stand enter; problems and warnings with their places leave.
"""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from decimal import Decimal

from evalrun.errors import Problem
from evalrun.job.places import KeyPath
from evalrun.options import ModelOptions, PriceOptions, PriceTier
from evalrun.prices import parse_valid_from

Where = Callable[[KeyPath], str]
Series = Sequence[tuple[KeyPath, PriceOptions]]
"""The prices of one model, each with its key path."""

RATE_KEYS = ("input", "cached_input", "cache_write", "output", "reasoning", "audio_input", "audio_output")
"""Keys that hold USD per 1M tokens."""

_LEAST_USUAL = Decimal("0.003")
"""USD per 1M tokens: no chat model that is sold costs less; far below it stand prices per token or per 1,000 tokens."""
_MOST_PER_TOKEN = Decimal("0.00005")
"""USD: from here down a rate reads as one per token, above as one per 1,000 tokens."""


def list_own_prices(model: ModelOptions, path: KeyPath) -> Series:
    """Return the prices that stand at a model of the job, with their key paths."""
    is_list = isinstance(model.price, tuple)
    return [
        ((*path, "price", index) if is_list else (*path, "price"), price)
        for index, price in enumerate(model.own_prices)
    ]


def check_series(series: Series, where: Where) -> Iterator[Problem]:
    """Yield what is wrong with the prices of one model, each by itself and beside the others."""
    first: dict[datetime | None, KeyPath] = {}
    for path, price in series:
        yield from _check_price(price, path, where)
        try:
            starts_at = parse_valid_from(price.valid_from)
        except ValueError as error:
            yield Problem(message=f"`valid_from`: {error}", where=where((*path, "valid_from")))
            continue
        if starts_at in first:
            when = f"from {price.valid_from} on" if price.valid_from is not None else "at all times"
            message = f"two prices of one model hold {when}; the first stands at {where(first[starts_at])}"
            yield Problem(message=message, where=where(path), hint="give each its own `valid_from`, or drop one")
        first.setdefault(starts_at, path)


def _check_price(price: PriceOptions, path: KeyPath, where: Where) -> Iterator[Problem]:
    if price.currency != "USD":
        message = f"`currency` is {price.currency[:20]!r}, and only USD is reckoned"
        yield Problem(message=message, where=where((*path, "currency")), hint="convert the rates to USD")
    seen: dict[int, int] = {}
    for index, tier in enumerate(price.tiers):
        here: KeyPath = (*path, "tiers", index)
        threshold = tier.above_prompt_tokens
        if not any(getattr(tier, key) is not None for key in RATE_KEYS):
            message = "the tier names no rate, so it changes nothing"
            yield Problem(message=message, where=where(here), hint="write for example `input: 2.5`, or drop the tier")
        if threshold in seen:
            message = f"two tiers begin above {threshold} prompt tokens"
            first = where((*path, "tiers", seen[threshold]))
            yield Problem(message=f"{message}; the first stands at {first}", where=where(here))
        seen.setdefault(threshold, index)


def warn_price(price: PriceOptions, path: KeyPath, where: Where) -> Iterator[Problem]:
    """Yield what looks like a slip in one price."""
    yield from _warn_rates(price, price, path, where)
    for index, tier in enumerate(price.tiers):
        yield from _warn_rates(tier, price, (*path, "tiers", index), where)


def _warn_rates(rates: PriceOptions | PriceTier, price: PriceOptions, path: KeyPath, where: Where) -> Iterator[Problem]:
    for key in ("input", "output"):
        rate = getattr(rates, key)
        if rate is not None and 0 < rate < _LEAST_USUAL:
            unit, scale = ("token", 1_000_000) if rate <= _MOST_PER_TOKEN else ("1,000 tokens", 1_000)
            message = f"`{key}` is USD {_write(rate)} per 1M tokens, which looks like a price per {unit}"
            yield Problem(
                message=message, where=where((*path, key)), hint=f"did you mean `{key}: {_write(rate * scale)}`?"
            )
    full = rates.input if rates.input is not None else price.input
    if rates.cached_input is not None and rates.cached_input > full:
        message = f"`cached_input` ({_write(rates.cached_input)}) is above `input` ({_write(full)})"
        hint = "tokens read from the cache cost less everywhere; are the two swapped?"
        yield Problem(message=message, where=where((*path, "cached_input")), hint=hint)


def _write(rate: Decimal) -> str:
    """Return a rate without exponent and without trailing zeros."""
    return f"{rate.normalize():f}"
