"""About how many tokens a text has.

No tokenizer is asked: they are large, and download their vocabularies. A class of characters has a rate instead, which
is within about 20 % of o200k on prose, code, JSON and Chinese.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

PART_TOKENS = 800
"""A content part that is not text: an image, a sound or a file. Providers differ widely."""
REPLY_TOKENS = 3
"""What the chat format adds before the reply."""
MESSAGE_TOKENS = 4
"""What the chat format adds to each message."""
_CLASSES = re.compile(
    r"(?P<word>[A-Za-z]+)|(?P<digits>[0-9]+)|(?P<space>\s+)"
    r"|(?P<cjk>[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]+)"
    r"|(?P<ascii>[!-/:-@\[-`{-~]+)|(?P<other>[^\s!-~\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]+)"
)
_ASCII_KINDS = [match.lastgroup if (match := _CLASSES.match(chr(code))) else None for code in range(128)]


def _make_table(kind: str) -> bytes:
    """Return a table that leaves only one class's characters: all others become spaces, and spaces `_` or `.`."""
    shown = [code if kind != "space" else ord("_" if code == ord(" ") else ".") for code in range(128)]
    kept = [shown[code] if each == kind else ord(" ") for code, each in enumerate(_ASCII_KINDS)]
    return bytes([*kept, *[ord(" ")] * 128])


_WORD_TABLE, _DIGIT_TABLE, _SPACE_TABLE, _SIGN_TABLE, _OTHER_TABLE = map(
    _make_table, ("word", "digits", "space", "ascii", "other")
)
_LETTERS_PER_TOKEN = 2.5
"""Of scripts that are neither Latin nor CJK (Thai, Arabic, Cyrillic)."""


def estimate_tokens(text: str) -> int:
    """Return about how many tokens a text has; 0 for "".

    A word is one token and a bit more when long, three digits are one, a run of white space is one unless it is the
    single space before a word, a CJK character is three quarters, punctuation goes by its length.
    """
    if text.isascii():
        return round(_count_ascii_tokens(text.encode()))
    total = 0.0
    for match in _CLASSES.finditer(text):
        kind, run = match.lastgroup, match.group()
        length = len(run)
        if kind == "word":
            total += 1 + max(0, length - 7) / 5
        elif kind == "digits":
            total += -(-length // 3)
        elif kind == "space":
            total += 0 if run == " " else 1
        elif kind == "cjk":
            total += 0.75 * length
        elif kind == "ascii":
            total += max(1, length / 2.2)
        else:
            total += max(1, length / _LETTERS_PER_TOKEN)
    return round(total)


def _count_ascii_tokens(text: bytes) -> float:
    """Return the tokens of a text without any other letter: a class's runs are what a split leaves of it.

    Most texts are such, and this takes a fifth of going from run to run.
    """
    words = text.translate(_WORD_TABLE).split()
    total = len(words) + sum([len(run) - 7 for run in words if len(run) > 7]) / 5
    total += sum([-(-len(run) // 3) for run in text.translate(_DIGIT_TABLE).split()])
    spaces = text.translate(_SPACE_TABLE).split()
    total += len(spaces) - spaces.count(b"_")
    total += sum([max(1, len(run) / 2.2) for run in text.translate(_SIGN_TABLE).split()])
    return total + sum([max(1, len(run) / _LETTERS_PER_TOKEN) for run in text.translate(_OTHER_TABLE).split()])


def estimate_message_tokens(messages: Sequence[Mapping[str, Any]], count: Callable[[str], float]) -> float:
    """Return about how many prompt tokens a list of messages has.

    Args:
        messages: Chat messages.
        count: Gives the tokens of a text.
    """
    total = float(REPLY_TOKENS)
    for message in messages:
        total += MESSAGE_TOKENS
        content = message.get("content")
        if isinstance(content, str):
            total += count(content)
        elif isinstance(content, list):
            for part in content:
                text = part.get("text") if isinstance(part, Mapping) else None
                total += count(text) if isinstance(text, str) else PART_TOKENS
    return total


class TokenEstimator:
    """About how many tokens one model's texts have: by rule at first, then as its answers teach."""

    def __init__(self) -> None:
        self.n_learned = 0
        """Answers that it learned from."""
        self._ratio = 1.0

    def estimate_text(self, text: str) -> float:
        """Return about how many tokens a text has."""
        return self._ratio * estimate_tokens(text)

    def estimate_messages(self, messages: Sequence[Mapping[str, Any]]) -> float:
        """Return about how many prompt tokens a list of messages has."""
        return self._ratio * estimate_message_tokens(messages, estimate_tokens)

    def learn(self, messages: Sequence[Mapping[str, Any]], prompt_tokens: int) -> None:
        """Learn from the count that a reply reports.

        Args:
            messages: Those of its request.
            prompt_tokens: As reported.
        """
        self.n_learned += 1
        told = prompt_tokens / max(estimate_message_tokens(messages, estimate_tokens), 1.0)
        self._ratio += (told - self._ratio) / self.n_learned
