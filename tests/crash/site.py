"""A job on a simulator in a process of its own, and what an unkilled run of it leaves."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from tests.cli.processes import serve_simulator
from tests.crash.calls import Nursery
from tests.crash.witness import LedgerKey, find_run

CONCURRENCY = 8

JOB = """\
durability: {durability}
endpoints:
  demo:
    concurrency: {concurrency}
    retry: {{base_s: 0.01, max_s: 0.05}}
    simulator:
      url: "{url}"
      answer_column: answer
      profiles:
        steady: {{accuracy: 0.8, latency_ms: 8}}
        flaky: {{accuracy: 0.6, latency_ms: 5, error_rate: 0.05}}
models:
  - {{name: steady, price: {{input: 1, output: 2}}, endpoint: demo}}
  - {{name: flaky, price: {{input: 3, output: 4}}, endpoint: demo}}
prompts:
  - {{name: plain, user: "{{{{ question }}}}"}}
dataset: samples.jsonl
graders:
  - {{type: contains, value: "{wanted}"}}
"""

NO_URL = "http://127.0.0.1:1"

TIMES = ("run_id", "latency_s", "first_token_s", "queue_s", "started_at", "finished_at")
"""Columns of results.parquet in which two runs of one job differ."""

OF_DOUBT = ("attempts", "billed_usd")
"""Columns in which a row that was in flight at a kill differs besides: one sending more, whose price nobody knows."""


@dataclass(frozen=True, slots=True)
class Site:
    """Where a harness works."""

    folder: Path
    url: str
    """The simulator's."""
    keys: dict[str, LedgerKey]
    """By row_id: what the ledger calls the row."""
    results: pl.DataFrame
    """Of an unkilled run."""
    grades: pl.DataFrame
    """Of an unkilled run."""
    regraded: pl.DataFrame
    """Grades of the other job, which has other graders."""
    took_s: float
    """How long an unkilled run takes."""
    n_bytes: int
    """Size of its journal."""


@contextmanager
def open_site(folder: Path, nursery: Nursery, *, n_samples: int, concurrency: int = CONCURRENCY) -> Iterator[Site]:
    """Write the jobs, start the simulator, and run one of them undisturbed."""
    rows = [{"id": f"s{n}", "question": f"{n} + 1?", "answer": str(n + 1)} for n in range(n_samples)]
    (folder / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    _write_jobs(folder, NO_URL, concurrency)
    with serve_simulator(folder / "power.yaml") as url:
        _write_jobs(folder, url, concurrency)
        yield _make_site(folder, nursery, url)


def _write_jobs(folder: Path, url: str, concurrency: int) -> None:
    facts = {"url": url, "concurrency": concurrency}
    for durability in ("power", "process"):
        text = JOB.format(durability=durability, wanted="{{ answer }}", **facts)
        (folder / f"{durability}.yaml").write_text(text, encoding="utf-8")
    (folder / "other.yaml").write_text(JOB.format(durability="power", wanted="1", **facts), encoding="utf-8")


def _make_site(folder: Path, nursery: Nursery, url: str) -> Site:
    reports, output = folder / "unkilled", folder / "unkilled.txt"
    call = nursery.start("run", "power.yaml", "-o", str(reports), folder=folder, output=output)
    assert call.finish() == 0, call.read_output()
    run = find_run(reports)
    assert run is not None
    results, grades = pl.read_parquet(run / "results.parquet"), pl.read_parquet(run / "grades.parquet")
    regrading = nursery.start("grade", str(run), "--job", "other.yaml", folder=folder, output=output)
    assert regrading.finish() == 0, regrading.read_output()
    named = results.select("row_id", "sample_id", "model", "repeat").iter_rows()
    return Site(
        folder=folder,
        url=url,
        keys={row_id: (sample, model, repeat) for row_id, sample, model, repeat in named},
        results=results,
        grades=grades,
        regraded=pl.read_parquet(run / "grades.parquet"),
        took_s=call.took_s,
        n_bytes=sum(path.stat().st_size for path in run.glob("journal/*.jsonl")),
    )
