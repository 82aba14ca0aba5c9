"""What a simulated model says: the right answer in a style, or a wrong one that no usual grader takes for right.

Enters: the right answer as text. Leaves: the text of a reply. Kept always: a wrong reply does not contain the right
answer (in any case; for a single letter, in its own case), a number comes last in the text, JSON stays parseable.
"""

import json
import math
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Any, Final, Literal

from evalrun.simulator.codec import parse_json

Style = Literal["plain", "sentence", "reasoned"]
Pick = Callable[[str], float]
"""Gives a number in (0, 1) for a purpose, always the same one."""

_STYLES: Final[Sequence[Style]] = ("reasoned", "sentence", "plain")
# No digit, no letter standing alone, no capital but the first: nothing here can be read as a number or a choice.
_REASONING: Final = (
    "Working through the question step by step, the parts fit together.",
    "Looking at what is given and at what is asked, the rest follows.",
    "Comparing the facts in turn leaves only this.",
)
_OPPOSITES: Final = {
    "yes": "no",
    "no": "yes",
    "true": "false",
    "false": "true",
    "positive": "negative",
    "negative": "positive",
    "pass": "fail",
    "fail": "pass",
}
# "copper" and "silk" share no letter, so that at least one word of this list lacks any given text.
_LATIN_WORDS: Final = ("copper", "silk", "Lisbon", "violet", "Tuesday", "granite", "Mozart", "dolphin", "cedar", "Peru")
_SCRIPT_WORDS: Final = (
    (0x0370, 0x03FF, ("Αθήνα", "χαλκός", "Τρίτη", "μπλε")),
    (0x0400, 0x052F, ("Байкал", "медь", "вторник", "дуб")),
    (0x0590, 0x05FF, ("חיפה", "נחושת", "שלג", "זית")),
    (0x0600, 0x06FF, ("دمشق", "نحاس", "ربيع", "زيتون")),
    (0x0900, 0x097F, ("जयपुर", "ताँबा", "मंगल", "नीला")),
    (0x0E00, 0x0E7F, ("เชียงใหม่", "ทองแดง", "วันอังคาร", "สีม่วง")),
    (0x3040, 0x30FF, ("さくら", "みどり", "オルガン", "ふゆ")),
    (0xAC00, 0xD7AF, ("부산", "구리", "화요일", "보라")),
    (0x3400, 0x9FFF, ("杭州", "黄铜", "星期二", "紫色")),
)
_CHINESE_NUMERALS: Final = ("三", "七", "十二", "四十", "九", "五十六")
_CHINESE_NUMERAL: Final = re.compile(r"[〇零一二三四五六七八九十百千万萬亿億两兩]+")
_MAX_LEAVES: Final = 64
_LETTER: Final = re.compile(r"(?P<head>[(\[]?)(?P<letter>[A-Za-z])(?P<tail>[)\].:]?)")
_LETTER_POOLS: Final = ("ABCD", "ABCDEFGHIJ", "ABCDEFGHIJKLMNOPQRSTUVWXYZ")
_NUMBER: Final = re.compile(
    r"(?P<head>[-+−]?\s?[^\w\s.,+−-]?\s?[-+−]?)"
    r"(?P<whole>\d{1,3}(?:,\d{3})+|\d{0,400})(?:\.(?P<decimals>\d{1,400}))?"
    r"(?P<tail>(?:[eE][-+]?\d{1,3})?(?:\s?/\s?\d{1,400})?\s?[%‰°]?)",
)


def make_right_text(answer: str, style: Style, pick: Pick) -> str:
    """Return a reply that says the right answer: alone (`plain`, byte for byte), or wrapped as the style asks."""
    return answer if style == "plain" else _wrap(answer.strip(), style, pick)


def make_wrong_text(answer: str, style: Style, pick: Pick) -> str:
    """Return a reply that is wrong for certain: another number, letter, word, or JSON with one value changed.

    A style whose own words hold the right answer ("answer", "is") gives way to a plainer one.
    """
    right = answer.strip()
    styles = _STYLES[_STYLES.index(style) :]
    for wrong in _scan_wrong_answers(right, pick):
        for candidate in styles:
            text = _wrap(wrong, candidate, pick)
            if not _holds(text, right):
                return text
    msg = f"no wrong answer to {right!r}: the last resort holds it"
    raise AssertionError(msg)


def _wrap(answer: str, style: Style, pick: Pick) -> str:
    if style == "plain":
        return answer
    if _read_json(answer) is not None:
        # JSON with prose around it is no JSON; one with a fence of its own could not be fenced.
        return answer if "```" in answer else f"```json\n{answer}\n```"
    if style == "sentence":
        return f"The answer is {answer}" + ("" if answer.endswith(".") else ".")
    return f"{_choose(_REASONING, pick('reasoning'))[0]}\nAnswer: {answer}"


