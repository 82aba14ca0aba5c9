"""What a plain scalar means: `true`, `false`, `null` and JSON's number forms; everything else is text.

YAML 1.1 readers take `no` for false, `010` for 8 and `1_000` for 1000; here such words stay what was written.
"""

import math
import re
from typing import Any

_JSON_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_WORDS: dict[str, Any] = {"true": True, "false": False, "null": None, "~": None, "": None}


def parse_plain(text: str) -> Any:
    """Return the value of an unquoted scalar.

    Raises:
        ValueError: The text is a number that cannot be kept (1e400, or an integer of thousands of digits).
    """
    if text in _WORDS:
        return _WORDS[text]
    if _JSON_NUMBER.fullmatch(text):
        return parse_number(text)
    return text


def parse_number(text: str) -> int | float:
    """Return the number that JSON text writes: integers exactly, whatever their size.

    Raises:
        ValueError: It is larger than a float can hold, or an integer of thousands of digits.
    """
    if not any(mark in text for mark in ".eE"):
        return int(text)
    value = float(text)
    if math.isinf(value):
        msg = f"{text[:40]} is too large for a number; put it in quotes to keep it as text"
        raise ValueError(msg)
    return value


def is_unicode(text: str) -> bool:
    """Return whether the text holds no lone surrogate, so that it can be written as UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def name_value(value: Any) -> str:
    """Return a short name of a value for messages: `text 'abc'`, `a list`, `null`."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str):
        return f"text {value[:60]!r}" + ("…" if len(value) > 60 else "")
    if isinstance(value, int | float):
        return str(value)[:60]
    return "a list" if isinstance(value, list | tuple) else "a mapping"
