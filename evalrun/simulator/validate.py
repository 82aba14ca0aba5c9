"""What a request to chat completions may say, checked as OpenAI documents it (WIRE: parameters and messages).

Enters: a parsed body. Leaves: None, or the refusal that OpenAI's API would give, word for word where it is known. What
the simulator does not do yet is refused, never ignored.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

MAX_CHOICES: Final = 128
"""Largest `n`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a request is not answered; becomes an OpenAI-shaped error body."""

    message: str
    param: str | None = None
    """Path of the offending parameter; None when none can be named."""
    code: str | None = None
    """OpenAI's code; None where it gives none."""
    status: int = 400
    """HTTP status."""
    kind: str = "invalid_request_error"
    """The error's `type`."""

    def to_error(self) -> dict[str, Any]:
        """Return the JSON body."""
        error = {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}
        return {"error": error}


Check = Callable[[str, Any], Refusal | None]
"""Looks at one parameter: its path and its value, which is not null."""


def check_body(body: Mapping[str, Any]) -> Refusal | None:
    """Return why a body is refused, or None; the model's name is checked for its type only."""
    for name in ("model", "messages"):
        if body.get(name) is None:
            return Refusal(
                message=f"Missing required parameter: '{name}'.", param=name, code="missing_required_parameter"
            )
    for name, value in body.items():
        check = _PARAMETERS.get(name)
        if check is None:
            return Refusal(message=f"Unrecognized request argument supplied: {name}", code="unknown_parameter")
        if value is not None and (refusal := check(name, value)):
            return refusal
    return _check_together(body)


def _check_together(body: Mapping[str, Any]) -> Refusal | None:
    """Check parameters that need one another."""
    if body.get("top_logprobs") is not None and not body.get("logprobs"):
        message = "The 'top_logprobs' parameter is only allowed when 'logprobs' is enabled."
        return Refusal(message=message, param="top_logprobs", code="invalid_value")
    if body.get("stream_options") is not None and not body.get("stream"):
        message = "The 'stream_options' parameter is only allowed when 'stream' is enabled."
        return Refusal(message=message, param="stream_options", code="invalid_value")
    return None


def _refuse_type(path: str, expected: str, value: Any) -> Refusal:
    got = _TYPE_NAMES.get(type(value), "null")
    message = f"Invalid type for '{path}': expected {expected}, but got {got} instead."
    return Refusal(message=message, param=path, code="invalid_type")


def _refuse_value(path: str, value: Any, supported: Any) -> Refusal:
    allowed = ", ".join(f"'{item}'" for item in supported)
    message = f"Invalid value: '{str(value)[:200]}'. Supported values are: {allowed}."
    return Refusal(message=message, param=path, code="invalid_value")


def _number(low: float, high: float) -> Check:
    def check(path: str, value: Any) -> Refusal | None:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return _refuse_type(path, "a decimal", value)
        return _check_range(path, value, low, high, kind="decimal")

    return check


def _integer(low: int, high: int | None) -> Check:
    def check(path: str, value: Any) -> Refusal | None:
        if isinstance(value, bool) or not isinstance(value, int):
            return _refuse_type(path, "an integer", value)
        return _check_range(path, value, low, high, kind="integer")

    return check


def _check_range(path: str, value: float, low: float, high: float | None, *, kind: str) -> Refusal | None:
    if value < low:
        side, sign, bound = "below minimum", ">=", low
    elif high is not None and value > high:
        side, sign, bound = "above maximum", "<=", high
    else:
        return None
    return Refusal(
        message=f"Invalid '{path}': {kind} {side} value. Expected a value {sign} {bound}, but got {value} instead.",
        param=path,
        code=f"{kind}_{side.replace('minimum', 'min').replace('maximum', 'max').replace(' ', '_')}_value",
    )


def _boolean(path: str, value: Any) -> Refusal | None:
    return None if isinstance(value, bool) else _refuse_type(path, "a boolean", value)


def _text(max_chars: int | None = None) -> Check:
    def check(path: str, value: Any) -> Refusal | None:
        if not isinstance(value, str):
            return _refuse_type(path, "a string", value)
        if max_chars is not None and len(value) > max_chars:
            message = (
                f"Invalid '{path}': string too long. Expected a string with maximum length {max_chars}, "
                f"but got a string with length {len(value)} instead."
            )
            return Refusal(message=message, param=path, code="string_above_max_length")
        return None

    return check


