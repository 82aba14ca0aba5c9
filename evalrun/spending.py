"""What a run may spend: the job's budget, less what earlier calls of the run took.

A job, its totals and the journal enter; words about the budget, and the `RunBudget` that dispatch asks, leave. What an
earlier call took without telling is estimated, leaning to too much: a resume never spends the same money twice.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Protocol

from evalrun.dispatch.budget import Reservation, RunBudget, Spent, lean, make_reservation
from evalrun.dispatch.till import find_spent
from evalrun.dispatch.token_guess import TokenGuess
from evalrun.errors import Problem
from evalrun.job.config import LoadedJob
from evalrun.job.estimate import PlanTotals
from evalrun.options import BudgetOptions, ModelOptions
from evalrun.prices import NO_PRICES, PriceBook, list_unpriced
from evalrun.records import Request, UsageSource
from evalrun.store.journal_index import JournalIndex

_UNKNOWN = Spent(None, None)


class Asks(Protocol):
    """What a run asks: its plan, with the requests of its judges where it has some."""

    @property
    def loaded(self) -> LoadedJob:
        """The job."""
        ...

    def requests(self) -> Iterator[Request]:
        """Yield every request."""
        ...


@dataclass(slots=True, kw_only=True)
class Spending:
    """What the calls of a run took until now."""

    usd: Decimal = Decimal(0)
    tokens: int = 0
    requests: int = 0
    n_estimated: int = 0
    """Requests whose cost or tokens were never told, and are estimated."""


def find_price_problem(loaded: LoadedJob, models: Sequence[ModelOptions]) -> Problem | None:
    """Return why `budget.usd` cannot be kept: a model whose price is unknown; None when it can.

    Args:
        loaded: The job.
        models: Those that are asked.
    """
    budget = loaded.job.budget
    unpriced = list_unpriced(loaded.prices, (model.name for model in models), datetime.now(UTC))
    if budget is None or budget.usd is None or not unpriced:
        return None
    example = f"--set 'models[{unpriced[0]}].price={{input: 1.25, output: 10}}' (USD per 1M tokens)"
    return Problem(
        message=f"`budget.usd` cannot be kept, since no price is known of {', '.join(unpriced)}",
        where=loaded.where("budget", "usd"),
        hint=f"write a `price` for each, or type {example}; --allow-unknown-cost leaves such requests uncounted",
    )


def list_cost_problems(loaded: LoadedJob, models: Sequence[ModelOptions]) -> list[Problem]:
    """Return one problem for each model whose requests would have no known cost, for `--require-cost`.

    Args:
        loaded: The job.
        models: Those that are asked.
    """
    unpriced = set(list_unpriced(loaded.prices, (model.name for model in models), datetime.now(UTC)))
    problems = []
    for index, model in enumerate(loaded.job.models):
        if model.name in unpriced:
            prices = loaded.prices.get(model.name, NO_PRICES)
            when = f" before {prices.first_valid_from}" if prices else ""
            example = f"--set 'models[{model.name}].price={{input: 1.25, output: 10}}' (USD per 1M tokens)"
            problems.append(
                Problem(
                    message=f"no price is known of {model.name}{when}, and --require-cost asks for one",
                    where=loaded.where("models", index, "price"),
                    hint=f"write a `price` for it, or one under `prices:`, or type {example}",
                )
            )
    return problems


def list_shortages(budget: BudgetOptions | None, totals: PlanTotals) -> Iterator[str]:
    """Yield, for each limit that the whole run is expected to pass, what is expected and where the run will stop."""
    if budget is None:
        return
    tokens = [
        estimate.prompt_tokens.expected + estimate.completion_tokens.expected
        for estimate in totals.models
        if estimate.prompt_tokens.expected is not None and estimate.completion_tokens.expected is not None
    ]
    usd = None if budget.usd is None else float(budget.usd)
    for key, limit, expected, write in (
        ("usd", usd, totals.usd.expected, "USD {:,.4g}"),
        ("tokens", budget.tokens, sum(tokens), "{:,.0f} tokens"),
        ("requests", budget.requests, totals.n_rows, "{:,.0f} requests"),
        ("wall_s", budget.wall_s, totals.time_s.expected, "{:,.0f} s"),
    ):
        if limit is not None and expected is not None and expected > limit:
            yield (
                f"the whole run is expected to take about {write.format(expected)}, and `budget.{key}` ends it at "
                f"{write.format(limit)}: rows will be left over for --resume"
            )


def make_budget(
    loaded: LoadedJob, plan: Asks, index: JournalIndex, *, started_s: float, allows_unknown_cost: bool
) -> RunBudget | None:
    """Return the budget of this call; None when the job sets no limit.

    Args:
        loaded: The job.
        plan: Its rows.
        index: What the journal holds of earlier calls.
        started_s: Monotonic time at which this call began.
        allows_unknown_cost: Requests without a price pass `budget.usd` uncounted.
    """
    limits = loaded.job.budget
    if limits is None or limits == BudgetOptions():
        return None
    counts = limits.usd is not None or limits.tokens is not None or limits.requests is not None
    spent = count_spent(index, plan) if counts and len(index) else Spending()
    return RunBudget(
        limits.usd,
        limits.tokens,
        limits.requests,
        limits.wall_s,
        started_s=started_s,
        spent_usd=spent.usd,
        spent_tokens=spent.tokens,
        spent_requests=spent.requests,
        allows_unknown_cost=allows_unknown_cost,
    )


def describe_budget(budget: RunBudget | None) -> dict[str, Any] | None:
    """Return where a budget stands as JSON values, for run.json; None for none."""
    if budget is None:
        return None
    return {
        key: {name: round(float(value), 12) if isinstance(value, Decimal) else value for name, value in facts.items()}
        if isinstance(facts, Mapping)
        else facts
        for key, facts in budget.describe().items()
    }


def count_spent(index: JournalIndex, plan: Asks) -> Spending:
    """Return what the journal's attempts took, those that were in flight when a call died included.

    Args:
        index: The journal.
        plan: The rows as the job asks them now; they tell what a request of unknown cost may have taken.
    """
    spent, guess = Spending(), TokenGuess()
    doubtful: list[tuple[str, Spent]] = []
    for attempt in index.scan_attempts():
        usage, took = attempt.usage, find_spent(attempt)
        spent.requests += 1
        if took.is_estimate or took.usd is None or took.tokens is None:
            doubtful.append((attempt.row_id, took))
        else:
            spent.usd += took.usd
            spent.tokens += took.tokens
        is_told = usage.source is UsageSource.REPORTED
        guess.note_answer(b"", prompt_tokens=None, output_tokens=usage.completion_tokens if is_told else None)
    lost = [doubt.row_id for doubt in (*index.in_doubt, *index.asked_again)]
    spent.requests += len(lost)
    doubtful += [(row_id, _UNKNOWN) for row_id in lost]
    spent.n_estimated = len(doubtful)
    if doubtful:
        wanted = {row_id for row_id, _ in doubtful}
        reservations = _estimate_rows(plan.requests(), wanted, guess, plan.loaded.prices)
        # A row that the job no longer has took as much as the dearest of the others.
        usd = max((each.usd for each in reservations.values() if each.usd is not None), default=Decimal(0))
        dearest = Reservation(usd, max((each.tokens for each in reservations.values()), default=0))
        for row_id, took in doubtful:
            _add_doubtful(spent, took, reservations.get(row_id, dearest))
    return spent


def _add_doubtful(spent: Spending, took: Spent, reservation: Reservation) -> None:
    """Add an attempt that did not tell all, as the budget settled it when it came back."""
    spent.usd += lean(took.usd, reservation.usd or Decimal(0), is_estimate=took.is_estimate)
    tokens = None if took.tokens is None else Decimal(took.tokens)
    spent.tokens += int(lean(tokens, Decimal(reservation.tokens), is_estimate=took.is_estimate))


def _estimate_rows(
    requests: Iterable[Request],
    wanted: set[str],
    guess: TokenGuess,
    prices: PriceBook,
) -> dict[str, Reservation]:
    """Return what a request of each row wanted may take, by row_id; of the last row when none of them is there."""
    found: dict[str, Reservation] = {}
    last: Request | None = None
    for request in requests:
        last = request
        if request.row_id in wanted:
            found[request.row_id] = _estimate(request, guess, prices)
            if len(found) == len(wanted):
                break
    return found if found or last is None else {last.row_id: _estimate(last, guess, prices)}


def _estimate(request: Request, guess: TokenGuess, prices: PriceBook) -> Reservation:
    estimate = guess.estimate(request.body, max_output_tokens=request.max_output_tokens, n_choices=request.n_choices)
    return make_reservation(estimate, prices.get(request.model, NO_PRICES))
