"""Small builders for the tests of dispatch: requests, endpoints, and a dispatch whose records are kept."""

import json
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import anyio

from evalrun.dispatch.dispatcher import LaneWork, StopSignal, dispatch
from evalrun.dispatch.transport import Target, make_target
from evalrun.lane_progress import LaneProgress
from evalrun.options import EndpointOptions, PriceOptions, RetryOptions, TimeoutOptions
from evalrun.prices import ModelPrices, PriceBook
from evalrun.records import Attempt, Outcome, Request, Sample, SimulatorHint, Started

PRICE = PriceOptions(input=Decimal(1), output=Decimal(10))
PRICES = ModelPrices.of(PRICE)
FAST_RETRY = RetryOptions(base_s=0.01, max_s=0.02)
TIMEOUTS = TimeoutOptions(connect=5, total=20)
ENGINE: dict[str, Any] = {}
"""The `transport` that endpoints ask for; the fixture `each_engine` goes through all of them."""


def make_request(prompt: str, *, index: int = 0, model: str = "m", hint: SimulatorHint | None = None) -> Request:
    """Return a request whose prompt tells it apart."""
    body = {"model": model, "messages": [{"role": "user", "content": prompt}]}
    return Request(
        index=index,
        row_id=f"row-{model}-{prompt}",
        request_key=f"key-{model}-{prompt}",
        sample=Sample(sample_id=prompt, row={"q": prompt}, category=None, where="d.jsonl:1"),
        prompt="p",
        model=model,
        endpoint="e",
        repeat=0,
        body=json.dumps(body).encode(),
        hint=hint,
    )


def make_requests(n: int, *, model: str = "m") -> list[Request]:
    """Return n requests with the prompts `r0.`, `r1.` and so on."""
    return [make_request(f"r{index}.", index=index, model=model) for index in range(n)]


def make_options(base_url: str, **changes: Any) -> EndpointOptions:
    """Return an endpoint with short waits."""
    options: dict[str, Any] = {"base_url": base_url, "concurrency": 4, "retry": FAST_RETRY, "timeout_s": TIMEOUTS}
    return EndpointOptions(**(options | ENGINE | changes))


@dataclass(slots=True)
class Rig:
    """A dispatch and everything it recorded."""

    target: Target
    stop: StopSignal = field(default_factory=StopSignal)
    records: list[Started | Attempt | Outcome] = field(default_factory=list)
    progress: list[LaneProgress] = field(default_factory=list)

    async def run(
        self,
        *lanes: Sequence[Request],
        prices: PriceBook | None = None,
        on_record: Any = None,
    ) -> None:
        """Dispatch one lane for each list of requests."""
        await self.run_iterables(
            *((requests[0].model if requests else "m", requests) for requests in lanes),
            prices=prices,
            on_record=on_record,
        )

    async def run_iterables(
        self,
        *lanes: tuple[str, Iterable[Request]],
        prices: PriceBook | None = None,
        on_record: Any = None,
    ) -> None:
        """Dispatch one lane for each (wire model, requests)."""
        works = []
        for model, requests in lanes:
            total = len(requests) if isinstance(requests, Sequence) else 1000
            progress = LaneProgress(endpoint="e", model=model, total=total)
            self.progress.append(progress)
            works.append(LaneWork(endpoint="e", wire_model=model, requests=iter(requests), progress=progress))
        await dispatch(
            works,
            targets={"e": self.target},
            prices={"m": PRICES} if prices is None else prices,
            on_record=on_record or self.records.append,
            stop=self.stop,
            rng=random.Random(1),
        )

    @property
    def outcomes(self) -> dict[str, Outcome]:
        """Outcomes by prompt."""
        return {outcome.row_id.rsplit("-", 1)[1]: outcome for outcome in self._all(Outcome)}

    @property
    def attempts(self) -> list[Attempt]:
        """Failed attempts that were followed by something else."""
        return list(self._all(Attempt))

    @property
    def started(self) -> list[Started]:
        """Every request that left."""
        return list(self._all(Started))

    def _all(self, kind: type[Any]) -> list[Any]:
        return [record for record in self.records if isinstance(record, kind)]


async def wait_until(is_true: Callable[[], bool]) -> None:
    """Wait for what another thread or task brings about."""
    while not is_true():  # noqa: ASYNC110 - the server's thread has no event of this loop to set
        await anyio.sleep(0.01)


def make_rig(base_url: str, *, environ: Mapping[str, str] | None = None, **changes: Any) -> Rig:
    """Return a rig for an endpoint at the address."""
    return Rig(target=make_target(make_options(base_url, **changes), environ=environ or {}))
