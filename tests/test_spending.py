"""A run's budget: what earlier calls took is counted once, and what nobody told is estimated on the safe side."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

from evalrun.dispatch.budget import Reservation, make_reservation
from evalrun.dispatch.token_guess import TokenGuess
from evalrun.job.config import LoadedJob, load_job
from evalrun.job.plan import Plan
from evalrun.records import Attempt, CostSource, Outcome, Request, Started, Usage, UsageSource
from evalrun.spending import count_spent, describe_budget, find_price_problem, list_shortages, make_budget
from evalrun.store.folder import RunFolder
from evalrun.store.journal import Journal
from evalrun.store.journal_index import JournalIndex
from evalrun.store.journal_scan import scan_journal
from tests.store.fake_records import (
    make_attempt,
    make_failed_attempt,
    make_folder,
    make_outcome,
    make_started,
)

JOB = """\
endpoints: {gateway: {base_url: "https://x.test/v1"}}
models:
  - {name: cheap, params: {max_tokens: 100}, price: {input: 1, output: 2}}
  - {name: dear, params: {max_tokens: 100}, price: {input: 10, output: 20}}
prompts: [{name: p, user: "{{ q }}"}]
samples: [{id: a, q: one}, {id: b, q: two}]
"""


def load(tmp_path: Path, text: str = JOB) -> tuple[LoadedJob, Plan]:
    """Write a job; return it with its plan."""
    path = tmp_path / "job.yaml"
    path.write_text(text, encoding="utf-8")
    loaded = load_job(path, environ={})
    return loaded, Plan(loaded)


@contextmanager
def write(folder: RunFolder, *records: Started | Attempt | Outcome) -> Iterator[JournalIndex]:
    """Write one call's records and read the whole journal back."""
    with scan_journal(folder) as index, Journal(folder, durability="process", index=index) as journal:
        for record in records:
            journal.append(record)
    with scan_journal(folder) as index:
        yield index


def estimate(request: Request, plan: Plan, *, seen: int | None = None) -> Reservation:
    """Return what a request of unknown cost counts as."""
    guess = TokenGuess()
    if seen is not None:
        guess.note_answer(b"", prompt_tokens=None, output_tokens=seen)
    prices = plan.loaded.prices[request.model]
    return make_reservation(guess.estimate(request.body, max_output_tokens=request.max_output_tokens), prices)


def test_spent_adds_up_failed_and_answered_attempts(tmp_path: Path) -> None:
    """Each attempt counts as a request; one that certainly cost nothing adds nothing else."""
    _, plan = load(tmp_path)
    records: list[Started | Attempt | Outcome] = [
        make_started(1),
        make_failed_attempt(1),
        make_started(1, 2),
        make_outcome(1, attempts=2, last_attempt=make_attempt(1, 2)),
    ]
    with write(make_folder(tmp_path), *records) as index:
        spent = count_spent(index, plan)
    assert (spent.usd, spent.tokens, spent.requests, spent.n_estimated) == (Decimal("0.00024125"), 74, 2, 0)


def test_spent_estimates_what_was_not_told(tmp_path: Path) -> None:
    """An attempt of unknown cost, and one in flight when the call died, count as much as they may have taken."""
    _, plan = load(tmp_path)
    first, second, *_ = plan.requests()
    unknown = make_attempt(1, row_id=first.row_id, usage=Usage(), cost_usd=None)
    lost = Started(row_id=second.row_id, request_key=second.request_key, index=1, attempt=1)
    with write(make_folder(tmp_path), unknown, lost) as index:
        spent = count_spent(index, plan)
    wanted = [estimate(first, plan), estimate(second, plan)]
    assert wanted[1].usd is not None
    assert wanted[1].usd > Decimal("0.002")  # 100 output tokens of the dear model alone
    assert spent.usd == sum(each.usd or 0 for each in wanted)
    assert spent.tokens == sum(each.tokens for each in wanted)
    assert (spent.requests, spent.n_estimated) == (2, 2)


