"""In what two JSON values differ, key by key, and short words for it.

Two jobs or two request bodies enter; key paths with both values leave, in the order of the keys.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

MAX_VALUE_CHARS = 60
"""Longest value that is written out; of two long texts the part around their first difference is shown."""

_CONTEXT_CHARS = 16


class _Missing:
    """Stands for a value that one side does not have."""

    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final = _Missing()


class Difference(NamedTuple):
    """One place at which two values differ."""

    path: str
    """`messages[1].content`; "" for the whole value."""
    before: Any
    """`MISSING` where it is new."""
    after: Any
    """`MISSING` where it is gone."""


def list_differences(before: Any, after: Any, *, path: str = "", by_name: bool = False) -> list[Difference]:
    """Return the innermost places at which two JSON values differ.

    Args:
        before: The older value.
        after: The newer one.
        path: Where they stand.
        by_name: Items of a list are told apart by their `name`, as `--set` does, where all have one; else by place.
    """
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        names = [(_join(path, str(key)), key) for key in dict.fromkeys([*before, *after])]
    elif _is_list(before) and _is_list(after):
        before, after = (_number(items, by_name=by_name and _are_named(before, after)) for items in (before, after))
        names = [(f"{path}[{key}]", key) for key in dict.fromkeys([*before, *after])]
    else:
        return [] if _equals(before, after) else [Difference(path, before, after)]
    pairs = ((name, before.get(key, MISSING), after.get(key, MISSING)) for name, key in names)
    return [found for name, old, new in pairs for found in list_differences(old, new, path=name, by_name=by_name)]


def describe_difference(difference: Difference) -> str:
    """Return a difference in one line: `params.temperature: 0 → 1`."""
    path, before, after = difference
    if before is MISSING:
        return f"{path}: {_write(after)}, new"
    if after is MISSING:
        return f"{path}: gone, was {_write(before)}"
    if isinstance(before, str) and isinstance(after, str):
        return f"{path}: {' → '.join(_excerpt(before, after))}"
    return f"{path}: {_write(before)} → {_write(after)}"


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def _are_named(*lists: Sequence[Any]) -> bool:
    """Tell whether each list's items have names, all different."""
    for items in lists:
        names = [item.get("name") if isinstance(item, Mapping) else None for item in items]
        if None in names or len(set(map(str, names))) < len(names):
            return False
    return True


def _number(items: Sequence[Any], *, by_name: bool) -> dict[Any, Any]:
    return {item["name"]: item for item in items} if by_name else dict(enumerate(items))


def _equals(before: Any, after: Any) -> bool:
    # Python takes True for 1, and 1 for 1.0; in a request they are three different values.
    return type(before) is type(after) and bool(before == after)


def _write(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= MAX_VALUE_CHARS else f"{text[: MAX_VALUE_CHARS - 1]}…"


def _excerpt(before: str, after: str) -> Iterator[str]:
    """Yield both texts, cut to what surrounds their first difference when they are long."""
    n_shorter = min(len(before), len(after))
    n_same = next((at for at in range(n_shorter) if before[at] != after[at]), n_shorter)
    start = max(0, n_same - _CONTEXT_CHARS)
    for text in (before, after):
        if len(text) <= MAX_VALUE_CHARS:
            yield json.dumps(text, ensure_ascii=False)
            continue
        end = start + MAX_VALUE_CHARS
        cut = json.dumps(text[start:end], ensure_ascii=False)[1:-1]
        yield f'"{"…" if start else ""}{cut}{"…" if end < len(text) else ""}"'
