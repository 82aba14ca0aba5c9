from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash import kill, syscalls
from tests.crash.calls import Nursery, open_nursery
from tests.crash.site import Site, open_site


@pytest.fixture(scope="package")
def nursery() -> Iterator[Nursery]:
    """Who starts the calls that are killed."""
    with open_nursery() as nursery:
        yield nursery


@pytest.fixture(scope="package")
def site(tmp_path_factory: pytest.TempPathFactory, nursery: Nursery) -> Iterator[Site]:
    """A job of 40 rows on a simulator in a process of its own."""
    folder = Path(tmp_path_factory.mktemp("kill"))
    with open_site(folder, nursery, n_samples=kill.N_SAMPLES) as site:
        yield site


@pytest.fixture(scope="package")
def small_site(tmp_path_factory: pytest.TempPathFactory, nursery: Nursery) -> Iterator[Site]:
    """The same with 20 rows, for faults at single system calls."""
    folder = Path(tmp_path_factory.mktemp("syscalls")).resolve()
    with open_site(folder, nursery, n_samples=syscalls.N_SAMPLES, concurrency=syscalls.CONCURRENCY) as site:
        yield site
