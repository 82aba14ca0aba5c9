"""Token counts of a reply, in OpenAI's meaning, with nothing believed that cannot be.

A usage object enters as the server sent it, a `Usage` record leaves. A count that is negative, a text, a fraction or
absurdly large is not counted and flagged: unknown, never 0.
"""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, NamedTuple

from evalrun.dispatch.json_text import dump_json
from evalrun.records import Usage, UsageSource

_MAX_TOKENS = 10**12
"""More than any request can hold; larger counts are garbage."""
_INCONSISTENT = "usage_inconsistent"
_CONVERTED = "usage_converted"


class _Counts(NamedTuple):
    prompt: int | None
    cached: int | None
    written: int | None
    completion: int | None
    reasoning: int | None
    total: int | None


class _Reader:
    """Picks counts out of objects and remembers whether one had to be refused."""

    def __init__(self) -> None:
        self.flags: list[str] = []

    def flag(self, name: str) -> None:
        if name not in self.flags:
            self.flags.append(name)

    def count(self, source: Any, *names: str) -> int | None:
        """Return the first of the named counts that is there; None when none is, or when it is no count."""
        if not isinstance(source, Mapping):
            return None
        value = next((source[name] for name in names if source.get(name) is not None), None)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MAX_TOKENS:
            self.flag(_INCONSISTENT)
            return None
        return value


def parse_usage(value: Any) -> Usage:
    """Return the counts of a usage object; source `missing` and all None when there is none.

    Args:
        value: The `usage` member of a reply, any JSON value.

    Raises:
        ValueError: The object is nested too deeply to be kept.
    """
    if value is None:
        return Usage()
    reader = _Reader()
    raw = dump_json(value)
    if not isinstance(value, Mapping):
        return Usage(raw=raw, flags=(_INCONSISTENT,))
    counts = _check_parts(_read_counts(value, reader), reader)
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
        reported_cost_usd=_read_cost(value.get("cost"), reader),
        flags=tuple(reader.flags),
    )


def _read_counts(usage: Mapping[str, Any], reader: _Reader) -> _Counts:
    if "prompt_tokens" not in usage and "input_tokens" in usage:
        return _convert_input_tokens(usage, reader)
    prompt_details = usage.get("prompt_tokens_details")
    cached = reader.count(prompt_details, "cached_tokens")
    return _Counts(
        prompt=reader.count(usage, "prompt_tokens"),
        cached=cached if cached is not None else reader.count(usage, "prompt_cache_hit_tokens"),
        written=reader.count(prompt_details, "cache_write_tokens", "cache_creation_tokens"),
        completion=reader.count(usage, "completion_tokens"),
        reasoning=reader.count(usage.get("completion_tokens_details"), "reasoning_tokens"),
        total=reader.count(usage, "total_tokens"),
    )


def _convert_input_tokens(usage: Mapping[str, Any], reader: _Reader) -> _Counts:
    """Convert `input_tokens`/`output_tokens`: Anthropic leaves cached tokens out of the input."""
    reader.flag(_CONVERTED)
    plain = reader.count(usage, "input_tokens")
    read = reader.count(usage, "cache_read_input_tokens")
    written = reader.count(usage, "cache_creation_input_tokens")
    within = reader.count(usage.get("input_tokens_details"), "cached_tokens")
    return _Counts(
        prompt=None if plain is None else plain + (read or 0) + (written or 0),
        cached=read if read is not None else within,
        written=written,
        completion=reader.count(usage, "output_tokens"),
        reasoning=reader.count(usage.get("output_tokens_details"), "reasoning_tokens"),
        total=reader.count(usage, "total_tokens"),
    )


def _check_parts(counts: _Counts, reader: _Reader) -> _Counts:
    """Drop parts larger than their whole; book what only the total knows as reasoning, as Gemini's relays do."""
    prompt, completion, total = counts.prompt, counts.completion, counts.total
    if prompt is not None and completion is not None and total is not None and total != prompt + completion:
        reader.flag(_INCONSISTENT)
        outside = total - prompt - completion
        if outside > 0:
            completion += outside
            counts = counts._replace(completion=completion, reasoning=max(counts.reasoning or 0, outside))
    if prompt is not None and (counts.cached or 0) + (counts.written or 0) > prompt:
        reader.flag(_INCONSISTENT)
        counts = counts._replace(cached=None, written=None)
    if completion is not None and (counts.reasoning or 0) > completion:
        reader.flag(_INCONSISTENT)
        counts = counts._replace(reasoning=None)
    return counts


def _read_cost(value: Any, reader: _Reader) -> Decimal | None:
    """Return the money that a reply names (OpenRouter's `usage.cost`, a number of USD)."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _MAX_TOKENS:
        reader.flag(_INCONSISTENT)
        return None
    return Decimal(str(value))
