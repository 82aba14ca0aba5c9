"""The records' own `__init__`: all that `dataclass` promises, only faster."""

import copy
import pickle
from dataclasses import FrozenInstanceError, dataclass, field, fields, replace
from inspect import signature

import pytest

from evalrun.quick_init import with_quick_init
from evalrun.records import Usage, UsageSource


@with_quick_init
@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A record with a default."""

    x: int
    y: int = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainPoint:
    """The same as `dataclass` makes it."""

    x: int
    y: int = 7


def test_quick_init_fills_fields_and_defaults() -> None:
    """Every field holds what was given, or its default."""
    assert (Point(x=1), Point(y=2, x=1)) == (Point(x=1, y=7), Point(x=1, y=2))
    assert Usage(prompt_tokens=3, source=UsageSource.REPORTED).prompt_tokens == 3


def test_quick_init_keeps_what_dataclass_made() -> None:
    """Type, signature, names of fields, text and hash are those of a plain frozen dataclass."""
    quick, plain = Point(x=1), PlainPoint(x=1)
    assert type(quick) is Point
    assert signature(Point) == signature(PlainPoint)
    assert [each.name for each in fields(quick)] == [each.name for each in fields(plain)]
    assert repr(quick) == repr(plain).replace("PlainPoint", "Point")
    assert hash(quick) == hash(plain)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, replace, lambda it: pickle.loads(pickle.dumps(it))])
def test_quick_init_record_can_be_copied(copied: object) -> None:
    """Copies of all kinds are equal, and of the same class."""
    assert callable(copied)
    twin = copied(Point(x=1, y=2))
    assert (type(twin), twin) == (Point, Point(x=1, y=2))


def test_quick_init_record_is_closed() -> None:
    """Once made, a record can neither be changed nor be given another attribute."""
    point = Point(x=1)
    with pytest.raises(FrozenInstanceError):
        point.x = 2  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        del point.x
    with pytest.raises((AttributeError, TypeError)):
        point.z = 2  # type: ignore[attr-defined]


@pytest.mark.parametrize(("given", "told"), [({}, "'x'"), ({"x": 1, "z": 2}, "'z'")])
def test_quick_init_refuses_what_dataclass_refuses(given: dict[str, int], told: str) -> None:
    """A field that is missing or unknown is a TypeError that names it."""
    with pytest.raises(TypeError, match=told):
        Point(**given)


def test_quick_init_refuses_a_default_factory() -> None:
    """A default that has to be made for each instance is refused when the class is made, not forgotten."""

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Bag:
        items: list[int] = field(default_factory=list)

    with pytest.raises(TypeError, match=r"Bag: .* plain defaults only"):
        with_quick_init(Bag)
