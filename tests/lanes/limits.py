"""Lanes that meet limits: the scenarios of COST_AND_PACING 4.4 over sockets, and the simulator's own limits.

1,500 requests, 600 per minute, up to 100 in flight, log-normal latency (median 4 s, sigma 0.6). The ideal sends the
same requests evenly at exactly the limit, with nothing saved up at the start.
"""

import json
import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import anyio

from evalrun.options import ProfileOptions, RateDialect, RetryAfterForm, SimulatedLimits, SimulatorOptions
from evalrun.records import Request, Status
from evalrun.simulator.replies import Hint, draw_latency_s, make_chat_request
from evalrun.simulator.tokens import count_prompt_tokens
from tests.dispatch.rig import make_request
from tests.dispatch.test_pacing_scenarios import COLUMNS, IN_FLIGHT, PER_MINUTE, TOKENS_PER_MINUTE
from tests.dispatch.toy_gateway import MEDIAN_LATENCY_S, SIGMA
from tests.lanes.asking import Asked, ask, iterate_requests
from tests.lanes.fast_clock import run_at
from tests.lanes.scripts import Limits
from tests.lanes.servers import Ledger, Plan, serve

Knowledge = Mapping[str, float]
KNOWN: Final[Knowledge] = {"requests_per_minute": PER_MINUTE}
KNOWN_TOKENS: Final[Knowledge] = {"tokens_per_minute": TOKENS_PER_MINUTE}
UNKNOWN: Final[Knowledge] = {}
MAX_REFUSED: Final = {"known": 0, "headers": 0, "unknown": 200}
"""How many requests may be refused, by what is known of the limit."""
MAX_REFUSED_TOKENS: Final = {"known": 10, "headers": 10, "unknown": 200}
"""The same where the server counts tokens that are asked for and not used, which it tells by refusals alone."""
MAX_SLOWDOWN: Final = {"known": 1.15, "headers": 1.15, "unknown": 1.5}
"""How many times the ideal a run may take, by what is known of the limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One server, and what a lane knows of its limit."""

    server: str
    """In words."""
    knowledge: str
    """`known`: the job says the limit; `headers`: the server does; `unknown`."""
    plan: Plan | SimulatorOptions
    ideal_s: float
    max_refused: int
    limits: Knowledge
    requests: Sequence[Request]
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What came of a scenario."""

    scenario: Scenario
    asked: Asked
    ledger: Ledger

    @property
    def slowdown(self) -> float:
        """Time taken, over the ideal."""
        return self.asked.makespan_s / self.scenario.ideal_s

    @property
    def is_complete(self) -> bool:
        """True when every row was answered, once, and the server saw what the client sent."""
        n = len(self.scenario.requests)
        return self.asked.statuses == {Status.OK: n} and self.ledger.n_requests == n + self.ledger.n_throttled

    @property
    def is_calm(self) -> bool:
        """True when no more was refused than may be."""
        return self.ledger.n_throttled <= self.scenario.max_refused

    @property
    def is_fast(self) -> bool:
        """True when it took no longer than it may."""
        return self.slowdown <= MAX_SLOWDOWN[self.scenario.knowledge]

    @property
    def is_held(self) -> bool:
        """True when every row was answered, soon, and hardly a request refused."""
        return self.is_complete and self.is_calm and self.is_fast


def run_scenarios(scenarios: Sequence[Scenario], *, speed: float) -> list[Result]:
    """Run scenarios side by side."""
    asked: dict[int, Asked] = {}
    with serve([scenario.plan for scenario in scenarios], speed=speed) as servers:

        async def run_one(place: int) -> None:
            scenario = scenarios[place]
            asked[place] = await ask(
                servers[place].base_url,
                ("m", len(scenario.requests), scenario.requests),
                speed=speed,
                concurrency=IN_FLIGHT,
                limits=scenario.limits,
                seed=scenario.seed,
            )

        async def run_all() -> None:
            async with anyio.create_task_group() as group:
                for place in range(len(scenarios)):
                    group.start_soon(run_one, place)

        run_at(speed, run_all)
    return [
        Result(scenario=scenario, asked=asked[place], ledger=servers[place].ledger)
        for place, scenario in enumerate(scenarios)
    ]


# Scripted: the four columns of COST_AND_PACING 4.4


def make_column(title: str, knowledge: str, *, n_rows: int, seed: int) -> Scenario:
    """Return a column of the table in COST_AND_PACING 4.4."""
    column = COLUMNS[title]
    rng = random.Random(seed)
    latencies_s = [rng.lognormvariate(math.log(MEDIAN_LATENCY_S), SIGMA) for _ in range(n_rows)]
    plan = Limits(
        requests_per_minute=PER_MINUTE,
        holds_s=column.holds_s,
        rejects_cost=column.rejects_cost,
        has_retry_after=column.has_retry_after,
        has_headers=knowledge == "headers",
        median_latency_s=MEDIAN_LATENCY_S,
        sigma=SIGMA,
        seed=seed,
    )
    return Scenario(
        server=title,
        knowledge=knowledge,
        plan=plan,
        ideal_s=compute_ideal_s(latencies_s),
        max_refused=MAX_REFUSED[knowledge],
        limits=KNOWN if knowledge == "known" else UNKNOWN,
        requests=list(iterate_requests(n_rows)),
        seed=seed,
    )


def compute_ideal_s(latencies_s: Iterable[float]) -> float:
    """Return how long requests of such latencies take when each leaves the moment at which the limit allows it."""
    return max(n * 60 / PER_MINUTE + latency_s for n, latency_s in enumerate(latencies_s))


# The simulator


def make_simulated(
    title: str, knowledge: str, *, n_rows: int, seed: int, retry_after: RetryAfterForm = "seconds", **limits: Any
) -> Scenario:
    """Return a simulator that limits requests by fixed windows, refused ones included."""
    dialect: RateDialect = "openai" if knowledge == "headers" else "none"
    simulated = SimulatedLimits(
        requests_per_minute=PER_MINUTE, rejected_count=True, headers=dialect, retry_after=retry_after, **limits
    )
    simulator = make_simulator(simulated, seed=seed)
    requests = list(iterate_requests(n_rows))
    return Scenario(
        server=f"simulator, {title}",
        knowledge=knowledge,
        plan=simulator,
        ideal_s=compute_ideal_s(_draw_latency_s(request, simulator) for request in requests),
        max_refused=MAX_REFUSED[knowledge],
        limits=KNOWN if knowledge == "known" else UNKNOWN,
        requests=requests,
        seed=seed,
    )


def make_simulator(limits: SimulatedLimits, *, seed: int = 1, **profile: Any) -> SimulatorOptions:
    """Return a simulator of one model with the latencies of COST_AND_PACING 4.4."""
    shape = {"latency_ms": MEDIAN_LATENCY_S * 1000, "latency_spread": SIGMA} | profile
    return SimulatorOptions(answer="fine", seed=seed, profiles={"m": ProfileOptions(limits=limits, **shape)})


def _draw_latency_s(request: Request, simulator: SimulatorOptions) -> float:
    asked = make_chat_request(json.loads(request.body), Hint(), simulator.seed)
    return draw_latency_s(asked, simulator.profiles["m"])


def make_token_limited(title: str, knowledge: str, *, n_rows: int, seed: int, **limits: Any) -> Scenario:
    """Return a simulator that limits tokens, counted as they are asked for: prompt and the most possible output."""
    dialect: RateDialect = "openai" if knowledge == "headers" else "none"
    simulated = SimulatedLimits(tokens_per_minute=TOKENS_PER_MINUTE, rejected_count=True, headers=dialect, **limits)
    requests = make_token_requests(n_rows)
    n_tokens = sum(count_asked_tokens(request) for request in requests)
    return Scenario(
        server=f"simulator, tokens, {title}",
        knowledge=knowledge,
        plan=make_simulator(simulated, seed=seed),
        ideal_s=n_tokens / TOKENS_PER_MINUTE * 60 + MEDIAN_LATENCY_S,
        max_refused=MAX_REFUSED_TOKENS[knowledge],
        limits=KNOWN_TOKENS if knowledge == "known" else UNKNOWN,
        requests=requests,
        seed=seed,
    )


def make_token_requests(n_rows: int) -> list[Request]:
    """Return requests of very different sizes, a thousand tokens on average, most of which they do not use."""
    rng = random.Random(7)
    requests = []
    for index in range(n_rows):
        plain = make_request(f"r{index}. " + "word " * rng.randint(200, 800), index=index)
        most = rng.randint(200, 800)
        body = json.dumps({**json.loads(plain.body), "max_tokens": most}).encode()
        requests.append(replace(plain, body=body, max_output_tokens=most))
    return requests


def count_asked_tokens(request: Request) -> int:
    """Return what a request asks for, as the simulator counts it."""
    return count_prompt_tokens(json.loads(request.body)["messages"]) + (request.max_output_tokens or 0)
