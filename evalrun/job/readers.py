"""Rows of one dataset file, whatever its format: each a mapping with the line it came from.

Values keep the types that the file gives them: JSON's own, and text for CSV and TSV. Nothing is inferred, nothing is
dropped; what cannot be kept is a problem with file and line.
"""

import csv
import json
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from evalrun.errors import DatasetError, Problem
from evalrun.job.parquet_reader import scan_parquet
from evalrun.job.quick_rows import parse_row
from evalrun.job.scalars import name_value
from evalrun.job.text_source import MAX_LINE_BYTES, explain_bad_utf8, load_whole, scan_lines

Report = Callable[[Problem], None]
"""Told about a row that cannot be used; may raise, or note it so that the next row is read."""

NumberedRow = tuple[int, dict[str, Any]]
"""Line of the file, 1-based (row of a Parquet file), and the row."""

MAX_JSON_BYTES = 1024 * 1024 * 1024
"""Largest `.json` file, which is held in memory; `.jsonl` has no such limit."""

TEXT_SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv")


def get_format(path: Path) -> str | None:
    """Return the suffix that tells a dataset file's format; None when it is none that is read."""
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    if suffixes and suffixes[-1] == ".parquet":
        return ".parquet"
    if suffixes and suffixes[-1] in {".gz", ".zst"}:
        suffixes = suffixes[:-1]
    return suffixes[-1] if suffixes and suffixes[-1] in TEXT_SUFFIXES else None


def scan_rows(path: Path, *, shown: str, columns: Sequence[str] | None, report: Report) -> Iterator[NumberedRow]:
    """Yield the rows of one file.

    Args:
        path: The file; its suffix tells the format.
        shown: Its name in messages.
        columns: Names of the columns of a CSV or TSV file without a header line; None when it has one.
        report: Told about each row that cannot be read.

    Raises:
        DatasetError: The file as a whole cannot be read.
    """
    kind = get_format(path)
    if columns is not None and kind not in {".csv", ".tsv"}:
        raise DatasetError("`columns` names the columns of a CSV or TSV file without a header", where=shown)
    if kind in {".jsonl", ".ndjson"}:
        return _scan_jsonl(path, shown, report)
    if kind == ".json":
        return _scan_json(path, shown, report)
    if kind in {".csv", ".tsv"}:
        return _scan_csv(path, shown, "," if kind == ".csv" else "\t", columns, report)
    if kind == ".parquet":
        return scan_parquet(path, shown)
    hint = f"known: {', '.join(TEXT_SUFFIXES)} (also .gz, .zst) and .parquet"
    raise DatasetError("the file's suffix names no format that is read", where=shown, hint=hint)


class _DuplicateKeyError(ValueError):
    """Two equal keys in one object."""


def _build_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    built = dict(pairs)
    if len(built) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        msg = f"the key {twice!r} stands twice in one object"
        raise _DuplicateKeyError(msg)
    return built


def _parse_float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        msg = f"the number {text[:40]} is too large; put it in quotes to keep it as text"
        raise ValueError(msg)
    return value


def _refuse_constant(text: str) -> Any:
    msg = f"{text} is not JSON; write null, or text"
    raise ValueError(msg)


# The exact reader: `quick_rows` tells where orjson gives the same, and why it does not everywhere.
_DECODER = json.JSONDecoder(object_pairs_hook=_build_object, parse_float=_parse_float, parse_constant=_refuse_constant)


def parse_cell(text: str) -> Any:
    """Return the JSON value that a cell holds as text, as strictly as rows are read.

    Raises:
        ValueError: The text is not JSON, has equal keys or a non-finite number, or is nested too deeply.
    """
    try:
        return _DECODER.decode(text)
    except RecursionError as error:
        msg = "it is nested too deeply"
        raise ValueError(msg) from error


def _explain_json(error: Exception, *, is_cut: bool) -> tuple[str, str | None]:
    if isinstance(error, json.JSONDecodeError):
        hint = "the file seems to be cut off here" if is_cut else None
        return f"not valid JSON: {error.msg} at column {error.colno}", hint
    if isinstance(error, RecursionError):
        return "the row is nested too deeply", None
    return str(error), None


def _scan_jsonl(path: Path, shown: str, report: Report) -> Iterator[NumberedRow]:
    decode = _DECODER.decode
    for number, line in enumerate(scan_lines(path, shown), start=1):
        quick = parse_row(line)
        if quick is not None:
            yield number, quick
            continue
        content = line.strip(b" \t\r\n")
        if not content:
            continue
        try:
            row = decode(content.decode())
        except UnicodeDecodeError as error:
            message, hint = explain_bad_utf8(content, error)
            report(Problem(message=message, where=f"{shown}:{number}", hint=hint))
        except (ValueError, RecursionError) as error:
            message, cut = _explain_json(error, is_cut=not line.endswith(b"\n"))
            report(Problem(message=message, where=f"{shown}:{number}", hint=cut))
        else:
            if isinstance(row, dict):
                yield number, row
            else:
                report(_refuse_row(row, f"{shown}:{number}"))


