"""Sends one request and prints how it ended and how far memory grew meanwhile, as JSON: a process of its own.

Usage: python -m tests.dispatch.memory_probe BASE_URL stream|plain fast|httpx. The first request warms up and is not
counted.
"""

import json
import re
import sys
from pathlib import Path

import anyio

from evalrun.dispatch.transport import make_target, open_transport
from evalrun.errors import ApiError
from evalrun.options import EndpointOptions, TimeoutOptions

_KIB = 1024


def read_peak_bytes() -> int:
    """Return the most memory that this process has held; `getrusage` would count its parent's as well."""
    found = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
    assert found is not None
    return int(found.group(1)) * _KIB


async def probe(base_url: str, *, is_stream: bool, is_httpx: bool) -> dict[str, object]:
    """Return the code of the second reply, and by how many bytes the peak of memory rose for it."""
    options = EndpointOptions(
        base_url=base_url,
        stream=is_stream,
        timeout_s=TimeoutOptions(total=60),
        transport="httpx" if is_httpx else None,
    )
    async with open_transport(make_target(options, environ={})) as transport:
        await transport.send(b"{}")
        before_bytes = read_peak_bytes()
        try:
            code = str((await transport.send(b"{}")).status)
        except ApiError as error:
            code = str(error.code)
    return {"code": code, "growth_bytes": read_peak_bytes() - before_bytes}


if __name__ == "__main__":
    url, mode, engine = sys.argv[1:]
    found = anyio.run(lambda: probe(url, is_stream=mode == "stream", is_httpx=engine == "httpx"))
    print(json.dumps(found))  # noqa: T201 - its result
