"""Token counts of the simulator: a simple rule that can be cut at, replayed and explained.

A token is one of: up to 8 ASCII letters or up to 3 ASCII digits (a single space before them belongs to them), up to 2
characters beyond ASCII, up to 8 white-space characters, up to 2 other ASCII characters. Tokens joined give the text
back. A message costs 3 tokens, its role, name and text; the prompt ends with 3 tokens that open the reply; each image
costs 85, each sound or file 100. Real tokenizers differ by some 15 %; what matters here is that counts are exact, so
that a bill can be checked against the ledger.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

TOKENS_PER_MESSAGE = 3
TOKENS_OPENING_THE_REPLY = 3
TOKENS_PER_PART: Mapping[str, int] = {"image_url": 85, "input_audio": 100, "file": 100}
"""Flat cost of the content parts that are not text."""

_SLICE_CHARS = 64 * 1024
"""Of a long text that are looked at in one go, some 4 ms: in a thread, others run in between."""

_TOKEN = re.compile(
    r" ?[A-Za-z]{1,8}| ?[0-9]{1,3}|[^\x00-\x7f]{1,2}|\s{1,8}|[^\sA-Za-z0-9\x80-\U0010ffff]{1,2}",
)


def split_tokens(text: str) -> list[str]:
    """Return the tokens of a text; joined, they are the text. [] for ""."""
    return _TOKEN.findall(text)


def count_tokens(text: str) -> int:
    """Return the number of tokens of a text; 0 for ""."""
    if len(text) <= _SLICE_CHARS:
        return len(_TOKEN.findall(text))
    n_tokens = start = 0
    while start < len(text):
        end = start + _SLICE_CHARS
        found = _TOKEN.findall(text, start, end)
        n_tokens += len(found)
        if end < len(text):
            # The slice may have cut the last token: the next slice begins with it.
            n_tokens -= 1
            end -= len(found[-1])
        start = end
    return n_tokens


def count_prompt_tokens(messages: Sequence[Mapping[str, Any]]) -> int:
    """Return the prompt tokens of valid chat messages."""
    n_tokens = TOKENS_OPENING_THE_REPLY
    for message in messages:
        n_tokens += TOKENS_PER_MESSAGE + count_tokens(message["role"])
        content = message.get("content")
        if isinstance(content, str):
            n_tokens += count_tokens(content)
        elif content is not None:
            n_tokens += sum(_count_part_tokens(part) for part in content)
        if name := message.get("name"):
            n_tokens += count_tokens(name)
        for call in message.get("tool_calls") or ():
            n_tokens += count_tokens(str(call))
    return n_tokens


def count_audio_tokens(messages: Sequence[Mapping[str, Any]]) -> int:
    """Return the prompt tokens of valid chat messages that are of sounds."""
    contents = [content for message in messages if isinstance(content := message.get("content"), list)]
    kinds: list[str] = [part["type"] for content in contents for part in content]
    return kinds.count("input_audio") * TOKENS_PER_PART["input_audio"]


def find_output_limit(body: Mapping[str, Any]) -> int | None:
    """Return the most tokens that one choice of a reply to a valid body may have; None when the body sets no limit."""
    old: int | None = body.get("max_tokens")
    new: int | None = body.get("max_completion_tokens")
    # The seed gateway's own example sends both limits; the lower one holds.
    return old if new is None else new if old is None else min(old, new)


def _count_part_tokens(part: Mapping[str, Any]) -> int:
    kind = part["type"]
    return TOKENS_PER_PART[kind] if kind in TOKENS_PER_PART else count_tokens(part[kind])
