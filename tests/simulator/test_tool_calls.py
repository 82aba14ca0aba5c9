"""Tests of which tools are called, and with what."""

import json
import re
from typing import Any

import jsonschema
import pytest

from evalrun.options import ProfileOptions
from evalrun.simulator.replies import Hint, make_chat_request, make_draft
from tests.simulator.asking import make_body

PLACE: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]}},
    "required": ["city", "unit"],
    "additionalProperties": False,
}
WEATHER: dict[str, Any] = {"type": "function", "function": {"name": "get_weather", "parameters": PLACE, "strict": True}}
CLOCK: dict[str, Any] = {"type": "function", "function": {"name": "read_clock"}}
NOTE: dict[str, Any] = {"type": "custom", "custom": {"name": "note"}}
TOOLS = [WEATHER, CLOCK, NOTE]
CALLED: list[dict[str, Any]] = [
    {"role": "user", "content": "Weather?"},
    {
        "role": "assistant",
        "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
    },
    {"role": "tool", "tool_call_id": "c", "content": "sunny"},
]


def complete(answer: str | None = None, **params: Any) -> Any:
    """Return the reply, or the error, to a body with these parameters."""
    asked = make_chat_request({**make_body("Weather?"), **params}, Hint(answer=answer, sample="s1"), 7)
    return make_draft(asked, ProfileOptions(accuracy=1)).completion


def list_called(**params: Any) -> list[str]:
    """Return the names of the tools that choice 0 calls."""
    message = complete(**params)["choices"][0]["message"]
    return [call[call["type"]]["name"] for call in message.get("tool_calls", [])]


@pytest.mark.parametrize(
    ("params", "called"),
    [
        ({}, ["get_weather"]),
        ({"tool_choice": "auto"}, ["get_weather"]),
        ({"tool_choice": "required"}, ["get_weather"]),
        ({"tool_choice": "none"}, []),
        ({"tool_choice": {"type": "function", "function": {"name": "read_clock"}}}, ["read_clock"]),
        ({"tool_choice": {"type": "custom", "custom": {"name": "note"}}}, ["note"]),
        ({"parallel_tool_calls": True}, ["get_weather", "read_clock", "note"]),
        ({"parallel_tool_calls": False}, ["get_weather"]),
        ({"messages": CALLED}, []),
        ({"messages": CALLED, "tool_choice": "required"}, ["get_weather"]),
    ],
)
def test_tool_choice_decides_what_is_called(params: dict[str, Any], called: list[str]) -> None:
    """The first tool is called, or the one named; a conversation that ends with a result gets a text."""
    assert list_called(tools=TOOLS, **params) == called


@pytest.mark.parametrize(
    ("mode", "messages", "called"),
    [
        ("auto", None, ["read_clock"]),
        ("required", None, ["read_clock"]),
        ("auto", CALLED, []),
        ("required", CALLED, ["read_clock"]),
    ],
)
def test_allowed_tools_come_in_their_order(mode: str, messages: Any, called: list[str]) -> None:
    """Of the allowed tools the first is called, whatever comes first among all tools."""
    allowed = [{"type": "function", "function": {"name": name}} for name in ("read_clock", "get_weather")]
    choice = {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": allowed}}
    told = {"messages": messages} if messages else {}
    assert list_called(tools=TOOLS, tool_choice=choice, **told) == called


@pytest.mark.parametrize(
    "allowed",
    [
        {},
        {"type": "function"},
        {"type": 3},
        {"type": "function", "function": {"name": "none"}},
        {"type": "function", "function": {"name": []}},
    ],
)
def test_allowed_tool_that_is_none_is_refused(allowed: Any) -> None:
    """An entry that names no tool of the request is a 400 that names the entry."""
    choice = {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [allowed]}}
    error = complete(tools=TOOLS, tool_choice=choice)["error"]
    assert (error["type"], error["param"]) == ("invalid_request_error", "tool_choice.allowed_tools.tools[0]")


def test_call_has_openais_form() -> None:
    """Content is null, the finish reason says so, ids differ, arguments are JSON that satisfies the schema."""
    completion = complete(tools=[WEATHER], n=2)
    choices = completion["choices"]
    calls = [choice["message"]["tool_calls"][0] for choice in choices]
    assert {choice["finish_reason"] for choice in choices} == {"tool_calls"}
    assert {choice["message"]["content"] for choice in choices} == {None}
    assert {call["type"] for call in calls} == {"function"}
    assert len({call["id"] for call in calls}) == 2
    for call in calls:
        assert re.fullmatch("call_sim[0-9a-f]{12}", call["id"])
        jsonschema.Draft202012Validator(PLACE).validate(json.loads(call["function"]["arguments"]))


