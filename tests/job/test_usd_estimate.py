"""What requests will cost, from what they will take."""

from decimal import Decimal

import pytest

from evalrun.job.ranges import UNKNOWN, Range, Seen
from evalrun.job.usd_estimate import estimate_usd
from evalrun.options import PriceOptions, PriceTier

PRICE = PriceOptions(input=Decimal(1), cached_input=Decimal("0.1"), cache_write=Decimal(2), output=Decimal(10))
SEEN = Seen(n_rows=9, prompt_ratio=1.0, completion_tokens=1.0, completion_deviation=0.0, cached_ratio=0.5)


def make_range(low: float, expected: float, high: float | None) -> Range:
    """Return a range."""
    return Range(low=low, expected=expected, high=high)


def estimate(
    prompt: Range,
    *,
    price: PriceOptions | None = PRICE,
    completion: Range = make_range(0, 0, 0),  # noqa: B008 - a frozen record
    n_requests: int = 1,
    seen: Seen | None = None,
    service_tier: str = "",
) -> Range:
    """Return what requests cost, with the usual circumstances."""
    return estimate_usd(price, prompt, completion, n_requests=n_requests, seen=seen, service_tier=service_tier)


def test_estimated_usd_is_unknown_without_a_price_and_nothing_without_requests() -> None:
    """No price is no figure, never 0; no request is 0."""
    tokens = make_range(1, 2, 3)
    assert estimate(tokens, price=None) == UNKNOWN
    assert estimate(make_range(0, 0, 0), n_requests=0) == make_range(0, 0, 0)


def test_estimated_usd_has_no_bound_where_replies_have_none() -> None:
    """A reply of unlimited length may cost anything; what is expected of it is told all the same."""
    assert estimate(make_range(0, 0, 0), completion=make_range(1e6, 2e6, None)) == make_range(10, 20, None)


def test_estimated_usd_of_short_replies_is_not_rounded_away() -> None:
    """A thousand requests of less than half a token each are priced by what they take together."""
    assert estimate(make_range(400, 400, 400), n_requests=1000) == make_range(0.0004, 0.0004, 0.0004)


def test_estimated_usd_allows_for_the_cache_of_long_prompts() -> None:
    """Prompts that a server may cache can cost as little as if all were read, as much as if all were written."""
    assert estimate(make_range(1e6, 1e6, 1e6)) == make_range(0.1, 1, 2)


def test_estimated_usd_goes_by_the_cache_that_was_seen() -> None:
    """Half of the prompt was read from the cache the last time, so half is expected to be."""
    assert estimate(make_range(1000, 1000, 1000), seen=SEEN) == make_range(0.0001, 0.00055, 0.002)


@pytest.mark.parametrize(("tokens_each", "usd"), [(100, 0.0002), (101, 0.00202)])
def test_estimated_usd_goes_by_the_tier_of_the_single_request(tokens_each: int, usd: float) -> None:
    """Two requests below the threshold pay the base rate though together they pass it."""
    price = PriceOptions(
        input=Decimal(1), output=Decimal(1), tiers=(PriceTier(above_prompt_tokens=100, input=Decimal(10)),)
    )
    total = 2.0 * tokens_each
    assert estimate(make_range(total, total, total), price=price, n_requests=2) == make_range(usd, usd, usd)


def test_estimated_usd_allows_for_the_usual_tier() -> None:
    """A tier that was asked for is expected; the server may answer in its usual one."""
    price = PriceOptions(input=Decimal(1), output=Decimal(1), multipliers={"flex": Decimal("0.5")})
    tokens = make_range(100, 100, 100)
    assert estimate(tokens, price=price, service_tier="flex") == make_range(0.00005, 0.00005, 0.0001)
