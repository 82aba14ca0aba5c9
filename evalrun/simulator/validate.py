"""What a request to chat completions may say, held against the table of `chat_params`, in OpenAI's words.

Enters: a parsed body and the dialect of the base path it came by. Leaves: None, or the refusal that OpenAI's API would
give, word for word where it is known. A body is read no further than its first fault.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Literal

from evalrun.chat_params import CHAT_PARAMS
from evalrun.chat_shapes import FaultKind, FaultPath, ParamFault
from evalrun.simulator.refusal import Refusal

Dialect = Literal["openai", "gateway"]
"""Whose documentation a body is held against: OpenAI's (`/v1`), or the seed gateway's (`/chat`)."""


def drop_not_given(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return a gateway's body without what its documentation shows but means nothing: empty objects and the like.

    The gateway's own example sends `stop: {}`, `tools: [{}]`, `tool_choice: {}`, `response_format: {}`,
    `logit_bias: {}` and `top_logprobs` without `logprobs: true`; all of them ask for nothing.
    """
    given = {name: value for name, value in body.items() if name not in _MAY_BE_EMPTY or value not in _EMPTY}
    if not given.get("logprobs"):
        given.pop("top_logprobs", None)
    return given


def check_body(body: Mapping[str, Any], dialect: Dialect = "openai") -> Refusal | None:
    """Return why a body is refused, or None; the model's name is checked for its type only.

    Args:
        body: The parsed body.
        dialect: `gateway` takes what its documentation shows; read such a body through `drop_not_given` afterwards.
    """
    if dialect == "gateway":
        body = drop_not_given(body)
    for name in ("model", "messages"):
        if body.get(name) is None:
            return _refuse_missing((name,))
    for name, value in body.items():
        param = CHAT_PARAMS.get(name)
        if param is None:
            return Refusal(message=f"Unrecognized request argument supplied: {name}", code="unknown_parameter")
        if value is not None and (faults := param.shape.check(value)):
            return _refuse(faults[0].under(name))
    if not _RELATED.isdisjoint(body) and (refusal := next(_check_together(body, dialect), None)):
        return refusal
    return _check_tool_replies(body["messages"]) if dialect == "openai" else None


def _check_together(body: Mapping[str, Any], dialect: Dialect) -> Iterator[Refusal]:
    """Check parameters that need or exclude one another."""
    yield from _check_companions(body)
    yield from _check_tools(body)
    if dialect == "openai":
        yield from _check_openai(body)


def _check_companions(body: Mapping[str, Any]) -> Iterator[Refusal]:
    for name, companion in (("top_logprobs", "logprobs"), ("stream_options", "stream")):
        if body.get(name) is not None and not body.get(companion):
            message = f"The '{name}' parameter is only allowed when '{companion}' is enabled."
            yield Refusal(message=message, param=name, code="invalid_value")
    if "audio" in (body.get("modalities") or ()) and body.get("audio") is None:
        yield _refuse_missing(("audio",))


def _check_tools(body: Mapping[str, Any]) -> Iterator[Refusal]:
    """Check that the tool to call is one of the tools given."""
    choice = body.get("tool_choice")
    if isinstance(choice, dict) and (kind := choice["type"]) in ("function", "custom"):
        tools = body.get("tools") or ()
        if not any(tool["type"] == kind and tool[kind]["name"] == choice[kind]["name"] for tool in tools):
            message = f"Tool choice '{choice[kind]['name'][:64]}' not found in 'tools' parameter."
            yield Refusal(message=message, param="tool_choice")
    call = body.get("function_call")
    if isinstance(call, dict) and not any(one["name"] == call["name"] for one in body.get("functions") or ()):
        name = call["name"][:64]
        message = f"Invalid value for 'function_call': no function named '{name}' was specified in 'functions'."
        yield Refusal(message=message, param="function_call")


def _check_openai(body: Mapping[str, Any]) -> Iterator[Refusal]:
    """Check what OpenAI refuses and the gateway's documentation shows as allowed."""
    if body.get("max_tokens") is not None and body.get("max_completion_tokens") is not None:
        # Its words: https://github.com/langchain-ai/langgraph/issues/5943
        message = "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported."
        yield Refusal(message=message, param="max_tokens", code="invalid_parameter_combination")
    for name in ("tool_choice", "parallel_tool_calls"):
        # Its words: https://github.com/dapr/dapr-agents/issues/248
        if body.get(name) not in (None, "none") and not body.get("tools"):
            message = f"Invalid value for '{name}': '{name}' is only allowed when 'tools' are specified."
            yield Refusal(message=message, param=name)


