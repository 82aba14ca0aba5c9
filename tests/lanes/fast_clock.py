"""An event loop whose clock runs faster than the wall's: minutes of a run in seconds, over real sockets.

Every deadline and sleep of asyncio and anyio goes by it, on both sides of the wire: limits, latencies and evalrun's own
constants shrink alike. What does not shrink is what the machine needs to compute and to carry bytes: at a speed of 10
it counts ten times. A speed of 1 is the loop that evalrun runs on.
"""

import asyncio
import selectors
from collections.abc import Awaitable, Callable
from importlib.util import find_spec
from typing import Any, TypeVar

import anyio

T = TypeVar("T")


class _FastSelector(selectors.DefaultSelector):
    """Waits so many times shorter than it is asked to."""

    def __init__(self, speed: float) -> None:
        super().__init__()
        self._speed = speed

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Wait for sockets."""
        return super().select(None if timeout is None else timeout / self._speed)


class FastLoop(asyncio.SelectorEventLoop):
    """A loop whose time goes by faster.

    Args:
        speed: Its seconds in one of the wall's.
    """

    def __init__(self, speed: float) -> None:
        self._speed = speed
        super().__init__(_FastSelector(speed))

    def time(self) -> float:
        """Return the loop's time; the monotonic clock's times the speed, so that processes agree on it."""
        return super().time() * self._speed


def run_at(speed: float, main: Callable[[], Awaitable[T]]) -> T:
    """Run a coroutine in a loop of such a clock; at 1 in the loop that evalrun itself runs on."""
    options: dict[str, Any]
    if speed == 1:
        options = {"use_uvloop": find_spec("uvloop") is not None}
    else:
        options = {"loop_factory": lambda: FastLoop(speed)}
    return anyio.run(main, backend_options=options)
