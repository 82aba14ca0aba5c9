"""Figures that are not known yet, with their bounds, and what an earlier run tells of them."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """A figure with its bounds; None where it is unknown or unbounded."""

    low: float | None
    expected: float | None
    high: float | None


UNKNOWN = Range(low=None, expected=None, high=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What the answers of an earlier run tell of one model and prompt."""

    n_rows: int
    """Answers that told their usage; at least 2."""
    prompt_ratio: float
    """Prompt tokens as reported, for each that was estimated."""
    completion_tokens: float
    """Mean of a reply, over all its choices."""
    completion_deviation: float
    """Standard deviation of the replies."""
    cached_ratio: float = 0.0
    """Of the prompt tokens, those read from the server's cache."""
    cache_write_ratio: float = 0.0
    """Of the prompt tokens, those written to it."""
    reasoning_ratio: float = 0.0
    """Of the completion tokens, those of reasoning."""


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """What the newest run of the job that can tell saw."""

    run_id: str
    seen: Mapping[tuple[str, str], Seen]
    """By model and prompt; those that the job has changed since are left out."""
    discordance: float | None = None
    """Share of samples on which its two best arms differ; None when it had no two arms, or asked samples repeatedly."""
