"""Chunks put together: every dialect gives the completion that would have come without streaming, or none at all."""

import copy
from typing import Any

import pytest

from evalrun.dispatch.assembly import Assembly, ChunkError
from tests.fake_endpoint import make_chunks, make_completion


def put_together(*chunks: Any, n_choices: int = 1) -> dict[str, Any]:
    """Return the completion that chunks are pieces of."""
    assembly = Assembly(n_choices=n_choices)
    for chunk in chunks:
        assembly.add(copy.deepcopy(chunk))
    return assembly.build()


def delta(index: int | None = 0, *, finish_reason: str | None = None, **members: Any) -> dict[str, Any]:
    """Return a chunk with one delta; an index of None leaves it out."""
    choice = {"delta": members, "finish_reason": finish_reason}
    return {"choices": [choice if index is None else {"index": index, **choice}]}


def message_of(*chunks: Any) -> dict[str, Any]:
    """Return the message of the only choice."""
    message: dict[str, Any] = put_together(*chunks)["choices"][0]["message"]
    return message


def test_chunks_are_the_completion_in_pieces() -> None:
    """OpenAI's order of chunks gives back the object that is sent without streaming."""
    assert put_together(*make_chunks("he", "llo")) == make_completion("hello")


def test_chunks_of_the_seed_gateway_are_enough() -> None:
    """Chunks without id, object, model and index, and a stream without usage, make a completion."""
    pieces = [delta(None, role="assistant"), delta(None, content="a"), delta(None, content="b")]
    value = put_together(*pieces, delta(None, finish_reason="stop"))
    assert value["choices"] == [
        {"index": 0, "message": {"role": "assistant", "content": "ab"}, "finish_reason": "stop"}
    ]
    assert "usage" not in value


def test_facts_come_from_whichever_chunk_has_them() -> None:
    """An empty first chunk takes nothing away, a later fact replaces an earlier one, noise is left out."""
    first = {"id": "", "model": "", "choices": [], "prompt_filter_results": [{"prompt_index": 0}]}
    second = {"id": "a", "model": "m", "service_tier": "auto", "obfuscation": "x7", **delta(content="hi")}
    third = {"id": "b", "model": "n", "service_tier": "flex", "system_fingerprint": None, **delta(finish_reason="stop")}
    value = put_together(first, second, third)
    assert (value["id"], value["model"], value["service_tier"], value["object"]) == (
        "a",
        "m",
        "flex",
        "chat.completion",
    )
    assert value["prompt_filter_results"] == [{"prompt_index": 0}]
    assert "obfuscation" not in value


@pytest.mark.parametrize(
    ("usages", "expected"),
    [
        ([None, {"a": 1}], {"a": 1}),
        ([{"a": 1}, {"a": 2}, {"a": 3}], {"a": 3}),
        ([{"a": 1}, None, {}], {"a": 1}),
        ([None, None], None),
    ],
)
def test_usage_is_the_last_one(usages: list[Any], expected: Any) -> None:
    """Of several usages the last one counts: servers that send many count up, and none is added to another."""
    chunks = [{**delta(content="x"), "usage": usage} for usage in usages]
    assert put_together(*chunks).get("usage") == expected


def test_usage_is_found_where_groq_and_moonshot_put_it() -> None:
    """Usage within `x_groq` or within the only choice is usage."""
    assert put_together(delta(content="x"), {"x_groq": {"usage": {"a": 1}}, "choices": []})["usage"] == {"a": 1}
    inside = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "usage": {"a": 2}}]}
    assert put_together(delta(content="x"), inside)["usage"] == {"a": 2}


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning", "refusal", "content", "unheard_of"])
def test_texts_are_joined_under_their_names(name: str) -> None:
    """Text, refusal, reasoning under any name, and texts of unknown names are put together."""
    members: list[dict[str, Any]] = [{name: "a"}, {name: None}, {name: "b"}]
    assert message_of(*(delta(**member) for member in members))[name] == "ab"


