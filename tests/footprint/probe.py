"""Runs jobs in this process and prints, as JSON, what one of their requests costs in things that can be counted.

Usage: python -m tests.footprint.probe JOB MEASURE,… [MUTANT,…], where a measure is one of `MEASURES`. What happens
once in a run is no part of a figure: each is the difference between a long and a short run, or between late and early
in one.
"""

import gc
import json
import os
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

BARE_MODULES = frozenset(sys.modules)
"""What an interpreter has loaded anyway, and what this module needs."""

CONCURRENCY = 16
"""Requests in flight: enough for what grows with their number to show, few enough to be a small part of a short run."""

N_ROWS = 2000
"""Rows of the job."""

WARM_UP = 20
"""Rows of a run that is not counted: it fills what is filled once in a process."""

SHORT, LONG = 80, 140
"""Rows of the two runs whose steps are compared: by the first, all that a lane learns is learned."""

CALLS_LONG = 240
"""Rows of the longer run whose system calls are compared; the shorter one has `SHORT`."""

EARLY = 500
"""Rows that are done where living objects are counted first; they are counted again at the end of the asking."""

MARK = "/evalrun-footprint-mark"
"""A file that is not there; asking for it shows strace where a run begins and ends."""

N_LARGEST = 8
"""Functions that are named where a count rose."""

Found = dict[str, Any]
"""What a measure found: `counts` by name, the `largest` functions by stage, `modules` that are loaded."""


class _EnoughError(Exception):
    """Ends a run of which enough was seen."""


def _ignore(progress: Any) -> None:
    del progress


def run(job: Path, limit: int, on_progress: Callable[[Any], None] = _ignore) -> None:
    """Run the first samples of a job, in a folder that is gone afterwards."""
    import anyio

    from evalrun.job.plan import Selection
    from evalrun.pipeline import run_job
    from evalrun.resuming import RunSettings

    async def call() -> None:
        result = await run_job(settings, on_progress=on_progress)
        assert result.summary.statuses["ok"] == limit

    with tempfile.TemporaryDirectory() as folder:
        settings = RunSettings(job_path=job, reports_dir=Path(folder), selection=Selection(limit=limit))
        try:
            anyio.run(call, backend="asyncio", backend_options={"use_uvloop": True})
        except _EnoughError:
            return


def list_imports(job: Path) -> Found:
    """Return the modules that `evalrun run` has loaded when it is about to send its first request."""
    import evalrun.cli.run_command

    assert evalrun.cli.run_command is not None
    loaded: set[str] = set()

    def look(progress: Any) -> None:
        if progress.stage == "asking":
            loaded.update(sys.modules)
            raise _EnoughError

    run(job, WARM_UP, look)
    return {"modules": sorted(loaded - BARE_MODULES)}


def measure_steps(job: Path) -> Found:
    """Return steps per row by stage and part of the house, and the functions that take most of them."""
    from tests.footprint.steps import Stages, StepCounter, compare_stages, find_part, name_code

    def count(limit: int) -> Stages:
        counter = StepCounter()

        def enter(progress: Any) -> None:
            # Between the check and the asking the rows of a new run are not looked at.
            counter.enter("checking" if progress.stage == "planning" else progress.stage)

        counter.start()
        try:
            run(job, limit, enter)
        finally:
            counter.stop()
        return counter.stages

    run(job, WARM_UP)
    stages = compare_stages(count(SHORT), count(LONG), LONG - SHORT)
    counts: Counter[str] = Counter()
    for stage, by_code in stages.items():
        counts[f"{stage}/all"] += sum(by_code.values())
        for code, n in by_code.items():
            counts[f"{stage}/{find_part(code)}"] += n
    largest = {
        stage: [f"{name_code(code)} {n:g}" for code, n in Counter(by_code).most_common(N_LARGEST)]
        for stage, by_code in stages.items()
    }
    return {"counts": counts, "largest": largest}


def measure_living(job: Path) -> Found:
    """Return what a thousand requests more leave alive while a run goes on: objects, and blocks of memory.

    The trend of many looks counts: what is in flight differs from one to the next.
    """
    seen: list[tuple[int, int, int]] = []

    def look(progress: Any) -> None:
        if progress.stage == "closing":
            raise _EnoughError
        n_done = sum(lane.done for lane in progress.lanes)
        if progress.stage == "asking" and n_done >= EARLY:
            gc.collect()
            seen.append((n_done, len(gc.get_objects()), sys.getallocatedblocks()))

    run(job, N_ROWS, look)
    n_done, objects, blocks = zip(*seen, strict=True)
    return {
        "counts": {
            "alive/objects": 1000 * statistics.linear_regression(n_done, objects).slope,
            "alive/blocks": 1000 * statistics.linear_regression(n_done, blocks).slope,
        }
    }


def show_calls(job: Path) -> Found:
    """Run a short and a long job between marks, for strace to count."""
    run(job, WARM_UP)
    for limit in (SHORT, CALLS_LONG):
        os.path.lexists(MARK)
        run(job, limit)
    os.path.lexists(MARK)
    return {}


MEASURES = {"imports": list_imports, "steps": measure_steps, "living": measure_living, "calls": show_calls}


def main() -> None:
    """Plant, measure, print."""
    job, measures, mutants = Path(sys.argv[1]), sys.argv[2].split(","), sys.argv[3:]
    if mutants:
        from tests.footprint.mutants import MUTANTS

        for mutant in mutants[0].split(","):
            MUTANTS[mutant]()
    found: Found = {"counts": {}, "largest": {}, "modules": []}
    for measure in measures:
        for kind, values in MEASURES[measure](job).items():
            found[kind] = [*found[kind], *values] if kind == "modules" else {**found[kind], **values}
    print(json.dumps(found))  # noqa: T201 - its result


if __name__ == "__main__":
    main()
