"""A lane's pacing against servers with limits, on a fake clock: each kind of server, each kind of knowledge.

1,500 requests, 600 per minute, up to 100 in flight, log-normal latency (median 4 s, sigma 0.6). `ideal` sends the same
requests at exactly the limit. `python -m tests.dispatch.test_pacing_scenarios` prints the table.
"""

import math
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from evalrun.dispatch.pacing import Pacer
from evalrun.dispatch.ramp import FIRST_GROWTH, START, WARY_GROWTH, Ramp
from evalrun.options import SimulatedLimits
from tests.dispatch.toy_gateway import (
    MEDIAN_LATENCY_S,
    SIGMA,
    Figures,
    Lane,
    Row,
    Server,
    SimulatedServer,
    SteadyServer,
)

N_ROWS = 1500
PER_MINUTE = 600.0
IN_FLIGHT = 100
SEEDS = range(5)
TOKENS_PER_MINUTE = 300_000.0

MakeServer = Callable[[], Server]


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """What kind of server it is."""

    rejects_cost: bool
    holds_s: float
    has_retry_after: bool

    def make_server(self, *, has_headers: bool = False) -> Server:
        """Return such a server with 600 requests per minute."""
        return SteadyServer(
            requests_per_minute=PER_MINUTE,
            holds_s=self.holds_s,
            rejects_cost=self.rejects_cost,
            has_retry_after=self.has_retry_after,
            has_headers=has_headers,
        )


COLUMNS = {
    "rejects cost, 1 s bucket, Retry-After": Column(rejects_cost=True, holds_s=1, has_retry_after=True),
    "rejects cost, 1 s bucket, no header": Column(rejects_cost=True, holds_s=1, has_retry_after=False),
    "rejects free, 1 s bucket, no header": Column(rejects_cost=False, holds_s=1, has_retry_after=False),
    "rejects free, 10 s bucket, Retry-After": Column(rejects_cost=False, holds_s=10, has_retry_after=True),
}


def run(
    server: Server,
    seed: int,
    *,
    requests_per_minute: float | None = None,
    tokens_per_minute: float | None = None,
    rows: list[Row] | None = None,
    in_flight: int = IN_FLIGHT,
) -> Figures:
    """Send rows through a lane.

    A lane whose rate is known may use all its slots at once: the pacing alone keeps it from meeting the server.
    """
    pacer = Pacer(requests_per_minute=requests_per_minute, tokens_per_minute=tokens_per_minute, now_s=0.0)
    start = START if requests_per_minute is None else in_flight
    growth = FIRST_GROWTH if tokens_per_minute is None else WARY_GROWTH
    lane = Lane(server, pacer, Ramp(in_flight, start=start, growth=growth), random.Random(seed))
    return lane.run([Row()] * N_ROWS if rows is None else rows)


def compute_ideal_s(seed: int, *, n_rows: int = N_ROWS, per_minute: float = PER_MINUTE) -> float:
    """Return how long the requests take when each leaves the moment at which the limit allows it."""
    rng = random.Random(seed)
    return max(n * 60 / per_minute + rng.lognormvariate(math.log(MEDIAN_LATENCY_S), SIGMA) for n in range(n_rows))


def make_token_rows() -> list[Row]:
    """Return rows of very different sizes that use half of what they ask for."""
    rng = random.Random(7)
    sizes = [rng.randint(600, 1400) for _ in range(N_ROWS)]
    return [Row(tokens_asked=size, tokens_used=round(size * rng.uniform(0.2, 0.8))) for size in sizes]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("column", COLUMNS)
def test_known_limit_is_never_met(column: str, seed: int) -> None:
    """With the limit in the job nothing is refused, and the run takes at most 1.15 times as long as it must."""
    figures = run(COLUMNS[column].make_server(), seed, requests_per_minute=PER_MINUTE)
    assert (figures.n_answered, figures.n_throttled) == (N_ROWS, 0)
    assert figures.makespan_s <= 1.15 * compute_ideal_s(seed)


