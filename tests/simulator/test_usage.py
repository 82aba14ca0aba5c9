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
        ("continuous", OPENAI),
        ("gemini", {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 130}),
        ("openrouter", {**OPENAI, "cost": 0.000184, "is_byok": False, "cost_details": {
            "upstream_inference_cost": None, "upstream_inference_prompt_cost": 0.000064,
            "upstream_inference_completions_cost": 0.00012,
        }}),
        ("anthropic", {
            "input_tokens": 60, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 40,
            "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0}, "output_tokens": 30,
        }),
        ("responses", {
            "input_tokens": 100, "input_tokens_details": {"cached_tokens": 40}, "output_tokens": 30,
            "output_tokens_details": {"reasoning_tokens": 20}, "total_tokens": 130,
        }),
        ("none", None),
    ],
)  # fmt: skip
def test_usage_is_told_in_each_dialect(dialect: UsageDialect, usage: Any) -> None:
    """The same counts, as each provider tells them."""
    assert make_usage(dialect, COUNTS) == usage


@pytest.mark.parametrize(
    ("dialect", "told"),
    [
        ("openai", {"cached_tokens": 40, "audio_tokens": 0, "cache_write_tokens": 50}),
        ("openrouter", {"cached_tokens": 40, "audio_tokens": 0, "cache_write_tokens": 50}),
    ],
)
def test_usage_tells_cache_writes_within_the_prompt(dialect: UsageDialect, told: Any) -> None:
    """OpenAI's dialect counts what was written among the details of the prompt, once something was."""
    usage = make_usage(dialect, Counts(prompt=100, cached=40, cache_write=50, completion=1))
    assert usage is not None
    assert (usage["prompt_tokens"], usage["prompt_tokens_details"]) == (100, told)


def test_anthropic_usage_leaves_the_cache_out_of_the_input() -> None:
    """Input, read and written tokens stand side by side: together they are the prompt."""
    usage = make_usage("anthropic", Counts(prompt=100, cached=40, cache_write=50, completion=1))
    assert usage is not None
    assert (usage["input_tokens"], usage["cache_read_input_tokens"], usage["cache_creation_input_tokens"]) == (
        10, 40, 50,
    )  # fmt: skip
