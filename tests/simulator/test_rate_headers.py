"""Tests of rate-limit headers: each dialect, and each form of Retry-After."""

import pytest

from evalrun.options import RateDialect, RetryAfterForm
from evalrun.simulator.limits import Allowance, Allowances
from evalrun.simulator.rate_headers import make_rate_headers, make_retry_after

NOW_S = 1_790_000_000.25
ALLOWANCES = Allowances(
    requests=Allowance(per_minute=600, remaining=599.5, reset_s=0.0501),
    tokens=Allowance(per_minute=120_000, remaining=90_000, reset_s=15),
    requests_of_day=Allowance(per_minute=600, remaining=863_970, reset_s=179.5601),
)


@pytest.mark.parametrize(
    ("dialect", "headers"),
    [
        (
            "openai",
            {
                "x-ratelimit-limit-requests": "600",
                "x-ratelimit-limit-tokens": "120000",
                "x-ratelimit-remaining-requests": "599",
                "x-ratelimit-remaining-tokens": "90000",
                "x-ratelimit-reset-requests": "51ms",
                "x-ratelimit-reset-tokens": "15s",
            },
        ),
        (
            "groq",
            {
                "x-ratelimit-limit-requests": "864000",
                "x-ratelimit-limit-tokens": "120000",
                "x-ratelimit-remaining-requests": "863970",
                "x-ratelimit-remaining-tokens": "90000",
                "x-ratelimit-reset-requests": "2m59.57s",
                "x-ratelimit-reset-tokens": "15s",
            },
        ),
        (
            "azure",
            {
                "x-ratelimit-limit-requests": "600",
                "x-ratelimit-limit-tokens": "120000",
                "x-ratelimit-remaining-requests": "599",
                "x-ratelimit-remaining-tokens": "90000",
                "x-ratelimit-reset-requests": "1",
                "x-ratelimit-reset-tokens": "15",
            },
        ),
        (
            "anthropic",
            {
                "anthropic-ratelimit-requests-limit": "600",
                "anthropic-ratelimit-requests-remaining": "599",
                "anthropic-ratelimit-requests-reset": "2026-09-21T14:13:21Z",
                "anthropic-ratelimit-tokens-limit": "120000",
                "anthropic-ratelimit-tokens-remaining": "90000",
                "anthropic-ratelimit-tokens-reset": "2026-09-21T14:13:36Z",
                "anthropic-ratelimit-input-tokens-limit": "120000",
                "anthropic-ratelimit-input-tokens-remaining": "90000",
                "anthropic-ratelimit-input-tokens-reset": "2026-09-21T14:13:36Z",
                "anthropic-ratelimit-output-tokens-limit": "120000",
                "anthropic-ratelimit-output-tokens-remaining": "90000",
                "anthropic-ratelimit-output-tokens-reset": "2026-09-21T14:13:36Z",
            },
        ),
        (
            "together",
            {
                "x-ratelimit-limit": "10",
                "x-ratelimit-remaining": "10",
                "x-ratelimit-reset": "1",
                "x-tokenlimit-limit": "2000",
                "x-tokenlimit-remaining": "2000",
                "x-tokenlimit-reset": "1",
            },
        ),
        (
            "fireworks",
            {
                "x-ratelimit-limit-requests": "600",
                "x-ratelimit-remaining-requests": "599",
                "x-ratelimit-limit-tokens-prompt": "120000",
                "x-ratelimit-remaining-tokens-prompt": "90000",
                "x-ratelimit-limit-tokens-generated": "120000",
                "x-ratelimit-remaining-tokens-generated": "90000",
            },
        ),
        ("none", {}),
    ],
)
def test_each_dialect_writes_its_own_headers(dialect: RateDialect, headers: dict[str, str]) -> None:
    """Names, units and rounding are those of the vendor."""
    assert make_rate_headers(dialect, ALLOWANCES, unix_s=NOW_S) == headers


@pytest.mark.parametrize("dialect", ["openai", "groq", "anthropic", "together", "fireworks", "none"])
def test_limit_that_is_not_there_has_no_headers(dialect: RateDialect) -> None:
    """An unknown limit is left out, never told as 0."""
    assert make_rate_headers(dialect, Allowances(), unix_s=NOW_S) == {}


def test_azure_tells_unknown_limits_as_such() -> None:
    """Azure sends -1 and 0 for what it does not know."""
    assert make_rate_headers("azure", Allowances(), unix_s=NOW_S) == {
        "x-ratelimit-remaining-requests": "-1",
        "x-ratelimit-reset-requests": "0",
        "x-ratelimit-remaining-tokens": "-1",
        "x-ratelimit-reset-tokens": "0",
    }


@pytest.mark.parametrize(
    ("form", "wait_s", "headers"),
    [
        ("seconds", 1.2, {"retry-after": "2"}),
        ("seconds", 0.01, {"retry-after": "1"}),
        ("ms", 1.2001, {"retry-after-ms": "1201", "retry-after": "2"}),
        ("float", 1.2001, {"retry-after": "1.201"}),
        ("date", 1.2, {"retry-after": "Mon, 21 Sep 2026 14:13:22 GMT"}),
        ("none", 1.2, {}),
    ],
)
def test_retry_after_is_never_too_short(form: RetryAfterForm, wait_s: float, headers: dict[str, str]) -> None:
    """Each form rounds up to what it can say."""
    assert make_retry_after(form, wait_s, unix_s=NOW_S) == headers
