"""Token estimates and the figures made of them."""

from datetime import UTC, datetime

import pytest

from evalrun.job.estimate import (
    ModelEstimate,
    ModelLoad,
    PlanTotals,
    estimate_model,
    scale_totals,
)
from evalrun.job.ranges import UNKNOWN, Range
from evalrun.options import EndpointOptions, ModelOptions, ProfileOptions, SimulatorOptions
from evalrun.prices import NO_PRICES

NOW = datetime(2026, 11, 23, tzinfo=UTC)


def make_estimate(model: str, requests: int, usd: Range) -> ModelEstimate:
    """Return a model's figures, alike but for what they cost."""
    each = Range(low=8.0, expected=16.0, high=None)
    return ModelEstimate(
        model=model, endpoint="e", requests=requests, prompt_tokens=each, completion_tokens=each, usd=usd, time_s=each
    )


def test_scale_totals_gives_the_part_that_is_left() -> None:
    """Figures follow the share of each model's requests; unknown stays unknown, nothing left is 0."""
    models = (
        make_estimate("a", 4, Range(low=1.0, expected=2.0, high=None)),
        make_estimate("b", 4, Range(low=1.0, expected=2.0, high=4.0)),
        make_estimate("c", 0, UNKNOWN),
    )
    none = Range(low=None, expected=None, high=None)
    totals = PlanTotals(n_samples=4, n_rows=8, categories={}, models=models, dataset_digest="d", usd=none, time_s=none)
    scaled = scale_totals(totals, {"a": 1})
    assert [model.requests for model in scaled.models] == [1, 0, 0]
    assert [model.usd for model in scaled.models] == [
        Range(low=0.25, expected=0.5, high=None), Range(low=0.0, expected=0.0, high=0.0), UNKNOWN,
    ]  # fmt: skip
    assert scaled.models[0].prompt_tokens == Range(low=2.0, expected=4.0, high=None)
    assert (scaled.n_rows, scaled.n_samples) == (1, 4)


@pytest.mark.parametrize(
    ("requests_per_minute", "tokens_per_minute", "least_s"), [(30, None, 60.0), (None, 60, 400.0), (None, None, 0.0)]
)
def test_estimated_time_heeds_the_limits_of_the_endpoint(
    requests_per_minute: float | None, tokens_per_minute: float | None, least_s: float
) -> None:
    """What an endpoint lets through in a minute bounds a plan's time, however many requests may be in flight."""
    simulator = SimulatorOptions(answer="4", profiles={"m": ProfileOptions(latency_ms=1)})
    endpoint = EndpointOptions(
        simulator=simulator, requests_per_minute=requests_per_minute, tokens_per_minute=tokens_per_minute
    )
    load = ModelLoad(n_requests=31, prompt_tokens=400.0, answer_tokens=31.0, cap_tokens=None)
    estimate = estimate_model(ModelOptions(name="m", endpoint="e"), endpoint, {"p": load}, prices=NO_PRICES, at=NOW)
    assert estimate.time_s.expected is not None
    assert estimate.time_s.expected >= least_s
    assert (estimate.time_s.expected < 1) == (least_s == 0)
