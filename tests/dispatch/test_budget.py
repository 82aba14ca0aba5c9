"""Budgets: what is held back, what ends a run, and how far a bill can pass a limit. `python -m` prints the figures."""

import heapq
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalrun.cost import compute_cost
from evalrun.dispatch.budget import Reservation, RunBudget, Spent, make_reservation
from evalrun.dispatch.token_guess import TokenEstimate, TokenGuess
from evalrun.options import PriceOptions, PriceTier
from evalrun.prices import NO_PRICES, ModelPrices
from evalrun.records import Usage

PRICE = PriceOptions(input=Decimal("1.25"), cached_input=Decimal("0.125"), output=Decimal(10))
CENT = Reservation(Decimal("0.01"), 100)
UNKNOWN = Spent(None, None)
CENT_SPENT = Spent(Decimal("0.01"), 100)


def make_budget(**limits: Any) -> RunBudget:
    """Return a budget that began at second 0, without limits but for the given ones."""
    return RunBudget(**({"usd": None, "tokens": None, "requests": None, "wall_s": None, "started_s": 0.0} | limits))


def spend(budget: RunBudget, reservation: Reservation, actual: Spent) -> bool:
    """Let one request leave and come back; False when it may not leave."""
    if not budget.reserve(reservation, 0.0):
        return False
    budget.note_request()
    budget.settle(reservation, actual)
    return True


def test_budget_without_limits_lets_everything_out() -> None:
    """No limit, no end: also for requests of unknown price."""
    budget = make_budget()
    assert spend(budget, Reservation(None, 10**9), UNKNOWN)
    assert budget.reserve(Reservation(Decimal(10**6), 10**9), 10**9)
    assert (budget.is_spent, budget.deadline_s) == (None, None)


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        ({"usd": Decimal("0.03")}, "budget: USD 0.030 of USD 0.030 spent, and the next request may take 0.010"),
        ({"tokens": 300}, "budget: 300 of 300 tokens spent, and the next request may take 100"),
        ({"requests": 3}, "budget: 3 of 3 requests spent"),
    ],
)
def test_budget_ends_the_run_at_each_limit(limits: dict[str, Any], reason: str) -> None:
    """What fits to the last cent leaves, the next request does not, and the reason says what to raise."""
    budget = make_budget(**limits)
    assert [spend(budget, CENT, CENT_SPENT) for _ in range(4)] == [True, True, True, False]
    key = next(iter(limits))
    hint = f"; raise `budget.{key}`, then `evalrun run JOB --resume` goes on from here"
    assert budget.is_spent == reason + hint


def test_reason_tells_what_is_still_reserved() -> None:
    """While requests are in flight, the reason says what they may still take."""
    budget = make_budget(usd=Decimal(1))
    dear = Reservation(Decimal("0.98"), 1)
    assert spend(budget, dear, Spent(Decimal("0.98"), 1))
    assert budget.reserve(Reservation(Decimal("0.02"), 1), 0.0)
    assert not budget.reserve(Reservation(Decimal("0.03"), 1), 0.0)
    assert str(budget.is_spent).startswith("budget: USD 0.98 of USD 1.00 spent, 0.02 reserved, and the next request")


def test_request_waits_while_a_reservation_may_come_back() -> None:
    """A refusal ends nothing as long as the return of what is reserved could make room."""
    budget = make_budget(usd=Decimal("0.02"))
    assert budget.reserve(CENT, 0.0)
    assert budget.reserve(CENT, 0.0)
    assert (budget.reserve(CENT, 0.0), budget.is_spent) == (False, None)
    budget.settle(CENT, Spent(Decimal("0.001"), 5))
    assert (budget.reserve(CENT, 0.0), budget.is_spent) == (False, None)
    budget.settle(CENT, Spent(Decimal("0.001"), 5))
    assert budget.reserve(CENT, 0.0)


def test_spent_budget_stays_spent() -> None:
    """Once the reason is said nothing leaves, however little it would take."""
    budget = make_budget(usd=Decimal("0.005"))
    assert not budget.reserve(CENT, 0.0)
    assert not budget.reserve(Reservation(Decimal(0), 0), 0.0)


def test_estimates_count_with_their_reservation_at_least() -> None:
    """What nobody told is booked as the larger of the estimate and what was held back, and counted as estimated."""
    budget = make_budget(usd=Decimal(1), tokens=1000)
    low, high = Spent(Decimal("0.002"), 7, is_estimate=True), Spent(Decimal("0.02"), 150, is_estimate=True)
    unpriced = Spent(None, 150, is_estimate=True)
    assert all(spend(budget, CENT, actual) for actual in (low, high, unpriced, CENT_SPENT))
    facts = budget.describe()
    assert (facts["usd"]["spent"], facts["tokens"]["spent"], facts["n_estimated"]) == (Decimal("0.05"), 500, 3)


