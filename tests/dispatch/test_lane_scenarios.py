"""The real dispatcher on a fake clock: limits known and unknown, outages, random faults, waits and budgets."""

import json
import math
import random
from dataclasses import replace
from decimal import Decimal

import pytest

from evalrun.dispatch.budget import RunBudget
from evalrun.errors import ConnectionFaultError
from evalrun.records import ErrorCode, Request, Status
from tests.dispatch.rig import PRICE, make_requests
from tests.dispatch.test_pacing_scenarios import COLUMNS, IN_FLIGHT, N_ROWS, PER_MINUTE, compute_ideal_s
from tests.dispatch.toy_gateway import MAX_WAY_S, MEDIAN_LATENCY_S, MIN_WAY_S, SIGMA, Row, Server
from tests.dispatch.virtual import Deed, Serve, refuse, run_virtually
from tests.fake_endpoint import make_completion

FEW_AND_MANY = pytest.mark.parametrize("n", [2000, pytest.param(10_000, marks=pytest.mark.soak)])
"""Rows: what is allowed beside the expected value shrinks with their square root, as chance does."""


def serve_limited(server: Server, seed: int) -> Serve:
    """Return a server of 4 s latency behind the limits of a toy."""
    latencies, ways, row = random.Random(seed), random.Random(seed), Row()

    def serve(now_s: float, _request: Request) -> Deed:
        way_s = ways.uniform(MIN_WAY_S, MAX_WAY_S)
        verdict = server.arrive(row, now_s + way_s)
        headers = dict(verdict.headers)
        if not verdict.is_let_in:
            if verdict.retry_after_s is not None:
                headers["retry-after"] = f"{verdict.retry_after_s:g}"
            return refuse(429, after_s=2 * way_s, **headers)
        latency_s = latencies.lognormvariate(math.log(MEDIAN_LATENCY_S), SIGMA)
        return Deed(after_s=2 * way_s + latency_s, headers=headers)

    return serve


@pytest.mark.parametrize("column", COLUMNS)
def test_known_limit_is_never_met(column: str) -> None:
    """With the limit in the job nothing is refused, and the run takes at most 1.15 times as long as it must."""
    ledger = run_virtually(
        serve_limited(COLUMNS[column].make_server(), 0),
        make_requests(N_ROWS),
        concurrency=IN_FLIGHT,
        endpoint_limits={"requests_per_minute": PER_MINUTE},
    )
    assert (ledger.count(Status.OK), ledger.statuses.count(429)) == (N_ROWS, 0)
    assert ledger.ended_s <= 1.15 * compute_ideal_s(0)


@pytest.mark.parametrize("column", COLUMNS)
def test_unknown_limit_is_learned(column: str) -> None:
    """With nothing known at most 200 requests are refused, and the run takes at most 1.5 times as long as it must."""
    ledger = run_virtually(
        serve_limited(COLUMNS[column].make_server(), 0), make_requests(N_ROWS), concurrency=IN_FLIGHT
    )
    assert ledger.count(Status.OK) == N_ROWS
    assert 0 < ledger.statuses.count(429) <= 200
    assert ledger.ended_s <= 1.5 * compute_ideal_s(0)


def test_outage_under_load_costs_no_row() -> None:
    """60 s of nothing but 500s under 64 in flight: no row fails, one probe per second, and no storm after it."""
    down_s, up_s = 20.0, 80.0
    rng = random.Random(3)

    def serve(now_s: float, _request: Request) -> Deed:
        if down_s <= now_s < up_s:
            return refuse(500, after_s=0.05)
        return Deed(after_s=rng.uniform(0.5, 1.5))

    ledger = run_virtually(serve, make_requests(6000), concurrency=64)
    n_before, n_during = ledger.count_arrivals(0, down_s), ledger.count_arrivals(down_s, up_s)
    n_after = ledger.count_arrivals(up_s, math.inf)
    n_left = 6000 - sum(status == 200 for status in ledger.statuses[: n_before + n_during])
    assert ledger.count(Status.OK) == 6000
    assert n_during <= 64 + 60
    assert n_after <= 1.1 * n_left
    assert [what for _, what, _ in ledger.events if what.startswith("outage")] == ["outage", "outage_over"]


