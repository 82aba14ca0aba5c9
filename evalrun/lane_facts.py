"""What run.json tells of each lane: counts, waits, limits and history, as `evalrun show --lanes` reads them.

A lane's progress and the job enter, JSON values leave. Of earlier calls what the run.json before told is carried on,
bounded; a call that died wrote none, and is named as one of which nothing is known.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from evalrun.errors import StoreError
from evalrun.lane_progress import LaneProgress
from evalrun.options import EndpointOptions, ModelOptions
from evalrun.store.folder import RunFolder
from evalrun.store.manifest import read_manifest

MAX_EARLIER_CALLS: Final = 100
"""Newest earlier calls that are told of; who resumes by the minute keeps a run.json that can be read."""
MAX_EARLIER_NOTES: Final = 64
"""Newest decisions of a lane that are kept of an earlier call; events.jsonl has all of them."""


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
        "concurrency": endpoint.concurrency,
        "waited_s": {reason: round(seconds, 3) for reason, seconds in lane.waited_s.items()},
        "limits": {reason: limit for reason, limit in limits.items() if limit is not None},
        "history": [{"at_s": round(at_s, 3), "what": what, "value": value} for at_s, what, value in lane.history],
    }


def load_earlier_calls(folder: RunFolder, sessions: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return what is known of the calls before this one, oldest first, as run.json keeps it.

    Args:
        folder: The run; its run.json, when there is one, is that of the newest call that ended.
        sessions: The journal's, one for each call, this one last.
    """
    known = _read_known_calls(folder)
    return [
        {
            "call": number,
            "started_at": session.get("started_at"),
            **{key: known.get(number, {}).get(key) for key in ("wall_s", "ended_by", "lanes")},
        }
        for number, session in enumerate(sessions[:-1], start=1)
    ][-MAX_EARLIER_CALLS:]


def _read_known_calls(folder: RunFolder) -> dict[int, Mapping[str, Any]]:
    """Return what the last run.json tells of calls, by number; nothing when there is none that can be read."""
    try:
        manifest = read_manifest(folder)
    except StoreError:
        return {}
    budget, number = manifest.get("budget"), manifest.get("n_calls")
    last = {
        "call": number,
        "wall_s": manifest.get("wall_s"),
        "ended_by": budget.get("ended_by") if isinstance(budget, Mapping) else None,
        "lanes": [_shorten(lane) for lane in _list_objects(manifest.get("lanes"))],
    }
    calls = [*_list_objects(manifest.get("earlier_calls")), last]
    return {call["call"]: call for call in calls if isinstance(call.get("call"), int)}


def _shorten(lane: Mapping[str, Any]) -> dict[str, Any]:
    """Return a lane with the newest part of its history, and how much is missing."""
    history = _list_objects(lane.get("history"))
    if len(history) <= MAX_EARLIER_NOTES:
        return dict(lane)
    kept = history[1 - MAX_EARLIER_NOTES :]
    n_forgotten = len(history) - len(kept)
    return {**lane, "history": [{"at_s": kept[0].get("at_s"), "what": "forgotten", "value": n_forgotten}, *kept]}


def _list_objects(value: Any) -> list[Mapping[str, Any]]:
    """Return the objects of a list; none of what is no list. What somebody has edited must not end a run."""
    return [entry for entry in value if isinstance(entry, Mapping)] if isinstance(value, list) else []


def _find_least(limits: Sequence[float | None]) -> float | None:
    return min((limit for limit in limits if limit is not None), default=None)
