"""JSON text to plain data, with the place of every key; equal keys and non-finite numbers are refused."""

import json
import re
from bisect import bisect_right
from typing import Any

from evalrun.errors import ConfigError, Problem
from evalrun.job.places import KeyPath, Places
from evalrun.job.scalars import is_unicode, parse_number

MAX_DEPTH = 100

_SPACE = re.compile(r"[ \t\n\r]*")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_DECODER = json.JSONDecoder()
_WORDS = {"true": True, "false": False, "null": None}


def parse_json(text: str, places: Places) -> Any:
    """Return the data of a JSON text.

    Args:
        text: The file's text.
        places: Is told where each key stands.

    Raises:
        ConfigError: The text is not JSON, or has equal keys; every such place is named.
    """
    scanner = _Scanner(text, places)
    data = scanner.read_document()
    if scanner.problems:
        raise ConfigError(scanner.problems)
    return data


class _Scanner:
    """A recursive reader that knows where it is; the standard one tells no places and keeps the last of equal keys."""

    def __init__(self, text: str, places: Places) -> None:
        self.problems: list[Problem] = []
        self._text = text
        self._places = places
        self._position = 0
        self._line_starts = [0, *(match.end() for match in re.finditer("\n", text))]

    def read_document(self) -> Any:
        value = self._read((), 0)
        if self._peek():
            raise self._stop("something follows the end of the document")
        return value

    def _spot(self, position: int) -> tuple[int, int]:
        line = bisect_right(self._line_starts, position)
        return line, position - self._line_starts[line - 1] + 1

    def _problem(self, message: str, position: int, hint: str | None = None) -> Problem:
        line, column = self._spot(position)
        return Problem(message=message, where=f"{self._places.file}:{line}:{column}", hint=hint)

    def _stop(self, message: str, position: int | None = None) -> ConfigError:
        at = self._position if position is None else position
        return ConfigError([*self.problems, self._problem(f"not valid JSON: {message}", at)])

    def _peek(self) -> str:
        match = _SPACE.match(self._text, self._position)
        self._position = match.end() if match else self._position
        return self._text[self._position : self._position + 1]

    def _read(self, path: KeyPath, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise self._stop(f"nested deeper than {MAX_DEPTH} levels")
        mark = self._peek()
        if mark == "{":
            return self._read_object(path, depth)
        if mark == "[":
            return self._read_list(path, depth)
        if mark == '"':
            return self._read_text()
        return self._read_word()

    def _read_text(self) -> str:
        start = self._position
        try:
            value, self._position = _DECODER.raw_decode(self._text, start)
        except json.JSONDecodeError as error:
            raise self._stop(error.msg, error.pos) from error
        text = str(value)
        if not is_unicode(text):
            self.problems.append(self._problem("the text holds half of a surrogate pair", start))
            return ""
        return text

    def _read_word(self) -> Any:
        for word, value in _WORDS.items():
            if self._text.startswith(word, self._position):
                self._position += len(word)
                return value
        match = _NUMBER.match(self._text, self._position)
        if match is None:
            raise self._stop("a value is expected here")
        start, self._position = match.span()
        try:
            return parse_number(match.group())
        except ValueError as error:
            self.problems.append(self._problem(str(error), start))
            return None

    def _read_list(self, path: KeyPath, depth: int) -> list[Any]:
        items: list[Any] = []
        self._position += 1
        if self._peek() == "]":
            self._position += 1
            return items
        while True:
            self._peek()
            here = (*path, len(items))
            self._places.mark(here, self._spot(self._position))
            items.append(self._read(here, depth + 1))
            if self._take_separator("]"):
                return items

    def _read_object(self, path: KeyPath, depth: int) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        self._position += 1
        if self._peek() == "}":
            self._position += 1
            return mapping
        while True:
            if self._peek() != '"':
                raise self._stop("a key in double quotes is expected here")
            start = self._position
            key = self._read_text()
            if self._peek() != ":":
                raise self._stop("`:` is expected here")
            self._position += 1
            if key in mapping:
                message = f"the key `{key}` stands here a second time"
                self.problems.append(self._problem(message, start, "keep one of them"))
            self._places.mark((*path, key), self._spot(start))
            mapping[key] = self._read((*path, key), depth + 1)
            if self._take_separator("}"):
                return mapping

    def _take_separator(self, end: str) -> bool:
        """Step over `,` or the end mark; True when it was the end."""
        mark = self._peek()
        if mark not in {",", end} or not mark:
            raise self._stop(f"`,` or `{end}` is expected here")
        self._position += 1
        return mark == end
