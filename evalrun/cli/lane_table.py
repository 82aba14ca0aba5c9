"""`evalrun show --lanes`: why a run took as long as it did, lane by lane."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from evalrun.analysis.lane_story import LaneStory, tell_lanes
from evalrun.cli.console import (
    Column,
    clean_text,
    format_count,
    format_seconds,
    make_table,
    open_console,
    print_json,
)
from evalrun.cli.results import SIMULATED
from evalrun.records import SCHEMA_VERSION


def print_lanes(manifest: Mapping[str, Any], *, as_json: bool) -> None:
    """Print the story of each lane of a run's last call.

    Args:
        manifest: run.json.
        as_json: One JSON object, with what run.json holds of each lane, instead of text.
    """
    stories = tell_lanes(manifest)
    lanes = [lane for lane in manifest.get("lanes") or () if isinstance(lane, Mapping)]
    if as_json:
        facts = {"schema_version": SCHEMA_VERSION, "run_id": manifest["run_id"], "simulated": manifest["is_simulated"]}
        told = [{**lane, **_describe(story)} for lane, story in zip(lanes, stories, strict=True)]
        print_json({**facts, "wall_s": manifest.get("wall_s"), "budget": manifest.get("budget"), "lanes": told})
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
    console.print(make_table(columns, [_make_row(lane) for lane in lanes], width=console.width))
    for story in stories:
        console.print(clean_text(f"{story.model} ({story.endpoint}): {story.sentence}"))
        if story.advice is not None:
            console.print(clean_text(f"  advice: {story.advice}"))
    calls = manifest.get("n_calls", 1)
    if calls > 1:
        console.print(f"these are the lanes of the last of {calls} calls; events.jsonl in the run folder tells of all")


def _describe(story: LaneStory) -> dict[str, Any]:
    told = asdict(story)
    return {key: told[key] for key in ("sentence", "advice", "waited_share")}


def _make_row(lane: Mapping[str, Any]) -> list[str]:
    waited = lane.get("waited_s")
    seconds = sum(waited.values()) if isinstance(waited, Mapping) else None
    return [
        str(lane.get("model")),
        str(lane.get("endpoint")),
        format_count(lane.get("asked")),
        format_count(lane.get("retries")),
        format_count(lane.get("rate_limited")),
        format_seconds(lane.get("wall_s")),
        format_seconds(seconds),
    ]
