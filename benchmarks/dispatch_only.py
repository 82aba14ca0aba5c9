"""What a request costs besides its exchange: `python -m benchmarks.dispatch_only [ROWS]`.

The real dispatcher sends to a transport that answers at once, so that only its own work is left: rows, lanes, pacing,
reading the reply, records. `reading and records` is the part of it that no dispatcher could spare. CPU time of the
process, the least of several rounds that take turns.
"""

import itertools
import json
import platform
import random
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import anyio
import anyio.lowlevel

import evalrun
from evalrun.dispatch.budget import RunBudget
from evalrun.dispatch.dispatcher import LaneWork, StopSignal, dispatch
from evalrun.dispatch.outcomes import Row, make_answered_attempt, make_outcome, start_attempt
from evalrun.dispatch.transport import Reply, Target, make_target
from evalrun.dispatch.wire import parse_reply
from evalrun.lane_progress import LaneProgress
from evalrun.options import EndpointOptions, PriceOptions, RetryOptions
from evalrun.prices import ModelPrices
from evalrun.records import Request, Sample

PRICES = ModelPrices.of(PriceOptions(input=Decimal(1), output=Decimal(10)))
USAGE = {"prompt_tokens": 20, "completion_tokens": 5, "total_tokens": 25}
ANSWER = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "m0",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "fine"}, "finish_reason": "stop"}],
        "usage": USAGE,
    }
).encode()
PLAIN = {"content-type": "application/json", "date": "Sun, 22 Nov 2026 12:00:00 GMT"}
LIMITED = {
    **PLAIN,
    "openai-processing-ms": "12",
    "x-ratelimit-limit-requests": "60000000",
    "x-ratelimit-remaining-requests": "59999000",
    "x-ratelimit-reset-requests": "1ms",
    "x-ratelimit-limit-tokens": "60000000000",
    "x-ratelimit-remaining-tokens": "59999000000",
    "x-ratelimit-reset-tokens": "1ms",
}
N_ROUNDS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One kind of run."""

    concurrency: int = 64
    n_lanes: int = 1
    headers: Mapping[str, str] = field(default_factory=lambda: PLAIN)
    requests_per_minute: float | None = None
    has_budget: bool = False
    failing_every: int = 0
    """Every so manieth request is answered with a 503; 0 = none."""


CASES = {
    "64 in flight": Case(),
    "1 in flight": Case(concurrency=1),
    "512 in flight": Case(concurrency=512),
    "3 lanes": Case(n_lanes=3),
    "limit in the job": Case(requests_per_minute=1e8),
    "rate-limit headers": Case(headers=LIMITED),
    "budget": Case(has_budget=True),
    "every 20th a 503": Case(failing_every=20),
}


class NullTransport:
    """Answers at once, after everybody else had a turn."""

    def __init__(self, case: Case) -> None:
        self._case = case
        self._n = 0
        self._answer = make_reply(200, case.headers, ANSWER)
        self._busy = make_reply(503, case.headers, b'{"error": {"message": "busy"}}')

    async def send(self, body: bytes, headers: Sequence[tuple[str, str]] = (), *, n_choices: int = 1) -> Reply:
        """Return the same reply as ever."""
        del body, headers, n_choices
        await anyio.lowlevel.checkpoint()
        self._n += 1
        every = self._case.failing_every
        return self._busy if every and self._n % every == 0 else self._answer

    def mask(self, completion: Any) -> Any:
        """Return it: nothing here is secret."""
        return completion


def make_reply(status: int, headers: Mapping[str, str], body: bytes) -> Reply:
    """Return a reply that took no time."""
    return Reply(
        status=status,
        headers=headers,
        body=body,
        evidence=None,
        latency_s=0.0,
        first_byte_s=0.0,
        first_token_s=None,
        bytes_received=len(body),
        is_redacted=False,
    )


def make_request(model: str) -> Request:
    """Return a request of a model; the dispatcher does not mind being given the same one again."""
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "What is 6 times 7?"}]}).encode()
    return Request(
        index=0,
        row_id="r" * 64,
        request_key="k" * 64,
        sample=Sample(sample_id="s", row={"q": "?"}, category=None, where="d.jsonl:1"),
        prompt="p",
        model=model,
        endpoint="e",
        repeat=0,
        body=body,
    )


async def send_all(case: Case, n_rows: int) -> None:
    """Dispatch so many rows over the lanes of one endpoint."""
    models = [f"m{lane}" for lane in range(case.n_lanes)]
    records: list[Any] = [None]

    def record(item: Any) -> None:
        records[0] = item  # As a journal does: taken, and gone.

    options = EndpointOptions(
        base_url="http://127.0.0.1:1/v1",
        concurrency=case.concurrency,
        requests_per_minute=case.requests_per_minute,
        retry=RetryOptions(base_s=0.001, max_s=0.001),
    )

    @asynccontextmanager
    async def connect(_target: Target) -> AsyncIterator[Any]:
        yield NullTransport(case)

    works = []
    for model in models:
        progress = LaneProgress(endpoint="e", model=model, total=n_rows // len(models))
        requests = itertools.repeat(make_request(model), progress.total)
        works.append(LaneWork(endpoint="e", wire_model=model, requests=requests, progress=progress))
    await dispatch(
        works,
        targets={"e": make_target(options, environ={})},
        prices=dict.fromkeys(models, PRICES),
        on_record=record,
        stop=StopSignal(),
        rng=random.Random(1),
        connect=connect,
        budget=RunBudget(Decimal(10**6), None, None, None, started_s=0.0) if case.has_budget else None,
    )
    assert all(work.progress.done == work.progress.total for work in works)


def time_dispatch(case: Case, n_rows: int) -> float:
    """Return the CPU seconds of one dispatch."""
    began_s = time.process_time()
    anyio.run(send_all, case, n_rows, backend_options={"use_uvloop": True})
    return time.process_time() - began_s


def time_records(n_rows: int) -> float:
    """Return the CPU seconds of what every request needs: its reply read, its records made."""
    request = make_request("m0")
    reply, now = make_reply(200, PLAIN, ANSWER), datetime.now(UTC)
    began_s = time.process_time()
    for _ in range(n_rows):
        row = Row.take(request, 0.0)
        _, sending = start_attempt(row, now_s=0.0, now=now)
        completion = parse_reply(reply.status, reply.headers, reply.body, model="m0", n_choices=1, now=now)
        attempt = make_answered_attempt(sending, reply, completion, PRICES)
        make_outcome(sending, attempt, status=completion.status, completion=completion, finished_at=now)
    return time.process_time() - began_s


def main() -> None:
    """Time every case in turn and print µs per row."""
    n_rows = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    best = dict.fromkeys(["reading and records", *CASES], float("inf"))
    for _ in range(N_ROUNDS):
        best["reading and records"] = min(best["reading and records"], time_records(n_rows))
        for name, case in CASES.items():
            best[name] = min(best[name], time_dispatch(case, n_rows))
    print(f"evalrun {evalrun.__version__}, Python {platform.python_version()}, {n_rows} rows, CPU µs per row")
    bare_s = best["reading and records"]
    for name, taken_s in best.items():
        print(f"{name:22s} {taken_s / n_rows * 1e6:7.1f}  {(taken_s - bare_s) / n_rows * 1e6:+7.1f}")


if __name__ == "__main__":
    main()
