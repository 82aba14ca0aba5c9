"""Evalrun with one step of its protocol left out: each of these the harness must flag.

A harness that finds nothing has proved nothing until it is seen to find what is there.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from evalrun.store import folder as folder_module
from evalrun.store import journal_format, journal_index, journal_scan, segment_lines
from evalrun.store.folder import RunFolder, StagedFile
from evalrun.store.journal import Journal
from evalrun.store.journal_format import Frame


@dataclass(frozen=True, slots=True)
class Mutant:
    """A change of evalrun for the worse."""

    apply: Callable[[pytest.MonkeyPatch], None]
    is_of_tables: bool = False
    """Whether it harms what is written when the asking has ended; else the journal."""


def _tell_before_forcing(patch: pytest.MonkeyPatch) -> None:
    def tell(journal: Journal) -> None:
        journal.acknowledged = journal.written

    patch.setattr(Journal, "_sync_written", tell)


def _begin_segment_without_forcing_the_last(patch: pytest.MonkeyPatch) -> None:
    def begin(journal: Journal) -> None:
        with journal._sync_lock:
            os.close(journal._handle)
            journal._segment += 1
            journal._handle, journal._offset = journal._open_segment(journal._segment)

    patch.setattr(Journal, "_begin_segment", begin)


def _force_no_segment_name(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("evalrun.store.journal.sync_folder", _do_nothing)


def _force_no_name_on_the_way(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(RunFolder, "force_names", _do_nothing)


def _rename_without_forcing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(StagedFile, "flush", _do_nothing)


def _force_no_renamed_name(patch: pytest.MonkeyPatch) -> None:
    def commit(staged: StagedFile) -> None:
        staged.flush()
        staged.temp_path.replace(staged.path)

    patch.setattr(StagedFile, "commit", commit)


def _write_in_place(patch: pytest.MonkeyPatch) -> None:
    def commit(staged: StagedFile) -> None:
        handle = os.open(staged.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            os.write(handle, staged.temp_path.read_bytes())
            os.fsync(handle)
        finally:
            os.close(handle)
        folder_module.sync_folder(staged.path.parent)

    patch.setattr(StagedFile, "commit", commit)


def _check_no_sum(patch: pytest.MonkeyPatch) -> None:
    def parse(line: bytes) -> Frame | None:
        head = journal_format._HEAD.match(line)
        if head is None or line[-2:] != b"}\n":
            return None
        return Frame(journal_format._KINDS[head[1]], line[head.end() : -2])

    for module in (segment_lines, journal_index):
        patch.setattr(module, "parse_frame", parse)


def _cut_no_tail(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(journal_scan, "_cut_tail", _do_nothing)


def _do_nothing(*_: object) -> None:
    pass


MUTANTS: dict[str, Mutant] = {
    "told before it is forced": Mutant(_tell_before_forcing),
    "a full segment is not forced before the next": Mutant(_begin_segment_without_forcing_the_last),
    "the name of a segment is not forced": Mutant(_force_no_segment_name),
    "the names on the way to the journal are not forced": Mutant(_force_no_name_on_the_way),
    "the checksum is not looked at": Mutant(_check_no_sum),
    "a torn tail is not cut": Mutant(_cut_no_tail),
    "renamed before the content is forced": Mutant(_rename_without_forcing, is_of_tables=True),
    "the name is not forced after the rename": Mutant(_force_no_renamed_name, is_of_tables=True),
    "written in place": Mutant(_write_in_place, is_of_tables=True),
}
"""By what each of them does wrong."""
