"""Tests of the quirks that change what a reply says: usage, texts, choices, errors; byte for byte as it is sent."""

import json
from typing import Any

import pytest

from evalrun.options import ProfileOptions
from evalrun.quirk_names import QUIRK_NAMES
from evalrun.simulator.quirks.apply import bend
from evalrun.simulator.script import Script
from evalrun.simulator.tokens import count_tokens
from tests.simulator.bending import (
    ANSWER,
    PROFILE,
    TOOLS,
    bend_reply,
    find_reasons,
    join_text,
    make_draft_for,
    pick,
    read_chunks,
    read_events,
    read_json,
)

COUNTS = ("prompt_tokens", "completion_tokens", "total_tokens")
MODES = pytest.mark.parametrize("is_stream", [False, True])


def read_usage(script: Script, *, is_stream: bool) -> Any:
    """Return the usage that a reply tells, a stream's last one; "absent" when there is none."""
    wholes = read_chunks(script) if is_stream else [read_json(script)]
    return next((whole["usage"] for whole in reversed(wholes) if "usage" in whole), "absent")


def read_message(script: Script, *, is_stream: bool) -> dict[str, Any]:
    """Return choice 0's text and finish reason, put together if it is streamed."""
    if is_stream:
        chunks = read_chunks(script)
        return {"content": join_text(chunks), "finish_reason": find_reasons(chunks)[0]}
    choice = read_json(script)["choices"][0]
    return {"content": choice["message"]["content"], "finish_reason": choice["finish_reason"]}


