"""Token counts of a reply, in OpenAI's meaning, with nothing believed that cannot be.

A usage object enters as the server sent it, a `Usage` record leaves. A count that is negative, a text, a fraction or
absurdly large is not counted and flagged: unknown, never 0. Invariant: no part is larger than its whole, and where the
total is not the sum of prompt and completion a flag says so. Every dialect is told by the names that it uses; where
the same names are used for two things, the total decides. Sources: WIRE sections 2.4, 2.6 and 2.12; COST_AND_PACING
section 3.2.
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
_OUTSIDE = "reasoning_outside"
_NO_DETAILS: Mapping[str, Any] = {}
_OTHER_NAMES = frozenset(
    {
        *("prompt_cache_hit_tokens", "prompt_cache_miss_tokens"),  # DeepSeek
        *("cache_read_input_tokens", "cache_creation_input_tokens", "cache_creation"),  # Anthropic, and relays of it
        *("input_tokens", "output_tokens"),  # Anthropic and OpenAI's responses; some relays send them beside ours
    }
)
_WRITE_NAMES = frozenset({"cache_write_tokens", "cache_creation_tokens", "cached_creation_tokens"})
"""What OpenAI and OpenRouter, LiteLLM, and new-api call the tokens written to a cache, among the details."""


class _Counts(NamedTuple):
    prompt: int | None
    cached: int | None
    written: int | None
    heard: int | None
    completion: int | None
    reasoning: int | None
    spoken: int | None
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
    counts = _check_parts(_book_outside(_read_counts(value, flags), flags), flags)
    is_reported = counts.prompt is not None or counts.completion is not None
    return Usage(
        prompt_tokens=counts.prompt,
        cached_tokens=counts.cached,
        cache_write_tokens=counts.written,
        completion_tokens=counts.completion,
        reasoning_tokens=counts.reasoning,
        audio_input_tokens=counts.heard,
        audio_output_tokens=counts.spoken,
        total_tokens=counts.total,
        source=UsageSource.REPORTED if is_reported else UsageSource.MISSING,
        raw=raw,
        reported_cost_usd=_read_cost(value, flags),
        flags=tuple(flags),
    )


# Dialects


def _read_counts(usage: Mapping[str, Any], flags: list[str]) -> _Counts:
    prompt = _check_count(usage.get("prompt_tokens"), flags)
    if usage.get("prompt_tokens") is None and usage.get("input_tokens") is not None:
        return _convert_input_tokens(usage, flags)
    inner, outer = _read_details(usage, "prompt_tokens_details"), _read_details(usage, "completion_tokens_details")
    counts = _Counts(
        prompt=prompt,
        cached=_check_count(inner.get("cached_tokens"), flags),
        written=None if _WRITE_NAMES.isdisjoint(inner) else _find_written(inner, flags),
        heard=_check_count(inner.get("audio_tokens"), flags),
        completion=_check_count(usage.get("completion_tokens"), flags),
        reasoning=_check_count(outer.get("reasoning_tokens"), flags),
        spoken=_check_count(outer.get("audio_tokens"), flags),
        total=_check_count(usage.get("total_tokens"), flags),
    )
    if not _OTHER_NAMES.isdisjoint(usage):
        return _heed_other_names(usage, counts, flags)
    return _place_cache(counts, flags) if _holds_too_much(counts) else counts


def _heed_other_names(usage: Mapping[str, Any], counts: _Counts, flags: list[str]) -> _Counts:
    """Add what a reply in OpenAI's names tells under other ones as well; where they contradict each other, flag it."""
    hit, miss = (_check_count(usage.get(f"prompt_cache_{kind}_tokens"), flags) for kind in ("hit", "miss"))
    read, made = _check_count(usage.get("cache_read_input_tokens"), flags), _read_writes(usage, flags)
    counts = counts._replace(
        cached=_agree((counts.cached, hit, read), flags), written=_agree((counts.written, made), flags)
    )
    if counts.prompt is not None and hit is not None and miss is not None and hit + miss != counts.prompt:
        _flag(flags, _INCONSISTENT)
    parts = (counts.cached or 0) + (counts.written or 0)
    if read or made or _holds_too_much(counts):
        counts = _place_cache(counts, flags)
    output = _check_count(usage.get("output_tokens"), flags)
    if counts.completion is None and output is not None:
        _flag(flags, _CONVERTED)
        return counts._replace(completion=output)
    # Relays that know only one of both namings fill the other one with zeros.
    plain = _check_count(usage.get("input_tokens"), flags)
    is_other_input = plain and counts.prompt is not None and plain not in {counts.prompt, counts.prompt - parts}
    if is_other_input or (output and output != counts.completion):
        _flag(flags, _INCONSISTENT)
    return counts


