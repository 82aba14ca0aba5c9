"""Calls evalrun within the test's own process, where that is not the point: it saves a second of imports each time."""

import os
from collections.abc import Iterator
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from subprocess import CompletedProcess

from anyio.from_thread import start_blocking_portal

from evalrun.cli.main import main
from evalrun.job.config import load_job
from evalrun.simulator.server import serve


def call_evalrun(*arguments: str, cwd: Path) -> CompletedProcess[str]:
    """Call `evalrun ARGUMENTS` in a folder; return what a process would have left: its exit code and its words."""
    with chdir(cwd), redirect_stdout(StringIO()) as output, redirect_stderr(StringIO()) as errors:
        exit_code = main(arguments)
    return CompletedProcess(arguments, exit_code, output.getvalue(), errors.getvalue())


@contextmanager
def serve_simulator_here(job: Path) -> Iterator[str]:
    """Serve the only simulator of a job in a thread, on a free port; yield its URL."""
    (endpoint,) = load_job(job, environ=os.environ).job.endpoints.values()
    assert endpoint.simulator is not None
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(serve(endpoint.simulator, grace_s=0)) as simulator,
    ):
        yield simulator.url
