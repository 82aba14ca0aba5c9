"""Token counts of a reply, in OpenAI's meaning, with nothing believed that cannot be.

A usage object enters as the server sent it, a `Usage` record leaves. A count that is negative, a text, a fraction or
absurdly large is not counted and flagged: unknown, never 0.
"""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, NamedTuple

from evalrun.dispatch.json_text import dump_json
from evalrun.records import NO_USAGE, Usage, UsageSource

_MAX_TOKENS = 10**12
"""More than any request can hold; larger counts are garbage."""
_INCONSISTENT = "usage_inconsistent"
_CONVERTED = "usage_converted"
_NO_DETAILS: Mapping[str, Any] = {}


class _Counts(NamedTuple):
    prompt: int | None
    cached: int | None
    written: int | None
    completion: int | None
    reasoning: int | None
    total: int | None


def parse_usage(value: Any) -> Usage:
    """Return the counts of a usage object; source `missing` and all None when there is none.

    Args:
        value: The `usage` member of a reply, any JSON value.

    Raises:
        ValueError: The object is nested too deeply to be kept.
    """
    if value is None:
        return NO_USAGE
    raw = dump_json(value)
    if not isinstance(value, dict):
        return Usage(raw=raw, flags=(_INCONSISTENT,))
    flags: list[str] = []
    counts = _check_parts(_read_counts(value, flags), flags)
    is_reported = counts.prompt is not None or counts.completion is not None
    return Usage(
        prompt_tokens=counts.prompt,
        cached_tokens=counts.cached,
        cache_write_tokens=counts.written,
        completion_tokens=counts.completion,
        reasoning_tokens=counts.reasoning,
        total_tokens=counts.total,
        source=UsageSource.REPORTED if is_reported else UsageSource.MISSING,
        raw=raw,
        reported_cost_usd=_read_cost(value.get("cost"), flags),
        flags=tuple(flags),
    )


def _read_counts(usage: Mapping[str, Any], flags: list[str]) -> _Counts:
    if "prompt_tokens" not in usage and "input_tokens" in usage:
        return _convert_input_tokens(usage, flags)
    prompt_details = _read_details(usage, "prompt_tokens_details")
    cached = _check_count(prompt_details.get("cached_tokens"), flags)
    written = prompt_details.get("cache_write_tokens")
    if written is None:
        written = prompt_details.get("cache_creation_tokens")
    return _Counts(
        prompt=_check_count(usage.get("prompt_tokens"), flags),
        cached=cached if cached is not None else _check_count(usage.get("prompt_cache_hit_tokens"), flags),
        written=_check_count(written, flags),
        completion=_check_count(usage.get("completion_tokens"), flags),
        reasoning=_check_count(_read_details(usage, "completion_tokens_details").get("reasoning_tokens"), flags),
        total=_check_count(usage.get("total_tokens"), flags),
    )


def _convert_input_tokens(usage: Mapping[str, Any], flags: list[str]) -> _Counts:
    """Convert `input_tokens`/`output_tokens`: Anthropic leaves cached tokens out of the input."""
    _flag(flags, _CONVERTED)
    plain = _check_count(usage.get("input_tokens"), flags)
    read = _check_count(usage.get("cache_read_input_tokens"), flags)
    written = _check_count(usage.get("cache_creation_input_tokens"), flags)
    within = _check_count(_read_details(usage, "input_tokens_details").get("cached_tokens"), flags)
    return _Counts(
        prompt=None if plain is None else plain + (read or 0) + (written or 0),
        cached=read if read is not None else within,
        written=written,
        completion=_check_count(usage.get("output_tokens"), flags),
        reasoning=_check_count(_read_details(usage, "output_tokens_details").get("reasoning_tokens"), flags),
        total=_check_count(usage.get("total_tokens"), flags),
    )


def _check_parts(counts: _Counts, flags: list[str]) -> _Counts:
    """Drop parts larger than their whole; book what only the total knows as reasoning, as Gemini's relays do."""
    prompt, completion, total = counts.prompt, counts.completion, counts.total
    if prompt is not None and completion is not None and total is not None and total != prompt + completion:
        _flag(flags, _INCONSISTENT)
        outside = total - prompt - completion
        if outside > 0:
            completion += outside
            counts = counts._replace(completion=completion, reasoning=max(counts.reasoning or 0, outside))
    if prompt is not None and (counts.cached or 0) + (counts.written or 0) > prompt:
        _flag(flags, _INCONSISTENT)
        counts = counts._replace(cached=None, written=None)
    if completion is not None and (counts.reasoning or 0) > completion:
        _flag(flags, _INCONSISTENT)
        counts = counts._replace(reasoning=None)
    return counts


def _read_details(usage: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return the named parts of a count; nothing when they are not there, or no object."""
    details = usage.get(name)
    return details if isinstance(details, dict) else _NO_DETAILS


def _check_count(value: Any, flags: list[str]) -> int | None:
    """Return a count; None when there is none, or when it is no count."""
    if value is None or (type(value) is int and 0 <= value <= _MAX_TOKENS):  # True is no count.
        return value
    _flag(flags, _INCONSISTENT)
    return None


def _flag(flags: list[str], name: str) -> None:
    if name not in flags:
        flags.append(name)


def _read_cost(value: Any, flags: list[str]) -> Decimal | None:
    """Return the money that a reply names (OpenRouter's `usage.cost`, a number of USD)."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _MAX_TOKENS:
        _flag(flags, _INCONSISTENT)
        return None
    return Decimal(str(value))
