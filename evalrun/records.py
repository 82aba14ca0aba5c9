"""The things that move through the house: what each is, in which unit, and what null means.

Records are values: made in one room, read in others, never changed. `docs/architecture.md` names each one's birthplace.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any

from evalrun.billed import Billed
from evalrun.quick_init import with_quick_init

SCHEMA_VERSION = "1"
"""Version of the run folder's tables and of every `--json` object."""

SIMULATOR_VERSION = "1"
"""Version of the simulator's behaviour: same version, profile, seed and request give the same reply."""

NO_VERDICT_LEAD = "no verdict: "
"""What the headline of a verdict that is none begins with."""


class Status(StrEnum):
    """What finally became of a row."""

    OK = "ok"
    TRUNCATED = "truncated"
    FILTERED = "filtered"
    REFUSED = "refused"
    EMPTY = "empty"
    ERROR = "error"
    PENDING = "pending"


ANSWERED = frozenset({Status.OK, Status.TRUNCATED, Status.REFUSED, Status.EMPTY})
"""Statuses that are answers, and so are graded."""

FINISHED = ANSWERED | {Status.FILTERED}
"""Statuses that a resume never sends again."""


class ErrorCode(StrEnum):
    """The closed list of reasons why a row has no answer."""

    CONNECT = "connect"
    DNS = "dns"
    RESET = "reset"
    TIMEOUT_CONNECT = "timeout_connect"
    TIMEOUT_FIRST_BYTE = "timeout_first_byte"
    TIMEOUT_IDLE = "timeout_idle"
    TIMEOUT_TOTAL = "timeout_total"
    TLS = "tls"
    REDIRECT = "redirect"
    STREAM_INCOMPLETE = "stream_incomplete"
    BODY_INVALID = "body_invalid"
    BODY_TOO_LARGE = "body_too_large"
    ERROR_IN_200 = "error_in_200"
    RATE_LIMITED = "rate_limited"
    QUOTA = "quota"
    AUTH = "auth"
    FORBIDDEN = "forbidden"
    MODEL_NOT_FOUND = "model_not_found"
    BAD_REQUEST = "bad_request"
    CONTEXT_LENGTH = "context_length"
    SERVER_ERROR = "server_error"
    OVERLOADED = "overloaded"
    BUDGET = "budget"
    INTERRUPTED = "interrupted"
    LANE_STOPPED = "lane_stopped"


PASSING = frozenset(
    {
        ErrorCode.CONNECT,
        ErrorCode.DNS,
        ErrorCode.RESET,
        ErrorCode.TIMEOUT_CONNECT,
        ErrorCode.TIMEOUT_FIRST_BYTE,
        ErrorCode.TIMEOUT_IDLE,
        ErrorCode.TIMEOUT_TOTAL,
        ErrorCode.STREAM_INCOMPLETE,
        ErrorCode.BODY_INVALID,
        ErrorCode.ERROR_IN_200,
        ErrorCode.RATE_LIMITED,
        ErrorCode.SERVER_ERROR,
        ErrorCode.OVERLOADED,
    }
)
"""Errors that can pass: a resume asks such rows again."""

LANE_STOPPING = frozenset(
    {
        ErrorCode.TLS,
        ErrorCode.REDIRECT,
        ErrorCode.QUOTA,
        ErrorCode.AUTH,
        ErrorCode.FORBIDDEN,
        ErrorCode.MODEL_NOT_FOUND,
    }
)
"""Codes that stop a lane; the row stays `pending` with that code."""


class UsageSource(StrEnum):
    """Where token counts come from."""

    REPORTED = "reported"
    ESTIMATED = "estimated"
    MISSING = "missing"


class CostSource(StrEnum):
    """Where a cost comes from."""

    REPORTED = "reported"
    TABLE = "table"
    LIBRARY = "library"
    UNKNOWN = "unknown"


@with_quick_init
@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One dataset row."""

    sample_id: str
    """Unique within the run; text."""
    row: Mapping[str, Any]
    """The columns as the dataset has them: JSON values only; templates see them."""
    category: str | None
    """Value of the category column as text; None when the dataset has none."""
    where: str
    """`file:line` of the row, for messages and annotations."""
    graders: tuple[Mapping[str, Any], ...] = ()
    """Graders written in the row itself, validated, as plain mappings. Those of a dataset file hold no templates."""
    params: Mapping[str, Any] | None = None
    """Parameters that the row sets on its request; None when it sets none."""


@with_quick_init
@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatorHint:
    """What a simulator endpoint is told beside the body. Sent to simulators only."""

    answer: str
    """The right answer to this sample, rendered."""
    sample_id: str
    repeat: int


@with_quick_init
@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is sent for one row. Born in `job/plan`."""

    index: int
    """Position of the row in plan order (sample, prompt, model, repeat), 0-based."""
    row_id: str
    """sha256 hex of (sample_id, prompt, model, repeat)."""
    request_key: str
    """sha256 hex of what is asked of whom."""
    sample: Sample
    prompt: str
    """Name of the prompt."""
    model: str
    """Name (label) of the model."""
    endpoint: str
    """Name of the endpoint."""
    repeat: int
    """0-based."""
    body: bytes
    """The final request body, JSON in UTF-8, no secrets."""
    hint: SimulatorHint | None = None
    """None for every endpoint but a simulator."""
    n_choices: int = 1
    """Choices asked for: the parameter `n`."""
    max_output_tokens: int | None = None
    """Limit that the request sets on the length of each choice; None when it sets none."""
    prior_attempts: int = 0
    """Attempts that earlier calls of the same run made for this row."""
    prior_billed_usd: Decimal | None = Decimal(0)
    """What those cost; None when unknown."""
    is_prior_estimated: bool = False
    """Whether an estimate is part of that."""


