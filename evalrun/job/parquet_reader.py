"""Rows of a Parquet file, streamed, as JSON values: polars' door in this room.

Dates and times become ISO 8601 text, decimals exact text, categories text, durations seconds; bytes and non-finite
numbers have no JSON form and are refused.
"""

import math
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from evalrun.errors import DatasetError

_FIRST_ROWS = 100
_MAX_ROWS = 50_000
_CHUNK_BYTES = 16 * 1024 * 1024
"""About what the rows read at once may take in memory."""


def scan_parquet(path: Path, shown: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield each row with its number, 1-based.

    Args:
        path: The file.
        shown: Its name in messages.

    Raises:
        DatasetError: The file is damaged, encrypted or no Parquet file, or a value has no JSON form.
    """
    # A late import, against the house's rule: polars takes 0.3 s to load, and a job on JSONL never needs it.
    import polars as pl

    number, n_wanted = 0, _FIRST_ROWS
    try:
        # A file object would be read whole; the absolute path also keeps polars from reading it as a glob or URL.
        source = pl.scan_parquet(path.resolve(), glob=False)
        # Slice by slice: polars' own batches hold several row groups, and those of other writers can be large.
        while (frame := source.slice(number, n_wanted).collect()).height:
            for row in frame.iter_rows(named=True):
                number += 1
                yield number, _convert_row(row, f"{shown}:{number}")
            row_bytes = max(frame.estimated_size() / frame.height, 1)
            n_wanted = min(max(int(_CHUNK_BYTES / row_bytes), 1), 4 * n_wanted, _MAX_ROWS)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DatasetError(f"not a readable Parquet file: {reason}", where=shown) from error


def _convert_row(row: dict[str, Any], where: str) -> dict[str, Any]:
    for name, value in row.items():
        # Text and whole numbers, nearly all there is, pass without a call.
        if type(value) is not str and type(value) is not int:
            row[name] = _convert(value, name, where)
    return row


def _convert(value: Any, name: str, where: str) -> Any:
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            message = f"column {name!r} holds {value}, which JSON cannot write"
            raise DatasetError(message, where=where, hint="make it null, or text")
        return value
    if isinstance(value, list | tuple):
        return [_convert(item, name, where) for item in value]
    if isinstance(value, dict):
        return {key: _convert(item, name, where) for key, item in value.items()}
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Decimal):
        return str(value)
    message = f"column {name!r} holds {type(value).__name__}, which JSON cannot write"
    raise DatasetError(message, where=where, hint="store text, or base64 text")
