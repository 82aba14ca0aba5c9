"""RUN on the command line: what it may be, and how it is found."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import click

from evalrun.cli.console import print_note
from evalrun.errors import FolderBusyError, StoreError, UsageError
from evalrun.store.folder import RunFolder
from evalrun.store.runs import find_run, is_path, list_runs

RUN_HELP = """RUN is a run folder, a file in it, a unique prefix of its run_id, a job's name (its newest finished
run), or `latest` (the newest finished run)."""

run_argument = click.argument("run")


def open_run(reference: str, *, reports_dir: Path) -> RunFolder:
    """Return the run that a reference means; say so when a newer, unfinished one is passed over.

    Raises:
        UsageError: There is no such run, or it has not ended, or is still running, and so has no tables.
    """
    folder = find_run(reference, reports_dir=reports_dir)
    if not folder.manifest_path.exists():
        holder = folder.find_holder()
        if holder is not None:
            msg = f"the run {folder.run_id} is still running (process {holder}), so it has no tables yet"
            raise UsageError(msg, hint=f"its journal can be read now: evalrun show {folder.run_id} --journal")
        raise UsageError(
            f"the run {folder.run_id} has not ended, so it has no tables yet",
            hint=f"go on with it: evalrun run JOB --resume {folder.run_id}",
        )
    newest = next(iter(list_runs(reports_dir)), None) if not is_path(reference) else None
    if newest is not None and newest.folder.run_id > folder.run_id and not newest.is_finished:
        print_note(f"note: a newer run is unfinished and not meant here: {newest.folder.path}")
    return folder


@contextmanager
def hold_run(folder: RunFolder, *, hint: str | None = None) -> Iterator[None]:
    """Hold a run against other processes while its files are replaced.

    Args:
        folder: The run.
        hint: What else can be done where the folder cannot be written.

    Raises:
        FolderBusyError: Another process holds it.
        UsageError: It cannot be written; nothing was changed.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(folder.lock())
        except FolderBusyError:
            raise
        except StoreError as error:
            raise UsageError(str(error), hint=hint) from error
        yield
