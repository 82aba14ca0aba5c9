"""The price library (`evalrun[prices]`): asked for one model of one seller, its answer turned into prices of our own.

A model's id and its seller's address enter; ModelPrices leave, or the reason why there are none. Nothing is guessed:
the library must name the very id, the seller must be known, and what our prices cannot say (a price by the time of day,
for each image) is unknown. No network: the data are those of the installed version, which is kept beside the price.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from decimal import Decimal, localcontext
from fractions import Fraction
from importlib.metadata import PackageNotFoundError, version
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import urlsplit

from evalrun.options import PriceOptions, PriceTier
from evalrun.prices import NO_PRICES, ModelPrices
from evalrun.records import CostSource

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, Provider

PACKAGE: Final = "genai-prices"

_RATES: Final[Mapping[str, str]] = {
    "input": "input_mtok",
    "output": "output_mtok",
    "cached_input": "cache_read_mtok",
    "cache_write": "cache_write_mtok",
    "reasoning": "output_reasoning_mtok",
    "audio_input": "input_audio_mtok",
    "audio_output": "output_audio_mtok",
}
"""Our names of rates and the library's."""

_PASSED_OVER: Final = frozenset(
    {
        "cache_write_1h_mtok",
        "cache_audio_read_mtok",
        "cache_image_read_mtok",
        "web_searches_kcount",
        "storage_searches_kcount",
    }
)
"""What a chat request meets only if it asks for it, and what no reply tells apart; docs/prices.md names them."""

_LIKE_TEXT: Final[Mapping[str, str]] = {
    "input_image_mtok": "input_mtok",
    "input_video_mtok": "input_mtok",
    "output_image_mtok": "output_mtok",
    "output_video_mtok": "output_mtok",
    "output_citation_mtok": "output_mtok",
}
"""Tokens that replies do not tell from those of text: a price of their own cannot be applied."""

_TIERS: Final[Mapping[str, Mapping[str, str]]] = {"service_tier": {}, "processing": {"batch": "batch"}}
"""Contexts of the library's variants that a reply's `service_tier` can tell; the names it goes by where they differ."""

Rates = Mapping[str, Any]
"""Our names of rates → a Decimal, or the library's TieredPrices."""


class Seller(NamedTuple):
    """By what a seller is known."""

    base_url: str
    profile_url: str | None
    """Where the provider is found whose profile the endpoint names; None without one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LibraryAnswer:
    """What the library says of one model."""

    prices: ModelPrices = NO_PRICES
    notes: tuple[str, ...] = ()
    """Why there are none, or what of them is unknown."""


class _CannotSayError(Exception):
    """The library's price is of a kind that ours have no word for."""


def is_local(base_url: str) -> bool:
    """Return whether an address is of this machine or a private network, where no seller stands."""
    host = urlsplit(base_url).hostname or ""
    try:
        return not ip_address(host).is_global
    except ValueError:
        return "." not in host or host.endswith((".localhost", ".local", ".internal", ".lan", ".home.arpa"))


def find_library_prices(wire_model: str, seller: Seller, *, at: datetime) -> LibraryAnswer | None:
    """Return what the price library says a model costs at its seller; None when the library is not installed.

    Args:
        wire_model: The model's id on the wire.
        seller: Who sells it.
        at: Now; prices that ended before are left out.
    """
    try:
        # The import takes half a second, and most jobs name their prices.
        from genai_prices.data_snapshot import get_snapshot

        library = f"{PACKAGE} {version(PACKAGE)}"
    except (ImportError, PackageNotFoundError):
        return None
    try:
        return _ask(get_snapshot().providers, wire_model, seller, library=library, at=at)
    except (AttributeError, TypeError) as error:  # Its classes were renamed before, and may be again.
        return LibraryAnswer(notes=(f"{library} cannot be read by this evalrun ({error})",))


def _ask(providers: "list[Provider]", wire_model: str, seller: Seller, *, library: str, at: datetime) -> LibraryAnswer:
    sellers, ref = _find_sellers(providers, wire_model, seller)
    found = [(provider, model) for provider in sellers if (model := _find_model(provider, ref)) is not None]
    if not found:
        return LibraryAnswer(notes=tuple(_explain_absence(sellers, ref, library)))
    answers = [_convert(model, f"{provider.id}/{model.id}", library, at) for provider, model in found]
    if any(answer.prices.entries != answers[0].prices.entries for answer in answers[1:]):
        names = ", ".join(provider.id for provider, _ in found)
        return LibraryAnswer(notes=(f"{library} has prices of several sellers ({names}) that differ; none was taken",))
    return answers[0]


