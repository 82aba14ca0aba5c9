"""Which files a dataset path means: a file, a folder or a glob, in sorted order."""

import glob
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from evalrun.errors import DatasetError
from evalrun.job.document import suggest
from evalrun.job.readers import get_format


class DatasetFile(NamedTuple):
    """One file of the dataset."""

    path: Path
    shown: str
    """The path as messages show it."""


def list_dataset_files(names: Sequence[str], folder: Path, where: str) -> list[DatasetFile]:
    """Return the files of a dataset: in the order named, those of a folder or glob sorted.

    Args:
        names: Paths, folders or globs, relative to the folder.
        folder: The job's folder.
        where: The place that names them.

    Raises:
        DatasetError: A name leads to no file, or to none whose format is read.
    """
    files: list[DatasetFile] = []
    for name in names:
        if "://" in name:
            raise DatasetError(f"datasets at URLs ({name}) are not in this version yet", where=where)
        files += [DatasetFile(path, os.path.normpath(path)) for path in _expand(name, folder, where)]
    return files


def _expand(name: str, folder: Path, where: str) -> list[Path]:
    path = folder / name
    if path.is_dir():
        found = sorted(item for item in path.iterdir() if _is_data(item))
        if not found:
            raise DatasetError(f"the folder {name} holds no dataset file", where=where)
        return found
    if path.exists():
        return [path]
    if glob.has_magic(name):
        # Not Path.glob, which takes no absolute pattern.
        matches = sorted(glob.glob(name, root_dir=folder, recursive=True))  # noqa: PTH207
        found = [folder / match for match in matches if _is_data(folder / match)]
        if not found:
            raise DatasetError(f"no dataset file matches {name}", where=where)
        return found
    siblings = [item.name for item in path.parent.iterdir()] if path.parent.is_dir() else []
    hint = suggest(path.name, siblings) or f"paths are relative to {folder}"
    raise DatasetError(f"there is no dataset file {name}", where=where, hint=hint)


def _is_data(path: Path) -> bool:
    return path.is_file() and not path.name.startswith(".") and get_format(path) is not None
