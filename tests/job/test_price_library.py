"""The price library: which of its prices are taken, and that they cost what the library reckons."""

import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

import pytest

from evalrun.cost import compute_cost
from evalrun.job import price_library
from evalrun.job.price_library import LibraryAnswer, Seller, find_library_prices, is_local
from evalrun.options import PriceOptions
from evalrun.records import CostSource, Usage

genai_prices = pytest.importorskip("genai_prices", minversion="0.2.3")
types = pytest.importorskip("genai_prices.types")

AT = datetime(2026, 11, 23, tzinfo=UTC)
OPENAI = "https://api.openai.com/v1"
PROXY = "https://proxy.example/v1"


def ask(model: str, base_url: str, profile_url: str | None = None) -> LibraryAnswer:
    """Ask the installed library."""
    answer = find_library_prices(model, Seller(base_url, profile_url), at=AT)
    assert answer is not None
    return answer


def make_provider(provider_id: str, *models: Any, pattern: str = r"https://api\.acme\.example") -> Any:
    """Return a provider of the library's."""
    return types.Provider(id=provider_id, name=provider_id, api_pattern=pattern, models=list(models))


def make_model(prices: Any, variants: list[Any] | None = None, **more: Any) -> Any:
    """Return a model of the library's, called m."""
    found = {"id": "m", "match": types.ClauseEquals(equals="m"), "prices": prices, "price_variants": variants, **more}
    return types.ModelInfo(**found)


def make_prices(input_rate: str = "1", output_rate: str = "2", **more: Any) -> Any:
    """Return prices of the library's."""
    return types.ModelPrice(input_mtok=Decimal(input_rate), output_mtok=Decimal(output_rate), **more)


def convert(*models: Any, at: datetime = AT) -> LibraryAnswer:
    """Ask a library that knows these models of one provider only."""
    seller = Seller("https://api.acme.example/v1", None)
    return price_library._ask([make_provider("acme", *models)], "m", seller, library="lib 1", at=at)


@pytest.mark.parametrize(
    ("model", "base_url", "profile_url", "origin"),
    [
        ("gpt-5.1", OPENAI, None, "openai/gpt-5.1"),
        ("GPT-5.1", OPENAI, None, "openai/gpt-5.1"),
        ("gpt-5.1-2025-11-13", OPENAI, None, "openai/gpt-5.1"),
        ("gpt-5.1", PROXY, OPENAI, "openai/gpt-5.1"),
        ("openai/gpt-5.1", PROXY, None, "openai/gpt-5.1"),
        ("openai/gpt-5.1", "https://openrouter.ai/api/v1", None, "openrouter/openai/gpt-5.1"),
        ("gemini-2.5-pro", "https://generativelanguage.googleapis.com/v1beta/openai", None, "google/gemini-2.5-pro"),
        ("claude-sonnet-4-5", "https://api.anthropic.com/v1", None, "anthropic/claude-sonnet-4-5"),
        # A dated id that the library does not name; a name of which it knows a part only.
        ("gpt-5.1-2026-01-01", OPENAI, None, ""),
        ("gpt-5-nano-2025-08-07", OPENAI, None, ""),
        ("gemini-2.5-pro-xyz", "https://generativelanguage.googleapis.com/v1beta/openai", None, ""),
        # Nobody says who sells it; another host behind the first letters of a known one; another seller's prefix.
        ("gpt-5.1", PROXY, None, ""),
        ("gpt-5.1", "https://api.openai.com.evil.example/v1", None, ""),
        ("openai/gpt-5.1", OPENAI, None, ""),
        ("nobody/gpt-5.1", PROXY, None, ""),
        # Azure's ids are names that its customers give.
        ("gpt-5.9-mine", "https://acme.openai.azure.com/openai/v1", None, ""),
    ],
)
def test_library_price_is_of_this_very_model_of_this_very_seller(
    model: str, base_url: str, profile_url: str | None, origin: str
) -> None:
    """A price is taken where the library names the id in full and the seller is known; else there is none."""
    assert ask(model, base_url, profile_url).prices.origin == origin


def test_library_price_carries_version_and_source() -> None:
    """What came from the library says so, with the version of the data."""
    prices = ask("gpt-5.1", OPENAI).prices
    assert (prices.source, prices.library) == (CostSource.LIBRARY, f"genai-prices {genai_prices.__version__}")


def test_name_of_which_the_library_knows_a_part_is_told() -> None:
    """The nearest model of the library is named, and not taken."""
    (note,) = ask("gemini-2.5-pro-xyz", "https://generativelanguage.googleapis.com").notes
    assert "would take 'gemini-2.5-pro-xyz' for 'gemini-2.5-pro' by a part of the name" in note


def list_prices() -> Iterator[tuple[Any, Any, PriceOptions]]:
    """Yield a model of the library for each price in it that was taken; many models share one."""
    from genai_prices.data import providers

    seen = set()
    for provider in providers:
        for model in provider.models:
            price = price_library._convert(model, model.id, "genai-prices", AT).prices.find(AT)
            if price is not None and repr(price) not in seen:
                seen.add(repr(price))
                yield provider, model, price