def test_unknown_members_of_a_delta_are_kept() -> None:
    """Lists are lengthened, objects filled, other values the last one; null takes nothing away."""
    first = delta(
        annotations=[1], audio={"id": "a", "data": "QU", "expires_at": None}, reasoning_details=[{"text": "h"}]
    )
    second = delta(annotations=[2], audio={"id": "a", "data": "JD", "expires_at": 9}, reasoning_details=[{"text": "m"}])
    last = delta(annotations=None, audio={"transcript": "hi", "more": {"a": 1}}, score=1)
    message = message_of(first, second, last, delta(score=2, audio=None))
    assert message["annotations"] == [1, 2]
    assert message["audio"] == {"id": "a", "data": "QUJD", "expires_at": 9, "transcript": "hi", "more": {"a": 1}}
    assert message["reasoning_details"] == [{"text": "h"}, {"text": "m"}]
    assert message["score"] == 2


def test_content_parts_are_kept_in_order() -> None:
    """Content that comes as parts stays parts, text before and between them included (Mistral's thinking)."""
    thought = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}
    message = message_of(delta(content="a"), delta(content=[thought]), delta(content=""), delta(content="b"))
    texts = [{"type": "text", "text": "a"}, thought, {"type": "text", "text": "b"}]
    assert message["content"] == texts
    assert message_of(delta(content=""), delta(content=[thought]), delta(content=[]))["content"] == [thought]


def call(index: int | None, arguments: Any = None, **members: Any) -> dict[str, Any]:
    """Return a fragment of a tool call."""
    name = members.pop("name", None)
    function = {key: value for key, value in (("name", name), ("arguments", arguments)) if value is not None}
    return {**({} if index is None else {"index": index}), **members, **({"function": function} if function else {})}


def calls_of(*fragments: Any) -> list[Any]:
    """Return the tool calls that fragments make; a list of fragments comes in one delta."""
    deltas = [delta(tool_calls=part if isinstance(part, list) else [part]) for part in fragments]
    calls: list[Any] = message_of(*deltas)["tool_calls"]
    return calls


def whole(call_id: str, name: str, arguments: str) -> dict[str, Any]:
    """Return a tool call as it is when nothing is streamed."""
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


TWO_CALLS = [whole("a", "f", '{"x":1}'), whole("b", "g", '{"y":2}')]


@pytest.mark.parametrize(
    "fragments",
    [
        [
            call(0, "", id="a", type="function", name="f"),
            call(0, '{"x"'),
            call(0, ":1}"),
            call(1, "", id="b", type="function", name="g"),
            call(1, '{"y":2}'),
        ],
        [
            [call(0, '{"x"', id="a", type="function", name="f"), call(1, '{"y"', id="b", type="function", name="g")],
            call(1, ":2}"),
            call(0, ":1}"),
        ],
        [
            call(None, '{"x":1}', id="a", type="function", name="f"),
            call(None, '{"y":2}', id="b", type="function", name="g"),
        ],
        [call(0, '{"x":1}', id="a", type="function", name="f"), call(0, '{"y":2}', id="b", type="function", name="g")],
        [
            call(None, '{"x"', id="a", type="function", name="f"),
            call(None, ":1}"),
            call(None, '{"y"', id="b", type="function", name="g"),
            call(None, ":2}", id="zz"),
        ],
        [
            call(0, '{"x"', id="a", type="function", name="f"),
            call(0, ":1}", id="a", type="function", name="f"),
            call(1, '{"y"', id="b", type="function", name="g"),
            call(1, ":2}", id="another", type="function"),
        ],
        [
            call(None, '{"x"', id="a", type="function", name="f"),
            call(None, '{"y":2}', id="b", type="function", name="g"),
            call(None, ":1}", id="a"),
        ],
        [call(0, {"x": 1}, id="a", type="function", name="f"), call(1, {"y": 2}, id="b", type="function", name="g")],
    ],
    ids=["in turn", "interleaved", "no index", "one index", "no index, split", "repeated", "by id", "objects"],
)
def test_tool_calls_are_put_together(fragments: list[Any]) -> None:
    """Calls split, interleaved, unnumbered, all numbered 0, with repeated or invented ids come out as meant."""
    assert calls_of(*fragments) == TWO_CALLS


@pytest.mark.parametrize("index", [None, 0], ids=["no index", "one index"])
def test_calls_under_one_id_are_never_run_together(index: int | None) -> None:
    """A name that comes with more arguments, when those of a call are whole, begins another call, whatever its id."""
    fragments = [
        call(index, '{"x":"}', id="a", type="function", name="f"),
        call(index, '{"', id="a", type="function", name="f"),
        call(index, "}", id="a"),
        call(index, "", id="a", type="function", name="f"),
        call(index, '{"y"', id="a", type="function", name="g"),
        call(index, ":2}", id="a"),
    ]
    assert calls_of(*fragments) == [whole("a", "f", '{"x":"}{"}'), whole("a", "g", '{"y":2}')]


