"""What the judges of a job would be asked, before anything is sent: requests, tokens and USD.

Samples enter one by one in the check; estimates leave. What the candidates will say is not known yet: a judge's prompt
is taken to hold an answer of the length that the plan expects of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from evalrun.analysis.graders.grader_set import GraderSet
from evalrun.analysis.graders.judge_grader import make_messages
from evalrun.errors import Problem
from evalrun.job.canonical import encode_json
from evalrun.job.config import LoadedJob
from evalrun.job.estimate import (
    ModelEstimate,
    ModelLoad,
    PlanTotals,
    combine_times,
    estimate_model,
    scale_totals,
    sum_usd,
)
from evalrun.job.plan import Plan
from evalrun.judge_rows import JudgeRows
from evalrun.prices import NO_PRICES
from evalrun.records import Sample, Status
from evalrun.text_tokens import estimate_message_tokens, estimate_tokens

VERDICT_TOKENS = 40
"""Guess for a simulated judge's reply."""


class JudgeLoad:
    """Counts the judges' requests while samples are checked.

    Args:
        loaded: The job.
        plan: The rows that will be judged.
        graders: The job's.
        judges: Its judges.
    """

    def __init__(self, loaded: LoadedJob, plan: Plan, graders: GraderSet, judges: JudgeRows) -> None:
        self._loaded = loaded
        self._graders = graders
        self._judges = judges
        self._n_rows_each = len(plan.prompts) * len(plan.models) * plan.repeats
        self._loads = {model.name: ModelLoad() for model in judges.models}

    def check_sample(self, sample: Sample) -> list[Problem]:
        """Check a sample as graders and judges do, and count what it would have the judges asked."""
        problems = [*self._graders.check_sample(sample), *self._judges.check_sample(sample)]
        if problems:
            return problems
        # As a row of results that was answered with nothing: the answer's tokens are added in the end.
        row = {
            "status": Status.OK.value,
            "sample": encode_json(sample.row).decode(),
            "sample_id": sample.sample_id,
            "repeat": 0,
            **dict.fromkeys(("output", "refusal", "tool_calls")),
        }
        for judgement in self._graders.list_judgements(row):
            messages = make_messages(judgement.options, judgement.task, "", "0" * 16)
            tokens = estimate_message_tokens(messages, estimate_tokens)
            n = self._n_rows_each * judgement.options.votes
            cap_tokens = self._judges.read_cap_tokens(judgement)
            self._loads[judgement.options.model].add(n, tokens, cap_tokens, VERDICT_TOKENS)
        return []

    def estimate(self, totals: PlanTotals) -> tuple[ModelEstimate, ...]:
        """Return what each judge would be asked if every row of the plan is answered.

        Args:
            totals: Of the plan.
        """
        answers = [model.completion_tokens.expected or 0.0 for model in totals.models]
        answer_tokens = sum(answers) / max(totals.n_rows, 1)
        job, now = self._loaded.job, datetime.now(UTC)
        estimates = []
        for model in self._judges.models:
            load = self._loads[model.name]
            estimates.append(
                estimate_model(
                    model,
                    job.endpoints[str(model.endpoint)],
                    {"": replace(load, prompt_tokens=load.prompt_tokens + load.n_requests * answer_tokens)},
                    prices=self._loaded.prices.get(model.name, NO_PRICES),
                    at=now,
                )
            )
        return tuple(estimates)


def add_judges(
    totals: PlanTotals, judges: Sequence[ModelEstimate], *, n_left: Mapping[str, int] | None = None
) -> PlanTotals:
    """Return what a run takes with its judges: `n_rows` counts their requests, and so do the sums.

    Args:
        totals: Without them.
        judges: Their estimates.
        n_left: Requests that are asked of each judge; None for all.
    """
    if n_left is not None:
        judges = scale_totals(replace(totals, models=tuple(judges)), n_left).models
    models = (*totals.models, *judges)
    n_rows = totals.n_rows + sum(judge.requests for judge in judges)
    return replace(totals, n_rows=n_rows, models=models, usd=sum_usd(models), time_s=combine_times(models))
