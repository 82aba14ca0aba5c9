"""The rows of a lane: in order of their time, and lazily."""

from collections.abc import Iterator

from evalrun.dispatch.lane_queue import LaneQueue
from evalrun.records import Request
from tests.dispatch.rig import make_requests


def test_queue_takes_waiting_rows_in_order_of_their_time() -> None:
    """A row that waits is due at its time, not before; ties go by order."""
    queue: LaneQueue[str] = LaneQueue(iter([]))
    for row, due_s in (("late", 9.0), ("first", 5.0), ("second", 5.0)):
        queue.push(row, due_s)
    assert queue.take_due(4.9) is None
    assert [queue.take_due(9.0) for _ in range(4)] == ["first", "second", "late", None]


def test_queue_takes_the_plan_lazily() -> None:
    """No more is taken from the plan than is asked for, and its end is noticed."""
    taken: list[int] = []

    def plan() -> Iterator[Request]:
        for request in make_requests(2):
            taken.append(request.index)
            yield request

    queue: LaneQueue[str] = LaneQueue(plan())
    assert taken == []
    assert queue.take_new() is not None
    assert taken == [0]
    assert (queue.take_new() is None, queue.take_new() is None, queue.take_new() is None) == (False, True, True)
    assert queue.is_empty


def test_queue_tells_what_is_left() -> None:
    """New rows until the plan has shown its end, and the row that is due first."""
    queue: LaneQueue[str] = LaneQueue(iter([]))
    assert (queue.may_have_new, queue.peek()) == (True, None)
    queue.take_new()
    queue.push("row", 5.0)
    assert (queue.may_have_new, queue.peek()) == (False, (5.0, "row"))


def test_queue_drains_in_order() -> None:
    """What waits is given back in the order in which it would have left."""
    queue: LaneQueue[str] = LaneQueue(iter([]))
    for row, due_s in (("b", 2.0), ("a", 1.0), ("c", 2.0)):
        queue.push(row, due_s)
    assert queue.drain() == ["a", "b", "c"]
    assert queue.drain() == []
