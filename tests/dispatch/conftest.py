"""What the tests of dispatch share: the event loop, and a server for each test."""

from collections.abc import Iterator
from importlib.util import find_spec

import pytest

from tests.dispatch import rig
from tests.fake_endpoint import FakeEndpoint


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """The loop that evalrun runs on: uvloop where it installs, as in a run."""
    return "asyncio", {"use_uvloop": find_spec("uvloop") is not None}


@pytest.fixture
def endpoint() -> Iterator[FakeEndpoint]:
    """A fresh scripted server."""
    with FakeEndpoint() as server:
        yield server


@pytest.fixture(params=[None, "httpx"], ids=["fast engine", "httpx engine"])
def each_engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is true of a transport is true of it on each engine."""
    monkeypatch.setitem(rig.ENGINE, "transport", request.param)
