"""`evalrun show --lanes`: why a run took as long as it did, lane by lane and call by call."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from evalrun.analysis.call_story import CallStory, add_up_lanes, tell_calls
from evalrun.analysis.lane_story import LaneStory, add_up_waits, tell_lane, tell_lanes
from evalrun.cli.console import (
    Column,
    clean_text,
    format_count,
    format_seconds,
    make_table,
    open_console,
    print_json,
    show_path,
)
from evalrun.cli.results import SIMULATED
from evalrun.errors import UsageError
from evalrun.records import SCHEMA_VERSION
from evalrun.store.folder import EVENTS_NAME, RunFolder


def require_lanes(folder: RunFolder) -> None:
    """Refuse a run that has not ended: its lanes are not in run.json yet, but their decisions are in its log.

    Raises:
        UsageError: There is no run.json; the hint names the log, as far as there is one.
    """
    if folder.manifest_path.exists():
        return
    log = folder.path / EVENTS_NAME
    told = f"what its lanes decided so far: {show_path(log)}; " if log.exists() else ""
    state, advice = "has not ended", f"go on with it: evalrun run JOB --resume {folder.run_id}"
    holder = folder.find_holder()
    if holder is not None:
        state = f"is still running (process {holder})"
        advice = f"its journal can be read now: evalrun show {folder.run_id} --journal"
    raise UsageError(f"the run {folder.run_id} {state}, so run.json does not tell of its lanes yet", hint=told + advice)


def print_lanes(manifest: Mapping[str, Any], *, as_json: bool) -> None:
    """Print the story of each lane over all calls of a run, and of each call where there were several.

    Args:
        manifest: run.json.
        as_json: One JSON object, with what run.json holds of each lane, instead of text.
    """
    calls = tell_calls(manifest)
    if as_json:
        print_json(_build_json(manifest, calls))
        return
    console = open_console()
    if manifest["is_simulated"]:
        console.print(SIMULATED)
    columns = [
        Column("model"),
        Column("endpoint", rank=2),
        Column("rows", is_number=True),
        Column("retries", is_number=True, rank=1),
        Column("429s", is_number=True),
        Column("time", is_number=True),
        Column("waited", is_number=True),
    ]
    lanes = add_up_lanes(manifest)
    console.print(make_table(columns, [_make_row(lane) for lane in lanes], width=console.width))
    n_calls, n_told = manifest.get("n_calls", 1), _count_told(calls)
    if n_told < n_calls:
        console.print(f"of {n_calls} calls, {n_told} told what their lanes did: the figures are theirs")
    for line in _tell_whole(lanes):
        console.print(clean_text(line))
    for line in _tell_end(calls[-1], "") if n_calls == 1 else _tell_calls(calls, n_calls):
        console.print(clean_text(line))


def _build_json(manifest: Mapping[str, Any], calls: Sequence[CallStory]) -> dict[str, Any]:
    """Return `lanes` of the last call as run.json holds them; `whole_run`, added up; and `calls`, each told.

    `whole_run` knows nothing of calls that were killed: `n_calls_told` of `n_calls` are in it.
    """
    lanes = [lane for lane in manifest.get("lanes") or () if isinstance(lane, Mapping)]
    told = [{**lane, **_describe(story)} for lane, story in zip(lanes, tell_lanes(manifest), strict=True)]
    whole = [
        {**{key: value for key, value in lane.items() if key != "history"}, **_describe(tell_lane(lane, wall_s=None))}
        for lane in add_up_lanes(manifest)
    ]
    return {
        "schema_version": SCHEMA_VERSION,
        "run_id": manifest["run_id"],
        "simulated": manifest["is_simulated"],
        "wall_s": manifest.get("wall_s"),
        "budget": manifest.get("budget"),
        "lanes": told,
        "n_calls": manifest.get("n_calls", 1),
        "n_calls_told": _count_told(calls),
        "whole_run": whole,
        "calls": [asdict(call) for call in calls],
    }


def _count_told(calls: Sequence[CallStory]) -> int:
    return sum(call.lanes is not None for call in calls)


def _tell_whole(lanes: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield what held each lane over the whole run, and what would help."""
    for lane in lanes:
        story = tell_lane(lane, wall_s=None)
        yield f"{story.model} ({story.endpoint}): {story.sentence}"
        if story.advice is not None:
            yield f"  advice: {story.advice}"


def _tell_calls(calls: Sequence[CallStory], n_calls: int) -> Iterator[str]:
    """Yield what held the lanes in each call; of one that died, where to look."""
    yield ""
    if len(calls) < n_calls:
        yield f"of {n_calls} calls, run.json tells of these; events.jsonl in the run folder of all"
    for call in calls:
        started = "" if call.started_at is None else f", {_format_moment(call.started_at)}"
        if call.lanes is None:
            yield (
                f"call {call.number} of {n_calls}{started}: it was killed, or died, before it could tell; what its "
                "lanes decided stands in events.jsonl in the run folder"
            )
            continue
        yield f"call {call.number} of {n_calls}{started}, {format_seconds(call.wall_s)}:"
        yield from (f"  {story.model} ({story.endpoint}): {story.sentence}" for story in call.lanes)
        yield from _tell_end(call, "  ")
        if not call.lanes:
            yield "  nothing was asked"


def _tell_end(call: CallStory, indent: str) -> Iterator[str]:
    """Yield which limit ended a call, when one did."""
    if call.ended_by is not None:
        yield f"{indent}ended by its {call.ended_by}"


def _format_moment(moment: str) -> str:
    """Return a time of run.json as local time; what is none as it stands."""
    try:
        return datetime.fromisoformat(moment).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError):
        return moment


def _describe(story: LaneStory) -> dict[str, Any]:
    told = asdict(story)
    return {key: told[key] for key in ("sentence", "advice", "waited_share")}


def _make_row(lane: Mapping[str, Any]) -> list[str]:
    return [
        str(lane.get("model")),
        str(lane.get("endpoint")),
        format_count(lane.get("asked")),
        format_count(lane.get("retries")),
        format_count(lane.get("rate_limited")),
        format_seconds(lane.get("wall_s")),
        format_seconds(add_up_waits(lane)),
    ]
