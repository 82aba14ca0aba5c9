"""How the tests of quirks ask for bent replies, and read what came, by rules of their own."""

import json
import re
from datetime import UTC, datetime
from typing import Any

from evalrun.options import ProfileOptions
from evalrun.quirk_names import QUIRK_NAMES, fits
from evalrun.simulator.quirks.apply import QUIRK_HEADER, bend, choose_quirks
from evalrun.simulator.quirks.quirk import Quirk
from evalrun.simulator.replies import Hint, make_chat_request, make_draft
from evalrun.simulator.script import Draft, Script
from tests.simulator.asking import make_body

ANSWER = "The capital of Thailand is กรุงเทพมหานคร, or Bangkok."
NOW = datetime(2026, 11, 22, 8, 30, 0, 250_000, tzinfo=UTC)
PROFILE = ProfileOptions(accuracy=1, latency_ms=0)

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "find_city",
            "parameters": {
                "type": "object",
                "properties": {"country": {"type": "string", "enum": ["Thailand"]}},
                "required": ["country"],
            },
        },
    }
]
"""One tool, with one way to call it."""
SHAPES: dict[str, dict[str, Any]] = {
    "Q32": {"tools": TOOLS},
    "Q33": {"n": 3},
    "Q36": {"logprobs": True, "top_logprobs": 2},
    "Q41": {"max_tokens": 5},
    "Q57": {"max_tokens": 5},
}
"""What a request must say for a quirk to make sense for it."""

LABELS = [
    (f"{quirk_id}:{variant}", quirk.mode if mode == "both" else mode) if variant else (quirk_id, quirk.mode)
    for quirk_id, quirk in QUIRK_NAMES.items()
    for variant, mode in (quirk.variants or {"": quirk.mode}).items()
]
"""Every quirk in every variant, with the replies that it makes sense for."""

SMALL = {"Q55:body": "Q55:body:200000", "Q55:line": "Q55:line:200000", "Q50:bomb": "Q50:bomb:2"}
"""What takes long otherwise."""

REPLIES = [
    (label, is_stream) for label, mode in LABELS for is_stream in (False, True) if fits(mode, is_stream=is_stream)
]
"""Every quirk in every variant, streamed and not, where it makes sense."""


def make_draft_for(*, is_stream: bool = False, profile: ProfileOptions = PROFILE, **params: Any) -> Draft:
    """Return the good reply to a request; a streamed one tells its usage."""
    return make_draft(_ask(is_stream=is_stream, **params), profile)


def pick(quirks: str, *, is_stream: bool = False, attempt: int = 0, **params: Any) -> tuple[Quirk, ...]:
    """Return the quirks that a header asks for."""
    chosen = choose_quirks(_ask(is_stream=is_stream, **params), PROFILE, quirks, attempt)
    assert isinstance(chosen, tuple)
    return chosen


def bend_reply(quirks: str, *, is_stream: bool = False, profile: ProfileOptions = PROFILE, **params: Any) -> Script:
    """Return the script of a good reply that quirks have bent."""
    params = {**SHAPES.get(quirks[:3], {}), **params}
    draft = make_draft_for(is_stream=is_stream, profile=profile, **params)
    return bend(draft, pick(quirks, is_stream=is_stream, **params), now=NOW)


def read_applied(script: Script) -> str | None:
    """Return the header that names the quirks; None when there is none."""
    return dict(script.headers).get(QUIRK_HEADER.lower())


def read_json(script: Script) -> Any:
    """Return the body of a reply that is not streamed."""
    return json.loads(script.body)


def read_events(data: bytes) -> list[str]:
    """Return the data of each event that a stream dispatches, by the WHATWG grammar."""
    text = data.decode("utf-8", "replace").removeprefix("\ufeff")
    events: list[str] = []
    lines: list[str] = []
    for line in re.split("\r\n|\r|\n", text)[:-1]:
        field, _, value = line.partition(":")
        if not line and lines:
            events.append("\n".join(lines))
        if not line:
            lines = []
        elif field == "data":
            lines.append(value.removeprefix(" "))
    return events


def read_chunks(script: Script) -> list[dict[str, Any]]:
    """Return the chunks of a streamed reply, those after `[DONE]` too."""
    return [json.loads(event) for event in read_events(script.body) if event != "[DONE]"]


def join_text(chunks: list[dict[str, Any]], *, index: int = 0, key: str = "content") -> str:
    """Return the text of one choice of a stream."""
    deltas = [
        choice["delta"]
        for chunk in chunks
        for choice in chunk.get("choices") or ()
        if choice["index"] == index and choice["delta"]
    ]
    return "".join(delta.get(key) or "" for delta in deltas)


def find_reasons(chunks: list[dict[str, Any]]) -> list[str]:
    """Return the finish reasons of a stream."""
    choices = [choice for chunk in chunks for choice in chunk.get("choices") or ()]
    return [choice["finish_reason"] for choice in choices if choice.get("finish_reason") is not None]


def _ask(*, is_stream: bool, **params: Any) -> Any:
    streamed = {"stream": True, "stream_options": {"include_usage": True}} if is_stream else {}
    return make_chat_request(make_body("Capital of Thailand?", **{**streamed, **params}), Hint(answer=ANSWER), 1)