def _refuse_row(row: Any, where: str) -> Problem:
    hint = "a list of rows belongs into a .json file" if isinstance(row, list) else None
    return Problem(message=f"a row must be an object {{…}}, got {name_value(row)}", where=where, hint=hint)


def _scan_json(path: Path, shown: str, report: Report) -> Iterator[NumberedRow]:
    content = load_whole(path, shown, MAX_JSON_BYTES)
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        message, hint = explain_bad_utf8(content, error)
        line = content.count(b"\n", 0, error.start) + 1
        raise DatasetError(message.replace("column", "byte"), where=f"{shown}:{line}", hint=hint) from error
    position = _skip_space(text, 0)
    if text[position : position + 1] != "[":
        hint = "write [{…}, {…}], or one object a line in a .jsonl file"
        raise DatasetError("a .json dataset must be a list of rows", where=f"{shown}:1", hint=hint)
    line, counted = 1, 0
    position = _skip_space(text, position + 1)
    while text[position : position + 1] != "]":
        line += text.count("\n", counted, position)
        counted = position
        try:
            row, position = _DECODER.raw_decode(text, position)
            if isinstance(row, dict):
                yield line, row
            else:
                report(_refuse_row(row, f"{shown}:{line}"))
            position = _skip_comma(text, position)
        except (ValueError, RecursionError) as error:
            # Where a broken value ends is unknown, so nothing after it can be read.
            at = error.lineno if isinstance(error, json.JSONDecodeError) else line
            message, hint_cut = _explain_json(error, is_cut=position >= len(text) - 1)
            raise DatasetError(message, where=f"{shown}:{at}", hint=hint_cut) from error
    if text[position + 1 :].strip(" \t\r\n"):
        raise DatasetError("something follows the end of the list", where=f"{shown}:{line}")


def _skip_space(text: str, position: int) -> int:
    while position < len(text) and text[position] in " \t\r\n":
        position += 1
    return position


def _skip_comma(text: str, position: int) -> int:
    position = _skip_space(text, position)
    mark = text[position : position + 1]
    if mark == "]":
        return position
    after = _skip_space(text, position + 1)
    if mark != "," or text[after : after + 1] in {"]", ""}:
        msg = "`,` and another row, or `]`, is expected here"
        raise json.JSONDecodeError(msg, text, min(position, max(len(text) - 1, 0)))
    return after


def _scan_csv(
    path: Path, shown: str, delimiter: str, columns: Sequence[str] | None, report: Report
) -> Iterator[NumberedRow]:
    # The limit is the module's only one, and far too small for prompts: 128 KiB a field.
    csv.field_size_limit(MAX_LINE_BYTES)
    lines = _decode_lines(path, shown)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    header = list(columns) if columns is not None else None
    start = 1
    while True:
        try:
            fields = next(reader, None)
        except csv.Error as error:
            # A broken quote may swallow any number of lines, so nothing after it can be read.
            where = f"{shown}:{start}"
            hint = 'a quote inside a field is written twice, and the field in quotes: "say ""hi"""'
            raise DatasetError(
                f"not valid {'CSV' if delimiter == ',' else 'TSV'}: {error}", where=where, hint=hint
            ) from error
        if fields is None:
            return
        where, line, start = f"{shown}:{start}", start, reader.line_num + 1
        if not fields:
            continue
        if header is None:
            header = _check_header(fields, where)
        elif len(fields) != len(header):
            report(_refuse_width(fields, header, where))
        else:
            yield line, dict(zip(header, fields, strict=True))


def _decode_lines(path: Path, shown: str) -> Iterator[str]:
    for number, line in enumerate(scan_lines(path, shown), start=1):
        try:
            yield line.decode()
        except UnicodeDecodeError as error:
            message, hint = explain_bad_utf8(line, error)
            raise DatasetError(message, where=f"{shown}:{number}", hint=hint) from error


def _check_header(fields: list[str], where: str) -> list[str]:
    twice = next((name for name in fields if fields.count(name) > 1), None)
    if twice is not None:
        raise DatasetError(f"the header names the column {twice!r} twice", where=where)
    if "" in fields:
        message = f"column {fields.index('') + 1} of the header has no name"
        raise DatasetError(message, where=where, hint="a file without a header line needs `columns: […]`")
    return fields


def _refuse_width(fields: list[str], header: list[str], where: str) -> Problem:
    less_or_more = "fewer" if len(fields) < len(header) else "more"
    message = f"the row has {len(fields)} fields, {less_or_more} than the {len(header)} columns"
    return Problem(message=message, where=where, hint="put fields that hold the separator or a line break in quotes")
