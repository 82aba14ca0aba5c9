import json
from datetime import timedelta, timezone
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from evalrun.records import Completion, CostSource, ErrorCode, Outcome, Request, Status, Usage, UsageSource
from evalrun.store.journal_format import encode_record
from evalrun.store.record_columns import build_attempt_columns
from evalrun.store.record_reader import parse_record
from evalrun.store.tables import (
    ATTEMPTS,
    GRADES,
    RESULTS,
    render_schema_markdown,
)
from tests.store.fake_records import (
    NOON,
    make_attempt,
    make_error,
    make_failed_attempt,
    make_grade,
    make_id,
    make_outcome,
    make_request,
)
from tests.store.table_rows import build_attempt_row, build_grade_row, build_result_row

RESULTS_CONTRACT = """
row_id:str request_key:str run_id:str sample_id:str sample:str category:str? prompt:str model:str endpoint:str
repeat:i32 request:str status:str error_code:str? error_message:str? http_status:i16? attempts:i16 output:str?
refusal:str? finish_reason:str? reasoning:str? tool_calls:str? choices:str? logprobs:str? response_id:str?
response_model:str? system_fingerprint:str? service_tier:str? prompt_tokens:i64? cached_tokens:i64?
cache_write_tokens:i64? completion_tokens:i64? reasoning_tokens:i64? total_tokens:i64? usage_source:str usage:str?
cost_usd:f64? billed_usd:f64? cost_source:str latency_s:f64? first_token_s:f64? queue_s:f64? started_at:datetime?
finished_at:datetime? reused_from:str? flags:str? score:f64? passed:bool?
"""
ATTEMPTS_CONTRACT = """
row_id:str request_key:str attempt:i16 started_at:datetime wait_s:f64 latency_s:f64? first_token_s:f64?
http_status:i16? error_code:str? retry_after_s:f64? request_id:str? bytes_sent:i64 bytes_received:i64
prompt_tokens:i64? completion_tokens:i64? usage_source:str cost_usd:f64? maybe_billed:bool
"""
GRADES_CONTRACT = """
row_id:str request_key:str grader:str type:str grader_digest:str metric:str? score:f64? passed:bool? hard:bool
weight:f64 reason:str judge_row_ids:str? against_row_id:str? error_code:str?
"""
SCHEMA_PAGE = Path(__file__).parents[2] / "docs" / "schema.md"


def _build(outcome: Outcome | None, request: Request | None = None) -> dict[str, Any]:
    row = build_result_row(request or make_request(1), outcome, run_id="run", pending_code="lane_stopped")
    assert set(row) == {column.name for column in RESULTS}
    return row


def test_columns_are_those_of_the_contract() -> None:
    """Names, order, types and null marks are what programs hold on to."""
    tables = [
        [f"{c.name}:{c.dtype}{'?' if c.nullable else ''}" for c in table] for table in (RESULTS, ATTEMPTS, GRADES)
    ]
    assert tables == [RESULTS_CONTRACT.split(), ATTEMPTS_CONTRACT.split(), GRADES_CONTRACT.split()]


def test_schema_page_is_the_one_that_is_generated() -> None:
    """docs/schema.md says what tables.py says."""
    assert SCHEMA_PAGE.read_text("utf-8") == render_schema_markdown()


def test_result_row_of_an_answer_holds_all_that_is_known() -> None:
    """An answered row carries request, answer, usage, money and times."""
    row = _build(make_outcome(1))
    assert {name: value for name, value in row.items() if value is not None} == {
        "row_id": make_id("row1"),
        "request_key": make_id("key1"),
        "run_id": "run",
        "sample_id": "s1",
        "sample": '{"id":"s1","question":"What is 1 + 1?"}',
        "category": "sums",
        "prompt": "terse",
        "model": "gpt-5.1",
        "endpoint": "gateway",
        "repeat": 0,
        "request": '{"model": "gpt-5.1", "messages": [{"role": "user", "content": "What is 1 + 1?"}]}',
        "status": "ok",
        "http_status": 200,
        "attempts": 1,
        "output": "answer 1",
        "finish_reason": "stop",
        "response_id": "c1",
        "response_model": "gpt-5.1",
        "prompt_tokens": 57,
        "completion_tokens": 17,
        "total_tokens": 74,
        "usage_source": "reported",
        "usage": '{"prompt_tokens":57,"completion_tokens":17,"total_tokens":74}',
        "cost_usd": 0.00024125,
        "billed_usd": 0.00024125,
        "cost_source": "table",
        "latency_s": 0.25,
        "queue_s": 0.001,
        "started_at": NOON + timedelta(milliseconds=1),
        "finished_at": NOON + timedelta(milliseconds=251),
    }


@pytest.mark.parametrize(
    ("status", "output", "expected"),
    [
        (Status.OK, "text", "text"),
        (Status.OK, None, None),
        (Status.TRUNCATED, "te", "te"),
        (Status.REFUSED, None, None),
        (Status.EMPTY, None, ""),
        (Status.EMPTY, "", ""),
        (Status.FILTERED, "te", None),
    ],
)
def test_result_row_has_output_for_answers_only(status: Status, output: str | None, expected: str | None) -> None:
    """Text of a filtered row is no answer; an empty answer is ""; a reply of tool calls only has none."""
    outcome = make_outcome(1, status=status, completion=Completion(status=status, output=output))
    assert _build(outcome)["output"] == expected


@pytest.mark.parametrize("offset_s", [0, 3600, -5400, 3630])
def test_moments_are_in_utc_whatever_form_the_journal_has_them_in(offset_s: int) -> None:
    """A record of another run may tell a time with any offset that Python reads, one of odd seconds included."""
    text = NOON.astimezone(timezone(timedelta(seconds=offset_s))).isoformat()
    record = {**(parse_record(encode_record(make_failed_attempt(1))) or {}), "started_at": text}
    begun = build_attempt_columns([record])["started_at"][0]
    assert (begun, begun.utcoffset()) == (NOON, timedelta(0))


