"""Find runs: what a RUN on the command line means.

A reference and the reports folder enter, a run folder leaves. A run is *unfinished* without run.json, with a pending
row, or with an error that can pass; only finished runs are meant by a job's name and by `latest`.
"""

import difflib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evalrun.errors import StoreError, UsageError
from evalrun.store.folder import MANIFEST_NAME, RunFolder, is_run_folder, make_folder_name
from evalrun.store.manifest import IMPORTED_KEY, is_finished, read_manifest

LATEST = "latest"
_MAX_LISTED = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEntry:
    """A run as the list shows it."""

    folder: RunFolder
    manifest: dict[str, Any] | None
    """None when the run did not end, or its run.json cannot be read."""
    is_finished: bool
    problem: str | None = None
    """Why run.json cannot be read; None when it can, or is not there."""


def list_runs(reports_dir: Path) -> list[RunEntry]:
    """List all runs below a reports folder, newest first; empty when the folder is not there."""
    return [_read_entry(folder) for folder in _scan_folders(reports_dir)]


def find_run(reference: str, *, reports_dir: Path) -> RunFolder:
    """Find the run that a reference means.

    Args:
        reference: A run folder, a file in it, `latest`, a job's name (its newest finished run), or a unique prefix of a
            run_id; tried in this order.
        reports_dir: Where runs are kept, e.g. `reports`.

    Raises:
        UsageError: Nothing or several runs fit; names what there is.
    """
    if reference == LATEST:
        return _pick_finished(_scan_folders(reports_dir), reports_dir, "no run here is finished")
    by_path = _find_by_path(reference)
    if by_path is not None:
        return by_path
    folders = list(_scan_folders(reports_dir))
    of_job = [folder for folder in folders if folder.job_name == make_folder_name(reference)] if reference else []
    if of_job:
        return _pick_finished(iter(of_job), reports_dir, f"job {reference} has no finished run")
    matches = [folder for folder in folders if reference and folder.run_id.startswith(reference)]
    if len(matches) == 1:
        return matches[0]
    if matches:
        msg = f"{len(matches)} runs begin with {reference}: {_join(folder.run_id for folder in matches)}"
        raise UsageError(msg, hint="type more of the run_id")
    raise _make_not_found(reference, folders, reports_dir)


def find_unfinished(job_name: str, reports_dir: Path) -> RunFolder | None:
    """Find the newest unfinished run of a job; None when there is none."""
    for folder in _scan_folders(reports_dir):
        if folder.job_name == make_folder_name(job_name) and not _read_entry(folder).is_finished:
            return folder
    return None


def find_finished(job_name: str, reports_dir: Path, *, other_than: RunFolder | None = None) -> RunFolder | None:
    """Find the newest finished run of a job, other than a certain one; None when there is none.

    One that was imported is passed over: nothing was asked in it, so nothing of it can be taken over.
    """
    for folder in list_job_folders(job_name, reports_dir):
        entry = _read_entry(folder)
        if folder != other_than and entry.is_finished and IMPORTED_KEY not in (entry.manifest or ()):
            return folder
    return None


def list_job_folders(job_name: str, reports_dir: Path) -> list[RunFolder]:
    """List the run folders of a job, newest first, whatever state they are in; reads nothing but names."""
    job_folder = reports_dir / make_folder_name(job_name)
    try:
        paths = [path for path in job_folder.iterdir() if not path.is_symlink() and is_run_folder(path)]
    except OSError:  # Not there, or not ours to read: nothing that could be named.
        return []
    return [RunFolder(path.absolute()) for path in sorted(paths, key=lambda path: path.name, reverse=True)]


def _scan_folders(reports_dir: Path) -> Iterator[RunFolder]:
    """Yield the run folders of all jobs, newest first: a run_id sorts by time."""
    paths = [path for path in reports_dir.glob("*/*") if not path.is_symlink() and is_run_folder(path)]
    for path in sorted(paths, key=lambda path: (path.name, path.parent.name), reverse=True):
        yield RunFolder(path.absolute())


def _read_entry(folder: RunFolder) -> RunEntry:
    if not folder.manifest_path.is_file():
        return RunEntry(folder=folder, manifest=None, is_finished=False)
    try:
        manifest = read_manifest(folder)
    except StoreError as error:
        return RunEntry(folder=folder, manifest=None, is_finished=False, problem=str(error))
    return RunEntry(folder=folder, manifest=manifest, is_finished=is_finished(manifest))


def _pick_finished(folders: Iterator[RunFolder], reports_dir: Path, otherwise: str) -> RunFolder:
    unfinished = []
    for folder in folders:
        if _read_entry(folder).is_finished:
            return folder
        unfinished.append(folder.run_id)
    if unfinished:
        msg = f"{otherwise}; unfinished: {_join(unfinished)}"
        raise UsageError(msg, hint=f"name one by its run_id, or finish it: evalrun run JOB --resume {unfinished[0]}")
    msg = f"{otherwise}: {reports_dir} holds none"
    raise UsageError(msg, hint="start one with `evalrun run JOB`, or say with -o where the runs are")


def is_path(reference: str) -> bool:
    """Tell whether a reference names something on disk, of whatever kind and whoever may read it; never raises."""
    try:
        os.lstat(reference)
    except PermissionError:
        return True
    except (OSError, ValueError):  # Not there, too long, or with a NUL in it.
        return False
    return True


def _find_by_path(reference: str) -> RunFolder | None:
    """Return the run of a folder or of a file in it; None when the reference is no such path.

    Raises:
        UsageError: It is a path that this user may not read.
    """
    if not is_path(reference):
        return None
    path = Path(reference)
    try:
        folder = path.parent if path.is_file() else path
        (folder / MANIFEST_NAME).exists()
    except OSError as error:
        raise UsageError(f"cannot read {reference}: {error.strerror or error}; check its owner") from error
    return RunFolder.open(folder) if is_run_folder(folder) else None


def _make_not_found(reference: str, folders: list[RunFolder], reports_dir: Path) -> UsageError:
    if is_path(reference) and Path(reference).is_file():
        msg = f"{reference} is not in a run folder: neither {MANIFEST_NAME} nor a journal lies beside it"
        return UsageError(msg, hint="name the run's folder, a file in it, its run_id, its job, or `latest`")
    if not folders:
        msg = f"there is no run {reference!r}: {reports_dir} holds none"
        return UsageError(msg, hint="start one with `evalrun run JOB`, or say with -o where the runs are")
    job_names = sorted({folder.job_name for folder in folders})
    near = difflib.get_close_matches(reference, [*job_names, *(folder.run_id for folder in folders)], n=3, cutoff=0.5)
    hint = (
        f"did you mean {' or '.join(near)}?"
        if near
        else f"jobs here: {_join(job_names)}; newest run: {folders[0].run_id}"
    )
    return UsageError(f"there is no run {reference!r} in {reports_dir}", hint=hint)


def _join(names: Any) -> str:
    listed = list(names)
    more = len(listed) - _MAX_LISTED
    return ", ".join(listed[:_MAX_LISTED]) + (f" and {more} more" if more > 0 else "")
