"""Rate-limit headers in every dialect, and in every way in which they lie."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalrun.dispatch.rate_facts import RateFacts, read_rate_facts
from evalrun.options import RateDialect, SimulatedLimits
from evalrun.simulator.limits import Limiter
from evalrun.simulator.rate_headers import make_rate_headers

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)


def read(**headers: str) -> RateFacts:
    """Return the facts of headers, written with underscores."""
    return read_rate_facts({name.replace("_", "-"): value for name, value in headers.items()}, now=NOW)


def read_requests(limit: str, remaining: str, reset: str | None, **others: str) -> RateFacts:
    """Return the facts of the request headers that most servers use."""
    reset_header = {} if reset is None else {"x_ratelimit_reset_requests": reset}
    return read(x_ratelimit_limit_requests=limit, x_ratelimit_remaining_requests=remaining, **reset_header, **others)


def test_reply_without_such_headers_tells_nothing() -> None:
    """No header, no facts."""
    assert read(date="Sun, 22 Nov 2026 12:00:30 GMT", content_type="application/json") == RateFacts()


def test_openai_is_read() -> None:
    """Whole numbers, and resets as Go durations."""
    facts = read_requests(
        "600",
        "598",
        "200ms",
        x_ratelimit_limit_tokens="150000",
        x_ratelimit_remaining_tokens="149984",
        x_ratelimit_reset_tokens="6m0s",
    )
    assert facts == RateFacts(
        requests_per_minute=600,
        tokens_per_minute=150_000,
        remaining_requests=598,
        remaining_tokens=149_984,
        reset_requests_s=0.2,
        reset_tokens_s=360,
    )


@pytest.mark.parametrize(
    ("limit", "remaining", "reset"),
    [("60", "59", "1s"), ("600", "599", "100ms"), ("600", "300", "30s"), ("600", "0", "1m0s"), ("600", "20", "5s")],
)
def test_openais_requests_are_of_a_minute(limit: str, remaining: str, reset: str) -> None:
    """A limit that refills within a minute, at a server that is known to count by the minute, is a rate."""
    assert read_requests(limit, remaining, reset, openai_processing_ms="12").requests_per_minute == float(limit)


@pytest.mark.parametrize(
    ("limit", "remaining", "reset"), [("200", "199", "7m12s"), ("10000", "9999", "8.64s"), ("200", "0", "24h0m0s")]
)
def test_openais_requests_of_a_day_are_no_rate(limit: str, remaining: str, reset: str) -> None:
    """Daily limits use the same names; how slowly they refill gives them away."""
    assert read_requests(limit, remaining, reset, openai_processing_ms="12").requests_per_minute is None


def test_groqs_requests_are_of_a_day() -> None:
    """Groq's request limit is no rate, its token limit is; durations have fractions."""
    facts = read_requests(
        "14400",
        "14370",
        "2m59.56s",
        x_groq_region="fra",
        x_ratelimit_limit_tokens="18000",
        x_ratelimit_remaining_tokens="17997",
        x_ratelimit_reset_tokens="7.66s",
    )
    assert facts.requests_per_minute is None
    assert facts.reset_requests_s == pytest.approx(179.56)
    assert (facts.tokens_per_minute, facts.reset_tokens_s) == (18_000, 7.66)


@pytest.mark.parametrize(
    ("limit", "remaining", "reset", "per_minute"),
    [
        ("14400", "14370", "2m59.56s", None),  # A day's, Groq's, behind a gateway that hides whose it is.
        ("600", "590", "1s", 600),
        ("600", "590", "1.0", 600),
        ("600", "570", "3", 600),
        ("600", "599", "100ms", None),  # One missing says little: it may be a tenth of one.
        ("600", "590", "1", None),  # A whole second may be a hundredth of one.
        ("10", "5", "0.5", None),  # A second's.
        ("1000", "900", "6m0s", None),  # An hour's.
        ("600", "600", "0s", None),
        ("600", "700", "1s", None),
        ("600", "590", None, None),
    ],
)
def test_window_of_an_unknown_server_is_found_by_its_refill(
    limit: str, remaining: str, reset: str | None, per_minute: float | None
) -> None:
    """Without a known dialect a limit is a rate only if what is missing comes back at a minute's pace."""
    assert read_requests(limit, remaining, reset).requests_per_minute == per_minute