def test_unnamed_fragments_before_any_call_begin_one() -> None:
    """A fragment that has nothing to go on with begins a call."""
    assert calls_of(call(None, "{"), call(None, "}")) == [{"function": {"arguments": "{}"}}]
    assert calls_of(call(None, "{", id="a"), call(None, "}", id="b")) == [{"id": "a", "function": {"arguments": "{}"}}]


def test_nameless_calls_without_number_begin_anew_with_each_name() -> None:
    """Without number and id, a name begins the next call."""
    fragments = [call(None, "{}", name="f"), call(None, "{}", name="f")]
    assert calls_of(*fragments) == [{"function": {"name": "f", "arguments": "{}"}}] * 2


def test_custom_calls_and_extra_content_are_kept() -> None:
    """A custom tool's input is put together, and what Gemini wants echoed is kept."""
    first = {
        "index": 0,
        "id": "a",
        "type": "custom",
        "custom": {"name": "c", "input": "1"},
        "extra_content": {"g": "s"},
    }
    calls = calls_of(first, {"index": 0, "custom": {"input": "2"}})
    assert calls == [{"id": "a", "type": "custom", "custom": {"name": "c", "input": "12"}, "extra_content": {"g": "s"}}]


def test_function_call_is_put_together() -> None:
    """The deprecated function call comes in pieces as well."""
    message = message_of(delta(function_call={"name": "f", "arguments": ""}), delta(function_call={"arguments": "{}"}))
    assert message["function_call"] == {"name": "f", "arguments": "{}"}
    assert "function_call" not in message_of(delta(content="a", function_call=None, tool_calls=None))


def test_logprobs_are_put_together() -> None:
    """Token by token, for content and refusal, with null for what never came."""
    pieces: list[Any] = [
        None,
        {"content": [{"token": "a", "bytes": None}], "refusal": None},
        {"content": [{"token": "b"}], "refusal": None},
    ]
    chunks = [{"choices": [{"index": 0, "delta": {"content": "x"}, "logprobs": piece}]} for piece in pieces]
    choice = put_together(*chunks)["choices"][0]
    assert choice["logprobs"] == {"content": [{"token": "a", "bytes": None}, {"token": "b"}], "refusal": None}
    assert put_together(chunks[0])["choices"][0]["logprobs"] is None


def test_choices_are_told_apart_by_their_index() -> None:
    """Interleaved choices come out one by one, ordered by index, each with facts of its own."""
    chunks = [delta(1, content="b1"), delta(0, content="a1"), delta(1, content="b2"), delta(0, content="a2")]
    ends = [
        {"choices": [{"index": 1, "delta": {}, "finish_reason": "length", "stop_reason": 7}]},
        delta(0, finish_reason="stop"),
    ]
    choices = put_together(*chunks, *ends, n_choices=2)["choices"]
    assert [(c["index"], c["message"]["content"], c["finish_reason"]) for c in choices] == [
        (0, "a1a2", "stop"),
        (1, "b1b2", "length"),
    ]
    assert choices[1]["stop_reason"] == 7


def test_choices_without_index_are_told_apart_by_their_place() -> None:
    """Several choices in one chunk need no index."""
    both = {"choices": [{"delta": {"content": "a"}}, {"delta": {"content": "b"}}]}
    assert [c["message"]["content"] for c in put_together(both, both, n_choices=2)["choices"]] == ["aa", "bb"]


def test_unfinished_choices_are_named() -> None:
    """A finish_reason, or an error of its own, ends a choice; null and "" do not."""
    assembly = Assembly(n_choices=4)
    assembly.add(delta(0, finish_reason="stop"))
    assembly.add(delta(1, finish_reason=""))
    assembly.add({"choices": [{"index": 2, "delta": None, "error": {"message": "died"}}]})
    assembly.add(delta(3))
    assert (assembly.unfinished, assembly.n_choices) == ([1, 3], 4)


