"""Read the JSON that servers really send, and write it back as text.

Bytes enter, plain values leave; whatever is not JSON is a ValueError. Strings that leave never hold a lone surrogate,
so that every later writer (journal, Parquet, report) can encode them.
"""

import json
import math
import re
from codecs import BOM_UTF8
from typing import Any, NamedTuple

import orjson

# A pair of surrogate escapes, a lone one, or any other escape: read in one pass so that `\\ud800` (an escaped
# backslash and plain text) is left alone.
_ESCAPES = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u[dD][89a-fA-F][0-9a-fA-F]{2}|\\.", re.DOTALL
)
_LONE_SURROGATE_BYTES = 6
_REPLACEMENT = rb"\ufffd"


TEXT_CLEANED = "text_cleaned"
"""Flag: lone surrogates were replaced by U+FFFD."""
NUMBER_DROPPED = "number_dropped"
"""Flag: NaN, Infinity or a number too large for any became null."""


class LoadedJson(NamedTuple):
    """A value and what had to be mended to read it."""

    value: Any
    flags: tuple[str, ...] = ()
    """`text_cleaned`, `number_dropped`."""


def load_json(body: bytes) -> LoadedJson:
    """Parse a body: strictly first, then with NaN, Infinity, huge numbers and lone surrogates let through.

    Args:
        body: UTF-8, with or without a byte order mark.

    Raises:
        ValueError: The body is not JSON, not UTF-8, or nested too deeply.
    """
    text = body.removeprefix(BOM_UTF8)
    try:
        return LoadedJson(orjson.loads(text))
    except orjson.JSONDecodeError:
        pass  # The tolerant reader below is slower and says better what is wrong.
    mended = _ESCAPES.sub(_mend_escape, text)
    loaded = _load_tolerantly(mended)
    return loaded if mended == text else LoadedJson(loaded.value, (TEXT_CLEANED, *loaded.flags))


def load_fragment(body: bytes) -> LoadedJson:
    """Parse one piece of a streamed reply, as tolerantly as `load_json`, but with its lone surrogates kept.

    The other half of such a character may come with the next piece; `write_fragments` writes what became of them.

    Raises:
        ValueError: The piece is not JSON, not UTF-8, or nested too deeply.
    """
    try:
        return LoadedJson(orjson.loads(body))
    except orjson.JSONDecodeError:
        return _load_tolerantly(body)


def write_fragments(value: Any) -> bytes:
    """Write a value put together from fragments as JSON; surrogates that found no other half stay escapes.

    Raises:
        ValueError: The value is nested too deeply to be written.
    """
    try:
        return orjson.dumps(value)
    except TypeError:
        pass  # Lone surrogates, integers over 64 bits and deep nesting are beyond orjson.
    try:
        return json.dumps(value, separators=(",", ":")).encode()
    except RecursionError:
        msg = "nested too deeply"
        raise ValueError(msg) from None


def dump_json(value: Any) -> str:
    """Write a value that `load_json` returned as compact JSON text.

    Raises:
        ValueError: The value is nested too deeply to be written.
    """
    try:
        return orjson.dumps(value).decode()
    except TypeError:
        pass  # Integers over 64 bits and deep nesting are beyond orjson.
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    except RecursionError:
        msg = "nested too deeply"
        raise ValueError(msg) from None


def _load_tolerantly(text: bytes) -> LoadedJson:
    """Parse with numbers let through that are none: unknown, and said so."""
    dropped: list[str] = []

    def parse_float(digits: str) -> float | None:
        value = float(digits)
        if math.isfinite(value):
            return value
        dropped.append(digits)
        return None

    try:
        value = json.loads(text.decode("utf-8"), parse_constant=dropped.append, parse_float=parse_float)
    except RecursionError:
        msg = "nested too deeply"
        raise ValueError(msg) from None
    return LoadedJson(value, (NUMBER_DROPPED,) if dropped else ())


def _mend_escape(match: re.Match[bytes]) -> bytes:
    escape = match.group()
    return _REPLACEMENT if len(escape) == _LONE_SURROGATE_BYTES else escape