def test_result_row_of_an_error_has_no_answer_and_unknown_cost() -> None:
    """An outage is never an empty answer, and its unknown cost never 0."""
    row = _build(make_error(1, billed_usd=None))
    facts = [row[name] for name in ("status", "error_code", "error_message", "http_status", "output")]
    assert facts == ["error", "server_error", "try again", 503, None]
    money = [row[name] for name in ("cost_usd", "billed_usd", "cost_source", "usage_source", "score", "passed")]
    assert money == [None, None, "unknown", "missing", None, None]


def test_result_row_without_outcome_is_pending() -> None:
    """A row that was never finished keeps what earlier calls spent on it."""
    request = make_request(1, prior_attempts=2, prior_billed_usd=Decimal("0.5"))
    row = _build(None, request)
    assert [row[name] for name in ("status", "error_code", "attempts", "billed_usd", "cost_usd", "output")] == [
        "pending",
        "lane_stopped",
        2,
        0.5,
        None,
        None,
    ]


def test_result_row_that_stopped_its_lane_keeps_its_code() -> None:
    """A pending outcome carries the code that stopped the lane."""
    row = _build(make_error(1, ErrorCode.QUOTA, status=Status.PENDING, http_status=402))
    assert (row["status"], row["error_code"], row["http_status"]) == ("pending", "quota", 402)


def test_result_row_rounds_money_to_a_trillionth() -> None:
    """Decimal amounts become the f64 nearest to 12 places."""
    row = _build(make_outcome(1, cost_usd=Decimal("0.1234567890123456"), billed_usd=Decimal(0)))
    assert (row["cost_usd"], row["billed_usd"]) == (0.123456789012, 0.0)


def test_result_row_lists_each_flag_once() -> None:
    """Flags of completion and usage come as one JSON list."""
    usage = Usage(source=UsageSource.REPORTED, flags=("usage_inconsistent",))
    completion = Completion(status=Status.OK, output="x", flags=("model_mismatch", "usage_inconsistent"))
    row = _build(make_outcome(1, completion=completion, usage=usage))
    assert json.loads(row["flags"]) == ["model_mismatch", "usage_inconsistent"]


def test_result_row_cleans_and_flags_lone_surrogates() -> None:
    """Text that UTF-8 cannot hold is written as its escape, in every column, and said so."""
    completion = Completion(status=Status.OK, output="a\ud800b", reasoning="é")
    request = make_request(1, row={"id": "s1", "question": "\udfff"})
    row = _build(make_outcome(1, completion=completion), request)
    assert (row["output"], row["reasoning"], json.loads(row["flags"])) == ("a\\ud800b", "é", ["text_cleaned"])
    assert json.loads(row["sample"])["question"] == "\udfff"
    json.dumps(row, default=str).encode()


def test_result_row_keeps_huge_and_nested_sample_values() -> None:
    """The sample's JSON holds integers beyond 64 bits exactly, and mappings of any kind."""
    row = _build(make_outcome(1), make_request(1, row={"n": 2**70, "m": MappingProxyType({"a": [1, (2,)]})}))
    assert json.loads(row["sample"]) == {"n": 2**70, "m": {"a": [1, [2]]}}


def test_result_row_calls_a_count_beyond_64_bits_unknown() -> None:
    """A count that no column can hold is no knowledge: null, and flagged."""
    usage = Usage(prompt_tokens=10**30, completion_tokens=5, source=UsageSource.REPORTED)
    row = _build(make_outcome(1, usage=usage))
    assert (row["prompt_tokens"], row["completion_tokens"]) == (None, 5)
    assert json.loads(row["flags"]) == ["usage_inconsistent"]


def test_attempt_row_holds_each_column() -> None:
    """A failed attempt tells when, how long, why, and what it may have cost."""
    row = build_attempt_row(make_failed_attempt(1, 2, None))
    assert list(row) == [column.name for column in ATTEMPTS]
    names = ("attempt", "http_status", "error_code", "usage_source", "cost_usd", "maybe_billed", "started_at")
    expected = [2, 503, "server_error", "missing", None, False, NOON + timedelta(milliseconds=1)]
    assert [row[name] for name in names] == expected


def test_attempt_row_of_an_answer_has_its_usage() -> None:
    """An answered attempt tells its tokens and its cost."""
    row = build_attempt_row(make_attempt(1, cost_usd=Decimal("0.25"), cost_source=CostSource.REPORTED))
    assert (row["prompt_tokens"], row["completion_tokens"], row["cost_usd"]) == (57, 17, 0.25)


def test_grade_row_holds_each_column() -> None:
    """A grade keeps null for what no judge said, and its reason is clean text."""
    row = build_grade_row(make_grade(1, reason="got \ud800", passed=None, score=None, error_code="grader_timeout"))
    assert list(row) == [column.name for column in GRADES]
    names = ("reason", "passed", "score", "error_code", "judge_row_ids")
    assert [row[name] for name in names] == ["got \\ud800", None, None, "grader_timeout", None]


def test_row_whose_bill_holds_an_estimate_is_flagged() -> None:
    """`billed_estimated` stands in the row, whether it was asked in this call or is left over from an earlier one."""
    row = _build(make_outcome(1, is_billed_estimated=True))
    assert json.loads(row["flags"]) == ["billed_estimated"]
    pending = _build(None, make_request(1, prior_attempts=1, is_prior_estimated=True))
    assert json.loads(pending["flags"]) == ["billed_estimated"]
