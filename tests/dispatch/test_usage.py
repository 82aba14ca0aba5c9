"""Usage in every dialect: the same tokens give the same buckets, and what does not add up is never passed over."""

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalrun.cost import Buckets, split_usage
from evalrun.dispatch.usage import parse_usage
from evalrun.records import Usage, UsageSource

NAMES = (
    *("prompt_tokens", "completion_tokens", "total_tokens", "input_tokens", "output_tokens", "cost", "is_byok"),
    *("cached_tokens", "cache_write_tokens", "cache_creation_tokens", "cached_creation_tokens", "audio_tokens"),
    *("reasoning_tokens", "prompt_cache_hit_tokens", "prompt_cache_miss_tokens", "cache_read_input_tokens"),
    *("cache_creation_input_tokens", "ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens"),
    *("upstream_inference_cost",),
)
DETAILS = (
    *("prompt_tokens_details", "completion_tokens_details", "input_tokens_details", "output_tokens_details"),
    *("cache_creation", "cost_details"),
)
COUNT = st.integers(0, 200) | st.integers() | st.sampled_from([0, -1, 10**12, 10**12 + 1, 1.5, "7", True, None])
NUMBERS = st.dictionaries(st.sampled_from(NAMES), COUNT | st.floats(0, 1, allow_nan=False), max_size=8)
ANY_USAGE = st.builds(
    lambda counts, details: {**counts, **details},
    NUMBERS,
    st.dictionaries(st.sampled_from(DETAILS), NUMBERS | st.none() | st.lists(st.integers(), max_size=2), max_size=4),
)
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from((*NAMES, *DETAILS)), inner, max_size=6),
    max_leaves=12,
)


@given(ANY_USAGE | ANY_JSON)
def test_no_usage_gives_a_negative_bucket_or_a_wrong_sum_without_a_flag(value: Any) -> None:
    """Whatever a server sends, the buckets of a side add up to its total, and what does not add up is flagged."""
    usage = parse_usage(value)
    buckets = split_usage(usage)
    prompt, completion, total = usage.prompt_tokens, usage.completion_tokens, usage.total_tokens
    if buckets is not None:
        assert min(buckets) >= 0
        assert (sum(buckets[:4]), sum(buckets[4:])) == (prompt, completion)
        if total is not None and total != sum(buckets):
            assert "usage_inconsistent" in usage.flags
    assert (usage.cached_tokens or 0) + (usage.cache_write_tokens or 0) <= (prompt if prompt is not None else 10**13)
    assert (usage.reasoning_tokens or 0) + (usage.audio_output_tokens or 0) <= (
        completion if completion is not None else 10**13
    )
    assert (usage.source is UsageSource.REPORTED) is (prompt is not None or completion is not None)
    assert usage.reported_cost_usd is None or usage.reported_cost_usd >= 0


@given(ANY_USAGE)
def test_counts_that_are_changed_or_left_out_are_flagged(value: dict[str, Any]) -> None:
    """Totals without a flag are just those that the server named; a count that is there and unused has a flag."""
    usage = parse_usage(value)
    if not usage.flags:
        for name in ("prompt_tokens", "completion_tokens", "total_tokens"):
            assert getattr(usage, name) == value.get(name)
        details = value.get("prompt_tokens_details")
        if isinstance(details, dict) and details.get("cached_tokens") is not None:
            assert usage.cached_tokens == details["cached_tokens"]


BUCKETS = st.builds(Buckets, *[st.integers(0, 10**6) | st.just(0)] * len(Buckets._fields))


def write_openai(true: Buckets) -> dict[str, Any]:
    """Return the counts as OpenAI tells them: each part within its whole."""
    prompt, completion = sum(true[:4]), sum(true[4:])
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {
            "cached_tokens": true.cache_read,
            "cache_write_tokens": true.cache_write,
            "audio_tokens": true.audio_input,
        },
        "completion_tokens_details": {"reasoning_tokens": true.reasoning, "audio_tokens": true.audio_output},
    }


def write_openrouter(true: Buckets) -> dict[str, Any]:
    """Return OpenAI's counts with money, and null for what is nothing."""
    usage = write_openai(true)
    for details in ("prompt_tokens_details", "completion_tokens_details"):
        usage[details] = {name: count or None for name, count in usage[details].items()}
    return {**usage, "cost": 0.25, "is_byok": False, "cost_details": {"upstream_inference_cost": 0.2}}


def write_deepseek(true: Buckets) -> dict[str, Any]:
    """Return the counts with the prompt split into hits and misses."""
    usage = write_openai(true)
    del usage["prompt_tokens_details"]["cached_tokens"]
    misses = usage["prompt_tokens"] - true.cache_read
    return {**usage, "prompt_cache_hit_tokens": true.cache_read, "prompt_cache_miss_tokens": misses}


def write_gemini(true: Buckets) -> dict[str, Any]:
    """Return the counts with the thinking in the total alone."""
    usage = write_openai(true)
    usage["completion_tokens"] -= true.reasoning
    del usage["completion_tokens_details"]["reasoning_tokens"]
    return usage


