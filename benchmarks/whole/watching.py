"""One process beside the canned server, which tells when the asking began and ended and how much was in flight."""

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.canned import CannedServer, Counts
from benchmarks.processes import CommandFailedError, Taken, run_command
from benchmarks.whole.contenders import EVALRUN, ROOT, Contender, make_environ
from benchmarks.whole.work import Work

TIMEOUT_S = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """What a process and the server saw of the same work."""

    n_prompts: int
    taken: Taken
    counts: Counts
    latencies_s: Mapping[str, float] | None
    """Median and 99th percentile as evalrun's own table has them, by the names `p50` and `p99`; None for others."""

    @property
    def first_at_s(self) -> float:
        """When the first request came to the server."""
        assert self.counts.first_at_s is not None
        return self.counts.first_at_s

    @property
    def last_at_s(self) -> float:
        """When the last reply left the server."""
        assert self.counts.last_reply_at_s is not None
        return self.counts.last_reply_at_s

    @property
    def in_loop_s(self) -> float:
        """Seconds from the first request to the last reply."""
        return self.last_at_s - self.first_at_s

    @property
    def per_s(self) -> float:
        """Requests per second of these."""
        return self.n_prompts / self.in_loop_s

    @property
    def cpu_in_loop_s(self) -> float:
        """CPU between first request and last reply, without that of children."""
        return self.taken.find_cpu_s(self.last_at_s) - self.taken.find_cpu_s(self.first_at_s)

    def find_overhead_ms(self, quantile: str) -> float:
        """Return what evalrun's latency has over the server's own, in ms; `quantile` is p50 or p99."""
        own_s = self.counts.delay_p50_s if quantile == "p50" else self.counts.delay_p99_s
        assert own_s is not None
        assert self.latencies_s is not None
        return (self.latencies_s[quantile] - own_s) * 1000


def watch_work(
    contender: Contender, command: list[str], work: Work, server: CannedServer, *, place: Path, core: int | None
) -> Watched:
    """Let a contender do the work.

    Args:
        contender: Who it is.
        command: The command, its program first.
        work: What it does.
        server: The server that it asks.
        place: The contender's own folder.
        core: The one core that it may use; None for all.

    Raises:
        CommandFailedError: It failed, or sent another number of requests than prompts.
    """
    server.begin_stretch()
    n_before = server.read_counts().requests
    environ = make_environ(contender, work, place)
    taken = run_command(command, folder=work.folder, environ=environ, core=core, timeout_s=TIMEOUT_S, should_look=True)
    counts = server.read_counts()
    if counts.requests - n_before != work.n_prompts:
        raise CommandFailedError(f"sent {counts.requests - n_before:,} requests for {work.n_prompts:,} prompts")
    latencies_s = read_latencies(find_run(work.folder)) if contender.name == EVALRUN else None
    return Watched(n_prompts=work.n_prompts, taken=taken, counts=counts, latencies_s=latencies_s)


def find_run(folder: Path) -> Path:
    """Return the one run that lies in a folder of work."""
    (run,) = (folder / "reports/whole").iterdir()
    return run


def read_latencies(run: Path) -> dict[str, float]:
    """Return median and 99th percentile of a run's latencies, read by a process of its own: polars is large."""
    command = [sys.executable, "-m", "benchmarks.whole.latencies", str(run)]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def empty_folder(folder: Path) -> Path:
    """Make a folder that is empty, and return it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
