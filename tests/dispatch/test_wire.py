"""The wire: every shape of reply is read for what it is, and nothing but `ApiError` is ever raised."""

import json
from decimal import Decimal
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalrun.dispatch.faults import find_complaint
from evalrun.dispatch.wire import parse_reply
from evalrun.errors import (
    ApiError,
    AuthRefusedError,
    BadRequestError,
    ContentRefusedError,
    DamagedReplyError,
    MalformedReplyError,
    RateLimitedError,
    ServerFaultError,
    TerminalError,
    TransientError,
)
from evalrun.records import Completion, ErrorCode, Status, UsageSource
from tests.fake_endpoint import make_completion


def read(value: Any, **options: Any) -> Completion:
    """Parse a value as the JSON body of a 200."""
    return parse_reply(200, {}, json.dumps(value).encode(), **options)


def fail(status: int, body: Any, headers: dict[str, str] | None = None) -> ApiError:
    """Return the failure that a reply stands for; the body is bytes, or a value sent as JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    with pytest.raises(ApiError) as caught:
        parse_reply(status, headers or {}, content)
    return caught.value


def test_reply_is_read_whole() -> None:
    """Each member of a completion lands in its column."""
    value = make_completion(
        "hi", message={"reasoning_content": "hm", "refusal": None}, system_fingerprint="fp", service_tier="flex"
    )
    value["choices"][0]["logprobs"] = {"content": None}
    completion = read(value, model="m")
    assert completion.status is Status.OK
    assert (completion.output, completion.reasoning, completion.refusal) == ("hi", "hm", None)
    assert (completion.response_id, completion.response_model) == ("chatcmpl-1", "m")
    assert (completion.system_fingerprint, completion.service_tier) == ("fp", "flex")
    assert completion.logprobs == '{"content":null}'
    assert completion.usage.total_tokens == 15
    assert completion.flags == ()


@pytest.mark.parametrize(
    ("text", "finish_reason", "message", "status", "output", "flags"),
    [
        ("a", "stop", {}, Status.OK, "a", ()),
        ("a", "length", {}, Status.TRUNCATED, "a", ()),
        (None, "length", {}, Status.TRUNCATED, "", ()),
        ("a", "content_filter", {}, Status.FILTERED, None, ()),
        (None, "stop", {"refusal": "I cannot"}, Status.REFUSED, "", ()),
        ("a", "stop", {"refusal": "I cannot"}, Status.OK, "a", ()),
        ("", "stop", {}, Status.EMPTY, "", ()),
        (None, "stop", {}, Status.EMPTY, "", ()),
        (None, "tool_calls", {"tool_calls": [{"id": "1"}]}, Status.OK, None, ()),
        (None, "function_call", {"function_call": {"name": "f"}}, Status.OK, None, ()),
        ("a", "tool_calls", {"tool_calls": [{"id": "1"}]}, Status.OK, "a", ()),
        ("a", None, {}, Status.OK, "a", ("finish_reason_missing",)),
        ("a", "weird", {}, Status.OK, "a", ("finish_reason_unknown",)),
        (None, "stop", {"audio": {"transcript": "said"}}, Status.OK, "said", ()),
        (None, "stop", {"tool_calls": [{"id": "1"}]}, Status.OK, None, ()),
        ("a", "STOP", {}, Status.OK, "a", ()),
        ("a", "MAX_TOKENS", {}, Status.TRUNCATED, "a", ()),
        (None, "SAFETY", {}, Status.FILTERED, None, ()),
    ],
)
def test_finish_decides_the_status(
    text: str | None, finish_reason: str | None, message: dict[str, Any], status: Status, output: str, flags: Any
) -> None:
    """finish_reason and what the message holds decide between the five kinds of answer."""
    completion = read(make_completion(text, finish_reason=finish_reason, message=message))
    assert (completion.status, completion.output, completion.flags) == (status, output, flags)


def test_content_parts_are_joined_in_order() -> None:
    """A content list gives its texts as output and its thinking as reasoning, and is flagged."""
    parts = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
        {"type": "text", "text": "a"},
        "b",
        {"type": "image", "url": "x"},
        {"type": "text", "text": "c"},
    ]
    completion = read(make_completion(None, message={"content": parts}))
    assert (completion.output, completion.reasoning, completion.flags) == ("abc", "hm", ("content_parts",))


def test_refusal_part_is_a_refusal() -> None:
    """A refusal that comes as a content part counts as one."""
    completion = read(make_completion(None, message={"content": [{"type": "refusal", "refusal": "no"}]}))
    assert (completion.status, completion.refusal) == (Status.REFUSED, "no")


@pytest.mark.parametrize(
    "message",
    [
        {"reasoning": "hm"},
        {"reasoning_details": [{"text": "h"}, {"text": "m"}]},
        {"reasoning_details": [{"summary": "hm"}]},
    ],
)
def test_reasoning_is_found_under_its_names(message: dict[str, Any]) -> None:
    """Reasoning is kept under whatever name a server gives it."""
    assert read(make_completion(message=message)).reasoning == "hm"


def test_reasoning_that_is_encrypted_is_none() -> None:
    """Details without a word that can be read (OpenRouter passes encrypted ones on) are no reasoning."""
    message = {"reasoning_details": [{"type": "reasoning.encrypted", "data": "gAAAAA"}]}
    assert read(make_completion(message=message)).reasoning is None


def test_several_choices_are_all_kept() -> None:
    """With n > 1, choice 0 is the output wherever it stands, and all choices are kept as JSON, by their index."""
    value = make_completion("second")
    value["choices"][0]["index"] = 1
    value["choices"].append({"index": 0, "message": {"content": "first"}, "finish_reason": "stop"})
    completion = read(value)
    assert completion.output == "first"
    assert completion.choices is not None
    assert [choice["message"]["content"] for choice in json.loads(completion.choices)] == ["first", "second"]
    for index in (None, 0):
        value["choices"][0]["index"] = index
        in_order = read(value).choices
        assert in_order is not None
        assert [choice["message"]["content"] for choice in json.loads(in_order)] == ["second", "first"]


@pytest.mark.parametrize("index", [[], {}, [1], "0"])
def test_choices_whose_index_is_no_number_are_kept(index: object) -> None:
    """Several choices, one of which bears anything but a number as its index, are kept in the order they came in."""
    value = make_completion("first")
    value["choices"].append({"index": index, "message": {"content": "second"}, "finish_reason": "stop"})
    assert json.loads(read(value).choices or "") == value["choices"]


@pytest.mark.parametrize(
    ("choices", "n_choices", "flags"),
    [
        ([{"index": 0}], 1, ()),
        ([{"index": 0}], 2, ("fewer_choices",)),
        ([{"index": 0}, {"index": 1}], 2, ()),
        ([{"index": 0}, {"index": 1, "error": {"message": "died"}}], 2, ("fewer_choices",)),
        ([{"index": 0}, {"index": 1, "message": None}], 2, ("fewer_choices",)),
        ([{"index": 0}, {"index": 1, "finish_reason": "error"}], 2, ("fewer_choices",)),
        ([{"index": 0}, {"index": 0}], 2, ("choice_index_repeated",)),
        ([{}, {}], 2, ()),
    ],
)
def test_choices_are_counted(choices: list[Any], n_choices: int, flags: tuple[str, ...]) -> None:
    """Fewer choices than were asked for, failed ones not counted, are flagged, and so is an index that comes twice."""
    value = make_completion("x")
    value["choices"] = [{**value["choices"][0], "index": None} | choice for choice in choices]
    assert read(value, n_choices=n_choices).flags == flags


def test_other_model_is_flagged() -> None:
    """A reply from a model of another name is kept and flagged."""
    assert read(make_completion(model="m-2026"), model="m").flags == ("model_mismatch",)


@pytest.mark.parametrize(
    ("body", "output", "flags"),
    [
        (json.dumps(make_completion("x")).encode().replace(b'"x"', rb'"a\ud800b"'), "a\ufffdb", ("text_cleaned",)),
        (
            json.dumps(make_completion("x")).encode().replace(b'"x"', rb'"\ud83d\ude00\udc00"'),
            "😀\ufffd",
            ("text_cleaned",),
        ),
        (json.dumps(make_completion("\\ud800")).encode(), "\\ud800", ()),
        (json.dumps(make_completion("a\0b")).encode(), "a\0b", ()),
        (b"\xef\xbb\xbf" + json.dumps(make_completion("bom")).encode(), "bom", ()),
        (b"\n\n  " + json.dumps(make_completion("blank")).encode(), "blank", ()),
        (json.dumps(make_completion("nan", extra=float("nan"))).encode(), "nan", ("number_dropped",)),
        (json.dumps(make_completion("inf")).encode()[:-1] + b',"x":1e999}', "inf", ("number_dropped",)),
    ],
)
def test_odd_json_is_read(body: bytes, output: str, flags: tuple[str, ...]) -> None:
    """Lone surrogates, NUL, byte order marks, NaN and huge numbers neither crash nor lose an answer."""
    completion = parse_reply(200, {}, body)
    assert (completion.output, completion.flags) == (output, flags)
    assert completion.output is not None
    completion.output.encode()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"   \n",
        b"<!DOCTYPE html><html><body>Sign in</body></html>",
        json.dumps(make_completion("x")).encode()[:-20],
        b'{"choices": [{"message": {"content": "\xff\xfe"}}]}',
        b"[" * 100_000 + b"]" * 100_000,
        b"null",
        b"42",
        b'"text"',
        b"{}",
        b'{"choices": null}',
        b'{"choices": []}',
        b'{"choices": [null]}',
        b'{"choices": [{"finish_reason": "stop"}]}',
        b'{"choices": [{"message": {"content": {"a": 1}}}]}',
        b'{"choices": [{"message": {"content": 12}}]}',
    ],
)
def test_damaged_reply_is_never_an_answer(body: bytes) -> None:
    """A 200 without a completion is `body_invalid`, can be asked again, and keeps the first 4 KiB as evidence."""
    error = fail(200, body)
    assert isinstance(error, DamagedReplyError)
    assert (error.code, error.http_status, error.body) == (ErrorCode.BODY_INVALID, 200, body[:4096])


def test_deeply_nested_parts_are_kept() -> None:
    """Nesting beyond the fast writer's reach neither crashes nor loses the part."""
    body = b'{"choices": [{"message": {"content": "x", "tool_calls": ' + b"[" * 900 + b"]" * 900 + b"}}]}"
    assert parse_reply(200, {}, body).tool_calls == "[" * 900 + "]" * 900


