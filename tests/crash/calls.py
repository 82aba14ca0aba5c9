"""Calls of evalrun that can be killed at any moment, each a process of its own."""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent

MAX_CALL_S = 60.0
"""A call that takes longer hangs."""


class Call:
    """One process of evalrun.

    Args:
        nursery: Its parent.
        pid: Its number.
        output: File that takes stdout and stderr.
    """

    def __init__(self, nursery: "Nursery", pid: int, output: Path) -> None:
        self.pid = pid
        self._nursery = nursery
        self._output = output
        self._handle = os.pidfd_open(pid)
        self._began_s = time.monotonic()
        self.took_s = 0.0
        """From its start to its end; 0 while it runs."""

    def is_over(self, wait_s: float = 0.0) -> bool:
        """Return whether it has ended, after waiting for that as long as asked."""
        return bool(select.select([self._handle], [], [], wait_s)[0])

    def kill(self) -> None:
        """Send SIGKILL; nothing happens when it has ended."""
        signal.pidfd_send_signal(self._handle, signal.SIGKILL)

    def finish(self) -> int:
        """Wait for its end.

        Returns:
            The exit code; the negative number of the signal that ended it.
        """
        is_over = self.is_over(MAX_CALL_S)
        self.took_s = time.monotonic() - self._began_s
        if not is_over:
            self.kill()
        code = os.waitstatus_to_exitcode(self._nursery.reap(self.pid))
        os.close(self._handle)
        assert is_over, f"evalrun hung for {MAX_CALL_S:g} s:\n{self.read_output()}"
        return code

    def read_output(self) -> str:
        """Return what it has written so far."""
        return self._output.read_text(encoding="utf-8", errors="replace") if self._output.exists() else ""


class Nursery:
    """Starts calls; their common parent is a process that has imported evalrun already.

    Args:
        process: It, with pipes for orders and replies.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def start(
        self,
        *arguments: str,
        folder: Path,
        output: Path,
        mutant: str | None = None,
        names: str | None = None,
        is_stopped: bool = False,
    ) -> Call:
        """Start `evalrun ARGUMENTS`.

        Args:
            arguments: Words after the program's name.
            folder: Working folder.
            output: File that takes stdout and stderr.
            mutant: A defect to plant, see `mutants`.
            names: Fix the names of temporary files, see `names`.
            is_stopped: Let it wait for SIGCONT before it does anything.
        """
        output.unlink(missing_ok=True)  # A call that dies at once leaves none, and not the one before it.
        order = {
            "arguments": arguments,
            "folder": str(folder),
            "output": str(output),
            "mutant": mutant,
            "names": names,
            "is_stopped": is_stopped,
        }
        return Call(self, self._ask(order)["pid"], output)

    def reap(self, pid: int) -> int:
        """Return the wait status of a child that has ended."""
        return int(self._ask({"reap": pid})["status"])

    def _ask(self, order: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "the nursery has died"
        reply: dict[str, Any] = json.loads(line)
        return reply


@contextmanager
def open_nursery() -> Iterator[Nursery]:
    """Run a nursery."""
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1", "OPENBLAS_NUM_THREADS": "1"}
    command: Sequence[str] = (sys.executable, "-m", "tests.crash.nursery")
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environ) as process:
        yield Nursery(process)
        assert process.stdin is not None
        process.stdin.close()
        process.wait(MAX_CALL_S)
