"""What a model or its gateway says otherwise than asked: texts, ids, names, tiers, log probabilities.

Q19, Q28, Q34 to Q36, Q52, Q53 and Q57 to Q59: changes of the whole completion, from which a stream's chunks are cut.
"""

import copy
from collections.abc import Iterator, Mapping
from typing import Any, Final

from evalrun.simulator.quirks.quirk import Bend, Edit, Quirk, Scene, scan_parts
from evalrun.simulator.script import Draft, Script
from evalrun.simulator.tokens import count_tokens, find_output_limit, split_tokens

_LINE_SEPARATORS: Final = "\u2028\u2029\u0085"
_REASONING: Final = "First the question is read, then the answer is written."
_REFUSAL: Final = "I'm sorry, but I can't help with that."
_SECOND_TEXT: Final = "Something else altogether."
_SAME_ID: Final = "chatcmpl-same"
_SAME_CALL_ID: Final = "call_same"
_ALIAS_SUFFIX: Final = "-2026-08-01"
_OVERRUN_TOKENS: Final = 8
_FILLER: Final = " more"
"""One token."""
_MAX_OVERRUN_LIMIT: Final = 10_000
"""Longest limit that is overrun: beyond it the reply would be megabytes of filler."""
_NOT_A_NUMBER: Final = "@@not a number@@"
"""Stands for what no JSON writer writes, until the bytes are there."""
_NUMBERS: Final[Mapping[str | None, bytes]] = {"nan": b"NaN", "infinity": b"-Infinity"}


def _spoil_logprobs(draft: Draft, _: Quirk) -> bool:
    """Make the first log probability of each text no number; a reply without any gets some."""
    changed = False
    for choice, text in _scan_texts(draft):
        logprobs = choice.get("logprobs") or {"content": [_make_logprob(token) for token in split_tokens(text)]}
        if logprobs.get("content"):
            logprobs["content"][0]["logprob"] = _NOT_A_NUMBER
            choice["logprobs"] = {"refusal": None, **logprobs}
            changed = True
    return changed


def _make_logprob(token: str) -> dict[str, Any]:
    return {"token": token, "logprob": -0.5, "bytes": None, "top_logprobs": []}


def _write_not_a_number(script: Script, quirk: Quirk, _: Scene) -> bool:
    marker, number = f'"{_NOT_A_NUMBER}"'.encode(), _NUMBERS[quirk.variant]
    changed = False
    for piece in script.pieces:
        changed = changed or marker in piece.data
        piece.data = piece.data.replace(marker, number)
    return changed


def _end_in_separators(draft: Draft, _: Quirk) -> bool:
    changed = False
    for choice, text in _scan_texts(draft):
        choice["message"]["content"] = text + _LINE_SEPARATORS
        changed = True
    return changed


def _reason(draft: Draft, _: Quirk) -> bool:
    """Give each message a reasoning text, the one it has or another."""
    for choice in draft.completion["choices"]:
        message = choice["message"]
        message["reasoning_content"] = message.get("reasoning_content") or _REASONING
    return True


def _rename_reasoning(draft: Draft, quirk: Quirk) -> bool:
    """Put the reasoning where the variant puts it, in messages or deltas."""
    changed = False
    for choice, key in scan_parts(draft):
        text = (choice[key] or {}).pop("reasoning_content", None)
        if text is not None and quirk.variant == "reasoning_details":
            detail = {"type": "reasoning.text", "text": text, "format": "unknown", "index": 0}
            choice[key]["reasoning_details"] = [detail]
        elif text is not None:
            choice[key][quirk.variant] = text
        changed = changed or text is not None
    return changed


def _refuse(draft: Draft, _: Quirk) -> bool:
    for choice in draft.completion["choices"]:
        choice["message"] = {"role": "assistant", "content": None, "refusal": _REFUSAL, "annotations": []}
        choice["logprobs"], choice["finish_reason"] = None, "stop"
    return True


def _drop_logprob_bytes(draft: Draft, _: Quirk) -> bool:
    told = [choice["logprobs"] for choice in draft.completion["choices"] if choice.get("logprobs")]
    tokens = [token for logprobs in told for name in ("content", "refusal") for token in logprobs.get(name) or ()]
    for token in tokens:
        token["bytes"] = None
        for other in token.get("top_logprobs") or ():
            other["bytes"] = None
    return bool(tokens)


def _rename_model(draft: Draft, _: Quirk) -> bool:
    draft.completion["model"] += _ALIAS_SUFFIX
    return True


def _repeat_ids(draft: Draft, _: Quirk) -> bool:
    draft.completion["id"] = _SAME_ID
    for choice in draft.completion["choices"]:
        for call in choice["message"].get("tool_calls") or ():
            call["id"] = _SAME_CALL_ID
    return True


def _overrun_limit(draft: Draft, quirk: Quirk) -> bool:
    """Write each text on beyond the token limit, and bill what was written."""
    limit = find_output_limit(quirk.body)
    if limit is None or limit > _MAX_OVERRUN_LIMIT:
        return False
    added = 0
    for choice, text in _scan_texts(draft):
        n_more = max(limit + _OVERRUN_TOKENS - count_tokens(text), 1)
        choice["message"]["content"] = text + _FILLER * n_more
        choice["finish_reason"] = "stop"
        added += n_more
    draft.counts.completion += added
    usage = draft.completion.get("usage") if added else None
    for name in ("completion_tokens", "output_tokens", "total_tokens"):
        if isinstance(usage, dict) and isinstance(usage.get(name), int):
            usage[name] += added
    return added > 0


def _repeat_index(draft: Draft, _: Quirk) -> bool:
    """Give all choices the same index; a single one is joined by another."""
    choices = draft.completion["choices"]
    if len(choices) == 1:
        other = copy.deepcopy(choices[0])
        other["message"] = {"role": "assistant", "content": _SECOND_TEXT, "refusal": None, "annotations": []}
        other["logprobs"], other["finish_reason"] = None, "stop"
        choices.append(other)
    for choice in choices:
        choice["index"] = 0
    return True


def _change_tier(draft: Draft, quirk: Quirk) -> bool:
    draft.completion["service_tier"] = "default" if quirk.body.get("service_tier") == "flex" else "flex"
    return True


def _scan_texts(draft: Draft) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield each choice that says something, with its text."""
    for choice in draft.completion["choices"]:
        text = choice["message"].get("content")
        if isinstance(text, str) and text:
            yield choice, text


TEXTS: Final[Mapping[str, Edit]] = {
    "Q19": _spoil_logprobs,
    "Q28": _end_in_separators,
    "Q34": _reason,
    "Q35": _refuse,
    "Q36": _drop_logprob_bytes,
    "Q52": _rename_model,
    "Q53": _repeat_ids,
    "Q57": _overrun_limit,
    "Q58": _repeat_index,
    "Q59": _change_tier,
}

EDITS: Final[Mapping[str, Edit]] = {"Q34": _rename_reasoning}

BENDS: Final[Mapping[str, Bend]] = {"Q19": _write_not_a_number}
