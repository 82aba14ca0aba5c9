"""Replies that say no, in all the shapes servers say it: what kind of failure each one is.

Status, headers and body enter; an `ApiError` of the right class and code leaves. The table of CONTRACT section 4 and
WIRE sections 2.8 and 2.9 decide; a reply's own words are quoted, never obeyed.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from evalrun.dispatch.json_text import dump_json, load_json
from evalrun.dispatch.retry_after import parse_duration
from evalrun.errors import (
    ApiError,
    AuthRefusedError,
    BadRequestError,
    ContentRefusedError,
    MalformedReplyError,
    RateLimitedError,
    ServerFaultError,
)
from evalrun.records import ErrorCode

EVIDENCE_BYTES = 4096
"""How much of a failed reply is kept."""
_MAX_MESSAGE_CHARS = 500
_REQUEST_ID_HEADERS = ("x-request-id", "request-id", "apim-request-id", "x-amzn-requestid", "cf-ray")

_BILLING = re.compile(
    r"insufficient_(quota|credits?|funds|balance)|billing\w*|credit_balance_\w+|\w*spend_limit_(exceeded|reached)"
    r"|organization_usage_limit_exceeded|daily_quota_exceeded|payment_required|out_of_credits?"
)
_BILLING_WORDS = re.compile(r"credit balance is too low|insufficient (balance|credits|funds)", re.IGNORECASE)
_CONTENT = re.compile(
    r"content_(filter|policy|moderation)\w*|moderation\w*|responsibleaipolicyviolation|data_inspection_failed"
    r"|safety_violation\w*|prohibited_content"
)
_CONTENT_WORDS = re.compile(
    r"content (filter|management|moderation) ?\w* policy|content filtering policy|requires? moderation|was flagged",
    re.IGNORECASE,
)
_CONTEXT = re.compile(r"context_length_exceeded|context_window_exceeded|prompt_too_long|max_context_length\w*")
_CONTEXT_WORDS = re.compile(
    r"maximum context length|context (length|window) (is |was )?exceeded|exceeds? the (model's )?(maximum )?context"
    r"|prompt is too long|too long for (the|this) (model|context)|longer than the (model's )?(maximum )?context",
    re.IGNORECASE,
)
_MODEL = re.compile(r"model_not_found|model_not_available|deploymentnotfound|unknown_model|invalid_model\w*")
_KEY = re.compile(r"invalid_api_key|api_key_invalid|authentication_error|invalid_authentication\w*|unauthori[sz]ed")
_OVERLOAD = re.compile(r"slow_down|overloaded\w*|capacity_exceeded|engine_overloaded")
_PASSING = re.compile(
    r"server_error|internal\w*|rate_limit\w*|too_many_requests|overloaded\w*|slow_down|capacity_exceeded|timeout\w*"
    r"|upstream\w*|service_unavailable|unavailable|api_error|bad_gateway|gateway_timeout|resource_exhausted|aborted"
)

_OVERLOADED_STATUSES = frozenset({498, 529})
_PASSING_STATUSES = frozenset({408, 409, 425})


class Evidence(TypedDict):
    """The facts of a failed exchange, as `ApiError` takes them."""

    http_status: int | None
    retry_after_s: float | None
    should_retry: bool | None
    body: bytes | None
    request_id: str | None
    bytes_received: int
    first_token_s: float | None
    said: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Complaint:
    """What an error body says, whatever its shape."""

    message: str
    """In the server's words, on one line, shortened."""
    labels: frozenset[str] = frozenset()
    """Every code, type, status and reason it carries, lower case."""
    number: int | None = None
    """Its own numeric code, 100 to 599; None when it has none."""
    is_moderation: bool = False
    """True when it lists what a moderation filter found."""
    retry_after_s: float | None = None
    """How long its details ask to wait (Gemini's `retryDelay`); None when they do not."""

    def matches(self, labels: re.Pattern[str], words: re.Pattern[str] | None = None) -> bool:
        """Tell whether a label, or the wording, is of a kind."""
        has_label = any(labels.fullmatch(label) for label in self.labels)
        return has_label or (words is not None and words.search(self.message) is not None)


def find_request_id(headers: Mapping[str, str]) -> str | None:
    """Return the server's id of the exchange; None when no header names one."""
    for name in _REQUEST_ID_HEADERS:
        if request_id := headers.get(name):
            return request_id
    return None


def parse_should_retry(headers: Mapping[str, str]) -> bool | None:
    """Return what `x-should-retry` says; None when it says nothing."""
    return {"true": True, "false": False}.get(headers.get("x-should-retry", "").strip().lower())