def _find_sellers(providers: "list[Provider]", wire_model: str, seller: Seller) -> "tuple[list[Provider], str]":
    """Return who may sell the model, and its id there.

    The address tells; where it is not known, the profile; else the provider in front of the id, as gateways write it.
    """
    for url in (seller.base_url, seller.profile_url):
        known = [provider for provider in providers if url is not None and _is_at(provider.api_pattern, url)]
        if known:
            return known, wire_model.lower()
    prefix, slash, rest = wire_model.lower().partition("/")
    return [provider for provider in providers if slash and provider.id == prefix], rest


def _is_at(pattern: str, url: str) -> bool:
    """Return whether a provider's pattern fits an address, and not only the first letters of a longer host name."""
    match = re.match(pattern, url)
    if match is None:
        return False
    rest = url[match.end() :]
    return not rest or rest[0] in "/:?" or url[match.end() - 1] == "/" or pattern.endswith(r"\.")


def _find_model(provider: "Provider", ref: str) -> "ModelInfo | None":
    """Return the model that the library takes for the id, if it names that very id."""
    model = next((model for model in provider.models if model.is_match(ref)), None)
    return model if model is not None and ref in {model.id.lower(), *_list_aliases(model.match)} else None


def _list_aliases(match: Any) -> Iterator[str]:
    """Yield the ids that a rule names in full; rules over parts of an id would take one model for another."""
    from genai_prices.types import ClauseEquals, ClauseOr

    if isinstance(match, ClauseEquals):
        yield match.equals.lower()
    elif isinstance(match, ClauseOr):
        for clause in match.or_:
            yield from _list_aliases(clause)


def _explain_absence(sellers: "list[Provider]", ref: str, library: str) -> Iterator[str]:
    near = next((model.id for provider in sellers for model in provider.models if model.is_match(ref)), None)
    if near is not None:
        yield f"{library} would take {ref!r} for {near!r} by a part of the name, which is no proof; none was taken"


def _convert(model: "ModelInfo", origin: str, library: str, at: datetime) -> LibraryAnswer:
    """Return a model's prices from `at` on in our own form."""
    unknown: dict[str, None] = {}
    try:
        entries = tuple(_list_entries(model, at.astimezone(UTC), unknown))
    except _CannotSayError as error:
        return LibraryAnswer(notes=(f"{library} knows it, but {error}; none was taken",))
    tiers = ", ".join(f"`{tier}`" for tier in unknown if tier != "batch")  # No reply of a run is of a batch.
    notes = (
        [f"{library} has rates for {tiers} that no multiplier gives; such replies have no known cost"] if tiers else []
    )
    prices = ModelPrices(entries, CostSource.LIBRARY, origin=origin, library=library)
    return LibraryAnswer(prices=prices, notes=tuple(notes))


def _list_entries(model: "ModelInfo", at: datetime, unknown: dict[str, None]) -> Iterator[PriceOptions]:
    """Yield the price that holds now and each later one; note the service tiers whose price cannot be said."""
    conditional = model.prices if isinstance(model.prices, list) else []
    constraints = [each.constraint for each in (*conditional, *(model.price_variants or ()))]
    starts = {start for each in constraints if (start := getattr(each, "start_date", None)) is not None}
    today = at.date()
    current = max((start for start in starts if start <= today), default=None)
    for start in (current, *sorted(start for start in starts if start > today)):
        day = start or today
        rates = _read_rates(_pick_prices(model, day))
        if rates is None:
            continue  # Its first price is still to come.
        multipliers = dict(_list_multipliers(model, rates, day))
        unknown |= dict.fromkeys(name for name, value in multipliers.items() if value is None)
        yield _make_price(rates, multipliers, start)


def _pick_prices(model: "ModelInfo", day: date) -> Any:
    """Return the library's price of a day: the last whose condition holds; None when none does.

    Raises:
        _CannotSayError: It depends on the time of day.
    """
    if not isinstance(model.prices, list):
        return model.prices
    for each in reversed(model.prices):
        if _holds(each.constraint, day):
            return each.prices
    return None