def _check_tool_replies(messages: Sequence[Mapping[str, Any]]) -> Refusal | None:
    """Check that each tool call is answered by the messages right after it, and nothing else is.

    Source: https://github.com/sdcb/chats/pull/132 (OpenAI's words for both; read 2026-11-22).
    """
    waiting: list[str] = []
    for i, message in enumerate(messages):
        here = f"messages.[{i}].role"
        if message["role"] == "tool":
            if message["tool_call_id"] not in waiting:
                words = "messages with role 'tool' must be a response to a preceeding message with 'tool_calls'."
                return Refusal(message=f"Invalid parameter: {words}", param=here)
            waiting.remove(message["tool_call_id"])
        elif waiting:
            return _refuse_unanswered(waiting, here)
        else:
            waiting = [call["id"] for call in message.get("tool_calls") or ()]
    return _refuse_unanswered(waiting, f"messages.[{len(messages) - 1}].role") if waiting else None


def _refuse_unanswered(call_ids: Sequence[str], param: str) -> Refusal:
    message = (
        "An assistant message with 'tool_calls' must be followed by tool messages responding to each 'tool_call_id'. "
        f"The following tool_call_ids did not have response messages: {', '.join(call_ids)[:400]}"
    )
    return Refusal(message=message, param=param)


def _refuse(fault: ParamFault) -> Refusal:
    """Return a fault in OpenAI's words."""
    path, kind = _name_path(fault.path), fault.kind
    if kind is FaultKind.MISSING:
        return _refuse_missing(fault.path)
    if kind is FaultKind.TYPE:
        expected, got = fault.expected.replace("a number", "a decimal"), _TYPE_NAMES.get(type(fault.got), "null")
        message = f"Invalid type for '{path}': expected {expected}, but got {got} instead."
        return Refusal(message=message, param=path, code="invalid_type")
    if kind is FaultKind.CHOICE:
        message = f"Invalid value: '{str(fault.got)[:200]}'. Supported values are: {_join_words(fault.choices)}."
        return Refusal(message=message, param=path, code="invalid_value")
    if kind in (FaultKind.BELOW, FaultKind.ABOVE):
        return _refuse_range(fault, path)
    if kind is FaultKind.PATTERN:
        message = f"string does not match pattern. Expected a string that matches the pattern '{fault.expected}'."
        return Refusal(message=f"Invalid '{path}': {message}", param=path, code="invalid_value")
    if kind is FaultKind.KEY and fault.bound is None:
        return Refusal(message=f"Invalid key in '{path}': {fault.got[:40]}.", param=path, code="invalid_value")
    return _refuse_length(fault, path)


def _refuse_missing(path: FaultPath) -> Refusal:
    name = _name_path(path)
    return Refusal(message=f"Missing required parameter: '{name}'.", param=name, code="missing_required_parameter")


def _refuse_range(fault: ParamFault, path: str) -> Refusal:
    side, sign = ("minimum", ">=") if fault.kind is FaultKind.BELOW else ("maximum", "<=")
    where = fault.kind.value
    kind = "integer" if fault.unit == "integer" else "decimal"
    text = f"{kind} {where} {side} value. Expected a value {sign} {fault.bound}, but got {fault.got} instead."
    return Refusal(message=f"Invalid '{path}': {text}", param=path, code=f"{kind}_{where}_{side[:3]}_value")


def _refuse_length(fault: ParamFault, path: str) -> Refusal:
    """Return a fault of size: an array, an object or a string with too little or too much in it."""
    size, bound = len(fault.got), fault.bound
    if fault.kind is FaultKind.TOO_FEW:
        text = f"empty array. Expected an array with minimum length {bound}, but got an empty array instead."
        code = "empty_array"
    elif fault.unit == "items":
        text = f"array too long. Expected an array with maximum length {bound}, but got an array with length {size} "
        text, code = text + "instead.", "array_above_max_length"
    elif fault.unit == "pairs":
        text = f"too many properties. Expected an object with at most {bound} properties, but got {size} instead."
        code = "object_above_max_properties"
    else:
        text = f"string too long. Expected a string with maximum length {bound}, but got a string with length {size} "
        text, code = text + "instead.", "string_above_max_length"
    return Refusal(message=f"Invalid '{path}': {text}", param=path, code=code)


def _name_path(path: FaultPath) -> str:
    """Return a path as OpenAI writes it: `messages[0].content`."""
    text = ""
    for key in path:
        text += f"[{key}]" if isinstance(key, int) else f".{key[:64]}" if text else key
    return text


def _join_words(words: tuple[str, ...]) -> str:
    """Return words as OpenAI lists them: `'a', 'b', and 'c'`."""
    quoted = [f"'{word}'" for word in words]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])}, and {quoted[-1]}"


_RELATED: Final = frozenset(
    {
        "audio",
        "function_call",
        "max_completion_tokens",
        "modalities",
        "parallel_tool_calls",
        "stream_options",
        "tool_choice",
        "top_logprobs",
    }
)
"""Parameters that need or exclude others; without one of them there is nothing to check together."""
_MAY_BE_EMPTY: Final = frozenset({"stop", "tools", "tool_choice", "response_format", "logit_bias"})
_EMPTY: Final[tuple[Any, ...]] = ({}, [], [{}])
_TYPE_NAMES: Final[Mapping[type, str]] = {
    str: "a string",
    bool: "a boolean",
    int: "an integer",
    float: "a decimal number",
    list: "an array",
    dict: "an object",
}