def test_unknown_amounts_count_with_their_reservation() -> None:
    """What a lost reply took is booked as estimated, each figure on its own, and counted."""
    budget = make_budget(usd=Decimal(1), tokens=1000)
    amounts = [UNKNOWN, Spent(Decimal("0.002"), None), Spent(None, 7), Spent(Decimal("nan"), -1)]
    assert all(spend(budget, CENT, actual) for actual in amounts)
    assert budget.describe() == {
        "usd": {"limit": Decimal(1), "spent": Decimal("0.032"), "largest_request": Decimal("0.01")},
        "tokens": {"limit": 1000, "spent": 307, "largest_request": 100},
        "requests": {"limit": None, "spent": 4},
        "wall_s": {"limit": None},
        "n_estimated": 4,
        "ended_by": None,
    }


def test_budget_knows_the_largest_request_also_when_it_was_refused() -> None:
    """Whoever raises a limit has to know what did not fit."""
    budget = make_budget(usd=Decimal("0.05"))
    assert budget.describe()["usd"]["largest_request"] is None
    wanted = [Reservation(Decimal(usd), 7) for usd in ("0.01", "0.07")]
    assert [budget.reserve(each, 0.0) for each in wanted] == [True, False]
    assert budget.describe()["usd"]["largest_request"] == Decimal("0.07")
    assert budget.describe()["tokens"] == {"limit": None, "spent": 0, "largest_request": 7}


def test_attempt_that_cost_nothing_gives_its_reservation_back() -> None:
    """A refusal by the server counts as a request and as nothing else."""
    budget = make_budget(usd=Decimal("0.01"), requests=3)
    assert [spend(budget, CENT, Spent(Decimal(0), 0)) for _ in range(4)] == [True, True, True, False]
    assert str(budget.is_spent).startswith("budget: 3 of 3 requests")


def test_reservation_of_a_request_that_did_not_leave_is_undone() -> None:
    """Given back, it leaves no trace in any limit."""
    budget = make_budget(usd=Decimal("0.01"), tokens=100, requests=1)
    assert budget.reserve(CENT, 0.0)
    budget.give_back(CENT)
    assert spend(budget, CENT, CENT_SPENT)


def test_reserved_requests_count_before_they_are_noted() -> None:
    """However many ask at once, no more are let out than the limit on requests."""
    budget = make_budget(requests=2)
    assert [budget.reserve(CENT, 0.0) for _ in range(3)] == [True, True, False]
    assert budget.is_spent is None
    budget.note_request()
    budget.note_request()
    assert not budget.reserve(CENT, 0.0)
    assert budget.is_spent is not None


@given(st.lists(st.decimals(min_value="1e-20", max_value=1000, allow_nan=False), min_size=1, max_size=30))
def test_what_is_held_back_comes_back_to_the_last_digit(amounts: list[Decimal]) -> None:
    """Amounts with any number of digits, held and given back in another order, leave nothing reserved."""
    budget = make_budget(usd=Decimal(10**6))
    held = [Reservation(amount, 1) for amount in amounts]
    assert all(budget.reserve(each, 0.0) for each in held)
    for each in reversed(held):
        budget.settle(each, Spent(Decimal(0), 0))
    assert budget._usd.reserved == 0


def test_reservation_cannot_be_settled_twice() -> None:
    """A second settlement is a defect and is loud."""
    budget = make_budget(usd=Decimal(1))
    spend(budget, CENT, CENT_SPENT)
    with pytest.raises(AssertionError):
        budget.settle(CENT, CENT_SPENT)


def test_unknown_price_cannot_be_reserved_under_a_limit_in_usd() -> None:
    """A request whose price is unknown ends a run with a limit in USD, unless its author lets it pass uncounted."""
    budget = make_budget(usd=Decimal(1))
    assert not budget.reserve(Reservation(None, 5), 0.0)
    assert "give its model a `price`" in str(budget.is_spent)
    assert not budget.reserve(CENT, 0.0)
    lenient = make_budget(usd=Decimal("0.01"), allows_unknown_cost=True)
    assert spend(lenient, Reservation(None, 5), UNKNOWN)
    assert spend(lenient, CENT, CENT_SPENT)


