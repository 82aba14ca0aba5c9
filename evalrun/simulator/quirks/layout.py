"""How a completion or its chunks are laid out otherwise than OpenAI does: Q10 to Q13, Q24, Q30 to Q33, Q54.

Also the streams of Q25 that end in good order without a finish_reason.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any, Final, Literal

from evalrun.simulator.quirks.quirk import Edit, Quirk, find_finish, make_choice, scan_parts
from evalrun.simulator.script import Draft

_UPSTREAM_FAILED: Final = "The upstream provider failed in the middle of the reply."
_UNKNOWN_REASON: Final = "eos"
_MAX_OBFUSCATION_CHARS: Final = 16
_PROMPT_FILTER_RESULTS: Final = [
    {
        "prompt_index": 0,
        "content_filter_results": {
            name: {"filtered": False, "severity": "safe"} for name in ("hate", "self_harm", "sexual", "violence")
        },
    }
]


def _fail_midway(draft: Draft, quirk: Quirk) -> bool:
    """End the reply with an error after half of its text; the event of `event` is written as bytes later."""
    if draft.chunks is None:
        for choice in draft.completion["choices"]:
            text = choice["message"].get("content") or ""
            choice["message"]["content"] = text[: len(text) // 2]
            choice["finish_reason"] = "error"
            choice["error"] = {"code": 502, "message": _UPSTREAM_FAILED}
        return True
    last = _cut_before_finish(draft)
    if last is None:
        return False
    draft.has_done = quirk.variant == "finish"
    if quirk.variant == "data":
        draft.chunks.append({"error": {"message": _UPSTREAM_FAILED, "type": "server_error", "code": None}})
    elif quirk.variant == "finish":
        failed = {"error": {"message": _UPSTREAM_FAILED, "code": 502}}
        draft.chunks.append({**last, "choices": [make_choice(0, {"content": ""}, "error")], **failed})
    return True


def _end_early(draft: Draft, quirk: Quirk) -> bool:
    """End the stream in good order before any finish_reason."""
    if quirk.variant not in {"clean", "done"}:
        return True
    if _cut_before_finish(draft) is None:
        return False
    draft.has_done = quirk.variant == "done"
    return True


def _cut_before_finish(draft: Draft) -> dict[str, Any] | None:
    """Drop the latter half of the text and all that follows; return the last chunk left, None if nothing can be cut."""
    finish = find_finish(draft)
    if not draft.chunks or not finish:
        return None
    del draft.chunks[max(min(2, finish), finish // 2) :]
    last: dict[str, Any] = draft.chunks[-1]
    return last


def _lose_choices(draft: Draft, quirk: Quirk) -> Literal[True]:
    for whole in (draft.completion, *(draft.chunks or ())):
        if whole.pop("choices", None) is not None and quirk.variant != "missing":
            whole["choices"] = None if quirk.variant == "null" else []
    return True


def _change_content(draft: Draft, quirk: Quirk) -> bool:
    changed = False
    for choice, key in scan_parts(draft):
        part = choice[key] or {}
        if not isinstance(content := part.get("content"), str):
            continue
        if quirk.variant == "missing":
            del part["content"]
        elif quirk.variant == "null":
            part["content"] = None
        elif content:
            part["content"] = [{"type": "text", "text": content}]
        changed = changed or bool(content)
    return changed


def _change_finish(draft: Draft, quirk: Quirk) -> bool:
    for choice, _ in scan_parts(draft):
        is_finish = choice.get("finish_reason") is not None
        if quirk.variant == "missing":
            choice.pop("finish_reason", None)
        elif quirk.variant == "every-chunk":
            choice["finish_reason"] = choice.get("finish_reason") or "stop"
        elif is_finish:
            choice["finish_reason"] = None if quirk.variant == "null" else _UNKNOWN_REASON
    return True


def _omit_done(draft: Draft, _: Quirk) -> Literal[True]:
    draft.has_done = False
    return True


def _open_with_filter(draft: Draft, _: Quirk) -> bool:
    """Send Azure's first chunk."""
    if not draft.chunks:
        return False
    opening = {"id": "", "object": "", "created": 0, "model": "", "choices": []}
    draft.chunks.insert(0, {**opening, "prompt_filter_results": _PROMPT_FILTER_RESULTS})
    return True


def _void_last_delta(draft: Draft, _: Quirk) -> bool:
    finishes = [choice for choice, _ in scan_parts(draft) if choice.get("finish_reason")]
    for choice in finishes:
        choice["delta"] = None
    return bool(finishes)


