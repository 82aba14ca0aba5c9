"""Estimates of tokens, by rule and as answers teach, against the counts of a real tokenizer."""

import math
import random
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalrun.text_tokens import (
    HIDDEN_TOKENS,
    MAX_LEARNED,
    TokenEstimator,
    estimate_message_tokens,
    estimate_tokens,
)
from tests.token_counts import O200K_COUNTS, read_counted_texts

FRAME_TOKENS = 7
"""Of a prompt with one message."""
COUNTED = [pair for kind in O200K_COUNTS for pair in read_counted_texts(kind)]
ALL_TEXTS = st.text(st.characters(), max_size=200)


def make_messages(text: str) -> list[dict[str, Any]]:
    """Return a prompt with one message."""
    return [{"role": "user", "content": text}]


def teach(texts: Sequence[tuple[str, int]], *, ratio: float = 1.0, hidden_tokens: int = 0) -> TokenEstimator:
    """Return an estimator that was told the counts of some texts, as a server counts them."""
    estimator = TokenEstimator()
    for text, n_tokens in texts:
        estimator.learn(make_messages(text), round(ratio * n_tokens) + FRAME_TOKENS + hidden_tokens)
    return estimator


def measure_error(estimates: Sequence[float], counts: Sequence[int]) -> float:
    """Return how far the sum of estimates is off, as a ratio."""
    return sum(estimates) / sum(counts) - 1


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", 0),
        ("hello", 1),
        ("Hello, world!", 3),
        ("internationalization", 4),
        ("1234567", 3),
        ("a 7", 3),
        ("\n\n", 1),
        ("你好世界", 3),
        ("!!!!", 1),
        ("café", 1),
        ("Привет, мир", 3),
        ("\ud800", 1),
    ],
)
def test_estimate_tokens_goes_by_kind_of_character(text: str, tokens: int) -> None:
    """Words, digits, space, punctuation and scripts each have their rate; half a surrogate is a sign like any."""
    assert estimate_tokens(text) == tokens


@pytest.mark.parametrize("kind", O200K_COUNTS)
def test_estimate_tokens_is_near_before_any_answer(kind: str) -> None:
    """The texts of each kind are within 18 % of a real tokenizer's count together."""
    counted = read_counted_texts(kind)
    error = measure_error([estimate_tokens(text) for text, _ in counted], [n_tokens for _, n_tokens in counted])
    assert abs(error) <= 0.18


@pytest.mark.parametrize("ratio", [1.0, 1.7, 0.6])
@pytest.mark.parametrize("kind", O200K_COUNTS)
def test_estimator_is_near_once_answers_taught_it(kind: str, ratio: float) -> None:
    """Texts that it has not seen are within 5 % together, after others of their kind; of other tokenizers as well."""
    counted = read_counted_texts(kind)
    estimates = [
        teach(counted[:at] + counted[at + 1 :], ratio=ratio).estimate_messages(make_messages(text))
        for at, (text, _) in enumerate(counted)
    ]
    assert abs(measure_error(estimates, [round(ratio * n_tokens) + FRAME_TOKENS for _, n_tokens in counted])) <= 0.05


@pytest.mark.parametrize("seed", range(5))
def test_estimator_is_near_on_a_mix_of_kinds(seed: int) -> None:
    """Half of all texts teach what the other half takes within 5 %, whichever half it is."""
    counted = random.Random(seed).sample(COUNTED, len(COUNTED))
    half = len(counted) // 2
    estimator = teach(counted[:half])
    estimates = [estimator.estimate_messages(make_messages(text)) for text, _ in counted[half:]]
    assert abs(measure_error(estimates, [n_tokens + FRAME_TOKENS for _, n_tokens in counted[half:]])) <= 0.05