def test_wall_time_ends_the_call() -> None:
    """At the deadline nothing leaves any more, whether a request asks or somebody looks at the clock."""
    budget = make_budget(wall_s=60.0, started_s=1000.0)
    assert budget.deadline_s == 1060.0
    assert budget.reserve(CENT, 1059.9)
    assert (budget.reserve(CENT, 1060.0), budget.reserve(CENT, 0.0)) == (False, False)
    assert str(budget.is_spent).startswith("budget: 60 s of wall time used; `evalrun run JOB --resume`")
    asleep = make_budget(wall_s=60.0)
    asleep.note_time(61.0)
    assert asleep.is_spent is not None


def test_budget_goes_on_where_earlier_calls_ended() -> None:
    """Money, tokens and requests count over the whole run; wall time does not."""
    earlier: dict[str, Any] = {"spent_usd": Decimal("0.99"), "spent_tokens": 50, "spent_requests": 7}
    assert not make_budget(usd=Decimal("0.995"), **earlier).reserve(CENT, 0.0)
    assert not make_budget(tokens=149, **earlier).reserve(CENT, 0.0)
    assert not make_budget(requests=7, **earlier).reserve(CENT, 0.0)
    assert make_budget(usd=Decimal(1), tokens=150, requests=8, **earlier).reserve(CENT, 0.0)


def test_limit_of_zero_lets_out_what_is_free() -> None:
    """USD 0 is a limit: local models of price 0 pass, all others do not."""
    budget = make_budget(usd=Decimal(0))
    assert spend(budget, Reservation(Decimal(0), 10), Spent(Decimal(0), 10))
    assert not budget.reserve(CENT, 0.0)
    assert str(budget.is_spent).startswith("budget: USD 0.00 of USD 0.00 spent, and")


@pytest.mark.parametrize(
    ("price", "estimate", "usd"),
    [
        (PRICE, TokenEstimate(1000, 100), "0.00225"),
        (PriceOptions(input=Decimal(4), cache_write=Decimal(5), output=Decimal(20)), TokenEstimate(1000, 0), "0.005"),
        (PriceOptions(input=Decimal(1), output=Decimal(2), reasoning=Decimal(3)), TokenEstimate(0, 1000), "0.003"),
        (PriceOptions(input=Decimal(1), output=Decimal(2), audio_input=Decimal(9)), TokenEstimate(1000, 0), "0.009"),
        (PriceOptions(input=Decimal(1), output=Decimal(2), audio_output=Decimal(9)), TokenEstimate(0, 1000), "0.009"),
        (
            PriceOptions(input=Decimal(1), output=Decimal(2), multipliers={"flex": Decimal("0.5")}),
            TokenEstimate(1000, 0),
            "0.001",
        ),
        (
            PriceOptions(
                input=Decimal(1), output=Decimal(2), multipliers={"flex": Decimal("0.5"), "priority": Decimal(2)}
            ),
            TokenEstimate(1000, 0),
            "0.002",
        ),
    ],
)
def test_reservation_takes_the_dearest_rates(price: PriceOptions, estimate: TokenEstimate, usd: str) -> None:
    """Cache writes, reasoning and service tiers are reckoned with when they would cost more."""
    assert make_reservation(estimate, ModelPrices.of(price)) == (Decimal(usd), estimate.total_tokens)


def test_reservation_reckons_with_the_tiers_in_reach() -> None:
    """A tier that the true prompt may reach counts; one far away does not, nor does a cheaper one that is left."""
    tiers = (PriceTier(above_prompt_tokens=200_000, input=Decimal("2.5"), output=Decimal(15)),)
    price = PriceOptions(input=Decimal("1.25"), output=Decimal(10), tiers=tiers)
    prices, sizes = ModelPrices.of(price), (1000, 100_000, 110_000, 300_000, 500_000)
    rates = [make_reservation(TokenEstimate(n, 0), prices).usd for n in sizes]
    assert rates == [Decimal(text) for text in ("0.00125", "0.125", "0.275", "0.75", "1.25")]


def test_reservation_without_a_price_is_unknown() -> None:
    """No price, no USD; the tokens are held back all the same."""
    assert make_reservation(TokenEstimate(3, 4), NO_PRICES) == (None, 7)


