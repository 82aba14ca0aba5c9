"""A dataset of a million rows, from its check to its report: `python -m benchmarks.million [--rows N]`.

The command line is run as users run it, against a canned server in a process of its own, and killed when half of the
rows are asked, so that the rest is a resume. Printed are seconds and those of CPU, since other work may be on the
machine; the most memory of each stage, which is its resident set, looked at every 50 ms; and what the server counted.
"""

import argparse
import os
import platform
import resource
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import evalrun
from benchmarks.canned import CannedServer, serve_canned
from benchmarks.processes import read_cpu_s, read_memory_mb
from benchmarks.whole.work import Work, write_dataset, write_job

LOOK_EVERY_S = 0.05


@dataclass(slots=True)
class Stretch:
    """One process, from its start to its end."""

    seconds: float = 0.0
    cpu_s: float = 0.0
    first_request_s: float | None = None
    """From its start; None when it sent nothing."""
    first_request_cpu_s: float | None = None
    last_request_s: float | None = None
    peak_mb: dict[str, float] = field(default_factory=dict)
    """By stage: checking, asking, closing."""

    def render(self, name: str) -> str:
        """Return a line of the table."""
        parts = [f"{name:26s} {self.seconds:8.1f} s ({self.cpu_s:.1f} s of CPU)"]
        if self.first_request_s is not None and self.last_request_s is not None:
            cpu = "" if self.first_request_cpu_s is None else f" ({self.first_request_cpu_s:.1f} s of CPU)"
            parts.append(
                f"first request after {self.first_request_s:.1f} s{cpu}, last after {self.last_request_s:.1f} s"
            )
            parts.append("peak " + ", ".join(f"{stage} {peak:.0f} MB" for stage, peak in self.peak_mb.items()))
        else:
            parts.append(f"peak {max(self.peak_mb.values(), default=0):.0f} MB")
        return "; ".join(parts)


def watch(process: subprocess.Popen[bytes], server: CannedServer, *, n_wanted: int, kill_after: int | None) -> Stretch:
    """Look at a process until it ends, or until the server has been asked so often that it shall be killed."""
    began_s, cpu_before_s = time.monotonic(), read_children_cpu_s()
    stretch = Stretch()
    counts = server.read_counts()
    while process.poll() is None:
        time.sleep(LOOK_EVERY_S)
        counts = server.read_counts()
        stage = "checking" if counts.first_at_s is None else "asking" if counts.requests < n_wanted else "closing"
        stretch.peak_mb[stage] = max(stretch.peak_mb.get(stage, 0.0), read_memory_mb(process.pid))
        if stage != "checking" and stretch.first_request_cpu_s is None:
            stretch.first_request_cpu_s = read_cpu_s(process.pid)
        if kill_after is not None and counts.requests >= kill_after:
            process.send_signal(signal.SIGKILL)
            process.wait()
    stretch.seconds = time.monotonic() - began_s
    stretch.cpu_s = read_children_cpu_s() - cpu_before_s
    if counts.first_at_s is not None and counts.last_at_s is not None:
        stretch.first_request_s = counts.first_at_s - began_s
        stretch.last_request_s = counts.last_at_s - began_s
    if kill_after is None and process.returncode:
        sys.exit(f"evalrun ended with exit code {process.returncode}")
    return stretch


def read_children_cpu_s() -> float:
    """Return the CPU seconds of all processes that were waited for."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


class Trial:
    """A folder with a job, and the server that it asks.

    Args:
        folder: Where dataset, job and runs are kept.
        server: The canned server.
        n_rows: Rows of the dataset.
    """

    def __init__(self, folder: Path, server: CannedServer, n_rows: int) -> None:
        self.folder = folder
        self.server = server
        self.n_rows = n_rows

    def call(self, *arguments: str, kill_after: int | None = None) -> Stretch:
        """Run evalrun once and watch it."""
        self.server.begin_stretch()
        command = [sys.executable, "-m", "evalrun", *arguments]
        with (self.folder / "said.txt").open("ab") as said:
            process = subprocess.Popen(command, cwd=self.folder, stdout=said, stderr=said)
            return watch(process, self.server, n_wanted=self.n_rows, kill_after=kill_after)

    def time_scan(self) -> str:
        """Return what a process of its own says of a scan of the journal."""
        command = [sys.executable, "-m", "benchmarks.million", "--scan", str(self.find_run())]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.rstrip()

    def find_run(self) -> Path:
        """Return the one run's folder."""
        (run,) = (self.folder / "reports/million").iterdir()
        return run


def scan(run: Path) -> None:
    """Scan a run's journal; say how long it took."""
    from evalrun.store.folder import RunFolder
    from evalrun.store.journal_scan import scan_journal

    began_s, began_cpu_s = time.monotonic(), time.process_time()
    with scan_journal(RunFolder(run)) as index:
        seconds, cpu_s = time.monotonic() - began_s, time.process_time() - began_cpu_s
        memory = f"then {read_memory_mb(os.getpid()):.0f} MB"
        print(f"scan of {len(index):10,} rows    {seconds:8.1f} s ({cpu_s:.1f} s of CPU); {memory}")


def run_trial(trial: Trial) -> None:
    """Go through the life of a run, and print each stretch as soon as it is known."""
    plain = ("--progress", "plain", "--no-gate")
    first = trial.call("run", "job.yaml", *plain, kill_after=trial.n_rows // 2)
    n_first = trial.server.read_counts().requests
    print(first.render(f"run, killed at {n_first:,}"), flush=True)
    print(trial.time_scan(), flush=True)
    print(trial.call("run", "job.yaml", "--resume", *plain).render("resume, to the end"), flush=True)
    counts = trial.server.read_counts()
    print(trial.time_scan(), flush=True)
    run = str(trial.find_run())
    for command in ("report", "show"):
        print(trial.call(command, run).render(command), flush=True)
    print(f"the server counted {counts.requests:,} requests, {counts.distinct:,} different ones", flush=True)
    for path in sorted(trial.find_run().rglob("*")):
        if path.is_file() and path.stat().st_size > 1024**2:
            print(f"{path.relative_to(trial.find_run())!s:26s} {path.stat().st_size / 1024**2:8.0f} MB")


def main() -> None:
    """Read the command line and run the trial."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.million", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--folder", type=Path, help="keep everything here; default: a temporary folder")
    parser.add_argument(
        "--scan", type=Path, metavar="RUN", help="only scan the journal of this run, and say how long it took"
    )
    options = parser.parse_args()
    if options.scan is not None:
        scan(options.scan)
        return
    with tempfile.TemporaryDirectory() as temporary, serve_canned() as server:
        folder = (options.folder or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        began_s = time.monotonic()
        dataset = folder / "million.jsonl"
        write_dataset(dataset, options.rows)
        work = Work(
            folder=folder,
            dataset=dataset,
            n_prompts=options.rows,
            base_url=server.base_url,
            concurrency=options.concurrency,
        )
        write_job(work, name="million")
        print(f"evalrun {evalrun.__version__}, Python {platform.python_version()}, {os.cpu_count()} cores")
        print(f"{options.rows:,} rows written in {time.monotonic() - began_s:.1f} s", flush=True)
        run_trial(Trial(folder, server, options.rows))


if __name__ == "__main__":
    main()
