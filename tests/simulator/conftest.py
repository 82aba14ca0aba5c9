"""Fixtures of the simulator's tests."""

from typing import Any

import pytest


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """Run asynchronous tests on both event loops that evalrun runs on."""
    return "asyncio", {"use_uvloop": request.param}