@pytest.mark.parametrize(
    ("error", "is_passing"),
    [
        ({"message": "busy", "code": 429}, True),
        ({"message": "busy", "code": "502"}, True),
        ({"message": "bad", "code": 400}, False),
        ({"message": "key", "code": 401}, False),
        ({"message": "x", "code": "server_error"}, True),
        ({"message": "x", "type": "overloaded_error"}, True),
        ({"message": "x", "code": "insufficient_quota"}, False),
        ({"message": "x", "type": "invalid_request_error"}, False),
        ("upstream died", True),
    ],
)
def test_error_in_200_passes_by_its_own_code(error: Any, is_passing: bool) -> None:
    """An error object in a 200 is `error_in_200`; its own code decides whether asking again may help."""
    failure = fail(200, {"error": error})
    assert failure.code == ErrorCode.ERROR_IN_200
    assert isinstance(failure, TransientError if is_passing else TerminalError)


@pytest.mark.parametrize("body", [{"message": "died"}, {"detail": "died"}, [{"error": "died"}]])
def test_complaint_without_choices_is_an_error(body: Any) -> None:
    """A 200 that only complains, in whatever shape, is an error and not a damaged completion."""
    failure = fail(200, body)
    assert failure.code == ErrorCode.ERROR_IN_200
    assert "died" in failure.message


