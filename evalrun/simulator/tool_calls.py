"""Which tools a reply calls, and with what arguments.

Enters: the valid parameters about tools (or the older functions) and the messages. Leaves: the tools to call, or the
refusal that OpenAI's API would give; what each is called with. The first tool is called, or the one that `tool_choice`
names; each one once when the body says `parallel_tool_calls: true`; none when the conversation ends with a tool's
result.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from evalrun.simulator.codec import encode_json
from evalrun.simulator.json_answers import make_answer
from evalrun.simulator.pattern_syntax import parse_pattern
from evalrun.simulator.patterns import Budget, Pick, SpentError, make_matching_text
from evalrun.simulator.refusal import Refusal
from evalrun.simulator.schemas import NoValueError

MAX_CALLS: Final = 16
"""Most calls of one reply."""

_NO_PARAMETERS: Final[Mapping[str, Any]] = {"type": "object", "properties": {}, "additionalProperties": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A tool that is called."""

    name: str
    kind: Literal["function", "custom", "legacy"]
    """`legacy` is an entry of `functions`."""
    param: str
    """Where it stands in the body, for refusals."""
    parameters: Any = None
    """Schema of a function's arguments."""
    pattern: str | None = None
    """Regular expression that a custom tool's input must match; None when any text will do."""


def choose_tools(body: Mapping[str, Any]) -> tuple[Tool, ...] | Refusal:
    """Return the tools that a reply to a valid body calls, at most MAX_CALLS; () when it is a text."""
    if body.get("tools"):
        tools = [_read_tool(tool, f"tools[{index}]") for index, tool in enumerate(body["tools"])]
        chosen = _choose(tools, body.get("tool_choice"), body["messages"])
        is_parallel = body.get("parallel_tool_calls") is True
    elif body.get("functions"):
        tools = [_read_function(tool, "legacy", f"functions[{i}]") for i, tool in enumerate(body["functions"])]
        chosen = _choose(tools, body.get("function_call"), body["messages"])
        is_parallel = False
    else:
        return ()
    return chosen if isinstance(chosen, Refusal) else tuple(chosen[: MAX_CALLS if is_parallel else 1])


def make_call_text(tool: Tool, answer: str | None, pick: Pick, *, is_right: bool, any_text: str) -> str | Refusal:
    """Return what a tool is called with: arguments as JSON that satisfy a function's schema, or a custom tool's input.

    Args:
        tool: The tool to call.
        answer: The right answer; None when it is not known.
        pick: Where chance comes from.
        is_right: Whether the arguments say the right answer.
        any_text: What a custom tool is told, when any text will do.
    """
    if tool.kind == "custom":
        return _make_input(tool, pick) or any_text
    try:
        arguments = make_answer(tool.parameters, answer, pick, is_right=is_right)
    except NoValueError as error:
        message = f"Invalid schema for function '{tool.name[:200]}': {error}."
        return Refusal(message=message, param=tool.param, code="invalid_function_parameters")
    return encode_json(arguments).decode()


def _read_tool(tool: Mapping[str, Any], param: str) -> Tool:
    if tool["type"] != "custom":
        return _read_function(tool["function"], "function", f"{param}.function")
    told = tool["custom"]
    grammar = (told.get("format") or {}).get("grammar") or {}
    # Lark grammars are not read: such a tool is told a text that its grammar may not allow.
    pattern = grammar.get("definition") if grammar.get("syntax") == "regex" else None
    return Tool(name=told["name"], kind="custom", param=f"{param}.custom", pattern=pattern)


def _read_function(told: Mapping[str, Any], kind: Literal["function", "legacy"], param: str) -> Tool:
    parameters = told.get("parameters")
    return Tool(
        name=told["name"],
        kind=kind,
        param=f"{param}.parameters",
        parameters=_NO_PARAMETERS if parameters is None else parameters,
    )


def _choose(tools: Sequence[Tool], choice: Any, messages: Sequence[Mapping[str, Any]]) -> Sequence[Tool] | Refusal:
    is_answered = messages[-1]["role"] in ("tool", "function")
    if choice is None or choice == "auto":
        return () if is_answered else tools
    if isinstance(choice, str):
        return tools if choice == "required" else ()
    if "name" in choice:
        return [tool for tool in tools if tool.name == choice["name"]]
    kind = choice["type"]
    if kind != "allowed_tools":
        return [tool for tool in tools if (tool.kind, tool.name) == (kind, choice[kind]["name"])]
    allowed = choice["allowed_tools"]
    found = _find_allowed(tools, allowed["tools"])
    return () if allowed["mode"] == "auto" and is_answered and not isinstance(found, Refusal) else found


def _find_allowed(tools: Sequence[Tool], allowed: Sequence[Mapping[str, Any]]) -> Sequence[Tool] | Refusal:
    """Return the tools that a list of `{type, function: {name}}` names, in the list's order."""
    found = []
    for index, told in enumerate(allowed):
        kind = told.get("type")
        named = told.get(kind) if isinstance(kind, str) else None
        name = named.get("name") if isinstance(named, Mapping) else None
        tool = next((tool for tool in tools if (tool.kind, tool.name) == (kind, name)), None)
        if tool is None:
            param = f"tool_choice.allowed_tools.tools[{index}]"
            return Refusal(message=f"Invalid value for '{param}': it names none of the 'tools'.", param=param)
        found.append(tool)
    return found


def _make_input(tool: Tool, pick: Pick) -> str | None:
    node = None if tool.pattern is None else parse_pattern(tool.pattern)
    try:
        return None if node is None else make_matching_text(node, pick, Budget())
    except SpentError:
        return None