def test_spent_counts_a_request_that_was_sent_again_after_a_crash_twice(tmp_path: Path) -> None:
    """The first sending may have been billed; the second one was, and says what it took."""
    _, plan = load(tmp_path)
    request = next(plan.requests())
    folder = make_folder(tmp_path)
    ids = {"row_id": request.row_id, "request_key": request.request_key}
    with write(folder, Started(**ids, index=0, attempt=1)):
        pass
    again = Started(**ids, index=0, attempt=2)
    answered = make_outcome(0, **ids, attempts=2, last_attempt=make_attempt(0, 2, **ids))
    with write(folder, again, answered) as index:
        spent = count_spent(index, plan)
    lost = estimate(request, plan, seen=17)
    assert spent.requests == 2
    assert spent.tokens == 74 + lost.tokens
    assert spent.usd == Decimal("0.00024125") + (lost.usd or 0)


def test_spent_takes_a_row_that_the_job_no_longer_has_for_the_dearest(tmp_path: Path) -> None:
    """Nobody knows any more what was asked: it counts as much as the dearest request that is known, never nothing."""
    _, plan = load(tmp_path)
    dear = list(plan.requests())[1]
    gone = make_attempt(77, usage=Usage(), cost_usd=None)
    known = make_attempt(1, row_id=dear.row_id, usage=Usage(), cost_usd=None)
    with write(make_folder(tmp_path), gone, known) as index:
        spent = count_spent(index, plan)
    one = estimate(dear, plan)
    assert (spent.usd, spent.tokens) == (2 * (one.usd or 0), 2 * one.tokens)


def test_spent_never_takes_unknown_for_nothing_when_no_row_is_left(tmp_path: Path) -> None:
    """A journal whose rows are all gone from the job is estimated by a row that the job has."""
    _, plan = load(tmp_path)
    with write(make_folder(tmp_path), make_attempt(77, usage=Usage(), cost_usd=None)) as index:
        spent = count_spent(index, plan)
    assert spent.usd > 0
    assert spent.tokens > 100


def test_spent_estimates_tokens_where_only_the_cost_was_told(tmp_path: Path) -> None:
    """A reply may name its cost and no tokens: the cost counts as told, the tokens as estimated."""
    _, plan = load(tmp_path)
    request = next(plan.requests())
    attempt = make_attempt(1, row_id=request.row_id, usage=Usage(), cost_usd=Decimal("0.5"))
    with write(make_folder(tmp_path), attempt) as index:
        spent = count_spent(index, plan)
    assert (spent.usd, spent.tokens, spent.n_estimated) == (Decimal("0.5"), estimate(request, plan).tokens, 1)


def test_spent_takes_an_estimate_for_as_much_as_was_held_back_at_least(tmp_path: Path) -> None:
    """A resume counts an attempt whose tokens are estimated as the budget did when it came back, and learns nothing."""
    _, plan = load(tmp_path)
    request = next(plan.requests())
    ids = {"row_id": request.row_id, "maybe_billed": True, "error_code": "reset"}
    low = Usage(prompt_tokens=1, completion_tokens=1, source=UsageSource.ESTIMATED)
    high = replace(low, prompt_tokens=900, completion_tokens=90_000)
    records = [
        make_attempt(1, 1, **ids, usage=low, cost_usd=Decimal("0.000001")),
        make_attempt(1, 2, **ids, usage=high, cost_usd=Decimal("0.5")),
        make_attempt(1, 3, **ids, usage=low, cost_usd=None),
    ]
    with write(make_folder(tmp_path), *records) as index:
        spent = count_spent(index, plan)
    held = estimate(request, plan)
    assert spent.usd == 2 * (held.usd or 0) + Decimal("0.5")
    assert spent.tokens == 2 * held.tokens + 90_900
    assert (spent.requests, spent.n_estimated) == (3, 3)


