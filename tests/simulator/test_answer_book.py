"""Tests of the answer book: which row a prompt is about."""

from typing import Any

import pytest

from evalrun.simulator.answer_book import AnswerBook, KnownAnswer

LONG = "A train leaves Bangkok at 9 and meets another one half-way. When?"


def find(message: str, *texts: str) -> str | None:
    """Return the id of the row that is found among rows with these texts and ids 0, 1, …."""
    book = AnswerBook(KnownAnswer(str(i), text, f"answer {i}") for i, text in enumerate(texts))
    known = book.find([{"role": "user", "content": message}])
    return None if known is None else known.sample


@pytest.mark.parametrize(
    ("message", "texts", "sample"),
    [
        ("2+2?", ["2+2?"], "0"),
        ("Question: 2+2?\nAnswer:", ["3+3?", "2+2?"], "1"),
        (f"{LONG} Think.", [LONG], "0"),
        (f"{LONG[:-1]} Think.", [LONG], None),
        (f"{LONG} in s", [LONG, f"{LONG} in s"], "1"),
        (f"{LONG} in s", [f"{LONG} in s", LONG], "0"),
        (f"{LONG} in m", [f"{LONG} in s", LONG], "1"),
        ("a and b", ["b", "a"], "0"),
        ("b and a", ["b", "a"], "1"),
        ("ab", ["ab", "ab"], "0"),
        ("กรุงเทพ?", [" กรุงเทพ\n"], "0"),
        ("", ["a"], None),
        ("a", [], None),
    ],
)
def test_longest_text_in_the_message_wins(message: str, texts: list[str], sample: str | None) -> None:
    """A row is found by its whole text; of several the longest, of equal ones the last in the message."""
    assert find(message, *texts) == sample


def test_rows_that_cannot_be_found_are_counted() -> None:
    """Rows without text or answer, or with an earlier row's text, are left out and told."""
    rows = [("1", "a", "x"), ("2", " ", "x"), ("3", "b", ""), ("4", " a ", "y")]
    book = AnswerBook(KnownAnswer(*row) for row in rows)
    assert (book.n_rows, book.n_unusable) == (1, 3)


PARTS = [
    {"type": "text", "text": "a"},
    {"type": "image_url", "image_url": {"url": "data:"}},
    {"type": "text", "text": "b"},
]


@pytest.mark.parametrize(
    ("messages", "sample"),
    [
        ([{"role": "user", "content": "2+2?"}, {"role": "user", "content": "3+3?"}], "3+3?"),
        ([{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "3+3?"}], "2+2?"),
        ([{"role": "user", "content": "2+2?"}, {"role": "user", "content": "Are you sure?"}], "2+2?"),
        ([{"role": "system", "content": "2+2?"}], None),
        ([{"role": "user", "content": PARTS}], "a\nb"),
    ],
)
def test_last_user_message_with_a_row_counts(messages: list[dict[str, Any]], sample: str | None) -> None:
    """What others said does not count, and a later message without a row's text does not hide the question."""
    known = AnswerBook(KnownAnswer(text, text, "x") for text in ("2+2?", "3+3?", "a\nb")).find(messages)
    assert (None if known is None else known.sample) == sample


def test_large_book_is_searched_by_the_message() -> None:
    """100,000 rows cost no more looks than ten: as many as the message has places for a text to begin."""
    rows = [
        KnownAnswer(str(i), f"What is the square of the number {i}, written out?", str(i * i)) for i in range(100_000)
    ]
    book = AnswerBook(rows)
    known = book.find([{"role": "user", "content": f"Please: {rows[77_777].text} Thanks."}])
    assert known == rows[77_777]
