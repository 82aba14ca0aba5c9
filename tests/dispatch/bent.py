"""One attempt at a reply that a quirk has bent: asked by evalrun's own dispatcher, of the simulator, over real HTTP."""

import json
import random
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import partial
from typing import Any

from anyio.from_thread import start_blocking_portal

from evalrun.dispatch.dispatcher import LaneWork, StopSignal, dispatch
from evalrun.dispatch.engine import Engine, Opened, RawHeaders
from evalrun.dispatch.exchange import Exchange
from evalrun.dispatch.transport import Target, Transport, make_target, open_transport
from evalrun.lane_progress import LaneProgress
from evalrun.options import EndpointOptions, PriceOptions, ProfileOptions, SimulatorOptions, TimeoutOptions
from evalrun.prices import ModelPrices
from evalrun.records import Attempt, Outcome, Request, SimulatorHint, Started
from evalrun.simulator.server import serve
from tests.dispatch.rig import FAST_RETRY, TIMEOUTS, make_request
from tests.quirk_outcomes import Lane
from tests.simulator.bending import ANSWER, SHAPES

PRICE = PriceOptions(input=Decimal(1), output=Decimal(10), multipliers={"flex": Decimal("0.5")})
FORMS: Mapping[str, tuple[str, TimeoutOptions]] = {
    "Q47": ("Q47", TimeoutOptions(total=0.4)),
    "Q48:first-byte": ("Q48:first-byte:30", TimeoutOptions(first_byte=0.2)),
    "Q48:between": ("Q48:between:30", TimeoutOptions(idle=0.2)),
}
"""Quirks that only a deadline ends: as they are asked for, and with which deadlines."""
PARAMS: Mapping[str, Mapping[str, Any]] = {**SHAPES, "Q04": {"stream_options": None}}
"""What a request must say for a quirk to make sense; None leaves out what is said otherwise."""
_QUIRK_HEADER = "x-simulator-quirk"
_LONGEST_WAIT_S = 0.1
"""A lane that is to wait for longer is not waited for."""
_MODEL = "m"
_OPTIONS = SimulatorOptions(
    answer_column="a",
    profiles={
        _MODEL: ProfileOptions(accuracy=1, latency_ms=0),
        "thinking": ProfileOptions(accuracy=1, latency_ms=0, reasoning_tokens=7),
    },
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What evalrun made of one attempt, and of what came before and after it."""

    attempt: Attempt
    outcome: Outcome | None
    """None when the row is asked again."""
    lane: Lane
    good: Outcome
    """What the same request gave without the quirk."""
    next_outcome: Outcome | None
    """What it gave when it was asked again without the quirk; None when that was not waited for."""
    applied: str | None
    """Quirks that the reply says befell it; None when not even its head came."""


@contextmanager
def serve_simulator() -> Iterator[str]:
    """Serve a simulator in a thread of its own and yield its URL."""
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(serve(_OPTIONS, grace_s=0)) as simulator:
        yield simulator.url


async def ask_bent(url: str, label: str, *, is_stream: bool, params: Mapping[str, Any], **options: Any) -> Seen:
    """Ask for the same twice, the second time with a quirk, and return what evalrun makes of that second reply."""
    quirk, timeouts = FORMS.get(label, (label, TIMEOUTS))
    target = _make_target(url, stream=is_stream, timeout_s=timeouts, **options)
    engine = _BentEngine()
    requests = [_make_request(index, params, is_stream=is_stream) for index in range(2)]
    progress = LaneProgress(endpoint="e", model=_MODEL, total=len(requests))
    watcher = _Watcher(progress, engine, quirk)
    wire_model = json.loads(requests[0].body)["model"]
    await dispatch(
        [LaneWork(endpoint="e", wire_model=wire_model, requests=iter(requests), progress=progress)],
        targets={"e": target},
        prices={_MODEL: ModelPrices.of(PRICE)},
        on_record=watcher.note,
        stop=watcher.stop,
        rng=random.Random(1),
        connect=partial(_open_bent, engine=engine),
    )
    return watcher.tell()


@asynccontextmanager
async def _open_bent(target: Target, *, engine: "_BentEngine") -> AsyncIterator[Transport]:
    """Open a transport whose own engine is bent."""
    async with open_transport(target) as transport:
        engine.inner, transport._engine = transport._engine, engine
        yield transport


class _BentEngine:
    """A real engine whose requests ask for a quirk while there is one."""

    inner: Engine
    quirk: str | None = None
    applied: str | None = None

    async def open(self, exchange: Exchange, headers: RawHeaders) -> Opened:
        """Send the body of an exchange."""
        if self.quirk is None:
            return await self.inner.open(exchange, headers)
        opened = await self.inner.open(exchange, [*headers, (_QUIRK_HEADER.encode(), self.quirk.encode())])
        self.applied = opened.headers.get(_QUIRK_HEADER)
        return opened

    async def aclose(self) -> None:
        """Close every connection."""
        await self.inner.aclose()


@dataclass(slots=True)
class _Watcher:
    """Reads the records of one dispatch: a good reply, a bent one, and the good one that follows if it is asked for."""

    progress: LaneProgress
    engine: _BentEngine
    quirk: str
    stop: StopSignal = field(default_factory=StopSignal)
    good: Outcome | None = None
    bent: Attempt | Outcome | None = None
    next_outcome: Outcome | None = None
    is_waiting: bool = False

    def note(self, record: Started | Attempt | Outcome) -> None:
        """Take the next record."""
        if isinstance(record, Started):
            return
        if self.bent is not None:
            assert isinstance(record, Outcome)
            self.next_outcome = record
        elif self.good is None:
            assert isinstance(record, Outcome)
            self.good, self.engine.quirk = record, self.quirk
        else:
            self.bent, self.engine.quirk = record, None
            self.is_waiting = self.progress.waiting_until_s > 0
            if isinstance(record, Attempt) and (record.retry_after_s or 0.0) > _LONGEST_WAIT_S:
                self.stop.request()

    def tell(self) -> Seen:
        """Return what was seen."""
        assert self.good is not None
        assert self.bent is not None
        outcome = self.bent if isinstance(self.bent, Outcome) else None
        attempt = self.bent if isinstance(self.bent, Attempt) else self.bent.last_attempt
        assert attempt is not None
        lane: Lane = "waits" if self.is_waiting else "goes on"
        return Seen(
            attempt=attempt,
            outcome=outcome,
            lane=lane if self.progress.stopped_by is None else "stops",
            good=self.good,
            next_outcome=None if self.stop.is_requested else self.next_outcome,
            applied=self.engine.applied,
        )


def _make_target(url: str, **options: Any) -> Target:
    """Return an endpoint that is known for a simulator, so that it is told the right answer."""
    simulator = replace(_OPTIONS, url=url)
    endpoint = EndpointOptions(simulator=simulator, concurrency=1, retry=FAST_RETRY, **options)
    return make_target(endpoint, environ={}, base_url=f"{url}/v1")


def _make_request(index: int, params: Mapping[str, Any], *, is_stream: bool) -> Request:
    streamed = {"stream": True, "stream_options": {"include_usage": True}} if is_stream else {}
    messages = [{"role": "user", "content": "Capital of Thailand?"}]
    body = {"model": _MODEL, "messages": messages, **streamed, **params}
    n_choices = params.get("n", 1)
    # Several choices are not told the answer: they shall not say the same, lest it go unseen when they are mixed up.
    hint = SimulatorHint(answer=ANSWER, sample_id="s", repeat=0) if n_choices == 1 else None
    return replace(
        make_request(f"r{index}", index=index),
        body=json.dumps({key: value for key, value in body.items() if value is not None}).encode(),
        n_choices=n_choices,
        hint=hint,
    )
