"""`evalrun simulate`: the simulator on a port of its own, for jobs with `url:` and for other people's clients."""

import signal
from pathlib import Path
from urllib.parse import urlsplit

import anyio
import click

from evalrun.cli.console import print_note
from evalrun.errors import UsageError
from evalrun.options import ProfileOptions, SimulatorOptions
from evalrun.simulator.server import serve

GATEWAY_MODELS = (
    "gpt-5.1", "gpt-5.1-all", "gpt-5.1-thinking", "gpt-5.1-thinking-all", "gpt-5.2",
    "gemini-3-pro", "gemini-2.5-pro", "gemini-2.5-flash", "gemini-3-flash", "claude-4.5",
)  # fmt: skip
"""Models served without a job: those of the gateway that evalrun was first written for."""


@click.command("simulate")
@click.argument("job", type=click.Path(path_type=Path), required=False)
@click.option("--endpoint", metavar="NAME", help="Which of the job's simulator endpoints; default: the only one.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), help="Port; default: that of the job's `url:`, else a free one.")
def command(job: Path | None, *, endpoint: str | None, host: str, port: int | None) -> None:
    """Serve the simulator until interrupted, with JOB's profiles and seed.

    Without JOB: ten models that are right four times in five.
    """
    options = _choose_options(job, endpoint)
    if port is None:
        port = (urlsplit(options.url).port if options.url is not None else None) or 0
    anyio.run(_serve_until_signal, options, host, port)


def _choose_options(job: Path | None, endpoint: str | None) -> SimulatorOptions:
    """Return the simulator of a job's endpoint, or one with the gateway's models."""
    if job is None:
        return SimulatorOptions(answer="{{ answer }}", profiles={name: ProfileOptions() for name in GATEWAY_MODELS})
    import os

    from evalrun.job.config import load_job

    loaded = load_job(job, environ=os.environ)
    simulators = {
        name: options.simulator for name, options in loaded.job.endpoints.items() if options.simulator is not None
    }
    if endpoint is not None and endpoint in simulators:
        return simulators[endpoint]
    if endpoint is None and len(simulators) == 1:
        return next(iter(simulators.values()))
    known = ", ".join(simulators) or "none"
    raise UsageError(f"{job} has these simulator endpoints: {known}", hint="choose one with --endpoint NAME")


async def _serve_until_signal(options: SimulatorOptions, host: str, port: int) -> None:
    try:
        async with serve(options, host=host, port=port) as simulator:
            click.echo(simulator.url)
            print_note(f"simulated models: {', '.join(options.profiles)}")
            print_note(
                f"base URLs: {simulator.url}/chat and {simulator.url}/v1; ledger: {simulator.url}/_simulator/ledger"
            )
            print_note("stop with Ctrl-C")
            with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
                async for _ in signals:
                    break
            totals = simulator.ledger.to_json()["totals"]
            print_note(f"served {totals['requests']} requests, {totals['rejected']} refused")
    except OSError as error:
        raise UsageError(
            f"cannot listen on {host}:{port}: {error.strerror or error}", hint="choose a free --port"
        ) from error
