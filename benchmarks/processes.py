"""Run one command and tell what it took: wall seconds, seconds of CPU, memory, and both over time.

Every figure is that of the process and of the children that it waited for.
"""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from bisect import bisect_left
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.engines.servers import pin

LOOK_EVERY_S = 0.02
_NOT_FOR_A_TABLE = re.compile(r"\x1b\[[0-9;]*m|[|\x00-\x1f]")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class CommandFailedError(Exception):
    """A command ended with another exit code than 0, or was stopped because it took too long."""


@dataclass(frozen=True, slots=True)
class Look:
    """One look at a process."""

    at_s: float
    """On the machine's monotonic clock."""
    cpu_s: float
    memory_mb: float
    """Its resident set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What one command took."""

    began_s: float
    """On the machine's monotonic clock."""
    wall_s: float
    cpu_s: float
    peak_mb: float
    """The largest resident set of it or any child."""
    looks: list[Look] = field(default_factory=list)

    def find_cpu_s(self, at_s: float) -> float:
        """Return the CPU that it had used at a time, as far as the kernel counts (hundredths of a second)."""
        return self.looks[min(bisect_left(self.looks, at_s, key=lambda look: look.at_s), len(self.looks) - 1)].cpu_s

    def find_peak_mb(self, from_s: float, to_s: float) -> float:
        """Return its largest memory between two times; 0 when nobody looked in between."""
        return max((look.memory_mb for look in self.looks if from_s <= look.at_s <= to_s), default=0.0)


def run_command(
    command: list[str],
    *,
    folder: Path,
    environ: Mapping[str, str],
    core: int | None = None,
    timeout_s: float,
    should_look: bool = False,
) -> Taken:
    """Run a command to its end.

    Args:
        command: The command, its program first.
        folder: Where it runs; what it says goes to `said.txt` there.
        environ: Its whole environment.
        core: The one core that it may use; None for all.
        timeout_s: When it is stopped.
        should_look: Whether to look at its CPU and memory all the while.

    Raises:
        CommandFailedError: It did not end with 0.
    """
    said = folder / "said.txt"
    with said.open("wb") as file:
        began_s = time.monotonic()
        process = subprocess.Popen(
            pin(command, core), cwd=folder, env=environ, stdout=file, stderr=file, start_new_session=True
        )
        looks: list[Look] = []
        guard = threading.Timer(timeout_s, os.killpg, (process.pid, signal.SIGKILL))
        guard.start()
        watcher = threading.Thread(target=_look_until_gone, args=(process.pid, looks))
        if should_look:
            watcher.start()
        _, status, usage = os.wait4(process.pid, 0)
        wall_s = time.monotonic() - began_s
        guard.cancel()
    process.returncode = os.waitstatus_to_exitcode(status)
    if should_look:
        watcher.join()
    if process.returncode:
        raise CommandFailedError(_describe_failure(process.returncode, said))
    return Taken(
        began_s=began_s,
        wall_s=wall_s,
        cpu_s=usage.ru_utime + usage.ru_stime,
        peak_mb=usage.ru_maxrss / (1024**2 if sys.platform == "darwin" else 1024),
        looks=looks,
    )


def read_cpu_s(pid: int) -> float | None:
    """Return the CPU seconds of a process; None when it has ended."""
    with suppress(FileNotFoundError, ProcessLookupError):
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S
    return None


def read_memory_mb(pid: int) -> float:
    """Return the resident memory of a process; 0 when it has ended."""
    with suppress(FileNotFoundError, ProcessLookupError):
        for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
    return 0.0


def _look_until_gone(pid: int, looks: list[Look]) -> None:
    while (cpu_s := read_cpu_s(pid)) is not None and (memory_mb := read_memory_mb(pid)):
        looks.append(Look(time.monotonic(), cpu_s, memory_mb))
        time.sleep(LOOK_EVERY_S)


def _describe_failure(returncode: int, said: Path) -> str:
    lines = said.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    last = _NOT_FOR_A_TABLE.sub("", lines[-1])[:200] if lines else "said nothing"
    return f"exit code {returncode}: {last}"
