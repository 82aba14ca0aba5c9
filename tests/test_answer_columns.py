"""Paths into rows, and values put aside on disk: whatever JSON holds is found and comes back."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalrun import answer_spool
from evalrun.answer_columns import MISSING, find_value, is_path
from evalrun.answer_spool import Spool

NAMES = st.text(st.characters(exclude_characters=".[]", exclude_categories=["Cs"]), min_size=1)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize(
    ("row", "path", "value"),
    [
        ({"a": 1}, "a", 1),
        ({"a": None}, "a", None),
        ({"a": {"b": 2}}, "a.b", 2),
        ({"a.b": 1, "a": {"b": 2}}, "a.b", 1),
        ({"a": [{"b": 2}]}, "a[0].b", 2),
        ({"a": [[1, 2]]}, "a[0][1]", 2),
        ({"a": {"0": 1}}, "a[0]", MISSING),
        ({"a": [1]}, "a[1]", MISSING),
        ({"a": "text"}, "a.b", MISSING),
        ({"a": '{"b": [3]}'}, "a.b[0]", 3),
        ({"a": {"b": None}}, "a.b.c", MISSING),
        ({}, "a", MISSING),
    ],
)
def test_path_leads_to_a_value_or_to_nothing(row: dict[str, Any], path: str, value: Any) -> None:
    """A column of just that name comes first; null is something, and an absent key is nothing."""
    assert find_value(row, path) == value


@pytest.mark.parametrize("text", ["", ".", "a.", ".a", "a..b", "a[", "a[x]", "a]", "[0]", "a[-1]", "a.[0]"])
def test_what_is_no_path_is_told_from_one(text: str) -> None:
    """Slips in a path are found before the file is read."""
    assert not is_path(text)


@given(value=JSON, names=st.lists(NAMES, min_size=1, max_size=4), index=st.integers(0, 3))
def test_every_value_is_found_by_its_path(value: Any, names: list[str], index: int) -> None:
    """However deep a value lies, below whatever names, its path leads to it."""
    row: Any = [None] * index + [value]
    for name in reversed(names):
        row = {name: row}
    path = ".".join(names) + f"[{index}]"
    assert is_path(path)
    assert find_value(row, path) == value


@given(values=st.lists(JSON, max_size=8), order=st.randoms(use_true_random=False))
def test_spool_gives_back_what_was_put_aside(values: list[Any], order: Any) -> None:
    """Values come back by their numbers, in any order."""
    with Spool() as spool:
        numbers = [spool.put(value) for value in values]
        order.shuffle(numbers)
        assert [spool.get(number) for number in numbers] == [values[number] for number in numbers]


def test_spool_moves_to_disk_when_it_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond its bound nothing is kept in memory, and nothing is lost by the move."""
    monkeypatch.setattr(answer_spool, "IN_MEMORY_BYTES", 100)
    with Spool() as spool:
        for number in range(50):
            spool.put([number, "é" * number])
        assert [spool.get(number) for number in range(50)] == [[number, "é" * number] for number in range(50)]
