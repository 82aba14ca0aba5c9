"""Right answers for other people's clients: a dataset file read into the simulator's answer book."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from evalrun.errors import DatasetError, Problem
from evalrun.job.canonical import encode_json
from evalrun.job.dataset_files import list_dataset_files
from evalrun.job.readers import scan_rows
from evalrun.job.sample_ids import IdMaker, read_id
from evalrun.simulator.answer_book import AnswerBook, KnownAnswer


def load_answer_book(file: str, *, match: str, answer_column: str) -> AnswerBook:
    """Return the book of a dataset file, folder or glob.

    Args:
        file: As a job's `dataset` names it, relative to the working folder.
        match: Column whose text a prompt about the row contains.
        answer_column: Column of the right answer.

    Raises:
        DatasetError: The file or a row cannot be read, a column is missing, or no row can be found by its text.
    """
    book = AnswerBook(_scan_known_answers(file, match, answer_column))
    if not book.n_rows:
        raise DatasetError(f"no row has both a text in `{match}` and an answer in `{answer_column}`", where=file)
    return book


def _scan_known_answers(file: str, match: str, answer_column: str) -> Iterator[KnownAnswer]:
    ids = IdMaker()
    for found in list_dataset_files([file], Path.cwd(), "--answers"):
        for line, row in scan_rows(found.path, shown=found.shown, columns=None, report=_raise_problem):
            where = f"{found.shown}:{line}"
            for column in (match, answer_column):
                if column not in row:
                    columns = ", ".join(row) or "none"
                    raise DatasetError(
                        f"there is no column `{column}`", where=where, hint=f"the columns are: {columns}"
                    )
            try:
                sample = read_id(row["id"]) if "id" in row else ids.make_id(row)
            except ValueError as error:
                raise DatasetError(f"column `id`: {error}", where=where) from error
            yield KnownAnswer(sample, _write_text(row[match]), _write_text(row[answer_column]))


def _raise_problem(problem: Problem) -> None:
    raise DatasetError([problem])


def _write_text(value: Any) -> str:
    """Return a cell as text; "" for null, JSON for what is neither."""
    if value is None:
        return ""
    return value if isinstance(value, str) else encode_json(value).decode()
