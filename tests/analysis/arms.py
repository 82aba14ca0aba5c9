"""Small result tables for the tests of summary and gate, written by hand."""

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

RESULTS_SCHEMA = {
    "row_id": pl.String,
    "sample_id": pl.String,
    "category": pl.String,
    "prompt": pl.String,
    "model": pl.String,
    "repeat": pl.Int32,
    "status": pl.String,
    "error_code": pl.String,
    "attempts": pl.Int16,
    "prompt_tokens": pl.Int64,
    "completion_tokens": pl.Int64,
    "usage_source": pl.String,
    "cost_usd": pl.Float64,
    "latency_s": pl.Float64,
    "reused_from": pl.String,
    "score": pl.Float64,
    "passed": pl.Boolean,
}
GRADES_SCHEMA = {
    "row_id": pl.String,
    "grader": pl.String,
    "metric": pl.String,
    "score": pl.Float64,
    "passed": pl.Boolean,
    "hard": pl.Boolean,
}


def make_result(model: str, sample: int | str, passed: bool | None, **columns: Any) -> dict[str, Any]:
    """Return one row of results; an answered one unless told otherwise."""
    row = {
        "sample_id": str(sample),
        "category": None,
        "prompt": "p",
        "model": model,
        "repeat": 0,
        "status": "ok",
        "error_code": None,
        "attempts": 1,
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "usage_source": "reported",
        "cost_usd": 0.001,
        "latency_s": 0.1,
        "reused_from": None,
        "score": None if passed is None else float(passed),
        "passed": passed,
    }
    row |= columns
    return {"row_id": "/".join(str(row[key]) for key in ("sample_id", "prompt", "model", "repeat")), **row}


def make_failed(model: str, sample: int | str, status: str, code: str | None) -> dict[str, Any]:
    """Return one row that has no answer."""
    nothing = dict.fromkeys(("prompt_tokens", "completion_tokens", "cost_usd", "latency_s"))
    return make_result(model, sample, None, status=status, error_code=code, usage_source="missing", **nothing)


def make_grade(row: Mapping[str, Any], passed: bool | None, **columns: Any) -> dict[str, Any]:
    """Return one grade of a row."""
    score = None if passed is None else float(passed)
    grade = {"row_id": row["row_id"], "grader": "g", "metric": None, "score": score, "passed": passed, "hard": False}
    return grade | columns


def make_frames(
    results: Sequence[Mapping[str, Any]], grades: Sequence[Mapping[str, Any]] = ()
) -> tuple[pl.LazyFrame, pl.LazyFrame]:
    """Return results and grades as lazy tables."""
    left = pl.LazyFrame(list(results), schema=RESULTS_SCHEMA)
    return left, pl.LazyFrame(list(grades), schema=GRADES_SCHEMA)