def _convert_input_tokens(usage: Mapping[str, Any], flags: list[str]) -> _Counts:
    """Convert `input_tokens`/`output_tokens`: Anthropic leaves cached tokens out of the input, OpenAI does not."""
    _flag(flags, _CONVERTED)
    inner, outer = _read_details(usage, "input_tokens_details"), _read_details(usage, "output_tokens_details")
    read, made = _check_count(usage.get("cache_read_input_tokens"), flags), _read_writes(usage, flags)
    output = usage.get("output_tokens")
    counts = _Counts(
        prompt=_check_count(usage.get("input_tokens"), flags),
        cached=_agree((_check_count(inner.get("cached_tokens"), flags), read), flags),
        written=_agree((_find_written(inner, flags), made), flags),
        heard=_check_count(inner.get("audio_tokens"), flags),
        completion=_check_count(usage.get("completion_tokens") if output is None else output, flags),
        reasoning=_check_count(outer.get("reasoning_tokens"), flags),
        spoken=_check_count(outer.get("audio_tokens"), flags),
        total=_check_count(usage.get("total_tokens"), flags),
    )
    if read is None and made is None:
        return _place_cache(counts, flags) if _holds_too_much(counts) else counts
    parts = (counts.cached or 0) + (counts.written or 0)
    return counts if counts.prompt is None else counts._replace(prompt=counts.prompt + parts)


def _find_written(details: Mapping[str, Any], flags: list[str]) -> int | None:
    return _agree(tuple(_check_count(details.get(name), flags) for name in sorted(_WRITE_NAMES)), flags)


def _read_writes(usage: Mapping[str, Any], flags: list[str]) -> int | None:
    """Return what Anthropic wrote to its cache: the sum, and where it is told how long for, that of its parts."""
    told = _check_count(usage.get("cache_creation_input_tokens"), flags)
    parts = [
        _check_count(part, flags)
        for name, part in _read_details(usage, "cache_creation").items()
        if name.startswith("ephemeral_") and name.endswith("_input_tokens")
    ]
    known = [part for part in parts if part is not None]
    return _agree((told, sum(known) if known else None), flags)


def _place_cache(counts: _Counts, flags: list[str]) -> _Counts:
    """Take cached tokens into a prompt that leaves them out, where the total says that it does.

    Relays of Anthropic put its meaning into OpenAI's names, and OpenAI's meaning into its own.
    """
    if counts.prompt is None or counts.completion is None or counts.total is None:
        return counts
    parts = (counts.cached or 0) + (counts.written or 0)
    if counts.total - counts.completion - counts.prompt != parts:
        return counts
    _flag(flags, _CONVERTED)
    return counts._replace(prompt=counts.prompt + parts)


def _holds_too_much(counts: _Counts) -> bool:
    """Tell whether more of the prompt was read from the cache, or written to it, than it has."""
    return counts.prompt is not None and (counts.cached or 0) + (counts.written or 0) > counts.prompt


# Invariants


def _book_outside(counts: _Counts, flags: list[str]) -> _Counts:
    """Book what only the total knows as reasoning, since Gemini's relays and xAI leave it out of the completion."""
    prompt, completion, reasoning, total = counts.prompt, counts.completion, counts.reasoning, counts.total
    if total is None:
        return counts
    outside = total - (prompt or 0) - (completion or 0)
    if outside < 0:
        _flag(flags, _INCONSISTENT)
    if outside <= 0 or prompt is None or completion is None:
        return counts
    _flag(flags, _OUTSIDE)
    if reasoning and reasoning != outside:  # Some of it within the completion, some outside? Nobody says so.
        _flag(flags, _INCONSISTENT)
    return counts._replace(completion=completion + outside, reasoning=max(reasoning or 0, outside))


def _check_parts(counts: _Counts, flags: list[str]) -> _Counts:
    """Drop parts that are together larger than their whole: which of them is wrong nobody can tell."""
    prompt, completion = counts.prompt, counts.completion
    if _holds_too_much(counts):
        _flag(flags, _INCONSISTENT)
        counts = counts._replace(cached=None, written=None)
    if prompt is not None and (counts.heard or 0) > prompt:  # Sound may be cached as well: it has no sum to keep to.
        _flag(flags, _INCONSISTENT)
        counts = counts._replace(heard=None)
    if completion is not None and (counts.reasoning or 0) + (counts.spoken or 0) > completion:
        _flag(flags, _INCONSISTENT)
        # One that is too large alone leaves the other one as it was.
        has_room = (counts.reasoning or 0) > completion >= (counts.spoken or 0)
        is_other = (counts.spoken or 0) > completion >= (counts.reasoning or 0)
        counts = counts._replace(
            reasoning=counts.reasoning if is_other else None, spoken=counts.spoken if has_room else None
        )
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


def _agree(told: tuple[int | None, ...], flags: list[str]) -> int | None:
    """Return a count that is told in several places, the first one where they differ; None when it is told nowhere."""
    known = [count for count in told if count is not None]
    if len(set(known)) > 1:
        _flag(flags, _INCONSISTENT)
    return known[0] if known else None


def _flag(flags: list[str], name: str) -> None:
    if name not in flags:
        flags.append(name)


# Money


def _read_cost(usage: Mapping[str, Any], flags: list[str]) -> Decimal | None:
    """Return the money that a reply names (OpenRouter's `usage.cost`, a number of USD).

    With a key of one's own (`is_byok`) that is the relay's fee, and the provider bills the rest itself: both together
    are the cost, and one alone is none.
    """
    cost = _check_amount(usage.get("cost"), flags)
    if cost is None or usage.get("is_byok") is not True:
        return cost
    upstream = _check_amount(_read_details(usage, "cost_details").get("upstream_inference_cost"), flags)
    return None if upstream is None else cost + upstream


def _check_amount(value: Any, flags: list[str]) -> Decimal | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _MAX_TOKENS:
        _flag(flags, _INCONSISTENT)
        return None
    return Decimal(str(value))
