"""Published prices, to the last digit: what others reckon for a reply is what it costs here.

Sources, none of them invented:

* T: the tests of genai-prices (github.com/pydantic/genai-prices, commit 47df840a of 21 August 2026), which print each
  total as a literal; test_price_calc.py and test_tiered_pricing.py.
* R: its page on PyPI (versions 0.1.12 and 0.1.13, read on 23 November 2026); the total of the example for flex is
  there, that of the example for the cache is not: it is worked out by hand below.
* Q: a question and its answer on community.openai.com (/t/1099176, January 2025), with usage, rates and formula.
* V: OpenAI's rates for batch and priority (developers.openai.com/api/docs/pricing, as genai-prices 0.2.3 notes them on
  12 and 14 October 2026); a million tokens each way, worked out by hand below.

Where the extra `prices` is installed the library reckons each of them again, and the prices that evalrun makes of its
data must give the same.
"""

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from evalrun.cost import compute_cost
from evalrun.job.price_file import PriceFile, load_price_file
from evalrun.job.price_library import Seller, find_library_prices
from evalrun.options import ModelOptions, PriceOptions
from evalrun.records import Usage

AT = datetime(2026, 11, 23, tzinfo=UTC)
MILLION = 1_000_000
SELLERS = {
    "openai": "https://api.openai.com/v1",
    "anthropic": "https://api.anthropic.com/v1",
    "google": "https://generativelanguage.googleapis.com/v1beta/openai",
    "moonshotai": "https://api.moonshot.ai/v1",
}


class Example(NamedTuple):
    """A reply whose cost somebody published."""

    source: str
    seller: str
    model: str
    usage: Usage
    usd: str
    service_tier: str | None = None
    is_named: bool = True
    """False where the library knows the id by its beginning only, so that evalrun takes no price from it."""


def count(prompt: int, completion: int, **more: int) -> Usage:
    """Return the usage of a reply."""
    return Usage(prompt_tokens=prompt, completion_tokens=completion, **more)  # type: ignore[arg-type]


EXAMPLES = [
    Example("T", "openai", "gpt-4o", count(1_000, 100), "0.0035"),
    # Long context: the whole request moves, from the first token above the threshold on.
    Example("T", "anthropic", "claude-sonnet-4-5", count(200_000, 0), "0.6"),
    Example("T", "anthropic", "claude-sonnet-4-5", count(200_001, 0), "1.200006"),
    Example("T", "anthropic", "claude-sonnet-4-5", count(300_000, 100_000), "4.05"),
    Example("T", "openai", "gpt-5.4", count(300_000, 100_000), "3.75"),
    # Read from the cache.
    Example("T", "openai", "gpt-5.4", count(100_000, 0, cached_tokens=100_000), "0.025"),
    Example("T", "moonshotai", "kimi-k2.7-code", count(1_000, 100, cached_tokens=100), "0.001274"),
    # Written to the cache. By hand for R: 5 × 3 + 4,735 × 3.75 + 255 × 15 = 21,596.25 millionths.
    Example("T", "openai", "gpt-5.6-terra", count(1_000, 0, cache_write_tokens=1_000), "0.0025"),
    Example(
        "R",
        "anthropic",
        "claude-sonnet-4-20250514",
        count(4_740, 255, cache_write_tokens=4_735),
        "0.02159625",
        is_named=False,
    ),
    # Both, of a long prompt: 150,000 × 4 + 100,000 × 5 + 50,000 × 0.4 + 10,000 × 18 = 1,300,000 millionths.
    Example(
        "T",
        "openai",
        "gpt-5.6-terra",
        count(300_000, 10_000, cache_write_tokens=100_000, cached_tokens=50_000),
        "1.3",
    ),
    Example("T", "google", "gemini-2.5-flash", count(MILLION, 0, audio_input_tokens=MILLION), "1"),
    # Reasoning, and the cache: 80 × 15 + 2,305 × 7.5 + 2,535 × 60 = 170,587.5 millionths.
    Example(
        "Q",
        "openai",
        "o1-preview-2024-09-12",
        count(2_385, 2_535, cached_tokens=2_305, reasoning_tokens=2_241),
        "0.1705875",
    ),
    Example("R", "openai", "o3", count(MILLION, MILLION), "5", "flex"),
    # (1.75 + 14) × 0.5, and (1.25 + 10) × 2.
    Example("V", "openai", "gpt-5.2", count(MILLION, MILLION), "7.875", "batch"),
    Example("V", "openai", "gpt-5.1", count(MILLION, MILLION), "22.5", "priority"),
]
NAMES = [f"{example.model}-{example.service_tier or example.usd}" for example in EXAMPLES]


