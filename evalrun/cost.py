"""Tokens to money: exact decimal arithmetic over a model's price.

Usage and a price enter, USD leave. What is not known stays None: a missing count or a missing price never becomes 0.
"""

from decimal import Decimal
from typing import NamedTuple

from evalrun.options import PriceOptions
from evalrun.records import CostSource, Usage

PER_TOKEN = Decimal(1) / Decimal(1_000_000)
_QUANTUM = Decimal("1e-12")


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
        service_tier: Tier as answered; chooses the multiplier, 1 when the price names none for it.
        source: Who named the price.
    """
    if usage.reported_cost_usd is not None:
        return Cost(usage.reported_cost_usd, CostSource.REPORTED)
    if price is None or usage.prompt_tokens is None or usage.completion_tokens is None:
        return UNKNOWN_COST
    rates = choose_rates(price, usage.prompt_tokens)
    cached = min(usage.cached_tokens or 0, usage.prompt_tokens)
    written = min(usage.cache_write_tokens or 0, usage.prompt_tokens - cached)
    reasoning = min(usage.reasoning_tokens or 0, usage.completion_tokens)
    micro_usd = (usage.prompt_tokens - cached - written) * rates.input
    micro_usd += (usage.completion_tokens - reasoning) * rates.output
    if cached or written or reasoning:  # Most replies tell of none.
        micro_usd += cached * rates.cached_input + written * rates.cache_write + reasoning * rates.reasoning
    usd = micro_usd * PER_TOKEN
    if service_tier is not None and service_tier in price.multipliers:
        usd *= price.multipliers[service_tier]
    return Cost(usd.quantize(_QUANTUM), source)


def choose_rates(price: PriceOptions, prompt_tokens: int) -> Rates:
    """Return the rates of a request: those of the highest tier its prompt reaches, gaps filled from the base price.

    Args:
        price: The model's price.
        prompt_tokens: All prompt tokens, cached ones included.
    """
    if not price.tiers:
        return _fill_gaps(price.input, price.output, price.cached_input, price.cache_write, price.reasoning)
    reached = [tier for tier in price.tiers if prompt_tokens > tier.above_prompt_tokens]
    tier = max(reached, key=lambda tier: tier.above_prompt_tokens, default=None)

    def pick(bucket: str) -> Decimal | None:
        value: Decimal | None = getattr(tier, bucket) if tier is not None else None
        return value if value is not None else getattr(price, bucket)

    rates = [pick(bucket) for bucket in ("cached_input", "cache_write", "reasoning")]
    return _fill_gaps(pick("input") or Decimal(0), pick("output") or Decimal(0), *rates)


def _fill_gaps(
    rate_input: Decimal,
    rate_output: Decimal,
    cached: Decimal | None,
    written: Decimal | None,
    reasoning: Decimal | None,
) -> Rates:
    """Return all rates: tokens that the price does not tell apart cost as much as the others of their side."""
    return Rates(
        rate_input,
        rate_input if cached is None else cached,
        rate_input if written is None else written,
        rate_output,
        rate_output if reasoning is None else reasoning,
    )