@with_quick_init
@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """Written before a request leaves, so that a crash can tell what was in flight."""

    row_id: str
    request_key: str
    index: int
    attempt: int
    """1-based over the whole run."""


@with_quick_init
@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Token counts in OpenAI's meaning: each part lies within the prompt, or within the completion. None = not told."""

    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    completion_tokens: int | None = None
    reasoning_tokens: int | None = None
    audio_input_tokens: int | None = None
    audio_output_tokens: int | None = None
    total_tokens: int | None = None
    source: UsageSource = UsageSource.MISSING
    raw: str | None = None
    """The usage object as the server sent it, JSON text; None when there was none."""
    reported_cost_usd: Decimal | None = None
    """Cost that the reply itself names (OpenRouter's `usage.cost`); None when it names none."""
    flags: tuple[str, ...] = ()
    """What is odd about the counts: `usage_inconsistent`, `usage_converted`, `reasoning_outside`."""


NO_USAGE = Usage()
"""Of a reply that tells of no tokens, and of an exchange that gave none."""


@with_quick_init
@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """A reply that is a chat completion. Born in `dispatch/wire`."""

    status: Status
    """One of ok, truncated, filtered, refused, empty."""
    output: str | None
    """Text of choice 0; "" when it answered with nothing; None when filtered or when it holds tool calls only."""
    refusal: str | None = None
    finish_reason: str | None = None
    reasoning: str | None = None
    tool_calls: str | None = None
    """JSON list; None when there are none."""
    choices: str | None = None
    """JSON list of all choices when more than one came; None otherwise."""
    logprobs: str | None = None
    """JSON; None when not asked for."""
    response_id: str | None = None
    response_model: str | None = None
    system_fingerprint: str | None = None
    service_tier: str | None = None
    usage: Usage = NO_USAGE
    flags: tuple[str, ...] = ()


@with_quick_init
@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One HTTP exchange. Born in `dispatch/dispatcher`."""

    row_id: str
    request_key: str
    attempt: int
    """1-based over the whole run, resumes included."""
    started_at: datetime
    """UTC wall clock."""
    wait_s: float
    """Seconds slept or paced before it."""
    latency_s: float | None
    """Seconds from send to the last byte; None when no answer came."""
    first_token_s: float | None
    http_status: int | None
    error_code: str | None
    """None when it was answered."""
    error_message: str | None
    retry_after_s: float | None
    request_id: str | None
    """The server's id of the exchange."""
    bytes_sent: int
    bytes_received: int
    usage: Usage
    cost_usd: Decimal | None
    """None when unknown, never 0 for unknown. 0 when the server certainly did not bill (refused before work); of an
    attempt that may have been billed, what it may have cost."""
    cost_source: CostSource
    maybe_billed: bool
    """True when it failed after the body had left: the server may bill it."""
    body: str | None = None
    """The raw reply, redacted (first 4 KiB when it failed); None when no byte came."""

    @property
    def is_cost_estimated(self) -> bool:
        """True when its cost rests on an estimate of its tokens; what costs nothing whatever its tokens is known."""
        return self.usage.source is UsageSource.ESTIMATED and bool(self.cost_usd)


@with_quick_init
@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What finally became of a row: a completion or an error, exactly one. Born in `dispatch/dispatcher`."""

    row_id: str
    request_key: str
    index: int
    """Plan index at the time it was asked."""
    status: Status
    error_code: str | None
    """None for answers."""
    error_message: str | None
    http_status: int | None
    attempts: int
    """Attempts over the whole run, resumes included; 0 when never sent."""
    completion: Completion | None
    """None for error and pending."""
    usage: Usage
    cost_usd: Decimal | None
    """Cost of the attempt that gave the outcome; None when unknown."""
    billed_usd: Decimal | None
    """Cost of all its attempts in this run; None when any of them is unknown."""
    cost_source: CostSource
    latency_s: float | None
    """Last attempt, without queueing and back-off; None when no answer came."""
    first_token_s: float | None
    queue_s: float | None
    """From being taken from the plan to the last attempt's send, waits included."""
    started_at: datetime | None
    """Start of the first attempt, UTC."""
    finished_at: datetime | None
    last_attempt: Attempt | None
    """The attempt that gave the outcome; None when it was never sent."""
    is_permanent: bool = False
    """True for an error of a kind that can pass when the server's own words say that this one does not: a permanent
    error inside a 200. A resume leaves such a row alone."""
    is_billed_estimated: bool = False
    """True when `billed_usd` holds the cost of an attempt whose tokens are estimated."""
    reused_from: str | None = None
    """run_id of the run that asked it, when it was taken over from an older one; None when this run asked it."""
    reused_row_id: str | None = None
    """The row that it was the outcome of there, when that is another one than here; None otherwise."""


