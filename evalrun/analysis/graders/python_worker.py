"""A warm process that runs one file of an author: calls enter, replies leave; one that hangs or dies is replaced.

What an author's code does by mistake (loop, exit, fork, take all memory, print what it likes) ends as a grader that
could not decide. It is no sandbox: what the author may do on this machine, the code may do.
"""

import json
import os
import re
import selectors
import signal
import struct
import subprocess
import sys
import time
import weakref
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from evalrun.errors import GraderFaultError

CALL_LIMIT_S = 10.0
"""Seconds that one call may take."""

LOAD_LIMIT_S = 60.0
"""Seconds that loading the file may take, with all it imports."""

MEMORY_BYTES = 4 * 1024**3
"""Address space of the process. Libraries of numbers reserve much of it that they never use."""

MAX_REPLY_BYTES = 64 * 1024
"""A longer reply is none of ours."""

MAX_LOSSES = 20
"""After so many processes lost one after the other, the file is not called again: 10,000 rows would wait a day."""

_ALARM_SLACK_S = 5.0
"""How long after its limit a process ends itself, should nobody be left to end it."""

_CHILD = Path(__file__).with_name("python_child.py")
_HEAD = struct.Struct(">I")
_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSW|CREDENTIAL|AUTH", re.IGNORECASE)


class LostProcessError(Exception):
    """The process ended, hung, or said what it should not; the text says which."""


class LateReplyError(LostProcessError):
    """It took longer than it may."""


