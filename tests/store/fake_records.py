"""Records and run folders for the store's tests."""

import hashlib
import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from evalrun.records import (
    Attempt,
    Completion,
    CostSource,
    ErrorCode,
    Grade,
    Outcome,
    Request,
    Sample,
    Started,
    Status,
    Usage,
    UsageSource,
)
from evalrun.store.folder import RunFolder

NOON = datetime(2026, 11, 22, 12, 0, 0, 123_000, tzinfo=UTC)
USAGE = Usage(
    prompt_tokens=57,
    completion_tokens=17,
    total_tokens=74,
    source=UsageSource.REPORTED,
    raw='{"prompt_tokens":57,"completion_tokens":17,"total_tokens":74}',
)


def make_id(text: str) -> str:
    """Return a digest as row ids and request keys are."""
    return hashlib.sha256(text.encode()).hexdigest()


def make_folder(tmp_path: Path, run_id: str = "20261122-120000-abcdef") -> RunFolder:
    """Make a fresh run folder below a test's own folder."""
    return RunFolder.create(tmp_path / "reports", "job", run_id)


def make_manifest(**changes: Any) -> dict[str, Any]:
    """Return what readers of run.json rely on, of a run whose three rows are done."""
    facts: dict[str, Any] = {
        "run_id": "20261122-120000-abcdef",
        "job_name": "job",
        "is_simulated": False,
        "job": {},
        "digests": {},
        "call": {},
        "report": {"formats": ["html"], "include": "full"},
        "counts": {"ok": 3},
        "errors": {},
        "requests": 3,
        "totals": {"rows": 3, "usd": 0.25, "usd_unknown_rows": 0},
        "verdict": {"outcome": "none", "exit_code": 0, "headline": "no gate was asked for", "findings": []},
    }
    return facts | changes


def make_started(number: int, attempt: int = 1) -> Started:
    """Return the record before a send."""
    return Started(row_id=make_id(f"row{number}"), request_key=make_id(f"key{number}"), index=number, attempt=attempt)


def make_attempt(number: int, attempt: int = 1, **changes: Any) -> Attempt:
    """Return an answered attempt."""
    body = {"id": f"c{number}", "choices": [{"message": {"content": f"answer {number}"}, "finish_reason": "stop"}]}
    facts: dict[str, Any] = {
        "row_id": make_id(f"row{number}"),
        "request_key": make_id(f"key{number}"),
        "attempt": attempt,
        "started_at": NOON + timedelta(milliseconds=number),
        "wait_s": 0.0,
        "latency_s": 0.25,
        "first_token_s": None,
        "http_status": 200,
        "error_code": None,
        "error_message": None,
        "retry_after_s": None,
        "request_id": f"req-{number}",
        "bytes_sent": 200,
        "bytes_received": 688,
        "usage": USAGE,
        "cost_usd": Decimal("0.000241250000"),
        "cost_source": CostSource.TABLE,
        "maybe_billed": False,
        "body": json.dumps(body),
    }
    return Attempt(**facts | changes)


def make_failed_attempt(number: int, attempt: int = 1, cost_usd: Decimal | None = Decimal(0)) -> Attempt:
    """Return an attempt that was refused."""
    return make_attempt(
        number,
        attempt,
        http_status=503,
        error_code=ErrorCode.SERVER_ERROR,
        error_message="try again",
        usage=Usage(),
        cost_usd=cost_usd,
        cost_source=CostSource.UNKNOWN,
        body="try again",
    )


def make_outcome(number: int, **changes: Any) -> Outcome:
    """Return an answered outcome."""
    facts: dict[str, Any] = {
        "row_id": make_id(f"row{number}"),
        "request_key": make_id(f"key{number}"),
        "index": number,
        "status": Status.OK,
        "error_code": None,
        "error_message": None,
        "http_status": 200,
        "attempts": 1,
        "completion": Completion(
            status=Status.OK,
            output=f"answer {number}",
            finish_reason="stop",
            response_id=f"c{number}",
            response_model="gpt-5.1",
            usage=USAGE,
        ),
        "usage": USAGE,
        "cost_usd": Decimal("0.000241250000"),
        "billed_usd": Decimal("0.000241250000"),
        "cost_source": CostSource.TABLE,
        "latency_s": 0.25,
        "first_token_s": None,
        "queue_s": 0.001,
        "started_at": NOON + timedelta(milliseconds=number),
        "finished_at": NOON + timedelta(milliseconds=number + 250),
        "last_attempt": make_attempt(number),
    }
    return Outcome(**facts | changes)


def make_error(number: int, code: str = ErrorCode.SERVER_ERROR, **changes: Any) -> Outcome:
    """Return an outcome without an answer."""
    facts: dict[str, Any] = {
        "status": Status.ERROR,
        "error_code": code,
        "error_message": "try again",
        "http_status": 503,
        "completion": None,
        "usage": Usage(),
        "cost_usd": None,
        "cost_source": CostSource.UNKNOWN,
        "last_attempt": make_failed_attempt(number),
    }
    return make_outcome(number, **facts | changes)


def make_request(number: int, row: dict[str, Any] | None = None, **changes: Any) -> Request:
    """Return a planned row."""
    sample = Sample(
        sample_id=f"s{number}",
        row=row if row is not None else {"id": f"s{number}", "question": f"What is {number} + 1?"},
        category="sums",
        where=f"data.jsonl:{number + 1}",
    )
    body = {"model": "gpt-5.1", "messages": [{"role": "user", "content": f"What is {number} + 1?"}]}
    facts: dict[str, Any] = {
        "index": number,
        "row_id": make_id(f"row{number}"),
        "request_key": make_id(f"key{number}"),
        "sample": sample,
        "prompt": "terse",
        "model": "gpt-5.1",
        "endpoint": "gateway",
        "repeat": 0,
        "body": json.dumps(body).encode(),
    }
    return Request(**facts | changes)


def make_grade(number: int, grader: str = "correct", **changes: Any) -> Grade:
    """Return a grade."""
    facts: dict[str, Any] = {
        "row_id": make_id(f"row{number}"),
        "request_key": make_id(f"key{number}"),
        "grader": grader,
        "type": "exact",
        "grader_digest": make_id(grader),
        "metric": None,
        "score": 1.0,
        "passed": True,
        "hard": False,
        "weight": 1.0,
        "reason": "equal",
    }
    return Grade(**facts | changes)
