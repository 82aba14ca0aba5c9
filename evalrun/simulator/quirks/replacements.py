"""What servers send in place of a reply: errors in every status and shape, pages, redirects, JSON for a stream.

Q09, Q14, Q27, Q37 to Q45 and Q51, and the rate-limit headers of Q46. Errors are not billed; a page with status 200 is,
for a gateway in front of a model sent it. The words are those that vendors use, where they are known (WIRE 2.8, 2.9).
"""

from collections.abc import Mapping
from datetime import timedelta
from email.utils import format_datetime
from typing import Any, Final, Literal, NamedTuple

from evalrun.simulator.quirks.quirk import Bend, Edit, Quirk, Scene
from evalrun.simulator.refusal import Refusal
from evalrun.simulator.script import Draft, Script
from evalrun.simulator.usage import Counts

_HTML: Final = {"content-type": "text/html; charset=utf-8"}
_TEXT: Final = {"content-type": "text/plain; charset=utf-8"}


class _Reply(NamedTuple):
    """A whole reply that is no completion."""

    status: int
    body: Any
    """A JSON value; text is sent as it is."""
    headers: Mapping[str, str] = {}


def _make_error(message: str, kind: str, *, code: str | None = None, param: str | None = None) -> dict[str, Any]:
    """Return an error body in OpenAI's shape."""
    return Refusal(message=message, kind=kind, code=code, param=param).to_error()


def make_page(title: str, server: str) -> str:
    """Return a page of HTML as nginx writes it when something failed."""
    return (
        f"<html>\r\n<head><title>{title}</title></head>\r\n<body>\r\n<center><h1>{title}</h1></center>\r\n"
        f"<hr><center>{server}</center>\r\n</body>\r\n</html>\r\n"
    )


_SERVER_ERROR: Final = _make_error("The server had an error while processing your request.", "server_error")
_UPSTREAM_ERROR: Final = {
    "error": {
        "message": "Provider returned error",
        "code": 502,
        "metadata": {"raw": "upstream closed the connection", "provider_name": "Simulated"},
    }
}
_RATE_LIMITED: Final = _make_error(
    "Rate limit reached for requests. Please slow down and try again.", "requests", code="rate_limit_exceeded"
)
_SLOW_DOWN: Final = _make_error(
    "Your request rate has grown too fast. Please reduce it and raise it slowly.", "server_error", code="slow_down"
)
_ANTHROPIC_OVERLOADED: Final = {
    "type": "error",
    "error": {"type": "overloaded_error", "message": "Overloaded"},
    "request_id": "req_simulated",
}

