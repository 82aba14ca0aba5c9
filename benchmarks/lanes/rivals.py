"""The same requests as users send them today: the openai SDK with its own retries behind a semaphore of 100."""

import time
from argparse import Namespace
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version

import anyio
import openai

from benchmarks.lanes.tables import Table
from tests.dispatch.test_pacing_scenarios import COLUMNS, IN_FLIGHT
from tests.lanes.fast_clock import run_at
from tests.lanes.limits import make_column
from tests.lanes.servers import serve

MAX_S = 600.0
"""After which a run is given up."""
RETRIES = (2, 20)
"""The SDK's default, and what users set it to."""


@dataclass(slots=True, kw_only=True)
class Asked:
    """What came of the rows."""

    n_answered: int = 0
    makespan_s: float = 0.0


async def ask(url: str, n_rows: int, max_retries: int) -> Asked:
    """Ask for every row, as many at once as there are slots."""
    asked, slots, began_s = Asked(), anyio.Semaphore(IN_FLIGHT), time.monotonic()
    async with openai.AsyncOpenAI(api_key="any", base_url=url, max_retries=max_retries) as client:

        async def ask_one(index: int) -> None:
            async with slots:
                try:
                    await client.chat.completions.create(
                        model="m", messages=[{"role": "user", "content": f"r{index}."}]
                    )
                except openai.OpenAIError:
                    return
            asked.n_answered += 1

        with anyio.move_on_after(MAX_S):
            async with anyio.create_task_group() as group:
                for index in range(n_rows):
                    group.start_soon(ask_one, index)
        asked.makespan_s = time.monotonic() - began_s
    return asked


def run_rivals(given: Namespace) -> Sequence[Table]:
    """Let the SDK meet the four servers of the first table, at the wall's pace, all at the same time."""
    n_rows = given.rows or 1500
    cases = [(title, max_retries) for title in COLUMNS for max_retries in RETRIES]
    asked: dict[int, Asked] = {}
    plans = [make_column(title, "unknown", n_rows=n_rows, seed=given.seed).plan for title, _ in cases]
    with serve(plans) as servers:

        async def run_one(place: int) -> None:
            asked[place] = await ask(servers[place].base_url, n_rows, cases[place][1])

        async def run_all() -> None:
            async with anyio.create_task_group() as group:
                for place in range(len(cases)):
                    group.start_soon(run_one, place)

        run_at(1, run_all)
    table = Table(
        f"openai {version('openai')}, {IN_FLIGHT} at once, {n_rows} requests; given up after {MAX_S:.0f} s",
        ("server", "retries", "rows lost", "429s", "s"),
        has_verdict=False,
    )
    for place, (title, max_retries) in enumerate(cases):
        statuses: Counter[int] = servers[place].ledger.count_statuses()
        n_lost = n_rows - asked[place].n_answered
        table.add(title, max_retries, n_lost, statuses[429], f"{asked[place].makespan_s:.0f}")
    return [table]
