"""What a run would take, before anything is sent: tokens, USD and seconds, each low, expected and high.

Counts of tokens enter (`evalrun.text_tokens` estimates those of a prompt), what the job says of its endpoints and
prices, and what an earlier run of the job saw of each model and prompt.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from evalrun.errors import Problem
from evalrun.job.ranges import History, Range, Seen
from evalrun.job.usd_estimate import estimate_usd
from evalrun.options import EndpointOptions, ModelOptions, ProfileOptions
from evalrun.prices import ModelPrices

PROMPT_SPREAD = 0.2
"""A prompt's true tokens are taken to lie within this ratio of the estimate."""

EXPECTED_COMPLETION_TOKENS = 256
"""Guess for a reply of unknown length."""

LOW_COMPLETION_TOKENS = 1
"""Least of a reply: where a label is asked for, one token is all."""

SEEN_SPREAD = 0.05
"""What an earlier run saw may have moved by this ratio since, beside what is chance."""

_DEVIATIONS = 2.58
"""So many standard deviations to either side leave one run in a hundred outside."""

_FIRST_TOKEN_S = (0.3, 1.0, 5.0)
_TOKENS_PER_S = (120.0, 50.0, 15.0)
"""Best, usual and worst speed of a model behind a network."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelEstimate:
    """What a run would ask of one model."""

    model: str
    endpoint: str
    requests: int
    prompt_tokens: Range
    """Over all requests."""
    completion_tokens: Range
    """Over all requests; `high` is None when nothing limits the length of a reply."""
    usd: Range
    """Over all requests; all None without a price, `high` None when the reply's length has no limit."""
    time_s: Range
    """If its endpoint had no other model; `high` None when the reply's length has no limit."""
    prompts: int = 1
    """Prompts that it is asked with."""
    prompts_seen: int = 0
    """Those of them of which an earlier run of the job tells what they take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanTotals:
    """What a run would do."""

    n_samples: int
    n_rows: int
    categories: Mapping[str, int]
    """Samples by category; those without one are not listed."""
    models: tuple[ModelEstimate, ...]
    dataset_digest: str
    """sha256 hex over ids and rows of the samples, in order."""
    usd: Range
    """Sum over the models; a bound is None when any model's is."""
    time_s: Range
    """The slowest endpoint's; a bound is None when any endpoint's is."""
    warnings: tuple[Problem, ...] = ()
    """What is no error, but should be known of the rows before the run; equal ones are told once."""
    learned_from: str | None = None
    """run_id of the run that the estimate goes by; None when no earlier run of the job tells anything."""
    prompt_estimates: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Tokens of an average prompt by rule, by model and prompt: what a run's own counts are compared with."""


@dataclass(slots=True, kw_only=True)
class ModelLoad:
    """What the preflight counted for one model and prompt."""

    n_requests: int = 0
    prompt_tokens: float = 0.0
    answer_tokens: float = 0.0
    """Of the simulator's right answers."""
    cap_tokens: int | None = 0
    """Sum of the limits that requests set on their replies; None once a request sets none."""

    def add(self, n_requests: int, prompt_tokens: float, cap_tokens: int | None, answer_tokens: float) -> None:
        """Count equal requests; the tokens are those of each."""
        self.n_requests += n_requests
        self.prompt_tokens += n_requests * prompt_tokens
        self.answer_tokens += n_requests * answer_tokens
        if self.cap_tokens is not None:
            self.cap_tokens = self.cap_tokens + n_requests * cap_tokens if cap_tokens is not None else None


def read_cap_tokens(params: Mapping[str, Any]) -> int | None:
    """Return the limit that parameters, as sent, set on all choices of a reply together; None when they set none."""
    cap, n_choices = params.get("max_completion_tokens", params.get("max_tokens")), params.get("n")
    if not isinstance(cap, int) or isinstance(cap, bool):
        return None
    return cap * n_choices if isinstance(n_choices, int) and n_choices > 0 else cap