def test_spent_counts_nothing_for_what_was_certainly_not_billed(tmp_path: Path) -> None:
    """A refusal took nothing; a reply of a free model, or one that names a cost of 0, took its tokens."""
    _, plan = load(tmp_path)
    request = next(plan.requests())
    free = make_attempt(1, cost_usd=Decimal(0))
    named = make_attempt(2, row_id=request.row_id, usage=Usage(), cost_usd=Decimal(0), cost_source=CostSource.REPORTED)
    with write(make_folder(tmp_path), make_failed_attempt(1), free, named) as index:
        spent = count_spent(index, plan)
    assert (spent.usd, spent.requests, spent.n_estimated) == (Decimal(0), 3, 1)
    assert spent.tokens == 74 + estimate(request, plan, seen=17).tokens


def test_budget_of_a_resume_begins_with_what_was_spent(tmp_path: Path) -> None:
    """Three requests of four are spent: one may leave, the next one ends the budget."""
    loaded, plan = load(tmp_path, JOB + "budget: {requests: 4, wall_s: 60}\n")
    with write(make_folder(tmp_path), *(make_failed_attempt(1, n) for n in (1, 2, 3))) as index:
        budget = make_budget(loaded, plan, index, started_s=5.0, allows_unknown_cost=False)
    assert budget is not None
    assert budget.deadline_s == 65.0
    one = Reservation(Decimal(0), 1)
    assert budget.reserve(one, 5.0)
    budget.note_request()
    assert not budget.reserve(one, 5.0)
    facts = describe_budget(budget)
    assert facts is not None
    assert facts["requests"] == {"limit": 4, "spent": 4}
    assert "raise `budget.requests`" in facts["ended_by"]


def test_budget_without_limits_is_none(tmp_path: Path) -> None:
    """Who sets no limit pays for no bookkeeping."""
    for text in (JOB, JOB + "budget: {}\n"):
        loaded, plan = load(tmp_path, text)
        with write(make_folder(tmp_path / str(len(text)))) as index:
            budget = make_budget(loaded, plan, index, started_s=0.0, allows_unknown_cost=False)
        assert (budget, describe_budget(budget)) == (None, None)


def test_price_problem_names_the_models_and_what_to_type(tmp_path: Path) -> None:
    """A budget in USD needs a price for each model that is asked; other budgets need none."""
    text = JOB.replace(", price: {input: 10, output: 20}", "")
    loaded, plan = load(tmp_path, text + "budget: {usd: 1}\n")
    problem = find_price_problem(loaded, plan.models)
    assert problem is not None
    assert problem.where is not None
    assert problem.where.endswith("job.yaml:7:10")
    assert problem.message.endswith("no price is known of dear")
    assert "--set 'models[dear].price={input: 1.25, output: 10}'" in str(problem.hint)
    assert "--allow-unknown-cost" in str(problem.hint)
    assert find_price_problem(loaded, plan.models[:1]) is None
    assert find_price_problem(load(tmp_path, text + "budget: {tokens: 1}\n")[0], plan.models) is None
    assert find_price_problem(load(tmp_path, text)[0], plan.models) is None


def test_shortages_are_told_for_each_limit_that_the_run_is_expected_to_pass(tmp_path: Path) -> None:
    """Limits that suffice are not mentioned."""
    loaded, plan = load(tmp_path, JOB + "budget: {usd: 0.001, tokens: 10, requests: 3, wall_s: 80000}\n")
    totals = plan.check()
    told = list(list_shortages(loaded.job.budget, totals))
    assert [
        next(key for key in ("usd", "tokens", "requests", "wall_s") if f"budget.{key}" in text) for text in told
    ] == [
        "usd",
        "tokens",
        "requests",
    ]
    assert told[2] == (
        "the whole run is expected to take about 4 requests, and `budget.requests` ends it at 3 requests: "
        "rows will be left over for --resume"
    )
    assert list(list_shortages(None, totals)) == []