def find_complaint(value: Any) -> Complaint | None:
    """Return what an error body says; None when the value is no error body.

    Reads the shapes A to J of WIRE 2.8: an `error` object or text, a bare `message`, FastAPI's `detail`, a list of
    them, and a relay's `upstreamError`.
    """
    if isinstance(value, Sequence) and not isinstance(value, str):
        return next(filter(None, (find_complaint(item) for item in value[:10] if isinstance(item, Mapping))), None)
    if not isinstance(value, Mapping):
        return None
    for key in ("error", "upstreamError", "errors", "detail"):
        if value.get(key):
            return _read_complaint(value[key], outer=value)
    if "choices" not in value and value.get("message"):
        return _read_complaint(value, outer=value)
    return None


def make_status_error(status: int, body: bytes, evidence: Evidence, *, location: str | None = None) -> ApiError:
    """Return the failure that a reply outside 2xx stands for.

    Args:
        status: HTTP status, not 2xx.
        body: The reply's body, possibly cut off, possibly HTML or nothing.
        evidence: Facts of the exchange.
        location: Where a redirect leads; None when it does not say.
    """
    complaint = _read_body(body)
    message = f"HTTP {status}: {complaint.message or 'no further explanation'}"
    if 300 <= status < 400:
        text = f"HTTP {status}: redirected to {location or 'nowhere'}; redirects are not followed, mend `base_url`"
        return MalformedReplyError(ErrorCode.REDIRECT, text, **evidence)
    evidence = _add_wait(evidence, complaint)
    error_class, code = _classify(status, complaint, evidence)
    return error_class(code, message, **evidence)


def make_complaint_error(complaint: Complaint, evidence: Evidence) -> ApiError:
    """Return the failure that an error object inside a 200 stands for: its own code says whether it can pass."""
    message = f"error in a 200 reply: {complaint.message or 'no further explanation'}"
    evidence = _add_wait(evidence, complaint)
    if _is_content_refusal(complaint):
        return ContentRefusedError(ErrorCode.BAD_REQUEST, message, **evidence)
    if complaint.number is not None:
        own_class, _ = _classify(complaint.number, complaint, evidence)
        may_pass = issubclass(own_class, ServerFaultError | RateLimitedError)
    else:
        # Without any label nothing is known; such errors come from relays whose upstream failed, and pass.
        may_pass = not complaint.labels or (complaint.matches(_PASSING) and not complaint.matches(_BILLING))
    return (ServerFaultError if may_pass else BadRequestError)(ErrorCode.ERROR_IN_200, message, **evidence)


def excerpt(text: str) -> str:
    """Return text on one line, at most 500 characters long."""
    line = " ".join(text[: 4 * _MAX_MESSAGE_CHARS].split())
    return line if len(line) <= _MAX_MESSAGE_CHARS else line[: _MAX_MESSAGE_CHARS - 1] + "…"


def describe_body(body: bytes) -> str:
    """Return the words of a body that is no JSON: HTML without its tags, else its beginning."""
    text = body[: 16 * EVIDENCE_BYTES].decode("utf-8", "replace")
    if "<" in text[:200]:
        text = re.sub(r"(?s)<(script|style)\b.*?</\1>|<[^>]*>", " ", text)
    return excerpt(text)


def _add_wait(evidence: Evidence, complaint: Complaint) -> Evidence:
    """Let the body say how long to wait where no header does."""
    if evidence["retry_after_s"] is None and complaint.retry_after_s is not None:
        return {**evidence, "retry_after_s": complaint.retry_after_s}
    return evidence


def _classify(status: int, complaint: Complaint, evidence: Evidence) -> tuple[type[ApiError], ErrorCode]:
    if status in {401, 402, 403, 404, 429}:
        return _classify_access(status, complaint, evidence)
    if status in _PASSING_STATUSES:
        return ServerFaultError, ErrorCode.SERVER_ERROR
    if status in _OVERLOADED_STATUSES or (status >= 500 and complaint.matches(_OVERLOAD)):
        return ServerFaultError, ErrorCode.OVERLOADED
    if status >= 500:
        return ServerFaultError, ErrorCode.SERVER_ERROR
    return _classify_refusal(status, complaint)