@pytest.mark.parametrize("seed", SEEDS)
def test_known_limit_of_one_second_windows_is_never_met(seed: int) -> None:
    """Nor is a limit that is enforced by the second, in the first second neither."""
    options = SimulatedLimits(requests_per_minute=PER_MINUTE, window_s=1, rejected_count=True)
    figures = run(SimulatedServer(options, has_retry_after=False), seed, requests_per_minute=PER_MINUTE)
    assert (figures.n_answered, figures.n_throttled) == (N_ROWS, 0)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("column", COLUMNS)
def test_unknown_limit_is_learned(column: str, seed: int) -> None:
    """With nothing known at most 200 requests are refused, and the run takes at most 1.5 times as long as it must."""
    figures = run(COLUMNS[column].make_server(), seed)
    assert figures.n_answered == N_ROWS
    assert 0 < figures.n_throttled <= 200
    assert figures.most_refusals <= 2  # No row uses up its attempts on refusals that are the lane's.
    assert figures.makespan_s <= 1.5 * compute_ideal_s(seed)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("column", COLUMNS)
def test_limit_told_by_headers_is_never_met(column: str, seed: int) -> None:
    """A limit that the first replies tell is as good as one in the job."""
    figures = run(COLUMNS[column].make_server(has_headers=True), seed)
    assert (figures.n_answered, figures.n_throttled) == (N_ROWS, 0)
    assert figures.makespan_s <= 1.15 * compute_ideal_s(seed)


@pytest.mark.parametrize("seed", SEEDS[:2])
@pytest.mark.parametrize("window_s", [1.0, 10.0, 60.0])
@pytest.mark.parametrize("has_retry_after", [True, False])
def test_unknown_limit_of_fixed_windows_is_learned(window_s: float, has_retry_after: bool, seed: int) -> None:
    """Limits that are counted in windows, refused requests included, cost no more."""
    options = SimulatedLimits(requests_per_minute=PER_MINUTE, window_s=window_s, rejected_count=True)
    figures = run(SimulatedServer(options, has_retry_after=has_retry_after), seed)
    assert figures.n_answered == N_ROWS
    assert figures.n_throttled <= 200
    assert figures.makespan_s <= 1.5 * compute_ideal_s(seed)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("holds_s", [1, 10])
def test_known_limit_of_tokens_is_never_met(holds_s: float, seed: int) -> None:
    """Where tokens are counted as used, what a request did not use goes to the next one, and nothing is refused."""
    rows = make_token_rows()
    server = SteadyServer(
        requests_per_minute=6000,
        holds_s=holds_s,
        rejects_cost=True,
        has_retry_after=True,
        tokens_per_minute=TOKENS_PER_MINUTE,
        counts_used=True,
    )
    figures = run(server, seed, tokens_per_minute=TOKENS_PER_MINUTE, rows=rows)
    ideal_s = sum(row.tokens_used for row in rows) / TOKENS_PER_MINUTE * 60
    assert (figures.n_answered, figures.n_throttled) == (N_ROWS, 0)
    assert figures.makespan_s <= 1.3 * ideal_s


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("holds_s", [1, 10])
def test_server_that_counts_tokens_as_asked_is_found_out(holds_s: float, seed: int) -> None:
    """A server that counts unused tokens too refuses a few requests; then the lane counts as it does."""
    rows = make_token_rows()
    server = SteadyServer(
        requests_per_minute=6000,
        holds_s=holds_s,
        rejects_cost=True,
        has_retry_after=True,
        tokens_per_minute=TOKENS_PER_MINUTE,
    )
    figures = run(server, seed, tokens_per_minute=TOKENS_PER_MINUTE, rows=rows)
    ideal_s = sum(row.tokens_asked for row in rows) / TOKENS_PER_MINUTE * 60
    assert figures.n_answered == N_ROWS
    assert figures.n_throttled <= 10
    assert figures.makespan_s <= 1.2 * ideal_s


