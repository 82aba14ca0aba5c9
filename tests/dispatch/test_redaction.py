"""Secrets: masked wherever they come back."""

import json

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
