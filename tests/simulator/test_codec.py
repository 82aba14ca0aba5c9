"""Tests of the simulator's JSON."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalrun.simulator.codec import encode_canonical, encode_json, parse_json

any_text = st.text(st.characters(exclude_categories=()))


@given(any_text)
def test_json_carries_every_text_both_ways(text: str) -> None:
    """Lone surrogates, which real datasets hold, survive parsing and encoding."""
    assert parse_json(json.dumps([text]).encode()) == [text]
    assert json.loads(encode_json([text])) == [text]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"NaN",
        b'["\\ud800", NaN]',
        b'["\\ud800", -Infinity]',
        b'["\\ud800", 1e999]',
        b"\xff",
        b'"\\ud800" \xff',
        b"[" * 100_000,
        b'"\\ud800"' + b"[" * 100_000,
        b'[{"a": "\\ud800", "b": ' + b"[" * 100_000,
    ],
)
def test_json_refuses_what_is_not_json(data: bytes) -> None:
    """NaN, infinities, bad UTF-8, broken and endlessly nested texts are a ValueError, never another error."""
    with pytest.raises(ValueError, match=r"."):
        parse_json(data)


@pytest.mark.parametrize("text", ["plain", "\ud800"])
def test_canonical_body_has_one_form(text: str) -> None:
    """Key order and the way of sending do not count; everything else does."""
    body = {"model": "m", "n": 1, "user": text}
    turned = {"user": text, "stream": True, "n": 1, "stream_options": {}, "model": "m"}
    assert encode_canonical(body) == encode_canonical(turned)
    assert encode_canonical(body) != encode_canonical({**body, "n": 2})
