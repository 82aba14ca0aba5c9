"""JSON that says the right answer, or a wrong one, where a schema has an obvious place for it.

Enters: a schema and what is told about the answer. Leaves: a value that the schema accepts. The answer is the whole
value when the schema accepts it as that; else it goes to the place called `answer`, or to the one place that takes it.
Where the schema leaves nothing wrong to say (a `const`, an enum of one), the reply is right; where it has no obvious
place, the answer is not said.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any, Final

from evalrun.simulator import answers
from evalrun.simulator.codec import parse_json
from evalrun.simulator.json_values import make_value
from evalrun.simulator.patterns import Pick, SpentError
from evalrun.simulator.schemas import NoValueError, Schema, is_same

ANSWER_NAMES: Final = ("answer", "final_answer", "result", "value", "label", "output")
"""Names of the place for the answer, the first one that is there."""

_MAX_PLACES: Final = 12
"""Of more places than this, none is obvious but by its name."""
_MAX_LEVELS: Final = 4
_OTHER_TURNS: Final = 8
_ANY_TEXT: Final = "copper, or silk"
"""What only a place takes that takes any text."""
_BOOLEANS: Final = {"yes": True, "no": False}

_Place = tuple[str, ...]


def make_answer(root: Any, answer: str | None, pick: Pick, *, is_right: bool) -> Any:
    """Return a value that satisfies a schema and says the right answer, or a wrong one.

    Args:
        root: The schema.
        answer: The right answer; None when it is not known.
        pick: Where chance comes from.
        is_right: Whether to say the right answer.

    Raises:
        NoValueError: The schema is malformed, or no value was found that satisfies it.
    """
    try:
        schema = Schema(root)
        value = make_value(schema, pick)
        right = "" if answer is None else answer.strip()
        return _say(schema, value, right, pick, is_right=is_right) if right else value
    except RecursionError as error:
        raise NoValueError("it holds a value that is nested too deep") from error
    except SpentError as error:
        raise NoValueError("finding out what satisfies it takes too many steps") from error


def _say(schema: Schema, value: Any, right: str, pick: Pick, *, is_right: bool) -> Any:
    """Return the value with the right answer, or a wrong one, in its place."""
    for candidate in _list_readings(right):
        is_whole = isinstance(candidate, dict | list) or not isinstance(value, dict)
        if is_whole and schema.accepts(candidate):
            return candidate if is_right else _find_wrong(schema, (), candidate, value, pick)
    place = _find_place(schema, value, right)
    if place is None:
        return value
    said = next(reading for reading in _list_readings(right) if schema.accepts(_put(value, place, reading)))
    if is_right:
        return _put(value, place, said)
    return _find_wrong(schema, place, said, value, pick)


def _list_readings(text: str) -> list[Any]:
    """Return the values that an answer's text may stand for: an object or array, else the text first."""
    bare = text.strip("().")
    readings: list[Any] = [*dict.fromkeys((text, text.lower(), text.upper(), bare, bare.lower(), bare.upper()))]
    if bare.lower() in _BOOLEANS:
        readings.append(_BOOLEANS[bare.lower()])
    try:
        written = text if text.startswith(("{", "[")) else bare.replace(",", "")
        value = parse_json(written.encode("utf-8", "surrogatepass"))
    except ValueError:
        return readings
    return [value, *readings] if isinstance(value, dict | list) else [*readings, value]


def _find_place(schema: Schema, value: Any, right: str) -> _Place | None:
    """Return where the answer goes; None when no place is obvious."""
    readings = _list_readings(right)
    places = list(_scan_places(value, ()))
    for name in ANSWER_NAMES:
        for place in places:
            if place[-1].casefold() == name and _takes(schema, value, place, readings):
                return place
    if len(places) > _MAX_PLACES:
        return None
    places = [place for place in places if _takes(schema, value, place, readings)]
    # A place that takes only some values (numbers, an enum) was made for them; one for any text may be for remarks.
    narrow = [place for place in places if not _takes(schema, value, place, [_ANY_TEXT])]
    found = narrow or places
    return found[0] if len(found) == 1 else None


def _takes(schema: Schema, value: Any, place: _Place, readings: list[Any]) -> bool:
    return any(schema.accepts(_put(value, place, reading)) for reading in readings)


def _scan_places(value: Any, path: _Place) -> Iterator[_Place]:
    """Yield the paths of all leaves that lie in objects."""
    if isinstance(value, dict) and len(path) < _MAX_LEVELS:
        for name, part in value.items():
            yield from _scan_places(part, (*path, name))
    elif path and not isinstance(value, dict | list):
        yield path


def _find_wrong(schema: Schema, place: _Place, right: Any, value: Any, pick: Pick) -> Any:
    """Return an accepted value that does not say the right answer; one that does when there is no other."""
    for wrong in _scan_wrong(schema, place, right, value, pick):
        candidate = _put(value, place, wrong)
        if not is_same(wrong, right) and schema.accepts(candidate):
            return candidate
    return _put(value, place, right)


def _scan_wrong(schema: Schema, place: _Place, right: Any, value: Any, pick: Pick) -> Iterator[Any]:
    """Yield values of the same kind, then whatever else the schema makes for that place."""
    if isinstance(right, dict | list):
        for leaf in list(_scan_places(right, ()))[:_MAX_PLACES]:
            yield from (_put(right, leaf, wrong) for wrong in _scan_near(_get(right, leaf), pick))
    else:
        yield from _scan_near(right, pick)
    yield _get(value, place)
    for turn in range(_OTHER_TURNS):
        other = make_value(schema, partial(_pick_turn, pick, turn))
        if (found := _get(other, place)) is not None:
            yield found


def _scan_near(right: Any, pick: Pick) -> Iterator[Any]:
    """Yield wrong values of the same type."""
    if isinstance(right, bool):
        yield not right
    elif isinstance(right, int | float):
        step = max(2, abs(right) // 10)
        yield from (right + step, right - step, right + 1, right - 1)
    elif isinstance(right, str) and right.strip():
        wrong = answers.make_wrong_text(right, "plain", pick)
        yield from (wrong, wrong.lower(), wrong.upper())


def _pick_turn(pick: Pick, turn: int, purpose: str) -> float:
    return pick(f"other {turn} {purpose}")


def _get(value: Any, place: _Place) -> Any:
    for name in place:
        if not isinstance(value, dict) or name not in value:
            return None
        value = value[name]
    return value


def _put(value: Any, place: _Place, leaf: Any) -> Any:
    """Return a copy of a value with another leaf in one place."""
    if not place:
        return leaf
    copy = dict(value)
    copy[place[0]] = _put(value[place[0]], place[1:], leaf)
    return copy