@given(
    prompt=st.integers(0, 10**6),
    output=st.integers(0, 10**5),
    cached=st.integers(0, 10**6),
    written=st.integers(0, 10**6),
    reasoning=st.integers(0, 10**6),
    threshold=st.integers(1, 10**6),
    tier=st.sampled_from([None, "flex", "priority"]),
)
def test_reservation_is_never_below_the_cost_of_what_was_estimated(
    prompt: int, output: int, cached: int, written: int, reasoning: int, threshold: int, tier: str | None
) -> None:
    """A reply that takes as many tokens as estimated costs no more than was held back, whatever they were."""
    price = PriceOptions(
        input=Decimal(2),
        cached_input=Decimal("0.2"),
        cache_write=Decimal("2.5"),
        output=Decimal(10),
        reasoning=Decimal(12),
        tiers=(PriceTier(above_prompt_tokens=threshold, input=Decimal(4), output=Decimal(15)),),
        multipliers={"flex": Decimal("0.5"), "priority": Decimal(2)},
    )
    usage = Usage(
        prompt_tokens=prompt,
        completion_tokens=output,
        cached_tokens=cached,
        cache_write_tokens=written,
        reasoning_tokens=reasoning,
    )
    held, cost = (
        make_reservation(TokenEstimate(prompt, output), ModelPrices.of(price)).usd,
        compute_cost(usage, price, service_tier=tier),
    )
    assert held is not None
    assert cost.usd is not None
    assert held >= cost.usd


# Whole runs on a toy server


@dataclass(slots=True)
class ToyRun:
    """What a run under a budget came to, counted at the toy server."""

    limit_usd: Decimal
    billed_usd: Decimal = Decimal(0)
    bound_usd: Decimal = Decimal(0)
    """Sum of (actual − reserved)⁺ over the requests in flight when the last one left."""
    n_sent: int = 0
    most_in_flight: int = 0
    largest_usd: Decimal = Decimal(0)
    """Largest reservation."""
    overruns: dict[int, Decimal] = field(default_factory=dict)

    @property
    def overspent_usd(self) -> Decimal:
        """What was billed above the limit; 0 when nothing was."""
        return max(Decimal(0), self.billed_usd - self.limit_usd)


def run_toy(
    *,
    concurrency: int,
    limit_usd: Decimal,
    seed: int,
    max_output_tokens: int | None,
    n_rows: int = 20_000,
    budget: RunBudget | None = None,
) -> ToyRun:
    """Send rows under a budget until it is spent: bodies of 200 to 20,000 bytes, log-normal outputs and latencies."""
    rng, guess, run = random.Random(seed), TokenGuess(), ToyRun(limit_usd)
    budget = budget or make_budget(usd=limit_usd)
    in_flight: list[tuple[float, int, Callable[[], None]]] = []
    now_s = 0.0

    def send(number: int) -> bool:
        body = b"x" * round(200 * 100 ** rng.random())
        reservation = make_reservation(guess.estimate(body, max_output_tokens=max_output_tokens), ModelPrices.of(PRICE))
        if not budget.reserve(reservation, now_s):
            return False
        budget.note_request()
        prompt_tokens = round(20 + len(body) / rng.gauss(4.2, 0.4))
        output_tokens = min(round(rng.lognormvariate(4.6, 1.0)), max_output_tokens or 10**9)
        usd = compute_cost(Usage(prompt_tokens=prompt_tokens, completion_tokens=output_tokens), PRICE).usd
        assert usd is not None
        assert reservation.usd is not None
        run.overruns[number] = max(Decimal(0), usd - reservation.usd)
        run.bound_usd = sum(run.overruns.values(), Decimal(0))
        run.largest_usd = max(run.largest_usd, reservation.usd)
        run.n_sent += 1

        def come_back() -> None:
            budget.settle(reservation, Spent(usd, prompt_tokens + output_tokens))
            guess.note_answer(body, prompt_tokens=prompt_tokens, output_tokens=output_tokens)
            run.billed_usd += usd
            del run.overruns[number]

        heapq.heappush(in_flight, (now_s + rng.lognormvariate(1.4, 0.6), number, come_back))
        return True

    number = 0
    while True:
        while len(in_flight) < concurrency and number < n_rows and send(number):
            number += 1
        run.most_in_flight = max(run.most_in_flight, len(in_flight))
        if not in_flight:
            return run
        now_s, _, come_back = heapq.heappop(in_flight)
        come_back()


@pytest.mark.parametrize("concurrency", [1, 64, 512])
@pytest.mark.parametrize("max_output_tokens", [None, 512])
def test_bill_passes_the_budget_by_no_more_than_the_bound(concurrency: int, max_output_tokens: int | None) -> None:
    """At each concurrency the bill stays within the limit and the documented bound, and the limit is made use of."""
    for seed in range(3):
        run = run_toy(
            concurrency=concurrency, limit_usd=Decimal(10), seed=seed, max_output_tokens=max_output_tokens, n_rows=10**6
        )
        assert run.overspent_usd <= run.bound_usd
        assert run.billed_usd > run.limit_usd - run.largest_usd
        assert run.most_in_flight == concurrency


