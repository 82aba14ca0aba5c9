"""An outcome of another run is believed only when every field is what evalrun would have written there."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from evalrun.records import Completion, Status, Usage, UsageSource
from evalrun.store.journal_format import encode_record, parse_frame, parse_outcome
from evalrun.store.stored_outcome import parse_stored_outcome
from tests.store.fake_records import make_error, make_id, make_outcome

Change = Callable[[dict[str, Any]], object]


def encode(outcome: Any) -> bytes:
    """Return the body of an outcome's record."""
    frame = parse_frame(encode_record(outcome))
    assert frame is not None
    return frame.body


FULL_USAGE = Usage(
    prompt_tokens=10**12,
    cached_tokens=0,
    cache_write_tokens=1,
    completion_tokens=2,
    reasoning_tokens=3,
    total_tokens=4,
    source=UsageSource.REPORTED,
    raw="{}",
    reported_cost_usd=Decimal("5E-324"),
    flags=("usage_inconsistent",),
)
HONEST = [
    make_outcome(1, last_attempt=None),
    make_outcome(2, last_attempt=None, reused_from="my run é", reused_row_id=make_id("row5")),
    make_outcome(3, last_attempt=None, usage=FULL_USAGE, cost_usd=Decimal("0E-12"), billed_usd=None),
    make_outcome(
        4,
        last_attempt=None,
        status=Status.FILTERED,
        started_at=None,
        finished_at=datetime(2026, 1, 1, tzinfo=UTC),
        completion=Completion(status=Status.FILTERED, output=None, flags=("filtered_before_answer",)),
    ),
    make_outcome(
        5, last_attempt=None, error_message="half a \udc00", completion=Completion(status=Status.OK, output="\ud800 x")
    ),
]


@pytest.mark.parametrize("outcome", HONEST, ids=range(len(HONEST)))
def test_outcome_that_evalrun_wrote_holds(outcome: Any) -> None:
    """Whatever our own journal holds of a finished row is taken as it is, lone surrogates included."""
    body = encode(outcome)
    assert parse_stored_outcome(body) == parse_outcome(body, with_attempt=False) == outcome


def put(*path: str, value: Any) -> Change:
    """Return a change that sets one field."""

    def change(fields: dict[str, Any]) -> None:
        for name in path[:-1]:
            fields = fields[name]
        fields[path[-1]] = value

    return change


def drop(name: str) -> Change:
    """Return a change that leaves one field out."""
    return lambda fields: fields.pop(name)


BAD_MONEY = ("abc", "NaN", "Infinity", "1E+999999", "-5", "1E-999999", "٣", 5, None)
CHANGES: dict[str, Change] = {
    "no key": drop("request_key"),
    "key int": put("request_key", value=5),
    "row short": put("row_id", value="z"),
    "status list": put("status", value=["ok"]),
    "status odd": put("status", value="wonderful"),
    "status pending": put("status", value="pending"),
    "no completion": drop("completion"),
    "completion list": put("completion", value=[]),
    "completion error": put("completion", "status", value="error"),
    "completion of another status": put("completion", "status", value="truncated"),
    "output list": put("completion", "output", value=["x"]),
    "flags odd": put("completion", "flags", value=[1, {"a": 2}]),
    "flags text": put("completion", "flags", value="abc"),
    "flags unsigned": put("completion", "flags", value=["\x1b[2J"]),
    "http": put("http_status", value=10**9),
    "http bool": put("http_status", value=True),
    "tokens text": put("usage", "prompt_tokens", value="7"),
    "tokens huge": put("usage", "prompt_tokens", value=10**30),
    "tokens negative": put("usage", "prompt_tokens", value=-5),
    "usage list": put("usage", value=[]),
    "date": put("started_at", value="yesterday"),
    "date without zone": put("finished_at", value="2026-01-01T00:00:00"),
    "latency": put("latency_s", value=-0.5),
    "latency text": put("latency_s", value="1"),
    "error code of an answer": put("error_code", value="quota"),
    "permanent": put("is_permanent", value=1),
    "attempts": put("attempts", value=-1),
    "reused from": put("reused_from", value="\x1b[31mx"),
    "reused half": put("reused_from", value="a\ud800"),
    "reused row": put("reused_row_id", value=7),
    **{f"cost {text}": put("cost_usd", value=text) for text in BAD_MONEY},
    **{f"reported {text}": put("usage", "reported_cost_usd", value=text) for text in BAD_MONEY},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_outcome_that_evalrun_does_not_write_does_not_hold(change: Change) -> None:
    """A value of another type or range, or a status without its completion, is no outcome, and raises nothing."""
    fields = json.loads(encode(make_outcome(1)))
    change(fields)
    assert parse_stored_outcome(json.dumps(fields).encode()) is None
    assert parse_stored_outcome(json.dumps({"enc": "std", **fields}, separators=(",", ":")).encode()) is None


@pytest.mark.parametrize("begin", [b"{", b'{"enc":"std",'])
@pytest.mark.parametrize("value", [b"[" * 200_000 + b"]" * 200_000, b"9" * 5_000, b"NaN"])
def test_outcome_that_cannot_be_parsed_does_not_hold(begin: bytes, value: bytes) -> None:
    """Deep nesting and endless figures are no outcome, and raise nothing."""
    body = encode(make_outcome(1, last_attempt=None))
    assert parse_stored_outcome(begin + body[1:-1] + b',"latency_s":' + value + b"}") is None


@pytest.mark.parametrize("body", [b"[1,2]", b"7", b"null", b'"x"', b'{"enc":"std"', b""])
def test_body_that_is_no_object_does_not_hold(body: bytes) -> None:
    """A record that is no object is no outcome, and raises nothing."""
    assert parse_stored_outcome(body) is None


def test_error_is_not_taken() -> None:
    """What a resume would ask again is no outcome to take."""
    assert parse_stored_outcome(encode(make_error(1))) is None
