"""Rate-limit headers in the dialects that clients meet, and Retry-After in each of its forms.

Enters: what the limits still let through. Leaves: header names in lower case with their values. A limit that a model
does not have has no headers, but Azure's, which say -1 and 0 for what they do not know.

Source: WIRE 2.7; Together and Fireworks count as clients read them: per second, and prompt apart from generated.
"""

import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import formatdate
from typing import Final

from evalrun.options import RateDialect, RetryAfterForm
from evalrun.simulator.limits import DAY_MINUTES, SLACK, Allowance, Allowances, write_duration

Headers = dict[str, str]


def make_rate_headers(dialect: RateDialect, allowances: Allowances, *, unix_s: float) -> Headers:
    """Return the rate-limit headers of one reply.

    Args:
        dialect: Whose.
        allowances: As of now.
        unix_s: Now, in seconds since 1970: Anthropic tells times of day.
    """
    return _DIALECTS[dialect](allowances, unix_s)


def make_retry_after(form: RetryAfterForm, wait_s: float, *, unix_s: float) -> Headers:
    """Return Retry-After, rounded up to what its form can say.

    Args:
        form: `ms` comes with whole seconds beside it, as OpenAI and Azure send it.
        wait_s: 0 or more.
        unix_s: Now, in seconds since 1970.
    """
    seconds = str(max(1, math.ceil(wait_s)))
    if form == "ms":
        return {"retry-after-ms": str(math.ceil(wait_s * 1000)), "retry-after": seconds}
    if form == "float":
        return {"retry-after": f"{math.ceil(wait_s * 1000) / 1000:.3f}"}
    if form == "date":
        return {"retry-after": formatdate(math.ceil(unix_s + wait_s), usegmt=True)}
    return {"retry-after": seconds} if form == "seconds" else {}


def _make_openai(allowances: Allowances, _unix_s: float) -> Headers:
    headers: Headers = {}
    for kind, allowance in _scan(allowances):
        headers |= _tell(kind, allowance, limit=allowance.per_minute, decimals=3)
    return headers


def _make_groq(allowances: Allowances, _unix_s: float) -> Headers:
    """Return Groq's: requests count by the day, durations have hundredths."""
    headers: Headers = {}
    if (by_day := allowances.requests_of_day) is not None:
        headers |= _tell("requests", by_day, limit=by_day.per_minute * DAY_MINUTES, decimals=2)
    if (tokens := allowances.tokens) is not None:
        headers |= _tell("tokens", tokens, limit=tokens.per_minute, decimals=2)
    return headers


def _tell(kind: str, allowance: Allowance, *, limit: float, decimals: int) -> Headers:
    return {
        f"x-ratelimit-limit-{kind}": _whole(limit),
        f"x-ratelimit-remaining-{kind}": _whole(allowance.remaining),
        f"x-ratelimit-reset-{kind}": write_duration(allowance.reset_s, decimals=decimals),
    }


def _make_azure(allowances: Allowances, _unix_s: float) -> Headers:
    """Return Azure's: whole seconds, -1 and 0 for what is not known."""
    headers: Headers = {}
    for kind, allowance in (("requests", allowances.requests), ("tokens", allowances.tokens)):
        if allowance is None:
            headers[f"x-ratelimit-remaining-{kind}"] = "-1"
            headers[f"x-ratelimit-reset-{kind}"] = "0"
        else:
            headers[f"x-ratelimit-limit-{kind}"] = _whole(allowance.per_minute)
            headers[f"x-ratelimit-remaining-{kind}"] = _whole(allowance.remaining)
            headers[f"x-ratelimit-reset-{kind}"] = str(math.ceil(allowance.reset_s))
    return headers


def _make_anthropic(allowances: Allowances, unix_s: float) -> Headers:
    """Return Anthropic's: the reset is a time of day; input and output tokens share the one limit there is."""
    headers: Headers = {}
    for kind, allowance in _scan(allowances):
        resets_at = datetime.fromtimestamp(math.ceil(unix_s + allowance.reset_s), UTC)
        for name in _ANTHROPIC_NAMES[kind]:
            headers[f"anthropic-ratelimit-{name}-limit"] = _whole(allowance.per_minute)
            headers[f"anthropic-ratelimit-{name}-remaining"] = _whole(allowance.remaining)
            headers[f"anthropic-ratelimit-{name}-reset"] = f"{resets_at:%Y-%m-%dT%H:%M:%SZ}"
    return headers


def _make_together(allowances: Allowances, _unix_s: float) -> Headers:
    """Return Together's: per second."""
    headers: Headers = {}
    for kind, allowance in _scan(allowances):
        name = "x-ratelimit" if kind == "requests" else "x-tokenlimit"
        # At least 1: a limit of 0 per second would say that nothing ever passes.
        per_second = max(1, math.floor(allowance.per_minute / 60))
        headers[f"{name}-limit"] = str(per_second)
        headers[f"{name}-remaining"] = str(min(per_second, math.floor(allowance.remaining)))
        headers[f"{name}-reset"] = str(math.ceil(min(1.0, allowance.reset_s)))
    return headers


def _make_fireworks(allowances: Allowances, _unix_s: float) -> Headers:
    """Return Fireworks': prompt and generated tokens apart, no reset."""
    headers: Headers = {}
    for kind, allowance in _scan(allowances):
        for name in _FIREWORKS_NAMES[kind]:
            headers[f"x-ratelimit-limit-{name}"] = _whole(allowance.per_minute)
            headers[f"x-ratelimit-remaining-{name}"] = _whole(allowance.remaining)
    return headers


def _make_none(_allowances: Allowances, _unix_s: float) -> Headers:
    return {}


def _scan(allowances: Allowances) -> list[tuple[str, Allowance]]:
    both = (("requests", allowances.requests), ("tokens", allowances.tokens))
    return [(kind, allowance) for kind, allowance in both if allowance is not None]


def _whole(amount: float) -> str:
    return str(math.floor(amount + SLACK))


_ANTHROPIC_NAMES: Final[Mapping[str, tuple[str, ...]]] = {
    "requests": ("requests",),
    "tokens": ("tokens", "input-tokens", "output-tokens"),
}
_FIREWORKS_NAMES: Final[Mapping[str, tuple[str, ...]]] = {
    "requests": ("requests",),
    "tokens": ("tokens-prompt", "tokens-generated"),
}
_DIALECTS: Final[Mapping[RateDialect, Callable[[Allowances, float], Headers]]] = {
    "openai": _make_openai,
    "azure": _make_azure,
    "anthropic": _make_anthropic,
    "groq": _make_groq,
    "together": _make_together,
    "fireworks": _make_fireworks,
    "none": _make_none,
}
