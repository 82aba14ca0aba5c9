"""Estimates of tokens, by rule and as answers teach."""

from typing import Any

import pytest

from evalrun.text_tokens import TokenEstimator, estimate_message_tokens, estimate_tokens


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", 0),
        ("hello", 1),
        ("Hello, world!", 4),
        ("internationalization", 4),
        ("1234567", 3),
        ("\n\n", 1),
        ("你好世界", 3),
        ("!!!!", 2),
    ],
)
def test_estimate_tokens_goes_by_class_of_character(text: str, tokens: int) -> None:
    """Words, digits, space, CJK and punctuation each have their rate."""
    assert estimate_tokens(text) == tokens


def test_estimate_tokens_is_near_on_prose() -> None:
    """An English sentence of 21 o200k tokens is estimated within a fifth."""
    text = "The quick brown fox jumps over the lazy dog, and then it runs away through the forest at night."
    assert 17 <= estimate_tokens(text) <= 25


def test_estimate_message_tokens_counts_texts_and_parts() -> None:
    """Texts count by their tokens, other parts by a flat rate, messages by their frame."""
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": [{"type": "text", "text": "hello"}, {"type": "image_url", "image_url": {}}]},
        {"role": "assistant", "content": None},
    ]
    assert estimate_message_tokens(messages, estimate_tokens) == 3 + 4 + 1 + 800 + 4


def test_estimator_learns_from_answers() -> None:
    """Once answers told their counts, the estimate of an equal prompt is what they told."""
    messages = [{"role": "user", "content": "How many tokens has this sentence, in the eyes of the model?"}]
    estimator = TokenEstimator()
    for _ in range(8):
        estimator.learn(messages, 40)
    assert estimator.estimate_messages(messages) == pytest.approx(40, rel=0.05)
