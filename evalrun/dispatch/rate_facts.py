"""What rate-limit headers tell: limits per minute, what is left of them, and when they are whole again.

Headers enter in whatever dialect the server speaks, plain facts leave; None = not told, or not to be believed. No value
of a header raises. A limit whose window is in doubt is not taken as a rate: requests of a day taken as requests of a
minute would be met at once, those of a second would make a lane sixty times too slow.

Source: WIRE 2.7; docs.fireworks.ai/serverless/rate-limits and console.groq.com/docs/rate-limits, read 2026-11-22. Daily
request limits under OpenAI's per-minute name ("Limit 200 … try again in 7m12s"): feder-cr/invisible_playwright_mcp#109.
"""

import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Final

from evalrun.dispatch.retry_after import parse_duration

_NUMBER = re.compile(r"[0-9]{1,18}(\.[0-9]{1,9})?")
_MAX_LENGTH: Final = 64
"""No honest value is longer; a sum of huge numbers would overflow."""
_EPOCH_S: Final = 1e9
_EPOCH_MS: Final = 1e12
"""Plain resets from there on are times since 1970, not durations."""

_GROQ: Final = frozenset({"x-groq-region"})
_AZURE: Final = frozenset({"apim-request-id", "x-ms-region", "azureml-model-session"})
_OPENAI: Final = frozenset({"openai-processing-ms", "openai-version", "openai-organization"})
"""Headers that tell whose dialect the reply speaks."""

_Names = tuple[str, str, str]


def _name(pattern: str) -> _Names:
    return pattern.format("limit"), pattern.format("remaining"), pattern.format("reset")


_MINUTE_REQUESTS: Final = (
    _name("x-ratelimit-{}-requests-minute"),
    _name("x-ratelimit-{}-req-minute"),
    _name("anthropic-ratelimit-requests-{}"),
)
_MINUTE_TOKENS: Final = (
    _name("x-ratelimit-{}-tokens"),
    _name("x-ratelimit-{}-project-tokens"),
    _name("x-ratelimit-{}-tokens_usage_based"),
    _name("x-ratelimit-{}-tokens-minute"),
    _name("anthropic-ratelimit-tokens-{}"),
)
"""Names that are always of a minute, whoever sends them."""
_APART_TOKENS: Final = (
    _name("anthropic-ratelimit-input-tokens-{}"),
    _name("anthropic-ratelimit-output-tokens-{}"),
    _name("x-ratelimit-{}-tokens-prompt"),
    _name("x-ratelimit-{}-tokens-generated"),
)
"""Limits of a minute for prompt and output apart: Anthropic's, or Fireworks'."""
_REQUESTS: Final = _name("x-ratelimit-{}-requests")
_NAMELESS: Final = _name("x-ratelimit-{}")
_NAMELESS_TOKENS: Final = _name("x-tokenlimit-{}")
_ALL: Final = (*_MINUTE_REQUESTS, *_MINUTE_TOKENS, *_APART_TOKENS, _REQUESTS, _NAMELESS, _NAMELESS_TOKENS)
_ALL_NAMES: Final = frozenset(name for names in _ALL for name in names)
_MINUTE_S: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RateFacts:
    """What one reply tells about its lane's limits; None = not told."""

    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    """Prompt and output together; where both have limits of their own, their sum."""
    remaining_requests: float | None = None
    """Of whatever window; 0 only together with a reset."""
    remaining_tokens: float | None = None
    """The least that is left, where prompt and output are counted apart; 0 only together with a reset."""
    reset_requests_s: float | None = None
    """Seconds until the limit is whole again, more than 0."""
    reset_tokens_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reading:
    """One limit as told."""

    limit: float | None = None
    remaining: float | None = None
    reset_s: float | None = None
    resolution_s: float = 0.0
    """The reset may be so much shorter than told."""

    @property
    def is_told(self) -> bool:
        return self.limit is not None or self.remaining is not None


class _Clock:
    """The server's own time, or else ours; read only when a reset is a time of day."""

    def __init__(self, date: str | None, now: datetime | None) -> None:
        self._date = date
        self._now = now

    def until_s(self, moment: datetime) -> float | None:
        """Return the seconds until then; None when nobody knows what time it is."""
        now = _parse_date(self._date) or self._now
        return None if now is None else (moment - now).total_seconds()