def write_xai(true: Buckets) -> dict[str, Any]:
    """Return the counts with the thinking beside the completion, and told."""
    usage = write_openai(true)
    usage["completion_tokens"] -= true.reasoning
    return usage


def write_anthropic(true: Buckets) -> dict[str, Any]:
    """Return the counts with the cache outside the input, and its writes by how long they are kept."""
    short = true.cache_write // 3
    return {
        "input_tokens": true.uncached_input + true.audio_input,
        "cache_read_input_tokens": true.cache_read,
        "cache_creation_input_tokens": true.cache_write,
        "cache_creation": {
            "ephemeral_5m_input_tokens": short,
            "ephemeral_1h_input_tokens": true.cache_write - short,
        },
        "input_tokens_details": {"audio_tokens": true.audio_input},
        "output_tokens": sum(true[4:]),
        "output_tokens_details": {"reasoning_tokens": true.reasoning, "audio_tokens": true.audio_output},
        "service_tier": "standard",
    }


def write_anthropic_parts(true: Buckets) -> dict[str, Any]:
    """Return Anthropic's counts without the sum of what was written to the cache."""
    usage = write_anthropic(true)
    del usage["cache_creation_input_tokens"]
    return usage


def write_responses(true: Buckets) -> dict[str, Any]:
    """Return the counts under the names of OpenAI's responses."""
    usage = write_openai(true)
    return {
        "input_tokens": usage["prompt_tokens"],
        "input_tokens_details": usage["prompt_tokens_details"],
        "output_tokens": usage["completion_tokens"],
        "output_tokens_details": usage["completion_tokens_details"],
        "total_tokens": usage["total_tokens"],
    }


def write_litellm(true: Buckets) -> dict[str, Any]:
    """Return OpenAI's counts with Anthropic's names beside them, which lie within the prompt here."""
    usage = write_openai(true)
    usage["prompt_tokens_details"] = {"cached_tokens": true.cache_read, "audio_tokens": true.audio_input}
    writes = {"cache_creation_tokens": true.cache_write}
    usage["prompt_tokens_details"].update(writes)
    return {
        **usage,
        "cache_read_input_tokens": true.cache_read,
        "cache_creation_input_tokens": true.cache_write,
    }


def write_relay(true: Buckets) -> dict[str, Any]:
    """Return OpenAI's counts with zeros under the names that the relay does not fill."""
    return {**write_openai(true), "input_tokens": 0, "output_tokens": 0, "input_tokens_details": None}


DIALECTS = {
    write_openai: (),
    write_openrouter: (),
    write_deepseek: (),
    write_gemini: ("reasoning_outside",),
    write_xai: ("reasoning_outside",),
    write_anthropic: ("usage_converted",),
    write_anthropic_parts: ("usage_converted",),
    write_responses: ("usage_converted",),
    write_litellm: (),
    write_relay: (),
}
"""Each with the flags of its usage; where nothing was thought, nothing is outside."""


@pytest.mark.parametrize("write", DIALECTS, ids=lambda write: write.__name__)
@given(true=BUCKETS)
def test_each_dialect_of_the_same_tokens_gives_the_same_buckets(write: Any, true: Buckets) -> None:
    """However a server tells its tokens, each is in its own bucket, and only what was converted is flagged."""
    told = write(true)
    usage = parse_usage(told)
    assert split_usage(usage) == true
    expected = DIALECTS[write] if true.reasoning or DIALECTS[write] != ("reasoning_outside",) else ()
    assert usage.flags == expected
    assert (usage.source, json.loads(usage.raw or "")) == (UsageSource.REPORTED, told)


def parse(**told: Any) -> Usage:
    """Return what becomes of a usage object."""
    return parse_usage(told)


def test_cache_outside_the_prompt_is_taken_into_it_when_the_total_says_so() -> None:
    """Relays of Anthropic leave its cache outside `prompt_tokens`: the total tells, and a flag does."""
    usage = parse(
        prompt_tokens=10,
        completion_tokens=5,
        total_tokens=155,
        cache_read_input_tokens=100,
        cache_creation_input_tokens=40,
    )
    assert split_usage(usage) == Buckets(10, 100, 40, 0, 5, 0, 0)
    assert usage.flags == ("usage_converted",)
    details = {"cached_tokens": 100, "cached_creation_tokens": 40}
    other = parse(prompt_tokens=10, completion_tokens=5, total_tokens=155, prompt_tokens_details=details)
    assert split_usage(other) == split_usage(usage)
    responses = parse(input_tokens=10, output_tokens=5, total_tokens=155, input_tokens_details=details)
    assert split_usage(responses) == split_usage(usage)