def estimate_model(
    model: ModelOptions,
    endpoint: EndpointOptions,
    loads: Mapping[str, ModelLoad],
    *,
    prices: ModelPrices,
    at: datetime,
    history: History | None = None,
) -> ModelEstimate:
    """Return what a run would ask of one model.

    Args:
        model: It.
        endpoint: Where it is asked.
        loads: What it is asked, by prompt.
        prices: What it costs.
        at: When it is asked, UTC.
        history: What an earlier run of the job saw.
    """
    profile = endpoint.simulator.profiles.get(model.wire_model) if endpoint.simulator is not None else None
    known = history.seen if history is not None else {}
    price, tier = prices.find(at), str(model.params.get("service_tier", ""))
    parts = []
    for name, load in loads.items():
        seen = known.get((model.name, name))
        prompt = _estimate_prompt(load, seen)
        completion = _estimate_completion(load, profile, seen)
        usd = estimate_usd(price, prompt, completion, n_requests=load.n_requests, seen=seen, service_tier=tier)
        parts.append((prompt, completion, usd))
    prompt, completion, usd = (_combine([part[at] for part in parts], sum) for at in range(3))
    n = sum(load.n_requests for load in loads.values())
    return ModelEstimate(
        model=model.name,
        endpoint=str(model.endpoint),
        requests=n,
        prompt_tokens=prompt,
        completion_tokens=completion,
        usd=usd,
        time_s=_estimate_time(endpoint, profile, prompt, completion, n),
        prompts=len(loads),
        prompts_seen=sum((model.name, name) in known for name in loads),
    )


def scale_totals(totals: PlanTotals, n_requests: Mapping[str, int]) -> PlanTotals:
    """Return the totals of a run that asks only some of its requests, taken to be like all the others.

    Args:
        totals: Of the whole plan.
        n_requests: By model; what is not named is 0.

    Returns:
        Totals whose figures, `n_rows` included, are those of the requests left; samples and categories stay.
    """
    models = tuple(_scale_model(model, n_requests.get(model.model, 0)) for model in totals.models)
    return replace(
        totals,
        n_rows=sum(model.requests for model in models),
        models=models,
        usd=sum_usd(models),
        time_s=combine_times(models),
    )


def _scale_model(model: ModelEstimate, n_requests: int) -> ModelEstimate:
    ratio = n_requests / model.requests if model.requests else 0.0
    return replace(
        model,
        requests=n_requests,
        prompt_tokens=_scale(model.prompt_tokens, ratio),
        completion_tokens=_scale(model.completion_tokens, ratio),
        usd=_scale(model.usd, ratio),
        time_s=_scale(model.time_s, ratio),
    )


def _scale(values: Range, ratio: float) -> Range:
    def scale(bound: float | None) -> float | None:
        return None if bound is None else bound * ratio

    return Range(low=scale(values.low), expected=scale(values.expected), high=scale(values.high))


def sum_usd(models: Sequence[ModelEstimate]) -> Range:
    """Return the sum of the models' cost; a bound is None when any model's is."""
    return _combine([model.usd for model in models], sum)


def sum_prompt_tokens(models: Sequence[ModelEstimate]) -> Range:
    """Return the sum of the models' prompt tokens."""
    return _combine([model.prompt_tokens for model in models], sum)


def sum_completion_tokens(models: Sequence[ModelEstimate]) -> Range:
    """Return the sum of the models' completion tokens; `high` None when any model's is."""
    return _combine([model.completion_tokens for model in models], sum)


def combine_times(models: Sequence[ModelEstimate]) -> Range:
    """Return the time of the slowest endpoint: its models share its concurrency, endpoints run side by side."""
    by_endpoint: dict[str, list[Range]] = {}
    for model in models:
        by_endpoint.setdefault(model.endpoint, []).append(model.time_s)
    return _combine([_combine(times, sum) for times in by_endpoint.values()], max)


def _combine(ranges: Sequence[Range], join: Callable[[list[float]], float]) -> Range:
    def pick(bound: str) -> float | None:
        values = [getattr(item, bound) for item in ranges]
        return None if not values or None in values else float(join(values))

    return Range(low=pick("low"), expected=pick("expected"), high=pick("high"))


def _spread(value: float, ratio: float) -> Range:
    return Range(
        low=float(round(value * (1 - ratio))), expected=float(round(value)), high=float(round(value * (1 + ratio)))
    )


