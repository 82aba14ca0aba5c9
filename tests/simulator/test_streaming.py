"""Tests of the chunks of a stream."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evalrun.options import ProfileOptions
from evalrun.simulator.replies import Hint, make_chat_request, make_draft
from evalrun.simulator.script import Draft
from evalrun.simulator.streaming import make_chunks
from tests.simulator.asking import make_body
from tests.simulator.putting_together import put_together

SHOUT: Mapping[str, Any] = {
    "type": "function",
    "function": {"name": "shout", "parameters": {"type": "object", "properties": {"answer": {"type": "string"}}}},
}
NOTE: Mapping[str, Any] = {"type": "custom", "custom": {"name": "note"}}
WHISPER: Mapping[str, Any] = {"name": "whisper", "parameters": {"type": "object", "properties": {}}}


def draft(body: dict[str, Any], profile: ProfileOptions | None = None, answer: str | None = "one two three") -> Draft:
    """Return the draft of a streamed reply."""
    asked = make_chat_request({"stream": True, **body}, Hint(answer=answer, sample="s1"), 7)
    return make_draft(asked, profile or ProfileOptions(accuracy=1))


def list_deltas(body: dict[str, Any], profile: ProfileOptions | None = None) -> list[dict[str, Any]]:
    """Return the deltas of a streamed reply of one choice."""
    return [choice["delta"] for chunk in draft(body, profile).chunks or () for choice in chunk["choices"]]


def test_stream_has_openais_order() -> None:
    """The role comes first, then one delta a token, then the empty delta that tells why the reply ended."""
    chunks = draft(make_body()).chunks or []
    steps = [(chunk["choices"][0]["delta"], chunk["choices"][0]["finish_reason"]) for chunk in chunks]
    assert steps == [
        ({"role": "assistant", "content": "", "refusal": None}, None),
        ({"content": "one"}, None),
        ({"content": " two"}, None),
        ({"content": " three"}, None),
        ({}, "stop"),
    ]


def test_stream_tells_no_usage_unless_asked() -> None:
    """Without include_usage no chunk has the key, as OpenAI documents it."""
    chunks = draft(make_body()).chunks or []
    assert not any("usage" in chunk for chunk in chunks)


def test_continuous_usage_comes_with_each_chunk() -> None:
    """Asked or not, each chunk tells the usage so far, no part larger than its whole, and the last one the bill."""
    profile = ProfileOptions(accuracy=1, usage="continuous", reasoning_tokens=3)
    made = draft(make_body(stream_options={"include_usage": True}), profile)
    told = [chunk["usage"] for chunk in made.chunks or ()]
    counts = [(usage["completion_tokens"], usage["completion_tokens_details"]["reasoning_tokens"]) for usage in told]
    assert counts == [(0, 0), (1, 1), (2, 2), (3, 3), (3, 3), (4, 3), (5, 3), (6, 3)]
    assert {usage["total_tokens"] - usage["completion_tokens"] for usage in told} == {11}
    assert told[-1] == made.completion["usage"]


def test_usage_comes_in_a_last_chunk_without_choices() -> None:
    """With include_usage the last chunk has the usage and no choices; all others carry a null."""
    made = draft(make_body(stream_options={"include_usage": True}))
    *others, last = made.chunks or []
    assert {chunk["usage"] is None for chunk in others} == {True}
    assert (last["choices"], last["usage"]) == ([], made.completion["usage"])


def test_openrouter_tells_its_usage_unasked() -> None:
    """The dialect ignores include_usage and always tells it."""
    chunks = draft(make_body(), ProfileOptions(usage="openrouter")).chunks or []
    assert chunks[-1]["usage"]["cost"] > 0


def test_usage_chunk_is_not_there_when_the_dialect_has_none() -> None:
    """Asked for or not: a server that tells no usage has no chunk for it."""
    chunks = draft(make_body(stream_options={"include_usage": True}), ProfileOptions(usage="none")).chunks or []
    assert not any("usage" in chunk for chunk in chunks)
    assert all(chunk["choices"] for chunk in chunks)


def test_choices_interleave() -> None:
    """With n > 1 the deltas of all choices come in turn, and each choice ends for itself."""
    chunks = draft(make_body(n=2), ProfileOptions(accuracy=1)).chunks or []
    indexes = [choice["index"] for chunk in chunks for choice in chunk["choices"]]
    assert indexes == [0, 1] * (len(indexes) // 2)
    assert [c["choices"][0]["finish_reason"] for c in chunks[-2:]] == ["stop", "stop"]


def test_call_comes_by_name_and_then_in_fragments() -> None:
    """Id and name are in the first fragment only; the arguments of all fragments are JSON together."""
    deltas = [delta["tool_calls"][0] for delta in list_deltas(make_body(tools=[SHOUT])) if "tool_calls" in delta]
    first, *rest = deltas
    assert (first["index"], first["type"], first["function"]) == (0, "function", {"name": "shout", "arguments": ""})
    assert {frozenset(delta) for delta in rest} == {frozenset({"index", "function"})}
    assert len(rest) > 1
    assert json.loads("".join(delta["function"]["arguments"] for delta in rest)) == {"answer": "one two three"}


def test_content_of_a_call_is_null() -> None:
    """A reply that calls has no text, not an empty one."""
    assert list_deltas(make_body(tools=[SHOUT]))[0]["content"] is None


def test_logprobs_come_with_their_token() -> None:
    """Each delta with a token carries that token's log probability, and no other delta does."""
    chunks = draft(make_body(logprobs=True, top_logprobs=2)).chunks or []
    told = [chunk["choices"][0] for chunk in chunks]
    pairs = [(step["delta"]["content"], step["logprobs"]["content"][0]["token"]) for step in told if step["logprobs"]]
    assert pairs == [("one", "one"), (" two", " two"), (" three", " three")]


