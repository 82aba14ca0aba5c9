"""What a reply says it used, in the dialect of one provider or another.

Enters: the counts that are billed. Leaves: the reply's `usage` object. The bill is the same in each dialect; what
differs is how it is told (WIRE: provider differences).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from evalrun.options import UsageDialect

PROMPT_USD_PER_TOKEN: Final = Decimal("0.000001")
"""What the `openrouter` dialect reckons its cost with."""
CACHED_USD_PER_TOKEN: Final = Decimal("0.0000001")
COMPLETION_USD_PER_TOKEN: Final = Decimal("0.000004")


@dataclass(slots=True, kw_only=True)
class Counts:
    """The tokens of one reply, over all its choices."""

    prompt: int = 0
    cached: int = 0
    """Read from the cache, within `prompt`."""
    cache_write: int = 0
    """Written to the cache, within `prompt` and beside `cached`."""
    audio_input: int = 0
    """Of sounds, within `prompt` and neither read from the cache nor written to it."""
    completion: int = 0
    """All that is billed as output: reasoning, audio and rejected predictions included."""
    reasoning: int = 0
    """Within `completion`."""
    audio: int = 0
    """Spoken, within `completion` and beside `reasoning`."""
    accepted: int = 0
    """Predicted tokens that the reply says."""
    rejected: int = 0
    """Predicted tokens that it does not say."""


def make_usage(dialect: UsageDialect, counts: Counts) -> dict[str, Any] | None:
    """Return the usage object; None when the dialect tells none."""
    make = _MAKERS.get(dialect)
    return None if make is None else make(counts)


def _make_totals(counts: Counts) -> dict[str, Any]:
    return {
        "prompt_tokens": counts.prompt,
        "completion_tokens": counts.completion,
        "total_tokens": counts.prompt + counts.completion,
    }


def _make_openai(counts: Counts) -> dict[str, Any]:
    prompt_details = {"cached_tokens": counts.cached, "audio_tokens": counts.audio_input}
    if counts.cache_write:  # Only models whose writes cost something tell of them.
        prompt_details["cache_write_tokens"] = counts.cache_write
    return _make_totals(counts) | {
        "prompt_tokens_details": prompt_details,
        "completion_tokens_details": {
            "reasoning_tokens": counts.reasoning,
            "audio_tokens": counts.audio,
            "accepted_prediction_tokens": counts.accepted,
            "rejected_prediction_tokens": counts.rejected,
        },
    }


def _make_deepseek(counts: Counts) -> dict[str, Any]:
    return _make_totals(counts) | {
        "prompt_tokens_details": {"cached_tokens": counts.cached},
        "completion_tokens_details": {"reasoning_tokens": counts.reasoning},
        "prompt_cache_hit_tokens": counts.cached,
        "prompt_cache_miss_tokens": counts.prompt - counts.cached,
    }


def _make_gemini(counts: Counts) -> dict[str, Any]:
    # The total counts the thinking that completion_tokens leaves out.
    return _make_totals(counts) | {"completion_tokens": counts.completion - counts.reasoning}


def _make_openrouter(counts: Counts) -> dict[str, Any]:
    prompt_usd = (counts.prompt - counts.cached) * PROMPT_USD_PER_TOKEN + counts.cached * CACHED_USD_PER_TOKEN
    completion_usd = counts.completion * COMPLETION_USD_PER_TOKEN
    return _make_openai(counts) | {
        "cost": float(prompt_usd + completion_usd),
        "is_byok": False,
        "cost_details": {
            "upstream_inference_cost": None,
            "upstream_inference_prompt_cost": float(prompt_usd),
            "upstream_inference_completions_cost": float(completion_usd),
        },
    }


def _make_anthropic(counts: Counts) -> dict[str, Any]:
    # What has to do with the cache stands beside the input, not within it, and there is no total.
    return {
        "input_tokens": counts.prompt - counts.cached - counts.cache_write,
        "cache_creation_input_tokens": counts.cache_write,
        "cache_read_input_tokens": counts.cached,
        "cache_creation": {"ephemeral_5m_input_tokens": counts.cache_write, "ephemeral_1h_input_tokens": 0},
        "output_tokens": counts.completion,
    }


def _make_responses(counts: Counts) -> dict[str, Any]:
    return {
        "input_tokens": counts.prompt,
        "input_tokens_details": {"cached_tokens": counts.cached},
        "output_tokens": counts.completion,
        "output_tokens_details": {"reasoning_tokens": counts.reasoning},
        "total_tokens": counts.prompt + counts.completion,
    }


_MAKERS: Final[Mapping[UsageDialect, Callable[[Counts], dict[str, Any]]]] = {
    "openai": _make_openai,
    "continuous": _make_openai,
    "deepseek": _make_deepseek,
    "gemini": _make_gemini,
    "openrouter": _make_openrouter,
    "anthropic": _make_anthropic,
    "responses": _make_responses,
}
