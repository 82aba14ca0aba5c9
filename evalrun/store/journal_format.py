"""One journal line: how a record becomes bytes, and how bytes prove themselves before they become a record again.

A record enters and a frame leaves, `{"v":1,"t":"done","crc":"0a1b2c3d","b":{…}}` and a newline, or the reverse. Here
`crc` is crc32 over the bytes of `b`, so that `jq` and polars read the file as it is. A key that is absent in `b` is
null; the usage inside `completion` and `last_attempt` is absent when it is that of the outcome. A body that orjson
cannot write (lone surrogates, integers beyond 64 bits) is written by the standard library, and says so in `enc`.
"""

import json
import re
from collections.abc import Iterator, Mapping
from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum
from pathlib import PurePath
from typing import Any, NamedTuple
from zlib import crc32

import orjson

from evalrun.records import Attempt, Completion, CostSource, Outcome, Started, Status, Usage, UsageSource
from evalrun.store.packers import make_packer

FORMAT_VERSION = 1


class Kind(StrEnum):
    """What a frame holds."""

    RUN = "run"
    STARTED = "started"
    ATTEMPT = "attempt"
    DONE = "done"


class Frame(NamedTuple):
    """A line that proved itself."""

    kind: Kind
    body: bytes
    """JSON in UTF-8, as the checksum saw it."""


