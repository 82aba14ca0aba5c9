"""From journal records to columns of the tables, a block of rows at a time, without an object per row or per value.

The fields of `done` and `attempt` records enter as the journal holds them, absent keys being null; columns leave, one
list per name. What is unknown is None; text that UTF-8 cannot hold (lone surrogates) becomes its escape, and a result
that had some is flagged `text_cleaned`.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from operator import attrgetter
from typing import Any, NamedTuple

import orjson
import polars as pl

from evalrun.records import ANSWERED, CostSource, Grade, Request, Status, UsageSource
from evalrun.store.record_reader import IS_CLEANED, Fields, clean_text
from evalrun.store.tables import GRADES, PERMANENT

Columns = dict[str, Sequence[Any] | pl.Series]
"""Values by the name of their column, all equally many."""

_OUTCOME_NAMES = (
    "status", "error_code", "error_message", "http_status", "attempts", "cost_source", "latency_s", "first_token_s",
    "queue_s", "reused_from",
)  # fmt: skip
_COMPLETION_NAMES = (
    "refusal", "finish_reason", "reasoning", "tool_calls", "choices", "logprobs", "response_id", "response_model",
    "system_fingerprint", "service_tier",
)  # fmt: skip
_COUNT_NAMES = (
    "prompt_tokens", "cached_tokens", "cache_write_tokens", "completion_tokens", "reasoning_tokens", "total_tokens",
)  # fmt: skip
_ATTEMPT_NAMES = (
    "attempt", "wait_s", "latency_s", "first_token_s", "http_status", "error_code", "retry_after_s", "request_id",
    "bytes_sent", "bytes_received", "maybe_billed",
)  # fmt: skip

_GRADE_NAMES = tuple(column.name for column in GRADES if column.name != "against_row_id")
_GET_GRADE = attrgetter(*_GRADE_NAMES)
_I64_LIMIT = 2**63
_TEXT_CLEANED = "text_cleaned"
_USAGE_INCONSISTENT = "usage_inconsistent"
_BILLED_ESTIMATED = "billed_estimated"
_MOMENT = "%Y-%m-%dT%H:%M:%S%.f%:z"
"""What `datetime.isoformat` writes, with or without a fraction."""
_NOTHING: Fields = {}
_NO_USAGE: Fields = {"source": UsageSource.MISSING.value}


class PlannedRow(NamedTuple):
    """A row of the plan, and what the journal holds for it."""

    request: Request
    sample: str
    """The dataset row as JSON."""
    done: Fields
    """The row's `done` record, or what `make_pending` returned."""


def make_pending(request: Request, code: str) -> Fields:
    """Return what stands in for the `done` record of a row that has none.

    Args:
        request: The planned row.
        code: Why it has no outcome: `lane_stopped`, `interrupted`, `budget`.
    """
    return {
        "status": Status.PENDING.value,
        "error_code": code,
        "attempts": request.prior_attempts,
        "billed_usd": request.prior_billed_usd,
        "is_billed_estimated": request.is_prior_estimated,
        "cost_source": CostSource.UNKNOWN.value,
        "usage": _NO_USAGE,
    }


def build_result_columns(rows: Sequence[PlannedRow], *, run_id: str) -> Columns:
    """Return the columns of results.parquet, without `score` and `passed`, which come from the rows' grades.

    Args:
        rows: At least one.
        run_id: The run.
    """
    requests = [row.request for row in rows]
    cleaned = {number for number, row in enumerate(rows) if IS_CLEANED in row.done}
    done = [row.done for row in rows]
    completions = [record.get("completion", _NOTHING) for record in done]
    usages = [record["usage"] for record in done]
    columns: Columns = {
        "row_id": [request.row_id for request in requests],
        "request_key": [request.request_key for request in requests],
        "run_id": [run_id] * len(rows),
        "sample_id": _clean_texts([request.sample.sample_id for request in requests], cleaned),
        "sample": [row.sample for row in rows],
        "category": _clean_texts([request.sample.category for request in requests], cleaned),
        "prompt": _clean_texts([request.prompt for request in requests], cleaned),
        "model": _clean_texts([request.model for request in requests], cleaned),
        "endpoint": _clean_texts([request.endpoint for request in requests], cleaned),
        "repeat": [request.repeat for request in requests],
        "request": [request.body.decode("utf-8", "backslashreplace") for request in requests],
        **_pick(done, _OUTCOME_NAMES),
        "output": list(map(_pick_output, done, completions)),
        **_pick(completions, _COMPLETION_NAMES),
        "usage_source": [usage["source"] for usage in usages],
        "usage": [usage.get("raw") for usage in usages],
        "cost_usd": [_round_usd(record.get("cost_usd")) for record in done],
        "billed_usd": [_round_usd(record.get("billed_usd")) for record in done],
        "started_at": _read_moments([record.get("started_at") for record in done]),
        "finished_at": _read_moments([record.get("finished_at") for record in done]),
    }
    overflown: set[int] = set()
    for name, counts in _pick(usages, _COUNT_NAMES).items():
        columns[name] = _fit_counts(counts, overflown)
    columns["flags"] = [
        _write_flags(record, has_overflow=number in overflown, is_cleaned=number in cleaned)
        for number, record in enumerate(done)
    ]
    return columns


