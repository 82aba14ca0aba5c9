"""TOML text to plain data: dates become text, and each table or key is found again by a scan of the lines.

The standard reader tells no places, so they are looked up: headers and keys at the start of a line are found, keys
inside inline tables are reported at the line of their table.
"""

import math
import re
import tomllib
from datetime import date, datetime, time
from typing import Any

from evalrun.errors import ConfigError, Problem
from evalrun.job.places import KeyPath, Places

_HEADER = re.compile(r"\s*(\[\[?)\s*(.+?)\s*\]\]?\s*(?:#.*)?$")
_KEY = re.compile(r"""\s*((?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*'))*)\s*=""")
_PART = re.compile(r"""[A-Za-z0-9_-]+|"[^"]*"|'[^']*'""")
_ERROR_SPOT = re.compile(r"\s*\(at (?:line (\d+), column (\d+)|end of document)\)$")


def parse_toml(text: str, places: Places) -> dict[str, Any]:
    """Return the data of a TOML text.

    Args:
        text: The file's text.
        places: Is told where each key stands, as far as that can be found.

    Raises:
        ConfigError: The text is not TOML, or holds `inf` or `nan`.
    """
    try:
        data = tomllib.loads(text.replace("\r\n", "\n"))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        spot = _ERROR_SPOT.search(str(error))
        if spot and spot.group(1):
            where = f"{places.file}:{spot.group(1)}:{spot.group(2)}"
        else:
            where = f"{places.file}:{text.count(chr(10)) + 1}"
        message = f"not valid TOML: {_ERROR_SPOT.sub('', str(error))}"
        raise ConfigError(message, where=where) from error
    _mark_places(text, places)
    problems: list[Problem] = []
    plain = _make_plain(data, (), places, problems)
    if problems:
        raise ConfigError(problems)
    return dict(plain)


def _make_plain(value: Any, path: KeyPath, places: Places, problems: list[Problem]) -> Any:
    if isinstance(value, dict):
        return {key: _make_plain(item, (*path, key), places, problems) for key, item in value.items()}
    if isinstance(value, list):
        return [_make_plain(item, (*path, index), places, problems) for index, item in enumerate(value)]
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        problems.append(Problem(message=f"{value} is not a number a job may hold", where=places.find(path)))
    return value


def _mark_places(text: str, places: Places) -> None:
    table: KeyPath = ()
    lengths: dict[KeyPath, int] = {}
    closing: str | None = None
    for number, line in enumerate(text.split("\n"), start=1):
        if closing is not None:
            closing = None if closing in line else closing
            continue
        if (header := _HEADER.match(line)) and "=" not in header.group(2):
            table = _enter(header.group(2), lengths, is_array=header.group(1) == "[[")
            places.mark(table, (number, len(line) - len(line.lstrip()) + 1))
        elif key := _KEY.match(line):
            parts = tuple(part.strip("\"'") for part in _PART.findall(key.group(1)))
            places.mark((*table, *parts), (number, key.start(1) + 1))
            closing = _find_open_quote(line[key.end() :])


def _enter(name: str, lengths: dict[KeyPath, int], *, is_array: bool) -> KeyPath:
    """Return the key path of a table header; a header inside a list of tables means the list's last one."""
    path: KeyPath = ()
    parts = [part.strip("\"'") for part in _PART.findall(name)]
    for position, part in enumerate(parts):
        path = (*path, part)
        if is_array and position == len(parts) - 1:
            lengths[path] = lengths.get(path, 0) + 1
        if path in lengths:
            path = (*path, lengths[path] - 1)
    return path


def _find_open_quote(rest: str) -> str | None:
    """Return the triple quote that a value leaves open at the end of its line; None when there is none."""
    for quote in ('"""', "'''"):
        if rest.count(quote) == 1:
            return quote
    return None
