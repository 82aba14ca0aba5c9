"""In what two JSON values differ, and short words for it."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalrun.job.differences import MAX_VALUE_CHARS, MISSING, describe_difference, list_differences

SCALARS = st.none() | st.booleans() | st.integers(-3, 3) | st.floats(-1, 1) | st.text(max_size=3)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ({"t": 0}, {"t": 1}, ["t: 0 → 1"]),
        ({"t": 0}, {"t": 0, "seed": None}, ["seed: null, new"]),
        ({"t": [1, 2]}, {"t": [1]}, ["t[1]: gone, was 2"]),
        ({"a": {"b": {"c": "x"}}}, {"a": {"b": {"c": "y"}}}, ['a.b.c: "x" → "y"']),
        ({"t": True}, {"t": 1}, ["t: true → 1"]),
        ({"t": 1}, {"t": 1.0}, ["t: 1 → 1.0"]),
        ({"t": {}}, {"t": []}, ["t: {} → []"]),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, []),
    ],
)
def test_differences_are_told_at_the_innermost_key(before: Any, after: Any, told: list[str]) -> None:
    """Each place is named once, with both values; types count, the order of keys does not."""
    assert [describe_difference(difference) for difference in list_differences(before, after)] == told


def test_named_items_are_told_apart_by_name() -> None:
    """Reordered models are the same models; a new and a lost one are named."""
    before = {"models": [{"name": "a", "t": 0}, {"name": "b"}]}
    after = {"models": [{"name": "c"}, {"name": "a", "t": 1}]}
    paths = [difference.path for difference in list_differences(before, after, by_name=True)]
    assert paths == ["models[a].t", "models[b]", "models[c]"]


@given(before=VALUES, after=VALUES)
def test_values_differ_exactly_when_a_difference_is_told(before: Any, after: Any) -> None:
    """Nothing is told of equal values, and something of all others; each is one line."""
    assert list_differences(before, before) == []
    differences = list_differences(before, after)
    assert bool(differences) or before == after
    assert all("\n" not in describe_difference(difference) for difference in differences)
    assert not any(difference.before is MISSING and difference.after is MISSING for difference in differences)


ASCII = st.characters(codec="ascii")


@given(same=st.text(ASCII, max_size=200), left=st.text(ASCII, max_size=100), right=st.text(ASCII, max_size=100))
def test_long_texts_are_cut_around_their_first_difference(same: str, left: str, right: str) -> None:
    """What is shown of two long texts is short and never the same on both sides."""
    if left == right:
        return
    (difference,) = list_differences(same + left, same + right)
    shown_left, shown_right = describe_difference(difference).removeprefix(": ").split(" → ", 1)
    assert shown_left != shown_right
    for shown, text in ((shown_left, same + left), (shown_right, same + right)):
        if text.isprintable() and '"' not in text and "\\" not in text:
            assert len(shown) <= MAX_VALUE_CHARS + 4
