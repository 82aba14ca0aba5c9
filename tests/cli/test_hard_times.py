"""What a process may meet as it runs: a terminal that closes, no memory, a clock that jumps, a reader that sleeps."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from evalrun.store.folder import RunFolder
from evalrun.store.journal_scan import scan_journal
from tests.cli.calls import call_evalrun
from tests.cli.processes import ROOT, find_run_folder, start_evalrun
from tests.cli.test_changed_job import JOB, write_samples
from tests.fake_endpoint import FakeEndpoint, reply_text

N_SAMPLES = 60

JUMPING_CLOCK = """
import itertools, sys
from datetime import datetime, timedelta
import evalrun.dispatch.dispatcher, evalrun.pipeline, evalrun.closing, evalrun.resuming
from evalrun.cli.main import main

hours = itertools.cycle([0, 24, -24, 1, -1, 24 * 365 * 14, -24 * 365])

class JumpingClock(datetime):
    @classmethod
    def now(cls, tz=None):
        return datetime.now(tz) + timedelta(hours=next(hours))

found = [module for name, module in sys.modules.items()
         if name.startswith("evalrun.") and vars(module).get("datetime") is datetime]
assert len(found) >= 3
for module in found:
    module.datetime = JumpingClock
sys.exit(main(sys.argv[1:]))
"""


def make_job(folder: Path, endpoint: FakeEndpoint) -> None:
    """Write a job of many samples for an endpoint."""
    write_samples(folder, {f"s{number}": f"question {number}?" for number in range(N_SAMPLES)})
    (folder / "job.yaml").write_text(JOB.format(url=endpoint.base_url), encoding="utf-8")


def wait_for_requests(endpoint: FakeEndpoint, n_requests: int) -> None:
    """Wait until so many requests were seen; the test's time limit ends a hang."""
    while len(endpoint.requests) < n_requests:
        time.sleep(0.01)


def test_closed_terminal_drains_and_commits(tmp_path: Path) -> None:
    """SIGHUP ends a run as Ctrl-C does, with exit code 129: what was sent is done, the rest is pending."""
    with FakeEndpoint(default=reply_text("yes", delay_s=0.05)) as endpoint:
        make_job(tmp_path, endpoint)
        process = start_evalrun("run", "job.yaml", cwd=tmp_path)
        wait_for_requests(endpoint, 6)
        process.send_signal(signal.SIGHUP)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 129, errors
        statuses = pl.read_parquet(find_run_folder(tmp_path) / "results.parquet")["status"].to_list()
        assert (statuses.count("ok"), set(statuses)) == (len(endpoint.requests), {"ok", "pending"})


@pytest.mark.parametrize("n_requests", [4, pytest.param(N_SAMPLES - 2, marks=pytest.mark.soak)])
def test_process_that_runs_out_of_memory_loses_nothing(tmp_path: Path, n_requests: int) -> None:
    """When no more memory is given, early or near the end, what the journal holds is never asked again."""
    with FakeEndpoint(default=reply_text("yes", delay_s=0.02)) as endpoint:
        make_job(tmp_path, endpoint)
        process = start_evalrun("run", "job.yaml", cwd=tmp_path)
        wait_for_requests(endpoint, n_requests)
        resource.prlimit(process.pid, resource.RLIMIT_AS, (1 << 20, resource.RLIM_INFINITY))
        process.communicate(timeout=60)
        with scan_journal(RunFolder.open(find_run_folder(tmp_path))) as index:
            n_done = sum(index.read_numbered(number) is not None for number in range(len(index)))
            n_in_doubt = len(index.in_doubt)
        n_sent = len(endpoint.requests)
        resumed = call_evalrun("run", "job.yaml", "--resume", str(find_run_folder(tmp_path)), cwd=tmp_path)
        assert resumed.returncode == 0, resumed.stderr
        assert len(endpoint.requests) - n_sent == N_SAMPLES - n_done
        assert len(endpoint.requests) <= N_SAMPLES + n_in_doubt
    assert pl.read_parquet(find_run_folder(tmp_path) / "results.parquet")["status"].to_list() == ["ok"] * N_SAMPLES


def test_clock_that_jumps_makes_no_duration_wrong(tmp_path: Path) -> None:
    """Days, hours and fourteen years forth and back at each look: no latency is negative, no row is lost or moved."""
    with FakeEndpoint(default=reply_text("yes")) as endpoint:
        make_job(tmp_path, endpoint)
        process = start_evalrun("run", "job.yaml", cwd=tmp_path, program=("-c", JUMPING_CLOCK))
        output, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors + output
        assert len(endpoint.requests) == N_SAMPLES
    run = find_run_folder(tmp_path)
    results, attempts = pl.read_parquet(run / "results.parquet"), pl.read_parquet(run / "attempts.parquet")
    assert results["sample_id"].to_list() == [f"s{number}" for number in range(N_SAMPLES)]
    assert results["started_at"].dt.year().max() == datetime.now(UTC).year + 14  # The clock did jump.
    assert results.select((pl.col("latency_s", "queue_s") >= 0).all()).row(0) == (True, True)
    assert results["latency_s"].max() < 60  # type: ignore[operator]
    assert attempts.select((pl.col("wait_s", "latency_s") >= 0).all()).row(0) == (True, True)
    assert 0 <= json.loads((run / "run.json").read_text("utf-8"))["wall_s"] < 600


def test_reader_that_sleeps_does_not_stop_the_run(tmp_path: Path) -> None:
    """A full pipe at stderr, whose reader does not read, costs a moment: the run ends with its own exit code."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    while True:
        try:
            os.write(writing, b"x" * 4096)
        except BlockingIOError:
            break
    os.set_blocking(writing, True)
    try:
        with FakeEndpoint(default=reply_text("yes")) as endpoint:
            make_job(tmp_path, endpoint)
            command = ["run", "job.yaml", "--set", "endpoints.gateway.concurrency=8"]
            process = start_full(command, tmp_path, writing)
            process.communicate(timeout=60)
            assert (process.returncode, len(endpoint.requests)) == (0, N_SAMPLES)
    finally:
        os.close(reading)
        os.close(writing)


def start_full(command: list[str], folder: Path, stderr: int) -> subprocess.Popen[str]:
    """Start evalrun with a stderr of the caller's."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}
    words = [sys.executable, "-m", "evalrun", *command]
    return subprocess.Popen(words, cwd=folder, stdout=subprocess.PIPE, stderr=stderr, text=True, env=environment)
