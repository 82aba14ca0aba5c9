"""Tokens to money: exact decimal arithmetic over a model's price.

Usage and a price enter, USD leave. What is not known stays None: a missing count or a missing price never becomes 0.
"""

from dataclasses import replace
from decimal import Decimal
from typing import NamedTuple

from evalrun.options import PriceOptions
from evalrun.records import CostSource, Usage

PER_TOKEN = Decimal(1) / Decimal(1_000_000)


class Buckets(NamedTuple):
    """The tokens of one reply, each in one bucket: the first four are the prompt, the last three the completion."""

    uncached_input: int
    cache_read: int
    cache_write: int
    audio_input: int
    visible_output: int
    reasoning: int
    audio_output: int


class Cost(NamedTuple):
    """A cost and where it comes from."""

    usd: Decimal | None
    """None when unknown."""
    source: CostSource


UNKNOWN_COST = Cost(None, CostSource.UNKNOWN)


class Rates(NamedTuple):
    """USD per 1M tokens of each bucket, after tier and defaults."""

    input: Decimal
    cached_input: Decimal
    cache_write: Decimal
    output: Decimal
    reasoning: Decimal
    audio_input: Decimal
    audio_output: Decimal


def split_usage(usage: Usage) -> Buckets | None:
    """Return the tokens in disjoint buckets, none negative; None when prompt or completion is unknown.

    The buckets of a side add up to its total, whatever the parts claim. Sound that was read from the cache counts as
    read from the cache.
    """
    prompt, completion = usage.prompt_tokens, usage.completion_tokens
    if prompt is None or completion is None:
        return None
    read, written, heard = usage.cached_tokens or 0, usage.cache_write_tokens or 0, usage.audio_input_tokens or 0
    reasoning, spoken = usage.reasoning_tokens or 0, usage.audio_output_tokens or 0
    if read or written or heard or reasoning or spoken:  # Most replies tell of none.
        read = min(read, prompt)
        written = min(written, prompt - read)
        heard = min(heard, prompt - read - written)
        reasoning = min(reasoning, completion)
        spoken = min(spoken, completion - reasoning)
    unmarked = prompt - read - written - heard
    return Buckets(unmarked, read, written, heard, completion - reasoning - spoken, reasoning, spoken)


def compute_cost(
    usage: Usage,
    price: PriceOptions | None,
    *,
    service_tier: str | None = None,
    source: CostSource = CostSource.TABLE,
) -> Cost:
    """Return what one reply cost.

    A cost that the reply itself names is preferred; else the price is applied to disjoint token buckets; without price
    or without both token totals the cost is unknown.

    Args:
        usage: Counts in OpenAI's meaning.
        price: The model's price; None when it has none.
        service_tier: Tier as answered; chooses the multiplier, 1 when the price names none for it; null is unknown.
        source: Who named the price.
    """
    if usage.reported_cost_usd is not None:
        return Cost(usage.reported_cost_usd, CostSource.REPORTED)
    buckets = split_usage(usage)
    if price is None or buckets is None:
        return UNKNOWN_COST
    plain, read, written, heard, visible, reasoning, spoken = buckets
    rates = choose_rates(price, plain + read + written + heard)
    micro_usd = plain * rates.input + visible * rates.output
    if read or written or heard or reasoning or spoken:
        micro_usd += read * rates.cached_input + written * rates.cache_write + heard * rates.audio_input
        micro_usd += reasoning * rates.reasoning + spoken * rates.audio_output
    usd = micro_usd * PER_TOKEN
    if service_tier is not None and service_tier in price.multipliers:
        multiplier = price.multipliers[service_tier]
        if multiplier is None:
            return UNKNOWN_COST
        usd *= multiplier
    return Cost(usd, source)


def choose_rates(price: PriceOptions, prompt_tokens: int) -> Rates:
    """Return the rates of a request: those of the highest tier its prompt reaches, gaps filled from the base price.

    Args:
        price: The model's price.
        prompt_tokens: All prompt tokens, cached ones included.
    """
    reached = [tier for tier in price.tiers if prompt_tokens > tier.above_prompt_tokens] if price.tiers else None
    if reached:
        tier = max(reached, key=lambda tier: tier.above_prompt_tokens)
        named = {bucket: getattr(tier, bucket) for bucket in Rates._fields if getattr(tier, bucket) is not None}
        price = replace(price, **named)
    return _fill_gaps(price)


def _fill_gaps(price: PriceOptions) -> Rates:
    """Return all rates: tokens that the price does not tell apart cost as much as the others of their side."""
    rate_input, rate_output = price.input, price.output
    return Rates(
        rate_input,
        rate_input if price.cached_input is None else price.cached_input,
        rate_input if price.cache_write is None else price.cache_write,
        rate_output,
        rate_output if price.reasoning is None else price.reasoning,
        rate_input if price.audio_input is None else price.audio_input,
        rate_output if price.audio_output is None else price.audio_output,
    )
