"""strace around one call of evalrun: which system calls change the run folder, and a fault at one of them.

A call is traced from its first instruction on. Faults are aimed by file, kind and number, for strace counts by kind and
thread only: with the names of all files known beforehand (`names`), its path filter leaves the calls of one file.
"""

import os
import re
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tests.crash.calls import MAX_CALL_S, Call


def find_strace() -> str | None:
    """Return the path of strace; None where it is not installed, or may not trace."""
    path = shutil.which("strace")
    may_trace = path is not None and subprocess.run([path, "-o", os.devnull, "true"], check=False).returncode == 0
    return path if may_trace else None


STRACE = find_strace()

_BY_HANDLE = ("write", "pwrite64", "writev", "fsync", "fdatasync", "ftruncate", "fallocate", "fchmod", "sendfile")
_BY_PATH = ("mkdir", "rmdir", "chmod", "unlink", "rename", "link", "truncate", "symlink")
_BY_FOLDER = ("openat", "mkdirat", "unlinkat", "renameat", "renameat2", "linkat", "fchmodat", "fchmodat2")
MUTATING = (*_BY_HANDLE, *_BY_PATH, *_BY_FOLDER)
"""System calls that change files or names; `openat` only when it makes or truncates a file, or opens it to write."""

_CALL = re.compile(r"^(\d+)\s+([a-z0-9]+)\((.*)$")
_HANDLE = re.compile(r"^\d+<([^>]*)>")
_TEXT = re.compile(r'"((?:[^"\\]|\\.)*)"')
_OPENS_TO_WRITE = re.compile(r"O_WRONLY|O_RDWR|O_CREAT|O_TRUNC")


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens at a system call."""

    name: str
    injection: str
    """For strace."""
    is_lasting: bool = False
    """Whether every later call of the kind on that file fails as well."""

    @property
    def is_kill(self) -> bool:
        """Whether the process dies of it."""
        return "signal" in self.injection


KILL = Fault("SIGKILL", "signal=SIGKILL")
EIO = Fault("EIO", "error=EIO")
EIO_LASTING = Fault("EIO for ever", "error=EIO", is_lasting=True)
ENOSPC = Fault("ENOSPC", "error=ENOSPC")
ENOSPC_LASTING = Fault("ENOSPC for ever", "error=ENOSPC", is_lasting=True)

FAULTS = (KILL, EIO, EIO_LASTING, ENOSPC, ENOSPC_LASTING)


class Point(NamedTuple):
    """One system call of a run."""

    path: str
    """Absolute; of a rename, the old name."""
    kind: str
    number: int
    """1-based, among the calls of this kind on this path in one thread."""

    def render(self) -> str:
        """Return it in words."""
        return f"{self.kind} {self.number} of {'/'.join(Path(self.path).parts[-2:])}"


class Tracer:
    """strace on a call that waits for SIGCONT.

    Args:
        call: It; goes on as soon as it is traced.
        log: File for what strace sees.
        fault: What to inject; None = look on.
        point: Where to inject it.
    """

    def __init__(self, call: Call, log: Path, *, fault: Fault | None = None, point: Point | None = None) -> None:
        assert STRACE is not None
        self.log = log
        self._call = call
        command = [STRACE, "-f", "-y", "-s", "0", "-p", str(call.pid), "-o", str(log)]
        if fault is None or point is None:
            # The question mark passes over calls that this machine's architecture does not have.
            command += ["-e", f"trace={','.join('?' + kind for kind in MUTATING)}"]
        else:
            when = f"{point.number}+" if fault.is_lasting else str(point.number)
            command += ["-P", point.path, "-e", f"trace={point.kind}"]
            command += ["-e", f"inject={point.kind}:{fault.injection}:when={when}"]
        _await_stop(call.pid)
        self._process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert self._process.stderr is not None
        while "attached" not in (line := self._process.stderr.readline()):
            assert line, "strace did not attach: is ptrace allowed here?"
        os.kill(call.pid, signal.SIGCONT)

    def finish(self) -> int:
        """Wait for the call's end; return its exit code, or the negative number of the signal that ended it."""
        code = self._call.finish()
        self._process.communicate(timeout=MAX_CALL_S)
        return code

    def has_struck(self) -> bool:
        """Return whether the fault came to pass."""
        text = self.log.read_text(encoding="utf-8", errors="replace")
        return "(INJECTED)" in text or "+++ killed by SIGKILL +++" in text


def _await_stop(pid: int) -> None:
    """Wait until a call has stopped itself: a SIGCONT that comes before its SIGSTOP is lost."""
    status = Path(f"/proc/{pid}/stat")
    while status.read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "T":
        time.sleep(0.0005)


def list_points(log: Path, folder: Path) -> tuple[list[Point], int]:
    """Return the points of a traced call that concern a folder, in order, and how many cannot be aimed at.

    A call whose kind, path and number another thread had before cannot be told from that one by strace.
    """
    counts: Counter[tuple[str, str, str]] = Counter()
    points: dict[Point, None] = {}
    n_hidden = 0
    for thread, kind, arguments in _list_calls(log):
        path = _find_path(kind, arguments)
        if path is None or not Path(path).is_relative_to(folder):
            continue
        counts[thread, kind, path] += 1
        if kind == "openat" and _OPENS_TO_WRITE.search(arguments) is None:
            continue
        point = Point(path, kind, counts[thread, kind, path])
        n_hidden += point in points
        points[point] = None
    return list(points), n_hidden


def _list_calls(log: Path) -> Iterator[tuple[str, str, str]]:
    with log.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            match = _CALL.match(line)
            if match is not None:
                thread, kind, arguments = match.groups()
                yield thread, kind, arguments


def _find_path(kind: str, arguments: str) -> str | None:
    """Return the path that a call is about; None when it has no name."""
    if kind in _BY_HANDLE:
        match = _HANDLE.match(arguments)
        return match[1] if match is not None and match[1].startswith("/") else None
    text = _TEXT.search(arguments)
    return text[1] if text is not None and text[1].startswith("/") else None
