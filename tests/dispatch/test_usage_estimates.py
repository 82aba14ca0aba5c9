"""Estimated usage: what was told stands, what was not is near the texts, and nothing is made of nothing."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalrun.cost import split_usage
from evalrun.dispatch.token_guess import START_OUTPUT_TOKENS
from evalrun.dispatch.usage import parse_usage
from evalrun.dispatch.usage_estimates import MAX_LEARNED, UsageEstimator
from evalrun.records import Completion, Request, Status, Usage, UsageSource
from evalrun.text_tokens import estimate_tokens
from tests.dispatch.rig import make_request

WORDS = "The quick brown fox jumps over the lazy dog. " * 20


def ask(**changes: Any) -> Request:
    """Return a request."""
    return replace(make_request(WORDS), **changes)


def answer(output: str | None = WORDS, **changes: Any) -> Completion:
    """Return a completion that tells no usage."""
    return Completion(status=Status.OK, output=output, **changes)


def said(*texts: str, **more: Any) -> bytes:
    """Return what a cut reply had said, as JSON."""
    choices = [{"index": number, "message": {"content": text}} for number, text in enumerate(texts)]
    return json.dumps({"choices": choices, **more}).encode()


def test_completion_is_counted_in_all_its_words() -> None:
    """Text, reasoning, a refusal and tool calls are output; the prompt is that of the request."""
    estimator = UsageEstimator()
    plain = estimator.complete(ask(), answer()).usage
    full = estimator.complete(ask(), answer(reasoning=WORDS, refusal=WORDS, tool_calls=WORDS)).usage
    n_tokens = estimate_tokens(WORDS)
    assert (plain.completion_tokens, full.completion_tokens) == (n_tokens, 4 * n_tokens)
    assert n_tokens < (plain.prompt_tokens or 0) < n_tokens + 20
    assert (plain.source, plain.raw, plain.total_tokens) == (UsageSource.ESTIMATED, None, None)


def test_every_choice_is_counted_once() -> None:
    """Of several choices each one is output; the first one, which stands in `output` too, is not counted twice."""
    choices = [{"message": {"content": WORDS}}, {"message": {"content": [{"type": "text", "text": WORDS}, WORDS]}}]
    usage = UsageEstimator().complete(ask(n_choices=2), answer(choices=json.dumps(choices))).usage
    assert (usage.completion_tokens or 0) == pytest.approx(3 * estimate_tokens(WORDS), abs=2)


def test_tools_and_schemas_are_part_of_the_prompt() -> None:
    """What stands beside the messages is read by the model as well."""
    body = json.loads(ask().body)
    tools = [{"type": "function", "function": {"name": "f", "description": WORDS}}]
    with_tools = ask(body=json.dumps({**body, "tools": tools}).encode())
    counts = [UsageEstimator().complete(request, answer()).usage.prompt_tokens or 0 for request in (ask(), with_tools)]
    assert counts[1] - counts[0] > estimate_tokens(WORDS)


def test_what_is_told_is_kept() -> None:
    """A count that is told stands, and so does the sum: only what is missing is estimated; parts of it are unknown."""
    odd: dict[str, Any] = {"completion_tokens": 7, "prompt_tokens_details": {"cached_tokens": 3}, "prompt_tokens": -1}
    partial = UsageEstimator().complete(ask(), answer(usage=parse_usage(odd))).usage
    assert (partial.completion_tokens, partial.cached_tokens, partial.source) == (7, None, UsageSource.ESTIMATED)
    assert (partial.raw is not None, partial.flags) == (True, ("usage_inconsistent",))
    for told in ({"total_tokens": 500, "prompt_tokens": 100}, {"total_tokens": 500, "completion_tokens": 400}):
        usage = UsageEstimator().complete(ask(), answer(usage=parse_usage(told))).usage
        assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (100, 400, 500)
    whole = UsageEstimator().complete(ask(), answer(usage=parse_usage({"total_tokens": 20}))).usage
    assert (whole.prompt_tokens, whole.completion_tokens) == (20, 0)


@pytest.mark.parametrize("completion", [answer(None), answer(""), answer(usage=parse_usage({"cost": 0.5}))])
def test_nothing_is_estimated_of_nothing(completion: Completion) -> None:
    """A reply without a word, and one whose cost is told, stay as they are."""
    assert UsageEstimator().complete(ask(), completion) is completion


def test_failure_is_estimated_from_what_was_said() -> None:
    """The words of a cut stream count; without any, the mean of the model's answers; before those, the start value."""
    estimator, n_tokens = UsageEstimator(), estimate_tokens(WORDS)
    assert estimator.estimate_failure(ask(), None).usage.completion_tokens == START_OUTPUT_TOKENS
    assert estimator.estimate_failure(ask(max_output_tokens=5, n_choices=2), None).usage.completion_tokens == 10
    for completion_tokens in (10, 30):
        estimator.note_answer(ask(), Usage(prompt_tokens=230, completion_tokens=completion_tokens))
    estimator.note_answer(ask(model="other"), Usage(prompt_tokens=230, completion_tokens=5))
    assert estimator.estimate_failure(ask(), b"<html>").usage.completion_tokens == 20
    assert estimator.estimate_failure(ask(n_choices=3), b"[1]").usage.completion_tokens == 60
    assert estimator.estimate_failure(ask(model="other"), said()).usage.completion_tokens == 5
    heard = estimator.estimate_failure(ask(), said(WORDS, WORDS, service_tier="flex"))
    assert (heard.usage.completion_tokens or 0) > n_tokens
    assert (heard.usage.source, heard.service_tier) == (UsageSource.ESTIMATED, "flex")