def _one_of(*supported: str) -> Check:
    def check(path: str, value: Any) -> Refusal | None:
        if not isinstance(value, str):
            return _refuse_type(path, f"one of {', '.join(map(repr, supported))}", value)
        return None if value in supported else _refuse_value(path, value, supported)

    return check


def _object(path: str, value: Any) -> Refusal | None:
    return None if isinstance(value, dict) else _refuse_type(path, "an object", value)


def _not_yet(*harmless: Any) -> Check:
    """Refuse what this version of the simulator does not do; values that ask for nothing pass."""

    def check(path: str, value: Any) -> Refusal | None:
        return None if value in harmless else _refuse_not_yet(path)

    return check


def _refuse_not_yet(path: str) -> Refusal:
    message = f"Unsupported value: '{path}' is not in this version of the simulator yet; leave it out."
    return Refusal(message=message, param=path, code="unsupported_value")


def _not_yet_but_false(path: str, value: Any) -> Refusal | None:
    return _boolean(path, value) or (_refuse_not_yet(path) if value else None)


def _check_stop(path: str, value: Any) -> Refusal | None:
    if isinstance(value, str):
        return None
    if not isinstance(value, list):
        return _refuse_type(path, "a string or an array of strings", value)
    if not 1 <= len(value) <= 4:
        message = f"Invalid '{path}': expected an array of 1 to 4 strings, but got {len(value)} items."
        return Refusal(message=message, param=path, code="empty_array" if not value else "array_above_max_length")
    return next((_refuse_type(f"{path}[{i}]", "a string", v) for i, v in enumerate(value) if type(v) is not str), None)


def _check_logit_bias(path: str, value: Any) -> Refusal | None:
    if not isinstance(value, dict):
        return _refuse_type(path, "an object", value)
    check = _number(-100, 100)
    for token, bias in value.items():
        if not token.isdecimal():
            return Refusal(message=f"Invalid key in '{path}': {token[:40]}.", param=path, code="invalid_value")
        if refusal := check(f"{path}.{token}", bias):
            return refusal
    return None


def _check_metadata(path: str, value: Any) -> Refusal | None:
    if not isinstance(value, dict):
        return _refuse_type(path, "an object", value)
    if len(value) > 16:
        message = f"Invalid '{path}': expected at most 16 pairs, but got {len(value)}."
        return Refusal(message=message, param=path, code="object_above_max_properties")
    check_key, check_value = _text(64), _text(512)
    pairs = value.items()
    return next((r for k, v in pairs if (r := check_key(path, k) or check_value(f"{path}.{k[:64]}", v))), None)


def _check_response_format(path: str, value: Any) -> Refusal | None:
    if not isinstance(value, dict):
        return _refuse_type(path, "an object", value)
    refusal = _one_of("text", "json_object", "json_schema")(f"{path}.type", value.get("type"))
    return refusal or _not_yet("text")(f"{path}.type", value["type"])


def _check_prediction(path: str, value: Any) -> Refusal | None:
    if not isinstance(value, dict):
        return _refuse_type(path, "an object", value)
    if refusal := _one_of("content")(f"{path}.type", value.get("type")):
        return refusal
    return _check_content(f"{path}.content", value.get("content"))


def _check_messages(path: str, value: Any) -> Refusal | None:
    if not isinstance(value, list):
        return _refuse_type(path, "an array of objects", value)
    if not value:
        message = f"Invalid '{path}': empty array. Expected an array with minimum length 1, but got an empty array."
        return Refusal(message=message, param=path, code="empty_array")
    for i, message in enumerate(value):
        if refusal := _check_message(f"{path}[{i}]", message):
            return refusal
    return None


def _check_message(path: str, message: Any) -> Refusal | None:
    if not isinstance(message, dict):
        return _refuse_type(path, "an object", message)
    role, content = message.get("role"), message.get("content")
    if role is None:
        missing = f"{path}.role"
        return Refusal(
            message=f"Missing required parameter: '{missing}'.", param=missing, code="missing_required_parameter"
        )
    if not isinstance(role, str):
        return _refuse_type(f"{path}.role", "a string", role)
    if role not in _ROLES:
        return _refuse_value(f"{path}.role", role, _ROLES)
    if (name := message.get("name")) is not None and not isinstance(name, str):
        return _refuse_type(f"{path}.name", "a string", name)
    if role in ("assistant", "tool", "function") and (refusal := _check_tool_fields(path, role, message)):
        return refusal
    return None if content is None and role in ("assistant", "function") else _check_content(f"{path}.content", content)


