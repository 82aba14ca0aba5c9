"""A killed run goes on where it stopped: nothing lost, nothing asked twice but what was in flight.

Whole processes, a few kills; `tests/crash` kills by the thousand, and checks the journal after each.
"""

import signal
import time
from pathlib import Path

import polars as pl
import pytest

from tests.cli.calls import call_evalrun, serve_simulator_here
from tests.cli.processes import (
    find_run_folder,
    load_ledger,
    start_evalrun,
    write_job,
)

N_SAMPLES, CONCURRENCY = 400, 8


def wait_for_requests(url: str, n_requests: int) -> None:
    """Wait until the simulator has seen a number of requests; a hang ends by the test's own time limit."""
    while load_ledger(url)["totals"]["requests"] < n_requests:
        time.sleep(0.02)


def make_served_job(folder: Path) -> Path:
    """Write a job whose simulator has no address yet."""
    return write_job(folder, url="http://127.0.0.1:1", n_samples=N_SAMPLES, concurrency=CONCURRENCY, latency_ms=10)


def point_at(job: Path, url: str) -> None:
    """Write the simulator's address into a job."""
    job.write_text(job.read_text(encoding="utf-8").replace("http://127.0.0.1:1", url), encoding="utf-8")


@pytest.mark.parametrize("kill_after", [40, *(pytest.param(n, marks=pytest.mark.soak) for n in (1, 200, 390))])
def test_killed_run_is_resumed_without_loss(tmp_path: Path, kill_after: int) -> None:
    """After kill -9 and --resume each row is there once, and at most the requests in flight were sent twice."""
    job = make_served_job(tmp_path)
    with serve_simulator_here(job) as url:
        point_at(job, url)
        process = start_evalrun("run", "job.yaml", cwd=tmp_path)
        wait_for_requests(url, kill_after)
        process.kill()
        process.communicate(timeout=20)
        resumed = call_evalrun("run", "job.yaml", "--resume", cwd=tmp_path)
        ledger = load_ledger(url)
    results = pl.read_parquet(find_run_folder(tmp_path) / "results.parquet")
    sent_twice = [key for key in ledger["detail"] if key["requests"] > 1]
    assert resumed.returncode == 0, resumed.stderr
    assert (results.height, results["row_id"].n_unique()) == (N_SAMPLES, N_SAMPLES)
    assert set(results["status"]) == {"ok"}
    assert len(sent_twice) <= CONCURRENCY


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_run_keeps_what_is_done_and_says_how_to_go_on(
    tmp_path: Path, number: signal.Signals, exit_code: int
) -> None:
    """A signal drains and commits; --resume then sends nothing twice and finishes."""
    job = make_served_job(tmp_path)
    with serve_simulator_here(job) as url:
        point_at(job, url)
        process = start_evalrun("run", "job.yaml", cwd=tmp_path)
        wait_for_requests(url, 50)
        process.send_signal(number)
        output, _ = process.communicate(timeout=60)
        interrupted = pl.read_parquet(find_run_folder(tmp_path) / "results.parquet")
        resumed = call_evalrun("run", "job.yaml", "--resume", cwd=tmp_path)
        ledger = load_ledger(url)
    assert process.returncode == exit_code
    assert "--resume" in output
    assert set(interrupted["status"]) == {"ok", "pending"}
    assert set(interrupted.filter(pl.col("status") == "pending")["error_code"]) == {"interrupted"}
    assert resumed.returncode == 0, resumed.stderr
    assert ledger["totals"]["requests"] == N_SAMPLES


def test_finished_run_is_not_resumed(tmp_path: Path) -> None:
    """--resume without an unfinished run is a usage error, and sends nothing."""
    job = make_served_job(tmp_path)
    with serve_simulator_here(job) as url:
        point_at(job, url)
        first = call_evalrun("run", "job.yaml", "--limit", "5", cwd=tmp_path)
        again = call_evalrun("run", "job.yaml", "--limit", "5", "--resume", cwd=tmp_path)
        ledger = load_ledger(url)
    assert first.returncode == 0, first.stderr
    assert (again.returncode, ledger["totals"]["requests"]) == (2, 5)
    assert "no unfinished run" in again.stderr
