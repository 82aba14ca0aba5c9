"""Signals: once drains, twice or too slow gives up what is in flight, and nothing that was done is lost."""

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from evalrun.store.folder import RunFolder
from evalrun.store.journal_scan import scan_journal
from tests.cli.calls import call_evalrun, serve_simulator_here
from tests.cli.processes import (
    JOB,
    find_run_folder,
    load_ledger,
    start_evalrun,
    write_job,
)
from tests.cli.test_kill_and_resume import wait_for_requests

CONCURRENCY = 4
WITH_GRACE = "import sys; from evalrun import asking; from evalrun.cli.main import main; asking.GRACE_S = {}; "
WITH_GRACE += "sys.exit(main(sys.argv[1:]))"

WITH_PATIENT_SIMULATOR = "import sys; from evalrun.simulator.server import serve; from evalrun.cli.main import main; "
WITH_PATIENT_SIMULATOR += "serve.__wrapped__.__kwdefaults__['grace_s'] = 10_000; sys.exit(main(sys.argv[1:]))"
"""A simulator that, unless it is told otherwise, waits for hours until its replies are delivered."""


WITH_LOST_INTERRUPT = """
import gc, os, signal, sys
from evalrun.cli.main import main

def interrupt_once(phase, info):
    frame, names = sys._getframe(), set()
    while frame:
        names.add(frame.f_code.co_qualname)
        frame = frame.f_back
    if "Plan.check" in names:
        gc.callbacks.remove(interrupt_once)
        os.kill(os.getpid(), signal.SIGINT)

gc.callbacks.append(interrupt_once)
gc.set_threshold(50, 1, 1)
sys.exit(main(sys.argv[1:]))
"""
"""Ctrl-C at a collection of garbage, where Python drops what the handler raises."""


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder with a job of eight rows, each of them two seconds, and the URL of its simulator."""
    job = write_job(tmp_path, url="http://127.0.0.1:1", n_samples=8, concurrency=CONCURRENCY, latency_ms=2000)
    with serve_simulator_here(job) as url:
        job.write_text(JOB.format(url=url, concurrency=CONCURRENCY, latency_ms=2000), encoding="utf-8")
        yield tmp_path, url


def start_with_grace(folder: Path, grace_s: float) -> subprocess.Popen[str]:
    """Start the run of a folder's job with another grace time than the ten seconds of the product."""
    return start_evalrun("run", "job.yaml", cwd=folder, program=["-c", WITH_GRACE.format(grace_s)])


def wait_for_starts(folder: Path, n_requests: int) -> None:
    """Wait until the journal of the only run names so many requests under way; the test's time limit ends a hang."""
    n_started = 0
    while n_started < n_requests:
        time.sleep(0.02)
        with scan_journal(RunFolder.open(find_run_folder(folder))) as index:
            n_started = len(index.in_doubt)


def read_run(folder: Path) -> tuple[dict[str, Any], list[tuple[str, str | None]]]:
    """Return run.json and the events of the whole run, without their times."""
    run = find_run_folder(folder)
    lines = (run / "events.jsonl").read_text(encoding="utf-8").splitlines()
    events = [(event["what"], event["values"].get("signal")) for event in map(json.loads, lines) if not event["lane"]]
    return json.loads((run / "run.json").read_text(encoding="utf-8")), events


def test_interrupt_gives_up_what_is_in_flight_after_the_grace_time(slow: tuple[Path, str]) -> None:
    """Rows that do not come back in time are in doubt; a resume asks them again, and no other row twice."""
    folder, url = slow
    process = start_with_grace(folder, 0.2)
    wait_for_requests(url, CONCURRENCY)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    manifest, events = read_run(folder)
    resumed = call_evalrun("run", "job.yaml", "--resume", cwd=folder)
    ledger = load_ledger(url)
    results = pl.read_parquet(find_run_folder(folder) / "results.parquet")
    assert process.returncode == 130
    assert "requests still in flight after 0.2 s are given up" in errors
    assert "next:    evalrun run job.yaml --resume" in output
    assert manifest["in_doubt"] == CONCURRENCY
    assert events == [("began", None), ("interrupted", "SIGINT"), ("cancelled", "SIGINT"), ("ended", None)]
    assert resumed.returncode == 0, resumed.stderr
    assert set(results["status"]) == {"ok"}
    assert ledger["totals"]["requests"] == 8 + CONCURRENCY