@FEW_AND_MANY
def test_random_faults_fail_rows_as_chance_has_it(n: int) -> None:
    """40 % 503s and 20 % lost replies: each row ends once, errors and requests per row are those of the series."""
    p, max_attempts = 0.6, 6
    rng = random.Random(5)
    lost = ConnectionFaultError(ErrorCode.RESET, "connection reset")

    def serve(_now_s: float, _request: Request) -> Deed:
        draw, after_s = rng.random(), rng.uniform(0.2, 1.0)
        if draw < 0.4:
            return refuse(503, after_s=after_s / 10)
        return Deed(after_s=after_s, error=lost) if draw < p else Deed(after_s=after_s)

    ledger = run_virtually(serve, make_requests(n), concurrency=64)
    share = ledger.count(Status.ERROR) / n
    per_row = len(ledger.arrivals) / n
    series = (1 - p**max_attempts) / (1 - p)
    assert len({outcome.row_id for outcome in ledger.outcomes}) == len(ledger.outcomes) == n
    assert abs(share - p**max_attempts) <= 1 / math.sqrt(n)
    assert abs(per_row - series) <= 2 / math.sqrt(n) * series


@FEW_AND_MANY
def test_flapping_server_completes(n: int) -> None:
    """Every second request gets a 503: all rows end, with the requests that the series gives."""
    rng = random.Random(5)

    def serve(_now_s: float, _request: Request) -> Deed:
        return refuse(503, after_s=0.1) if rng.random() < 0.5 else Deed(after_s=rng.uniform(0.2, 1.0))

    ledger = run_virtually(serve, make_requests(n), concurrency=64)
    assert len(ledger.outcomes) == n
    assert len(ledger.arrivals) <= 2.3 * n


@pytest.mark.parametrize("header", ["30", "30.0"])
def test_retry_after_silences_its_lane_alone(header: str) -> None:
    """While the server asks to wait, nothing arrives on the lane; it goes on at once after; the other lane goes on."""

    def serve(now_s: float, request: Request) -> Deed:
        if request.model == "m" and 10 <= now_s < 10.5:
            return refuse(429, after_s=0.1, retry_after=header)
        return Deed(after_s=1.0)

    ledger = run_virtually(serve, make_requests(1000), make_requests(2000, model="other"), concurrency=16)
    first_429_s = next(at_s for at_s, what, _ in ledger.events if what == "gate_shut")
    silent = [at_s for at_s, model in ledger.arrivals if model == "m" and at_s > first_429_s]
    assert 30 <= silent[0] - first_429_s <= 30.3
    assert ledger.count_arrivals(first_429_s, first_429_s + 30, "other") >= 150
    assert ledger.count(Status.OK) == 3000


@pytest.mark.parametrize(("concurrency", "n_rows"), [(1, 200), (64, 1000), (512, 5000)])
def test_concurrency_is_never_passed(concurrency: int, n_rows: int) -> None:
    """The cap holds, and is used."""
    ledger = run_virtually(lambda _now_s, _request: Deed(after_s=1.0), make_requests(n_rows), concurrency=concurrency)
    assert ledger.most_in_flight == concurrency


def make_output(tokens: int) -> bytes:
    """Return an answer of so many tokens, and 20 of the prompt."""
    usage = {"prompt_tokens": 20, "completion_tokens": tokens, "total_tokens": 20 + tokens}
    return json.dumps(make_completion("fine", usage=usage)).encode()


@pytest.mark.parametrize("concurrency", [1, 64, 512])
def test_budget_of_usd_is_kept(concurrency: int) -> None:
    """What the server bills stays within the budget where requests limit their output; the rest stays unasked."""
    rng, limit_usd = random.Random(2), Decimal("0.5")
    requests = [replace(request, max_output_tokens=100) for request in make_requests(3000)]
    billed: list[Decimal] = []

    def serve(_now_s: float, _request: Request) -> Deed:
        n_tokens = rng.randint(1, 100)
        billed.append((20 * PRICE.input + n_tokens * PRICE.output) / 1_000_000)
        return Deed(after_s=rng.uniform(0.5, 2), body=make_output(n_tokens))

    def budget(started_s: float) -> RunBudget:
        return RunBudget(limit_usd, None, None, None, started_s=started_s)

    ledger = run_virtually(serve, requests, concurrency=concurrency, budget=budget)
    progress = ledger.progress[0]
    assert limit_usd - Decimal("0.01") <= sum(billed) <= limit_usd
    assert len(ledger.outcomes) == ledger.count(Status.OK) == len(billed) < 3000
    assert (progress.stopped_by, progress.in_flight) == ("budget", 0)
    assert "budget: USD 0.50 of USD 0.50 spent" in str(progress.stop_message)