def test_moderation_in_200_is_a_refusal() -> None:
    """A moderation error that comes inside a 200 is a filtered row, as it is inside a 403."""
    assert isinstance(fail(200, {"error": {"message": "x", "code": "content_filter"}}), ContentRefusedError)


def test_param_is_quoted() -> None:
    """The parameter that a server refuses is named."""
    assert "(param: seed)" in fail(400, {"error": {"message": "x", "param": "seed"}}).message


def test_error_beside_choices_is_an_error() -> None:
    """An error object counts although choices came with it, in the reply or in the choice."""
    value = make_completion("partial")
    assert fail(200, {**value, "error": {"message": "died", "code": 502}}).code == ErrorCode.ERROR_IN_200
    value["choices"][0]["error"] = {"message": "died", "code": 502}
    assert fail(200, value).code == ErrorCode.ERROR_IN_200


@pytest.mark.parametrize("finish_reason", ["error", "insufficient_system_resource"])
def test_finish_reason_error_is_an_error(finish_reason: str) -> None:
    """A choice that the server gave up on is no answer, whatever text came before."""
    failure = fail(200, make_completion("partial", finish_reason=finish_reason))
    assert isinstance(failure, ServerFaultError)
    assert (failure.code, finish_reason in failure.message) == (ErrorCode.ERROR_IN_200, True)