def test_azures_unknown_is_unknown() -> None:
    """-1 and 0 are how Azure says that it does not know; its whole seconds and its limit are of a minute."""
    unknown = read_requests("-1", "-1", "0", apim_request_id="a", x_ratelimit_remaining_tokens="0")
    assert unknown == RateFacts()
    assert read_requests("600", "599", "1", apim_request_id="a").requests_per_minute == 600
    assert read_requests("600", "599", "3600", apim_request_id="a").requests_per_minute is None


def test_anthropic_is_read() -> None:
    """Limits per minute, resets as times of day, and the scarcest of the three kinds of tokens."""
    told = {"limit": ("50", "40000", "30000", "8000"), "remaining": ("49", "30000", "29000", "0")}
    kinds = ("requests", "tokens", "input-tokens", "output-tokens")
    headers = {
        f"anthropic-ratelimit-{kind}-{what}": value
        for what, row in told.items()
        for kind, value in zip(kinds, row, strict=True)
    }
    headers |= {f"anthropic-ratelimit-{kind}-reset": "2026-11-22T12:00:01Z" for kind in kinds}
    headers["anthropic-ratelimit-output-tokens-reset"] = "2026-11-22T12:00:20+00:00"
    assert read_rate_facts(headers, now=NOW) == RateFacts(
        requests_per_minute=50,
        tokens_per_minute=40_000,
        remaining_requests=49,
        remaining_tokens=0,
        reset_requests_s=1,
        reset_tokens_s=20,
    )


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("anthropic-ratelimit-input-tokens-limit", "anthropic-ratelimit-output-tokens-limit"),
        ("x-ratelimit-limit-tokens-prompt", "x-ratelimit-limit-tokens-generated"),
    ],
)
def test_limits_of_prompt_and_output_are_added(first: str, second: str) -> None:
    """Where only the two are told, their sum is what may be used; one alone says nothing about the other."""
    assert read_rate_facts({first: "30000", second: "8000"}, now=None).tokens_per_minute == 38_000
    assert read_rate_facts({first: "30000"}, now=None).tokens_per_minute is None


def test_together_counts_by_the_second() -> None:
    """Together's limits are of a second; the same names at other servers are of anything."""
    facts = read(x_ratelimit_limit="10", x_ratelimit_remaining="9", x_ratelimit_reset="1", x_tokenlimit_limit="2000")
    assert (facts.requests_per_minute, facts.tokens_per_minute) == (600, 120_000)
    facts = read(x_ratelimit_limit="10", x_ratelimit_remaining="9", x_tokenlimit_limit="2000")
    assert (facts.requests_per_minute, facts.tokens_per_minute) == (600, 120_000)
    facts = read(x_ratelimit_limit="10", x_ratelimit_remaining="9", x_ratelimit_reset="30", x_tokenlimit_limit="2000")
    assert (facts.requests_per_minute, facts.tokens_per_minute) == (None, None)
    assert read(x_ratelimit_limit="10", x_ratelimit_remaining="9").requests_per_minute is None


@pytest.mark.parametrize(
    "reset", ["1795348805", "1795348805000", "2026-11-22T12:00:05Z", "Sun, 22 Nov 2026 12:00:05 GMT"]
)
def test_reset_at_a_time_is_read(reset: str) -> None:
    """Times since 1970 in seconds and milliseconds, RFC 3339 and HTTP dates; OpenRouter sends milliseconds."""
    facts = read(x_ratelimit_limit="20", x_ratelimit_remaining="0", x_ratelimit_reset=reset)
    assert (facts.requests_per_minute, facts.remaining_requests, facts.reset_requests_s) == (None, 0, 5)


def test_dated_reset_is_read_against_the_servers_clock() -> None:
    """A server whose clock is an hour off still gets the wait that it means; without any clock a date says nothing."""
    headers = {
        "anthropic-ratelimit-requests-remaining": "0",
        "anthropic-ratelimit-requests-reset": "2026-11-22T13:00:10Z",
    }
    own = {"date": "Sun, 22 Nov 2026 13:00:00 GMT"}
    assert read_rate_facts(headers | own, now=NOW).reset_requests_s == 10
    assert read_rate_facts(headers, now=None) == RateFacts()


@pytest.mark.parametrize("kind", ["project-tokens", "tokens_usage_based", "tokens-minute"])
def test_other_names_of_tokens_per_minute_are_read(kind: str) -> None:
    """The smallest limit of a minute counts, and the least that is left."""
    headers = {"x-ratelimit-limit-tokens": "90000", "x-ratelimit-remaining-tokens": "80000"}
    headers |= {f"x-ratelimit-limit-{kind}": "70000", f"x-ratelimit-remaining-{kind}": "60000"}
    facts = read_rate_facts(headers | {f"x-ratelimit-reset-{kind}": "1s"}, now=None)
    assert (facts.tokens_per_minute, facts.remaining_tokens, facts.reset_tokens_s) == (70_000, 60_000, 1)


