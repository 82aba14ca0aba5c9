"""Values put aside on disk and read back in any order: what is imported need not fit into memory.

JSON values enter one by one and get numbers; they leave by number. About 8 bytes a value stay in memory.
"""

import os
import tempfile
from array import array
from typing import Any

from evalrun.errors import StoreError
from evalrun.job.canonical import encode_json
from evalrun.job.readers import parse_cell

IN_MEMORY_BYTES = 16 * 1024 * 1024
"""Up to here nothing is written to disk."""


class Spool:
    """A file without a name that goes with its owner; a context manager."""

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(max_size=IN_MEMORY_BYTES)  # noqa: SIM115 - closed by `__exit__`
        self._ends = array("Q")

    def __enter__(self) -> "Spool":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self._ends)

    def put(self, value: Any) -> int:
        """Put a JSON value aside and return its number; numbers count from 0.

        Raises:
            StoreError: The disk refused.
        """
        content = encode_json(value)
        start = self._ends[-1] if self._ends else 0
        try:
            self._file.seek(0, os.SEEK_END)
            self._file.write(content)
        except OSError as error:
            msg = f"cannot put answers aside in {tempfile.gettempdir()}: {error.strerror or error}; set TMPDIR"
            raise StoreError(msg) from error
        self._ends.append(start + len(content))
        return len(self._ends) - 1

    def get_text(self, number: int) -> str:
        """Return the JSON text of a value."""
        start = self._ends[number - 1] if number else 0
        self._file.seek(start)
        return self._file.read(self._ends[number] - start).decode()

    def get(self, number: int) -> Any:
        """Return a value."""
        return parse_cell(self.get_text(number))
