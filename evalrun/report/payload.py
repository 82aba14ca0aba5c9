"""The item data of the page: every row that fits, worst first, each text once.

Report rows enter; one JSON text leaves, gzipped and base64-coded when it is large. Invariant: what is left out is
counted, and failing rows are the last to go.
"""

import base64
import gzip
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import orjson

from evalrun.report.arms import ArmView
from evalrun.report.model import Include, ReportRow, explain_row, order_worst_first
from evalrun.report.text import make_excerpt, make_visible

PACK_ABOVE_BYTES = 200_000
"""Larger data are gzipped and base64-coded."""

MAX_DATA_BYTES = 20_000_000
"""Data stop here; rows that do not fit are counted in `n_left_out`."""

_BYTES_PER_ROW = 260
"""What a row's numbers and names take beside its texts, roughly."""

_PACK_LEVEL = 5
"""Of gzip: 9 makes the data of a large run a fourteenth smaller, and takes seven times as long."""

_ID_CHARS = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Payload:
    """What goes into the page's data element."""

    text: str
    """JSON with no character that ends a script element: the data, or a string holding them packed."""
    is_packed: bool
    n_rows: int
    n_left_out: int


def build_payload(
    rows: Sequence[ReportRow],
    views: Sequence[ArmView],
    *,
    include: Include,
    max_bytes: int = MAX_DATA_BYTES,
    n_run_rows: int | None = None,
) -> Payload:
    """Return the item data.

    Args:
        rows: The report's rows, in plan order.
        views: The arms; a row names its arm by position here.
        include: Which texts go in.
        max_bytes: Size of the JSON text where rows begin to be left out.
        n_run_rows: Rows of the whole run; None = those given.
    """
    table = _Texts()
    arms = {(view.arm.model, view.arm.prompt): index for index, view in enumerate(views)}
    width = _choose_id_width(rows)
    kept: list[dict[str, Any]] = []
    for row in order_worst_first(rows):
        item = _build_item(row, table, include=include, arm=arms.get((row.model, row.prompt)), id_width=width)
        if kept and table.n_bytes + _BYTES_PER_ROW * len(kept) > max_bytes:
            break
        kept.append(item)
    data = {
        "arms": [{"n": view.number, "label": make_visible(view.label), "model": make_visible(view.arm.model),
                  "prompt": make_visible(view.arm.prompt), "color": view.color, "shape": view.shape} for view in views],
        "texts": table.texts,
        "rows": kept,
    }  # fmt: skip
    text, is_packed = pack(data)
    return Payload(
        text=text,
        is_packed=is_packed,
        n_rows=len(kept),
        n_left_out=(len(rows) if n_run_rows is None else n_run_rows) - len(kept),
    )


def pack(data: Any) -> tuple[str, bool]:
    """Return data as JSON that is safe inside a script element, and whether it was gzipped on the way."""
    plain = orjson.dumps(data)
    if len(plain) <= PACK_ABOVE_BYTES:
        return _escape_for_script(plain.decode()), False
    packed = gzip.compress(plain, compresslevel=_PACK_LEVEL, mtime=0)
    return f'"{base64.b64encode(packed).decode("ascii")}"', True


# Names repeat from row to row.
_show_name = lru_cache(maxsize=256)(make_visible)


def make_item_id(row_id: str) -> str:
    """Return the short id that permalinks use."""
    return row_id[:_ID_CHARS]


@dataclass(slots=True)
class _Texts:
    """Texts by number, so that a prompt asked of five models stands in the page once."""

    texts: list[str] = field(default_factory=list)
    numbers: dict[str, int] = field(default_factory=dict)
    n_bytes: int = 0

    def add(self, text: str | None) -> int | None:
        """Return the text's number; None for None."""
        if text is None:
            return None
        number = self.numbers.get(text)
        if number is None:
            number = self.numbers[text] = len(self.texts)
            visible = make_visible(text)
            self.texts.append(visible)
            self.n_bytes += (len(visible) if visible.isascii() else len(visible.encode())) + 3
        return number


def _build_item(
    row: ReportRow, table: _Texts, *, include: Include, arm: int | None, id_width: int | None
) -> dict[str, Any]:
    """Return a row with short keys; null and empty values are left out. The keys are named in app.js."""
    item: dict[str, Any] = {
        "id": row.row_id[:id_width],
        "sample": table.add(row.sample_id),
        "category": table.add(row.category),
        "arm": arm,
        "repeat": row.repeat or None,
        "mark": row.mark.value,
        "status": row.status,
        "why": table.add(make_excerpt(explain_row(row, include=include), 300) or None),
        "score": row.score,
        "code": _show_name(row.error_code or ""),
        "http": row.http_status,
        "attempts": row.attempts,
        "finish": _show_name(row.finish_reason or ""),
        "answered": _show_name(row.response_model or ""),
        "flags": [_show_name(flag) for flag in row.flags],
        "tokens": [row.prompt_tokens, row.completion_tokens, row.cached_tokens, row.reasoning_tokens],
        "usd": row.cost_usd,
        "latency": row.latency_s,
        "grades": [
            [_show_name(grade.grader), _show_name(grade.type), grade.passed, grade.score,
             table.add(grade.reason) if include != "none" else None, grade.hard, grade.error_code]
            for grade in row.grades
        ],
    }  # fmt: skip
    if include != "none":
        item |= {
            "output": table.add(row.output),
            "refusal": table.add(row.refusal),
            "reasoning": table.add(row.reasoning),
            "tools": table.add(row.tool_calls),
            "message": table.add(row.error_message),
        }
    if include == "full":
        item |= {
            "fields": [[table.add(name), table.add(text)] for name, text in row.fields],
            "messages": [[_show_name(message.role), table.add(message.text)] for message in row.messages],
            "params": table.add(row.params),
        }
    # Zero is a value; null, "" and [] are none.
    return {key: value for key, value in item.items() if value or value == 0}


def _choose_id_width(rows: Sequence[ReportRow]) -> int | None:
    """Return how much of a row_id permalinks need: 12 characters, or all of it when two rows share those."""
    return _ID_CHARS if len({make_item_id(row.row_id) for row in rows}) == len(rows) else None


def _escape_for_script(text: str) -> str:
    """Escape what could end a script element or upset a parser; JSON reads the same value."""
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text