_REPLIES: Final[Mapping[str, _Reply]] = {
    "Q09:A": _Reply(200, _SERVER_ERROR),
    "Q09:B": _Reply(200, _UPSTREAM_ERROR),
    "Q09:permanent": _Reply(
        200,
        _make_error("Invalid value for 'messages'.", "invalid_request_error", code="invalid_value", param="messages"),
    ),
    "Q14:200": _Reply(200, make_page("Welcome", "relay"), _HTML),
    "Q14:502": _Reply(502, make_page("502 Bad Gateway", "nginx"), _HTML),
    "Q14:524": _Reply(524, make_page("524: A timeout occurred", "cloudflare"), _HTML),
    "Q27:error": _Reply(200, _SERVER_ERROR),
    **{
        f"Q37:{variant}": _Reply(429, _RATE_LIMITED)
        for variant in ("seconds", "ms", "float", "date", "over-cap", "negative", "word", "absent")
    },
    "Q38:quota": _Reply(
        429,
        _make_error(
            "You exceeded your current quota, please check your plan and billing details.",
            "insufficient_quota",
            code="insufficient_quota",
        ),
    ),
    "Q38:credit": _Reply(
        429, _make_error("Your credit balance is used up.", "billing_error", code="credit_balance_exhausted")
    ),
    "Q38:spend-limit": _Reply(
        429, _make_error("The project's spend limit is reached.", "billing_error", code="project_spend_limit_exceeded")
    ),
    "Q38:organization": _Reply(
        429,
        _make_error(
            "The organization's usage limit is reached.", "billing_error", code="organization_usage_limit_exceeded"
        ),
    ),
    "Q38:anthropic": _Reply(
        429,
        {
            "type": "error",
            "error": {"type": "enforced_spend_limit_reached", "message": "Your workspace has reached its spend limit."},
        },
    ),
    "Q38:daily": _Reply(
        429, _make_error("You have used up today's quota for this model.", "quota", code="daily_quota_exceeded")
    ),
    "Q39:503": _Reply(503, _SLOW_DOWN),
    "Q39:429": _Reply(429, _SLOW_DOWN),
    "Q40:529": _Reply(529, _ANTHROPIC_OVERLOADED),
    "Q40:498": _Reply(498, _make_error("Flex tier capacity exceeded.", "capacity_exceeded", code="capacity_exceeded")),
    **{f"Q40:{status}": _Reply(status, f"error code: {status}", _TEXT) for status in range(520, 525)},
    "Q41": _Reply(
        400,
        _make_error(
            "Unsupported parameter: 'max_tokens' is not supported with this model. "
            "Use 'max_completion_tokens' instead.",
            "invalid_request_error",
            code="unsupported_parameter",
            param="max_tokens",
        ),
    ),
    "Q42:credits": _Reply(402, {"error": {"message": "Insufficient credits. Add more and try again.", "code": 402}}),
    "Q42:in-flight": _Reply(
        402,
        {
            "error": {
                "message": "The requests in flight would cost more than your credits.",
                "code": 402,
                "metadata": {"limit_source": "openrouter_in_flight_budget"},
            }
        },
        {"retry-after": "1"},
    ),
    "Q43": _Reply(413, make_page("413 Request Entity Too Large", "nginx"), _HTML),
    "Q44:A": _Reply(500, _SERVER_ERROR),
    "Q44:B": _Reply(502, _UPSTREAM_ERROR),
    "Q44:C": _Reply(500, {"error": "model runner has unexpectedly stopped"}),
    "Q44:D": _Reply(
        400,
        {
            "object": "error",
            "message": "The prompt cannot be read.",
            "type": "BadRequestError",
            "param": None,
            "code": 400,
        },
    ),
    "Q44:E": _Reply(422, {"detail": [{"loc": ["body", "messages"], "msg": "field required", "type": "missing"}]}),
    "Q44:E-text": _Reply(500, {"detail": "Internal Server Error"}),
    "Q44:F": _Reply(529, _ANTHROPIC_OVERLOADED),
    "Q44:G": _Reply(
        400,
        [{"error": {"code": 400, "message": "Request contains an invalid argument.", "status": "INVALID_ARGUMENT"}}],
    ),
    "Q44:H": _Reply(500, {"success": False, "error": {"message": "do request failed", "type": "upstream_error"}}),
    "Q44:H-message": _Reply(502, {"message": "An invalid response was received from the upstream server"}),
    "Q44:H-relay": _Reply(
        502, {"_relay": "simulated", "upstreamError": {"message": "upstream said no", "code": "upstream_error"}}
    ),
    "Q44:I": _Reply(502, "Bad Gateway", _TEXT),
    "Q44:J": _Reply(
        422,
        {
            "object": "error",
            "message": {"detail": [{"type": "extra_forbidden", "loc": ["body", "max_completion_tokens"]}]},
            "type": "invalid_request_error",
        },
    ),
    "Q45:false": _Reply(503, _SERVER_ERROR, {"x-should-retry": "false"}),
    "Q45:true": _Reply(
        400, _make_error("Try that once more, please.", "invalid_request_error"), {"x-should-retry": "true"}
    ),
    **{f"Q51:{status}": _Reply(status, "", {"location": "./completions", **_TEXT}) for status in (301, 302, 307, 308)},
    "Q51:elsewhere": _Reply(307, "", {"location": "https://elsewhere.invalid/v1/chat/completions", **_TEXT}),
}
"""By label."""

