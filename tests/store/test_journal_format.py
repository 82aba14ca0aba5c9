import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalrun.records import Attempt, Completion, CostSource, Outcome, Status, Usage, UsageSource
from evalrun.store.journal_format import (
    Kind,
    encode_frame,
    encode_record,
    parse_attempt,
    parse_body,
    parse_frame,
    parse_last_attempt,
    parse_outcome,
)
from tests.store.fake_records import make_attempt, make_outcome, make_started


def _is_pair_free(text: str) -> bool:
    # JSON cannot tell a high surrogate followed by a low one from the character that the two stand for.
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass") == text


texts = st.text(st.characters(codec=None), max_size=30).filter(_is_pair_free)
maybe_texts = st.none() | texts
counts = st.none() | st.integers(-(2**70), 2**70)
seconds = st.none() | st.floats(0, 1e6)
amounts = st.none() | st.decimals(0, 10**6, allow_nan=False, allow_infinity=False, places=12)
times = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - bounds are naive
flags = st.lists(texts, max_size=3).map(tuple)
usages = st.builds(
    Usage,
    prompt_tokens=counts,
    cached_tokens=counts,
    cache_write_tokens=counts,
    completion_tokens=counts,
    reasoning_tokens=counts,
    total_tokens=counts,
    source=st.sampled_from(UsageSource),
    raw=maybe_texts,
    reported_cost_usd=amounts,
    flags=flags,
)
completions = st.builds(
    Completion,
    status=st.sampled_from(Status),
    output=maybe_texts,
    refusal=maybe_texts,
    finish_reason=maybe_texts,
    reasoning=maybe_texts,
    tool_calls=maybe_texts,
    choices=maybe_texts,
    logprobs=maybe_texts,
    response_id=maybe_texts,
    response_model=maybe_texts,
    system_fingerprint=maybe_texts,
    service_tier=maybe_texts,
    usage=usages,
    flags=flags,
)
attempts = st.builds(
    Attempt,
    row_id=texts,
    request_key=texts,
    attempt=st.integers(1, 1000),
    started_at=times,
    wait_s=st.floats(0, 1e6),
    latency_s=seconds,
    first_token_s=seconds,
    http_status=st.none() | st.integers(100, 599),
    error_code=maybe_texts,
    error_message=maybe_texts,
    retry_after_s=seconds,
    request_id=maybe_texts,
    bytes_sent=st.integers(0, 2**40),
    bytes_received=st.integers(0, 2**40),
    usage=usages,
    cost_usd=amounts,
    cost_source=st.sampled_from(CostSource),
    maybe_billed=st.booleans(),
    body=maybe_texts,
)
outcomes = st.builds(
    Outcome,
    row_id=texts,
    request_key=texts,
    index=st.integers(0, 2**40),
    status=st.sampled_from(Status),
    error_code=maybe_texts,
    error_message=maybe_texts,
    http_status=st.none() | st.integers(100, 599),
    attempts=st.integers(0, 1000),
    completion=st.none() | completions,
    usage=usages,
    cost_usd=amounts,
    billed_usd=amounts,
    cost_source=st.sampled_from(CostSource),
    latency_s=seconds,
    first_token_s=seconds,
    queue_s=seconds,
    started_at=st.none() | times,
    finished_at=st.none() | times,
    last_attempt=st.none() | attempts,
    reused_from=maybe_texts,
    reused_row_id=maybe_texts,
)


@settings(max_examples=60, deadline=None)
@given(outcomes)
def test_outcome_comes_back_equal(outcome: Outcome) -> None:
    """Whatever an outcome holds, reading gives what was written."""
    frame = parse_frame(encode_record(outcome))
    assert frame is not None
    assert parse_outcome(frame.body) == outcome
    assert parse_last_attempt(frame.body) == outcome.last_attempt


@settings(max_examples=60, deadline=None)
@given(attempts)
def test_attempt_comes_back_equal(attempt: Attempt) -> None:
    """Whatever an attempt holds, reading gives what was written."""
    frame = parse_frame(encode_record(attempt))
    assert frame is not None
    assert parse_attempt(frame.body) == attempt


def test_usage_of_completion_and_attempt_is_written_once_when_equal() -> None:
    """A usual outcome does not pay three times for one usage."""
    line = encode_record(make_outcome(1))
    assert line.count(b'"usage"') == 1


def test_usage_of_its_own_survives_beside_an_empty_one() -> None:
    """A completion whose usage is empty, inside an outcome that has one, keeps the empty one."""
    outcome = make_outcome(1, completion=Completion(status=Status.OK, output="x", usage=Usage()))
    frame = parse_frame(encode_record(outcome))
    assert frame is not None
    assert parse_outcome(frame.body) == outcome


@pytest.mark.parametrize("record", [make_started(1), make_attempt(1), make_outcome(1, error_message="\ud800")])
def test_line_is_one_json_object(record: Any) -> None:
    """Any JSON reader gets version, type, checksum and body from each line."""
    line = encode_record(record)
    document = json.loads(line)
    assert list(document) == ["v", "t", "crc", "b"]
    assert document["b"]["row_id"] == record.row_id
    assert line.count(b"\n") == 1


def test_session_facts_keep_huge_integers_and_lone_surrogates() -> None:
    """What orjson refuses is written by the standard library and comes back exactly."""
    facts = {"seed": 2**80, "text": "a\ud800b", "usd": Decimal("0.1"), "seen": {"b", "a"}}
    frame = parse_frame(encode_frame(Kind.RUN, facts))
    assert frame is not None
    assert parse_body(frame.body) == {"seed": 2**80, "text": "a\ud800b", "usd": "0.1", "seen": ["a", "b"]}


def test_session_facts_of_an_unknown_kind_are_refused() -> None:
    """A value that cannot be written is a loud error, never its repr."""
    with pytest.raises(TypeError, match="object cannot be written into the journal"):
        encode_frame(Kind.RUN, {"x": object()})


def test_line_with_any_bit_flipped_does_not_prove_itself() -> None:
    """No single flipped bit of a line passes, wherever it is."""
    line = encode_record(make_started(1))
    for position in range(len(line)):
        for bit in range(8):
            damaged = bytearray(line)
            damaged[position] ^= 1 << bit
            assert parse_frame(bytes(damaged)) is None
