"""Rows that are asked for as streams: the same outcomes as without, with the time to the first token."""

import json
from dataclasses import replace
from decimal import Decimal

import pytest

from evalrun.records import Status, UsageSource
from tests.dispatch.rig import make_request, make_rig
from tests.fake_endpoint import FakeEndpoint, make_chunks, make_completion, reply_stream

pytestmark = pytest.mark.anyio

UNFINISHED = make_chunks("par", "tial", finish_reason=None, usage=None)


async def test_streamed_outcome_is_as_full_as_any(endpoint: FakeEndpoint) -> None:
    """A stream gives text, usage, cost, time to first token and one JSON object as the raw reply."""
    endpoint.default = reply_stream("hel", "lo", headers={"x-request-id": "req-7"})
    rig = make_rig(endpoint.base_url, stream=True)
    await rig.run([make_request("one")])
    outcome = rig.outcomes["one"]
    assert outcome.completion is not None
    assert outcome.last_attempt is not None
    assert (outcome.completion.output, outcome.completion.flags) == ("hello", ())
    assert outcome.cost_usd == Decimal("0.00006")
    assert json.loads(outcome.last_attempt.body or "") == make_completion("hello")
    assert outcome.last_attempt.request_id == "req-7"
    assert outcome.first_token_s is not None
    assert outcome.latency_s is not None
    assert outcome.first_token_s == outcome.last_attempt.first_token_s
    assert 0 < outcome.first_token_s <= outcome.latency_s


async def test_odd_streams_are_answers_with_flags(endpoint: FakeEndpoint) -> None:
    """What is odd about a reply that is good all the same is said in its row."""
    half = {"choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": "stop"}]}
    endpoint.script_for("no done", reply_stream(*make_chunks("a"), has_done=False))
    endpoint.script_for("each chunk", reply_stream(half, half))
    endpoint.script_for("one of two", reply_stream("a"))
    endpoint.script_for("unknown", reply_stream(*make_chunks("a", finish_reason="weird", model="other")))
    rig = make_rig(endpoint.base_url, stream=True)
    prompts = ["no done", "each chunk", "one of two", "unknown"]
    await rig.run([replace(make_request(prompt), n_choices=1 + (prompt == "one of two")) for prompt in prompts])
    completions = {prompt: outcome.completion for prompt, outcome in rig.outcomes.items()}
    flags = {prompt: completion.flags for prompt, completion in completions.items() if completion is not None}
    assert flags == {
        "no done": ("no_done",),
        "each chunk": ("finish_repeated",),
        "one of two": ("fewer_choices",),
        "unknown": ("finish_reason_unknown", "model_mismatch"),
    }


async def test_incomplete_stream_may_have_been_billed(endpoint: FakeEndpoint) -> None:
    """A stream that never ends properly is asked for three times; its words are kept, their cost is estimated."""
    endpoint.default = reply_stream(*UNFINISHED, ending="fin")
    rig = make_rig(endpoint.base_url, stream=True)
    await rig.run([make_request("one")])
    outcome = rig.outcomes["one"]
    assert (outcome.status, outcome.error_code, outcome.attempts) == (Status.ERROR, "stream_incomplete", 3)
    assert (outcome.completion, outcome.is_permanent, outcome.is_billed_estimated) == (None, False, True)
    for attempt in rig.attempts:
        assert (attempt.maybe_billed, attempt.http_status, attempt.error_code) == (True, 200, "stream_incomplete")
        assert "partial" in str(attempt.body)
        assert attempt.first_token_s is not None
        assert (attempt.usage.source, attempt.usage.completion_tokens) == (UsageSource.ESTIMATED, 1)


async def test_cut_stream_is_billed_as_its_last_count_says(endpoint: FakeEndpoint) -> None:
    """A server that counts up in each chunk has told what it took until the cut: reported, not estimated."""
    counted = [
        {**chunk, "usage": {"prompt_tokens": 7, "completion_tokens": n, "total_tokens": 7 + n}}
        for n, chunk in enumerate(UNFINISHED)
    ]
    endpoint.script(reply_stream(*counted, ending="fin"))
    rig = make_rig(endpoint.base_url, stream=True)
    await rig.run([make_request("one")])
    (attempt,) = rig.attempts
    assert (attempt.usage.source, attempt.usage.prompt_tokens) == (UsageSource.REPORTED, 7)
    assert attempt.usage.completion_tokens == len(UNFINISHED) - 1
    assert (attempt.maybe_billed, rig.outcomes["one"].is_billed_estimated) == (True, False)


async def test_long_cut_stream_is_estimated_from_all_its_words(endpoint: FakeEndpoint) -> None:
    """Evidence is cut at 4 KiB; what was said, and may be billed, is not. So it is of one that ended with an error."""
    words = make_chunks(*["word "] * 3000, finish_reason=None, usage=None)
    failed = [*words, {"error": {"message": "overloaded", "code": 503}}]
    endpoint.script(reply_stream(*words, ending="fin"), reply_stream(*failed))
    rig = make_rig(endpoint.base_url, stream=True)
    await rig.run([make_request("one")])
    assert [attempt.error_code for attempt in rig.attempts] == ["stream_incomplete", "error_in_200"]
    for attempt in rig.attempts:
        assert 2500 < (attempt.usage.completion_tokens or 0) < 3500


async def test_error_in_a_stream_is_told_by_its_code(endpoint: FakeEndpoint) -> None:
    """A permanent error event costs one request; a moderation event filters the row; what came before is kept."""
    endpoint.script_for("bad", reply_stream(*UNFINISHED, {"error": {"message": "bad tool", "code": 400}}))
    endpoint.script_for("rude", reply_stream(*UNFINISHED, {"error": {"message": "x", "code": "content_filter"}}))
    rig = make_rig(endpoint.base_url, stream=True)
    await rig.run([make_request("bad"), make_request("rude")])
    bad, rude = rig.outcomes["bad"], rig.outcomes["rude"]
    assert (bad.error_code, bad.is_permanent, bad.attempts) == ("error_in_200", True, 1)
    assert bad.last_attempt is not None
    assert "tial" in str(bad.last_attempt.body)
    assert bad.first_token_s is not None
    assert rude.status is Status.FILTERED
