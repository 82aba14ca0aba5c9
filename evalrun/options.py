"""The knobs: everything a job may say, frozen and self-validating.

The dataclasses below *are* the job file's schema: `job/config` hands them to pydantic, which reads types, bounds and
the docstrings under the fields; the JSON Schema and `docs/job.md` are made from them. A name that Python reserves
carries a trailing underscore, which the file's key drops (`not_` is `not`).

Values arrive here with `${NAME}` already replaced; paths are as written, relative to the job's folder.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Gt, Le, MinLen

from evalrun.grader_options import PYDANTIC_CONFIG, GraderOptions, Text

Seconds = Annotated[float, Gt(0), Le(86_400)]
Ratio = Annotated[float, Ge(0), Le(1)]
Count = Annotated[int, Ge(1)]
Usd = Annotated[Decimal, Ge(0), Le(10_000)]
"""A rate: USD per 1M tokens. The dearest model there is asks for hundreds."""
PerMinute = Annotated[float, Ge(0.001)]


class _Options:
    """Shared by every record: how pydantic reads it."""

    __slots__ = ()
    __pydantic_config__: ClassVar[Mapping[str, Any]] = PYDANTIC_CONFIG


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeoutOptions(_Options):
    """Deadlines of one attempt, in seconds."""

    connect: Seconds = 10.0
    """Until the connection stands, TLS included."""
    first_byte: Seconds | None = None
    """From the body's last byte to the reply's first; default: 120 for streamed replies, else no limit of its own."""
    idle: Seconds | None = None
    """Between two reads of the reply; default: 60 for streamed replies, else no limit of its own."""
    total: Seconds = 600.0
    """Whole attempt, from connect to the last byte."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryOptions(_Options):
    """When a failed attempt is followed by another."""

    max_attempts: Annotated[int, Ge(1), Le(100)] = 6
    """Attempts per row, the first one included. Those that an outage of the whole lane failed do not count, nor do 429s
    for sending too fast: then the lane waits, and `max_pause_s` bounds the time."""
    base_s: Seconds = 1.0
    """First back-off's upper bound; it doubles with each attempt (full jitter)."""
    max_s: Seconds = 60.0
    """Longest back-off."""
    max_pause_s: Seconds = 600.0
    """Longest Retry-After that is waited for; a longer one stops the lane, resumable, and so does an outage of this
    length, or so long a time in which 429s let nothing in."""
    max_timeouts: Annotated[int, Ge(0), Le(100)] = 2
    """Retries after a deadline that passed once the body was sent: each may be billed."""