@pytest.mark.parametrize(
    ("chunk", "has_token"),
    [
        (delta(role="assistant", content=""), False),
        (delta(content=None), False),
        ({"choices": [], "usage": {"a": 1}}, False),
        ({"choices": [{"index": 0, "delta": None}]}, False),
        (delta(content="a"), True),
        (delta(reasoning="a"), True),
        (delta(reasoning_content="a"), True),
        (delta(refusal="a"), True),
        (delta(tool_calls=[call(0, id="a")]), True),
        (delta(function_call={"name": "f"}), True),
        ({"choices": [{"index": 0, "message": {"content": "a"}}]}, True),
    ],
)
def test_first_token_is_a_word(chunk: Any, has_token: bool) -> None:
    """Text, reasoning, a refusal or a tool call is a token; a role, an empty text and a usage are none."""
    assembly = Assembly()
    assembly.add(chunk)
    assert assembly.has_token is has_token


def test_finish_reason_on_every_chunk_ends_nothing() -> None:
    """A relay that says `stop` with each chunk is read to the end, and known for what it does."""
    assembly = Assembly()
    for text in ("a", "b"):
        assembly.add(delta(content=text, finish_reason="stop"))
    assembly.add(delta(finish_reason="length"))
    choice = assembly.build()["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"], assembly.was_finished_before) == (
        "ab",
        "length",
        True,
    )


def test_whole_message_in_a_chunk_is_the_message() -> None:
    """A server that sends everything in one `message` is understood; beside a delta it only repeats it."""
    message = {"role": "assistant", "content": "whole"}
    assert message_of({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}) == message
    both = {"choices": [{"index": 0, "delta": {"content": "a"}, "message": {"content": "so far"}}]}
    assert message_of(both, {"choices": [{"index": 0, "delta": {}, "message": None}]})["content"] == "a"


@pytest.mark.parametrize(
    "chunk",
    [
        None,
        [],
        "text",
        7,
        {"choices": "none"},
        {"choices": [None]},
        {"choices": [{"index": "0"}]},
        {"choices": [{"index": True}]},
        {"choices": [{"delta": "text"}]},
        {"choices": [{"delta": {"content": 7}}]},
        {"choices": [{"delta": {"content": {"text": "a"}}}]},
        {"choices": [{"delta": {"tool_calls": {}}}]},
        {"choices": [{"delta": {"tool_calls": ["a"]}}]},
        {"choices": [{"delta": {"function_call": "f"}}]},
        {"choices": [{"delta": {}, "logprobs": [1]}]},
        {"choices": [{"message": "text"}]},
        {"choices": [{"index": 0, "delta": {}}, {"index": 0, "delta": {}}]},
    ],
)
def test_what_is_no_chunk_is_refused(chunk: Any) -> None:
    """A value that cannot be part of a reply is never read as one."""
    with pytest.raises(ChunkError):
        Assembly().add(chunk)


def test_choices_that_cannot_be_told_apart_are_refused() -> None:
    """With several choices asked for, no piece is given to a choice by guess."""
    with pytest.raises(ChunkError, match="no `index`"):
        put_together(delta(None, content="a"), n_choices=2)
    with pytest.raises(ChunkError, match="goes on after its end"):
        put_together(delta(0, content="a", finish_reason="stop"), delta(0, content="b"), n_choices=2)
    with pytest.raises(ChunkError, match="goes on after its end"):
        put_together(delta(0, content="a"), delta(0, finish_reason="stop"), delta(0, finish_reason="stop"), n_choices=2)


OPENING, END = delta(role="assistant", content=""), delta(finish_reason="stop")


@pytest.mark.parametrize(
    ("chunks", "text"),
    [
        ([OPENING, delta(content="a"), END, END], "a"),
        ([OPENING, delta(content="a"), END, delta(role="assistant", content="")], "a"),
        ([OPENING, OPENING, delta(content="a"), END], "a"),
        ([delta(content="a", finish_reason="stop"), delta(content="b", finish_reason="stop"), END], "ab"),
        ([OPENING, OPENING, delta(content="a"), delta(content="b"), END, END], None),
        ([OPENING, delta(content="a"), END, delta(content="b"), END], None),
        ([OPENING, delta(content="a"), END, delta(content="b", finish_reason="stop")], None),
        ([delta(content="a", finish_reason="stop"), delta(content="b")], None),
    ],
)
def test_two_answers_under_one_index_are_never_mixed(chunks: list[Any], text: str | None) -> None:
    """A reply that is opened twice and ends twice, or goes on after its end, is refused; servers' habits are not."""
    if text is None:
        with pytest.raises(ChunkError, match="another choice may bear its index"):
            put_together(*chunks)
    else:
        assert message_of(*chunks)["content"] == text