def test_second_interrupt_stops_at_once(slow: tuple[Path, str]) -> None:
    """Whoever asks twice does not wait for the grace time, here far longer than the test may take."""
    folder, url = slow
    process = start_with_grace(folder, 10_000)
    wait_for_requests(url, CONCURRENCY)
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    while "stopping: requests in flight may finish" not in process.stderr.readline():
        pass
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    manifest, events = read_run(folder)
    assert process.returncode == 130
    assert "stopping now: requests in flight are given up, and may have been billed" in errors
    assert "--resume" in output
    assert manifest["in_doubt"] == CONCURRENCY
    assert events[1:3] == [("interrupted", "SIGINT"), ("cancelled", "SIGINT")]


def test_second_interrupt_waits_for_no_simulator_of_its_own(tmp_path: Path) -> None:
    """The simulator that a run serves itself ends with it, however long its replies would take."""
    job = write_job(tmp_path, url="http://127.0.0.1:1", n_samples=8, concurrency=CONCURRENCY)
    text = job.read_text(encoding="utf-8").replace('      url: "http://127.0.0.1:1"\n', "")
    job.write_text(text.replace("latency_ms: 1}", "latency_ms: 600000}"), encoding="utf-8")
    process = start_evalrun("run", "job.yaml", cwd=tmp_path, program=["-c", WITH_PATIENT_SIMULATOR])
    assert process.stderr is not None
    while "run folder" not in process.stderr.readline():
        pass
    wait_for_starts(tmp_path, CONCURRENCY)
    process.send_signal(signal.SIGINT)
    while "stopping: requests in flight may finish" not in process.stderr.readline():
        pass
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    manifest, _ = read_run(tmp_path)
    assert process.returncode == 130
    assert manifest["in_doubt"] == CONCURRENCY


def test_interrupt_lets_what_is_in_flight_finish(slow: tuple[Path, str]) -> None:
    """Within the grace time answers are kept: each was paid for."""
    folder, url = slow
    process = start_evalrun("run", "job.yaml", cwd=folder)
    wait_for_requests(url, CONCURRENCY)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    manifest, events = read_run(folder)
    assert process.returncode == 143
    assert manifest["in_doubt"] == 0
    assert manifest["counts"] == {**dict.fromkeys(manifest["counts"], 0), "ok": 4, "pending": 4}
    assert manifest["errors"] == {"interrupted": 4}
    assert events == [("began", None), ("interrupted", "SIGTERM"), ("ended", None)]


def test_ignored_signal_is_not_heeded(slow: tuple[Path, str]) -> None:
    """A run under `nohup` outlives its terminal."""
    folder, url = slow
    process = start_evalrun(
        "run", "job.yaml", cwd=folder, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)
    )
    wait_for_requests(url, CONCURRENCY)
    process.send_signal(signal.SIGHUP)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors


def test_interrupt_whose_exception_is_lost_ends_the_check_as_well(tmp_path: Path) -> None:
    """Python drops an exception that is raised in a finaliser; Ctrl-C counts all the same."""
    job = write_job(tmp_path, url="http://127.0.0.1:1", n_samples=1)
    row = json.dumps({"question": "1 + 1?", "answer": "2"}) + "\n"
    (tmp_path / "samples.jsonl").write_text(row * 5_000, encoding="utf-8")
    process = start_evalrun("run", str(job), cwd=tmp_path, program=["-c", WITH_LOST_INTERRUPT])
    _, errors = process.communicate(timeout=100)
    assert "Exception ignored" in errors
    assert (process.returncode, errors.splitlines()[-1]) == (130, "error: interrupted")
    assert not (tmp_path / "reports").exists()


def test_interrupt_during_the_check_ends_it(tmp_path: Path) -> None:
    """Ctrl-C before the first request ends the program at once; there is no run to go on with."""
    job = write_job(tmp_path, url="http://127.0.0.1:1", n_samples=1)
    row = json.dumps({"question": "1 + 1?", "answer": "2"}) + "\n"
    (tmp_path / "samples.jsonl").write_text(row * 1_000_000, encoding="utf-8")
    process = start_evalrun("run", str(job), cwd=tmp_path)
    assert process.stderr is not None
    assert process.stderr.readline() == "checked 100,000 samples\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=100)
    assert (process.returncode, errors.splitlines()[-1]) == (130, "error: interrupted")
    assert "1,000,000" not in errors
    assert not (tmp_path / "reports").exists()
