"""Secrets: masked wherever they come back."""

import html
import json
import re
from collections.abc import Callable
from urllib.parse import quote

import pytest

from evalrun.dispatch.redaction import Redactor

SECRET = 'sk-canary/"quoted"+ü'


def test_secret_is_masked_in_every_form() -> None:
    """As it is, escaped by JSON, and with escaped slashes."""
    redactor = Redactor([SECRET])
    escaped = json.dumps(SECRET)
    texts = [f"a {SECRET} b", f"a {escaped} b", f"a {escaped.replace('/', chr(92) + '/')} b"]
    assert [redactor.redact(text) for text in texts] == ["a *** b", 'a "***" b', 'a "***" b']
    assert redactor.redact_bytes(texts[0].encode()) == b"a *** b"


def test_secret_within_a_secret_leaves_nothing() -> None:
    """The longer one is masked first."""
    assert Redactor(["sk-12345", "sk-12345-67890"]).redact("x sk-12345-67890 y") == "x *** y"


@pytest.mark.parametrize(
    ("write", "masked"),
    [
        (lambda text: json.dumps(json.dumps(text)), json.dumps(json.dumps("***"))),
        (lambda text: json.dumps(json.dumps(json.dumps(text))), json.dumps(json.dumps(json.dumps("***")))),
        (lambda text: "".join(f"\\u{ord(sign):04x}" for sign in text), "***"),
        (lambda text: json.dumps("".join(f"\\u{ord(sign):04X}" for sign in text)), '"***"'),
        (lambda text: re.sub("%..", lambda code: code.group().lower(), quote(text, safe="")), "***"),
        (lambda text: "".join(f"%{unit:02X}" for unit in text.encode()), "***"),
        (html.escape, "***"),
    ],
    ids=["twice", "three times", "all signs", "all signs, twice", "percent", "all signs by percent", "HTML"],
)
def test_secret_is_masked_however_deep_it_is_wrapped(write: Callable[[str], str], masked: str) -> None:
    """A key within a JSON text within a JSON text, or percent-encoded in small letters, is still a key."""
    secret = 'sk-"canary"\\ 7/+&='
    assert Redactor([secret]).redact(f"a {write(secret)} b") == f"a {masked} b"
    assert Redactor([secret]).redact_bytes(write(secret).encode()) == masked.encode()


@pytest.mark.parametrize("tail", ["…", "\\", "\\" * 100_000, "%"])
def test_half_a_secret_costs_no_time(tail: str) -> None:
    """A server that shows the beginning of the key (`sk-proj-abc…`) stops no run: the search goes on in one pass."""
    secret = "sk-proj-" + "abcDEF0123456789" * 8
    text = "\\n" + f"wrong key {secret[:-1]}{tail}" * 3
    assert Redactor([secret]).redact(text) == text
    assert Redactor([secret]).redact_bytes(text.encode()) == text.encode()


def test_clean_content_is_the_same_object() -> None:
    """Content without a secret is not copied, which is how masking is noticed."""
    content = b"nothing here"
    assert Redactor([SECRET]).redact_bytes(content) is content


def test_placeholder_keys_are_left_alone() -> None:
    """`EMPTY` and its like hide nothing; masking them would change answers."""
    assert Redactor(["EMPTY"]).redact("EMPTY set") == "EMPTY set"


def test_redactor_does_not_show_its_secrets() -> None:
    """Its repr is masked."""
    assert SECRET not in repr(Redactor([SECRET]))