@pytest.fixture(scope="module")
def price_file() -> PriceFile:
    """Read the published rates as a job reads its price file."""
    return load_price_file("published_prices.yaml", Path(__file__).parent, "here")


@pytest.mark.parametrize("example", EXAMPLES, ids=NAMES)
def test_published_example_costs_what_was_published(example: Example, price_file: PriceFile) -> None:
    """With the vendor's rates in a price file a reply costs what its publisher says."""
    series = price_file.find(ModelOptions(name="any", model=example.model))
    assert series is not None
    price = series.prices.find(AT)
    assert compute_cost(example.usage, price, service_tier=example.service_tier).usd == Decimal(example.usd)


@pytest.mark.parametrize("example", EXAMPLES, ids=NAMES)
def test_published_example_is_what_library_and_its_price_here_say(example: Example) -> None:
    """The library's own reckoning, and ours by the price made of its data, give the published cost."""
    library = pytest.importorskip("genai_prices", minversion="0.2.3")
    answer = find_library_prices(example.model, Seller(SELLERS[example.seller], None), at=AT)
    assert answer is not None
    cost = compute_cost(example.usage, answer.prices.find(AT), service_tier=example.service_tier)
    assert cost.usd == (Decimal(example.usd) if example.is_named else None)
    assert reckon(library, example) == Decimal(example.usd)


def reckon(library: Any, example: Example) -> Decimal:
    """Return what the library itself makes of an example."""
    usage, tier = example.usage, example.service_tier
    counts = {
        "input_tokens": usage.prompt_tokens,
        "output_tokens": usage.completion_tokens,
        "cache_read_tokens": usage.cached_tokens,
        "cache_write_tokens": usage.cache_write_tokens,
        "input_audio_tokens": usage.audio_input_tokens,
        "output_reasoning_tokens": usage.reasoning_tokens,
    }
    context = {None: None, "batch": {"processing": "batch"}}.get(tier, {"service_tier": tier})
    calculation = library.calc_price(
        library.Usage(**counts),
        example.model,
        provider_id=example.seller,
        genai_request_timestamp=AT,
        price_context=context,
    )
    return Decimal(calculation.total_price)


def test_price_before_a_change_is_that_of_its_time(price_file: PriceFile) -> None:
    """A request of the day before a price fell costs what it did then; by hand, 1,000 tokens at USD 3.125 and 2.5."""
    series = price_file.find(ModelOptions(name="gpt-5.6-terra"))
    assert series is not None
    usage = count(1_000, 0, cache_write_tokens=1_000)
    days = [datetime(2026, 7, 29, 23, 59, 59, tzinfo=UTC), datetime(2026, 7, 30, tzinfo=UTC)]
    found: list[PriceOptions | None] = [series.prices.find(day) for day in days]
    assert [compute_cost(usage, price).usd for price in found] == [Decimal("0.003125"), Decimal("0.0025")]


def test_price_file_of_published_rates_has_nothing_to_complain_of(price_file: PriceFile) -> None:
    """Real rates, cheap and dear, are no slip."""
    assert price_file.warnings == ()
