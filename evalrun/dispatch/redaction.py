"""Takes loaded secrets out of everything that came from outside, before anyone else sees it.

Texts and bytes enter and leave; a secret is found by exact match: as it is, as any JSON writer may escape it (each sign
by itself, as some escape `+` or `/`), in base64, and percent-encoded.
"""

import base64
import json
import re
from collections.abc import Iterable
from urllib.parse import quote

MASK = "***"
_URL_SAFE = str.maketrans("+/", "-_")
_MIN_SECRET_CHARS = 8
"""Shorter values are placeholders (`EMPTY`, `ollama`): masking them would change answers and hide nothing."""


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
            forms |= {secret, coded, coded.translate(_URL_SAFE), quote(secret, safe="")}
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
        return self._escaped.sub(MASK, text) if self._escaped is not None and "\\" in text else text

    def redact_bytes(self, content: bytes) -> bytes:
        """Return the content with every secret masked; the same object when it holds none."""
        for form in self._bytes:
            if form in content:
                content = content.replace(form, MASK.encode())
        if self._escaped_bytes is not None and b"\\" in content and self._escaped_bytes.search(content):
            content = self._escaped_bytes.sub(MASK.encode(), content)
        return content


def _match_escaped(secret: str) -> str:
    """Return a pattern that finds a secret in JSON text, whichever of its signs are escaped."""
    return "".join(map(_match_sign, secret))


def _match_sign(sign: str) -> str:
    units = sign.encode("utf-16-be")
    codes = "".join(f"\\\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))
    # A hexadecimal digit may be of either case; the rest of the escape is as it is.
    either = re.sub("[a-f]", lambda digit: f"[{digit.group()}{digit.group().upper()}]", codes)
    plain = json.dumps(sign, ensure_ascii=False)[1:-1]
    return f"(?:{re.escape(sign)}|{re.escape(plain)}|\\\\?{re.escape(sign)}|{either})"