def _scan_wrong_answers(right: str, pick: Pick) -> Iterator[str]:
    """Yield wrong answers, the most plausible kind first; the last ones fit whatever was right."""
    value = _read_json(right)
    if value is not None:
        yield from _scan_wrong_json(value, pick)
    elif match := _LETTER.fullmatch(right):
        yield from _scan_wrong_letters(match, pick)
    elif (match := _NUMBER.fullmatch(right)) and (match["whole"] or match["decimals"]):
        yield from _scan_wrong_numbers(match, pick)
    yield from _scan_wrong_words(right, pick)


def _scan_wrong_letters(match: re.Match[str], pick: Pick) -> Iterator[str]:
    letter = match["letter"]
    pool = next(pool for pool in _LETTER_POOLS if letter.upper() in pool)
    for other in _choose(pool.replace(letter.upper(), ""), pick("wrong")):
        yield match["head"] + (other if letter.isupper() else other.lower()) + match["tail"]


def _scan_wrong_numbers(match: re.Match[str], pick: Pick) -> Iterator[str]:
    """Yield numbers of the same form and script that differ by a tenth at least."""
    whole, decimals = match["whole"], match["decimals"] or ""
    digits = whole.replace(",", "") + decimals
    value = int(digits)
    step = max(2, value // 10)
    near = (value + step, value - step, value + 2 * step, 2 * value + step, value + 5 * step, value // 2)
    # Last resort: 11…1 to 99…9. A number of the same length holds the right one only if it is the right one.
    far = (int(str(digit) * len(digits)) for digit in range(1, 10))
    for number in chain(_choose(near, pick("wrong")), far):
        if number >= 0 and number != value:
            text = str(number).zfill(len(digits))
            cut = len(text) - len(decimals)
            head = f"{int(text[:cut]):,}" if "," in whole else text[:cut]
            text = f"{head}.{text[cut:]}" if decimals else head
            yield match["head"] + _write_digits_like(digits[0], text) + match["tail"]


def _write_digits_like(digit: str, text: str) -> str:
    """Write ASCII digits in the script of `digit`: Thai, Arabic-Indic, full-width and others."""
    zero = ord(digit) - unicodedata.decimal(digit)
    return text.translate({ord("0") + n: zero + n for n in range(10)})


def _scan_wrong_words(right: str, pick: Pick) -> Iterator[str]:
    if opposite := _OPPOSITES.get(right.casefold()):
        yield opposite.upper() if right.isupper() else opposite.title() if right.istitle() else opposite
    if _CHINESE_NUMERAL.fullmatch(right):
        yield from _choose(_CHINESE_NUMERALS, pick("wrong"))
    code = next((ord(char) for char in right if char.isalpha()), 0)
    for low, high, words in _SCRIPT_WORDS:
        if low <= code <= high:
            yield from _choose(words, pick("wrong"))
    yield from _choose(_LATIN_WORDS, pick("wrong"))


def _scan_wrong_json(value: Any, pick: Pick) -> Iterator[str]:
    """Yield the JSON value with one of its leaves changed, another leaf each time; none when it is nested too deep."""
    try:
        leaves = _choose(range(min(_count_leaves(value), _MAX_LEAVES)), pick("leaf"))
        changed = [json.dumps(_change_leaf(value, [leaf], pick), ensure_ascii=False) for leaf in leaves[:2]]
    except RecursionError:
        return
    yield from changed


def _count_leaves(value: Any) -> int:
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return sum(_count_leaves(child) for child in children) or 1


def _change_leaf(value: Any, countdown: list[int], pick: Pick) -> Any:
    """Copy a JSON value; the leaf that the countdown ends at is replaced by one of the same type."""
    if isinstance(value, dict) and value:
        return {key: _change_leaf(child, countdown, pick) for key, child in value.items()}
    if isinstance(value, list) and value:
        return [_change_leaf(child, countdown, pick) for child in value]
    countdown[0] -= 1
    return _replace_leaf(value, pick) if countdown[0] == -1 else value


def _replace_leaf(value: Any, pick: Pick) -> Any:
    match value:
        case bool():
            return not value
        case int():
            return value + max(2, abs(value) // 10)
        case float():
            changed = value * 1.5 + 1
            return changed if math.isfinite(changed) and changed != value else 0.5
        case str():
            return make_wrong_text(value, "plain", pick) if value.strip() else "none"
        case dict():
            return {"value": "none"}
        case list():
            return ["none"]
        case _:
            return "none"


def _read_json(text: str) -> dict[str, Any] | list[Any] | None:
    """Return the JSON object or array that a text is; None when it is something else."""
    if not text.startswith(("{", "[")):
        return None
    try:
        value: dict[str, Any] | list[Any] = parse_json(text.encode("utf-8", "surrogatepass"))
    except ValueError:
        return None
    return value


def _holds(text: str, right: str) -> bool:
    """Tell whether a grader that looks for the right answer could find it in a text."""
    if _LETTER.fullmatch(right):
        return right in text
    return any(fold(right) in fold(text) for fold in (str.lower, str.casefold, _fold_compatible))


def _fold_compatible(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()


def _choose(items: Sequence[Any], uniform: float) -> Sequence[Any]:
    """Return the items, turned so that the drawn one comes first."""
    start = int(uniform * len(items))
    return [*items[start:], *items[:start]]