class PythonWorker:
    """Runs functions of one file.

    Args:
        source: The file's text: what was checked is what runs, whatever becomes of the file.
        path: Where it stands; what lies beside it can be imported.
        hidden: Names of environment variables that it does not get, beside those that sound like secrets.
    """

    def __init__(self, source: str, path: Path, hidden: Collection[str] = ()) -> None:
        self._source, self._path = source, path
        self._hidden = frozenset(hidden)
        self._process: subprocess.Popen[bytes] | None = None
        self._finalizer: weakref.finalize[Any, Any] | None = None
        self._n_calls = self._n_losses = 0
        self.functions: frozenset[str] = frozenset()
        """What the file defines that can be called; known once it was loaded."""

    def load(self) -> None:
        """Start the process and load the file, unless that was done.

        Raises:
            GraderFaultError: The file raises, or takes too long.
        """
        if self._process is None:
            self._start()

    def call(self, function: str, output: str, sample: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the other end made of a function's verdict: `score`, `passed` and `reason`.

        Raises:
            GraderFaultError: It raised, returned nothing of the kind, died (`grader_error`), or took too long
                (`grader_timeout`).
        """
        if self._n_losses >= MAX_LOSSES:
            name = self._path.name
            raise GraderFaultError(
                "grader_error", f"{name} is not called again: it was lost {MAX_LOSSES} times in a row"
            )
        self.load()
        try:
            reply = self._ask({"function": function, "output": output, "sample": sample}, CALL_LIMIT_S)
        except LateReplyError as error:
            self._lose()
            raise GraderFaultError("grader_timeout", f"{function} took longer than {CALL_LIMIT_S:g} s") from error
        except LostProcessError as error:
            self._lose()
            raise GraderFaultError("grader_error", f"{function} {error}") from error
        self._n_losses = 0
        if reply.get("is_worn"):
            self.stop()
        if "error" in reply:
            raise GraderFaultError("grader_error", str(reply["error"]))
        return reply

    def stop(self) -> None:
        """End the process; the next call starts another."""
        self._process = None
        if self._finalizer is not None:
            self._finalizer()
            self._finalizer = None

    def _lose(self) -> None:
        self._n_losses += 1
        self.stop()

    def _start(self) -> None:
        self._process = process = subprocess.Popen(  # noqa: S603 - our own interpreter, a file of our own
            [sys.executable, "-B", "-P", "-X", "utf8", str(_CHILD)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=self._path.parent,
            env=select_environment(os.environ, self._hidden),
            start_new_session=True,  # So that whatever it starts ends with it.
            bufsize=0,
        )
        self._finalizer = weakref.finalize(self, _end_process, process)
        for stream in (process.stdin, process.stdout):
            os.set_blocking(_get_number(stream), False)
        request = {"source": self._source, "path": str(self._path), "memory_bytes": MEMORY_BYTES}
        try:
            reply = self._ask(request, LOAD_LIMIT_S)
        except LateReplyError as error:
            self._lose()
            message = f"{self._path.name} takes longer than {LOAD_LIMIT_S:g} s to load"
            raise GraderFaultError("grader_timeout", message) from error
        except LostProcessError as error:
            self._lose()
            raise GraderFaultError("grader_error", f"{self._path.name} {error} while it was loaded") from error
        if "error" in reply:
            self.stop()
            raise GraderFaultError("grader_error", f"{self._path.name} cannot be loaded: {reply['error']}")
        self.functions = frozenset(map(str, reply.get("functions", ())))

    def _ask(self, request: Mapping[str, Any], limit_s: float) -> dict[str, Any]:
        """Send a request and return its reply.

        Raises:
            LostProcessError: There is none that can be used.
        """
        process = self._process
        assert process is not None  # Every caller has started it.
        self._n_calls += 1
        head = {"id": self._n_calls, "limit_s": limit_s + _ALARM_SLACK_S}
        content = json.dumps({**head, **request}, default=str).encode()
        deadline = time.monotonic() + limit_s
        try:
            _write(_get_number(process.stdin), _HEAD.pack(len(content)) + content, deadline)
            size = _HEAD.unpack(_read(_get_number(process.stdout), _HEAD.size, deadline))[0]
            if size > MAX_REPLY_BYTES:
                raise LostProcessError("wrote into what is not its own")
            reply = json.loads(_read(_get_number(process.stdout), size, deadline))
        except (EOFError, BrokenPipeError) as error:
            raise LostProcessError(_describe_end(process)) from error
        except ValueError as error:
            raise LostProcessError("wrote into what is not its own") from error
        if not isinstance(reply, dict) or reply.get("id") != self._n_calls:
            raise LostProcessError("wrote into what is not its own")
        return reply


_WORKERS: "weakref.WeakValueDictionary[tuple[str, Path, frozenset[str]], PythonWorker]" = weakref.WeakValueDictionary()


def find_worker(source: str, path: Path, hidden: Collection[str]) -> PythonWorker:
    """Return the worker of a file, the same one for all graders that name it."""
    key = (source, path, frozenset(hidden))
    worker = _WORKERS.get(key)
    if worker is None:
        worker = _WORKERS[key] = PythonWorker(source, path, hidden)
    return worker


def select_environment(environ: Mapping[str, str], hidden: Collection[str]) -> dict[str, str]:
    """Return the variables that the author's code gets: not the keys of the job, nor what sounds like a secret."""
    return {name: value for name, value in environ.items() if name not in hidden and not _SECRET.search(name)}


def _get_number(stream: Any) -> int:
    number: int = stream.fileno()
    return number


def _write(number: int, content: bytes, deadline: float) -> None:
    rest = memoryview(content)
    while rest:
        try:
            rest = rest[os.write(number, rest) :]
        except BlockingIOError:
            _wait(number, selectors.EVENT_WRITE, deadline)


def _read(number: int, n_bytes: int, deadline: float) -> bytes:
    content = b""
    while len(content) < n_bytes:
        try:
            part = os.read(number, n_bytes - len(content))
        except BlockingIOError:
            _wait(number, selectors.EVENT_READ, deadline)
            continue
        if not part:
            raise EOFError
        content += part
    return content


def _wait(number: int, event: int, deadline: float) -> None:
    rest_s = deadline - time.monotonic()
    with selectors.PollSelector() as selector:
        selector.register(number, event)
        if rest_s <= 0 or not selector.select(rest_s):
            raise LateReplyError


def _describe_end(process: subprocess.Popen[bytes]) -> str:
    """Return how a process ended that closed its end of the pipe, as far as that can be told."""
    try:
        code = process.wait(timeout=1)
    except subprocess.TimeoutExpired:
        return "closed what it answers through"
    if code >= 0:
        return f"ended its process with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = str(-code)
    return f"ended its process by {name}"


def _end_process(process: subprocess.Popen[bytes]) -> None:
    """Kill a process with all that it started, and leave nothing of it behind."""
    with suppress(ProcessLookupError):  # It has ended, and so has all that it started.
        os.killpg(process.pid, signal.SIGKILL)
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()
    process.wait()
