"""A stream's chunks put together again, by a client that knows nothing of how they were cut."""

from collections.abc import Iterable, Mapping
from typing import Any


def put_together(chunks: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the chat completion that chunks in OpenAI's form add up to."""
    whole: dict[str, Any] = {"choices": []}
    choices: dict[int, dict[str, Any]] = {}
    for chunk in chunks:
        whole |= {name: chunk[name] for name in chunk if name not in ("choices", "usage", "obfuscation")}
        if chunk.get("usage") is not None:
            whole["usage"] = chunk["usage"]
        for told in chunk["choices"]:
            blank = {"index": told["index"], "message": {}, "logprobs": None, "finish_reason": None}
            choice = choices.setdefault(told["index"], blank)
            _add_delta(choice["message"], told["delta"])
            if told["logprobs"] is not None:
                _add_logprobs(choice, told["logprobs"])
            choice["finish_reason"] = choice["finish_reason"] or told["finish_reason"]
    for choice in choices.values():
        choice["message"].setdefault("annotations", [])
    whole |= {"object": "chat.completion", "choices": [choices[index] for index in sorted(choices)]}
    return whole


def _add_delta(message: dict[str, Any], delta: Mapping[str, Any]) -> None:
    """Add strings to strings, objects to objects, and the calls of a list to those of the same index."""
    for name, value in delta.items():
        known = message.get(name)
        if name == "tool_calls":
            calls = message.setdefault(name, [])
            for told in value:
                if told["index"] == len(calls):
                    calls.append({})
                _add_delta(calls[told["index"]], {key: item for key, item in told.items() if key != "index"})
        elif known is None:
            message[name] = dict(value) if isinstance(value, dict) else value
        elif isinstance(value, dict):
            _add_delta(known, value)
        elif value is not None:
            message[name] = known + value


def _add_logprobs(choice: dict[str, Any], told: Mapping[str, Any]) -> None:
    known = choice["logprobs"] or {"content": None, "refusal": None}
    choice["logprobs"] = {name: (known[name] or []) + (told[name] or []) or None for name in known}