def test_failure_that_tells_its_usage_is_reported() -> None:
    """Where a cut stream counted up, its last count is what it took, whatever was said."""
    counts = {"prompt_tokens": 9, "completion_tokens": 4}
    taken = UsageEstimator().estimate_failure(ask(), said(WORDS, usage=counts))
    assert (taken.usage, taken.service_tier) == (parse_usage(counts), None)
    assert taken.usage.source is UsageSource.REPORTED


@pytest.mark.parametrize(
    "choices",
    [
        None,
        7,
        [None],
        [{}],
        [{"message": None}],
        [{"message": {"content": [{"type": "image"}], "tool_calls": {"a": 1}}}],
    ],
)
def test_failure_of_any_shape_is_estimated(choices: Any) -> None:
    """What came may be anything: there is an estimate all the same, and no count is negative."""
    usage = UsageEstimator().estimate_failure(ask(), json.dumps({"choices": choices}).encode()).usage
    assert usage.source is UsageSource.ESTIMATED
    assert split_usage(usage) is not None


def test_reasoning_under_two_names_is_counted_once() -> None:
    """Servers that send the same reasoning under both names said it once."""
    message = {"content": WORDS, "reasoning": WORDS, "reasoning_content": WORDS}
    once = json.dumps({"choices": [{"message": {"content": WORDS, "reasoning": WORDS}}]}).encode()
    twice = json.dumps({"choices": [{"message": message}]}).encode()
    estimator = UsageEstimator()
    assert estimator.estimate_failure(ask(), once) == estimator.estimate_failure(ask(), twice)


def test_answers_teach_the_texts_and_only_the_first_of_them() -> None:
    """A tokenizer that counts twice as much is learned; after so many answers nothing more is read."""
    estimator, request = UsageEstimator(), ask()
    before = estimator.complete(request, answer()).usage
    told = Usage(prompt_tokens=2 * (before.prompt_tokens or 0), completion_tokens=5)
    for _ in range(MAX_LEARNED):
        estimator.note_answer(request, told)
    after = estimator.complete(request, answer()).usage
    assert after.prompt_tokens == pytest.approx(told.prompt_tokens, rel=0.1)
    assert after.completion_tokens == pytest.approx(2 * (before.completion_tokens or 0), rel=0.2)
    estimator.note_answer(replace(request, body=b"no JSON: it is not looked at any more"), told)


@pytest.mark.parametrize(
    "usage",
    [
        Usage(prompt_tokens=10**11, completion_tokens=5),
        Usage(prompt_tokens=5, completion_tokens=10**11),
        Usage(prompt_tokens=5, completion_tokens=5000, flags=("usage_inconsistent",)),
    ],
)
def test_counts_that_nobody_can_believe_teach_nothing(usage: Usage) -> None:
    """One absurd reply does not make the estimates of all others absurd."""
    estimator = UsageEstimator()
    estimator.note_answer(ask(), usage)
    assert estimator.estimate_failure(ask(), None) == UsageEstimator().estimate_failure(ask(), None)


PARTIAL = st.fixed_dictionaries(
    {},
    optional={
        name: st.none() | st.integers(-1, 2000) for name in ("prompt_tokens", "completion_tokens", "total_tokens")
    },
)


@given(told=PARTIAL, text=st.text(max_size=50), limit=st.none() | st.integers(1, 100))
def test_estimates_are_whole_and_disagree_with_no_total_without_a_flag(
    told: dict[str, int | None], text: str, limit: int | None
) -> None:
    """Whatever is told, both totals are there, none is negative, and they add up to the sum unless a flag says so."""
    taken = UsageEstimator().estimate_failure(
        ask(max_output_tokens=limit), said(text, usage={key: told[key] for key in told})
    )
    usage = taken.usage
    buckets = split_usage(usage)
    assert buckets is not None
    assert min(buckets) >= 0
    if usage.total_tokens is not None and usage.total_tokens != sum(buckets):
        assert "usage_inconsistent" in usage.flags