RateDialect = Literal["openai", "azure", "anthropic", "groq", "together", "fireworks", "none"]
"""Whose rate-limit headers to send."""
RetryAfterForm = Literal["seconds", "ms", "float", "date", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedLimits(_Options):
    """Rate limits and quota of one simulated model; null = none."""

    requests_per_minute: Annotated[float, Gt(0)] | None = None
    """Requests a client may send in a minute."""
    tokens_per_minute: Annotated[float, Gt(0)] | None = None
    """Tokens, prompt and most possible output, that a client may ask for in a minute."""
    concurrency: Count | None = None
    """Requests that may be under way at once."""
    window_s: Annotated[float, Gt(0), Le(3600)] | None = None
    """Limits count in fixed windows of so many seconds, a minute's share each; default: a bucket that refills
    steadily."""
    rejected_count: bool = False
    """Whether a refused request uses up the limit too."""
    max_growth: Annotated[float, Gt(1)] | None = None
    """Most growth of the request rate from one 10-second window to the next; above it: 503 slow_down."""
    quota_tokens: Annotated[int, Ge(0)] | None = None
    """Tokens after which every request is refused with 429 insufficient_quota."""
    retry_after: RetryAfterForm = "seconds"
    """Form of Retry-After in a 429."""
    headers: RateDialect = "none"
    """Dialect of the rate-limit headers that every reply carries."""
    max_duration_s: Seconds | None = None
    """A reply that is not streamed and takes longer is cut off with 504, as proxies do."""


UsageDialect = Literal["openai", "continuous", "deepseek", "gemini", "openrouter", "anthropic", "responses", "none"]


_ALL = 1 + 1e-9
"""Of shares, whose sum is rounded: ten times 0.1 is all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileOptions(_Options):
    """How one simulated model behaves."""

    accuracy: Ratio = 0.8
    """Chance that a reply says the right answer."""
    latency_ms: Annotated[float, Ge(0), Le(600_000)] = 20.0
    """Median latency; single replies vary log-normally around it."""
    latency_spread: Annotated[float, Ge(0), Le(3)] = 0.25
    """Sigma of the log-normal latency; 0 = always the median."""
    error_rate: Ratio = 0.0
    """Chance that an attempt answers 503."""
    style: Literal["plain", "sentence", "reasoned"] = "plain"
    """How the answer is wrapped: alone, in a sentence, or after a line of reasoning."""
    first_token_ms: Annotated[float, Ge(0), Le(600_000)] | None = None
    """Median time to the first token of a streamed reply; default: a quarter of `latency_ms`."""
    tokens_per_s: Annotated[float, Gt(0), Le(1_000_000)] | None = None
    """Speed of a streamed reply once it has begun; default: what `latency_ms` leaves."""
    reasoning_tokens: Annotated[int, Ge(0), Le(1_000_000)] = 0
    """Reasoning tokens of each reply, billed within completion_tokens; above 0 a reasoning text is sent too."""
    cached_share: Ratio = 0.0
    """Share of the prompt tokens, sounds left out, that is billed as read from the cache."""
    cache_write_share: Ratio = 0.0
    """Share of the prompt tokens, sounds left out, that is billed as written to the cache."""
    usage: UsageDialect = "openai"
    """Dialect in which token counts are reported; `continuous` is OpenAI's, in each chunk of a stream so far; `none`
    reports none."""
    answers_as: Text | None = None
    """Model id in the reply; default: the one asked for."""
    service_tier: Text | None = None
    """Service tier in the reply, whatever was asked for; default: `default`, or the one asked for."""
    service_tiers: Mapping[Text, Ratio] = field(default_factory=dict)
    """Other tiers, and the share of the requests that is served at each: {flex: 0.2, priority: 0.1}."""
    limits: SimulatedLimits = field(default_factory=SimulatedLimits)
    """Rate limits and quota."""
    broken_json: Ratio = 0.0
    """Chance that a reply that was asked to be JSON ends in the middle of it, as if that were its end."""
    quirks: Mapping[Text, Ratio] = field(default_factory=dict)
    """Misbehaviour by id (`evalrun simulate --list-quirks`) and the share of attempts it befalls: {Q09: 0.1}."""

    def __post_init__(self) -> None:
        """Refuse shares of one thing that are more than all of it."""
        if self.cached_share + self.cache_write_share > _ALL:
            msg = "`cached_share` and `cache_write_share` are shares of one prompt: together at most 1"
            raise ValueError(msg)
        if sum(self.service_tiers.values()) > _ALL:
            msg = "the shares of `service_tiers` are together at most 1"
            raise ValueError(msg)


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatorOptions(_Options):
    """A gateway of our own: embedded, or one that already runs."""

    answer: Text | None = None
    """Template over the sample: what a right reply says."""
    answer_column: Text | None = None
    """Column that holds it; short for `answer: "{{ column }}"`."""
    seed: int = 1
    """Same seed, same request: same reply."""
    profiles: Annotated[Mapping[Text, ProfileOptions], MinLen(1)]
    """Behaviour by name, e.g. {careful: {accuracy: 0.9, latency_ms: 30}}; a model's `model:` picks one."""
    url: Text | None = None
    """A simulator that already runs, e.g. http://127.0.0.1:8080 (started by `evalrun simulate JOB`)."""

    def __post_init__(self) -> None:
        """Refuse a simulator without an answer."""
        if (self.answer is None) == (self.answer_column is None):
            msg = "give exactly one of `answer` and `answer_column`"
            raise ValueError(msg)

    @property
    def answer_template(self) -> str:
        """The template of the right answer, whichever way it was written."""
        return self.answer if self.answer is not None else "{{ " + str(self.answer_column) + " }}"


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointOptions(_Options):
    """Connection facts and limits."""

    base_url: Text | None = None
    """Requests go to {base_url}/chat/completions; nothing is inserted."""
    simulator: SimulatorOptions | None = None
    """Instead of `base_url`: the simulator, with no key and no network."""
    api_key_env: Text | None = None
    """Name of the environment variable that holds the key; sent as `Authorization: Bearer`."""
    concurrency: Annotated[int, Ge(1), Le(10_000)] = 32
    """Most requests in flight, over all models of the endpoint."""
    requests_per_minute: PerMinute | None = None
    """Most requests sent in a minute, over all models of the endpoint; default: learned from headers and 429s."""
    tokens_per_minute: PerMinute | None = None
    """Most tokens, prompt and output, in a minute, over all models of the endpoint; default: learned as well."""
    stream: bool = False
    """Ask for streamed replies: measures the time to the first token, and outlives proxies that cut long calls."""
    stream_options: Mapping[str, Any] = field(default_factory=lambda: {"include_usage": True})
    """Sent with streamed requests; `drop_params: [stream_options]` leaves it out."""
    timeout_s: TimeoutOptions = field(default_factory=TimeoutOptions)
    """Deadlines of one attempt."""
    retry: RetryOptions = field(default_factory=RetryOptions)
    """When a failed attempt is followed by another."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Extra headers, in the clear; secret ones go into `header_env`."""
    header_env: Mapping[str, Text] = field(default_factory=dict)
    """Extra headers whose values are read from environment variables: {X-Key: VAR}."""
    rename_params: Mapping[str, Text] = field(default_factory=dict)
    """Dialects: {max_tokens: max_completion_tokens}."""
    drop_params: tuple[str, ...] = ()
    """Parameters that the endpoint does not take."""
    profile: Text | None = None
    """Named set of known facts about a provider (docs/profiles.md); the endpoint's own keys come first."""
    allow_http: bool = False
    """Allow plain http:// to a host that is not loopback."""
    transport: Literal["httpx"] | None = None
    """Engine under the HTTP seam; default: the fastest installed."""

    def __post_init__(self) -> None:
        """Refuse an endpoint with no target or with two."""
        if (self.base_url is None) == (self.simulator is None):
            msg = "give exactly one of `base_url` and `simulator`"
            raise ValueError(msg)


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceTier(_Options):
    """Prices of the whole request once its prompt is long."""

    above_prompt_tokens: Count
    """The tier holds for requests with more prompt tokens (cached ones included) than this."""
    input: Usd | None = None
    cached_input: Usd | None = None
    cache_write: Usd | None = None
    output: Usd | None = None
    reasoning: Usd | None = None
    audio_input: Usd | None = None
    audio_output: Usd | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceOptions(_Options):
    """USD per 1M tokens."""

    input: Usd
    """Uncached prompt tokens."""
    output: Usd
    """Completion tokens."""
    cached_input: Usd | None = None
    """Prompt tokens read from the cache; default: `input`."""
    cache_write: Usd | None = None
    """Prompt tokens written to the cache; default: `input`."""
    reasoning: Usd | None = None
    """Reasoning tokens; default: `output`."""
    audio_input: Usd | None = None
    """Prompt tokens that are sound, those read from the cache aside; default: `input`."""
    audio_output: Usd | None = None
    """Completion tokens that are sound; default: `output`."""
    tiers: tuple[PriceTier, ...] = ()
    """Long-context prices; the whole request moves to the highest tier it reaches."""
    multipliers: Mapping[str, Annotated[Decimal, Gt(0), Le(100)] | None] = field(default_factory=dict)
    """By the reply's `service_tier`, e.g. {flex: 0.5, priority: 2.0}; 1 for a tier that is not named; null where nobody
    knows what the tier costs, so that the cost of its replies is unknown."""
    valid_from: Text | None = None
    """When the price begins: a date (midnight in UTC), or a date and time with its zone; default: it always held. Of
    several prices the newest that holds when a request is sent counts."""
    currency: Text = "USD"
    """Noted with the price; only USD is reckoned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedPriceOptions(PriceOptions):
    """One price of a price file."""

    model: Text
    """Whose: a model's name in tables, its id on the wire, or a glob over both (`gpt-5*`)."""
    aliases: tuple[Text, ...] = ()
    """Other names and ids of the same model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceFileOptions(_Options):
    """A file of prices that jobs share."""

    prices: tuple[SharedPriceOptions, ...]
    """In any order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOptions(_Options):
    """A named target: an endpoint, a model id on the wire, parameters, a price."""

    name: Text
    """Label in tables and reports."""
    endpoint: Text | None = None
    """Name of the endpoint; default: the only one."""
    model: Text | None = None
    """Id on the wire; default: the name."""
    params: Mapping[str, Any] = field(default_factory=dict)
    """Any chat-completions parameter, passed through."""
    role: Literal["candidate", "judge"] = "candidate"
    """A judge answers judge graders only and is never asked the samples; a candidate may judge as well."""
    price: PriceOptions | Annotated[tuple[PriceOptions, ...], MinLen(1)] | None = None
    """What it costs, or a list of such with their `valid_from`; default: as `prices` says, else unknown, and said."""
    requests_per_minute: PerMinute | None = None
    """A limit of this model's own, beside its endpoint's."""
    tokens_per_minute: PerMinute | None = None
    """A limit of this model's own, beside its endpoint's."""

    @property
    def wire_model(self) -> str:
        """The id sent in the request body."""
        return self.model if self.model is not None else self.name

    @property
    def own_prices(self) -> tuple[PriceOptions, ...]:
        """The prices that stand at the model itself, in the order written."""
        if isinstance(self.price, PriceOptions):
            return (self.price,)
        return self.price or ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptOptions(_Options):
    """A named template that turns a sample into messages."""

    name: Text
    """Name in tables and reports."""
    messages: Annotated[tuple[Mapping[str, Any], ...], MinLen(1)] | None = None
    """Chat messages; every string in `content` is a template."""
    system: str | None = None
    """Template. Short form: a system message before `user`."""
    user: str | None = None
    """Template. Short form of one user message."""
    file: Text | None = None
    """A YAML or JSON file that holds `messages`, or `user` (and `system`), relative to the job."""
    messages_column: Text | None = None
    """Column of the sample that holds the messages: data, never a template."""

    def __post_init__(self) -> None:
        """Refuse a prompt with no source of messages or with several."""
        given = [self.messages, self.user, self.file, self.messages_column]
        if sum(source is not None for source in given) != 1:
            msg = "give exactly one of `messages`, `user`, `file` and `messages_column`"
            raise ValueError(msg)
        if self.system is not None and self.user is None:
            msg = "`system` goes with `user`; put it into `messages` instead"
            raise ValueError(msg)


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetOptions(_Options):
    """Where the samples come from."""

    path: Text | Annotated[tuple[Text, ...], MinLen(1)]
    """File, folder or glob, or a list of them, relative to the job."""
    id: Text | None = None
    """Column of the sample's id; default: `id` where there is one, else a digest of the row."""
    category: Text | None = None
    """Column of the category; default: `category` where there is one."""
    columns: Annotated[tuple[Text, ...], MinLen(1)] | None = None
    """Names of the columns of a CSV or TSV file without a header line."""
    limit: Count | None = None
    """Only the first N samples that `where` lets through."""
    where: Text | None = None
    """Expression over the sample: which ones to take."""
    sample: Count | None = None
    """N samples drawn at random, the same ones for the same `seed`."""
    seed: int = 0
    """Seed of `sample`."""
    params_column: Text | None = None
    """Column that holds request parameters of the row's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DefaultsOptions(_Options):
    """What each sample starts with."""

    graders: tuple[GraderOptions, ...] = ()
    """Put before each sample's own graders."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetOptions(_Options):
    """What a run may spend; when it is spent, the rest stays pending, and `--resume` goes on.

    USD, tokens and requests count over the whole run with all its resumes, what failed included; where a cost is not
    known it is estimated, leaning to too much.
    """

    usd: Annotated[Decimal, Gt(0), Le(1_000_000)] | None = None
    """US dollars. Every model needs a `price`, unless `--allow-unknown-cost` is given."""
    tokens: Count | None = None
    """Prompt and output tokens."""
    requests: Count | None = None
    """Requests sent, retries included."""
    wall_s: Seconds | None = None
    """Seconds; counts anew for each call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PassRateOptions(_Options):
    """A pass rate that is missed only when the data show it."""

    value: Ratio
    """The rate to reach."""
    confidence: Annotated[float, Gt(0.5), Le(0.999)] | None = None
    """Fail only when the upper Wilson bound at this level is below `value`; default: compare the rate itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GateOptions(_Options):
    """Rules; the exit code is their verdict."""

    min_pass_rate: Ratio | PassRateOptions | None = None
    """Per arm: passed / n_scored."""
    max_error_rate: Ratio = 0.01
    """Errors over all rows; above it, or with any row pending: no verdict, exit 3."""
    max_hard_failures: Annotated[int, Ge(0)] = 0
    """Samples that may break a `hard: true` grader."""
    max_latency_p95_s: Seconds | None = None
    """Per arm: 95th percentile of the latency of rows asked in this run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportOptions(_Options):
    """What is rendered after a run."""

    formats: tuple[Literal["html", "markdown", "junit"], ...] = ("html", "markdown", "junit")
    """Files to write beside summary.json."""
    include: Literal["full", "outputs", "none"] = "full"
    """Texts that go into the report: prompts and outputs, outputs only, or none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job(_Options):
    """What to run: prompts, samples, models, graders, gate."""

    name: Text | None = None
    """Names the folder under reports/; default: the file's stem."""
    description: str | None = None
    """Shown in reports."""
    vars: Mapping[str, Any] = field(default_factory=dict)
    """In templates as `vars.NAME`; `--var NAME=VALUE` sets one."""
    files_root: Text | None = None
    """Folder below which local files named by data (`image_file`) are read; default: none are read."""
    prices: Text | None = None
    """File of prices that jobs share (docs/prices.md), for models without a `price` of their own."""
    durability: Literal["process", "power"] = "power"
    """What the journal survives: a killed process, or a power failure as well."""
    defaults: DefaultsOptions = field(default_factory=DefaultsOptions)
    """What each sample starts with."""
    endpoints: Annotated[Mapping[Text, EndpointOptions], MinLen(1)]
    """Connection facts and limits, by name."""
    models: Annotated[tuple[ModelOptions, ...], MinLen(1)]
    """Named targets."""
    prompts: Annotated[tuple[PromptOptions, ...], MinLen(1)]
    """Named templates."""
    dataset: Text | Annotated[tuple[Text, ...], MinLen(1)] | DatasetOptions | None = None
    """Samples in files: a path, a list of paths, or an object."""
    samples: tuple[Mapping[str, Any], ...] = ()
    """Samples written inline, after those of `dataset`."""
    repeats: Annotated[int, Ge(1), Le(10_000)] = 1
    """How often each row is asked."""
    graders: tuple[GraderOptions, ...] = ()
    """Checks for every sample."""
    reuse: Text | Annotated[tuple[Text, ...], MinLen(1)] | None = None
    """Runs whose outcomes are taken over where they were paid for the same request: `latest` (the job's newest
    finished run), a run, or a list of runs; `--reuse` takes its place. Default: none."""
    budget: BudgetOptions | None = None
    """What the run may spend; default: no limit."""
    gate: GateOptions | None = None
    """Rules whose verdict is the exit code."""
    report: ReportOptions = field(default_factory=ReportOptions)
    """What is rendered after a run."""