def test_failure_keeps_the_evidence_it_is_given() -> None:
    """Of a stream that failed, what is kept is how it looked on the wire."""
    with pytest.raises(ApiError) as caught:
        parse_reply(200, {}, b'{"error": "died"}', evidence=b"data: ...")
    assert caught.value.body == b"data: ..."


def test_null_error_is_no_error() -> None:
    """`error: null` beside a completion means nothing."""
    assert read(make_completion("fine", error=None)).output == "fine"


OPENAI = {"error": {"message": "why", "type": "t", "param": None, "code": None}}


@pytest.mark.parametrize(
    "body",
    [
        OPENAI,
        {"error": {"message": "why", "code": 429, "metadata": {"raw": "r", "provider_name": "p"}}},
        {"error": "why"},
        {"object": "error", "message": "why", "type": "BadRequestError", "param": None, "code": 400},
        {"detail": [{"loc": ["body"], "msg": "why", "type": "missing"}]},
        {"detail": "why"},
        {"type": "error", "error": {"type": "overloaded_error", "message": "why"}, "request_id": "r"},
        [{"error": {"code": 400, "message": "why", "status": "INVALID_ARGUMENT"}}],
        {"success": False, "error": {"message": "why"}},
        {"message": "why"},
        {"_relay": 1, "upstreamError": {"message": "why"}},
        b"<html><head><style>p{}</style></head><body><h1>why</h1></body></html>",
        b"why",
        {"object": "error", "message": {"detail": [{"msg": "why"}]}, "type": "invalid_request_error"},
    ],
)
def test_error_body_is_quoted_whatever_its_shape(body: Any) -> None:
    """The message of each of the field's error shapes is found, without its markup."""
    error = fail(500, body)
    assert "why" in error.message
    assert "<" not in error.message
    assert error.message.startswith("HTTP 500: ")


def test_error_nested_beyond_all_bounds_is_still_one() -> None:
    """An explanation that cannot be written says so."""
    message: Any = "why"
    for _ in range(100_000):
        message = [message]
    complaint = find_complaint({"error": {"message": message}})
    assert complaint is not None
    assert complaint.message == "an explanation nested too deeply to be shown"


def test_error_with_an_empty_body_still_says_its_status() -> None:
    """An error without a word is named by its status."""
    assert fail(502, b"").message == "HTTP 502: no further explanation"