def test_bill_of_a_run_in_two_calls_passes_the_budget_by_no_more_than_the_bound() -> None:
    """A resume that is told what the first call spent goes on to the same limit, not to another one."""
    limit_usd = Decimal(1)
    first = run_toy(concurrency=64, limit_usd=limit_usd, seed=1, max_output_tokens=512, n_rows=100)
    budget = make_budget(usd=limit_usd, spent_usd=first.billed_usd)
    second = run_toy(concurrency=64, limit_usd=limit_usd, seed=2, max_output_tokens=512, budget=budget)
    assert 0 < first.billed_usd < limit_usd
    assert second.n_sent > 0
    assert first.billed_usd + second.billed_usd <= limit_usd + second.bound_usd


@given(
    limit=st.integers(0, 60),
    steps=st.lists(st.tuples(st.integers(0, 20), st.integers(0, 60), st.integers(0, 7)), max_size=80),
)
def test_bill_passes_the_limit_by_no_more_than_the_bound_under_any_schedule(
    limit: int, steps: list[tuple[int, int, int]]
) -> None:
    """Whatever requests take, and in whatever order they come back: limit + Σ (actual − reserved)⁺ of the last ones."""
    budget = make_budget(tokens=limit)
    in_flight: list[tuple[Reservation, int]] = []
    bound = 0
    for wanted, actual, choice in steps:
        reservation = Reservation(None, wanted)
        if budget.reserve(reservation, 0.0):
            budget.note_request()
            in_flight.append((reservation, actual))
            bound = sum(max(0, took - held.tokens) for held, took in in_flight)
        if choice < len(in_flight):
            held, took = in_flight.pop(choice)
            budget.settle(held, Spent(None, took))
    for held, took in in_flight:
        budget.settle(held, Spent(None, took))
    assert budget.describe()["tokens"]["spent"] <= limit + bound


@given(
    limit=st.integers(0, 60),
    steps=st.lists(st.tuples(st.integers(0, 20), st.integers(0, 25), st.integers(0, 7)), max_size=80),
)
def test_budget_keeps_its_laws_under_any_schedule(limit: int, steps: list[tuple[int, int, int]]) -> None:
    """Spent and reserved never pass the limit when a request leaves; a request waits only for something in flight."""
    budget = make_budget(tokens=limit)
    in_flight: list[tuple[Reservation, int]] = []
    spent, was_spent = 0, False
    for wanted, actual, choice in steps:
        reservation = Reservation(None, wanted)
        reserved = sum(held.tokens for held, _ in in_flight)
        if budget.reserve(reservation, 0.0):
            assert not was_spent
            assert spent + reserved + wanted <= limit
            in_flight.append((reservation, actual))
            budget.note_request()
        else:
            assert (budget.is_spent is not None) == (was_spent or spent + wanted > limit)
            assert budget.is_spent is not None or in_flight
        was_spent = budget.is_spent is not None
        if choice < len(in_flight):
            held, took = in_flight.pop(choice)
            budget.settle(held, Spent(None, took))
            spent += took
    assert budget.describe()["tokens"]["spent"] == spent


def print_figures() -> None:
    """Print how toy runs end: USD billed of USD 10, over 5 seeds."""
    sys.stdout.write(
        "limit on output | in flight | billed USD (5 seeds) | overspent, most | bound then | unspent, most\n"
    )
    for max_output_tokens in (512, None):
        for concurrency in (1, 64, 512):
            runs = [
                run_toy(
                    concurrency=concurrency,
                    limit_usd=Decimal(10),
                    seed=seed,
                    max_output_tokens=max_output_tokens,
                    n_rows=10**6,
                )
                for seed in range(5)
            ]
            billed = ", ".join(f"{run.billed_usd:.4f}" for run in runs)
            worst = max(runs, key=lambda run: run.overspent_usd)
            unspent = max(run.limit_usd - run.billed_usd for run in runs)
            sys.stdout.write(
                f"{max_output_tokens or 'none':>15} | {concurrency:9} | {billed} | {worst.overspent_usd:.4f} "
                f"| {worst.bound_usd:.4f} | {max(unspent, Decimal(0)):.4f}\n"
            )


if __name__ == "__main__":
    print_figures()
