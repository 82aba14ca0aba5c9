"""An outcome of another run, believed only when every field is what evalrun would have written there.

The body of a `done` frame enters; an outcome leaves, or None. Its checksum proves that nobody changed it by accident,
not that evalrun wrote it: a value of another type or range would end the run that took it, and each resume of it.
"""

import re
from collections.abc import Callable, Mapping
from math import isfinite
from typing import Any

from evalrun.records import ANSWERED, FINISHED, Outcome
from evalrun.store.journal_format import NOT_UNDERSTOOD, build_outcome, parse_body

_MAX_I16 = 2**15 - 1
_MAX_I64 = 2**63 - 1
_MAX_RUN_ID_CHARS = 255
_DIGEST = re.compile(r"[0-9a-f]{64}")
_CODE = re.compile(r"[a-z0-9_]{1,64}")
_USD = re.compile(r"[0-9]{1,16}(?:\.[0-9]{1,60})?(?:E-[0-9]{1,3})?")


def parse_stored_outcome(body: bytes) -> Outcome | None:
    """Return the finished outcome of a `done` frame, without its `last_attempt`; None when it does not hold."""
    try:
        fields = parse_body(body)
        if not _holds(fields, _OUTCOME):
            return None
        outcome = build_outcome(fields, with_attempt=False)
    except NOT_UNDERSTOOD:
        return None
    return outcome if _is_consistent(outcome) else None


def is_run_id(value: object) -> bool:
    """Tell whether a value can be the name of a run: one line of text that can be shown, as a folder's name is."""
    return type(value) is str and 0 < len(value) <= _MAX_RUN_ID_CHARS and value.isprintable()


def is_digest(value: object) -> bool:
    """Tell whether a value is a sha256 in hex, as row ids and request keys are."""
    return type(value) is str and _DIGEST.fullmatch(value) is not None


def _is_consistent(outcome: Outcome) -> bool:
    """Tell whether an outcome that is finished has the completion, and the error code, of its status."""
    return (
        outcome.status in FINISHED
        and outcome.completion is not None
        and outcome.completion.status is outcome.status
        and (outcome.error_code is None or outcome.status not in ANSWERED)
        and not outcome.is_permanent
        and all(moment is None or moment.tzinfo is not None for moment in (outcome.started_at, outcome.finished_at))
    )


def _holds(fields: Any, checks: Mapping[str, Callable[[Any], bool]]) -> bool:
    """Tell whether each field that is there is of its type and range; a field of no known name is of no use here."""
    if type(fields) is not dict:
        return False
    for name, value in fields.items():
        if type(value) is str and name in _TEXTS:
            continue  # Most fields: a call for each would take as long as parsing the record.
        check = checks.get(name, _is_unknown)
        if not check(value):
            return False
    return True


def _is_unknown(_: object) -> bool:
    return True


def _is_text(value: object) -> bool:
    return type(value) is str


def _is_bool(value: object) -> bool:
    return type(value) is bool


def _is_code(value: object) -> bool:
    return type(value) is str and _CODE.fullmatch(value) is not None


def _is_i16(value: object) -> bool:
    return type(value) is int and 0 <= value <= _MAX_I16


def _is_i64(value: object) -> bool:
    return type(value) is int and 0 <= value <= _MAX_I64


def _is_seconds(value: object) -> bool:
    return type(value) in (int, float) and isfinite(value) and value >= 0  # type: ignore[arg-type, operator]


def _is_usd(value: object) -> bool:
    return type(value) is str and _USD.fullmatch(value) is not None


def _are_codes(value: object) -> bool:
    return type(value) is list and all(map(_is_code, value))


def _is_usage(value: object) -> bool:
    return _holds(value, _USAGE)


def _is_completion(value: object) -> bool:
    return _holds(value, _COMPLETION)


_USAGE: dict[str, Callable[[Any], bool]] = {
    "prompt_tokens": _is_i64,
    "cached_tokens": _is_i64,
    "cache_write_tokens": _is_i64,
    "completion_tokens": _is_i64,
    "reasoning_tokens": _is_i64,
    "audio_input_tokens": _is_i64,
    "audio_output_tokens": _is_i64,
    "total_tokens": _is_i64,
    "source": _is_text,
    "raw": _is_text,
    "reported_cost_usd": _is_usd,
    "flags": _are_codes,
}
_COMPLETION: dict[str, Callable[[Any], bool]] = {
    "status": _is_text,
    "output": _is_text,
    "refusal": _is_text,
    "finish_reason": _is_text,
    "reasoning": _is_text,
    "tool_calls": _is_text,
    "choices": _is_text,
    "logprobs": _is_text,
    "response_id": _is_text,
    "response_model": _is_text,
    "system_fingerprint": _is_text,
    "service_tier": _is_text,
    "usage": _is_usage,
    "flags": _are_codes,
}
_OUTCOME: dict[str, Callable[[Any], bool]] = {
    "row_id": is_digest,
    "request_key": is_digest,
    "index": _is_i64,
    "status": _is_text,
    "attempts": _is_i64,
    "error_code": _is_code,
    "is_permanent": _is_bool,
    "is_billed_estimated": _is_bool,
    "billed_usd": _is_usd,
    "cost_usd": _is_usd,
    "cost_source": _is_text,
    "reused_from": is_run_id,
    "reused_row_id": is_digest,
    "error_message": _is_text,
    "http_status": _is_i16,
    "latency_s": _is_seconds,
    "first_token_s": _is_seconds,
    "queue_s": _is_seconds,
    "started_at": _is_text,
    "finished_at": _is_text,
    "usage": _is_usage,
    "completion": _is_completion,
}
# No name stands for a text in one of them, and for something else in another.
_TEXTS = frozenset(
    name for checks in (_OUTCOME, _COMPLETION, _USAGE) for name, check in checks.items() if check is _is_text
)