USAGES = [
    Usage(prompt_tokens=1_234, completion_tokens=567),
    Usage(prompt_tokens=900_001, completion_tokens=10_000, cached_tokens=300_007, cache_write_tokens=20_011),
    Usage(prompt_tokens=5_000, completion_tokens=4_000, audio_input_tokens=1_003, reasoning_tokens=1_501),
    Usage(prompt_tokens=10, completion_tokens=999, audio_output_tokens=313),
]
BOUNDARIES = [
    Usage(prompt_tokens=size + more, completion_tokens=7)
    for size in (32_000, 128_000, 200_000, 256_000, 272_000)
    for more in (0, 1)
]


def reckon(provider: Any, model: Any, usage: Usage, context: dict[str, str] | None) -> Decimal:
    """Return what the library itself makes of a reply."""
    counts = {
        "input_tokens": usage.prompt_tokens,
        "output_tokens": usage.completion_tokens,
        "cache_read_tokens": usage.cached_tokens,
        "cache_write_tokens": usage.cache_write_tokens,
        "input_audio_tokens": usage.audio_input_tokens,
        "output_audio_tokens": usage.audio_output_tokens,
        "output_reasoning_tokens": usage.reasoning_tokens,
    }
    return Decimal(
        model.calc_price(
            genai_prices.Usage(**counts), provider, genai_request_timestamp=AT, price_context=context
        ).total_price
    )


def test_every_price_that_is_taken_costs_what_the_library_reckons() -> None:
    """For each model, usage and service tier of the library our cost is the library's, or unknown; never another."""
    contexts = {"flex": {"service_tier": "flex"}, "priority": {"service_tier": "priority"}}
    contexts |= {"fast": {"service_tier": "fast"}, "batch": {"processing": "batch"}}
    n_prices = n_unknown = 0
    for provider, model, price in list_prices():
        n_prices += 1
        for usage in USAGES + (BOUNDARIES if price.tiers else []):
            assert compute_cost(usage, price).usd == reckon(provider, model, usage, None), (
                provider.id,
                model.id,
                usage,
            )
        for tier, context in contexts.items() if model.price_variants else ():
            usd = compute_cost(USAGES[1], price, service_tier=tier).usd
            n_unknown += usd is None
            assert usd in {None, reckon(provider, model, USAGES[1], context)}, (provider.id, model.id, tier)
    assert n_prices > 500
    assert 0 < n_unknown < 60


def test_price_by_the_time_of_day_is_unknown() -> None:
    """What our prices have no word for is not taken for something near it."""
    (note,) = ask("deepseek-chat", "https://api.deepseek.com").notes
    assert note.endswith("knows it, but its price depends on the time of day; none was taken")
    off_peak = types.ConditionalPrice(
        constraint=types.TimeOfDateConstraint(time(0), time(8)), prices=make_prices("0.5")
    )
    standard = types.ConditionalPrice(prices=make_prices())
    ended = types.ConditionalPrice(constraint=types.StartDateConstraint(date(2026, 1, 1)), prices=make_prices("3"))
    assert not convert(make_model([standard, off_peak])).prices
    # Prices by the hour that a later price has ended do not matter any more.
    (price,) = convert(make_model([standard, off_peak, ended])).prices.entries
    assert price.input == 3


@pytest.mark.parametrize(
    ("more", "part"),
    [
        ({"requests_kcount": Decimal(5)}, "requests_kcount"),
        ({"output_image_mtok": Decimal(30)}, "output_image_mtok"),
        ({"audio_hours": Decimal(1)}, "audio_hours"),
        ({"output_mtok": None}, "no price for both input and output"),
    ],
)
def test_price_that_replies_do_not_tell_apart_is_unknown(more: dict[str, Any], part: str) -> None:
    """A price for each request, image or hour cannot be reckoned from a reply's tokens."""
    answer = convert(make_model(types.ModelPrice(**{"input_mtok": Decimal(1), "output_mtok": Decimal(2), **more})))
    assert not answer.prices
    assert part in answer.notes[0]


def test_image_tokens_that_cost_as_much_as_text_do_not_matter() -> None:
    """A rate of its own that is no other than that of text is no obstacle, nor are fees for searches."""
    more: dict[str, Any] = {
        "input_image_mtok": Decimal(1),
        "web_searches_kcount": Decimal(10),
        "cache_write_1h_mtok": Decimal(2),
    }
    assert convert(make_model(make_prices(**more))).prices


def start(day: str, prices: Any) -> Any:
    """Return a price of the library's that begins on a day."""
    return types.ConditionalPrice(constraint=types.StartDateConstraint(date.fromisoformat(day)), prices=prices)


