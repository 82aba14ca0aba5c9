"""A simulator that runs elsewhere: is it there, and would it answer as the job says?

A job's simulator options enter; nothing leaves, or an error before anything was sent.
"""

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

from evalrun.errors import Problem, UsageError
from evalrun.options import SimulatorOptions
from evalrun.simulator.gateway import make_info

TIMEOUT_S = 5.0
"""How long a simulator may take to say who it is, in seconds."""

MAX_INFO_BYTES = 1 << 20


def check_running_simulator(options: SimulatorOptions) -> None:
    """Compare the simulator at `options.url` with the job's profiles and seed.

    Args:
        options: Those of an endpoint with `url`.

    Raises:
        UsageError: Nothing answers there, or it would answer otherwise than the job says.
    """
    url = str(options.url).rstrip("/")
    running = _load_info(url)
    wanted = json.loads(json.dumps(make_info(options)))
    problems = [
        Problem(
            message=f"the simulator at {url} has {key} {_show(running.get(key))}, the job says {_show(value)}",
            hint="start it with this job: evalrun simulate JOB",
        )
        for key, value in wanted.items()
        if running.get(key) != value
    ]
    if problems:
        raise UsageError(problems)


class _FollowNoRedirect(urllib.request.HTTPRedirectHandler):
    """Leaves a redirect as the error it is: requests go where the job says and nowhere else."""

    def redirect_request(self, *_: Any) -> None:
        """Refuse every redirect."""


def _load_info(url: str) -> Mapping[str, Any]:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _FollowNoRedirect())
    try:
        with opener.open(f"{url}/_simulator/info", timeout=TIMEOUT_S) as reply:
            info = json.loads(reply.read(MAX_INFO_BYTES))
    except (OSError, ValueError) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise UsageError(
            f"no simulator answers at {url}: {reason}", hint="start it first: evalrun simulate JOB"
        ) from error
    if not isinstance(info, Mapping):
        raise UsageError(f"what answers at {url} is not an evalrun simulator")
    return info


def _show(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 200 else text[:200] + "…"
