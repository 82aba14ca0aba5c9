"""Runs evalrun as a user does: as a process, with a folder of its own."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent

JOB = """\
endpoints:
  demo:
    concurrency: {concurrency}
    simulator:
      url: "{url}"
      answer_column: answer
      profiles: {{steady: {{accuracy: 0.8, latency_ms: {latency_ms}}}}}
models:
  - {{name: sim, model: steady, price: {{input: 1, output: 2}}}}
prompts:
  - {{name: plain, user: "{{{{ question }}}}"}}
dataset: samples.jsonl
graders:
  - {{type: contains, value: "{{{{ answer }}}}"}}
"""
"""A job on a running simulator: fields url, concurrency, latency_ms."""


def _heed_signals() -> None:
    """Undo what tests under `nohup`, or in the background of a script, are told to ignore."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def start_evalrun(
    *arguments: str, cwd: Path, program: Sequence[str] = ("-m", "evalrun"), **options: Any
) -> subprocess.Popen[str]:
    """Start `evalrun ARGUMENTS`, or another program of Python with them, as a shell in the foreground would."""
    options = {"preexec_fn": _heed_signals, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.Popen(
        [sys.executable, *program, *arguments],
        cwd=cwd,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"},
        **options,
    )


def run_evalrun(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run `evalrun ARGUMENTS` to its end."""
    process = start_evalrun(*arguments, cwd=cwd)
    output, errors = process.communicate(timeout=100)
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


@contextmanager
def serve_simulator(job: Path) -> Iterator[str]:
    """Run `evalrun simulate JOB` on a free port; yield its URL."""
    process = start_evalrun("simulate", str(job), "--port", "0", cwd=job.parent)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)


def load_ledger(url: str) -> Mapping[str, Any]:
    """Return what the simulator at a URL has been asked, request by request."""
    with urllib.request.urlopen(f"{url}/_simulator/ledger?detail=1", timeout=10) as reply:
        ledger: Mapping[str, Any] = json.load(reply)
    return ledger


def write_job(folder: Path, *, url: str, n_samples: int, concurrency: int = 8, latency_ms: float = 1) -> Path:
    """Write a job and its samples into a folder; return the job's path."""
    rows = [{"id": f"s{n}", "question": f"{n} + 1?", "answer": str(n + 1)} for n in range(n_samples)]
    (folder / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    job = folder / "job.yaml"
    job.write_text(JOB.format(url=url, concurrency=concurrency, latency_ms=latency_ms), encoding="utf-8")
    return job


def find_run_folder(folder: Path) -> Path:
    """Return the only run folder below `folder/reports`."""
    (run,) = [path.parent for path in folder.glob("reports/*/*/journal")]
    return run


def strip_times(text: str) -> str:
    """Return text with run ids, durations and throughput replaced, for comparison."""
    return re.sub(r"\d{8}-\d{6}-[0-9a-f]+", "RUN", text)
