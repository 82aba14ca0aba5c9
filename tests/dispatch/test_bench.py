"""The bench: one watches, the others sleep, nobody is forgotten."""

import math

import anyio
import pytest

from evalrun.dispatch.bench import Bench

pytestmark = pytest.mark.anyio


class Crew:
    """Workers that sit down once each and note when they were called."""

    def __init__(self) -> None:
        self.bench = Bench()
        self.up: list[str] = []

    async def sit(self, name: str, for_s: float = math.inf) -> None:
        """Sit until called."""
        await self.bench.sit(anyio.current_time() + for_s, for_s)
        self.up.append(name)


async def settle() -> None:
    """Let everybody who was called stand up."""
    for _ in range(3):
        await anyio.lowlevel.checkpoint()


async def test_only_the_watcher_wakes_by_itself() -> None:
    """At the time it knows of, one of a hundred stands up; the others sleep on."""
    crew = Crew()
    async with anyio.create_task_group() as group:
        for n in range(100):
            group.start_soon(crew.sit, f"w{n}", 0.01)
        await anyio.sleep(0.05)
        assert crew.up == ["w0"]
        crew.bench.call_all()
    assert len(crew.up) == 100
    assert not crew.bench.is_occupied


async def test_somebody_watches_in_place_of_one_who_found_work() -> None:
    """Whoever leaves with work calls one of those who sit."""
    crew = Crew()
    async with anyio.create_task_group() as group:
        group.start_soon(crew.sit, "first")
        group.start_soon(crew.sit, "second")
        group.start_soon(crew.sit, "third")
        await settle()
        crew.bench.call_one()
        crew.bench.expect(anyio.current_time() + 60)
        await settle()
        assert sorted(crew.up) == ["first", "third"]
        crew.bench.call_all()


async def test_earlier_work_calls_the_watcher() -> None:
    """A watcher that sleeps too long is called; one that wakes early enough is left alone."""
    crew = Crew()
    async with anyio.create_task_group() as group:
        group.start_soon(crew.sit, "watcher", 60)
        await settle()
        crew.bench.expect(anyio.current_time() + 70)
        await settle()
        assert crew.up == []
        group.start_soon(crew.sit, "other", 1)
        await settle()
        assert crew.up == ["watcher"]
        crew.bench.call_all()
        crew.bench.expect(0.0)