def build_attempt_columns(records: Sequence[Fields]) -> Columns:
    """Return the columns of attempts.parquet.

    Args:
        records: For each row an `attempt` record, or a `done` record with its `last_attempt`.
    """
    attempts = [record.get("last_attempt", record) for record in records]
    # What an attempt has in common with its outcome stands in the outcome alone.
    pairs = list(zip(attempts, records, strict=True))
    usages = [attempt.get("usage") or record.get("usage", _NO_USAGE) for attempt, record in pairs]
    return {
        "row_id": [attempt.get("row_id") or record["row_id"] for attempt, record in pairs],
        "request_key": [attempt.get("request_key") or record["request_key"] for attempt, record in pairs],
        **_pick(attempts, _ATTEMPT_NAMES),
        "started_at": _read_moments([attempt["started_at"] for attempt in attempts]),
        "prompt_tokens": _fit_counts([usage.get("prompt_tokens") for usage in usages], set()),
        "completion_tokens": _fit_counts([usage.get("completion_tokens") for usage in usages], set()),
        "usage_source": [usage["source"] for usage in usages],
        "cost_usd": [_round_usd(attempt.get("cost_usd")) for attempt in attempts],
    }


def build_grade_columns(grades: Sequence[Grade]) -> Columns:
    """Return the columns of grades.parquet."""
    values = zip(*map(_GET_GRADE, grades), strict=True) if grades else ([] for _ in _GRADE_NAMES)
    columns = {name: list(column) for name, column in zip(_GRADE_NAMES, values, strict=True)}
    for name in ("grader", "metric", "reason"):
        columns[name] = _clean_texts(columns[name], set())
    return {**columns, "against_row_id": [None] * len(grades)}


def write_json(value: Any) -> str:
    """Return a value of JSON as text that UTF-8 can hold."""
    try:
        return orjson.dumps(value, default=_make_plain).decode()
    except TypeError:  # Lone surrogates stay escapes; integers beyond 64 bits stay whole.
        return json.dumps(_make_plain(value), ensure_ascii=True, separators=(",", ":"))


def _make_plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _make_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_make_plain(item) for item in value]
    return value


def _pick(records: Sequence[Fields], names: Iterable[str]) -> dict[str, list[Any]]:
    return {name: [record.get(name) for record in records] for name in names}


def _pick_output(record: Fields, completion: Fields) -> str | None:
    if record["status"] not in ANSWERED:
        return None
    output: str | None = completion.get("output")
    return output or "" if record["status"] == Status.EMPTY else output


def _write_flags(record: Fields, *, has_overflow: bool, is_cleaned: bool) -> str | None:
    """Return all that is odd about a row as a JSON list; None when nothing is."""
    flags = [*record.get("completion", _NOTHING).get("flags", ()), *record["usage"].get("flags", ())]
    if has_overflow:
        flags.append(_USAGE_INCONSISTENT)
    if record.get("is_permanent"):
        flags.append(PERMANENT)
    if record.get("is_billed_estimated"):
        flags.append(_BILLED_ESTIMATED)
    if is_cleaned:
        flags.append(_TEXT_CLEANED)
    return orjson.dumps(list(dict.fromkeys(flags))).decode() if flags else None


def _fit_counts(counts: list[int | None], overflown: set[int]) -> list[int | None]:
    """Return counts with None for each that no column can hold, since such a figure is no knowledge; note its row."""
    known = [count for count in counts if count is not None]
    if not known or (max(known) < _I64_LIMIT and min(known) >= -_I64_LIMIT):
        return counts
    odd = {n for n, count in enumerate(counts) if count is not None and not -_I64_LIMIT <= count < _I64_LIMIT}
    overflown |= odd
    return [None if n in odd else count for n, count in enumerate(counts)]


def _round_usd(amount_usd: str | Decimal | None) -> float | None:
    return None if amount_usd is None else round(float(amount_usd), 12)


def _read_moments(texts: Sequence[str | None]) -> pl.Series:
    """Return moments as a column in UTC, from the texts that `datetime.isoformat` wrote."""
    column = pl.Series(texts, dtype=pl.String, strict=True)
    if column.str.ends_with("+00:00").all():  # Nulls aside: what evalrun writes.
        return column.str.to_datetime(_MOMENT, time_unit="ms", time_zone="UTC")
    # An outcome of another run may hold any form that Python reads; polars would drop the seconds of an offset.
    read = [None if text is None else datetime.fromisoformat(text) for text in texts]
    return pl.Series(read, dtype=pl.Datetime("ms", "UTC"), strict=True)


def _clean_texts(texts: list[str | None], cleaned: set[int]) -> list[str | None]:
    """Return texts without lone surrogates; note the rows that had some."""
    if "".join(filter(None, texts)).isascii():
        return texts
    clean = [None if text is None else clean_text(text) for text in texts]
    cleaned.update(number for number, pair in enumerate(zip(texts, clean, strict=True)) if pair[0] != pair[1])
    return clean
