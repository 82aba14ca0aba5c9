"""Tests of the checks on request bodies."""

from typing import Any

import pytest

from evalrun.simulator.validate import check_body, drop_not_given
from tests.simulator.asking import make_body

USER = {"role": "user", "content": "x"}
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
CALL = {"id": "c", "type": "function", "function": {"name": "add", "arguments": "{}"}}
CALLING = {"role": "assistant", "content": None, "tool_calls": [CALL]}


@pytest.mark.parametrize(
    ("params", "param", "code"),
    [
        ({"temperature": 2.1}, "temperature", "decimal_above_max_value"),
        ({"temperature": "hot"}, "temperature", "invalid_type"),
        ({"temperature": True}, "temperature", "invalid_type"),
        ({"top_p": -0.1}, "top_p", "decimal_below_min_value"),
        ({"frequency_penalty": -3}, "frequency_penalty", "decimal_below_min_value"),
        ({"presence_penalty": 2.5}, "presence_penalty", "decimal_above_max_value"),
        ({"n": 0}, "n", "integer_below_min_value"),
        ({"n": 129}, "n", "integer_above_max_value"),
        ({"n": 1.0}, "n", "invalid_type"),
        ({"max_tokens": 0}, "max_tokens", "integer_below_min_value"),
        ({"max_completion_tokens": "9"}, "max_completion_tokens", "invalid_type"),
        ({"seed": 2**63}, "seed", "integer_above_max_value"),
        ({"stop": []}, "stop", "empty_array"),
        ({"stop": ["a"] * 5}, "stop", "array_above_max_length"),
        ({"stop": {}}, "stop", "invalid_type"),
        ({"stop": ["a", 1]}, "stop[1]", "invalid_type"),
        ({"logit_bias": []}, "logit_bias", "invalid_type"),
        ({"logit_bias": {"x": 1}}, "logit_bias", "invalid_value"),
        ({"logit_bias": {"5": 101}}, "logit_bias.5", "decimal_above_max_value"),
        ({"metadata": 1}, "metadata", "invalid_type"),
        ({"metadata": {str(i): "" for i in range(17)}}, "metadata", "object_above_max_properties"),
        ({"metadata": {"k": "v" * 513}}, "metadata.k", "string_above_max_length"),
        ({"user": 7}, "user", "invalid_type"),
        ({"safety_identifier": "x" * 129}, "safety_identifier", "string_above_max_length"),
        ({"reasoning_effort": "much"}, "reasoning_effort", "invalid_value"),
        ({"service_tier": 1}, "service_tier", "invalid_type"),
        ({"store": 1}, "store", "invalid_type"),
        ({"top_logprobs": 3}, "top_logprobs", "invalid_value"),
        ({"stream_options": {}}, "stream_options", "invalid_value"),
        ({"prediction": 1}, "prediction", "invalid_type"),
        ({"prediction": {"type": "x"}}, "prediction.type", "invalid_value"),
        ({"prediction": {"type": "content", "content": 1}}, "prediction.content", "invalid_type"),
        ({"prompt_cache_options": 1}, "prompt_cache_options", "invalid_type"),
        ({"response_format": "json"}, "response_format", "invalid_type"),
        ({"response_format": {"type": "xml"}}, "response_format.type", "invalid_value"),
        ({"response_format": {}}, "response_format.type", "missing_required_parameter"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema", "missing_required_parameter"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "a b"}}},
            "response_format.json_schema.name",
            "invalid_value",
        ),
        ({"stream": "yes"}, "stream", "invalid_type"),
        ({"stream": True, "stream_options": {"include_usage": 1}}, "stream_options.include_usage", "invalid_type"),
        ({"logprobs": 1}, "logprobs", "invalid_type"),
        ({"top_logprobs": 21, "logprobs": True}, "top_logprobs", "integer_above_max_value"),
        ({"tools": []}, "tools", "empty_array"),
        ({"tools": [{}]}, "tools[0].type", "missing_required_parameter"),
        ({"tools": [{"type": "function"}]}, "tools[0].function", "missing_required_parameter"),
        ({"tools": [{"type": "function", "function": {"name": 1}}]}, "tools[0].function.name", "invalid_type"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name", "invalid_value"),
        ({"tools": [{"type": "robot"}]}, "tools[0].type", "invalid_value"),
        ({"tool_choice": 1}, "tool_choice", "invalid_type"),
        ({"tool_choice": "auto"}, "tool_choice", None),
        ({"tool_choice": "any", "tools": [TOOL]}, "tool_choice", "invalid_value"),
        ({"tool_choice": {"type": "function", "function": {"name": "other"}}, "tools": [TOOL]}, "tool_choice", None),
        ({"parallel_tool_calls": True}, "parallel_tool_calls", None),
        ({"functions": [{"name": "f"}], "function_call": {"name": "g"}}, "function_call", None),
        ({"max_tokens": 1, "max_completion_tokens": 1}, "max_tokens", "invalid_parameter_combination"),
        ({"modalities": ["text", "smell"]}, "modalities[1]", "invalid_value"),
        ({"modalities": ["text", "audio"]}, "audio", "missing_required_parameter"),
        ({"moderation": {}}, "moderation.model", "missing_required_parameter"),
        (
            {"web_search_options": {"search_context_size": "huge"}},
            "web_search_options.search_context_size",
            "invalid_value",
        ),
        ({"temprature": 1}, None, "unknown_parameter"),
        ({"model": None}, "model", "missing_required_parameter"),
        ({"model": 5}, "model", "invalid_type"),
    ],
)
def test_parameter_out_of_its_bounds_is_refused(params: dict[str, Any], param: str | None, code: str) -> None:
    """Each documented type and range is checked, with OpenAI's code and the path of the parameter."""
    refusal = check_body({**make_body(), **params})
    assert refusal is not None
    assert (refusal.status, refusal.param, refusal.code) == (400, param, code)


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([], "messages"),
        ("hello", "messages"),
        (["hello"], "messages[0]"),
        ([{"content": "x"}], "messages[0].role"),
        ([{"role": 1, "content": "x"}], "messages[0].role"),
        ([{"role": "robot", "content": "x"}], "messages[0].role"),
        ([USER, {"role": "user"}], "messages[1].content"),
        ([USER, {"role": "user", "content": 5}], "messages[1].content"),
        ([{"role": "user", "content": []}], "messages[0].content"),
        ([{"role": "user", "content": ["x"]}], "messages[0].content[0]"),
        ([{"role": "user", "content": [{"type": "video"}]}], "messages[0].content[0].type"),
        ([{"role": "user", "content": [{"type": ["text"]}]}], "messages[0].content[0].type"),
        ([{"role": "user", "content": [{"type": "text"}]}], "messages[0].content[0].text"),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}], "messages[0].content[0].image_url"),
        (
            [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}],
            "messages[0].content[0].image_url.url",
        ),
        ([{"role": "user", "content": "x", "name": 1}], "messages[0].name"),
        ([{"role": "tool", "content": "x"}], "messages[0].tool_call_id"),
        ([{"role": "assistant"}], "messages[0].content"),
        ([{"role": "assistant", "content": "x", "tool_calls": {}}], "messages[0].tool_calls"),
    ],
)
def test_message_of_the_wrong_shape_is_refused(messages: Any, param: str) -> None:
    """The refusal names the very message and field."""
    refusal = check_body({"model": "careful", "messages": messages})
    assert refusal is not None
    assert (refusal.status, refusal.param) == (400, param)


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"temperature": 0, "top_p": 1, "n": 2, "seed": -5, "stop": "\n", "max_completion_tokens": 1},
        {"stream": False, "logprobs": False, "logit_bias": {"50256": -100}, "user": "u", "max_tokens": 1},
        {"stream": True, "stream_options": {"include_usage": True, "include_obfuscation": False}},
        {"logprobs": True, "top_logprobs": 0, "tools": [TOOL], "tool_choice": "auto", "parallel_tool_calls": False},
        {"tools": [{"type": "custom", "custom": {"name": "run it", "format": {"type": "text"}}}, TOOL]},
        {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "add"}}},
        {"tools": [TOOL], "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [TOOL]}}},
        {"functions": [{"name": "add"}], "function_call": {"name": "add"}},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {}, "strict": True}}},
        {"modalities": ["text", "audio"], "audio": {"voice": {"id": "v"}, "format": "wav"}},
        {"moderation": {"model": "m", "policy": {"input": {"mode": "block"}}}, "verbosity": "low"},
        {"web_search_options": {"user_location": {"type": "approximate", "approximate": {"city": "Bonn"}}}},
        dict.fromkeys(("temperature", "stop", "stream", "stream_options", "tools", "response_format", "logprobs")),
        {"response_format": {"type": "text"}, "modalities": ["text"], "tool_choice": "none", "metadata": {"k": "v"}},
        {"prediction": {"type": "content", "content": "x"}, "service_tier": "flex", "reasoning_effort": "none"},
    ],
)
def test_documented_parameters_are_accepted(params: dict[str, Any]) -> None:
    """Values within bounds, nulls, and values that ask for nothing pass."""
    assert check_body(make_body(**params)) is None


