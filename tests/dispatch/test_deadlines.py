"""What the watch of deadlines owes: everything overdue is ended, once, never early, and nothing else is."""

import asyncio
import time
from dataclasses import dataclass, field

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalrun.dispatch.deadlines import Deadlines, DeadlineWatch
from evalrun.dispatch.exchange import Exchange
from evalrun.dispatch.transport import make_target, open_transport
from evalrun.errors import TimedOutError
from evalrun.options import TimeoutOptions
from tests.dispatch.rig import make_options
from tests.fake_endpoint import FakeEndpoint, FakeReply

pytestmark = pytest.mark.anyio
BODY = b'{"model": "m", "messages": [{"role": "user", "content": "hi"}]}'
HANG_GUARD_S = 10


@dataclass(eq=False, slots=True)
class Task:
    """Something with a deadline, which notes how far past it was ended."""

    deadline_s: float
    late_s: list[float] = field(default_factory=list)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def expire(self) -> None:
        """Note the end."""
        self.late_s.append(time.monotonic() - self.deadline_s)
        self.ended.set()


steps_ms = st.lists(st.integers(0, 30), min_size=1, max_size=4)


@given(tasks=st.lists(st.tuples(steps_ms, st.booleans()), max_size=8))
@settings(max_examples=25, deadline=None)
def test_watch_ends_what_is_overdue_once_and_nothing_else(tasks: list[tuple[list[int], bool]]) -> None:
    """However deadlines are moved: what is still watched at its last is ended once, not before; the rest never is."""

    async def run() -> None:
        watch, made = DeadlineWatch(), []
        for moves_ms, is_removed in tasks:
            task = Task(time.monotonic() + 60)
            watch.add(task)
            for move_ms in moves_ms:
                task.deadline_s = time.monotonic() + move_ms / 1000
                watch.note(task.deadline_s)
            if is_removed:
                watch.remove(task)
            made.append((task, is_removed))
        with anyio.fail_after(HANG_GUARD_S):
            for task, is_removed in made:
                if not is_removed:
                    await task.ended.wait()
        watch.close()
        for task, is_removed in made:
            assert len(task.late_s) == (not is_removed)
            assert all(late_s >= 0 for late_s in task.late_s)

    asyncio.run(run())


async def test_closed_watch_ends_nothing_more() -> None:
    """Once closed, a watch interrupts nobody: its timer does not outlive it."""
    watch, task = DeadlineWatch(), Task(time.monotonic() + 0.005)
    watch.add(task)
    watch.close()
    await anyio.sleep(0.03)
    assert task.late_s == []


@pytest.mark.parametrize("is_ours_first", [True, False])
async def test_cancellation_from_outside_wins_over_a_deadline(is_ours_first: bool) -> None:
    """Who cancels a request just when its deadline passes gets a cancelled task, not an error of the request."""
    ours_s, theirs_s = (0.05, 0.0501) if is_ours_first else (0.0501, 0.05)
    with FakeEndpoint(default=FakeReply(raw=b"", delay_s=1)) as endpoint:
        target = make_target(make_options(endpoint.base_url, timeout_s=TimeoutOptions(total=ours_s)), environ={})
        async with open_transport(target) as transport:
            for _ in range(10):
                with anyio.move_on_after(theirs_s) as scope:
                    with pytest.raises(TimedOutError):
                        await transport.send(BODY)
                    scope.cancel()
                    await anyio.sleep(HANG_GUARD_S)
                assert scope.cancelled_caught


async def test_deadline_leaves_a_cancelled_request_alone() -> None:
    """A deadline that passes while a cancelled request tidies up changes nothing: its canceller still knows it."""
    watch = DeadlineWatch()
    exchange = Exchange(b"", Deadlines.of(TimeoutOptions()), watch)
    with anyio.CancelScope() as scope:
        exchange.begin()
        scope.cancel()
        try:
            try:
                await anyio.sleep(HANG_GUARD_S)
            finally:
                exchange.expire()
                await asyncio.sleep(0)
        except asyncio.CancelledError:
            assert not exchange.take_back_cancel()
            raise
        finally:
            watch.close()
    assert scope.cancelled_caught


async def test_task_is_as_before_after_a_deadline() -> None:
    """A request that was ended by its deadline leaves no cancellation behind: its worker sends the next one."""
    with FakeEndpoint(default=FakeReply(raw=b"", delay_s=1)) as endpoint:
        target = make_target(make_options(endpoint.base_url, timeout_s=TimeoutOptions(total=0.02)), environ={})
        async with open_transport(target) as transport:
            for _ in range(5):
                with pytest.raises(TimedOutError):
                    await transport.send(BODY)
                task = asyncio.current_task()
                assert task is not None
                assert task.cancelling() == 0
                await anyio.lowlevel.checkpoint()
