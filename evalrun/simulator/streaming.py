"""A chat completion as the chunks of a stream, in OpenAI's order: role, deltas, finish reason, usage.

Enters: the whole `chat.completion` object. Leaves: `chat.completion.chunk` objects, one for each token. Invariant: put
together again, the chunks are the completion. The deltas of several choices interleave.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, zip_longest
from typing import Any, Final

from evalrun.simulator.tokens import split_tokens

_AUDIO_FRAGMENT_CHARS: Final = 400
"""A multiple of 4: each fragment of the base64 text is base64 by itself too."""
_OBFUSCATION: Final = "aZ3kQ9xWm2Tf7LpB"
_OBFUSCATED_CHARS: Final = 16

Delta = dict[str, Any]


def make_chunks(
    completion: Mapping[str, Any],
    *,
    include_usage: bool = False,
    has_obfuscation: bool = False,
    is_continuous: bool = False,
) -> list[dict[str, Any]]:
    """Return the chunks of a stream.

    Args:
        completion: The whole reply.
        include_usage: Whether a chunk with no choices tells the usage at the end; the others then carry a null.
        has_obfuscation: Whether chunks are padded, so that their sizes tell less about their text.
        is_continuous: Whether each chunk tells the usage so far, asked or not, in place of that chunk.
    """
    head = {"id": completion["id"], "object": "chat.completion.chunk"}
    head |= {name: completion[name] for name in _HEAD if name in completion}
    has_usage = include_usage and not is_continuous and "usage" in completion
    tail: dict[str, Any] = {"usage": None} if has_usage else {}
    chunks = []
    for choice, delta, logprobs, finish_reason in _interleave(completion["choices"]):
        told = {"index": choice, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
        chunks.append({**head, "choices": [told], **tail})
    if has_obfuscation:
        for chunk in chunks:
            chunk["obfuscation"] = _make_padding(chunk["choices"][0]["delta"])
    if has_usage:
        chunks.append({**head, "choices": [], "usage": completion["usage"]})
    if is_continuous and "usage" in completion:
        tell_usage_so_far(chunks, completion["usage"])
    return chunks


def tell_usage_so_far(chunks: Sequence[dict[str, Any]], usage: Any) -> None:
    """Tell in each chunk what has been used up to it; a usage without OpenAI's counts in the last one alone.

    Args:
        chunks: All chunks of a stream, without one for the usage.
        usage: Of the whole reply.
    """
    if not (isinstance(usage, dict) and all(type(usage.get(name)) is int for name in _TOTALS)):
        chunks[-1]["usage"] = usage
        return
    details = usage.get("completion_tokens_details")
    for place, chunk in enumerate(chunks, start=1):
        completion_tokens = usage["completion_tokens"] * place // len(chunks)
        total_tokens = usage["total_tokens"] - usage["completion_tokens"] + completion_tokens
        chunk["usage"] = {**usage, "completion_tokens": completion_tokens, "total_tokens": total_tokens}
        if isinstance(details, dict):
            # No part is larger than what there is of the whole.
            parts = {name: count and min(count, completion_tokens) for name, count in details.items()}
            chunk["usage"]["completion_tokens_details"] = parts


_TOTALS: Final = ("completion_tokens", "total_tokens")
_HEAD: Final = ("created", "model", "service_tier", "system_fingerprint")

_Step = tuple[int, Delta, Any, str | None]
"""A choice's index, its delta, the delta's logprobs, and why the choice ended, in its last step."""


def _interleave(choices: list[dict[str, Any]]) -> Iterator[_Step]:
    """Yield the steps of all choices, one of each in turn."""
    if len(choices) == 1:
        yield from _scan_steps(choices[0])
        return
    for round_ in zip_longest(*map(_scan_steps, choices)):
        yield from (step for step in round_ if step is not None)


def _scan_steps(choice: Mapping[str, Any]) -> Iterator[_Step]:
    index, message = choice["index"], choice["message"]
    opening = {"role": "assistant", "content": None if message["content"] is None else "", "refusal": None}
    yield index, opening, None, None
    for text in split_tokens(message.get("reasoning_content") or ""):
        yield index, {"reasoning_content": text}, None, None
    logprobs = choice["logprobs"] or {}
    for name in ("content", "refusal"):
        told = iter(logprobs.get(name) or ())
        for text in split_tokens(message[name] or ""):
            token = next(told, None)
            said = None if token is None else {"content": None, "refusal": None, name: [token]}
            yield index, {name: text}, said, None
    for delta in chain(_scan_audio(message), _scan_calls(message)):
        yield index, delta, None, None
    yield index, {}, None, choice["finish_reason"]


def _scan_audio(message: Mapping[str, Any]) -> Iterator[Delta]:
    audio = message.get("audio")
    if audio is None:
        return
    yield {"audio": {"id": audio["id"]}}
    for text in split_tokens(audio["transcript"]):
        yield {"audio": {"transcript": text}}
    for start in range(0, len(audio["data"]), _AUDIO_FRAGMENT_CHARS):
        yield {"audio": {"data": audio["data"][start : start + _AUDIO_FRAGMENT_CHARS]}}
    yield {"audio": {"expires_at": audio["expires_at"]}}


def _scan_calls(message: Mapping[str, Any]) -> Iterator[Delta]:
    """Yield each call's name with its id, then its arguments in fragments."""
    for index, call in enumerate(message.get("tool_calls") or ()):
        kind, field = ("function", "arguments") if call["type"] == "function" else ("custom", "input")
        opening = {**call, kind: {**call[kind], field: ""}}
        yield {"tool_calls": [{"index": index, **opening}]}
        for text in split_tokens(call[kind][field]):
            yield {"tool_calls": [{"index": index, kind: {field: text}}]}
    if call := message.get("function_call"):
        yield {"function_call": {**call, "arguments": ""}}
        for text in split_tokens(call["arguments"]):
            yield {"function_call": {"arguments": text}}


def _make_padding(delta: Delta) -> str:
    """Return what fills a chunk up, so that short texts look alike."""
    n_chars = sum(len(value) for value in delta.values() if isinstance(value, str))
    return _OBFUSCATION[: _OBFUSCATED_CHARS - n_chars % _OBFUSCATED_CHARS]