def test_minute_in_the_name_needs_no_other_proof() -> None:
    """A limit that says of what window it is is believed."""
    assert read(x_ratelimit_limit_requests_minute="30").requests_per_minute == 30
    assert read(x_ratelimit_limit_req_minute="30").requests_per_minute == 30
    assert read(x_ratelimit_limit_requests_day="1000", x_ratelimit_remaining_requests_day="0") == RateFacts()


@pytest.mark.parametrize(
    "remaining_and_reset", [("0", "0"), ("0", "-5s"), ("0", "soon"), ("0", ""), ("0", "nan"), ("0", "9" * 40)]
)
def test_nothing_left_without_a_reset_is_not_believed(remaining_and_reset: tuple[str, str]) -> None:
    """Nothing can be waited for, so nothing is said."""
    remaining, reset = remaining_and_reset
    assert read_requests("600", remaining, reset).remaining_requests is None


@pytest.mark.parametrize(
    "value",
    ["", " ", "-1", "nan", "inf", "1e9", "0x10", "٣", "²", "1_000", "soon", "9" * 400, "0", "0.5", "\x00", "1;2"],
)
def test_hostile_limits_are_not_told(value: str) -> None:
    """A limit that is no number of at least 1 is as if it were not there."""
    names = [
        "x-ratelimit-limit-tokens",
        "anthropic-ratelimit-requests-limit",
        "x-ratelimit-limit",
        "x-tokenlimit-limit",
    ]
    assert read_rate_facts(dict.fromkeys(names, value), now=NOW) == RateFacts()


_NAMES = [
    f"{family}{what}{kind}"
    for family in ("x-ratelimit-", "x-tokenlimit-")
    for what in ("limit", "remaining", "reset")
    for kind in ("", "-requests", "-tokens", "-tokens-prompt", "-tokens-generated", "-project-tokens")
] + [
    f"anthropic-ratelimit-{kind}-{what}" for kind in ("requests", "tokens") for what in ("limit", "remaining", "reset")
]
_VALUES = st.one_of(
    st.text(max_size=40),
    st.text("0123456789.-:+TZhmsµun ", max_size=70),
    st.integers(-10, 10**20).map(str),
    st.floats().map(str),
    st.datetimes().map(lambda moment: moment.isoformat()),
    st.sampled_from(
        ["1" + "0" * 308 + "s", "9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59", "Sun, 99 Nov 2026"]
    ),
)


@given(st.dictionaries(st.sampled_from([*_NAMES, "date", "openai-version", "apim-request-id"]), _VALUES))
def test_no_value_raises(headers: dict[str, str]) -> None:
    """Whatever a server writes into its headers, facts are told or not, and are positive."""
    facts = read_rate_facts(headers, now=NOW)
    for value in (facts.requests_per_minute, facts.tokens_per_minute):
        assert value is None or 1 <= value < float("inf")
    for value in (facts.reset_requests_s, facts.reset_tokens_s):
        assert value is None or 0 < value < float("inf")
    for value in (facts.remaining_requests, facts.remaining_tokens):
        assert value is None or 0 <= value < float("inf")


@pytest.mark.parametrize(
    ("dialect", "requests_per_minute", "tokens_per_minute"),
    [
        ("openai", 600, 120_000),
        ("azure", 600, 120_000),
        ("anthropic", 600, 120_000),
        ("groq", None, 120_000),
        ("together", 600, 120_000),
        ("fireworks", None, 240_000),  # It tells the one limit there is as two.
        ("none", None, None),
    ],
)
def test_simulators_dialects_are_read(
    dialect: RateDialect, requests_per_minute: float | None, tokens_per_minute: float | None
) -> None:
    """What the simulator's gateway tells in each dialect is understood as it is meant."""
    limiter = Limiter(SimulatedLimits(requests_per_minute=600, tokens_per_minute=120_000), "m")
    for _ in range(40):
        limiter.admit(100.0, tokens=500)
    headers = make_rate_headers(dialect, limiter.read(100.05), unix_s=NOW.timestamp())
    facts = read_rate_facts(headers, now=NOW)
    assert (facts.requests_per_minute, facts.tokens_per_minute) == (requests_per_minute, tokens_per_minute)
