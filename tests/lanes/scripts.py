"""What the scripted servers do with a request: limits as numbers, waits in every form, outages.

A script gets a request and its time, in seconds of the scenario; a reply leaves. Each knows nothing of evalrun.
"""

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Final, Literal

from tests.dispatch.toy_gateway import Row, SteadyServer
from tests.fake_endpoint import FakeReply, SeenRequest, reply_error, reply_text

Script = Callable[[SeenRequest, float], FakeReply]
"""(request, now) -> what is done with it, in seconds of the scenario."""
_ANSWER: Final = reply_text("fine")
WaitForm = Literal["seconds", "float", "ms", "date", "date of a wrong clock"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Answers behind a limit that refills steadily, as `COST_AND_PACING` 4.4 has it."""

    requests_per_minute: float
    holds_s: float
    rejects_cost: bool
    has_retry_after: bool
    has_headers: bool = False
    median_latency_s: float
    sigma: float
    seed: int

    def make(self) -> Script:
        """Return the script."""
        server = SteadyServer(
            requests_per_minute=self.requests_per_minute,
            holds_s=self.holds_s,
            rejects_cost=self.rejects_cost,
            has_retry_after=self.has_retry_after,
            has_headers=self.has_headers,
        )
        rng = random.Random(self.seed)

        def serve(_seen: SeenRequest, now_s: float) -> FakeReply:
            verdict = server.arrive(Row(), now_s)
            if verdict.is_let_in:
                latency_s = rng.lognormvariate(math.log(self.median_latency_s), self.sigma)
                return replace(_ANSWER, delay_s=latency_s, headers={**_ANSWER.headers, **verdict.headers})
            told = {} if verdict.retry_after_s is None else {"retry-after": f"{verdict.retry_after_s:g}"}
            return reply_error(429, code="rate_limit_exceeded", headers={**verdict.headers, **told})

        return serve


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """Answers every request; one model's n-th request is told to wait instead."""

    form: WaitForm
    model: str
    nth: int
    wait_s: float
    latency_s: float

    def make(self) -> Script:
        """Return the script."""
        rng = random.Random(1)
        n_seen = 0

        def serve(seen: SeenRequest, _now_s: float) -> FakeReply:
            nonlocal n_seen
            n_seen += seen.json["model"] == self.model
            if seen.json["model"] == self.model and n_seen == self.nth:
                return reply_error(429, code="rate_limit_exceeded", headers=make_wait_headers(self.form, self.wait_s))
            return replace(_ANSWER, delay_s=self.latency_s * rng.uniform(0.5, 1.5))

        return serve


def make_wait_headers(form: WaitForm, wait_s: float) -> Mapping[str, str]:
    """Return Retry-After in one of its forms; a date comes with the server's own, be its clock right or not."""
    match form:
        case "seconds":
            return {"retry-after": f"{wait_s:.0f}"}
        case "float":
            return {"retry-after": f"{wait_s:.3f}"}
        case "ms":
            return {"retry-after-ms": f"{wait_s * 1000:.0f}", "retry-after": "9"}
        case _:
            now = datetime.now(UTC) - timedelta(hours=7 if form == "date of a wrong clock" else 0)
            until = now + timedelta(seconds=wait_s)
            return {"date": format_datetime(now, usegmt=True), "retry-after": format_datetime(until, usegmt=True)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Outage:
    """Answers every request, but for one stretch of time in which none is answered."""

    begins_s: float
    """After the first request."""
    lasts_s: float
    how: Literal["500", "reset"]
    latency_s: float

    def make(self) -> Script:
        """Return the script."""
        down = reply_error(500) if self.how == "500" else FakeReply(raw=b"", ending="rst")
        rng = random.Random(1)
        began_s = math.nan

        def serve(_seen: SeenRequest, now_s: float) -> FakeReply:
            nonlocal began_s
            began_s = now_s if math.isnan(began_s) else began_s
            if self.begins_s <= now_s - began_s < self.begins_s + self.lasts_s:
                return down
            return replace(_ANSWER, delay_s=self.latency_s * rng.uniform(0.5, 1.5))

        return serve
