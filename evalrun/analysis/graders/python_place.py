"""Where a job keeps the code of its python graders: what those who build graders pass on, and load nothing else for."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class PythonPlace:
    """Where the files of python graders lie, and what their code does not get to see."""

    folder: Path
    """Their paths are relative to it."""
    hidden: Collection[str] = ()
    """Environment variables that hold secrets of the job."""
