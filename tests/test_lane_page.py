"""docs/lanes.md tells of every word that the code writes about lanes, and of no other."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from evalrun.analysis.lane_story import tell_lane
from evalrun.dispatch.lane_log import _EVENTS as EVENT_BY_NOTE
from evalrun.dispatch.pacing import WaitReason
from evalrun.store.events import DROPPED
from tests.lane_page import EVENTS, HISTORY, WAITS

ROOT = Path(__file__).resolve().parent.parent
CODE = [
    ROOT / "evalrun" / "pipeline.py",
    ROOT / "evalrun" / "asking.py",
    *sorted((ROOT / "evalrun" / "dispatch").glob("*.py")),
]


def iterate_calls() -> Iterator[tuple[str, ast.Call]]:
    """Yield each call in the code that tells of lanes, with the name of what is called."""
    for path in CODE:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                called = node.func
                name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
                yield name, node


def read_words(arguments: list[ast.expr]) -> set[str]:
    """Return the words among some arguments, those of either branch of a choice included."""
    nodes = [node for argument in arguments for node in ast.walk(argument)]
    chosen = [node for node in nodes if not isinstance(node, ast.Compare)]
    return {node.value for node in chosen if isinstance(node, ast.Constant) and isinstance(node.value, str)}


def find_events() -> dict[str, set[str]]:
    """Return the names of the values of each kind of event that the code writes, by kind."""
    found: dict[str, set[str]] = {}
    for name, call in iterate_calls():
        is_event = name in {"tell", "on_event"} or (name in {"append", "_tell"} and call.args)
        if is_event and isinstance(call.args[0], ast.Constant) and isinstance(call.args[0].value, str):
            values = {keyword.arg for keyword in call.keywords if keyword.arg not in {None, "at", "lane"}}
            found.setdefault(call.args[0].value, set()).update(map(str, values))
    for note in find_notes():
        kind, value = EVENT_BY_NOTE.get(note, (note, "value"))
        found.setdefault(kind, set()).add(value)
    return found


def find_notes() -> set[str]:
    """Return every word that gets into a lane's history, but for the one that stands for those left out."""
    found: set[str] = set(EVENT_BY_NOTE)
    for name, call in iterate_calls():
        if name in {"note", "_on_note"} and call.args and isinstance(call.args[0], ast.Constant):
            found |= read_words(call.args[:1])
        elif name == "_shut":
            found |= read_words(call.args[1:2])
    return {word for word in found if word != "forgotten"}


def test_every_event_is_documented() -> None:
    """A kind that the code writes stands on the page, and what stands there is written."""
    assert {*find_events(), DROPPED} == set(EVENTS)


@pytest.mark.parametrize("what", [what for what in EVENTS if what not in {"interrupted", "cancelled", DROPPED}])
def test_every_value_of_an_event_is_documented(what: str) -> None:
    """An event tells what the page says, under the names that the page says."""
    names = find_events()[what]
    # An outage begins without a value; the log calls the value of such a note `value` all the same.
    assert set(EVENTS[what].values) == (names if what != "outage" else set())


def test_every_note_of_a_history_is_documented() -> None:
    """A decision that gets into run.json stands on the page, and what stands there is noted."""
    assert {*find_notes(), "forgotten"} == set(HISTORY)


def test_every_reason_to_wait_is_documented() -> None:
    """What a lane may wait for stands on the page, and what stands there can happen."""
    reasons = {
        keyword.value.value
        for name, call in iterate_calls()
        for keyword in call.keywords
        if name == "note_waiting" and keyword.arg == "reason" and isinstance(keyword.value, ast.Constant)
    }
    assert {*get_args(WaitReason), *reasons, "outage"} == set(WAITS)


@pytest.mark.parametrize("reason", WAITS)
def test_every_reason_to_wait_has_its_words(reason: str) -> None:
    """`show --lanes` never falls back to the bare word."""
    lane = {"endpoint": "e", "model": "m", "waited_s": {reason: 50.0}, "history": []}
    assert f"({reason.replace('_', ' ')})" not in tell_lane(lane, wall_s=100.0).sentence