def test_budget_without_output_limits_is_passed_by_the_bound_at_most() -> None:
    """Requests of unlimited output pass the budget by what those in flight took above their estimate, and no more."""
    rng, limit_usd, concurrency = random.Random(2), Decimal("0.5"), 64
    most_usd = (20 * PRICE.input + 4000 * PRICE.output) / 1_000_000
    billed: list[Decimal] = []

    def serve(_now_s: float, _request: Request) -> Deed:
        n_tokens = 4000 if rng.random() < 0.05 else rng.randint(1, 100)
        billed.append((20 * PRICE.input + n_tokens * PRICE.output) / 1_000_000)
        return Deed(after_s=rng.uniform(0.5, 2), body=make_output(n_tokens))

    def budget(started_s: float) -> RunBudget:
        return RunBudget(limit_usd, None, None, None, started_s=started_s)

    ledger = run_virtually(serve, make_requests(3000), concurrency=concurrency, budget=budget)
    assert sum(billed) <= limit_usd + concurrency * most_usd
    assert ledger.progress[0].stopped_by == "budget"


@pytest.mark.parametrize("concurrency", [1, 64])
def test_budget_of_requests_counts_retries(concurrency: int) -> None:
    """No more requests leave than the budget says, retries included; rows between two attempts are given back."""
    rng = random.Random(4)

    def serve(_now_s: float, _request: Request) -> Deed:
        return refuse(503, after_s=0.1) if rng.random() < 0.3 else Deed(after_s=1.0)

    def budget(started_s: float) -> RunBudget:
        return RunBudget(None, None, 200, None, started_s=started_s)

    ledger = run_virtually(serve, make_requests(1000), concurrency=concurrency, budget=budget)
    assert len(ledger.arrivals) == 200
    pending = [outcome.error_code for outcome in ledger.outcomes if outcome.status is Status.PENDING]
    assert set(pending) <= {"budget"}
    assert ledger.count(Status.OK) + ledger.count(Status.ERROR) + len(pending) == len(ledger.outcomes)


def test_budget_that_is_enough_ends_nothing() -> None:
    """A run that fits exactly completes, and no lane says that it was stopped."""
    ledger = run_virtually(
        lambda _now_s, _request: Deed(after_s=1.0),
        make_requests(50),
        make_requests(50, model="other"),
        budget=lambda started_s: RunBudget(None, None, 100, None, started_s=started_s),
    )
    assert (ledger.count(Status.OK), [progress.stopped_by for progress in ledger.progress]) == (100, [None, None])


def test_wall_time_ends_the_run_while_everybody_waits() -> None:
    """At the deadline a lane that waits for half an hour stops, what is in flight finishes, and nothing more leaves."""

    def serve(now_s: float, _request: Request) -> Deed:
        return Deed(after_s=1.0) if now_s < 5 else refuse(429, after_s=0.1, retry_after="500")

    ledger = run_virtually(
        serve,
        make_requests(1000),
        budget=lambda started_s: RunBudget(None, None, None, 60.0, started_s=started_s),
    )
    assert 60 <= ledger.ended_s <= 60.1
    assert [what for _, what, _ in ledger.events][-2:] == ["budget", "lane_stopped"]
    assert ledger.progress[0].stopped_by == "budget"
    assert "60 s of wall time used" in str(ledger.progress[0].stop_message)


def test_budget_that_is_short_makes_rows_wait_for_what_is_in_flight() -> None:
    """Reservations leave room for two at a time: the run goes on by twos, to the end, and says what it waits for."""
    requests = [replace(request, max_output_tokens=1000) for request in make_requests(20)]
    ledger = run_virtually(
        lambda _now_s, _request: Deed(after_s=1.0, body=make_output(10)),
        requests,
        budget=lambda started_s: RunBudget(None, 2100, None, None, started_s=started_s),
    )
    assert (ledger.count(Status.OK), ledger.most_in_flight) == (20, 2)
    assert ledger.progress[0].waited_s["budget"] > 5