def has_rate_facts(headers: Mapping[str, str]) -> bool:
    """Tell whether headers, their names in lower case, say anything about limits; most do not."""
    return not _ALL_NAMES.isdisjoint(headers)


def read_rate_facts(headers: Mapping[str, str], *, now: datetime | None) -> RateFacts:
    """Return what the headers of a reply tell about limits.

    Args:
        headers: Names in lower case.
        now: Local UTC time, used for dated resets when there is no `Date` header; None ignores such a reset then.
    """
    clock = _Clock(headers.get("date"), now)
    told = _find_told(_ALL_NAMES.intersection(headers))
    requests, requests_per_minute = _read_requests(headers, told, clock)
    tokens, tokens_per_minute = _read_tokens(headers, told, clock)
    return RateFacts(
        requests_per_minute=requests_per_minute,
        tokens_per_minute=tokens_per_minute,
        remaining_requests=_believe_remaining(requests),
        remaining_tokens=_believe_remaining(tokens),
        reset_requests_s=requests.reset_s,
        reset_tokens_s=tokens.reset_s,
    )


_UNTOLD: Final = _Reading()


@lru_cache(maxsize=64)
def _find_told(present: frozenset[str]) -> frozenset[_Names]:
    """Return which limits are told by headers of these names: the same ones in each reply of a server."""
    return frozenset(names for names in _ALL if names[0] in present or names[1] in present)


def _believe_remaining(reading: _Reading) -> float | None:
    """Azure says 0 for what it does not know, and then tells no reset either."""
    return None if reading.remaining == 0 and reading.reset_s is None else reading.remaining


# Requests


def _read_requests(
    headers: Mapping[str, str], told: Collection[_Names], clock: _Clock
) -> tuple[_Reading, float | None]:
    """Return the limit of requests, and what of it is per minute."""
    of_minute = _read_all(headers, told, _MINUTE_REQUESTS, clock)
    if of_minute:
        return of_minute[0], of_minute[0].limit
    reading = _read(headers, told, _REQUESTS, clock)
    if reading.is_told:
        return reading, reading.limit if _is_per_minute(headers, reading) else None
    reading = _read(headers, told, _NAMELESS, clock)
    return reading, reading.limit * 60 if reading.limit is not None and _is_per_second(headers, reading) else None


def _is_per_minute(headers: Mapping[str, str], reading: _Reading) -> bool:
    """Tell whether `x-ratelimit-limit-requests` is of a minute: by its dialect, else by how fast it refills."""
    if not _GROQ.isdisjoint(headers):
        return False
    if not _AZURE.isdisjoint(headers):
        return reading.reset_s is None or reading.reset_s <= _MINUTE_S
    least_s, most_s = _find_window(reading)
    if not _OPENAI.isdisjoint(headers):
        return 0 <= least_s <= 1.5 * _MINUTE_S  # OpenAI's limits of a day use the same name.
    return 0 < most_s <= 3 * least_s and least_s <= 1.5 * _MINUTE_S and most_s >= _MINUTE_S / 1.5


def _find_window(reading: _Reading) -> tuple[float, float]:
    """Return the least and the most seconds in which the limit refills, if it does so steadily; (-1, -1) = unknown.

    What is missing is given back in the reset's time, so the whole limit takes limit / missing times as long. What
    remains is told in whole requests: one less may be missing than it seems.
    """
    if reading.limit is None or reading.remaining is None or reading.reset_s is None:
        return -1.0, -1.0
    missing = reading.limit - reading.remaining
    if missing < 1:
        return -1.0, -1.0
    least_s = reading.limit * max(0.0, reading.reset_s - reading.resolution_s) / missing
    most_s = reading.limit * reading.reset_s / (missing - 1) if missing > 1 else math.inf
    return least_s, most_s


