"""Tokens to money: published prices to the cent, and unknown stays unknown."""

from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalrun.cost import UNKNOWN_COST, Buckets, Cost, choose_rates, compute_cost, split_usage
from evalrun.options import PriceOptions, PriceTier
from evalrun.records import CostSource, Usage

FLAT = PriceOptions(input=Decimal("1.25"), cached_input=Decimal("0.125"), output=Decimal(10))
TIERED = PriceOptions(
    input=Decimal("1.25"),
    output=Decimal(10),
    tiers=(PriceTier(above_prompt_tokens=200_000, input=Decimal("2.5"), output=Decimal(15)),),
)


def count(prompt: int | None, completion: int | None, **more: int | None) -> Usage:
    """Return usage with two totals and more."""
    return Usage(prompt_tokens=prompt, completion_tokens=completion, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("usage", "price", "usd"),
    [
        (count(1_000_000, 0), FLAT, "1.25"),
        (count(0, 1_000_000), FLAT, "10"),
        (count(1_000_000, 0, cached_tokens=1_000_000), FLAT, "0.125"),
        (count(1_000_000, 0, cached_tokens=400_000), FLAT, "0.8"),
        (count(200_000, 0), TIERED, "0.25"),
        (count(200_001, 0), TIERED, "0.5000025"),
        (count(1_000_000, 1_000_000), TIERED, "17.5"),
        (count(10, 20, reasoning_tokens=5), FLAT, "0.0002125"),
    ],
)
def test_cost_is_exact(usage: Usage, price: PriceOptions, usd: str) -> None:
    """Each bucket is priced once; a long prompt moves the whole request to its tier."""
    assert compute_cost(usage, price) == Cost(Decimal(usd), CostSource.TABLE)


def test_cost_is_not_rounded() -> None:
    """A hundred thousand replies of a tiny price add up to what they cost: only the tables round."""
    price = PriceOptions(input=Decimal("0.0000001"), output=Decimal(1), multipliers={"flex": Decimal("0.333")})
    usd = compute_cost(count(7, 0), price, service_tier="flex").usd
    assert usd == Decimal("0.0000000000002331")


@pytest.mark.parametrize(
    ("usage", "buckets"),
    [
        (count(10, 5), Buckets(10, 0, 0, 0, 5, 0, 0)),
        (count(10, 5, cached_tokens=3, cache_write_tokens=2, audio_input_tokens=1), Buckets(4, 3, 2, 1, 5, 0, 0)),
        (count(10, 5, reasoning_tokens=2, audio_output_tokens=1), Buckets(10, 0, 0, 0, 2, 2, 1)),
        (count(10, 5, cached_tokens=8, audio_input_tokens=6), Buckets(0, 8, 0, 2, 5, 0, 0)),
        (count(None, 5), None),
        (count(10, None), None),
    ],
)
def test_usage_is_split_into_buckets_that_do_not_overlap(usage: Usage, buckets: Buckets | None) -> None:
    """Each token is counted once; sound that was read from the cache counts as read; unknown totals have no buckets."""
    assert split_usage(usage) == buckets


def test_sound_has_prices_of_its_own() -> None:
    """Sound costs as the other tokens of its side where the price does not tell it apart, in a tier as well."""
    usage = count(1_000_000, 1_000_000, audio_input_tokens=400_000, audio_output_tokens=500_000)
    price = PriceOptions(input=Decimal(2), output=Decimal(10))
    heard = replace(price, audio_input=Decimal(40), audio_output=Decimal(80))
    tiered = replace(heard, tiers=(PriceTier(above_prompt_tokens=999, audio_input=Decimal(50)),))
    found = [compute_cost(usage, each).usd for each in (price, heard, tiered)]
    assert found == [12, Decimal("62.2"), Decimal("66.2")]


def test_reasoning_and_cache_writes_have_prices_of_their_own() -> None:
    """Reasoning and cache-write tokens take their own price where there is one."""
    price = PriceOptions(input=Decimal(4), cache_write=Decimal(5), output=Decimal(20), reasoning=Decimal(30))
    usage = count(1_000_000, 1_000_000, cache_write_tokens=500_000, reasoning_tokens=500_000)
    assert compute_cost(usage, price).usd == Decimal("29.5")


@pytest.mark.parametrize(("tier", "usd"), [("flex", "0.625"), ("priority", "2.5"), ("default", "1.25"), (None, "1.25")])
def test_service_tier_as_answered_multiplies(tier: str | None, usd: str) -> None:
    """The tier of the reply chooses the multiplier; one that the price does not name is 1."""
    price = PriceOptions(
        input=Decimal("1.25"), output=Decimal(10), multipliers={"flex": Decimal("0.5"), "priority": Decimal(2)}
    )
    assert compute_cost(count(1_000_000, 0), price, service_tier=tier).usd == Decimal(usd)


def test_service_tier_whose_price_nobody_knows_has_no_known_cost() -> None:
    """A multiplier of null makes the cost of such a reply unknown, and of no other."""
    price = PriceOptions(input=Decimal(1), output=Decimal(2), multipliers={"flex": None})
    assert compute_cost(count(1, 1), price, service_tier="flex") == UNKNOWN_COST
    assert compute_cost(count(1_000_000, 0), price, service_tier="priority").usd == 1


def test_cost_named_by_the_reply_is_preferred() -> None:
    """What the server says it charged goes before any table."""
    usage = Usage(prompt_tokens=1, completion_tokens=1, reported_cost_usd=Decimal("0.42"))
    assert compute_cost(usage, FLAT) == Cost(Decimal("0.42"), CostSource.REPORTED)


@pytest.mark.parametrize(
    ("usage", "price"), [(count(1, 1), None), (count(None, 1), FLAT), (count(1, None), FLAT), (Usage(), FLAT)]
)
def test_unknown_is_none_and_never_zero(usage: Usage, price: PriceOptions | None) -> None:
    """Without a price, or without both totals, the cost is unknown."""
    assert compute_cost(usage, price) == UNKNOWN_COST


def test_highest_tier_that_is_reached_holds() -> None:
    """Of several tiers the highest one below the prompt's size is taken, whatever their order."""
    tiers = tuple(PriceTier(above_prompt_tokens=n, input=Decimal(n)) for n in (300, 100, 200))
    price = PriceOptions(input=Decimal(1), output=Decimal(2), tiers=tiers)
    assert [choose_rates(price, n).input for n in (100, 101, 250, 301)] == [1, 100, 200, 300]


COUNTS = {
    "cached_tokens": st.none() | st.integers(0, 10**8),
    "cache_write_tokens": st.none() | st.integers(0, 10**8),
    "audio_input_tokens": st.none() | st.integers(0, 10**8),
    "reasoning_tokens": st.none() | st.integers(0, 10**8),
    "audio_output_tokens": st.none() | st.integers(0, 10**8),
}


@given(prompt=st.integers(0, 10**7), completion=st.integers(0, 10**7), parts=st.fixed_dictionaries(COUNTS))
def test_cost_is_never_negative_and_never_above_the_dearest_bucket(
    prompt: int, completion: int, parts: dict[str, int | None]
) -> None:
    """Whatever the parts claim, buckets add up, and a cost lies between zero and all tokens at the dearest price."""
    usage = count(prompt, completion, **parts)
    buckets = split_usage(usage)
    assert buckets is not None
    assert min(buckets) >= 0
    assert (sum(buckets[:4]), sum(buckets[4:])) == (prompt, completion)
    usd = compute_cost(usage, FLAT).usd
    assert usd is not None
    assert 0 <= usd <= (prompt + completion) * Decimal(10) / 1_000_000
