"""Takes loaded secrets out of everything that came from outside, before anyone else sees it.

Texts and bytes enter and leave; a secret is found as it is, in base64, in HTML, percent-encoded, and as any JSON writer
may escape it: each sign by itself, as some escape `+` or `/`, and again for each JSON text that holds the other.
"""

import base64
import html
import re
from collections.abc import Iterable, Mapping

MASK = "***"
_URL_SAFE = str.maketrans("+/", "-_")
_MIN_SECRET_CHARS = 8
"""Shorter values are placeholders (`EMPTY`, `ollama`): masking them would change answers and hide nothing."""
_SIGNS = re.compile(r"\\+|[^\\]")
_SOME, _ANY = r"\\{1,15}+", r"\\{0,15}+"
"""Backslashes, as many as JSON puts before a sign that it wraps four times; more would make long runs of them slow."""


class Redactor:
    """Masks a fixed set of secrets.

    Args:
        secrets: Key and secret header values; those shorter than 8 characters are not masked.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        kept = [secret for secret in secrets if len(secret) >= _MIN_SECRET_CHARS]
        forms: set[str] = set()
        for secret in kept:
            coded = base64.b64encode(secret.encode()).decode().rstrip("=")
            forms |= {secret, coded, coded.translate(_URL_SAFE), html.escape(secret)}
        # The longest first, so that a secret within another one does not leave a part of it behind.
        self._texts = sorted(forms, key=len, reverse=True)
        self._bytes = [form.encode() for form in self._texts]
        longest_first = sorted(kept, key=len, reverse=True)
        self._escaped = re.compile("|".join(map(_match_escaped, longest_first))) if kept else None
        self._escaped_bytes = re.compile(self._escaped.pattern.encode()) if self._escaped is not None else None

    def __repr__(self) -> str:
        return f"Redactor({MASK})"

    def redact(self, text: str) -> str:
        """Return the text with every secret masked."""
        for form in self._texts:
            text = text.replace(form, MASK)
        is_escaped = "\\" in text or "%" in text
        return self._escaped.sub(MASK, text) if self._escaped is not None and is_escaped else text

    def redact_values(self, fields: Mapping[str, str]) -> Mapping[str, str]:
        """Return named texts with every secret masked; the same object when they hold none."""
        together = "\n".join(fields.values())
        if self.redact(together) == together:
            return fields
        return {name: self.redact(text) for name, text in fields.items()}

    def redact_bytes(self, content: bytes) -> bytes:
        """Return the content with every secret masked; the same object when it holds none."""
        for form in self._bytes:
            if form in content:
                content = content.replace(form, MASK.encode())
        is_escaped = b"\\" in content or b"%" in content
        if self._escaped_bytes is not None and is_escaped and self._escaped_bytes.search(content):
            content = self._escaped_bytes.sub(MASK.encode(), content)
        return content


def _match_escaped(secret: str) -> str:
    """Return a pattern that finds a secret in escaped text, whichever of its signs are escaped, and however often."""
    return "".join(map(_match_signs, _SIGNS.findall(secret)))


def _match_signs(signs: str) -> str:
    """Return a pattern of one sign, or of a run of backslashes.

    No text fits it in two ways, and its repeats are bounded and possessive: a text that holds only the beginning of a
    secret is searched in one pass, where any choice would double the time with each sign.
    """
    if signs.startswith("\\"):
        return rf"(?:(?:{_SOME}u005[cC])++|(?:%5[cC])++|{_SOME})"
    units = signs.encode("utf-16-be").hex(" ", 2).split()
    escaped = "".join(f"{_SOME}u{_match_hexadecimal(unit)}" for unit in units)
    percent = "".join(f"%{_match_hexadecimal(byte)}" for byte in signs.encode().hex(" ").split())
    return f"(?:{escaped}|{percent}|{_ANY}{re.escape(signs)})"


def _match_hexadecimal(digits: str) -> str:
    return re.sub("[a-f]", lambda digit: f"[{digit.group()}{digit.group().upper()}]", digits)
