"""Tests of the simulator's token rule."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalrun.simulator import tokens
from evalrun.simulator.tokens import count_prompt_tokens, count_tokens, split_tokens


@given(st.text())
def test_tokens_joined_are_the_text(text: str) -> None:
    """No character is lost or doubled by splitting, whatever the script."""
    assert "".join(split_tokens(text)) == text


@given(st.text(st.sampled_from("aZ09 \t\n.,-\xa0\u3000กé\ud800") | st.characters(), max_size=200), st.integers(9, 40))
def test_long_text_counts_as_if_it_were_looked_at_in_one_go(text: str, slice_chars: int) -> None:
    """Counting in slices gives the same number, wherever a slice cuts a token."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokens, "_SLICE_CHARS", slice_chars)
        assert count_tokens(text) == len(split_tokens(text))


@given(st.text(), st.integers(0, 20))
def test_tokens_of_a_cut_text_stay_within_the_cut(text: str, limit: int) -> None:
    """The first n tokens of a text count as n tokens at most, so that a cut reply can be billed."""
    assert count_tokens("".join(split_tokens(text)[:limit])) <= limit


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", []),
        ("The answer is 1234.", ["The", " answer", " is", " 123", "4", "."]),
        ("กรุงเทพ", ["กร", "ุง", "เท", "พ"]),
        ("三十二", ["三十", "二"]),
        ('{"a": 1}', ['{"', "a", '":', " 1", "}"]),
        ("internationalisation", ["internat", "ionalisa", "tion"]),
    ],
)
def test_tokens_follow_the_documented_rule(text: str, tokens: list[str]) -> None:
    """Words, digits, other scripts and punctuation split as the module says."""
    assert split_tokens(text) == tokens


def test_prompt_tokens_count_every_part_of_a_message() -> None:
    """Roles, names, texts, images and tool calls all have their price, and the reply is opened with 3."""
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "name": "ann", "content": [{"type": "text", "text": "Hi"}, {"type": "image_url"}]},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "x"}]},
    ]
    system, user, assistant = 3 + 1 + 3, 3 + 1 + 1 + 1 + 85, 3 + 2 + count_tokens("{'id': 'x'}")
    assert count_prompt_tokens(messages) == 3 + system + user + assistant