def test_estimator_learns_each_script_for_itself() -> None:
    """A mix of both teaches that Thai takes twice as much and English no more, within 10 % each."""
    english, thai = read_counted_texts("english"), read_counted_texts("thai")
    estimator = teach([pair for text in zip(english, [(t, 2 * n) for t, n in thai], strict=True) for pair in text])
    assert [
        measure_error([estimator.estimate_text(text) for text, _ in english], [n for _, n in english]),
        measure_error([estimator.estimate_text(text) for text, _ in thai], [2 * n for _, n in thai]),
    ] == pytest.approx([0, 0], abs=0.1)


def test_estimator_learns_what_a_server_adds() -> None:
    """Instructions that a server adds to every prompt are learned as such, and are in no text."""
    english = read_counted_texts("english")
    estimator = teach([(text, n) for text, n in COUNTED[::2]], hidden_tokens=300)
    told = [n + FRAME_TOKENS + 300 for _, n in english]
    assert measure_error([estimator.estimate_messages(make_messages(text)) for text, _ in english], told) == (
        pytest.approx(0, abs=0.05)
    )


def test_estimator_learns_from_the_first_answers_only() -> None:
    """Once so many answers taught it, later ones change nothing and cost nothing."""
    estimator = teach(COUNTED[:MAX_LEARNED])
    before = estimator.estimate_text("a text of some words")
    estimator.learn(make_messages("a text of some words"), 40)
    assert (estimator.n_learned, estimator.estimate_text("a text of some words")) == (MAX_LEARNED, before)


@pytest.mark.parametrize("prompt_tokens", [0, -5, 10**12])
def test_estimator_believes_no_absurd_count(prompt_tokens: int) -> None:
    """A count that such a prompt cannot have teaches nothing."""
    estimator = TokenEstimator()
    estimator.learn(make_messages("What is the capital of France?"), prompt_tokens)
    assert estimator.estimate_text("one two three") == TokenEstimator().estimate_text("one two three")


def test_estimate_message_tokens_counts_texts_and_parts() -> None:
    """Texts count by their tokens, other parts by a flat rate, messages by their frame."""
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": [{"type": "text", "text": "hello"}, {"type": "image_url", "image_url": {}}]},
        {"role": "assistant", "content": None},
    ]
    assert estimate_message_tokens(messages, estimate_tokens) == 3 + 4 + 1 + 800 + 4


def test_estimator_learns_what_an_image_takes() -> None:
    """Images that a model counts for less than the flat rate are learned as such."""
    messages = [{"role": "user", "content": [{"type": "text", "text": "Look."}, {"type": "image_url"}]}]
    estimator = TokenEstimator()
    for _ in range(4):
        estimator.learn(messages, 265)
    assert estimator.estimate_messages(messages) == pytest.approx(265, rel=0.05)


@given(texts=st.lists(st.tuples(ALL_TEXTS, st.integers(-10, 10_000)), max_size=12), text=ALL_TEXTS)
def test_estimates_stay_in_bounds_whatever_was_told(texts: list[tuple[str, int]], text: str) -> None:
    """No teaching makes a text take less than a quarter or more than four times the rule; "" always takes nothing."""
    estimator = TokenEstimator()
    for told, n_tokens in texts:
        estimator.learn(make_messages(told), n_tokens)
    rule, prompt_rule = TokenEstimator().estimate_text(text), TokenEstimator().estimate_messages(make_messages(text))
    assert rule / 4 <= estimator.estimate_text(text) <= 4 * rule
    assert prompt_rule / 8 <= estimator.estimate_messages(make_messages(text)) <= 8 * prompt_rule + HIDDEN_TOKENS
    assert estimator.estimate_text("") == 0


@given(text=ALL_TEXTS)
def test_estimator_begins_with_the_rule(text: str) -> None:
    """Before the first answer prompts and texts take what the rule says."""
    estimator = TokenEstimator()
    assert round(estimator.estimate_text(text)) == estimate_tokens(text)
    assert math.isclose(
        estimator.estimate_messages(make_messages(text)), FRAME_TOKENS + estimator.estimate_text(text), abs_tol=1e-9
    )
