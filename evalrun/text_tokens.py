"""About how many tokens a text has, by rule and as the answers of a model teach.

No tokenizer is asked: they are large, and download their vocabularies. A text is split into kinds (words, digits,
signs, Han, Thai, …); each has a rate, fitted to the o200k vocabulary. A model that counts otherwise tells so with its
first answers: what each kind takes is then learned, which one ratio for all texts could not express.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from operator import mul
from typing import Any, Final

PART_TOKENS = 800
"""A content part that is not text: an image, a sound or a file. Providers differ widely."""
REPLY_TOKENS = 3
"""What the chat format adds before the reply."""
MESSAGE_TOKENS = 4
"""What the chat format adds to each message."""
MAX_LEARNED = 64
"""Answers that an estimator learns from; a later one would move it little and cost as much."""
HIDDEN_TOKENS = 4000
"""What a server may add to a prompt unseen (its own instructions, definitions of tools) and still be believed."""

_WORDS, _LONG, _DIGITS, _SPACE, _SIGNS, _HAN, _KANA, _HANGUL, _ALPHABETS, _ABUGIDAS, _SYMBOLS = range(11)
_N_KINDS = 11
_FRAME, _PARTS = 11, 12
"""Places of the kinds in a list of counts; an estimator's own two follow them."""

_MAX_SHORT_LETTERS = 7
_LONG_RATE, _WORD_RATE = 0.2, 1.05
_DIGITS_RATE, _SPACED_DIGITS_RATE = 1.15, 0.95
_SPACE_RATE = 1.3
_SIGN_RUN_RATE, _SIGN_RATE = 0.5, 0.15
_ACCENT_RATE = 0.2
"""Tokens of a word, of each letter above seven, of up to three digits, of the single space before them (that before a
word costs nothing), of any other white space, of a run of punctuation and of each of its signs, and of a letter with an
accent beside what its word takes. Least squares of relative errors over o200k's counts of 2,000 short texts."""


def _make_table(kind: Callable[[str], bool]) -> bytes:
    """Return a table that leaves one kind of ASCII characters; all other bytes become spaces."""
    return bytes([code if code < 128 and kind(chr(code)) else 32 for code in range(256)])


def _is_sign(char: str) -> bool:
    return not char.isalnum() and not char.isspace()


_WORD_TABLE, _DIGIT_TABLE, _SIGN_TABLE = map(_make_table, (str.isalpha, str.isdigit, _is_sign))
_NO_SIGNS = bytes([code for code in range(256) if _SIGN_TABLE[code] == 32])
_SPACE_TABLE = bytes([(95 if code == 32 else 46) if code < 128 and chr(code).isspace() else 32 for code in range(256)])
"""White space becomes visible, a blank as `_` and all else as `.`, and what is visible becomes blank."""
_SHAPE_TABLE = bytes([48 if 48 <= code <= 57 else 32 if code == 32 else 46 for code in range(256)])

_ACCENTED = re.compile("[\u00c0-\u024f\u1e00-\u1eff]")
_NO_LEADS = bytes(range(0xC0))
_LEADS: Final = (
    (_SYMBOLS, 1.2, 0xC2, 0xC2),  # Signs of Latin-1: § ° « ».
    (_ALPHABETS, 0.4, 0xCC, 0xCF),  # Greek.
    (_ALPHABETS, 0.29, 0xD0, 0xD5),  # Cyrillic; Armenian, which takes more.
    (_ALPHABETS, 0.48, 0xD6, 0xD7),  # Hebrew.
    (_ALPHABETS, 0.38, 0xD8, 0xDF),  # Arabic.
    (_ABUGIDAS, 0.38, 0xE0, 0xE0),  # Devanagari to Thai.
    (_ABUGIDAS, 0.64, 0xE1, 0xE1),  # Burmese, Georgian, Khmer.
    (_SYMBOLS, 1.15, 0xE2, 0xE2),  # Dashes, typographic quotes, arrows, box drawing.
    (_KANA, 0.73, 0xE3, 0xE3),
    (_HAN, 0.77, 0xE4, 0xE9),
    (_HANGUL, 0.77, 0xEA, 0xED),
    (_KANA, 1.0, 0xEE, 0xEF),  # Full-width signs.
    (_SYMBOLS, 1.9, 0xF0, 0xFF),  # Emoji.
)
"""Kind and tokens of a character by the first byte of its UTF-8, which tells the script."""
_LEAD_SETS: Final = tuple((kind, rate, bytes(range(first, last + 1))) for kind, rate, first, last in _LEADS)