@pytest.mark.parametrize("total", [None, 15, 16])
def test_more_cached_than_prompt_tokens_are_not_believed_without_a_total_that_fits(total: int | None) -> None:
    """The prompt is paid in full, and a flag says why."""
    details = {"cached_tokens": 100}
    usage = parse(prompt_tokens=10, completion_tokens=5, total_tokens=total, prompt_tokens_details=details)
    assert (usage.prompt_tokens, usage.cached_tokens) == (10, None)
    assert "usage_inconsistent" in usage.flags


@pytest.mark.parametrize(
    "told",
    [
        {"prompt_cache_hit_tokens": 3, "prompt_cache_miss_tokens": 8},
        {"prompt_cache_hit_tokens": 3, "prompt_tokens_details": {"cached_tokens": 4}},
        {"cache_read_input_tokens": 3, "prompt_tokens_details": {"cached_tokens": 4}},
        {"cache_creation_input_tokens": 3, "prompt_tokens_details": {"cache_write_tokens": 4}},
        {"cache_creation_input_tokens": 3, "cache_creation": {"ephemeral_5m_input_tokens": 4}},
        {"prompt_tokens_details": {"cache_write_tokens": 3, "cache_creation_tokens": 4}},
        {"input_tokens": 9},
        {"output_tokens": 4},
        {"total_tokens": 14},
        {"prompt_tokens_details": {"audio_tokens": 11}},
        {"completion_tokens_details": {"reasoning_tokens": 3, "audio_tokens": 3}},
    ],
    ids=str,
)
def test_counts_that_contradict_each_other_are_flagged(told: dict[str, Any]) -> None:
    """The totals stay as they were told; a flag says that not all of it can be true."""
    usage = parse_usage({"prompt_tokens": 10, "completion_tokens": 5, **told})
    assert (usage.prompt_tokens, usage.completion_tokens, usage.flags) == (10, 5, ("usage_inconsistent",))


def test_part_that_is_too_large_leaves_the_other_part_alone() -> None:
    """Of reasoning and sound the one that cannot be is dropped; of two that only do not fit together, both are."""
    found = [
        parse(completion_tokens=5, completion_tokens_details={"reasoning_tokens": reasoning, "audio_tokens": audio})
        for reasoning, audio in ((6, 2), (2, 6), (3, 3), (6, 6), (2, 3))
    ]
    parts = [(usage.reasoning_tokens, usage.audio_output_tokens) for usage in found]
    assert parts == [(None, 2), (2, None), (None, None), (None, None), (2, 3)]


def test_reasoning_partly_outside_is_booked_and_flagged_twice() -> None:
    """Where the details do not explain what the total has more, the difference counts, and is said not to fit."""
    usage = parse(
        prompt_tokens=10,
        completion_tokens=50,
        total_tokens=70,
        completion_tokens_details={"reasoning_tokens": 30},
    )
    assert (usage.completion_tokens, usage.reasoning_tokens) == (60, 30)
    assert usage.flags == ("reasoning_outside", "usage_inconsistent")


def test_output_under_the_other_name_is_taken_where_ours_is_null() -> None:
    """Names of two dialects in one object are read together, and flagged."""
    usage = parse(prompt_tokens=10, completion_tokens=None, output_tokens=5, cache_read_input_tokens=4)
    assert split_usage(usage) == Buckets(6, 4, 0, 0, 5, 0, 0)
    assert usage.flags == ("usage_converted",)
    other = parse(prompt_tokens=None, input_tokens=10, completion_tokens=5)
    assert split_usage(other) == Buckets(10, 0, 0, 0, 5, 0, 0)


@pytest.mark.parametrize(
    ("money", "usd"),
    [
        ({"cost": 0.25, "is_byok": False, "cost_details": {"upstream_inference_cost": 0.25}}, "0.25"),
        ({"cost": 0.0125, "is_byok": True, "cost_details": {"upstream_inference_cost": 0.25}}, "0.2625"),
        ({"cost": 0, "is_byok": True, "cost_details": {"upstream_inference_cost": 0.25}}, "0.25"),
        ({"cost": 0, "is_byok": True, "cost_details": {"upstream_inference_cost": None}}, None),
        ({"cost": 0, "is_byok": True}, None),
        ({"cost": None, "is_byok": True, "cost_details": {"upstream_inference_cost": 0.25}}, None),
        ({"cost": 0}, "0"),
    ],
    ids=str,
)
def test_cost_with_a_key_of_ones_own_is_fee_and_bill_together(money: dict[str, Any], usd: str | None) -> None:
    """OpenRouter's `cost` is its fee alone then: the provider's bill is added, and without it there is no cost."""
    usage = parse(prompt_tokens=1, completion_tokens=1, **money)
    assert usage.reported_cost_usd == (None if usd is None else Decimal(usd))
    assert usage.flags == ()


def test_total_smaller_than_a_part_alone_is_flagged() -> None:
    """With one part unknown, a total that cannot even hold the other one is still seen."""
    assert parse(prompt_tokens=10, total_tokens=5).flags == ("usage_inconsistent",)
    assert parse(prompt_tokens=10, total_tokens=15).flags == ()
