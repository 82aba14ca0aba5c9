"""What a reply says it used, in the dialect of one provider or another.

Enters: the counts that are billed. Leaves: the reply's `usage` object. The bill is the same in each dialect; what
differs is how it is told (WIRE: provider differences).
"""

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
    """Within `prompt`."""
    completion: int = 0
    """All that is billed as output: reasoning, audio and rejected predictions included."""
    reasoning: int = 0
    audio: int = 0
    accepted: int = 0
    """Predicted tokens that the reply says."""
    rejected: int = 0
    """Predicted tokens that it does not say."""


def make_usage(dialect: UsageDialect, counts: Counts) -> dict[str, Any] | None:
    """Return the usage object; None when the dialect tells none."""
    if dialect == "openai":
        return _make_openai(counts)
    if dialect == "deepseek":
        return _make_totals(counts) | {
            "prompt_tokens_details": {"cached_tokens": counts.cached},
            "completion_tokens_details": {"reasoning_tokens": counts.reasoning},
            "prompt_cache_hit_tokens": counts.cached,
            "prompt_cache_miss_tokens": counts.prompt - counts.cached,
        }
    if dialect == "gemini":
        # The total counts the thinking that completion_tokens leaves out.
        return _make_totals(counts) | {"completion_tokens": counts.completion - counts.reasoning}
    if dialect == "openrouter":
        return _make_openai(counts) | _make_cost(counts)
    return None


def _make_totals(counts: Counts) -> dict[str, Any]:
    return {
        "prompt_tokens": counts.prompt,
        "completion_tokens": counts.completion,
        "total_tokens": counts.prompt + counts.completion,
    }


def _make_openai(counts: Counts) -> dict[str, Any]:
    return _make_totals(counts) | {
        "prompt_tokens_details": {"cached_tokens": counts.cached, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": counts.reasoning,
            "audio_tokens": counts.audio,
            "accepted_prediction_tokens": counts.accepted,
            "rejected_prediction_tokens": counts.rejected,
        },
    }


def _make_cost(counts: Counts) -> dict[str, Any]:
    prompt_usd = (counts.prompt - counts.cached) * PROMPT_USD_PER_TOKEN + counts.cached * CACHED_USD_PER_TOKEN
    completion_usd = counts.completion * COMPLETION_USD_PER_TOKEN
    return {
        "cost": float(prompt_usd + completion_usd),
        "is_byok": False,
        "cost_details": {
            "upstream_inference_cost": None,
            "upstream_inference_prompt_cost": float(prompt_usd),
            "upstream_inference_completions_cost": float(completion_usd),
        },
    }
