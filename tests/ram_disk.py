"""A folder on a RAM disk, where there is one: for tests that lay out and open thousands of files."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_RAM = Path("/dev/shm")


@contextmanager
def make_ram_folder() -> Iterator[Path]:
    """Yield an empty folder, gone at the end."""
    with tempfile.TemporaryDirectory(dir=_RAM if _RAM.is_dir() else None) as folder:
        yield Path(folder)
