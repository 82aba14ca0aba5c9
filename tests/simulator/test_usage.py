"""Tests of usage in each dialect."""

from typing import Any

import pytest

from evalrun.options import UsageDialect
from evalrun.simulator.usage import Counts, make_usage

COUNTS = Counts(prompt=100, cached=40, completion=30, reasoning=20, audio=3, accepted=2, rejected=1)
OPENAI = {
    "prompt_tokens": 100,
    "completion_tokens": 30,
    "total_tokens": 130,
    "prompt_tokens_details": {"cached_tokens": 40, "audio_tokens": 0},
    "completion_tokens_details": {
        "reasoning_tokens": 20, "audio_tokens": 3, "accepted_prediction_tokens": 2, "rejected_prediction_tokens": 1,
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ("dialect", "usage"),
    [
        ("openai", OPENAI),
        ("deepseek", {
            "prompt_tokens": 100, "completion_tokens": 30, "total_tokens": 130,
            "prompt_tokens_details": {"cached_tokens": 40}, "completion_tokens_details": {"reasoning_tokens": 20},
            "prompt_cache_hit_tokens": 40, "prompt_cache_miss_tokens": 60,
        }),
        ("gemini", {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 130}),
        ("openrouter", {**OPENAI, "cost": 0.000184, "is_byok": False, "cost_details": {
            "upstream_inference_cost": None, "upstream_inference_prompt_cost": 0.000064,
            "upstream_inference_completions_cost": 0.00012,
        }}),
        ("none", None),
    ],
)  # fmt: skip
def test_usage_is_told_in_each_dialect(dialect: UsageDialect, usage: Any) -> None:
    """The same counts, as each provider tells them."""
    assert make_usage(dialect, COUNTS) == usage