_STANDARD_JSON = b'{"enc":"std"'
_HEAD = re.compile(rb'\{"v":1,"t":"(run|started|attempt|done)","crc":"([0-9a-f]{8})","b":')
_KINDS = {kind.value.encode(): kind for kind in Kind}
# Looking a member up by value in a dict is ten times faster than calling the enum.
_STATUSES = {member.value: member for member in Status}
_COST_SOURCES = {member.value: member for member in CostSource}
_USAGE_SOURCES = {member.value: member for member in UsageSource}
_PREFIXES = {kind: f'{{"v":{FORMAT_VERSION},"t":"{kind}","crc":"'.encode() for kind in Kind}
NOT_UNDERSTOOD = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""What reading a record raises whose checksum holds, and whose values are not what evalrun writes."""
_OTHER_VERSION = re.compile(rb'\{"v":(?!1,)([0-9]{1,6}),"t":"')
_PUT_OUTCOME = make_packer(
    (
        # The first keys are those that the index reads.
        *("row_id", "request_key", "index", "status", "attempts", "error_code", "is_permanent"),
        *("is_billed_estimated", "billed_usd", "cost_usd", "cost_source", "reused_from", "reused_row_id"),
        *("error_message", "http_status", "latency_s", "first_token_s", "queue_s", "started_at", "finished_at"),
    ),
    as_text={"billed_usd", "cost_usd"},
    if_true={"is_permanent", "is_billed_estimated"},
)
_PUT_ATTEMPT = make_packer(
    (
        *("attempt", "started_at", "wait_s", "latency_s", "first_token_s", "http_status", "error_code"),
        *("error_message", "retry_after_s", "request_id", "bytes_sent", "bytes_received", "cost_usd", "cost_source"),
        *("maybe_billed", "body"),
    ),
    as_text={"cost_usd"},
)
_PUT_COMPLETION = make_packer(
    (
        *("status", "output", "refusal", "finish_reason", "reasoning", "tool_calls", "choices", "logprobs"),
        *("response_id", "response_model", "system_fingerprint", "service_tier", "flags"),
    ),
    if_true={"flags"},
)
_PUT_USAGE = make_packer(
    (
        *("prompt_tokens", "cached_tokens", "cache_write_tokens", "completion_tokens", "reasoning_tokens"),
        *("audio_input_tokens", "audio_output_tokens", "total_tokens", "source", "raw", "reported_cost_usd", "flags"),
    ),
    as_text={"reported_cost_usd"},
    if_true={"flags"},
)


def encode_frame(kind: Kind, fields: Mapping[str, Any]) -> bytes:
    """Return the line of a record, newline included.

    Raises:
        TypeError: A value is not one that JSON, `Decimal`, a date, a path or a set can stand for.
    """
    try:
        body = orjson.dumps(fields, default=_write_value)
    except TypeError:  # Lone surrogates and integers beyond 64 bits; a value of no known kind fails below, too.
        text = json.dumps({"enc": "std", **fields}, default=_write_value, ensure_ascii=True, separators=(",", ":"))
        body = text.encode("ascii")
    return b'%b%08x","b":%b}\n' % (_PREFIXES[kind], crc32(body), body)


def encode_record(record: Started | Attempt | Outcome) -> bytes:
    """Return the line of what the dispatcher hands over."""
    if isinstance(record, Outcome):
        return encode_frame(Kind.DONE, _pack_outcome(record))
    if isinstance(record, Attempt):
        return encode_frame(Kind.ATTEMPT, _pack_attempt(record, None))
    fields = {
        "row_id": record.row_id,
        "request_key": record.request_key,
        "index": record.index,
        "attempt": record.attempt,
    }
    return encode_frame(Kind.STARTED, fields)


def parse_frame(line: bytes) -> Frame | None:
    """Return what a line holds, or None when it does not prove itself: cut off, changed, not ours."""
    head = _HEAD.match(line)
    if head is None or line[-2:] != b"}\n":
        return None
    body = line[head.end() : -2]
    if crc32(body) != int(head[2], 16):
        return None
    return Frame(_KINDS[head[1]], body)


def parse_head(line: bytes) -> tuple[int, int] | None:
    """Return how long the head of a line is, and the checksum that it names; None when it is no head of ours."""
    head = _HEAD.match(line)
    return None if head is None else (head.end(), int(head[2], 16))


def find_heads(data: bytes, *, start: int = 0) -> Iterator[int]:
    """Yield where in some bytes a line may begin."""
    return (head.start() for head in _HEAD.finditer(data, start))


def parse_other_version(line: bytes) -> int | None:
    """Return the version that a line names when it is not the one that is read here; None for any other line."""
    match = _OTHER_VERSION.match(line)
    return int(match[1]) if match else None


def parse_body(body: bytes) -> dict[str, Any]:
    """Return the fields of a frame's body.

    Raises:
        ValueError: It is no JSON object, or is nested too deeply to be one of ours.
    """
    if is_standard_json(body):
        try:
            fields = json.loads(body)
        except RecursionError:
            msg = "nested too deeply"
            raise ValueError(msg) from None
        fields.pop("enc", None)
    else:
        fields = orjson.loads(body)
    if type(fields) is not dict:
        msg = "not a JSON object"
        raise ValueError(msg)
    return fields


def is_standard_json(body: bytes) -> bool:
    """Tell whether the standard library wrote a body, since orjson could not."""
    return body.startswith(_STANDARD_JSON)


def parse_outcome(body: bytes, *, with_attempt: bool = True) -> Outcome:
    """Return the outcome of a `done` frame; its `last_attempt` is left out (None) where it is not wanted."""
    return build_outcome(parse_body(body), with_attempt=with_attempt)


def build_outcome(fields: Mapping[str, Any], *, with_attempt: bool = True) -> Outcome:
    """Return the outcome that the fields of a `done` frame stand for."""
    usage = _unpack_usage(fields.get("usage"))
    completion, last_attempt = fields.get("completion"), fields.get("last_attempt") if with_attempt else None
    get = fields.get
    return Outcome(
        row_id=fields["row_id"],
        request_key=fields["request_key"],
        index=fields["index"],
        status=_STATUSES[fields["status"]],
        error_code=get("error_code"),
        is_permanent=get("is_permanent", False),
        is_billed_estimated=get("is_billed_estimated", False),
        error_message=get("error_message"),
        http_status=get("http_status"),
        attempts=fields["attempts"],
        completion=None if completion is None else _unpack_completion(completion, usage),
        usage=usage,
        cost_usd=_read_decimal(get("cost_usd")),
        billed_usd=_read_decimal(get("billed_usd")),
        cost_source=_COST_SOURCES[fields["cost_source"]],
        latency_s=get("latency_s"),
        first_token_s=get("first_token_s"),
        queue_s=get("queue_s"),
        started_at=_read_datetime(get("started_at")),
        finished_at=_read_datetime(get("finished_at")),
        last_attempt=None if last_attempt is None else _unpack_attempt(last_attempt, fields, usage),
        reused_from=get("reused_from"),
        reused_row_id=get("reused_row_id"),
    )


def parse_attempt(body: bytes) -> Attempt:
    """Return the attempt of an `attempt` frame."""
    fields = parse_body(body)
    return _unpack_attempt(fields, fields, _unpack_usage(None))


def parse_last_attempt(body: bytes) -> Attempt | None:
    """Return the attempt inside a `done` frame; None when the row was never sent."""
    fields = parse_body(body)
    attempt = fields.get("last_attempt")
    return None if attempt is None else _unpack_attempt(attempt, fields, _unpack_usage(fields.get("usage")))


def _pack_outcome(outcome: Outcome) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    _PUT_OUTCOME(outcome, fields)
    fields["usage"] = _pack_usage(outcome.usage)
    if outcome.completion is not None:
        fields["completion"] = _pack_completion(outcome.completion, outcome.usage)
    if outcome.last_attempt is not None:
        fields["last_attempt"] = _pack_attempt(outcome.last_attempt, outcome)
    return fields


def _pack_attempt(attempt: Attempt, outcome: Outcome | None) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if outcome is None or attempt.row_id != outcome.row_id or attempt.request_key != outcome.request_key:
        fields = {"row_id": attempt.row_id, "request_key": attempt.request_key}
    _PUT_ATTEMPT(attempt, fields)
    if outcome is None or (attempt.usage is not outcome.usage and attempt.usage != outcome.usage):
        fields["usage"] = _pack_usage(attempt.usage)
    return fields


def _pack_completion(completion: Completion, usage: Usage) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    _PUT_COMPLETION(completion, fields)
    if completion.usage is not usage and completion.usage != usage:
        fields["usage"] = _pack_usage(completion.usage)
    return fields


def _pack_usage(usage: Usage) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    _PUT_USAGE(usage, fields)
    return fields


def _unpack_usage(fields: Mapping[str, Any] | None) -> Usage:
    if fields is None:
        return Usage()
    get = fields.get
    return Usage(
        prompt_tokens=get("prompt_tokens"),
        cached_tokens=get("cached_tokens"),
        cache_write_tokens=get("cache_write_tokens"),
        completion_tokens=get("completion_tokens"),
        reasoning_tokens=get("reasoning_tokens"),
        audio_input_tokens=get("audio_input_tokens"),
        audio_output_tokens=get("audio_output_tokens"),
        total_tokens=get("total_tokens"),
        source=_USAGE_SOURCES[fields["source"]],
        raw=get("raw"),
        reported_cost_usd=_read_decimal(get("reported_cost_usd")),
        flags=tuple(get("flags", ())),
    )


def _unpack_completion(fields: Mapping[str, Any], usage: Usage) -> Completion:
    get = fields.get
    return Completion(
        status=_STATUSES[fields["status"]],
        output=get("output"),
        refusal=get("refusal"),
        finish_reason=get("finish_reason"),
        reasoning=get("reasoning"),
        tool_calls=get("tool_calls"),
        choices=get("choices"),
        logprobs=get("logprobs"),
        response_id=get("response_id"),
        response_model=get("response_model"),
        system_fingerprint=get("system_fingerprint"),
        service_tier=get("service_tier"),
        usage=_unpack_usage(fields["usage"]) if "usage" in fields else usage,
        flags=tuple(get("flags", ())),
    )


def _unpack_attempt(fields: Mapping[str, Any], ids: Mapping[str, Any], usage: Usage) -> Attempt:
    get = fields.get
    return Attempt(
        row_id=get("row_id", ids["row_id"]),
        request_key=get("request_key", ids["request_key"]),
        attempt=fields["attempt"],
        started_at=datetime.fromisoformat(fields["started_at"]),
        wait_s=fields["wait_s"],
        latency_s=get("latency_s"),
        first_token_s=get("first_token_s"),
        http_status=get("http_status"),
        error_code=get("error_code"),
        error_message=get("error_message"),
        retry_after_s=get("retry_after_s"),
        request_id=get("request_id"),
        bytes_sent=fields["bytes_sent"],
        bytes_received=fields["bytes_received"],
        usage=_unpack_usage(fields["usage"]) if "usage" in fields else usage,
        cost_usd=_read_decimal(get("cost_usd")),
        cost_source=_COST_SOURCES[fields["cost_source"]],
        maybe_billed=fields["maybe_billed"],
        body=get("body"),
    )


def _read_decimal(text: str | None) -> Decimal | None:
    return None if text is None else Decimal(text)


def _read_datetime(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def _write_value(value: object) -> Any:
    """Stand in for what JSON has no word for."""
    if isinstance(value, Decimal | PurePath):
        return str(value)
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, set | frozenset):
        return sorted(value)
    msg = f"{type(value).__name__} cannot be written into the journal"
    raise TypeError(msg)
