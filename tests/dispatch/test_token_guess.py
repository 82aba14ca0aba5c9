"""Token estimates: where they start, what they learn, and that they lean to too much."""

import base64
import json
import random
from statistics import quantiles
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalrun.dispatch.token_guess import (
    MAX_BELIEVED_TOKENS,
    MIN_OUTPUTS,
    START_OUTPUT_TOKENS,
    TokenEstimate,
    TokenGuess,
)


def write_body(content: Any) -> bytes:
    """Return a request body as the planner writes it."""
    return json.dumps(
        {"model": "m", "messages": [{"role": "user", "content": content}]}, separators=(",", ":")
    ).encode()


def guess_prompt(guess: TokenGuess, body: bytes) -> int:
    """Return the estimate of a body's prompt."""
    return guess.estimate(body, max_output_tokens=1).prompt_tokens


def test_first_estimate_goes_by_bytes() -> None:
    """Before any answer a prompt takes a token for each 3.5 bytes, and a reply 1,024."""
    assert TokenGuess().estimate(b"x" * 350, max_output_tokens=None) == TokenEstimate(100, START_OUTPUT_TOKENS)
    assert TokenGuess().estimate(b"", max_output_tokens=None).prompt_tokens == 0


def test_limit_of_the_request_bounds_its_output() -> None:
    """A request's own limit holds, for each of its choices, whatever was seen."""
    guess = TokenGuess()
    for _ in range(MIN_OUTPUTS):
        guess.note_answer(b"x", prompt_tokens=1, output_tokens=5000)
    estimate = guess.estimate(b"x" * 35, max_output_tokens=64, n_choices=3)
    assert (estimate.output_tokens, estimate.total_tokens) == (192, estimate.prompt_tokens + 192)


def test_output_without_a_limit_is_the_90th_percentile() -> None:
    """Once enough replies were seen, one in ten is longer than the estimate, within the width of a step."""
    rng = random.Random(1)
    outputs = [round(rng.lognormvariate(5, 1)) for _ in range(5000)]
    guess = TokenGuess()
    for output in outputs:
        guess.note_answer(b"x", prompt_tokens=None, output_tokens=output)
    true = quantiles(outputs, n=10)[8]
    assert true * 0.99 <= guess.estimate(b"x", max_output_tokens=None).output_tokens <= true * 1.25


def test_few_replies_do_not_lower_the_start_value() -> None:
    """A handful of short replies says nothing of long ones; a long one among them counts at once."""
    guess = TokenGuess()
    for _ in range(MIN_OUTPUTS - 1):
        guess.note_answer(b"x", prompt_tokens=1, output_tokens=3)
    assert guess.estimate(b"x", max_output_tokens=None).output_tokens == START_OUTPUT_TOKENS
    guess.note_answer(b"x", prompt_tokens=1, output_tokens=3)
    assert guess.estimate(b"x", max_output_tokens=None).output_tokens == 4
    long = TokenGuess()
    long.note_answer(b"x", prompt_tokens=1, output_tokens=9000)
    assert long.estimate(b"x", max_output_tokens=None).output_tokens >= 9000


def test_output_is_learned_per_choice() -> None:
    """Replies with several choices teach what one takes."""
    guess = TokenGuess()
    for _ in range(MIN_OUTPUTS):
        guess.note_answer(b"x", prompt_tokens=1, output_tokens=64, n_choices=4)
    assert guess.estimate(b"x", max_output_tokens=None, n_choices=2).output_tokens == 32


def test_replies_of_nothing_are_estimated_as_nothing() -> None:
    """Outputs of 0 tokens are numbers like others."""
    guess = TokenGuess()
    for _ in range(MIN_OUTPUTS):
        guess.note_answer(b"x", prompt_tokens=0, output_tokens=0)
    assert guess.estimate(b"x", max_output_tokens=None) == TokenEstimate(0, 0)