@pytest.mark.parametrize("dialect", ["openai", "azure", "anthropic", "together"])
def test_simulators_headers_teach_the_limit(dialect: str) -> None:
    """In each dialect that tells a rate, nothing is refused."""
    options = SimulatedLimits(requests_per_minute=PER_MINUTE, rejected_count=True, headers=dialect)  # type: ignore[arg-type] # one of its literals
    figures = run(SimulatedServer(options), 0)
    assert (figures.n_answered, figures.n_throttled) == (N_ROWS, 0)


def test_known_limit_that_is_wrong_is_corrected() -> None:
    """A job that claims twice the real limit fares like one that claims nothing."""
    server = COLUMNS["rejects cost, 1 s bucket, no header"].make_server()
    figures = run(server, 0, requests_per_minute=2 * PER_MINUTE)
    assert (figures.n_answered, figures.n_throttled <= 200) == (N_ROWS, True)
    assert figures.makespan_s <= 1.5 * compute_ideal_s(0)


@pytest.mark.parametrize("has_retry_after", [True, False])
@pytest.mark.parametrize("holds_s", [12, 60])
def test_five_requests_per_minute_are_learned(holds_s: float, has_retry_after: bool) -> None:
    """The smallest keys are found out too: less than one refusal for each answer, twice the time at most."""
    server = SteadyServer(requests_per_minute=5, holds_s=holds_s, rejects_cost=True, has_retry_after=has_retry_after)
    figures = run(server, 0, rows=[Row()] * 40)
    assert (figures.n_answered, figures.n_throttled < 40) == (40, True)
    assert figures.makespan_s <= 2 * 40 * 12


def test_thousands_per_minute_are_learned() -> None:
    """A large limit costs no more refusals than a small one."""
    server = SteadyServer(requests_per_minute=6000, holds_s=1, rejects_cost=True, has_retry_after=False)
    figures = run(server, 0, rows=[Row()] * 15_000, in_flight=800)
    assert (figures.n_answered, figures.n_throttled <= 200) == (15_000, True)
    assert figures.makespan_s <= 1.5 * compute_ideal_s(0, n_rows=15_000, per_minute=6000)


@pytest.mark.parametrize("has_retry_after", [True, False])
def test_slow_down_is_heeded(has_retry_after: bool) -> None:
    """A server that complains of growth refuses a handful of requests, not each attempt to grow."""
    figures = run(SimulatedServer(SimulatedLimits(max_growth=1.5), has_retry_after=has_retry_after), 0)
    assert (figures.n_answered, figures.n_throttled <= 20) == (N_ROWS, True)


def test_server_that_limits_requests_in_flight_is_learned() -> None:
    """Where ten may be in flight, a lane of a hundred slots comes to ten."""
    figures = run(SimulatedServer(SimulatedLimits(concurrency=10), has_retry_after=False), 0)
    assert (figures.n_answered, figures.n_throttled <= 200) == (N_ROWS, True)
    assert figures.makespan_s <= 1.5 * N_ROWS / 10 * MEDIAN_LATENCY_S * math.exp(SIGMA**2 / 2)


def write_table() -> None:
    """Print makespan / refusals, each the mean over the seeds, with the worst ratio to the ideal."""
    ideals = [compute_ideal_s(seed) for seed in SEEDS]
    out = sys.stdout
    out.write(f"ideal {sum(ideals) / len(ideals):.0f} s; makespan s / refusals (worst x ideal)\n")
    for name in ("known", "headers", "unknown"):
        for title, column in COLUMNS.items():
            figures = [
                run(
                    column.make_server(has_headers=name == "headers"),
                    seed,
                    requests_per_minute=PER_MINUTE if name == "known" else None,
                )
                for seed in SEEDS
            ]
            worst = max(each.makespan_s / ideal_s for each, ideal_s in zip(figures, ideals, strict=True))
            mean_s = sum(each.makespan_s for each in figures) / len(figures)
            n_refused = sum(each.n_throttled for each in figures) / len(figures)
            out.write(f"{name:8} {title:40} {mean_s:4.0f} / {n_refused:3.0f} ({worst:.2f})\n")


if __name__ == "__main__":
    write_table()
