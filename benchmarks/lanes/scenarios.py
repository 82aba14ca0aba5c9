"""Each scenario at full size, as a table."""

from argparse import Namespace
from collections.abc import Sequence

from benchmarks.lanes.tables import Table
from evalrun.records import Status
from tests.dispatch.test_pacing_scenarios import COLUMNS
from tests.lanes import endurance, faults, outages, waits
from tests.lanes.limits import Scenario, make_column, make_simulated, make_token_limited
from tests.lanes.limits import run_scenarios as run_limited

KNOWLEDGE = ("known", "headers", "unknown")


def run_limits(given: Namespace) -> Sequence[Table]:
    """Meet limits of every kind, all at the same time."""
    n_rows, n_token_rows = given.rows or 1500, given.rows or 600
    found: list[Scenario] = [
        make_column(title, knowledge, n_rows=n_rows, seed=given.seed) for title in COLUMNS for knowledge in KNOWLEDGE
    ]
    for window_s in (1.0, 10.0, 60.0):
        title = f"windows of {window_s:g} s"
        settings = {"n_rows": n_rows, "seed": given.seed, "window_s": window_s}
        found.append(make_simulated(title, "known", **settings))
        found.append(make_simulated(f"{title}, Retry-After", "unknown", **settings))
        found.append(make_simulated(f"{title}, no header", "unknown", **settings, retry_after="none"))
    found.append(make_simulated("bucket of 60 s", "headers", n_rows=n_rows, seed=given.seed))
    for knowledge in KNOWLEDGE:
        settings = {"n_rows": n_token_rows, "seed": given.seed}
        found.append(make_token_limited("bucket of 60 s", knowledge, **settings))
        found.append(make_token_limited("windows of 10 s", knowledge, **settings, window_s=10.0))
    table = Table(
        f"limits: {n_rows} requests, 600 per minute; tokens: {n_token_rows} requests, 300,000 tokens per minute",
        ("server", "limit", "429s", "s", "× ideal", "most 429s of a row"),
    )
    for result in run_limited(found, speed=given.speed):
        scenario = result.scenario
        table.add(
            scenario.server,
            scenario.knowledge,
            result.ledger.n_throttled,
            f"{result.asked.makespan_s:.0f}",
            f"{result.slowdown:.2f}",
            result.asked.most_refusals,
            is_held=result.is_held,
        )
    return [table]


def run_waits(given: Namespace) -> Sequence[Table]:
    """Wait as long as every form of Retry-After says."""
    columns = ("Retry-After", "s", "requests while it waits", "resumed after it, s", "other lane, × its pace before")
    table = Table("waits: a 429 on one of two lanes", columns)
    for result in waits.run_waits(speed=given.speed):
        figures = (f"{result.wait_s:g}", result.n_while_waiting, f"{result.late_s:.3f}", f"{result.other_pace:.2f}")
        table.add(result.form, *figures, is_held=result.is_held)
    return [table]


def run_outages(given: Namespace) -> Sequence[Table]:
    """Be down for a minute under 64 in flight."""
    n_rows = given.rows or 2400
    shape = outages.Shape(n_rows=n_rows, concurrency=64, latency_s=1, begins_s=20, lasts_s=60)
    columns = (
        "endpoint",
        "failed rows",
        "requests in it",
        "at most",
        "requests after / rows left",
        "resumed after it, s",
    )
    table = Table(f"outage: {n_rows} rows, 64 in flight, down for 60 s", columns)
    hows: tuple[outages.How, ...] = ("500", "reset", "refused")
    for how in hows:
        result = outages.run_outage(how, shape, speed=given.speed)
        after = f"{result.n_after} / {result.n_left} = {result.amplification:.3f}"
        during = (result.n_during, f"{result.most_during:.0f}")
        n_failed = n_rows - result.asked.statuses[Status.OK]
        table.add(how, n_failed, *during, after, f"{result.late_s:.1f}", is_held=result.is_held)
    return [table]


def run_faults(given: Namespace) -> Sequence[Table]:
    """Fail six requests of ten."""
    n_rows = given.rows or 10_000
    columns = ("after the head", "outcomes", "failed rows, %", "by the series, %", "requests per row", "by the series")
    table = Table(f"faults: {n_rows} rows, 40 % 503s, 20 % cut after the head", columns)
    hows: tuple[faults.How, ...] = ("rst", "length")
    for how in hows:
        result = faults.run_faults(how, n_rows, speed=given.speed, latency_ms=50 * given.speed)
        expected = result.expected
        failed = (f"{100 * result.failed_share:.2f}", f"{100 * expected.failed_share:.2f}")
        per_row = (f"{result.requests_per_row:.3f}", f"{expected.requests_per_row:.3f}")
        table.add(how, result.asked.n_with_outcome, *failed, *per_row, is_held=result.is_held)
    return [table]


def run_endurance(given: Namespace) -> Sequence[Table]:
    """Ask a hundred thousand times."""
    n_rows = given.rows or 100_000
    result = endurance.run_endurance(n_rows - n_rows // 10, n_rows // 10, n_warm=min(n_rows, 10_000))
    before, after = result.before, result.after
    table = Table(f"endurance: {n_rows} requests on two lanes, one slow", ("held by the process", "before", "after"))
    table.add("tasks", before.n_tasks, after.n_tasks, is_held=after.n_tasks == before.n_tasks)
    is_same = after.n_descriptors == before.n_descriptors
    table.add("file descriptors", before.n_descriptors, after.n_descriptors, is_held=is_same)
    table.add("slots", 0, result.n_slots_lost, is_held=result.n_slots_lost == 0)
    is_same = after.n_objects - before.n_objects <= endurance.MAX_NEW_OBJECTS
    table.add("objects", before.n_objects, after.n_objects, is_held=is_same)
    megabytes = [f"{held.memory_bytes / 1e6:.1f}" for held in (before, after)]
    table.add("memory, MB", *megabytes, is_held=result.is_lean)
    lanes = Table(f"{result.asked.makespan_s:.0f} s", ("lane", "rows", "fewest answers in any second", "slots"))
    for lane, n in result.n_by_lane.items():
        slots = f"{result.mean_slots[lane]:.1f} of {endurance.CONCURRENCY}"
        lanes.add(lane, n, result.leanest[lane], slots, is_held=result.leanest[lane] > 0 and result.is_complete)
    return [table, lanes]