def test_prompt_estimate_becomes_what_is_reported() -> None:
    """Equal bodies with equal counts are soon estimated exactly, from above."""
    guess, body = TokenGuess(), b"x" * 400
    estimates = []
    for _ in range(40):
        guess.note_answer(body, prompt_tokens=80, output_tokens=1)
        estimates.append(guess_prompt(guess, body))
    assert estimates[0] == 105
    assert all(estimate >= 80 for estimate in estimates)
    assert estimates[-1] <= 81


def test_prompt_estimate_covers_19_of_20() -> None:
    """On bodies of varying ratio the estimate is passed rarely, and is not much too large."""
    rng, guess = random.Random(2), TokenGuess()
    n_passed, ratios = 0, []
    for _ in range(3000):
        body = b"x" * rng.randint(300, 3000)
        true = round(len(body) / rng.gauss(4.2, 0.4)) + 10
        estimate = guess_prompt(guess, body)
        n_passed += true > estimate
        ratios.append(estimate / true)
        guess.note_answer(body, prompt_tokens=true, output_tokens=1)
    assert n_passed / 3000 < 0.05
    assert sum(ratios) / 3000 < 1.25


def test_small_bodies_do_not_teach_large_ones_to_be_small() -> None:
    """A size that was never answered starts at the start value at least, and at more where its neighbour takes more."""
    low, high = TokenGuess(), TokenGuess()
    for _ in range(20):
        low.note_answer(b"x" * 200, prompt_tokens=20, output_tokens=1)
        high.note_answer(b"x" * 200, prompt_tokens=200, output_tokens=1)
    large = b"x" * 35_000
    assert guess_prompt(low, large) == 10_000
    assert guess_prompt(high, large) >= 35_000


def test_absurd_counts_teach_nothing() -> None:
    """A count beyond every context window, or none, leaves the estimate as it was."""
    guess = TokenGuess()
    guess.note_answer(b"x" * 35, prompt_tokens=MAX_BELIEVED_TOKENS + 1, output_tokens=MAX_BELIEVED_TOKENS + 1)
    guess.note_answer(b"x" * 35, prompt_tokens=None, output_tokens=None)
    assert guess.estimate(b"x" * 35, max_output_tokens=None) == TokenEstimate(10, START_OUTPUT_TOKENS)


@pytest.mark.parametrize(
    "part",
    [
        {
            "type": "image_url",
            "image_url": {"url": "data:image/png;base64," + base64.b64encode(bytes(300_000)).decode()},
        },
        {"type": "image_url", "image_url": {"url": "https://example.com/picture.png"}},
        {"type": "input_audio", "input_audio": {"data": base64.b64encode(bytes(300_000)).decode(), "format": "wav"}},
        {"type": "file", "file": {"file_data": "data:application/pdf;base64," + "QUJD" * 100_000}},
    ],
    ids=["image", "image by address", "sound", "file"],
)
def test_part_that_is_not_text_does_not_count_by_its_bytes(part: dict[str, Any]) -> None:
    """An image takes as many tokens as an image, however large its file, or however short its address."""
    text = {"type": "text", "text": "What is this?"}
    without, with_part = write_body([text]), write_body([text, part])
    added = guess_prompt(TokenGuess(), with_part) - guess_prompt(TokenGuess(), without)
    assert 800 <= added <= 850


def test_text_that_looks_like_base64_counts_in_full() -> None:
    """Only beside a part that is not text is base64 left out of the count."""
    body = write_body("A" * 100_000)
    assert guess_prompt(TokenGuess(), body) >= len(body) / 3.5


@given(st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 10**6), st.integers(0, 10**6)), max_size=60))
def test_estimates_are_numbers_whatever_was_reported(answers: list[tuple[int, int, int]]) -> None:
    """No report makes an estimate negative, or memory grow with the number of answers."""
    guess = TokenGuess()
    for n_bytes, prompt_tokens, output_tokens in answers:
        guess.note_answer(b"x" * n_bytes, prompt_tokens=prompt_tokens, output_tokens=output_tokens)
        estimate = guess.estimate(b"x" * n_bytes, max_output_tokens=None)
        assert min(estimate) >= 0
    assert len(guess._ratios) <= 14
    assert len(guess._outputs._counts) <= 82
