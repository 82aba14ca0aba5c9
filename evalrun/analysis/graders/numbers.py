r"""Reading the last number of a text, exactly, as a fraction.

Read: 1,234.5 · 1,00,000 · −3 · .5 · 18. · $18 · -$5 · 12 % (= 12: the sign is ignored) · 1e3 · 1.5 × 10^3 · 1/2 ·
1 1/2 · ½ · \frac{1}{2} · digits of any script (１２, ๑๘, ١٢٫٥). Not joined: 1 234 (two numbers).
Separators are English: 1.234,5 ends in 5.
Not read: number words, 十二. A minus counts when it touches its number and nothing that ends a term stands before
it: "16-3" ends in 3, "x = -3" in −3. A date (1/2/2024) is three numbers.

A number never spans lines, so lines are read from the last one up and most of a long output is not read at all.
"""

import re
import unicodedata
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

MAX_NUMBER_CHARS = 400
"""A longer number is out of range: found, but without a value."""
MAX_EXPONENT = 400
"""So is one with an exponent beyond this."""

# Groups are repeated greedily, not possessively: Python 3.11.0 to 3.11.2 get possessive groups wrong.
_PLAIN = (
    r"(?:(?:[1-9][0-9]{0,2}(?:,[0-9]{3})+(?![0-9])|[1-9][0-9]?(?:,[0-9]{2}(?=,))+,[0-9]{3}(?![0-9])"
    r"|[1-9][0-9]{0,2}(?:_[0-9]{3})+(?![0-9_])|[0-9]++)(?:\.[0-9]++)?"
    r"|(?<![\w.])\.[0-9]++)"
)
_NUMBER = re.compile(
    r"(?=[-+.0-9])"
    r"(?:(?<![\w)\]}%-])(?P<sign>[-+])(?:\\?[$€£¥₹฿₩] ?)?)?"
    r"(?:"
    r"(?<![0-9]/)(?:(?<![0-9.,])(?P<whole>[0-9]++) )?"
    rf"(?P<numerator>{_PLAIN})[ \t]?/[ \t]?(?P<denominator>{_PLAIN})(?![0-9]|/[0-9])"
    r"|"
    rf"(?P<number>{_PLAIN})"
    r"(?:[eE](?P<exponent>[-+]?[0-9]++)(?![A-Za-z0-9_]|\.[0-9])"
    r"|[ \t]?(?:×|x|\*|·|\\times|\\cdot)[ \t]?10(?:\^|\*\*)\{?(?P<power>[-+]?[0-9]++)\}?)?"
    r")"
)
_LATEX_FRACTION = re.compile(r"\\[dt]?frac\s?\{\s?([0-9.,]{1,40})\s?\}\s?\{\s?([0-9.,]{1,40})\s?\}")
_FOREIGN = re.compile(r"[^\x00-\x7f]")
_BETWEEN_DIGITS = {"\uff0c": ",", "\uff0e": ".", "\u066b": ".", "\u066c": ","}
_SEPARATOR = re.compile(r"(?<=[0-9])[\uff0c\uff0e\u066b\u066c](?=[0-9])")
_SUBSTITUTES = {
    **dict.fromkeys("\u2212\u2010\u2011\u2012\u2013\ufe63\uff0d", "-"),  # minus, hyphens, figure and en dash
    **dict.fromkeys("\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069", ""),  # direction marks
    "\uff0b": "+",
    "\u2044": "/",
    "\u2215": "/",
    "\uff0f": "/",
    "\uff04": "$",
}


class FoundNumber(NamedTuple):
    """A number as it stands in a text."""

    text: str
    value: Fraction | None
    """None when it is out of range: longer than 400 characters, or an exponent beyond ±400."""


def find_last_number(text: str) -> FoundNumber | None:
    """Return the last number of a text, or None when it has none.

    Example:
        >>> find_last_number("16 - 3 = 13, so 1,013.5 in all.").value
        Fraction(2027, 2)
    """
    end = len(text)
    while end >= 0:
        start = text.rfind("\n", 0, end) + 1
        found = _find_in_line(text[start:end])
        if found is not None:
            return found
        end = start - 1
    return None


@lru_cache(maxsize=4096)
def read_expected_number(text: str) -> Fraction | None:
    """Return the value of the last number of an expected text; None when it has none, or none in range."""
    found = find_last_number(text)
    return found.value if found is not None else None


def render_number(value: Fraction) -> str:
    """Return a fraction as people write it: 18, 0.5, 1/3."""
    if value.denominator == 1:
        return str(value.numerator)
    as_float = float(value) if abs(value.numerator) < 10**300 and value.denominator < 10**300 else None
    if as_float is not None and Fraction(repr(as_float)) == value:
        return repr(as_float)
    return str(value)


def _find_in_line(line: str) -> FoundNumber | None:
    if not line.isascii():
        line = _normalise(line)
    if "\\frac" in line or "\\dfrac" in line or "\\tfrac" in line:
        line = _LATEX_FRACTION.sub(r"\1/\2", line)
    last = None
    for last in _NUMBER.finditer(line.replace("{,}", ",")):  # noqa: B007 - the last match is what is wanted
        pass
    return _read(last) if last is not None else None


def _normalise(line: str) -> str:
    line = _FOREIGN.sub(_normalise_character, line)
    return _SEPARATOR.sub(lambda match: _BETWEEN_DIGITS[match[0]], line)


def _normalise_character(match: re.Match[str]) -> str:
    character = match[0]
    substitute = _SUBSTITUTES.get(character)
    if substitute is not None:
        return substitute
    if character.isdecimal():
        return str(unicodedata.decimal(character))
    if unicodedata.decomposition(character).startswith("<fraction>"):
        return " " + unicodedata.normalize("NFKC", character).replace("\u2044", "/")
    return character


def _read(match: re.Match[str]) -> FoundNumber:
    text = match[0]
    if len(text) > MAX_NUMBER_CHARS:
        return FoundNumber(text[:40] + "…", None)
    sign = -1 if match["sign"] == "-" else 1
    if match["number"] is not None:
        exponent = match["exponent"] or match["power"] or "0"
        if len(exponent) > len(str(MAX_EXPONENT)) + 1 or abs(int(exponent)) > MAX_EXPONENT:
            return FoundNumber(text, None)
        return FoundNumber(text, sign * _read_plain(match["number"]) * Fraction(10) ** int(exponent))
    numerator, denominator = _read_plain(match["numerator"]), _read_plain(match["denominator"])
    if denominator == 0:
        return FoundNumber(match["denominator"], denominator)
    value = numerator / denominator
    if match["whole"] is not None and value < 1:
        return FoundNumber(text, sign * (int(match["whole"]) + value))
    # "12 7/3" is no mixed number: the fraction stands alone, and so does its sign, which belonged to the 12.
    return FoundNumber(text, value if match["whole"] is not None else sign * value)


def _read_plain(text: str) -> Fraction:
    digits = text.replace(",", "").replace("_", "")
    return Fraction(int(digits)) if digits.isdecimal() else Fraction(digits)
