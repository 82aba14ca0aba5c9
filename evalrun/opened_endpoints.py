"""The endpoints that a call sends to: keys read, simulators started or compared, connections shared out.

A job and the names of endpoints enter; targets for dispatch leave, for as long as the context lasts.
"""

import resource
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace

import anyio

from evalrun.dispatch.transport import Target, make_target
from evalrun.errors import ConfigError, UsageError
from evalrun.job.config import LoadedJob, find_missing_keys
from evalrun.options import EndpointOptions

SPARE_FILES = 32
"""Files that a run opens beside its connections."""


@asynccontextmanager
async def open_targets(
    loaded: LoadedJob, names: Collection[str], environ: Mapping[str, str]
) -> AsyncIterator[tuple[dict[str, Target], list[str]]]:
    """Yield the endpoints named, simulators started or compared, keys read; and what to say.

    Args:
        loaded: The job.
        names: Those that are sent to, each once.
        environ: Holds the keys.

    Raises:
        ConfigError: A key is missing.
        UsageError: This process may not open enough files, or a running simulator is another one.
    """
    endpoints = {name: loaded.job.endpoints[name] for name in names}
    problems = find_missing_keys(loaded, list(endpoints), environ)
    if problems:
        raise ConfigError(problems)
    async with AsyncExitStack() as stack:
        base_urls = {name: await _start_simulator(options, stack) for name, options in endpoints.items()}
        fitted = fit_file_limit(endpoints)
        notes = [
            f"endpoint {name}: concurrency {options.concurrency} instead of {endpoints[name].concurrency}, since this "
            "process may open no more files (ulimit -n)"
            for name, options in fitted.items()
            if options != endpoints[name]
        ]
        targets = {
            name: make_target(
                options,
                environ=environ,
                base_url=base_urls[name],
                written_url=_find_written_url(loaded, name),
            )
            for name, options in fitted.items()
        }
        yield targets, notes


def _find_written_url(loaded: LoadedJob, endpoint: str) -> str | None:
    """Return an endpoint's base URL as the job writes it; None when no variable of the environment is part of it."""
    written = loaded.raw["endpoints"][endpoint].get("base_url")
    return written if isinstance(written, str) and "${" in written else None


def fit_file_limit(endpoints: Mapping[str, EndpointOptions]) -> dict[str, EndpointOptions]:
    """Return the endpoints with no more concurrency than this process may open connections, all of them together.

    The soft limit of open files is raised first where the system allows it. What then is too little is shared: who
    wants little gets it, the others get equal parts of the rest.

    Raises:
        UsageError: Not even one connection for each endpoint fits.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    n_wanted = sum(options.concurrency for options in endpoints.values())
    wanted = 2 * n_wanted + SPARE_FILES  # A simulator in this process holds the other end.
    if soft < wanted:
        top = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, top), hard))
            soft = max(soft, top)
    n_left = (soft - SPARE_FILES) // 2
    if n_left < len(endpoints):
        hint = f"raise the limit: ulimit -n {max(1024, 2 * len(endpoints) + SPARE_FILES)}"
        raise UsageError(f"this process may open {soft} files only", hint=hint)
    shares: dict[str, int] = {}
    for name in sorted(endpoints, key=lambda name: endpoints[name].concurrency):
        shares[name] = min(endpoints[name].concurrency, n_left // (len(endpoints) - len(shares)))
        n_left -= shares[name]
    return {name: replace(options, concurrency=shares[name]) for name, options in endpoints.items()}


async def _start_simulator(options: EndpointOptions, stack: AsyncExitStack) -> str | None:
    """Return the base URL of a simulator endpoint; None for a real one."""
    if options.simulator is None:
        return None
    from evalrun.simulator.remote import check_running_simulator
    from evalrun.simulator.server import serve

    if options.simulator.url is not None:
        await anyio.to_thread.run_sync(check_running_simulator, options.simulator)
        return options.simulator.url.rstrip("/") + "/chat"
    # No grace: when the run has ended, whatever is still on its way to it was given up.
    simulator = await stack.enter_async_context(serve(options.simulator, grace_s=0.0))
    return simulator.url + "/chat"
