"""Right answers for clients that send no headers of ours: found by the text that a row and a prompt share.

Enters: rows of id, text and answer; later the messages of a request. Leaves: the id and the answer of the row whose
text stands in a user message, the last one that holds any; of several rows the one with the longest text, of equal ones
the one that comes last. The time to find one grows with the messages, not with the number of rows.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

_KEY_CHARS: Final = 32
"""Of a text that are looked up; what follows is compared only where these are met."""


class KnownAnswer(NamedTuple):
    """One row of the book."""

    sample: str
    """The row's id."""
    text: str
    """What a prompt about the row contains."""
    answer: str


class AnswerBook:
    """Finds the row that a request is about.

    Args:
        rows: White space around their texts does not count; a row without text or answer cannot be found.
    """

    def __init__(self, rows: Iterable[KnownAnswer]) -> None:
        self.n_rows = 0
        """Rows that can be found."""
        self.n_unusable = 0
        """Rows that cannot: without text or answer, or with the text of an earlier row."""
        # By the length of the key, then by the key: texts shorter than a whole key are keys themselves.
        self._rows: dict[int, dict[str, list[KnownAnswer]]] = {}
        seen: set[str] = set()
        for row in rows:
            text = row.text.strip()
            if not text or not row.answer.strip() or text in seen:
                self.n_unusable += 1
                continue
            seen.add(text)
            self.n_rows += 1
            key = text[:_KEY_CHARS]
            self._rows.setdefault(len(key), {}).setdefault(key, []).append(row._replace(text=text))

    def find(self, messages: Sequence[Mapping[str, Any]]) -> KnownAnswer | None:
        """Return the row that a conversation is about; None when no row's text is in it."""
        found = (self._find_in(text) for text in scan_user_texts(messages))
        return next((known for known in found if known is not None), None)

    def _find_in(self, message: str) -> KnownAnswer | None:
        best: KnownAnswer | None = None
        best_start = -1
        for n_chars, rows in self._rows.items():
            for start in range(len(message) - n_chars + 1):
                for row in rows.get(message[start : start + n_chars], ()):
                    is_better = best is None or (len(row.text), start) > (len(best.text), best_start)
                    if is_better and message.startswith(row.text, start):
                        best, best_start = row, start
        return best


def scan_user_texts(messages: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield the texts of the user messages, the last one first, their parts joined by newlines."""
    for message in reversed(messages):
        if message.get("role") == "user":
            content = message["content"]
            is_text = isinstance(content, str)
            yield content if is_text else "\n".join(part["text"] for part in content if part["type"] == "text")
