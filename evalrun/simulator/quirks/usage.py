"""Token counts as servers report them wrongly, late, too often or not at all: Q01 to Q08.

The bill stays what it was: these quirks change what is told, never what is booked.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

from evalrun.simulator.quirks.quirk import Bend, Edit, Quirk, Scene, find_finish
from evalrun.simulator.script import Draft, Piece, Script, encode_event
from evalrun.simulator.streaming import tell_usage_so_far

_TOO_MANY: Final = 10**30
_EXTRA_TOKENS: Final = 7


def _shows_usage(draft: Draft) -> bool:
    """Tell whether the reply would say what it used."""
    if not isinstance(draft.completion.get("usage"), dict):
        return False
    return draft.chunks is None or any(chunk.get("usage") for chunk in draft.chunks)


def _drop_usage(draft: Draft, _: Quirk) -> bool:
    if not _shows_usage(draft):
        return False
    del draft.completion["usage"]
    return True


def _void_usage(draft: Draft, _: Quirk) -> bool:
    if not _shows_usage(draft):
        return False
    draft.completion["usage"] = None
    return True


def _change_usage(draft: Draft, quirk: Quirk) -> bool:
    """Put other numbers into a usage that is told; one that another quirk has spoiled is left."""
    if not _shows_usage(draft) or not _has_counts(usage := draft.completion["usage"]):
        return False
    draft.completion["usage"] = _CHANGES[quirk.label](usage)
    return True


def _has_counts(usage: Mapping[str, Any]) -> bool:
    return all(isinstance(usage.get(name), int) for name in _COUNTS)


def _map_counts(usage: Mapping[str, Any], change: Callable[[int], Any]) -> dict[str, Any]:
    return {**usage, **{name: change(usage[name]) for name in _COUNTS}}


def _report_cached(usage: Mapping[str, Any]) -> dict[str, Any]:
    cached = usage["prompt_tokens"] + _EXTRA_TOKENS
    return {**usage, "prompt_tokens_details": {**(usage.get("prompt_tokens_details") or {}), "cached_tokens": cached}}


_COUNTS: Final = ("prompt_tokens", "completion_tokens", "total_tokens")
_CHANGES: Final[Mapping[str, Callable[[Mapping[str, Any]], dict[str, Any]]]] = {
    "Q03:strings": lambda usage: _map_counts(usage, str),
    "Q03:negative": lambda usage: _map_counts(usage, lambda count: -count - 1),
    "Q03:float": lambda usage: _map_counts(usage, lambda count: count + 0.5),
    "Q03:huge": lambda usage: _map_counts(usage, lambda _: _TOO_MANY),
    "Q03:partial": lambda usage: {"completion_tokens": usage["completion_tokens"]},
    "Q07:more": lambda usage: {**usage, "total_tokens": usage["total_tokens"] + _EXTRA_TOKENS},
    "Q07:less": lambda usage: {**usage, "total_tokens": usage["prompt_tokens"] + usage["completion_tokens"] - 1},
    "Q08": _report_cached,
}


def _report_unasked(draft: Draft, quirk: Quirk) -> bool:
    """Report usage in the last chunk, whether it was asked for or not."""
    usage, finish = _find_usage(draft), find_finish(draft)
    if usage is None or finish is None or draft.chunks is None:
        return False
    _take_usage_chunk(draft)
    if quirk.variant == "with-finish":
        draft.chunks[-1]["usage"] = usage
    else:
        draft.chunks.append({**draft.chunks[-1], "choices": [], "usage": usage})
    return True


def _report_cumulatively(draft: Draft, _: Quirk) -> bool:
    """Report in every chunk what has been used up to it."""
    usage = _find_usage(draft)
    if usage is None or not draft.chunks:
        return False
    _take_usage_chunk(draft)
    tell_usage_so_far(draft.chunks, usage)
    return True


def _hold_usage_back(draft: Draft, _: Quirk) -> bool:
    """Take the usage chunk out of the stream, for it follows `[DONE]`."""
    if _find_usage(draft) is None or not draft.chunks:
        return False
    _take_usage_chunk(draft)
    return True


def _append_usage(script: Script, _: Quirk, scene: Scene) -> Literal[True]:
    """Send the usage chunk last of all."""
    last: dict[str, Any] = scene.draft.chunks[-1] if scene.draft.chunks else {}
    chunk = {**last, "choices": [], "usage": scene.draft.completion["usage"]}
    script.pieces.append(Piece(data=encode_event(chunk)))
    return True


def _find_usage(draft: Draft) -> dict[str, Any] | None:
    """Return the usage that a streamed reply could tell; None when it has none."""
    usage = draft.completion.get("usage")
    return usage if isinstance(usage, dict) and _has_counts(usage) else None


def _take_usage_chunk(draft: Draft) -> None:
    """Remove the chunk that tells only the usage, and the nulls that announce it."""
    draft.chunks = [chunk for chunk in draft.chunks or () if chunk.get("choices")]
    for chunk in draft.chunks:
        chunk.pop("usage", None)


TEXTS: Final[Mapping[str, Edit]] = {
    "Q07": _change_usage,
    "Q08": _change_usage,
    "Q03": _change_usage,
    "Q02": _void_usage,
    "Q01": _drop_usage,
}
"""Changes of the whole completion; a stream is cut into chunks after them."""

EDITS: Final[Mapping[str, Edit]] = {
    "Q04": _report_unasked,
    "Q05": _report_cumulatively,
    "Q06": _hold_usage_back,
}
"""Changes of the chunks."""

BENDS: Final[Mapping[str, Bend]] = {"Q06": _append_usage}