@pytest.mark.parametrize(
    ("status", "body", "kind", "code"),
    [
        (400, OPENAI, BadRequestError, ErrorCode.BAD_REQUEST),
        (405, OPENAI, BadRequestError, ErrorCode.BAD_REQUEST),
        (413, b"<html>too large</html>", BadRequestError, ErrorCode.BAD_REQUEST),
        (415, OPENAI, BadRequestError, ErrorCode.BAD_REQUEST),
        (422, {"detail": "x"}, BadRequestError, ErrorCode.BAD_REQUEST),
        (
            400,
            {"error": {"message": "x", "code": "context_length_exceeded"}},
            BadRequestError,
            ErrorCode.CONTEXT_LENGTH,
        ),
        (
            400,
            {"object": "error", "message": "This model's maximum context length is 4096 tokens.", "code": 400},
            BadRequestError,
            ErrorCode.CONTEXT_LENGTH,
        ),
        (400, {"error": {"message": "x", "code": "model_not_found"}}, AuthRefusedError, ErrorCode.MODEL_NOT_FOUND),
        (
            400,
            [{"error": {"code": 400, "message": "x", "details": [{"reason": "API_KEY_INVALID"}]}}],
            AuthRefusedError,
            ErrorCode.AUTH,
        ),
        (400, {"error": {"message": "Your credit balance is too low"}}, AuthRefusedError, ErrorCode.QUOTA),
        (400, {"error": {"message": "x", "code": "content_filter"}}, ContentRefusedError, ErrorCode.BAD_REQUEST),
        (
            400,
            {"error": {"message": "x", "code": None, "innererror": {"code": "ResponsibleAIPolicyViolation"}}},
            ContentRefusedError,
            ErrorCode.BAD_REQUEST,
        ),
        (401, OPENAI, AuthRefusedError, ErrorCode.AUTH),
        (402, OPENAI, AuthRefusedError, ErrorCode.QUOTA),
        (403, OPENAI, AuthRefusedError, ErrorCode.FORBIDDEN),
        (
            403,
            {"error": {"message": "x", "code": 403, "metadata": {"reasons": ["hate"], "flagged_input": "y"}}},
            ContentRefusedError,
            ErrorCode.FORBIDDEN,
        ),
        (404, OPENAI, AuthRefusedError, ErrorCode.MODEL_NOT_FOUND),
        (408, OPENAI, ServerFaultError, ErrorCode.SERVER_ERROR),
        (409, OPENAI, ServerFaultError, ErrorCode.SERVER_ERROR),
        (425, OPENAI, ServerFaultError, ErrorCode.SERVER_ERROR),
        (429, OPENAI, RateLimitedError, ErrorCode.RATE_LIMITED),
        (429, {"error": {"message": "x", "code": "slow_down"}}, RateLimitedError, ErrorCode.RATE_LIMITED),
        (429, {"error": {"message": "x", "type": "insufficient_quota"}}, AuthRefusedError, ErrorCode.QUOTA),
        (429, {"error": {"message": "x", "code": "project_spend_limit_exceeded"}}, AuthRefusedError, ErrorCode.QUOTA),
        (429, {"error": {"message": "x", "code": "credit_balance_exhausted"}}, AuthRefusedError, ErrorCode.QUOTA),
        (498, OPENAI, ServerFaultError, ErrorCode.OVERLOADED),
        (500, OPENAI, ServerFaultError, ErrorCode.SERVER_ERROR),
        (502, b"<html>Bad gateway</html>", ServerFaultError, ErrorCode.SERVER_ERROR),
        (503, OPENAI, ServerFaultError, ErrorCode.SERVER_ERROR),
        (503, {"error": {"message": "x", "code": "slow_down"}}, ServerFaultError, ErrorCode.OVERLOADED),
        (524, b"error code: 524", ServerFaultError, ErrorCode.SERVER_ERROR),
        (529, OPENAI, ServerFaultError, ErrorCode.OVERLOADED),
        (301, b"", MalformedReplyError, ErrorCode.REDIRECT),
        (307, b"", MalformedReplyError, ErrorCode.REDIRECT),
    ],
)
def test_status_and_code_classify(status: int, body: Any, kind: type[ApiError], code: ErrorCode) -> None:
    """Each row of the error table: status and the body's own code decide class and code."""
    error = fail(status, body)
    assert type(error) is kind
    assert (error.code, error.http_status) == (code, status)


def test_402_for_requests_in_flight_only_waits() -> None:
    """OpenRouter's in-flight budget passes by itself; any other 402 is about money."""
    body = {"error": {"message": "x", "code": 402, "metadata": {"limit_source": "openrouter_in_flight_budget"}}}
    assert fail(402, body, {"retry-after": "2"}).code == ErrorCode.RATE_LIMITED
    assert fail(402, body).code == ErrorCode.QUOTA