def _classify_access(status: int, complaint: Complaint, evidence: Evidence) -> tuple[type[ApiError], ErrorCode]:
    """Tell apart who may not, who has not paid, and who must wait."""
    is_billing = complaint.matches(_BILLING, _BILLING_WORDS)
    if status == 402 and evidence["retry_after_s"] is not None and "openrouter_in_flight_budget" in complaint.labels:
        return RateLimitedError, ErrorCode.RATE_LIMITED
    if status == 402 or (status in {403, 429} and is_billing):
        return AuthRefusedError, ErrorCode.QUOTA
    if status == 429:
        return RateLimitedError, ErrorCode.RATE_LIMITED
    if status == 403 and _is_content_refusal(complaint):
        return ContentRefusedError, ErrorCode.FORBIDDEN
    codes = {401: ErrorCode.AUTH, 403: ErrorCode.FORBIDDEN, 404: ErrorCode.MODEL_NOT_FOUND}
    return AuthRefusedError, codes[status]


def _classify_refusal(status: int, complaint: Complaint) -> tuple[type[ApiError], ErrorCode]:
    """Tell apart what is wrong with a request; some gateways say 400 for everything."""
    if status == 400 and _is_content_refusal(complaint):
        return ContentRefusedError, ErrorCode.BAD_REQUEST
    if complaint.matches(_CONTEXT, _CONTEXT_WORDS):
        return BadRequestError, ErrorCode.CONTEXT_LENGTH
    if status == 400:
        for code, labels, words in (
            (ErrorCode.AUTH, _KEY, None),
            (ErrorCode.QUOTA, _BILLING, _BILLING_WORDS),
            (ErrorCode.MODEL_NOT_FOUND, _MODEL, None),
        ):
            if complaint.matches(labels, words):
                return AuthRefusedError, code
    return BadRequestError, ErrorCode.BAD_REQUEST


def _is_content_refusal(complaint: Complaint) -> bool:
    return complaint.is_moderation or complaint.matches(_CONTENT, _CONTENT_WORDS)


def _read_body(body: bytes) -> Complaint:
    """Return what the body of a failed reply says; an empty message when it says nothing."""
    try:
        value = load_json(body).value
    except ValueError:
        return Complaint(message=describe_body(body))
    return find_complaint(value) or Complaint(message=describe_body(body))


def _read_complaint(error: Any, *, outer: Mapping[str, Any]) -> Complaint:
    if not isinstance(error, Mapping):
        return Complaint(message=_write_message(error), labels=_read_labels(outer))
    message = next((error[key] for key in ("message", "msg", "detail", "error") if error.get(key)), None)
    metadata = error.get("metadata")
    is_moderation = isinstance(metadata, Mapping) and ("flagged_input" in metadata or bool(metadata.get("reasons")))
    text = _write_message(error if message is None else message)
    if isinstance(error.get("param"), str):
        text = f"{text} (param: {excerpt(error['param'])})"
    return Complaint(
        message=text,
        labels=_read_labels(error) | _read_labels(outer),
        number=_read_number(error.get("code")),
        is_moderation=is_moderation,
        retry_after_s=_read_retry_delay(error.get("details")),
    )


def _read_retry_delay(details: Any) -> float | None:
    """Return the wait of Google's RetryInfo, `{"@type": "…RetryInfo", "retryDelay": "34s"}`."""
    delays = (
        detail.get("retryDelay")
        for detail in (details[:10] if isinstance(details, list) else ())
        if isinstance(detail, Mapping)
    )
    return next((parse_duration(delay) for delay in delays if isinstance(delay, str)), None)


def _write_message(message: Any) -> str:
    if isinstance(message, str):
        return excerpt(message)
    try:
        return excerpt(dump_json(message))
    except ValueError:
        return "an explanation nested too deeply to be shown"


def _read_labels(error: Mapping[str, Any]) -> frozenset[str]:
    """Collect codes, types and reasons, also those of Azure's inner error and Google's details."""
    sources: list[Any] = [error]
    sources += [error.get(key) for key in ("innererror", "inner_error", "metadata")]
    details = error.get("details")
    sources += details[:10] if isinstance(details, list) else []
    found = (
        source.get(key)
        for source in sources
        if isinstance(source, Mapping)
        for key in ("code", "type", "status", "reason", "error_type", "limit_source")
    )
    return frozenset(label.lower() for label in found if isinstance(label, str) and not label.isdigit())


def _read_number(code: Any) -> int | None:
    if isinstance(code, str) and len(code) == 3 and code.isascii() and code.isdigit():
        code = int(code)
    if isinstance(code, int) and not isinstance(code, bool) and 100 <= code <= 599:
        return code
    return None
