"""Tests of the checks on request bodies."""

from typing import Any

import pytest

from evalrun.simulator.validate import check_body
from tests.simulator.asking import make_body

USER = {"role": "user", "content": "x"}


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
        ({"response_format": {}}, "response_format.type", "invalid_type"),
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
    ("params", "param"),
    [
        ({"stream": True}, "stream"),
        ({"logprobs": True}, "logprobs"),
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"tool_choice": "auto"}, "tool_choice"),
        ({"response_format": {"type": "json_object"}}, "response_format.type"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"web_search_options": {}}, "web_search_options"),
    ],
)
def test_parameter_of_a_later_version_is_refused(params: dict[str, Any], param: str) -> None:
    """What the simulator does not do yet is said, never ignored."""
    refusal = check_body(make_body(**params))
    assert refusal is not None
    assert (refusal.param, refusal.code) == (param, "unsupported_value")


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"temperature": 0, "top_p": 1, "n": 2, "seed": -5, "stop": "\n", "max_tokens": 1, "max_completion_tokens": 1},
        {"stream": False, "logprobs": False, "parallel_tool_calls": True, "logit_bias": {"50256": -100}, "user": "u"},
        dict.fromkeys(("temperature", "stop", "stream", "stream_options", "tools", "response_format", "logprobs")),
        {"response_format": {"type": "text"}, "modalities": ["text"], "tool_choice": "none", "metadata": {"k": "v"}},
        {"prediction": {"type": "content", "content": "x"}, "service_tier": "flex", "reasoning_effort": "none"},
    ],
)
def test_documented_parameters_are_accepted(params: dict[str, Any]) -> None:
    """Values within bounds, nulls, and values that ask for nothing pass."""
    assert check_body(make_body(**params)) is None


def test_documented_messages_are_accepted() -> None:
    """Every role and part of the wire contract passes."""
    parts = [
        {"type": "text", "text": "x"},
        {"type": "image_url", "image_url": {"url": "data:,", "detail": "low"}},
        {"type": "input_audio", "input_audio": {"data": "", "format": "wav"}},
        {"type": "file", "file": {"file_id": "f"}},
    ]
    messages = [
        {"role": "developer", "content": "x"},
        {"role": "system", "content": [{"type": "text", "text": "x"}]},
        {"role": "user", "content": parts, "name": "ann"},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "type": "function"}]},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
        {"role": "tool", "tool_call_id": "c", "content": "x"},
        {"role": "function", "name": "f", "content": None},
    ]
    assert check_body({"model": "careful", "messages": messages}) is None