def test_parallel_calls_have_ids_of_their_own() -> None:
    """A client can tell the calls of one reply apart."""
    calls = complete(tools=TOOLS, parallel_tool_calls=True)["choices"][0]["message"]["tool_calls"]
    assert len({call["id"] for call in calls}) == 3


def test_function_without_parameters_gets_none() -> None:
    """Its arguments are an empty object, as text."""
    call = complete("72", tools=[CLOCK])["choices"][0]["message"]["tool_calls"][0]
    assert call["function"] == {"name": "read_clock", "arguments": "{}"}


def test_right_answer_is_an_argument() -> None:
    """A told answer goes to its obvious place among the arguments."""
    call = complete("Celsius", tools=[WEATHER])["choices"][0]["message"]["tool_calls"][0]
    assert json.loads(call["function"]["arguments"])["unit"] == "celsius"


def test_custom_tool_is_told_the_text() -> None:
    """Its input is what the reply would have said."""
    call = complete("72", tools=[NOTE])["choices"][0]["message"]["tool_calls"][0]
    assert (call["type"], call["custom"]) == ("custom", {"name": "note", "input": "72"})


@pytest.mark.parametrize(
    ("syntax", "definition", "expected"),
    [("regex", "^[0-9]{5}$", "[0-9]{5}"), ("regex", "(?=a)", "72"), ("lark", "start: A", "72")],
)
def test_custom_tool_with_a_grammar_is_told_what_it_allows(syntax: str, definition: str, expected: str) -> None:
    """A regular expression is kept to; a grammar that is not read gets the plain text."""
    grammar = {"type": "grammar", "grammar": {"syntax": syntax, "definition": definition}}
    tool = {"type": "custom", "custom": {"name": "note", "format": grammar}}
    call = complete("72", tools=[tool])["choices"][0]["message"]["tool_calls"][0]
    assert re.fullmatch(expected, call["custom"]["input"])


@pytest.mark.parametrize(
    ("choice", "called"),
    [(None, "get_weather"), ("auto", "get_weather"), ("none", None), ({"name": "read_clock"}, "read_clock")],
)
def test_older_functions_are_called(choice: Any, called: str | None) -> None:
    """`functions` give a `function_call` and its finish reason."""
    functions = [tool["function"] for tool in (WEATHER, CLOCK)]
    made = complete(functions=functions, function_call=choice)["choices"][0]
    call = made["message"].get("function_call")
    assert (call and call["name"]) == called
    assert made["finish_reason"] == ("function_call" if called else "stop")


def test_function_result_ends_the_calling() -> None:
    """After a message of the role function comes a text."""
    messages = [{"role": "user", "content": "?"}, {"role": "function", "name": "f", "content": "sunny"}]
    assert "function_call" not in complete(functions=[CLOCK["function"]], messages=messages)["choices"][0]["message"]


@pytest.mark.parametrize("limit", range(1, 30))
def test_token_limit_cuts_calls(limit: int) -> None:
    """Names and arguments count; a call whose name does not fit is not there, and nothing over the limit is billed."""
    whole = complete(tools=TOOLS, parallel_tool_calls=True)
    cut = complete(tools=TOOLS, parallel_tool_calls=True, max_tokens=limit)
    n_whole = whole["usage"]["completion_tokens"]
    choice = cut["choices"][0]
    assert cut["usage"]["completion_tokens"] == min(limit, n_whole)
    assert choice["finish_reason"] == ("length" if limit < n_whole else "tool_calls")
    for made in choice["message"].get("tool_calls", []):
        assert made[made["type"]]["name"] in ("get_weather", "read_clock", "note")


def test_schema_that_nothing_satisfies_is_refused() -> None:
    """The error is OpenAI's, and names the function and where its schema stands."""
    tool = {"type": "function", "function": {"name": "never", "parameters": {"type": "object", "required": 3}}}
    error = complete(tools=[WEATHER, tool], tool_choice="required", parallel_tool_calls=True)["error"]
    assert (error["param"], error["code"]) == ("tools[1].function.parameters", "invalid_function_parameters")
    assert "'never'" in error["message"]
