"""States are laid out and opened on a RAM disk."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ram_disk import make_ram_folder


@pytest.fixture
def ram() -> Iterator[Path]:
    """An empty folder on a RAM disk."""
    with make_ram_folder() as folder:
        yield folder