def test_documented_messages_are_accepted() -> None:
    """Every role, part and field of the wire contract passes, and keys that are not in it."""
    breakpoint_ = {"prompt_cache_breakpoint": {"mode": "explicit"}}
    parts = [
        {"type": "text", "text": "x", **breakpoint_},
        {"type": "image_url", "image_url": {"url": "data:,", "detail": "low"}},
        {"type": "input_audio", "input_audio": {"data": "", "format": "wav"}},
        {"type": "file", "file": {"file_id": "f"}},
    ]
    signed = {**CALL, "extra_content": {"google": {"thought_signature": "s"}}}
    custom = {"id": "d", "type": "custom", "custom": {"name": "run", "input": "ls"}}
    messages = [
        {"role": "developer", "content": "x"},
        {"role": "system", "content": [{"type": "text", "text": "x"}], "name": "rules"},
        {"role": "user", "content": parts, "name": "ann"},
        {"role": "assistant", "content": None, "tool_calls": [signed, custom]},
        {"role": "tool", "tool_call_id": "d", "content": "x"},
        {"role": "tool", "tool_call_id": "c", "content": [{"type": "text", "text": "x"}]},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}], "refusal": None},
        {"role": "assistant", "audio": {"id": "a"}},
        {"role": "assistant", "content": "", "function_call": {"name": "f", "arguments": "{}"}},
        {"role": "function", "name": "f", "content": None},
    ]
    assert check_body({"model": "careful", "messages": messages}) is None


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([USER, {"role": "tool", "tool_call_id": "c", "content": "4"}], "messages.[1].role"),
        ([CALLING, {"role": "tool", "tool_call_id": "other", "content": "4"}], "messages.[1].role"),
        ([CALLING, USER], "messages.[1].role"),
        ([USER, CALLING], "messages.[1].role"),
    ],
)
def test_tool_messages_out_of_order_are_refused(messages: Any, param: str) -> None:
    """Each tool call is followed by its answers and nothing else, as OpenAI demands; the gateway's page does not."""
    refusal = check_body({"model": "careful", "messages": messages})
    assert refusal is not None
    assert (refusal.status, refusal.param, refusal.code) == (400, param, None)
    assert check_body({"model": "careful", "messages": messages}, dialect="gateway") is None


