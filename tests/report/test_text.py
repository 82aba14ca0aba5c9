"""Untrusted text is made fit to be shown."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalrun.report.text import clip, make_excerpt, make_visible, strip_for_xml


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, with\ttab and\nnewline", "plain, with\ttab and\nnewline"),
        ("\u202egnp", "‹U+202E›gnp"),
        ("a\u200bb", "a‹U+200B›b"),
        ("\ufeffstart", "‹U+FEFF›start"),
        ("\x1b[31m", "‹U+001B›[31m"),
        ("\x9b31m", "‹U+009B›31m"),
        ("one\r\ntwo", "one\ntwo"),
        ("one\rtwo", "one‹U+000D›two"),
        ("\U000e0041", "‹U+E0041›"),
        ("\ud800", "‹U+D800›"),
        ("soft\u00adhyphen", "soft‹U+00AD›hyphen"),
    ],
)
def test_make_visible_shows_what_cannot_be_seen(text: str, shown: str) -> None:
    """Invisible characters are written as their code point; ordinary ones stay."""
    assert make_visible(text) == shown


@pytest.mark.parametrize("text", ["ก็น้ำ", "中文,日本語", "العربية", "می‌خواهم", "क्‍ष", "👩‍👩‍👧‍👦", "❤️", "1️⃣", "naïve café"])
def test_make_visible_keeps_what_scripts_and_emoji_need(text: str) -> None:
    """Joiners and selectors stay where ordinary writing uses them."""
    assert make_visible(text) == text


@given(st.text())
def test_make_visible_changes_nothing_twice(text: str) -> None:
    """What is visible once stays as it is."""
    assert make_visible(make_visible(text)) == make_visible(text)


@given(st.text(alphabet=st.characters(categories=["Cs", "Cc", "Cf", "L"])))
def test_make_visible_leaves_text_that_can_be_written(text: str) -> None:
    """Whatever came in, what comes out is valid UTF-8 without control characters."""
    shown = make_visible(text)
    assert shown.encode().decode() == shown
    assert not any(ord(char) < 32 and char not in "\t\n" for char in shown)


def test_clip_counts_what_it_cuts() -> None:
    """A cut text says how much is missing and where the whole is."""
    assert clip("abcdef", 4) == "abcd … [2 more characters; the whole text is in results.parquet]"


def test_clip_leaves_a_short_text_alone() -> None:
    """A text of just the limit is not cut."""
    assert clip("abcd", 4) == "abcd"


@pytest.mark.parametrize(
    ("text", "excerpt"), [("  a \n b\t c ", "a b c"), ("abcdef", "abcd…"), ("", ""), ("abcde", "abcde")]
)
def test_make_excerpt_folds_and_cuts(text: str, excerpt: str) -> None:
    """An excerpt is one line of at most the given length."""
    assert make_excerpt(text, 5) == excerpt


@given(st.text())
def test_strip_for_xml_keeps_only_characters_of_xml(text: str) -> None:
    """What is left is what XML 1.0 calls a Char."""
    for char in strip_for_xml(text):
        code = ord(char)
        assert code in (9, 10, 13) or 0x20 <= code <= 0xD7FF or 0xE000 <= code <= 0xFFFD or code >= 0x10000
