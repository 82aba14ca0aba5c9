"""Words for what a lane does while a run is under way, and for the money of the whole run."""

from collections import deque
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from evalrun.cli.console import format_seconds, format_usd
from evalrun.resume_words import MARKED_RESUME_COMMAND

if TYPE_CHECKING:
    from evalrun.dispatch.budget import RunBudget
    from evalrun.lane_progress import LaneProgress

PACED_S = 2.0
"""Waits shorter than this are the pace of the lane, not a pause that anybody could watch."""
RATE_WINDOW_S = 10.0
"""Answers of so many last seconds make the rate that is shown."""

_REASONS: Mapping[str, str] = {
    "retry_after": "asked by the server",
    "requests_per_minute": "requests per minute",
    "tokens_per_minute": "tokens per minute",
    "learned_rate": "rate learned from 429s",
    "outage": "the endpoint does not answer",
    "retry_budget": "too many retries",
    "budget": "room in the budget",
}


class RateMeter:
    """Answers per second of each lane over the last seconds."""

    def __init__(self) -> None:
        self._seen: dict[int, deque[tuple[float, int]]] = {}

    def note(self, lane: "LaneProgress", now_s: float) -> None:
        """Take one look at a lane; looks are about a tenth of a second apart."""
        seen = self._seen.setdefault(id(lane), deque())
        seen.append((now_s, lane.acknowledged))
        while now_s - seen[0][0] > RATE_WINDOW_S:
            seen.popleft()

    def read(self, lane: "LaneProgress") -> float | None:
        """Return rows done per second; None before there were two looks."""
        seen = self._seen.get(id(lane))
        if seen is None or seen[-1][0] <= seen[0][0]:
            return None
        return (seen[-1][1] - seen[0][1]) / (seen[-1][0] - seen[0][0])


def describe_wait(lane: "LaneProgress", now_s: float) -> str | None:
    """Return how long a lane waits, until when in local time, and for what; None when it does not."""
    left_s = lane.waiting_until_s - now_s
    if lane.stopped_by is not None or left_s <= 0:
        return None
    why = _name_reason(lane)
    if left_s < PACED_S and lane.state != "probing":
        return f"paced ({why})"
    until = (datetime.now().astimezone() + timedelta(seconds=left_s)).strftime("%H:%M:%S")
    return f"waits {format_seconds(left_s)} until {until} ({why})"


def describe_stops(lanes: Iterable[tuple[str, str]], *, command: str) -> list[str]:
    """Return why lanes stopped; those that stopped for one reason, as all do whose key is refused, are told together.

    Args:
        lanes: Their models, and what they say of it.
        command: What to say for the command that goes on, which they do not know.
    """
    models_by_message: dict[str, list[str]] = {}
    for model, message in lanes:
        models_by_message.setdefault(message, []).append(model)
    return [
        f"{', '.join(models)} stopped: {message.replace(MARKED_RESUME_COMMAND, command)}"
        for message, models in models_by_message.items()
    ]


def describe_flight(lane: "LaneProgress") -> str:
    """Return how many requests are in flight, of how many that may be."""
    return f"{lane.in_flight}/{lane.limit} in flight" if lane.limit else f"{lane.in_flight} in flight"


def describe_rate(rate: float | None) -> str:
    """Return answers per second; `–` while unknown."""
    return "–/s" if rate is None else f"{rate:.1f}/s" if rate < 100 else f"{rate:,.0f}/s"


def describe_spend(usd: float, *, has_unknown: bool, budget: "RunBudget | None" = None) -> str:
    """Return what was spent, and what may be.

    Args:
        usd: Spent in this call.
        has_unknown: Some of it is unknown.
        budget: The run's; its own count is over all calls, what is estimated included.
    """
    unknown = " + unknown" if has_unknown else ""
    facts = budget.describe() if budget is not None else {}
    limit = facts["usd"]["limit"] if facts else None
    if limit is None:
        return f"{format_usd(usd)}{unknown} spent"
    return f"{format_usd(float(facts['usd']['spent']))}{unknown} of {format_usd(float(limit))} spent"


def describe_limits(budget: "RunBudget | None", now_s: float) -> list[str]:
    """Return where the limits on tokens, requests and time stand; USD is told with what was spent."""
    if budget is None:
        return []
    facts = budget.describe()
    words = [
        f"{facts[key]['spent']:,} of {facts[key]['limit']:,} {key}"
        for key in ("tokens", "requests")
        if facts[key]["limit"] is not None
    ]
    if budget.deadline_s is not None:
        words.append(f"{format_seconds(max(0.0, budget.deadline_s - now_s))} of the budget's time left")
    return words


def _name_reason(lane: "LaneProgress") -> str:
    if lane.waiting_for is not None:
        return _REASONS.get(lane.waiting_for, lane.waiting_for.replace("_", " "))
    return "rate limit" if lane.rate_limited else _REASONS["outage"]