def test_seed_gateways_own_example_is_accepted_in_its_dialect() -> None:
    """What the gateway's page sends passes there, and OpenAI's dialect refuses each of its oddities."""
    oddities: dict[str, Any] = {
        "stop": {},
        "tools": [{}],
        "tool_choice": {},
        "response_format": {},
        "top_logprobs": 5,
        "max_completion_tokens": 1000,
    }
    plain: dict[str, Any] = {
        "temperature": 1,
        "max_tokens": 1000,
        "top_p": 1,
        "frequency_penalty": 0,
        "presence_penalty": 0,
        "n": 1,
        "seed": 12345,
        "user": "<string>",
        "logprobs": False,
        "logit_bias": {},
        "stream": False,
    }
    assert check_body(make_body(**plain, **oddities, parallel_tool_calls=True), dialect="gateway") is None
    for name, value in oddities.items():
        refusal = check_body(make_body(**plain, **{name: value}))
        assert refusal is not None, name


def test_gateways_empty_values_mean_not_given() -> None:
    """Once read, nothing is left of a gateway's empty objects, and values that say something stay."""
    body = make_body(stop={}, tools=[{}], tool_choice={}, response_format={}, logit_bias={}, top_logprobs=5, n=1)
    assert drop_not_given(body) == make_body(n=1)
    full = make_body(stop="x", tools=[TOOL], logprobs=True, top_logprobs=5)
    assert drop_not_given(full) == full


def test_gateway_dialect_checks_what_is_given() -> None:
    """The gateway's page documents types and ranges too; they hold there."""
    refusal = check_body(make_body(temperature=3), dialect="gateway")
    assert refusal is not None
    assert (refusal.param, refusal.code) == ("temperature", "decimal_above_max_value")


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"temperature": "hot"}, "Invalid type for 'temperature': expected a decimal, but got a string instead."),
        (
            {"temperature": 2.1},
            "Invalid 'temperature': decimal above maximum value. Expected a value <= 2, but got 2.1 instead.",
        ),
        ({"n": 0}, "Invalid 'n': integer below minimum value. Expected a value >= 1, but got 0 instead."),
        (
            {"response_format": {"type": "xml"}},
            "Invalid value: 'xml'. Supported values are: 'text', 'json_object', and 'json_schema'.",
        ),
        (
            {"stop": ["a"] * 5},
            (
                "Invalid 'stop': array too long. Expected an array with maximum length 4, but got an array with "
                "length 5 instead."
            ),
        ),
        ({"tools": [{"type": "function"}]}, "Missing required parameter: 'tools[0].function'."),
        ({"stop": 1}, "Invalid type for 'stop': expected a string or an array of strings, but got an integer instead."),
    ],
)
def test_refusal_speaks_openais_words(params: dict[str, Any], message: str) -> None:
    """Clients that read messages find those that they know."""
    refusal = check_body(make_body(**params))
    assert refusal is not None
    assert refusal.message == message