def estimate_tokens(text: str) -> int:
    """Return about how many tokens a text has; 0 for "".

    A word is one token and a bit more when long, three digits are one, a run of white space is one unless it is the
    single space before a word, a character of another script has the rate of its script.
    """
    return round(sum(_count_kinds(text)))


def _count_kinds(text: str) -> list[float]:
    """Return the tokens of each kind, by rule; of the ASCII kinds alone when the text has no others."""
    if text.isascii():
        return _count_ascii_kinds(text.encode())
    # A letter with an accent does not end a word.
    text, n_accents = _ACCENTED.subn("e", text)
    data = text.encode(errors="replace")
    counts = [*_count_ascii_kinds(data), *[0.0] * (_N_KINDS - _HAN)]
    counts[_ALPHABETS] = _ACCENT_RATE * n_accents
    leads = data.translate(None, _NO_LEADS)
    for kind, rate, lead_set in _LEAD_SETS:
        n_others = len(leads.translate(None, lead_set)) if leads else 0
        counts[kind] += rate * (len(leads) - n_others)
    return counts


def _count_ascii_kinds(data: bytes) -> list[float]:
    """Return the tokens of a text's ASCII characters by kind: a kind's runs are what a split leaves of it."""
    words = data.translate(_WORD_TABLE).split()
    long = sum([len(run) - _MAX_SHORT_LETTERS for run in words if len(run) > _MAX_SHORT_LETTERS])
    digits = sum([(len(run) + 2) // 3 for run in data.translate(_DIGIT_TABLE).split()])
    spaced = data.translate(_SHAPE_TABLE).count(b" 0") if digits else 0
    spaces = data.translate(_SPACE_TABLE).split()
    n_sign_runs, n_signs = len(data.translate(_SIGN_TABLE).split()), len(data.translate(None, _NO_SIGNS))
    return [
        _WORD_RATE * len(words),
        _LONG_RATE * long,
        _DIGITS_RATE * digits + _SPACED_DIGITS_RATE * spaced,
        _SPACE_RATE * (len(spaces) - spaces.count(b"_")),
        _SIGN_RUN_RATE * n_sign_runs + _SIGN_RATE * n_signs,
    ]


def estimate_message_tokens(messages: Sequence[Mapping[str, Any]], count: Callable[[str], float]) -> float:
    """Return about how many prompt tokens a list of messages has.

    Args:
        messages: Chat messages.
        count: Gives the tokens of a text.
    """
    texts, n_parts = _list_texts(messages)
    return _count_frame(messages) + PART_TOKENS * n_parts + sum(map(count, texts))


def _count_frame(messages: Sequence[Mapping[str, Any]]) -> float:
    return float(REPLY_TOKENS + MESSAGE_TOKENS * len(messages))


def _list_texts(messages: Sequence[Mapping[str, Any]]) -> tuple[list[str], int]:
    """Return the texts of messages, and how many parts are none."""
    texts, n_parts = [], 0
    for message in messages:
        content = message.get("content")
        if isinstance(content, str):
            texts.append(content)
        elif isinstance(content, list):
            for part in content:
                text = part.get("text") if isinstance(part, Mapping) else None
                if isinstance(text, str):
                    texts.append(text)
                else:
                    n_parts += 1
    return texts, n_parts


class TokenEstimator:
    """About how many tokens one model's texts have: by rule at first, then as its answers teach.

    What a kind of text takes is its rule times a factor; the factors, and what the server adds to every prompt, are
    learned together from the prompts' counts, as a Bayesian linear regression: each answer moves what it speaks of as
    far as that was uncertain, and nothing else. Estimates stay within four times of the rule, for prompts within eight
    times and what a server may add unseen, whatever was told.
    """

    __slots__ = ("_covariance", "_factors", "n_learned")

    def __init__(self) -> None:
        """Begin with the rule."""
        self.n_learned = 0
        """Answers that it was taught by, at most `MAX_LEARNED`."""
        self._factors = list(_PRIOR_FACTORS)
        self._covariance = [
            [deviation * deviation if row == column else 0.0 for column in range(_N_FACTORS)]
            for row, deviation in enumerate(_PRIOR_DEVIATIONS)
        ]

    def estimate_text(self, text: str) -> float:
        """Return about how many tokens a text has; 0.0 for ""."""
        counts = _count_kinds(text)
        if not self.n_learned:
            return sum(counts)
        # A text of ASCII has the first kinds only.
        return _hold(sum(map(mul, counts, self._factors)), sum(counts), ratio=_MAX_TEXT_RATIO)

    def estimate_messages(self, messages: Sequence[Mapping[str, Any]]) -> float:
        """Return about how many prompt tokens a list of messages has."""
        return self._estimate(_weigh_messages(messages), _count_frame(messages))

    def learn(self, messages: Sequence[Mapping[str, Any]], prompt_tokens: int) -> None:
        """Learn from the count that a reply reports; after `MAX_LEARNED` of them nothing more.

        A count that is far from what such messages can have teaches nothing.

        Args:
            messages: Those of its request.
            prompt_tokens: As reported, cached ones included.
        """
        if self.n_learned >= MAX_LEARNED:
            return
        self.n_learned += 1
        counts, frame = _weigh_messages(messages), _count_frame(messages)
        rule = sum(counts) - counts[_FRAME] + frame
        if not rule / _MAX_PROMPT_RATIO <= prompt_tokens <= _MAX_PROMPT_RATIO * rule + HIDDEN_TOKENS:
            return
        surprise = prompt_tokens - frame - sum(map(mul, counts, self._factors))
        self._update(counts, surprise, noise=_NOISE_RATIO * rule + _NOISE_TOKENS)

    def _estimate(self, counts: list[float], frame: float) -> float:
        rule = sum(counts) - counts[_FRAME] + frame
        if not self.n_learned:
            return rule
        learned = frame + sum(map(mul, counts, self._factors))
        return _hold(learned, rule, ratio=_MAX_PROMPT_RATIO, spare=HIDDEN_TOKENS)

    def _update(self, counts: list[float], surprise: float, *, noise: float) -> None:
        """Take one observation in: a Kalman filter's step for one number.

        Args:
            counts: What was counted of each kind.
            surprise: How far what was told lies above what was expected.
            noise: Standard deviation of a count about the best that factors can say.
        """
        leaning = [sum(map(mul, row, counts)) for row in self._covariance]
        variance = noise * noise + sum(map(mul, leaning, counts))
        for place, lean in enumerate(leaning):
            if lean:
                gain = lean / variance
                self._factors[place] += gain * surprise
                row = self._covariance[place]
                self._covariance[place] = [value - gain * other for value, other in zip(row, leaning, strict=True)]


_PRIOR_FACTORS: Final = (*[1.0] * _N_KINDS, 0.0, 1.0)
_PRIOR_DEVIATIONS: Final = (0.2, 0.4, 0.3, 0.4, 0.4, *[1.0] * (_N_KINDS - _HAN), 8.0, 1.0)
_N_FACTORS = len(_PRIOR_FACTORS)
"""How far tokenizers lie from the rules, kind by kind: a fifth more or less for English, thrice as much for Thai.
Servers add some tokens of their own, and a part's size is anyone's guess."""
_NOISE_RATIO, _NOISE_TOKENS = 0.06, 1.0
"""Texts of one sort waver by some 6 % about the best factors."""
_MAX_TEXT_RATIO, _MAX_PROMPT_RATIO = 4.0, 8.0


def _weigh_messages(messages: Sequence[Mapping[str, Any]]) -> list[float]:
    """Return the tokens of messages by kind, then 1 for the frame, then those of parts that are no text."""
    texts, n_parts = _list_texts(messages)
    totals = [0.0] * _N_KINDS
    for text in texts:
        for kind, count in enumerate(_count_kinds(text)):
            totals[kind] += count
    return [*totals, 1.0, float(PART_TOKENS * n_parts)]


def _hold(value: float, rule: float, *, ratio: float, spare: float = 0.0) -> float:
    """Return a value within so many times of the rule."""
    return min(max(value, rule / ratio), ratio * rule + spare)
