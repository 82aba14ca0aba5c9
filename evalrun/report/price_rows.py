"""The prices of a run as rows of a table, as run.json tells them.

What run.json holds under `prices` enters, rows of text leave. Whatever it holds: old and foreign runs render too.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_RATE_NAMES = ("input", "cached_input", "cache_write", "output", "reasoning", "audio_input", "audio_output")


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceRow:
    """A price that was used for one model: at one time, or for prompts above one length."""

    model: str
    rates: tuple[str, ...]
    """USD per 1M tokens, one text for each column; "" where the price names none."""
    note: str = ""
    """When it holds, what it is multiplied by, and who says so, where that is not the job."""


def build_price_rows(prices: Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[PriceRow, ...]]:
    """Return the rates that any price names, and the rows of each model: one a price, and one a tier of it."""
    found = [(str(model), note, rates) for model, price in prices.items() for note, rates in _list_rates(price)]
    columns = tuple(name for name in _RATE_NAMES if any(rates.get(name) is not None for _, _, rates in found))
    rows = [
        PriceRow(
            model=model,
            rates=tuple("" if rates.get(name) is None else str(rates[name]) for name in columns),
            note=note,
        )
        for model, note, rates in found
    ]
    return columns, tuple(rows)


def _list_rates(price: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield each price and each tier of a model with a note; one without rates for a model without a price."""
    known = price if isinstance(price, Mapping) else {}
    entries = known.get("entries")
    # An older evalrun wrote the one price of a model itself.
    listed = [each for each in entries if isinstance(each, Mapping)] if isinstance(entries, list) else [known]
    library = f"{known['library']}, {known.get('origin')}" if known.get("library") else ""
    for entry in listed or [{}]:
        yield _note_price(entry, library), entry
        for tier in _get_list(entry, "tiers"):
            yield (
                f"prompts above {_write_count(tier.get('above_prompt_tokens'))} tokens",
                {**entry, **_drop_nulls(tier)},
            )


def _note_price(entry: Mapping[str, Any], library: str) -> str:
    since = f"from {entry['valid_from']}" if entry.get("valid_from") else ""
    factors = [
        f"{tier} unknown" if factor is None else f"{tier} × {factor}" for tier, factor in _get_factors(entry).items()
    ]
    return "; ".join(part for part in (since, ", ".join(factors), library) if part)


def _get_list(mapping: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    value = mapping.get(key)
    return [each for each in value if isinstance(each, Mapping)] if isinstance(value, list) else []


def _drop_nulls(mapping: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in mapping.items() if value is not None}


def _write_count(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def _get_factors(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    factors = entry.get("multipliers")
    return factors if isinstance(factors, Mapping) else {}