def _is_per_second(headers: Mapping[str, str], reading: _Reading) -> bool:
    """Tell whether a nameless limit is Together's: of a second, and whole again within one.

    Others use the same name for windows of every length.
    """
    if reading.reset_s is None:
        return "x-ratelimit-reset" not in headers and "x-tokenlimit-limit" in headers
    return reading.reset_s <= 1


# Tokens


def _read_tokens(headers: Mapping[str, str], told: Collection[_Names], clock: _Clock) -> tuple[_Reading, float | None]:
    """Return the scarcest limit of tokens, and what may be used per minute."""
    together = _read_all(headers, told, _MINUTE_TOKENS, clock)
    apart = _read_all(headers, told, _APART_TOKENS, clock)
    if together or apart:
        limits = [one.limit for one in together if one.limit is not None]
        return _find_scarcest([*together, *apart]), min(limits) if limits else _add_limits(apart)
    reading = _read(headers, told, _NAMELESS_TOKENS, clock)
    is_of_second = reading.limit is not None and _is_per_second(headers, _read(headers, told, _NAMELESS, clock))
    return reading, reading.limit * 60 if is_of_second and reading.limit is not None else None


def _find_scarcest(readings: Sequence[_Reading]) -> _Reading:
    return min(readings, key=lambda one: math.inf if one.remaining is None else one.remaining)


def _add_limits(readings: Sequence[_Reading]) -> float | None:
    """Return the sum of the limits of prompt and output; None unless both are told.

    Pacing by the smaller one would hold back prompts for the sake of output, or the other way round. A lane that meets
    one of them before the sum learns it from refusals.
    """
    limits = [one.limit for one in readings if one.limit is not None]
    return math.fsum(limits) if len(limits) == 2 else None


# Single headers


def _read_all(
    headers: Mapping[str, str], told: Collection[_Names], wanted: Iterable[_Names], clock: _Clock
) -> list[_Reading]:
    readings = [_read(headers, told, names, clock) for names in wanted if names in told]
    return [reading for reading in readings if reading.is_told]


def _read(headers: Mapping[str, str], told: Collection[_Names], names: _Names, clock: _Clock) -> _Reading:
    if names not in told:
        return _UNTOLD
    limit, remaining = _parse_number(headers.get(names[0])), _parse_number(headers.get(names[1]))
    if limit is None and remaining is None:
        return _UNTOLD
    reset = (headers.get(names[2]) or "").strip()
    # Seconds and dates are told in whole seconds, Go durations (`17ms`) and fractions are not.
    is_whole = "." not in reset and not reset[-1:].islower()
    return _Reading(
        limit=limit if limit is not None and limit >= 1 else None,
        remaining=remaining,
        reset_s=_parse_reset(reset, clock),
        resolution_s=1.0 if is_whole else 0.0,
    )


def _parse_number(text: str | None) -> float | None:
    """Return 0 or more; None for anything else, -1 included: that is how Azure says that it does not know."""
    return None if text is None or len(text) > _MAX_LENGTH else _parse_short_number(text)


@lru_cache(maxsize=512)
def _parse_short_number(text: str) -> float | None:
    """Limits are the same in each reply, and what is left of them comes round again."""
    return float(text) if _NUMBER.fullmatch(text.strip()) else None


def _parse_reset(text: str, clock: _Clock) -> float | None:
    """Return the seconds until a reset, more than 0: from a duration, a date, or a time since 1970."""
    if not text or len(text) > _MAX_LENGTH:
        return None
    seconds = _parse_short_duration(text)
    if seconds is None or seconds >= _EPOCH_S:
        moment = _parse_date(text) if seconds is None else _parse_epoch(seconds)
        seconds = None if moment is None else clock.until_s(moment)
    return seconds if seconds is not None and seconds > 0 else None


_parse_short_duration = lru_cache(maxsize=512)(parse_duration)


def _parse_epoch(seconds: float) -> datetime | None:
    try:
        return datetime.fromtimestamp(seconds / 1000 if seconds >= _EPOCH_MS else seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def _parse_date(text: str | None) -> datetime | None:
    if text is None or not text[:1].isalnum() or len(text) > _MAX_LENGTH:
        return None
    try:
        moment = datetime.fromisoformat(text) if text[0].isdigit() else parsedate_to_datetime(text)
        return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
