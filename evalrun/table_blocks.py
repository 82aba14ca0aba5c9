"""The rows of a run's tables, made in blocks: what was planned, what the journal holds for it, and its grades.

Plan, journal and graders enter, or a table that is graded again; blocks of columns leave, lazily, in the order of the
table. No more than one block is in memory here.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from evalrun.analysis.graders.grader_set import GRADED_COLUMNS, GraderSet
from evalrun.job.plan import Plan
from evalrun.records import Sample
from evalrun.store.folder import RunFolder
from evalrun.store.journal_index import JournalIndex
from evalrun.store.parquet import Columns, GradedBlock, scan_frames, split_rows
from evalrun.store.prior_attempts import add_prior
from evalrun.store.record_columns import (
    PlannedRow,
    build_attempt_columns,
    build_grade_columns,
    build_result_columns,
    make_pending,
    write_json,
)
from evalrun.store.record_reader import RecordReader, scan_attempt_records
from evalrun.store.segment_files import Place


def make_result_blocks(
    folder: RunFolder, plan: Plan, index: JournalIndex, graders: GraderSet, pending_codes: Mapping[str, str]
) -> Iterator[GradedBlock]:
    """Yield every planned row with its grades, in plan order; what was never asked is pending.

    Args:
        folder: The run.
        plan: Its rows in order.
        index: What its journal holds.
        graders: Its graders, compiled.
        pending_codes: By model, why a row that has no outcome was not asked.
    """
    with RecordReader(folder.journal_dir) as reader:
        for chunk in split_rows(_find_places(plan, index), _count_bytes):
            records = reader.read({row.request.row_id: place for row, place in chunk if place is not None})
            rows = []
            for row, _ in chunk:
                request = row.request
                done = records.get(request.row_id)
                if done is None:  # Not asked, or something else: what that took is told all the same.
                    asked = add_prior(request, index, index.get(request.row_id))
                    done = make_pending(asked, pending_codes[request.model])
                rows.append(row._replace(done=done))
            yield grade_block(build_result_columns(rows, run_id=folder.run_id), graders)


def make_regraded_blocks(folder: RunFolder, graders: GraderSet) -> Iterator[GradedBlock]:
    """Yield the results that a run has, with new grades."""
    for frame in scan_frames(folder.results_path):
        yield grade_block(dict(zip(frame.columns, frame.get_columns(), strict=True)), graders)


def make_attempt_blocks(folder: RunFolder) -> Iterator[Columns]:
    """Yield every attempt that ended, in that order."""
    for chunk in split_rows(scan_attempt_records(folder.journal_dir), lambda found: found[1]):
        yield build_attempt_columns([record for record, _ in chunk])


def _find_places(plan: Plan, index: JournalIndex) -> Iterator[tuple[PlannedRow, Place | None]]:
    sample: Sample | None = None
    text = ""
    for request in plan.requests():
        if request.sample is not sample:  # The rows of one sample follow each other.
            sample, text = request.sample, write_json(request.sample.row)
        yield PlannedRow(request, text, {}), index.find_answer(request.row_id, request.request_key)


def _count_bytes(found: tuple[PlannedRow, Place | None]) -> int:
    row, place = found
    return len(row.sample) + len(row.request.body) + (0 if place is None else place.n_bytes)


def grade_block(results: Columns, graders: GraderSet) -> GradedBlock:
    """Return rows of the results with their grades, and with the score and verdict that follow from them."""
    grades: list[Any] = []
    scores, verdicts = [], []
    for values in zip(*(results[name] for name in GRADED_COLUMNS), strict=True):
        graded = graders.grade_row(dict(zip(GRADED_COLUMNS, values, strict=True)))
        grades.extend(graded.grades)
        scores.append(graded.score)
        verdicts.append(graded.passed)
    return GradedBlock({**results, "score": scores, "passed": verdicts}, build_grade_columns(grades))