_RATE_HEADERS: Final[Mapping[str | None, Mapping[str, str]]] = {
    "go": {
        "x-ratelimit-limit-requests": "5000",
        "x-ratelimit-remaining-requests": "4999",
        "x-ratelimit-reset-requests": "12ms",
        "x-ratelimit-limit-tokens": "2000000",
        "x-ratelimit-remaining-tokens": "1999000",
        "x-ratelimit-reset-tokens": "6m0s",
    },
    "unknown": {
        "x-ratelimit-limit-requests": "0",
        "x-ratelimit-remaining-requests": "-1",
        "x-ratelimit-reset-requests": "0",
        "x-ratelimit-limit-tokens": "-1",
        "x-ratelimit-remaining-tokens": "-1",
    },
    "per-day": {
        "x-ratelimit-limit-requests": "14400",
        "x-ratelimit-remaining-requests": "14370",
        "x-ratelimit-reset-requests": "2m59.56s",
        "x-ratelimit-limit-tokens": "18000",
        "x-ratelimit-remaining-tokens": "17997",
        "x-ratelimit-reset-tokens": "7.66s",
    },
}
_WAIT_S: Final[Mapping[str | None, float]] = {
    "seconds": 1,
    "ms": 0.25,
    "float": 0.5,
    "date": 2,
    "over-cap": 86_400,
    "negative": 1,
}
"""How long a 429 asks to wait when nobody said."""


def _replace(draft: Draft, quirk: Quirk) -> Literal[True]:
    """Send another reply than the one that was made."""
    reply = _REPLIES[quirk.label]
    draft.status, draft.completion, draft.chunks = reply.status, reply.body, None
    draft.headers.update(reply.headers)
    if isinstance(reply.body, dict | list) or reply.status >= 300:
        draft.counts = Counts()
    return True


def _send_error_event(draft: Draft, quirk: Quirk) -> Literal[True]:
    """Send an error with status 200: the whole body, or a stream's only event."""
    is_stream = draft.is_stream
    _replace(draft, quirk)
    if is_stream:
        draft.chunks = [draft.completion]
    return True


def _send_json(draft: Draft, quirk: Quirk) -> Literal[True]:
    """Send one JSON body where a stream was asked for."""
    if quirk.variant == "error":
        return _replace(draft, quirk)
    draft.chunks = None
    if quirk.variant == "mislabelled":
        draft.headers["content-type"] = "text/event-stream; charset=utf-8"
    return True


def _limit_rate(draft: Draft, quirk: Quirk) -> Literal[True]:
    """Send 429 with the wait as a header; a date is written when the clock is known."""
    _replace(draft, quirk)
    wait_s = _find_wait_s(quirk)
    headers = {
        "seconds": {"retry-after": f"{wait_s:.0f}"},
        "over-cap": {"retry-after": f"{wait_s:.0f}"},
        "ms": {"retry-after-ms": f"{wait_s * 1000:.0f}"},
        "float": {"retry-after": f"{wait_s:.3f}"},
        "negative": {"retry-after": f"-{wait_s:.0f}"},
        "word": {"retry-after": "soon"},
    }
    draft.headers.update(headers.get(str(quirk.variant), {}))
    return True


def _date_wait(script: Script, quirk: Quirk, scene: Scene) -> Literal[True]:
    """Tell the end of the wait, which begins when the reply leaves, as a date: in whole seconds, never too early."""
    if quirk.variant == "date":
        until = scene.now + timedelta(seconds=script.delay_s + _find_wait_s(quirk))
        until += timedelta(microseconds=-until.microsecond % 1_000_000)
        script.headers.append(("retry-after", format_datetime(until, usegmt=True)))
    return True


def _find_wait_s(quirk: Quirk) -> float:
    return _WAIT_S.get(quirk.variant, 0.0) if quirk.number is None else quirk.number


def _refuse_max_tokens(draft: Draft, quirk: Quirk) -> bool:
    return quirk.body.get("max_tokens") is not None and _replace(draft, quirk)


def _add_rate_headers(draft: Draft, quirk: Quirk) -> Literal[True]:
    draft.headers.update(_RATE_HEADERS[quirk.variant])
    return True


REPLACEMENTS: Final[Mapping[str, Edit]] = {
    "Q09": _send_error_event,
    "Q14": _replace,
    "Q27": _send_json,
    "Q37": _limit_rate,
    **dict.fromkeys(("Q38", "Q39", "Q40"), _replace),
    "Q41": _refuse_max_tokens,
    **dict.fromkeys(("Q42", "Q43", "Q44", "Q45", "Q51"), _replace),
}

HEADERS: Final[Mapping[str, Edit]] = {"Q46": _add_rate_headers}

BENDS: Final[Mapping[str, Bend]] = {"Q37": _date_wait}
