"""Every documented parameter and message of chat completions, as one table of shapes.

Parameters enter; what differs from OpenAI's documentation leaves as faults. Nothing is changed, and a parameter that
is not in the table is no fault: it is the server's business. The job room warns and refuses by this table before a
run, the simulator answers requests by it, `docs/parameters.md` is made from it.

Source: OpenAI's OpenAPI document 2.3.0 and the types of openai-python 3.54.0 made from it (read 2026-11-22).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from evalrun.chat_shapes import (
    Boolean,
    Choice,
    Either,
    Integer,
    List,
    Map,
    Null,
    Number,
    ParamFault,
    Record,
    Shape,
    Tagged,
    Text,
)


@dataclass(frozen=True, slots=True)
class Param:
    """One documented parameter."""

    shape: Shape
    deprecated: str | None = None
    """What to write instead; None while OpenAI does not call it deprecated."""


MAX_CHOICES: Final = 128
"""Largest `n`."""

_NAME: Final = Text(64, "[a-zA-Z0-9_-]+")
_OBJECT: Final = Record()
_BREAKPOINT: Final = {"prompt_cache_breakpoint": Record({"mode": Choice("explicit")})}

_TEXT_PART: Final = Record({"text": Text()}, _BREAKPOINT)
_REFUSAL_PART: Final = Record({"refusal": Text()})
_IMAGE: Final = Record({"url": Text()}, {"detail": Choice("auto", "low", "high", "original")})
_AUDIO: Final = Record({"data": Text(), "format": Choice("wav", "mp3")})
_FILE: Final = Record({}, {"filename": Text(), "file_data": Text(), "file_id": Text()})
_TEXT_CONTENT: Final = Either(Text(), List(Tagged("type", {"text": _TEXT_PART}), 1))
_USER_CONTENT: Final = Either(
    Text(),
    List(
        Tagged(
            "type",
            {
                "text": _TEXT_PART,
                "image_url": Record({"image_url": _IMAGE}, _BREAKPOINT),
                "input_audio": Record({"input_audio": _AUDIO}, _BREAKPOINT),
                "file": Record({"file": _FILE}, _BREAKPOINT),
            },
        ),
        1,
    ),
)
_ASSISTANT_CONTENT: Final = Either(Text(), List(Tagged("type", {"text": _TEXT_PART, "refusal": _REFUSAL_PART}), 1))
_FUNCTION_CALL: Final = Record({"name": Text(), "arguments": Text()})
_TOOL_CALL: Final = Tagged(
    "type",
    {
        "function": Record({"id": Text(), "function": _FUNCTION_CALL}),
        "custom": Record({"id": Text(), "custom": Record({"name": Text(), "input": Text()})}),
    },
)
MESSAGE: Final = Tagged(
    "role",
    {
        "developer": Record({"content": _TEXT_CONTENT}, {"name": Text()}),
        "system": Record({"content": _TEXT_CONTENT}, {"name": Text()}),
        "user": Record({"content": _USER_CONTENT}, {"name": Text()}),
        "assistant": Record(
            {},
            {
                "content": _ASSISTANT_CONTENT,
                "refusal": Text(),
                "name": Text(),
                "tool_calls": List(_TOOL_CALL, 1),
                "function_call": _FUNCTION_CALL,
                "audio": Record({"id": Text()}),
            },
            needs_one_of=("content", "refusal", "tool_calls", "function_call", "audio"),
        ),
        "tool": Record({"tool_call_id": Text(), "content": _TEXT_CONTENT}),
        "function": Record({"name": Text(), "content": Either(Text(), Null())}),
    },
)
"""One chat message; roles and parts may carry further keys."""

_FUNCTION: Final = Record({"name": _NAME}, {"description": Text(), "parameters": _OBJECT, "strict": Boolean()})
_GRAMMAR: Final = Record({"definition": Text(), "syntax": Choice("lark", "regex")})
_CUSTOM_FORMAT: Final = Tagged("type", {"text": _OBJECT, "grammar": Record({"grammar": _GRAMMAR})})
_CUSTOM: Final = Record({"name": Text()}, {"description": Text(), "format": _CUSTOM_FORMAT})
_TOOL: Final = Tagged("type", {"function": Record({"function": _FUNCTION}), "custom": Record({"custom": _CUSTOM})})
_NAMED: Final = Record({"name": Text()})
_ALLOWED_TOOLS: Final = Record({"mode": Choice("auto", "required"), "tools": List(_OBJECT)})
_TOOL_CHOICE: Final = Either(
    Choice("none", "auto", "required"),
    Tagged(
        "type",
        {
            "function": Record({"function": _NAMED}),
            "custom": Record({"custom": _NAMED}),
            "allowed_tools": Record({"allowed_tools": _ALLOWED_TOOLS}),
        },
    ),
)
_JSON_SCHEMA: Final = Record({"name": _NAME}, {"description": Text(), "schema": _OBJECT, "strict": Boolean()})
_RESPONSE_FORMAT: Final = Tagged(
    "type", {"text": _OBJECT, "json_object": _OBJECT, "json_schema": Record({"json_schema": _JSON_SCHEMA})}
)
_MODERATED: Final = Record({"mode": Choice("score", "block")})
_PLACE: Final = Record({}, {"city": Text(), "country": Text(), "region": Text(), "timezone": Text()})
_WEB_SEARCH: Final = Record(
    {},
    {
        "search_context_size": Choice("low", "medium", "high"),
        "user_location": Record({"type": Choice("approximate"), "approximate": _PLACE}),
    },
)
_AUDIO_OUTPUT: Final = Record(
    {
        "voice": Either(Text(), Record({"id": Text()})),
        "format": Choice("wav", "aac", "mp3", "flac", "opus", "pcm16"),
    }
)

CHAT_PARAMS: Final[Mapping[str, Param]] = {
    "model": Param(Text()),
    "messages": Param(List(MESSAGE, 1)),
    "stream": Param(Boolean()),
    "stream_options": Param(Record({}, {"include_usage": Boolean(), "include_obfuscation": Boolean()})),
    "max_completion_tokens": Param(Integer(1)),
    "max_tokens": Param(Integer(1), deprecated="max_completion_tokens"),
    "temperature": Param(Number(0, 2)),
    "top_p": Param(Number(0, 1)),
    "n": Param(Integer(1, MAX_CHOICES)),
    "stop": Param(Either(Text(), List(Text(), 1, 4))),
    "seed": Param(Integer(-(2**63), 2**63 - 1), deprecated="nothing takes its place"),
    "frequency_penalty": Param(Number(-2, 2)),
    "presence_penalty": Param(Number(-2, 2)),
    "logit_bias": Param(Map(Number(-100, 100), key=Text(pattern="[0-9]+"))),
    "logprobs": Param(Boolean()),
    "top_logprobs": Param(Integer(0, 20)),
    "response_format": Param(_RESPONSE_FORMAT),
    "tools": Param(List(_TOOL, 1)),
    "tool_choice": Param(_TOOL_CHOICE),
    "parallel_tool_calls": Param(Boolean()),
    "functions": Param(List(_FUNCTION, 1, 128), deprecated="tools"),
    "function_call": Param(Either(Choice("none", "auto"), _NAMED), deprecated="tool_choice"),
    "reasoning_effort": Param(Choice("none", "minimal", "low", "medium", "high", "xhigh", "max")),
    "verbosity": Param(Choice("low", "medium", "high")),
    "service_tier": Param(Choice("auto", "default", "flex", "scale", "priority", "fast")),
    "metadata": Param(Map(Text(512), key=Text(64), max_pairs=16)),
    "store": Param(Boolean()),
    "user": Param(Text(), deprecated="safety_identifier and prompt_cache_key"),
    "safety_identifier": Param(Text(128)),
    "prompt_cache_key": Param(Text()),
    "prompt_cache_options": Param(Record({}, {"mode": Choice("implicit", "explicit"), "ttl": Choice("30m")})),
    "prompt_cache_retention": Param(Choice("in_memory", "24h"), deprecated="prompt_cache_options"),
    "prediction": Param(Tagged("type", {"content": Record({"content": _TEXT_CONTENT})})),
    "modalities": Param(List(Choice("text", "audio"), 1)),
    "audio": Param(_AUDIO_OUTPUT),
    "moderation": Param(Record({"model": Text()}, {"policy": Record({}, {"input": _MODERATED, "output": _MODERATED})})),
    "web_search_options": Param(_WEB_SEARCH),
}
"""Name → shape. A null value is taken as not given."""


def check_params(params: Mapping[str, Any]) -> list[ParamFault]:
    """Return every way in which known parameters differ from their documentation; [] when none does.

    Nulls and parameters that are not in the table are no faults.
    """
    return [
        fault.under(name)
        for name, value in params.items()
        if value is not None and (param := CHAT_PARAMS.get(name)) is not None
        for fault in param.shape.check(value)
    ]


@lru_cache(maxsize=1024)
def find_misspelled(name: str) -> str | None:
    """Return the documented parameter of which a name is a close misspelling; None when it is none.

    Names that other servers document are never taken for misspellings, however near they are.
    """
    if name in CHAT_PARAMS or name in _SPOKEN_ELSEWHERE:
        return None
    bare = _strip(name)
    near = [(_count_edits(bare, _strip(known)), known) for known in CHAT_PARAMS]
    edits, known = min(near)
    return known if edits <= (1 if len(bare) < 6 else 2) and edits < len(bare) / 2 else None


def _strip(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _count_edits(left: str, right: str) -> int:
    """Return how many letters must be put in, taken out, changed or swapped with the next to make left into right."""
    before: list[int] = []
    row = list(range(len(right) + 1))
    for i, letter in enumerate(left, 1):
        older, before = before, row
        row = [i]
        for j, other in enumerate(right, 1):
            cost = min(before[j] + 1, row[-1] + 1, before[j - 1] + (letter != other))
            if i > 1 and j > 1 and letter == right[j - 2] and left[i - 2] == other:
                cost = min(cost, older[j - 2] + 1)
            row.append(cost)
    return row[-1]


_SPOKEN_ELSEWHERE: Final = frozenset({"min_tokens", "models", "top_a", "top_k", "user_id"})
"""Parameters of other servers whose names are near a documented one; there they mean something of their own."""
