"""What run.json tells of each lane: counts, waits, limits and history, as `evalrun show --lanes` reads them.

A lane's progress and the job enter, JSON values leave.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from evalrun.options import EndpointOptions, ModelOptions
from evalrun.records import LaneProgress


class LaneLimits(NamedTuple):
    """Rate limits that the job gives; None = not told."""

    requests_per_minute: float | None
    tokens_per_minute: float | None


def find_own_limits(models: Sequence[ModelOptions]) -> LaneLimits:
    """Return the limits that a lane has beside its endpoint's: the least of its models', which share one wire id."""
    return LaneLimits(
        _find_least([model.requests_per_minute for model in models]),
        _find_least([model.tokens_per_minute for model in models]),
    )


def describe_lane(lane: LaneProgress, endpoint: EndpointOptions, own: LaneLimits) -> dict[str, Any]:
    """Return a lane as it stands in run.json.

    Args:
        lane: As dispatch left it.
        endpoint: Its endpoint.
        own: Its models' limits.
    """
    limits = {
        "requests_per_minute": _find_least([own.requests_per_minute, endpoint.requests_per_minute]),
        "tokens_per_minute": _find_least([own.tokens_per_minute, endpoint.tokens_per_minute]),
    }
    return {
        "endpoint": lane.endpoint,
        "model": lane.model,
        "asked": lane.done,
        "retries": lane.retries,
        "rate_limited": lane.rate_limited,
        "stopped_by": lane.stopped_by,
        "stop_message": lane.stop_message,
        "wall_s": None if lane.wall_s is None else round(lane.wall_s, 3),
        "waited_s": {reason: round(seconds, 3) for reason, seconds in lane.waited_s.items()},
        "limits": {reason: limit for reason, limit in limits.items() if limit is not None},
        "history": [{"at_s": round(at_s, 3), "what": what, "value": value} for at_s, what, value in lane.history],
    }


def _find_least(limits: Sequence[float | None]) -> float | None:
    return min((limit for limit in limits if limit is not None), default=None)