@pytest.mark.parametrize(
    ("details", "headers", "wait_s"),
    [
        ([{"@type": "x"}, {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.5s"}], {}, 34.5),
        ([{"retryDelay": "34s"}], {"retry-after": "2"}, 2.0),
        ([{"retryDelay": 7}, "x", {"retryDelay": "soon"}], {}, None),
        ({"retryDelay": "34s"}, {}, None),
    ],
)
def test_wait_in_the_body_counts_where_no_header_says_one(
    details: Any, headers: dict[str, str], wait_s: float | None
) -> None:
    """Gemini asks for its wait in the details of the error, in whatever status that comes."""
    body = [{"error": {"code": 429, "message": "x", "status": "RESOURCE_EXHAUSTED", "details": details}}]
    assert fail(429, body, headers).retry_after_s == wait_s
    assert fail(200, body, headers).retry_after_s == wait_s


def test_redirect_names_its_target() -> None:
    """A redirect says where it leads, since that is what the base URL should be."""
    assert "https://elsewhere/v1" in fail(308, b"", {"location": "https://elsewhere/v1"}).message


def test_failure_keeps_the_facts_of_the_exchange() -> None:
    """Request id, wait and the server's own verdict are kept."""
    headers = {"x-request-id": "req-1", "retry-after": "3", "x-should-retry": "False"}
    error = fail(500, b"x" * 9000, headers)
    assert (error.request_id, error.retry_after_s, error.should_retry) == ("req-1", 3.0, False)
    assert error.body == b"x" * 4096
    assert error.bytes_received == 9000


def test_usage_reads_every_part() -> None:
    """Cached, written and reasoning tokens are found within their wholes, and the raw object is kept."""
    usage = {
        "prompt_tokens": 100,
        "completion_tokens": 50,
        "total_tokens": 150,
        "prompt_tokens_details": {"cached_tokens": 40, "cache_write_tokens": 10},
        "completion_tokens_details": {"reasoning_tokens": 30},
        "cost": 0.0012,
    }
    counted = read(make_completion(usage=usage)).usage
    assert (counted.prompt_tokens, counted.cached_tokens, counted.cache_write_tokens) == (100, 40, 10)
    assert (counted.completion_tokens, counted.reasoning_tokens, counted.total_tokens) == (50, 30, 150)
    assert counted.reported_cost_usd == Decimal("0.0012")
    assert (counted.source, counted.flags) == (UsageSource.REPORTED, ())
    assert counted.raw is not None
    assert json.loads(counted.raw) == usage


@pytest.mark.parametrize("usage", [None, {"usage": None}])
def test_usage_that_is_missing_is_unknown(usage: Any) -> None:
    """Without usage nothing is counted: None, not 0."""
    value = make_completion(usage=None) | (usage or {})
    counted = read(value).usage
    assert (counted.prompt_tokens, counted.completion_tokens, counted.source) == (None, None, UsageSource.MISSING)
    assert counted.raw is None


@pytest.mark.parametrize("bad", [-1, "12", 1.5, 1e30, 10**30, True, [], {}])
def test_usage_that_cannot_be_is_not_counted(bad: Any) -> None:
    """Negative, textual, fractional and absurd counts are unknown and flagged."""
    counted = read(make_completion(usage={"prompt_tokens": bad, "completion_tokens": 5})).usage
    assert (counted.prompt_tokens, counted.completion_tokens) == (None, 5)
    assert counted.flags == ("usage_inconsistent",)


@pytest.mark.parametrize("usage", [7, "many", [1], {"prompt_tokens": "1"}])
def test_usage_of_no_use_is_missing(usage: Any) -> None:
    """A usage without one credible count is missing, flagged, and kept as it came."""
    completion = read(make_completion(usage=usage))
    assert completion.usage.source is UsageSource.MISSING
    assert completion.usage.raw is not None
    assert "usage_inconsistent" in completion.flags


def test_usage_outside_the_parts_is_booked_as_reasoning() -> None:
    """A total above prompt + completion holds reasoning that the relay left out of the completion."""
    counted = read(make_completion(usage={"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 40})).usage
    assert (counted.completion_tokens, counted.reasoning_tokens) == (30, 25)
    assert counted.flags == ("reasoning_outside",)


def test_usage_below_the_sum_of_its_parts_is_flagged() -> None:
    """A total that is too small changes no count."""
    counted = read(make_completion(usage={"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 3})).usage
    assert (counted.prompt_tokens, counted.completion_tokens, counted.total_tokens) == (10, 5, 3)
    assert counted.flags == ("usage_inconsistent",)


def test_usage_parts_larger_than_their_whole_are_dropped() -> None:
    """More cached than prompt tokens, or more reasoning than completion tokens, is not believed."""
    usage = {
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "prompt_tokens_details": {"cached_tokens": 50},
        "completion_tokens_details": {"reasoning_tokens": 50},
    }
    counted = read(make_completion(usage=usage)).usage
    assert (counted.cached_tokens, counted.reasoning_tokens, counted.flags) == (None, None, ("usage_inconsistent",))


def test_usage_in_the_input_tokens_dialect_is_converted() -> None:
    """Anthropic's counts leave cached tokens out of the input; ours have them, flagged as converted."""
    usage = {"input_tokens": 10, "cache_read_input_tokens": 90, "cache_creation_input_tokens": 5, "output_tokens": 7}
    counted = read(make_completion(usage=usage)).usage
    assert (counted.prompt_tokens, counted.cached_tokens, counted.cache_write_tokens) == (105, 90, 5)
    assert (counted.completion_tokens, counted.flags) == (7, ("usage_converted",))


@pytest.mark.parametrize("cost", [-1, "0.1", True, {"total": 1}, 1e30])
def test_reported_cost_that_cannot_be_is_unknown(cost: Any) -> None:
    """A cost that is no credible number is not taken for money."""
    counted = read(make_completion(usage={"prompt_tokens": 1, "completion_tokens": 1, "cost": cost})).usage
    assert counted.reported_cost_usd is None
    assert counted.flags == ("usage_inconsistent",)


KEYS = [
    "choices",
    "error",
    "message",
    "content",
    "usage",
    "prompt_tokens",
    "finish_reason",
    "code",
    "type",
    "detail",
    "index",
    "tool_calls",
    "metadata",
    "model",
    "total_tokens",
    "cost",
    "logprobs",
    "reasoning_details",
    "text",
]
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["stop", "error", "429"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS) | st.text(), inner, max_size=5),
    max_leaves=20,
)
STATUSES = st.sampled_from([200, 201, 301, 400, 401, 402, 403, 404, 408, 413, 422, 429, 498, 500, 503, 529, 599])
HEADERS = st.dictionaries(
    st.sampled_from(["retry-after", "retry-after-ms", "date", "x-should-retry", "location", "x-request-id"]), st.text()
)


@given(status=STATUSES, headers=HEADERS, body=st.binary() | ANY_JSON.map(lambda value: json.dumps(value).encode()))
def test_parse_reply_raises_nothing_but_api_errors(status: int, headers: dict[str, str], body: bytes) -> None:
    """Whatever the bytes, the reply is a completion or an `ApiError`; its texts can be encoded and its JSON read."""
    try:
        completion = parse_reply(status, headers, body, model="m")
    except ApiError as error:
        texts: tuple[str | None, ...] = (error.message, error.request_id)
        written_parts: tuple[str | None, ...] = ()
    else:
        texts = (completion.output, completion.refusal, completion.reasoning, completion.finish_reason)
        written_parts = (completion.tool_calls, completion.choices, completion.logprobs, completion.usage.raw)
    for text in texts:
        (text or "").encode()
    for written in written_parts:
        orjson.loads(written or "null")


@given(choice=ANY_JSON, usage=ANY_JSON)
def test_parse_reply_survives_any_choice(choice: Any, usage: Any) -> None:
    """Any value may stand where choice and usage should be."""
    body = json.dumps({"choices": [choice, {"message": choice}], "usage": usage}).encode()
    for content in (body, json.dumps({"choices": [{"message": choice}], "usage": usage}).encode()):
        try:
            completion = parse_reply(200, {}, content)
        except ApiError:
            continue
        assert isinstance(completion.status, Status)
