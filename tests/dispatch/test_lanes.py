"""Lanes: gates, outages, stops and fairness, with a clock made of numbers."""

import random
from collections.abc import Iterator

import pytest

from evalrun.dispatch.lanes import MAX_ALIKE_REFUSALS, MAX_PROBES, Fate, Lane, LaneQueue
from evalrun.errors import (
    ApiError,
    AuthRefusedError,
    BadRequestError,
    ConnectionFaultError,
    RateLimitedError,
    ServerFaultError,
)
from evalrun.options import RetryOptions
from evalrun.records import ErrorCode, LaneProgress, Request
from tests.dispatch.rig import make_requests

REFUSED = ConnectionFaultError(ErrorCode.CONNECT, "refused", was_sent=False)
BAD = BadRequestError(ErrorCode.BAD_REQUEST, "bad", http_status=400)


def make_lane(**options: float) -> Lane:
    """Return a lane with default limits but for the given ones."""
    progress = LaneProgress(endpoint="e", model="m", total=100)
    return Lane(progress, RetryOptions(**options), random.Random(1))  # type: ignore[arg-type] # whole numbers too


def throttled(retry_after_s: float | None = None) -> ApiError:
    """Return a 429."""
    return RateLimitedError(ErrorCode.RATE_LIMITED, "slow", http_status=429, retry_after_s=retry_after_s)


def send_and_fail(lane: Lane, error: ApiError, *, wait_s: float | None = 1.0, now_s: float = 100.0) -> Fate:
    """Let one request leave and come back as a failure."""
    lane.begin()
    lane.end()
    return lane.note_failure(error, wait_s=wait_s, now_s=now_s)


def test_new_lane_is_open() -> None:
    """Nothing has to be waited for before the first request."""
    assert make_lane().opens_at_s() == 0.0


def test_429_makes_the_whole_lane_wait() -> None:
    """After a 429 nothing leaves the lane before the row's own wait is over."""
    lane = make_lane()
    assert send_and_fail(lane, throttled(7), wait_s=7.5) is Fate.RETRY
    assert lane.opens_at_s() == lane.progress.waiting_until_s == 107.5
    assert lane.progress.rate_limited == 1


def test_gate_never_moves_forward_in_time() -> None:
    """A later, shorter wait does not open a gate that is shut for longer."""
    lane = make_lane()
    send_and_fail(lane, throttled(60), wait_s=60)
    send_and_fail(lane, throttled(), wait_s=1)
    assert lane.opens_at_s() == 160.0


def test_429_without_another_try_still_shuts_the_gate() -> None:
    """A row that gives up on a 429 is an error; the lane waits all the same."""
    lane = make_lane(base_s=2)
    assert send_and_fail(lane, throttled(), wait_s=None) is Fate.FAIL
    assert lane.opens_at_s() == 102.0


def test_retry_after_of_an_overloaded_server_shuts_the_gate() -> None:
    """Whoever asks to wait is waited for, not only a 429."""
    lane = make_lane()
    lane.note_answer()
    error = ServerFaultError(ErrorCode.OVERLOADED, "busy", http_status=503, retry_after_s=9)
    assert send_and_fail(lane, error, wait_s=9) is Fate.RETRY
    assert lane.opens_at_s() == 109.0


def test_pause_beyond_the_limit_stops_the_lane() -> None:
    """A Retry-After above `max_pause_s` is not waited for: the row stays pending."""
    lane = make_lane(max_pause_s=600)
    assert send_and_fail(lane, throttled(601), wait_s=601) is Fate.PARK_AND_STOP
    assert send_and_fail(make_lane(max_pause_s=600), throttled(600), wait_s=600) is Fate.RETRY


@pytest.mark.parametrize("code", ["auth", "quota", "forbidden", "model_not_found", "tls", "redirect"])
def test_stopping_codes_park_the_row(code: str) -> None:
    """Failures that would meet every row stop the lane, and the row stays pending."""
    assert send_and_fail(make_lane(), AuthRefusedError(code, "no"), wait_s=None) is Fate.PARK_AND_STOP