def _change_tool_calls(draft: Draft, quirk: Quirk) -> bool:
    """Send tool calls otherwise than OpenAI does; False when there are none."""
    calling = [choice for choice in draft.completion["choices"] if _find_calls(choice)]
    for choice in calling:
        if quirk.variant == "finish-stop":
            choice["finish_reason"] = "stop"
        else:
            _relay_calls(draft, choice, quirk)
    if quirk.variant == "finish-stop":
        for part, _ in scan_parts(draft):
            if part.get("finish_reason") == "tool_calls":
                part["finish_reason"] = "stop"
    return bool(calling)


def _find_calls(choice: Mapping[str, Any]) -> list[dict[str, Any]]:
    return choice["message"].get("tool_calls") or []


def _relay_calls(draft: Draft, choice: dict[str, Any], quirk: Quirk) -> None:
    """Replace the chunks of one choice's tool calls by chunks of the quirk's own."""
    calls, index, chunks = _find_calls(choice), choice["index"], draft.chunks or []
    if quirk.variant == "interleaved" and len(calls) == 1:
        calls.append({**calls[0], "id": f"{calls[0]['id']}b"})
    kept = [chunk for chunk in chunks if not _carries_call(chunk, index)]
    first = next((place for place, chunk in enumerate(chunks) if _carries_call(chunk, index)), len(kept))
    like = {key: value for key, value in chunks[0].items() if key != "choices"}
    # Whole calls do not say which call they are, as Gemini's do not.
    fragments = iter(calls) if quirk.variant == "no-index" else _scan_characters(calls)
    new = [{**like, "choices": [make_choice(index, {"tool_calls": [fragment]})]} for fragment in fragments]
    draft.chunks = [*kept[:first], *new, *kept[first:]]


def _carries_call(chunk: Mapping[str, Any], index: int) -> bool:
    return any(
        choice.get("index") == index and "tool_calls" in (choice.get("delta") or {})
        for choice in chunk.get("choices") or ()
    )


def _scan_characters(calls: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the openings of all calls, then their arguments, one character of each in turn."""
    texts = []
    for index, call in enumerate(calls):
        kind, field = ("custom", "input") if call["type"] == "custom" else ("function", "arguments")
        yield {"index": index, **call, kind: {**call[kind], field: ""}}
        texts.append([{"index": index, kind: {field: character}} for character in call[kind][field]])
    for fragments in zip_longest(*texts):
        yield from (fragment for fragment in fragments if fragment is not None)


def _interleave_choices(draft: Draft, quirk: Quirk) -> bool:
    """Send the last of several choices first; in a stream, chunk by chunk or all in one chunk."""
    if len(draft.completion["choices"]) == 1:
        return False
    if draft.chunks is None:
        draft.completion["choices"].reverse()
        return True
    by_choice: dict[int, list[dict[str, Any]]] = {}
    for chunk in draft.chunks:
        for choice in chunk.get("choices") or ():
            by_choice.setdefault(-choice["index"], []).append({**chunk, "choices": [choice]})
    rounds = [
        [chunk for chunk in chunks if chunk is not None]
        for chunks in zip_longest(*(by_choice[index] for index in sorted(by_choice)))
    ]
    rest = [chunk for chunk in draft.chunks if not chunk.get("choices")]
    if quirk.variant == "together":
        rounds = [[{**chunks[0], "choices": [chunk["choices"][0] for chunk in chunks]}] for chunks in rounds]
    draft.chunks = [chunk for chunks in rounds for chunk in chunks] + rest
    return True


def _obfuscate(draft: Draft, quirk: Quirk) -> bool:
    for place, chunk in enumerate(draft.chunks or ()):
        n_chars = 1 + int(quirk.draw("length", place) * _MAX_OBFUSCATION_CHARS)
        chunk["obfuscation"] = f"{int(quirk.draw('text', place) * 16**_MAX_OBFUSCATION_CHARS):016x}"[:n_chars]
    return bool(draft.chunks)


EDITS: Final[Mapping[str, Edit]] = {
    "Q10": _fail_midway,
    "Q12": _change_content,
    "Q13": _change_finish,
    "Q24": _omit_done,
    "Q25": _end_early,
    "Q30": _open_with_filter,
    "Q31": _void_last_delta,
    "Q32": _change_tool_calls,
    "Q33": _interleave_choices,
    "Q54": _obfuscate,
    # Last: nothing can be laid out without choices.
    "Q11": _lose_choices,
}