def test_prices_that_begin_later_are_kept_with_their_dates() -> None:
    """The price of today and those to come are taken, those of the past are not."""
    prices = [types.ConditionalPrice(prices=make_prices("1")), start("2026-08-21", make_prices("2"))]
    found = convert(make_model([*prices, start("2027-01-01", make_prices("3"))])).prices
    assert [(price.valid_from, price.input) for price in found.entries] == [
        ("2026-08-21", Decimal(2)),
        ("2027-01-01", Decimal(3)),
    ]
    early = convert(make_model(prices), at=datetime(2026, 8, 20, 23, 59, tzinfo=UTC)).prices
    assert [(price.valid_from, price.input) for price in early.entries] == [
        (None, Decimal(1)),
        ("2026-08-21", Decimal(2)),
    ]


def test_price_that_is_still_to_come_is_not_taken_for_today() -> None:
    """The library falls back to its first price; a price that has not begun is none."""
    found = convert(make_model([start("2027-01-01", make_prices())])).prices
    assert (found.find(AT), found.first_valid_from) == (None, "2027-01-01")


def make_variant(prices: Any, constraint: Any = None, **when: str) -> Any:
    """Return a variant of the library's."""
    return types.PriceVariant(when=when, prices=prices, constraint=constraint)


@pytest.mark.parametrize(
    ("variant", "multipliers"),
    [
        (make_variant(make_prices("0.5", "1"), service_tier="flex"), {"flex": Decimal("0.5")}),
        (make_variant(make_prices("0.5", "1"), processing="batch"), {"batch": Decimal("0.5")}),
        (make_variant(types.ModelPrice(), service_tier="default"), {}),
        (make_variant(make_prices("0.5", "1.5"), service_tier="flex"), {"flex": None}),
        (make_variant(types.ModelPrice(input_mtok=Decimal("0.5")), service_tier="flex"), {"flex": None}),
        (make_variant(make_prices(cache_read_mtok=Decimal(1)), service_tier="flex"), {"flex": None}),
        (make_variant(make_prices("0.5", "1", requests_kcount=Decimal(1)), service_tier="flex"), {"flex": None}),
        (make_variant(make_prices("0", "0"), service_tier="flex"), {"flex": None}),
        (make_variant(make_prices("101", "202"), service_tier="flex"), {"flex": None}),
        (make_variant(make_prices("0.5", "1"), route="eu"), {}),
        (make_variant(make_prices("0.5", "1"), service_tier="flex", route="eu"), {}),
        (
            make_variant(make_prices("0.5", "1"), types.StartDateConstraint(date(2027, 1, 1)), service_tier="flex"),
            {},
        ),
    ],
)
def test_service_tier_is_a_multiplier_where_all_rates_scale_alike(variant: Any, multipliers: dict[str, Any]) -> None:
    """One factor for all rates is a multiplier; anything else is unknown; other contexts have no say."""
    price = convert(make_model(make_prices(), [variant])).prices.find(AT)
    assert price is not None
    assert price.multipliers == multipliers


def test_tier_without_one_factor_is_told() -> None:
    """A service tier whose replies will have no known cost is said before the run."""
    answer = convert(make_model(make_prices(), [make_variant(make_prices("0.5", "1.5"), service_tier="flex")]))
    assert answer.notes == ("lib 1 has rates for `flex` that no multiplier gives; such replies have no known cost",)


def test_sellers_at_one_address_with_other_prices_are_not_chosen_between() -> None:
    """Two providers that fit an address give a price only where theirs is the same."""
    seller = Seller("https://api.acme.example/v1", None)
    first = make_provider("a", make_model(make_prices()))
    alike, other = (make_provider("b", make_model(make_prices(rate))) for rate in ("1", "9"))
    answers = [price_library._ask([first, each], "m", seller, library="lib 1", at=AT) for each in (alike, other)]
    assert [len(answer.prices.entries) for answer in answers] == [1, 0]
    assert answers[1].notes == ("lib 1 has prices of several sellers (a, b) that differ; none was taken",)


def test_library_that_is_not_installed_has_no_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra nothing is asked and nothing is said."""
    monkeypatch.setitem(sys.modules, "genai_prices.data_snapshot", None)
    assert find_library_prices("gpt-5.1", Seller(OPENAI, None), at=AT) is None


def test_library_of_another_make_is_said_and_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Classes that were renamed end in a note, never in a traceback."""
    from genai_prices import data_snapshot

    monkeypatch.setattr(data_snapshot, "get_snapshot", lambda: object())
    (note,) = ask("gpt-5.1", OPENAI).notes
    assert "cannot be read by this evalrun" in note


@pytest.mark.parametrize(
    ("url", "is_here"),
    [
        ("http://127.0.0.1:8000/v1", True),
        ("http://localhost:11434/v1", True),
        ("http://[::1]:8000/v1", True),
        ("http://192.168.1.7/v1", True),
        ("http://vllm/v1", True),
        ("https://llm.corp.internal/v1", True),
        ("https://api.openai.com/v1", False),
        ("https://8.8.8.8/v1", False),
    ],
)
def test_own_machines_sell_nothing(url: str, *, is_here: bool) -> None:
    """A server of one's own is told by its address."""
    assert is_local(url) is is_here
