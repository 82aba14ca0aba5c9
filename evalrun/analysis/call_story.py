"""Why a run was slow that took several calls: its lanes added up over all of them, and each call by itself.

run.json enters, stories leave. Of a call that died nothing is known: it is named, and never taken for one that waited
for nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from evalrun.analysis.lane_story import BUDGET, LaneStory, read_number, read_time_s, tell_lane


@dataclass(frozen=True, slots=True, kw_only=True)
class CallStory:
    """What is to be told of one call."""

    number: int
    """1-based."""
    started_at: str | None
    """UTC, ISO 8601."""
    wall_s: float | None
    """None when the call left no word of its end."""
    ended_by: str | None
    """What of its budget ended it; None when nothing did."""
    lanes: tuple[LaneStory, ...] | None
    """Lanes with something to ask or to tell; None when the call died before it could tell."""


def tell_calls(manifest: Mapping[str, Any]) -> tuple[CallStory, ...]:
    """Return the story of each call that run.json tells of, oldest first; the last one included."""
    budget = manifest.get("budget")
    last = {
        "call": manifest.get("n_calls", 1),
        "started_at": manifest.get("call_started_at"),
        "wall_s": manifest.get("wall_s"),
        "ended_by": budget.get("ended_by") if isinstance(budget, Mapping) else None,
        "lanes": manifest.get("lanes") or [],
    }
    return tuple(_tell_call(call) for call in [*_list_entries(manifest, "earlier_calls"), last])


def add_up_lanes(manifest: Mapping[str, Any]) -> tuple[dict[str, Any], ...]:
    """Return each lane as run.json holds one, added up over all calls that tell of it.

    Counts and seconds are sums, and `wall_s` the time of the calls in which the lane had something to ask. What stopped
    it is the last call's: an earlier reason was mended, or stands there again.
    """
    sums: dict[tuple[str, str], dict[str, Any]] = {}
    for call in [*_list_entries(manifest, "earlier_calls"), manifest]:
        for lane in _list_entries(call, "lanes"):
            key = (str(lane.get("endpoint")), str(lane.get("model")))
            sums[key] = _add(sums.get(key), lane, wall_s=read_number(call.get("wall_s")))
    return tuple(sums.values())


def _tell_call(call: Mapping[str, Any]) -> CallStory:
    number, wall_s = read_number(call.get("call")), read_number(call.get("wall_s"))
    lanes = _list_entries(call, "lanes")
    told = [tell_lane(lane, wall_s=wall_s) for lane in lanes if lane.get("asked") or lane.get("stopped_by")]
    # A budget that was used up to the last row has ended nothing.
    has_ended = any(lane.get("stopped_by") == BUDGET for lane in lanes)
    started_at, ended_by = call.get("started_at"), call.get("ended_by")
    return CallStory(
        number=int(number or 1),
        started_at=started_at if isinstance(started_at, str) else None,
        wall_s=wall_s,
        ended_by=ended_by if isinstance(ended_by, str) and has_ended else None,
        lanes=tuple(told) if isinstance(call.get("lanes"), list) else None,
    )


def _list_entries(record: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    """Return the objects of a list; none when there is no list."""
    entries = record.get(key)
    return [entry for entry in entries if isinstance(entry, Mapping)] if isinstance(entries, list) else []


def _add(before: dict[str, Any] | None, lane: Mapping[str, Any], *, wall_s: float | None) -> dict[str, Any]:
    """Return the sum of a lane's calls so far and of the next one."""
    added = {**lane, "wall_s": read_time_s(lane, wall_s=wall_s)}
    if before is None:
        return added
    for key in ("asked", "retries", "rate_limited"):
        count = _add_numbers(before.get(key), added.get(key))
        added[key] = None if count is None else int(count)
    added["wall_s"] = _add_numbers(before.get("wall_s"), added["wall_s"])
    added["waited_s"] = _add_waits(before.get("waited_s"), lane.get("waited_s"))
    histories = (before.get("history"), lane.get("history"))
    added["history"] = [note for history in histories if isinstance(history, list) for note in history]
    return added


def _add_waits(first: Any, second: Any) -> dict[str, float] | None:
    """Return seconds by reason over both; None when neither was kept."""
    kept = [waits for waits in (first, second) if isinstance(waits, Mapping)]
    reasons = dict.fromkeys(str(reason) for waits in kept for reason in waits)
    summed = {reason: sum(read_number(waits.get(reason)) or 0.0 for waits in kept) for reason in reasons}
    return summed if kept else None


def _add_numbers(first: Any, second: Any) -> float | None:
    """Return the sum of what is known; None when nothing is."""
    known = [number for number in (read_number(first), read_number(second)) if number is not None]
    return sum(known) if known else None