def _estimate_prompt(load: ModelLoad, seen: Seen | None) -> Range:
    if seen is None:
        return _spread(load.prompt_tokens, PROMPT_SPREAD)
    return _spread(load.prompt_tokens * seen.prompt_ratio, SEEN_SPREAD)


def _estimate_completion(load: ModelLoad, profile: ProfileOptions | None, seen: Seen | None) -> Range:
    n = load.n_requests
    if seen is not None and n:
        return _cap(_project(seen, n), load.cap_tokens)
    if profile is not None:
        wrapping = {"plain": 0, "sentence": 8, "reasoned": 40}[profile.style] * n
        expected = max(load.answer_tokens, n) + wrapping
        return Range(low=float(n), expected=float(round(expected)), high=float(round(2 * expected + 20 * n)))
    low, expected = float(LOW_COMPLETION_TOKENS * n), float(EXPECTED_COMPLETION_TOKENS * n)
    if load.cap_tokens is None:
        return Range(low=low, expected=expected, high=None)
    return _cap(Range(low=low, expected=expected, high=float(load.cap_tokens)), load.cap_tokens)


def _project(seen: Seen, n: int) -> Range:
    """Return what n replies take together, from the mean and the deviation of those seen.

    The sum wavers by chance, and so did the mean that it is taken from.
    """
    expected = n * seen.completion_tokens
    chance = _DEVIATIONS * seen.completion_deviation * math.sqrt(n + n * n / seen.n_rows)
    half = chance + SEEN_SPREAD * expected
    return Range(
        low=float(math.floor(max(expected - half, 0.0))),
        expected=float(round(expected)),
        high=float(math.ceil(expected + half)),
    )


def _cap(values: Range, cap_tokens: int | None) -> Range:
    """Return a range with no bound above the limits that requests set on their replies."""
    if cap_tokens is None or values.low is None or values.expected is None or values.high is None:
        return values
    cap = float(cap_tokens)
    return Range(low=min(values.low, cap), expected=min(values.expected, cap), high=min(values.high, cap))


def _estimate_time(
    endpoint: EndpointOptions, profile: ProfileOptions | None, prompt: Range, completion: Range, n: int
) -> Range:
    """Return how long the requests take: as long as the replies at full concurrency, or as the endpoint's limits."""
    if n == 0:
        return Range(low=0.0, expected=0.0, high=0.0)
    waves = _estimate_waves(endpoint, profile, completion, n)
    pacing = _estimate_pacing(endpoint, prompt, completion, n)
    low, expected, high = (
        None if asked is None or held is None else max(asked, held) for asked, held in zip(waves, pacing, strict=True)
    )
    return Range(low=low, expected=expected, high=high)


def _estimate_waves(
    endpoint: EndpointOptions, profile: ProfileOptions | None, completion: Range, n: int
) -> list[float | None]:
    def last(latency_s: float) -> float:
        # The last wave is as long as one request, however few there are.
        return max(latency_s, latency_s * n / endpoint.concurrency)

    if profile is not None:
        median_s = profile.latency_ms / 1000
        # A few milliseconds of the machine's own work stand beside the simulated wait.
        return [last(median_s), last(median_s * 1.1 + 0.003), last(median_s * 2 + 0.02)]
    tokens = (completion.low, completion.expected, completion.high)
    return [
        None if total is None else last(first_s + total / n / speed)
        for total, first_s, speed in zip(tokens, _FIRST_TOKEN_S, _TOKENS_PER_S, strict=True)
    ]


def _estimate_pacing(endpoint: EndpointOptions, prompt: Range, completion: Range, n: int) -> list[float | None]:
    """Return how long the endpoint's own limits hold the requests back; the first of them leaves at once."""
    requests_s = 60 * (n - 1) / endpoint.requests_per_minute if endpoint.requests_per_minute is not None else 0.0
    if endpoint.tokens_per_minute is None:
        return [requests_s] * 3
    per_s = endpoint.tokens_per_minute / 60
    parts = ((prompt.low, completion.low), (prompt.expected, completion.expected), (prompt.high, completion.high))
    return [
        None if asked is None or answered is None else max(requests_s, (asked + answered) / per_s)
        for asked, answered in parts
    ]
