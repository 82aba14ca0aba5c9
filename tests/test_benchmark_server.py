"""The server that benchmarks stand on: what it counts and how long it waits must be right, or no figure is."""

import http.client
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest

from benchmarks.canned import CannedServer, serve_canned

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="uvloop is not there")


@contextmanager
def post(server: CannedServer, body: bytes) -> Iterator[http.client.HTTPConnection]:
    """Send a request and yield its connection, whose reply is not read yet."""
    connection = http.client.HTTPConnection(urlsplit(server.base_url).netloc, timeout=30)
    connection.request("POST", "/v1/chat/completions", body)
    yield connection
    connection.close()


def test_canned_server_waits_and_tells_its_own_delay() -> None:
    """A reply waits for the delay that was asked for, and the server's own figure says so."""
    with serve_canned(delay_s=0.1) as server, post(server, b"{}") as connection:
        assert json.loads(connection.getresponse().read())["object"] == "chat.completion"
        counts = server.read_counts()
    assert counts.requests == counts.distinct == counts.most_in_flight == 1
    assert counts.delay_p50_s is not None
    assert counts.delay_p50_s >= 0.1


def test_canned_server_goes_on_when_a_client_gives_up() -> None:
    """A client that is gone before its reply holds up nobody who waits behind it."""
    with serve_canned(delay_s=0.3) as server:
        with post(server, b"{}"):
            pass
        with post(server, b"[]") as connection:
            assert connection.getresponse().status == 200
        assert server.read_counts().requests == 2


def test_canned_server_streams_all_chunks_and_the_usage() -> None:
    """A stream has as many chunks as were asked for, then its usage where the request wants it, then its end."""
    body = b'{"stream": true, "stream_options": {"include_usage": true}}'
    with serve_canned(n_chunks=3) as server, post(server, body) as connection:
        events = connection.getresponse().read().decode().strip().split("\n\n")
    finishes = [json.loads(event[6:])["choices"][0]["finish_reason"] for event in events[:3]]
    assert finishes == [None, None, "stop"]
    assert json.loads(events[3][6:])["usage"]["total_tokens"] == 36
    assert events[4:] == ["data: [DONE]"]


def test_canned_server_begins_a_new_stretch() -> None:
    """After `begin_stretch` nothing of the stretch before is told but the number of requests."""
    with serve_canned() as server:
        with post(server, b"{}") as connection:
            connection.getresponse().read()
        server.begin_stretch()
        counts = server.read_counts()
    assert (counts.requests, counts.first_at_s, counts.last_reply_at_s, counts.most_in_flight) == (1, None, None, 0)
