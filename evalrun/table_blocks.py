"""The rows of a run's tables, made in blocks: what was planned, what the journal holds for it, and its grades.

Plan, journal and graders enter, or a table that is graded again; blocks of columns leave, lazily, in the order of the
table. No more than one block is in memory here.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from evalrun.analysis.graders.grader_set import GRADED_COLUMNS, FindReply, GraderSet, no_reply
from evalrun.analysis.graders.judge_grader import JudgeReply
from evalrun.job.plan import Plan
from evalrun.judge_rows import JUDGED_BY, JudgeRows, Row
from evalrun.records import Sample
from evalrun.store.folder import RunFolder
from evalrun.store.journal_index import JournalIndex
from evalrun.store.parquet import Columns, GradedBlock, scan_frames, scan_rows, split_rows
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
    folder: RunFolder,
    plan: Plan,
    index: JournalIndex,
    graders: GraderSet,
    pending_codes: Mapping[str, str],
    find_reply: FindReply = no_reply,
) -> Iterator[GradedBlock]:
    """Yield every planned row with its grades, in plan order; what was never asked is pending.

    Args:
        folder: The run.
        plan: Its rows in order.
        index: What its journal holds.
        graders: Its graders, compiled.
        pending_codes: By model, why a row that has no outcome was not asked.
        find_reply: Finds what judges said.
    """
    for columns in _make_planned_columns(folder, plan, index, pending_codes):
        yield grade_block(columns, graders, find_reply)


def make_regraded_blocks(
    folder: RunFolder, graders: GraderSet, find_reply: FindReply = no_reply
) -> Iterator[GradedBlock]:
    """Yield the results that a run has, with new grades."""
    for frame in scan_frames(folder.results_path):
        yield grade_block(dict(zip(frame.columns, frame.get_columns(), strict=True)), graders, find_reply)


def scan_planned_rows(folder: RunFolder, plan: Plan, index: JournalIndex) -> Iterator[Row]:
    """Yield what judges are asked by of every planned row, in plan order, as the journal has it now."""
    codes = {model.name: "" for model in plan.models}  # Rows that are pending are not judged, whatever their code.
    for columns in _make_planned_columns(folder, plan, index, codes):
        for values in zip(*(columns[name] for name in JUDGED_BY), strict=True):
            yield dict(zip(JUDGED_BY, values, strict=True))


def scan_stored_rows(folder: RunFolder) -> Iterator[Row]:
    """Yield the same of every row that a run's results hold."""
    return scan_rows(folder.results_path, JUDGED_BY)


def make_judge_blocks(
    folder: RunFolder,
    rows: Iterable[Row],
    judges: JudgeRows,
    index: JournalIndex,
    pending_codes: Mapping[str, str],
    *,
    first_index: int,
) -> Iterator[Columns]:
    """Yield the rows of judge.parquet: every request of the judges, in the order of the rows that they are about.

    Args:
        folder: The run.
        rows: What was judged, in plan order.
        judges: The job's.
        index: What the journal holds.
        pending_codes: By model, why a request that has no outcome was not sent.
        first_index: As for `JudgeRows.scan`.
    """

    def scan() -> Iterator[tuple[PlannedRow, Place | None]]:
        for row, request in judges.scan(rows, first_index=first_index):
            yield (
                PlannedRow(request, row["sample"], {}),
                index.find_answer(request.row_id, request.request_key),
            )

    for columns in _make_columns(folder, scan(), index, pending_codes):
        nothing = [None] * len(columns["row_id"])
        yield {**columns, "score": nothing, "passed": nothing}


def open_replies(folder: RunFolder) -> FindReply:
    """Return what finds the judges' replies in judge.parquet, as they are asked for in the order of its rows."""
    names = ("row_id", *JudgeReply._fields)
    rows = scan_rows(folder.judge_path, names)
    waiting = [next(rows, None)]

    def find(row_id: str) -> JudgeReply | None:
        row = waiting[0]
        if row is None or row["row_id"] != row_id:
            return None
        waiting[0] = next(rows, None)
        return JudgeReply(**{name: row[name] for name in JudgeReply._fields})

    return find


def make_attempt_blocks(folder: RunFolder) -> Iterator[Columns]:
    """Yield every attempt that ended, in that order."""
    for chunk in split_rows(scan_attempt_records(folder.journal_dir), lambda found: found[1]):
        yield build_attempt_columns([record for record, _ in chunk])


def _make_planned_columns(
    folder: RunFolder, plan: Plan, index: JournalIndex, pending_codes: Mapping[str, str]
) -> Iterator[Columns]:
    return _make_columns(folder, _find_places(plan, index), index, pending_codes)


def _make_columns(
    folder: RunFolder,
    rows: Iterable[tuple[PlannedRow, Place | None]],
    index: JournalIndex,
    pending_codes: Mapping[str, str],
) -> Iterator[Columns]:
    """Yield rows with what the journal holds at their places, as columns without score and verdict."""
    with RecordReader(folder.journal_dir) as reader:
        for chunk in split_rows(rows, _count_bytes):
            records = reader.read({row.request.row_id: place for row, place in chunk if place is not None})
            filled = []
            for row, _ in chunk:
                request = row.request
                done = records.get(request.row_id)
                if done is None:  # Not asked, or something else: what that took is told all the same.
                    asked = add_prior(request, index, index.get(request.row_id))
                    done = make_pending(asked, pending_codes[request.model])
                filled.append(row._replace(done=done))
            yield build_result_columns(filled, run_id=folder.run_id)


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


def grade_block(results: Columns, graders: GraderSet, find_reply: FindReply = no_reply) -> GradedBlock:
    """Return rows of the results with their grades, and with the score and verdict that follow from them."""
    grades: list[Any] = []
    scores, verdicts = [], []
    for values in zip(*(results[name] for name in GRADED_COLUMNS), strict=True):
        graded = graders.grade_row(dict(zip(GRADED_COLUMNS, values, strict=True)), find_reply)
        grades.extend(graded.grades)
        scores.append(graded.score)
        verdicts.append(graded.passed)
    return GradedBlock({**results, "score": scores, "passed": verdicts}, build_grade_columns(grades))