def test_stopped_lane_never_opens() -> None:
    """The first reason stands, and nothing leaves any more."""
    lane = make_lane()
    lane.stop("auth", "first")
    lane.stop("quota", "second")
    assert lane.opens_at_s() is None
    assert (lane.progress.stopped_by, lane.progress.stop_message) == ("auth", "first")


def test_outage_at_the_start_probes_one_at_a_time() -> None:
    """After its first failure a lane that never answered lets one request out at a time, ever more slowly."""
    lane = make_lane(base_s=1)
    lane.begin()
    assert send_and_fail(lane, REFUSED) is Fate.RETRY
    assert lane.is_probing
    assert lane.opens_at_s() is None
    lane.end()
    opens_at_s = lane.opens_at_s()
    assert opens_at_s is not None
    assert 100.5 <= opens_at_s <= 101


def test_outage_at_the_start_stops_after_ten_probes() -> None:
    """At most `MAX_PROBES` requests follow the first failure before the lane stops."""
    lane = make_lane()
    fates = [send_and_fail(lane, REFUSED) for _ in range(MAX_PROBES + 1)]
    assert fates == [Fate.RETRY] * MAX_PROBES + [Fate.PARK_AND_STOP]
    assert lane.n_sent == MAX_PROBES + 1


def test_row_out_of_attempts_is_held_during_an_outage() -> None:
    """While nothing was ever heard, it is not the row's fault."""
    assert send_and_fail(make_lane(), REFUSED, wait_s=None) is Fate.HOLD


@pytest.mark.parametrize("proof", ["answer", "429"])
def test_any_answer_ends_the_probing(proof: str) -> None:
    """A completion or any refusal of its own shows that the endpoint is there; its faults are the rows' again."""
    lane = make_lane()
    send_and_fail(lane, REFUSED)
    lane.note_answer() if proof == "answer" else send_and_fail(lane, throttled())
    assert not lane.is_probing
    assert send_and_fail(lane, REFUSED, wait_s=None) is Fate.FAIL


def test_first_rows_refused_alike_stop_the_lane() -> None:
    """Twenty first rows with the same refusal: the job is wrong; the rows are errors all the same."""
    lane = make_lane()
    fates = [send_and_fail(lane, BAD, wait_s=None) for _ in range(MAX_ALIKE_REFUSALS)]
    assert fates == [Fate.FAIL] * (MAX_ALIKE_REFUSALS - 1) + [Fate.FAIL_AND_STOP]


@pytest.mark.parametrize("other", ["answer", "other refusal", "exhausted"])
def test_anything_else_heard_ends_the_count_of_refusals(other: str) -> None:
    """One answer, or one failure of another kind, shows that rows differ."""
    lane = make_lane()
    match other:
        case "answer":
            lane.note_answer()
        case "other refusal":
            send_and_fail(lane, BAD, wait_s=None)
            send_and_fail(lane, BadRequestError(ErrorCode.CONTEXT_LENGTH, "long", http_status=400), wait_s=None)
        case _:
            send_and_fail(lane, throttled(), wait_s=None)
    assert {send_and_fail(lane, BAD, wait_s=None) for _ in range(50)} == {Fate.FAIL}


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


def test_queue_tells_when_something_can_be_taken() -> None:
    """At once while the plan lasts, then at the first waiting row's time, then never."""
    queue: LaneQueue[str] = LaneQueue(iter([]))
    assert queue.next_due_s() == 0.0
    queue.take_new()
    assert queue.next_due_s() is None
    queue.push("row", 5.0)
    assert queue.next_due_s() == 5.0


def test_queue_drains_in_order() -> None:
    """What waits is given back in the order in which it would have left."""
    queue: LaneQueue[str] = LaneQueue(iter([]))
    for row, due_s in (("b", 2.0), ("a", 1.0), ("c", 2.0)):
        queue.push(row, due_s)
    assert queue.drain() == ["a", "b", "c"]
    assert queue.drain() == []
