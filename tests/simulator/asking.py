"""How the simulator's tests ask: bodies, headers, raw bytes."""

import base64
import json
from collections.abc import Mapping
from typing import Any

import anyio
import httpx
from anyio.abc import SocketStream

from evalrun.options import ProfileOptions, SimulatorOptions

HANG_GUARD_S = 20.0
"""Far above what anything here takes: a test that hangs fails instead."""


def make_options(*, seed: int = 1, **profiles: ProfileOptions) -> SimulatorOptions:
    """Return options with the profiles given; default: `careful`, always right, with no latency."""
    chosen = profiles or {"careful": ProfileOptions(accuracy=1, latency_ms=0)}
    return SimulatorOptions(answer_column="answer", seed=seed, profiles=chosen)


def make_body(question: str = "2+2?", *, model: str = "careful", **params: Any) -> dict[str, Any]:
    """Return a request body of one user message."""
    return {"model": model, "messages": [{"role": "user", "content": question}], **params}


def encode_header(text: str) -> str:
    """Return base64url without padding, as evalrun sends it."""
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def make_headers(answer: str | None = None, *, sample: str | None = None, repeat: int | None = None) -> dict[str, str]:
    """Return the simulator's own headers, those that are given."""
    given = {"Answer": answer, "Sample": sample, "Repeat": None if repeat is None else str(repeat)}
    return {f"X-Simulator-{name}": encode_header(text) for name, text in given.items() if text is not None}


def make_raw_request(body: Mapping[str, Any], *extra: str, path: str = "/v1/chat/completions") -> bytes:
    """Return a whole request as bytes."""
    data = json.dumps(body).encode()
    lines = [f"POST {path} HTTP/1.1", "Host: here", f"Content-Length: {len(data)}", *extra]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + data


async def connect(url: str) -> SocketStream:
    """Open a raw connection to a simulator."""
    parts = httpx.URL(url)
    return await anyio.connect_tcp(parts.host, parts.port or 0)


async def receive_all(stream: SocketStream) -> bytes:
    """Return all that comes until the peer closes."""
    received = b""
    with anyio.fail_after(HANG_GUARD_S):
        try:
            while True:
                received += await stream.receive()
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            return received


async def exchange(url: str, data: bytes) -> bytes:
    """Send bytes, end the sending side, return all that comes."""
    async with await connect(url) as stream:
        try:
            await stream.send(data)
            await stream.send_eof()
        except (anyio.BrokenResourceError, OSError):
            pass
        return await receive_all(stream)