HARMLESS = [
    ("Q01", "both"), ("Q02", "both"), ("Q03", "both"), ("Q04", "stream"), ("Q05", "stream"), ("Q06", "stream"),
    ("Q07", "both"), ("Q08", "both"), ("Q17", "both"), ("Q18", "both"), ("Q20:crlf", "stream"), ("Q20:cr", "stream"),
    ("Q20:mixed", "stream"), ("Q20:bytes", "stream"), ("Q21:comment", "stream"), ("Q21:id", "stream"),
    ("Q22", "stream"), ("Q23", "stream"), ("Q24", "stream"), ("Q26:done", "stream"), ("Q30", "stream"),
    ("Q31", "stream"), ("Q34:reasoning", "both"), ("Q46:go", "both"), ("Q49:after-reply", "both"), ("Q52", "both"),
    ("Q53", "both"), ("Q54", "stream"), ("Q55:body:99999", "both"), ("Q55:line:99999", "both"), ("Q59", "both"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("label", "is_stream"),
    [(label, is_stream) for label, mode in HARMLESS for is_stream in ((False, True) if mode == "both" else (True,))],
)
def test_harmless_quirk_leaves_the_answer(label: str, is_stream: bool) -> None:
    """A quirk that a careful client survives leaves text and finish reason as they were."""
    script = bend_reply(label, is_stream=is_stream)
    if label == "Q18" and not is_stream:
        script.pieces.pop(0)
    assert read_message(script, is_stream=is_stream) == {"content": ANSWER, "finish_reason": "stop"}


@MODES
@pytest.mark.parametrize(
    ("label", "counts"),
    [
        ("Q03:strings", ("11", "17", "28")),
        ("Q03:negative", (-12, -18, -29)),
        ("Q03:float", (11.5, 17.5, 28.5)),
        ("Q03:huge", (10**30, 10**30, 10**30)),
        ("Q03:partial", (None, 17, None)),
        ("Q07:more", (11, 17, 35)),
        ("Q07:less", (11, 17, 27)),
    ],
)
def test_odd_counts_are_told_and_not_billed(label: str, counts: tuple[Any, ...], is_stream: bool) -> None:
    """Q03, Q07: strings, negative, fractions, huge, partial, a total that does not add up; the bill stays."""
    draft = make_draft_for(is_stream=is_stream)
    usage = read_usage(bend(draft, pick(label, is_stream=is_stream)), is_stream=is_stream)
    assert tuple(usage.get(name) for name in COUNTS) == counts
    assert (draft.prompt_tokens, draft.completion_tokens) == (11, 17)


@MODES
@pytest.mark.parametrize(("label", "usage"), [("Q01", "absent"), ("Q02", None)])
def test_usage_is_withheld(label: str, usage: Any, is_stream: bool) -> None:
    """Q01, Q02: no usage anywhere, or null."""
    assert read_usage(bend_reply(label, is_stream=is_stream), is_stream=is_stream) == usage


@MODES
def test_more_is_cached_than_was_sent(is_stream: bool) -> None:
    """Q08: cached tokens beyond the prompt's."""
    usage = read_usage(bend_reply("Q08", is_stream=is_stream), is_stream=is_stream)
    assert usage["prompt_tokens_details"]["cached_tokens"] > usage["prompt_tokens"] == 11


@pytest.mark.parametrize("options", [{}, {"stream_options": None}])
def test_usage_comes_unasked(options: dict[str, Any]) -> None:
    """Q04: in a last chunk without choices, or beside the finish reason, whatever the request said."""
    last = read_chunks(bend_reply("Q04:last-chunk", is_stream=True, **options))[-1]
    beside = read_chunks(bend_reply("Q04:with-finish", is_stream=True, **options))[-1]
    assert (last["choices"], last["usage"]["total_tokens"]) == ([], 28)
    assert (beside["choices"][0]["finish_reason"], beside["usage"]["total_tokens"]) == ("stop", 28)


def test_usage_is_cumulative() -> None:
    """Q05: every chunk tells the usage so far, at first none, never less than before, at the end the bill."""
    counts = [chunk["usage"]["completion_tokens"] for chunk in read_chunks(bend_reply("Q05", is_stream=True))]
    assert counts == sorted(counts)
    assert (len(counts), counts[0], counts[-1]) == (19, 0, 17)


def test_usage_follows_done() -> None:
    """Q06: the usage chunk is the last event, after `[DONE]`, and none is before."""
    events = read_events(bend_reply("Q06", is_stream=True).body)
    assert events[-2] == "[DONE]"
    assert json.loads(events[-1])["usage"]["total_tokens"] == 28
    assert [event for event in events[:-1] if "usage" in event] == []


@MODES
@pytest.mark.parametrize(("label", "code"), [("Q09:A", None), ("Q09:B", 502), ("Q09:permanent", "invalid_value")])
def test_error_comes_with_200(label: str, code: Any, is_stream: bool) -> None:
    """Q09: an error object under a good status, as the body or as a stream's only event; nothing is billed."""
    draft = make_draft_for(is_stream=is_stream)
    script = bend(draft, pick(label, is_stream=is_stream))
    (body,) = read_chunks(script) if is_stream else [read_json(script)]
    assert (script.status, body["error"]["code"]) == (200, code)
    assert (draft.prompt_tokens, draft.completion_tokens) == (0, 0)


def test_stream_fails_midway() -> None:
    """Q10: half of the text, then an error as data, as an event of its own, or with the finish reason `error`."""
    data, event, finish = (bend_reply(f"Q10:{variant}", is_stream=True) for variant in ("data", "event", "finish"))
    chunks = read_chunks(finish)
    assert list(read_chunks(data)[-1]) == ["error"]
    assert event.body.endswith(
        b'event: error\ndata: {"message":"The upstream provider failed.","type":"server_error"}\n\n'
    )
    assert (find_reasons(chunks), chunks[-1]["error"]["code"]) == (["error"], 502)
    texts = {join_text([chunk for chunk in read_chunks(script) if "choices" in chunk]) for script in (data, finish)}
    assert texts == {"The capital of Thailand is กรุง"}
    assert [b"[DONE]" in script.body for script in (data, event, finish)] == [False, False, True]


def test_whole_reply_fails_midway() -> None:
    """Q10, not streamed: half of the text with the finish reason `error`, and the error beside it."""
    (choice,) = read_json(bend_reply("Q10:finish"))["choices"]
    assert choice["message"]["content"] == ANSWER[: len(ANSWER) // 2]
    assert (choice["finish_reason"], choice["error"]["code"]) == ("error", 502)


@MODES
@pytest.mark.parametrize(("variant", "choices"), [("null", None), ("empty", []), ("missing", "absent")])
def test_choices_are_lost(variant: str, choices: Any, is_stream: bool) -> None:
    """Q11: null, empty or missing, in every chunk too."""
    script = bend_reply(f"Q11:{variant}", is_stream=is_stream)
    wholes = read_chunks(script) if is_stream else [read_json(script)]
    assert {json.dumps(whole.get("choices", "absent")) for whole in wholes} == {json.dumps(choices)}


@MODES
@pytest.mark.parametrize("variant", ["null", "missing", "array"])
def test_content_is_no_text(variant: str, is_stream: bool) -> None:
    """Q12: null, missing, or a list of parts that hold the text."""
    script = bend_reply(f"Q12:{variant}", is_stream=is_stream)
    choices = [chunk["choices"] for chunk in read_chunks(script)] if is_stream else [read_json(script)["choices"]]
    parts = [choice[0]["delta" if is_stream else "message"] for choice in choices if choice]
    contents = [part.get("content", "absent") for part in parts]
    if variant == "array":
        texts = [part["text"] for content in contents if isinstance(content, list) for part in content]
        assert "".join(texts) == ANSWER
    elif variant == "null":
        assert contents[0] is None
        assert set(contents) <= {None, "absent"}
    else:
        assert set(contents) == {"absent"}


@pytest.mark.parametrize(("variant", "reason"), [("missing", "absent"), ("null", None), ("unknown", "eos")])
def test_finish_reason_is_odd(variant: str, reason: Any) -> None:
    """Q13: missing, null or unknown, in the whole reply and in the chunk that ends a stream."""
    whole = read_json(bend_reply(f"Q13:{variant}"))["choices"][0]
    chunks = [chunk for chunk in read_chunks(bend_reply(f"Q13:{variant}", is_stream=True)) if chunk["choices"]]
    assert whole.get("finish_reason", "absent") == reason
    assert chunks[-1]["choices"][0].get("finish_reason", "absent") == reason


def test_finish_reason_stands_on_every_chunk() -> None:
    """Q13: `stop` from the first chunk on, as some relays send it."""
    chunks = read_chunks(bend_reply("Q13:every-chunk", is_stream=True))
    assert find_reasons(chunks) == ["stop"] * (len(chunks) - 1)
    assert join_text(chunks) == ANSWER


@MODES
@pytest.mark.parametrize(("label", "number"), [("Q19:nan", b'"logprob":NaN'), ("Q19:infinity", b'"logprob":-Infinity')])
def test_log_probability_is_no_number(label: str, number: bytes, is_stream: bool) -> None:
    """Q19: bytes that no JSON may hold, with log probabilities asked for and without."""
    asking: list[dict[str, Any]] = [{}, {"logprobs": True}]
    for params in asking:
        assert bend_reply(label, is_stream=is_stream, **params).body.count(number) == 1


def test_text_ends_in_line_separators() -> None:
    """Q28: U+2028, U+2029 and U+0085 as raw bytes, which no line reader may split at."""
    separators = "\u2028\u2029\u0085"
    plain, streamed = bend_reply("Q28"), bend_reply("Q28", is_stream=True)
    assert all(separator.encode() in script.body for script in (plain, streamed) for separator in separators)
    assert read_message(plain, is_stream=False)["content"] == ANSWER + separators
    assert read_message(streamed, is_stream=True)["content"] == ANSWER + separators


def test_first_chunk_is_azures() -> None:
    """Q30: no choices, no id, no model, but the prompt's filter results."""
    first = read_chunks(bend_reply("Q30", is_stream=True))[0]
    assert (first["choices"], first["id"], first["model"]) == ([], "", "")
    assert first["prompt_filter_results"][0]["content_filter_results"]["hate"]["filtered"] is False


def test_last_delta_is_null() -> None:
    """Q31: null in place of an object, in the chunk that has the finish reason."""
    chunks = read_chunks(bend_reply("Q31", is_stream=True))
    assert [choice["delta"] for chunk in chunks for choice in chunk["choices"] if choice["finish_reason"]] == [None]


def read_fragments(script: Script) -> list[dict[str, Any]]:
    """Return the fragments of tool calls in a stream."""
    deltas = [choice["delta"] for chunk in read_chunks(script) for choice in chunk["choices"]]
    return [fragment for delta in deltas for fragment in delta.get("tool_calls") or ()]


def test_tool_calls_come_without_index() -> None:
    """Q32: each call whole and without `index`, as Gemini sends it."""
    (fragment,) = read_fragments(bend_reply("Q32:no-index", is_stream=True))
    assert "index" not in fragment
    assert (fragment["type"], fragment["function"]["name"]) == ("function", "find_city")
    assert json.loads(fragment["function"]["arguments"]) == {"country": "Thailand"}


@pytest.mark.parametrize(("variant", "n_calls"), [("split", 1), ("interleaved", 2)])
def test_tool_calls_come_in_characters(variant: str, n_calls: int) -> None:
    """Q32: arguments one character at a time, those of two calls in turn, before the finish reason."""
    script = bend_reply(f"Q32:{variant}", is_stream=True)
    fragments = read_fragments(script)
    names, pieces = fragments[:n_calls], fragments[n_calls:]
    assert [(call["index"], call["function"]["name"]) for call in names] == [(i, "find_city") for i in range(n_calls)]
    assert len({call["id"] for call in names}) == n_calls
    assert [piece["index"] for piece in pieces] == list(range(n_calls)) * (len(pieces) // n_calls)
    for index in range(n_calls):
        text = "".join(piece["function"]["arguments"] for piece in pieces if piece["index"] == index)
        assert json.loads(text) == {"country": "Thailand"}
    assert {len(piece["function"]["arguments"]) for piece in pieces} == {1}
    assert find_reasons(read_chunks(script)) == ["tool_calls"]


@MODES
def test_tool_calls_finish_with_stop(is_stream: bool) -> None:
    """Q32: the finish reason says `stop` though tools were called."""
    script = bend_reply("Q32:finish-stop", is_stream=is_stream)
    reasons = find_reasons(read_chunks(script)) if is_stream else [read_json(script)["choices"][0]["finish_reason"]]
    assert reasons == ["stop"]
    assert b"find_city" in script.body


@pytest.mark.parametrize("variant", ["reversed", "together"])
def test_choices_come_last_one_first(variant: str) -> None:
    """Q33: interleaved from the last choice to the first, chunk by chunk or in one chunk; each text is whole."""
    chunks = read_chunks(bend_reply(f"Q33:{variant}", is_stream=True))
    order = [choice["index"] for chunk in chunks for choice in chunk["choices"]]
    assert order[:6] == [2, 1, 0, 2, 1, 0]
    assert [join_text(chunks, index=index) for index in range(3)] == [ANSWER] * 3
    assert (len(chunks[0]["choices"]), find_reasons(chunks)) == (3 if variant == "together" else 1, ["stop"] * 3)
    assert chunks[-1]["usage"]["total_tokens"] == 11 + 3 * 17


def test_choices_of_a_whole_reply_come_reversed() -> None:
    """Q33, not streamed: choice 0 stands last."""
    assert [choice["index"] for choice in read_json(bend_reply("Q33:reversed"))["choices"]] == [2, 1, 0]


@MODES
@pytest.mark.parametrize("name", ["reasoning_content", "reasoning", "reasoning_details"])
@pytest.mark.parametrize("n_tokens", [0, 6])
def test_reasoning_has_another_name(name: str, is_stream: bool, n_tokens: int) -> None:
    """Q34: the reasoning under one name and no other, the reply's own where it has one."""
    profile = PROFILE if n_tokens == 0 else ProfileOptions(accuracy=1, latency_ms=0, reasoning_tokens=n_tokens)
    script = bend_reply(f"Q34:{name}", is_stream=is_stream, profile=profile)
    key, wholes = ("delta", read_chunks(script)) if is_stream else ("message", [read_json(script)])
    parts = [choice[key] for whole in wholes for choice in whole["choices"]]
    found = {field for part in parts for field in part if field.startswith("reasoning")}
    told = [part[name] for part in parts if name in part]
    texts = [text if isinstance(text, str) else text[0]["text"] for text in told]
    assert found == {name}
    assert "".join(texts) == read_reasoning(profile)


def read_reasoning(profile: ProfileOptions) -> str:
    """Return the reasoning of the good reply, or the text that Q34 gives to one without."""
    message = make_draft_for(profile=profile).completion["choices"][0]["message"]
    return str(message.get("reasoning_content") or "First the question is read, then the answer is written.")


@MODES
def test_model_refuses(is_stream: bool) -> None:
    """Q35: text in `refusal`, none in `content`, finished with `stop`."""
    script = bend_reply("Q35", is_stream=is_stream)
    if is_stream:
        chunks = read_chunks(script)
        told = (join_text(chunks, key="refusal"), join_text(chunks), find_reasons(chunks)[0])
    else:
        (choice,) = read_json(script)["choices"]
        told = (choice["message"]["refusal"], choice["message"]["content"] or "", choice["finish_reason"])
    assert told == ("I'm sorry, but I can't help with that.", "", "stop")


@MODES
def test_logprobs_have_no_bytes(is_stream: bool) -> None:
    """Q36: every `bytes` is null, those of the alternatives too."""
    body = bend_reply("Q36", is_stream=is_stream).body
    assert body.count(b'"bytes":null') == body.count(b'"bytes":') > 17


@MODES
def test_names_and_ids_are_others(is_stream: bool) -> None:
    """Q52, Q53, Q59: another model, the same ids in all replies, another tier than the one asked for."""
    for label, key, value, tier in (
        ("Q52", "model", "careful-2026-08-01", None),
        ("Q53", "id", "chatcmpl-same", None),
        ("Q59", "service_tier", "flex", "default"),
        ("Q59", "service_tier", "default", "flex"),
    ):
        script = bend_reply(label, is_stream=is_stream, service_tier=tier)
        wholes = read_chunks(script) if is_stream else [read_json(script)]
        assert {whole[key] for whole in wholes} == {value}


@MODES
def test_tool_calls_have_the_same_ids(is_stream: bool) -> None:
    """Q53: tool calls cannot be told apart by their ids."""
    assert b'"id":"call_same"' in bend_reply("Q53", is_stream=is_stream, tools=TOOLS).body


def test_obfuscation_is_random_and_always_there() -> None:
    """Q54: strings of 1 to 16 characters on every chunk, even where the request declined them."""
    options = {"include_usage": True, "include_obfuscation": False}
    script = bend_reply("Q54", is_stream=True, stream_options=options)
    strings = [chunk["obfuscation"] for chunk in read_chunks(script)]
    assert {1 <= len(string) <= 16 for string in strings} == {True}
    assert len(set(strings)) == len(strings)


@MODES
@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_token_limit_is_ignored(name: str, is_stream: bool) -> None:
    """Q57: the text is longer than the limit, says `stop`, and is told and billed as long as it is."""
    params: dict[str, Any] = {"max_tokens": None, name: 5}
    draft = make_draft_for(is_stream=is_stream, **params)
    script = bend(draft, pick("Q57", is_stream=is_stream, **params))
    told = read_message(script, is_stream=is_stream)
    assert (count_tokens(told["content"]), told["finish_reason"]) == (13, "stop")
    assert read_usage(script, is_stream=is_stream)["completion_tokens"] == draft.completion_tokens == 13


@MODES
@pytest.mark.parametrize("n", [1, 3])
def test_choices_share_their_index(n: int, is_stream: bool) -> None:
    """Q58: index 0 for all; a single choice has a double that says something else."""
    script = bend_reply("Q58", is_stream=is_stream, n=n)
    wholes = read_chunks(script) if is_stream else [read_json(script)]
    choices = [choice for whole in wholes for choice in whole["choices"]]
    assert {choice["index"] for choice in choices} == {0}
    assert sum(choice["finish_reason"] is not None for choice in choices) == max(n, 2)
    if n == 1:
        assert b"Somethin" in script.body


STATUSES = [
    ("Q14:200", 200, None), ("Q14:502", 502, None), ("Q14:524", 524, None),
    ("Q38:quota", 429, "insufficient_quota"), ("Q38:credit", 429, "credit_balance_exhausted"),
    ("Q38:spend-limit", 429, "project_spend_limit_exceeded"),
    ("Q38:organization", 429, "organization_usage_limit_exceeded"), ("Q38:daily", 429, "daily_quota_exceeded"),
    ("Q38:anthropic", 429, "enforced_spend_limit_reached"),
    ("Q39:503", 503, "slow_down"), ("Q39:429", 429, "slow_down"),
    ("Q40:529", 529, "overloaded_error"), ("Q40:498", 498, "capacity_exceeded"), ("Q40:520", 520, None),
    ("Q40:524", 524, None), ("Q41", 400, "unsupported_parameter"), ("Q42:credits", 402, 402),
    ("Q42:in-flight", 402, 402), ("Q43", 413, None), ("Q44:A", 500, None), ("Q44:B", 502, 502),
    ("Q44:D", 400, 400), ("Q44:F", 529, "overloaded_error"), ("Q44:I", 502, None),
    ("Q45:false", 503, None), ("Q45:true", 400, None), ("Q51:308", 308, None),
]  # fmt: skip


@MODES
@pytest.mark.parametrize(("label", "status", "code"), STATUSES)
def test_error_has_its_status_and_code(label: str, status: int, code: Any, is_stream: bool) -> None:
    """Q14, Q38 to Q45, Q51: one body with its status, streamed or not; pages say what they are, errors are free."""
    draft = make_draft_for(is_stream=is_stream, max_tokens=5)
    script = bend(draft, pick(label, is_stream=is_stream, max_tokens=5))
    kind = dict(script.headers)["content-type"]
    assert (script.status, script.framing) == (status, "length")
    if kind == "application/json":
        body = read_json(script)
        error = body.get("error", body)
        assert code in {error.get("code"), error.get("type")}
    else:
        assert code is None
        assert kind.startswith("text/html" if label in {"Q14:200", "Q14:502", "Q14:524", "Q43"} else "text/plain")
        assert script.body.startswith(b"<html>" if "html" in kind else (b"error code: ", b"Bad Gateway", b""))
    assert (draft.prompt_tokens + draft.completion_tokens == 0) is (status >= 300)


@pytest.mark.parametrize(
    ("variant", "body"),
    [
        ("C", {"error": "model runner has unexpectedly stopped"}),
        ("E", {"detail": [{"loc": ["body", "messages"], "msg": "field required", "type": "missing"}]}),
        ("E-text", {"detail": "Internal Server Error"}),
        ("H-message", {"message": "An invalid response was received from the upstream server"}),
    ],
)
def test_error_has_its_shape(variant: str, body: Any) -> None:
    """Q44: shapes without OpenAI's `error` object, value for value."""
    assert read_json(bend_reply(f"Q44:{variant}")) == body


def test_error_shapes_cover_the_list() -> None:
    """Q44: G is a list, H has `success`, J has an object for a message; no two shapes have the same body."""
    bodies = {variant: bend_reply(f"Q44:{variant}").body for variant in QUIRK_NAMES["Q44"].variants}
    assert json.loads(bodies["G"])[0]["error"]["status"] == "INVALID_ARGUMENT"
    assert json.loads(bodies["H"])["success"] is False
    assert json.loads(bodies["J"])["message"]["detail"][0]["type"] == "extra_forbidden"
    assert len(set(bodies.values())) == len(bodies)


@pytest.mark.parametrize(
    ("quirk", "headers"),
    [
        ("Q37:seconds", {"retry-after": "1"}),
        ("Q37:seconds:7", {"retry-after": "7"}),
        ("Q37:ms", {"retry-after-ms": "250"}),
        ("Q37:ms:0.1", {"retry-after-ms": "100"}),
        ("Q37:float", {"retry-after": "0.500"}),
        ("Q37:date", {"retry-after": "Sun, 22 Nov 2026 08:30:03 GMT"}),
        ("Q37:date:60", {"retry-after": "Sun, 22 Nov 2026 08:31:01 GMT"}),
        ("Q37:over-cap", {"retry-after": "86400"}),
        ("Q37:negative", {"retry-after": "-1"}),
        ("Q37:word", {"retry-after": "soon"}),
        ("Q37:absent", {}),
        ("Q42:in-flight", {"retry-after": "1"}),
        ("Q45:false", {"x-should-retry": "false"}),
        ("Q45:true", {"x-should-retry": "true"}),
        ("Q46:go", {"x-ratelimit-reset-tokens": "6m0s", "x-ratelimit-reset-requests": "12ms"}),
        ("Q46:unknown", {"x-ratelimit-remaining-requests": "-1", "x-ratelimit-limit-requests": "0"}),
        ("Q46:per-day", {"x-ratelimit-limit-requests": "14400", "x-ratelimit-reset-requests": "2m59.56s"}),
        ("Q51:307", {"location": "./completions"}),
        ("Q51:elsewhere", {"location": "https://elsewhere.invalid/v1/chat/completions"}),
    ],
)
def test_headers_are_told(quirk: str, headers: dict[str, str]) -> None:
    """Q37, Q42, Q45, Q46, Q51: waits in every form, never sooner than meant, and what else stands in headers."""
    told = dict(bend_reply(quirk).headers)
    telling = ("retry-after", "retry-after-ms", "x-should-retry")
    assert {name: told.get(name) for name in headers} == headers
    assert [name for name in telling if name in told and name not in headers] == []


def test_rate_headers_join_an_error() -> None:
    """Q46 with Q37: a 429 carries both."""
    script = bend_reply("Q46:go,Q37:seconds")
    assert script.status == 429
    assert {"retry-after", "x-ratelimit-reset-tokens"} <= dict(script.headers).keys()


@pytest.mark.parametrize(
    ("variant", "kind"), [("ok", "application/json"), ("mislabelled", "text/event-stream; charset=utf-8")]
)
def test_json_comes_for_a_stream(variant: str, kind: str) -> None:
    """Q27: the whole completion in one body, labelled as JSON or as a stream; or an error."""
    script = bend_reply(f"Q27:{variant}", is_stream=True)
    assert dict(script.headers)["content-type"] == kind
    assert read_message(script, is_stream=False) == {"content": ANSWER, "finish_reason": "stop"}
    assert "error" in read_json(bend_reply("Q27:error", is_stream=True))
