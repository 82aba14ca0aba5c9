"""The clock that goes faster: sleeps and deadlines go by it."""

import time

import anyio

from tests.lanes.fast_clock import run_at


def test_fast_clock_shortens_sleeps_and_deadlines() -> None:
    """An hour passes at once for who sleeps and for who is timed out, and no sleep ends early by the loop's clock."""

    async def main() -> tuple[float, bool]:
        began_s = anyio.current_time()
        await anyio.sleep(3600)
        with anyio.move_on_after(3600) as scope:
            await anyio.sleep_forever()
        return anyio.current_time() - began_s, scope.cancelled_caught

    assert run_at(1e5, main) >= (7200, True)


def test_fast_clocks_agree_across_loops() -> None:
    """Two loops, and whoever reads the machine's clock, mean the same moment."""

    async def read() -> float:
        return anyio.current_time()

    before_s, now_s, after_s = time.monotonic() * 10, run_at(10, read), time.monotonic() * 10
    assert before_s <= now_s <= after_s
