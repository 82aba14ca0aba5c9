"""A process that has imported evalrun once and forks a fresh one for each call: 50 ms instead of a second.

Orders enter on stdin and replies leave on stdout, one JSON object per line. A child runs `evalrun ARGUMENTS` as its own
process would, except that progress is written ten times as often, so that more of it can be held to account. It is
reaped when its end is asked for, never before: until then its number belongs to nobody else.
"""

import ctypes
import importlib
import json
import os
import signal
import sys
from typing import Any, TextIO

from tests.crash.mutants import plant_mutant
from tests.crash.names import fix_names

WARM = (
    "evalrun.cli.run_command",
    "evalrun.cli.grade_command",
    "evalrun.cli.report_command",
    "evalrun.dispatch.fast_engine",
    "evalrun.pipeline",
    "scipy.special",
    "scipy.stats",
)
"""What a run imports, now or later."""

_PR_SET_PTRACER, _ANY_PROCESS = 0x59616D61, 2**64 - 1


def serve(orders: TextIO, replies: TextIO) -> None:
    """Carry out orders until there are no more."""
    for line in orders:
        order = json.loads(line)
        reply = {"status": os.waitpid(order["reap"], 0)[1]} if "reap" in order else {"pid": _fork(order)}
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


def _fork(order: dict[str, Any]) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        _take_place(order)
        code = _call(order)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _take_place(order: dict[str, Any]) -> None:
    """Give the child the standard streams and the folder of a process of its own."""
    os.chdir(order["folder"])
    nothing = os.open(os.devnull, os.O_RDONLY)
    output = os.open(order["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    for number, handle in enumerate((nothing, output, output)):
        os.dup2(handle, number)
    os.close(nothing)
    os.close(output)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if order["is_stopped"]:
        _allow_tracing()
        os.kill(os.getpid(), signal.SIGSTOP)  # Whoever wants to trace it comes now.


def _allow_tracing() -> None:
    """Let a process that is no ancestor trace this one, where the kernel's Yama asks for that."""
    ctypes.CDLL(None).prctl(_PR_SET_PTRACER, ctypes.c_ulong(_ANY_PROCESS), 0, 0, 0)


def _call(order: dict[str, Any]) -> int:
    from evalrun import asking
    from evalrun.cli import progress
    from evalrun.cli.main import main

    assert hasattr(asking, "TICK_S"), "the tick has moved: progress is no longer written often enough to be checked"
    assert hasattr(progress, "PLAIN_EVERY_S"), "the interval of plain progress has moved"
    asking.TICK_S = 0.01
    progress.PLAIN_EVERY_S = 0.0
    if order["names"] is not None:
        fix_names(order["names"])
    if order["mutant"] is not None:
        plant_mutant(order["mutant"])
    sys.argv = ["evalrun", *order["arguments"]]
    return main()


def _warm_up() -> None:
    """Do once what every call would do again: imports, the job's validator, the templates of the report."""
    for module in WARM:
        importlib.import_module(module)
    from evalrun.grader_options import GRADER_OPTIONS
    from evalrun.job.schema import get_adapter
    from evalrun.options import Job
    from evalrun.report.render import _ENVIRONMENT

    records: list[Any] = [Job, *GRADER_OPTIONS.values()]
    for record in records:
        get_adapter(record)
    for name in _ENVIRONMENT.list_templates(extensions=["j2"]):
        _ENVIRONMENT.get_template(name)


if __name__ == "__main__":
    _warm_up()
    serve(sys.stdin, sys.stdout)