def test_refusal_comes_in_deltas() -> None:
    """A completion with a refusal is cut like one with a text."""
    message: Any = {"role": "assistant", "content": None, "refusal": "I will not.", "annotations": []}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    completion = {"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
    chunks = make_chunks(completion)
    assert [c["choices"][0]["delta"].get("refusal") for c in chunks[1:-1]] == ["I", " will", " not", "."]
    assert put_together(chunks) == completion


@pytest.mark.parametrize(
    ("dialect", "options", "is_padded"),
    [
        ("openai", None, True),
        ("openai", {"include_obfuscation": True}, True),
        ("openai", {"include_obfuscation": False}, False),
        ("gateway", None, False),
    ],
)
def test_chunks_are_padded_as_openai_does(dialect: Any, options: Any, is_padded: bool) -> None:
    """Obfuscation is on unless the request turns it off; the gateway knows nothing of it."""
    body = make_body(stream=True, stream_options=options)
    made = make_draft(make_chat_request(body, Hint(), 7, dialect=dialect), ProfileOptions())
    assert all(("obfuscation" in chunk) is is_padded for chunk in made.chunks or ())


def test_dialects_say_the_same() -> None:
    """But for the padding, the reply does not depend on the base path."""
    body = make_body(stream=True, stream_options={"include_obfuscation": False})
    both = [make_draft(make_chat_request(body, Hint(), 7, dialect=d), ProfileOptions()) for d in ("openai", "gateway")]
    assert both[0] == both[1]


OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "n": st.integers(1, 3),
        "tools": st.lists(st.sampled_from([SHOUT, NOTE]), min_size=1, max_size=3),
        "parallel_tool_calls": st.booleans(),
        "functions": st.just([WHISPER]),
        "response_format": st.sampled_from([{"type": "text"}, {"type": "json_object"}]),
        "logprobs": st.booleans(),
        "max_tokens": st.integers(1, 12),
        "max_completion_tokens": st.integers(1, 12),
        "stop": st.sampled_from(["o", " t", ["e", "x"]]),
        "prediction": st.just({"type": "content", "content": "one two four"}),
        "modalities": st.just(["text", "audio"]),
        "reasoning_effort": st.sampled_from(["none", "high"]),
        "stream_options": st.fixed_dictionaries({"include_usage": st.just(True), "include_obfuscation": st.booleans()}),
    },
)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    options=OPTIONS,
    answer=st.none() | st.text(max_size=60),
    reasoning_tokens=st.sampled_from([0, 0, 3, 40]),
    accuracy=st.sampled_from([0.0, 0.5, 1.0]),
)
def test_stream_put_together_is_the_whole_reply(
    options: dict[str, Any], answer: str | None, reasoning_tokens: int, accuracy: float
) -> None:
    """Whatever is asked for, a client that puts the chunks together has the reply of the same body without stream."""
    profile = ProfileOptions(accuracy=accuracy, reasoning_tokens=reasoning_tokens)
    body = make_body(audio={"voice": "alloy", "format": "pcm16"}, **options)
    hint = Hint(answer=answer, sample="s1")
    whole = make_draft(make_chat_request(body, hint, 7), profile)
    streamed = make_draft(make_chat_request({**body, "stream": True}, hint, 7), profile)
    told = put_together(streamed.chunks or ())
    if "stream_options" not in options:
        told["usage"] = whole.completion["usage"]
    assert told == whole.completion == streamed.completion
    assert (streamed.prompt_tokens, streamed.completion_tokens) == (whole.prompt_tokens, whole.completion_tokens)