@with_quick_init
@dataclass(frozen=True, slots=True, kw_only=True)
class Grade:
    """A grader's verdict on one outcome. Born in `analysis/graders`."""

    row_id: str
    request_key: str
    grader: str
    """Name, unique within the row."""
    type: str
    grader_digest: str
    metric: str | None
    score: float | None
    """0..1; None when the grader could not decide."""
    passed: bool | None
    hard: bool
    weight: float
    reason: str
    error_code: str | None = None
    """`grader_error`, `grader_timeout`, `judge_failed`, `judge_unreadable`; None when it decided."""
    judge_row_ids: str | None = None
    """row_ids of the judge's requests, JSON list; None when no judge was asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """k of n with its 95 % Wilson interval."""

    passed: int
    n: int
    value: float | None
    """passed / n; None when n is 0."""
    low: float
    """0.0 when n is 0."""
    high: float
    """1.0 when n is 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmSummary(Billed):
    """One (model, prompt) of a run, as leaderboards show it. Born in `analysis/summary`."""

    model: str
    prompt: str
    n_total: int
    """Rows planned."""
    n_scored: int
    """Rows with a verdict: `passed` is not null."""
    pass_rate: Rate
    """passed / n_scored. With repeats the rate is over rows; the interval is over samples."""
    mean_score: float | None
    n_errors: int
    n_pending: int
    n_filtered: int
    n_truncated: int
    n_empty: int
    n_refused: int
    n_ungraded: int
    """Answered rows of which a grader could not decide."""
    n_hard_failures: int
    """Samples that break a `hard: true` grader."""
    prompt_tokens: int | None
    """None when no row reported any."""
    completion_tokens: int | None
    n_usage_missing: int
    cost_usd: float | None
    """Known cost of its outcomes, of older runs too; None when no cost is known. Errors are no outcomes."""
    n_cost_unknown: int
    """Answered rows whose cost is unknown."""
    usd_per_1k: float | None
    """USD per 1,000 answered rows; None when any is unknown."""
    usd_per_correct: float | None
    """USD per passed row; None when unknown or nothing passed."""
    latency_p50_s: float | None
    latency_p95_s: float | None
    attempts: int
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Mean score of each named metric."""
    categories: Mapping[str, Rate] = field(default_factory=dict)
    """Pass rate within each category."""
    n_samples: int = 0
    """Samples with at least one verdict: the interval's n. Equals `n_scored` without repeats."""
    n_reused: int = 0
    """Rows whose outcome was taken over from an older run."""
    n_hard_undecided: int = 0
    """Samples that break no `hard: true` grader, but on which one could not decide."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PairTest:
    """Paired comparison of the best arm with another one. Born in `analysis/summary`."""

    model: str
    prompt: str
    n_pairs: int
    best_only: int
    """Samples that only the best arm passes (with repeats: has the higher mean)."""
    other_only: int
    difference: float
    """Best minus other, 0..1, over the pairs."""
    low: float
    """95 % Tango interval of the difference (with repeats: 95 % normal interval of the item means)."""
    high: float
    p_value: float
    """Exact two-sided, Holm-adjusted over the arms compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary(Billed):
    """A run in figures. What terminal, Markdown, HTML and summary.json show alike. Born in `analysis/summary`."""

    arms: tuple[ArmSummary, ...]
    """Sorted by pass rate, best first; ties by name."""
    best: PairTest | None
    """The closest rival's test; None with fewer than two arms, or nothing scored."""
    tests: tuple[PairTest, ...]
    """Best arm against each other arm, in the order of `arms`."""
    headline: str
    """One sentence: the best arm and by how much, or that the data do not tell them apart and what would."""
    statuses: Mapping[str, int]
    """Rows by status; every status is a key."""
    errors: Mapping[str, int]
    """Rows by error code, for error and pending rows."""
    is_simulated: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One rule of the gate and what it found."""

    rule: str
    """The gate's key, e.g. `min_pass_rate`."""
    outcome: str
    """`pass`, `fail` or `no_verdict`."""
    message: str
    """Plain words with the figures."""
    model: str | None = None
    prompt: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the gate says. Born in `analysis/gate`."""

    outcome: str
    """`pass`, `fail`, `no_verdict` or `none` (no gate was asked for)."""
    exit_code: int
    """0, 1 or 3 as in the table of exit codes."""
    headline: str
    """The outcome in words and what decided it, in one line."""
    findings: Sequence[Finding] = ()

    @property
    def reason(self) -> str:
        """The headline for a place that shows the outcome as well: “no verdict” is not said twice there."""
        return self.headline.removeprefix(NO_VERDICT_LEAD)