def _check_tool_fields(path: str, role: str, message: Mapping[str, Any]) -> Refusal | None:
    """Check what only messages about tools carry."""
    if role == "tool" and not isinstance(message.get("tool_call_id"), str):
        return _refuse_type(f"{path}.tool_call_id", "a string", message.get("tool_call_id"))
    calls = message.get("tool_calls")
    if calls is not None and not isinstance(calls, list):
        return _refuse_type(f"{path}.tool_calls", "an array of objects", calls)
    speaks = message.get("content") is not None or message.get("refusal") is not None
    if role == "assistant" and not (speaks or calls or message.get("function_call") or message.get("audio")):
        return _refuse_type(f"{path}.content", "a string or an array of objects", None)
    return None


def _check_content(path: str, content: Any) -> Refusal | None:
    if isinstance(content, str):
        return None
    if not isinstance(content, list):
        return _refuse_type(path, "a string or an array of objects", content)
    if not content:
        message = f"Invalid '{path}': empty array. Expected an array with minimum length 1, but got an empty array."
        return Refusal(message=message, param=path, code="empty_array")
    for i, part in enumerate(content):
        if refusal := _check_part(f"{path}[{i}]", part):
            return refusal
    return None


def _check_part(path: str, part: Any) -> Refusal | None:
    if not isinstance(part, dict):
        return _refuse_type(path, "an object", part)
    kind = part.get("type")
    if not isinstance(kind, str) or kind not in _PARTS:
        return _refuse_value(f"{path}.type", kind, _PARTS)
    value = part.get(kind)
    if kind in ("text", "refusal"):
        return None if isinstance(value, str) else _refuse_type(f"{path}.{kind}", "a string", value)
    if not isinstance(value, dict):
        return _refuse_type(f"{path}.{kind}", "an object", value)
    for key in _PARTS[kind]:
        if not isinstance(value.get(key), str):
            return _refuse_type(f"{path}.{kind}.{key}", "a string", value.get(key))
    return None


_TYPE_NAMES: Final[Mapping[type, str]] = {
    str: "a string",
    bool: "a boolean",
    int: "an integer",
    float: "a decimal number",
    list: "an array",
    dict: "an object",
}
_ROLES: Final = ("developer", "system", "user", "assistant", "tool", "function")
_PARTS: Final[Mapping[str, tuple[str, ...]]] = {
    "text": (),
    "refusal": (),
    "image_url": ("url",),
    "input_audio": ("data", "format"),
    "file": (),
}
_PARAMETERS: Final[Mapping[str, Check]] = {
    "model": _text(),
    "messages": _check_messages,
    "temperature": _number(0, 2),
    "top_p": _number(0, 1),
    "frequency_penalty": _number(-2, 2),
    "presence_penalty": _number(-2, 2),
    "max_tokens": _integer(1, None),
    "max_completion_tokens": _integer(1, None),
    "n": _integer(1, MAX_CHOICES),
    "seed": _integer(-(2**63), 2**63 - 1),
    "stop": _check_stop,
    "logit_bias": _check_logit_bias,
    "top_logprobs": _integer(0, 20),
    "parallel_tool_calls": _boolean,
    "store": _boolean,
    "user": _text(),
    "safety_identifier": _text(128),
    "prompt_cache_key": _text(),
    "prompt_cache_options": _object,
    "prompt_cache_retention": _one_of("in_memory", "24h"),
    "reasoning_effort": _one_of("none", "minimal", "low", "medium", "high", "xhigh", "max"),
    "verbosity": _one_of("low", "medium", "high"),
    "service_tier": _one_of("auto", "default", "flex", "scale", "priority", "fast"),
    "metadata": _check_metadata,
    "prediction": _check_prediction,
    "modalities": _not_yet(["text"]),
    "response_format": _check_response_format,
    "stream": _not_yet_but_false,
    "stream_options": _object,
    "logprobs": _not_yet_but_false,
    "tools": _not_yet(),
    "tool_choice": _not_yet("none"),
    "functions": _not_yet(),
    "function_call": _not_yet("none"),
    "audio": _not_yet(),
    "moderation": _not_yet(),
    "web_search_options": _not_yet(),
}
