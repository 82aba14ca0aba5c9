"""What requests will cost, from what they will take: USD, low, expected and high.

Token ranges and a price enter. The bounds allow for what nobody knows before a run: whether the server's cache holds a
prompt, and whether it answers in the service tier that was asked for.
"""

from collections.abc import Iterator
from dataclasses import replace

from evalrun.cost import compute_cost
from evalrun.job.ranges import UNKNOWN, Range, Seen
from evalrun.options import PriceOptions
from evalrun.records import Usage

CACHEABLE_TOKENS = 1024
"""Providers that cache prompts unasked begin at this length."""

_NOTHING = Seen(n_rows=0, prompt_ratio=1.0, completion_tokens=0.0, completion_deviation=0.0)


def estimate_usd(
    price: PriceOptions | None,
    prompt: Range,
    completion: Range,
    *,
    n_requests: int,
    seen: Seen | None,
    service_tier: str,
) -> Range:
    """Return what requests of one prompt cost together; all None without a price.

    Args:
        price: What their model costs.
        prompt: Tokens of all their prompts.
        completion: Tokens of all their replies.
        n_requests: How many they are.
        seen: What an earlier run tells of them.
        service_tier: That they ask for; "" when they name none.
    """
    if price is None:
        return UNKNOWN
    if n_requests == 0:
        return Range(low=0.0, expected=0.0, high=0.0)
    known = seen or _NOTHING
    reckoning = _Reckoning(price, n_requests, known.reasoning_ratio)
    # A server that does not have the tier asked for answers in its usual one.
    tiers = tuple(dict.fromkeys((service_tier, "")))
    may_cache = known.cached_ratio > 0 or (prompt.high or 0.0) / n_requests >= CACHEABLE_TOKENS
    shares = [0.0, 1.0] if may_cache else [0.0]
    low = [
        usd
        for tier in tiers
        for cached in shares
        for usd in reckoning.reckon(prompt.low, completion.low, cached, 0.0, tier)
    ]
    high = [
        usd
        for tier in tiers
        for written in ([0.0, 1.0] if may_cache or known.cache_write_ratio > 0 else [0.0])
        for usd in reckoning.reckon(prompt.high, completion.high, 0.0, written, tier)
    ]
    expected = reckoning.reckon(
        prompt.expected, completion.expected, known.cached_ratio, known.cache_write_ratio, service_tier
    )
    return Range(low=min(low, default=None), expected=next(expected, None), high=max(high, default=None))


class _Reckoning:
    """Prices all tokens together, or the average request where it may reach a tier: tiers go by the single request."""

    def __init__(self, price: PriceOptions, n_requests: int, reasoning_ratio: float) -> None:
        self._price = price
        self._lowest_tier = min((tier.above_prompt_tokens for tier in price.tiers), default=None)
        self._n_requests = n_requests
        self._reasoning_ratio = reasoning_ratio

    def reckon(
        self, prompt_tokens: float | None, completion_tokens: float | None, cached: float, written: float, tier: str
    ) -> Iterator[float]:
        """Yield the cost of all requests; nothing when it is unbounded or unknown."""
        if prompt_tokens is None or completion_tokens is None:
            return
        has_tier = self._lowest_tier is not None and prompt_tokens > self._lowest_tier * self._n_requests
        # Whole tokens of short requests would be rounded to nothing, so they are priced as one that reaches no tier.
        n, price = (self._n_requests, self._price) if has_tier else (1, replace(self._price, tiers=()))
        n_prompt, n_completion = round(prompt_tokens / n), round(completion_tokens / n)
        usage = Usage(
            prompt_tokens=n_prompt,
            cached_tokens=round(cached * n_prompt),
            cache_write_tokens=round(written * n_prompt),
            completion_tokens=n_completion,
            reasoning_tokens=round(self._reasoning_ratio * n_completion),
        )
        usd = compute_cost(usage, price, service_tier=tier).usd
        if usd is not None:
            yield float(usd * n)
