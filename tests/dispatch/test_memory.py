"""What a hostile server may cost in memory: bombs and endless bodies end at the cap, in a process that is measured."""

import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from evalrun.records import ErrorCode
from tests.fake_endpoint import FakeEndpoint, FakeReply, encode_stream, make_chunks, reply_text

ROOT = Path(__file__).parents[2]
MIB = 1024**2
MAX_GROWTH_BYTES = 150 * MIB
SSE = {"content-type": "text/event-stream"}
GZIP = {"content-encoding": "gzip"}
WORDS = encode_stream(make_chunks("word " * 1600, finish_reason=None, usage=None), has_done=False) * 128
BOMB = gzip.compress(bytes(32 * MIB), 1)
WORD_BOMB = gzip.compress(WORDS * 32, 1)

BODIES: dict[str, FakeReply] = {
    "gzip bomb": FakeReply(body=BOMB, headers=GZIP, n_times=32),
    "2 GiB": FakeReply(body=bytes(MIB), n_times=2048),
    "2 GiB in chunks": FakeReply(body=bytes(MIB), n_times=2048, framing="chunked"),
    "2 GiB of stream": FakeReply(body=WORDS, headers=SSE, n_times=2048),
    "2 GiB in one line": FakeReply(body=b"data: " + b"x" * MIB, headers=SSE, n_times=2048),
    "2 GiB of comments": FakeReply(body=b": keep-alive\n" * 80_000, headers=SSE, n_times=2048),
    "stream in a gzip bomb": FakeReply(body=WORD_BOMB, headers=SSE | GZIP, n_times=32),
}


def measure(base_url: str, mode: str, engine: str) -> dict[str, Any]:
    """Return how a request ended, and how far memory grew meanwhile."""
    command = [sys.executable, "-m", "tests.dispatch.memory_probe", base_url, mode, engine]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


CASES = [("stream", kind) for kind in BODIES] + [("plain", kind) for kind in BODIES if "stream" not in kind]
HTTPX_CASES = [("stream", "2 GiB in chunks"), ("plain", "gzip bomb")]


@pytest.mark.parametrize(
    ("mode", "kind", "engine"),
    [(*case, "fast") for case in CASES] + [(*case, "httpx") for case in HTTPX_CASES],
)
def test_huge_body_is_given_up_before_it_fills_memory(
    endpoint: FakeEndpoint, mode: str, kind: str, engine: str
) -> None:
    """A body beyond the cap is `body_too_large`, asked for as a stream or not; memory grows by not much more."""
    endpoint.script(reply_text())
    endpoint.default = BODIES[kind]
    found = measure(endpoint.base_url, mode, engine)
    assert found["code"] == ErrorCode.BODY_TOO_LARGE
    assert found["growth_bytes"] < MAX_GROWTH_BYTES
