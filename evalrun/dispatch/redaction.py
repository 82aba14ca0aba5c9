"""Takes loaded secrets out of everything that came from outside, before anyone else sees it.

Texts and bytes enter and leave; a secret is found by exact match, as it is and as JSON would escape it.
"""

import json
from collections.abc import Iterable

MASK = "***"
_MIN_SECRET_CHARS = 8
"""Shorter values are placeholders (`EMPTY`, `ollama`): masking them would change answers and hide nothing."""


class Redactor:
    """Masks a fixed set of secrets.

    Args:
        secrets: Key and secret header values; those shorter than 8 characters are not masked.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        forms: set[str] = set()
        for secret in secrets:
            if len(secret) >= _MIN_SECRET_CHARS:
                escaped = json.dumps(secret)[1:-1]
                forms |= {secret, escaped, escaped.replace("/", "\\/")}
        # The longest first, so that a secret within another one does not leave a part of it behind.
        self._texts = sorted(forms, key=len, reverse=True)
        self._bytes = [form.encode() for form in self._texts]

    def __repr__(self) -> str:
        return f"Redactor({MASK})"

    def redact(self, text: str) -> str:
        """Return the text with every secret masked."""
        for form in self._texts:
            text = text.replace(form, MASK)
        return text

    def redact_bytes(self, content: bytes) -> bytes:
        """Return the content with every secret masked; the same object when it holds none."""
        for form in self._bytes:
            if form in content:
                content = content.replace(form, MASK.encode())
        return content