def _holds(constraint: Any, day: date) -> bool:
    if constraint is None:
        return True
    if not hasattr(constraint, "start_date"):
        msg = "its price depends on the time of day"
        raise _CannotSayError(msg)
    return bool(constraint.active(datetime.combine(day, time(), UTC)))


def _read_rates(prices: Any, *, is_partial: bool = False) -> dict[str, Any] | None:
    """Return the library's rates under our names; None for no price.

    Raises:
        _CannotSayError: There is one that we cannot apply.
    """
    if prices is None:
        return None
    written = {key: value for key, value in vars(prices).items() if value is not None}
    for key, value in written.items():
        like = _LIKE_TEXT.get(key)
        if key in _RATES.values() or key in _PASSED_OVER or (like is not None and value == written.get(like)):
            continue
        msg = f"part of its price is `{key}`, which no reply tells apart"
        raise _CannotSayError(msg)
    rates = {name: written[key] for name, key in _RATES.items() if key in written}
    if not is_partial and not {"input", "output"} <= set(rates):
        msg = "it has no price for both input and output tokens"
        raise _CannotSayError(msg)
    return rates


def _list_multipliers(model: "ModelInfo", rates: Rates, day: date) -> Iterator[tuple[str, Decimal | None]]:
    """Yield each service tier that does not cost the standard price, with its factor; None where there is not one."""
    contexts = [dict(variant.when) for variant in model.price_variants or ()]
    for index, context in enumerate(contexts):
        if len(context) != 1 or context in contexts[:index]:
            continue
        ((key, value),) = context.items()
        name = _TIERS[key].get(value, value) if key in _TIERS else None
        variants = [
            each for each in model.price_variants or () if each.when == context and _holds(each.constraint, day)
        ]
        if name is None or not variants:
            continue
        factor = _find_factor(rates, variants)
        if factor != 1:
            yield name, factor


def _find_factor(rates: Rates, variants: list[Any]) -> Decimal | None:
    """Return the one factor between standard rates and those of a variant; None when there is none."""
    changed: dict[str, Any] = {}
    for variant in variants:  # The first to name a rate counts.
        try:
            changed = {**(_read_rates(variant.prices, is_partial=True) or {}), **changed}
        except _CannotSayError:
            return None
    if not changed.keys() <= rates.keys():
        return None
    varied = {**rates, **changed}
    sizes = [
        0,
        *(above + 1 for above in _list_thresholds({**rates, **{f"new {key}": changed[key] for key in changed}})),
    ]
    pairs = [(_rate_at(rates[key], size), _rate_at(varied[key], size)) for key in rates for size in sizes]
    factors = {Fraction(new) / Fraction(old) for old, new in pairs if old}
    if len(factors) > 1 or any(new for old, new in pairs if not old):
        return None
    return _to_decimal(factors.pop()) if factors else Decimal(1)


def _to_decimal(factor: Fraction) -> Decimal | None:
    """Return a factor as our prices take it; None when it has no end of digits, or is out of their bounds."""
    with localcontext(prec=20):
        value = Decimal(factor.numerator) / Decimal(factor.denominator)
    return value if Fraction(value) == factor and 0 < value <= 100 else None


def _list_thresholds(rates: Rates) -> list[int]:
    """Return the numbers of prompt tokens above which any rate changes."""
    return sorted({tier.start for rate in rates.values() for tier in getattr(rate, "tiers", ())})


def _rate_at(rate: Any, prompt_tokens: int) -> Decimal:
    """Return a rate for prompts of a size; the library's tiers hold for the whole request, as ours do."""
    if isinstance(rate, Decimal):
        return rate
    reached = [tier for tier in rate.tiers if prompt_tokens > tier.start]
    chosen: Decimal = max(reached, key=lambda tier: tier.start).price if reached else rate.base
    return chosen


def _make_price(rates: Rates, multipliers: Mapping[str, Decimal | None], start: date | None) -> PriceOptions:
    tiers = tuple(
        PriceTier(above_prompt_tokens=above, **{key: _rate_at(rate, above + 1) for key, rate in rates.items()})
        for above in _list_thresholds(rates)
    )
    base: dict[str, Any] = {key: _rate_at(rate, 0) for key, rate in rates.items()}
    valid_from = None if start is None else start.isoformat()
    return PriceOptions(**base, tiers=tiers, multipliers=multipliers, valid_from=valid_from)
