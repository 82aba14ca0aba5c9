"""Samples of a job, streamed: from its dataset files and from the job itself.

A LoadedJob enters; Samples leave in dataset order, each checked by itself. Memory does not grow with the dataset but
for 16 bytes an id, and for the samples that `dataset.sample` draws.
"""

import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from evalrun.errors import DatasetError, Problem, PromptError
from evalrun.grader_options import GRADER_OPTIONS
from evalrun.job.canonical import encode_json
from evalrun.job.config import LoadedJob
from evalrun.job.dataset_files import DatasetFile, list_dataset_files
from evalrun.job.explain import check_grader_type, explain
from evalrun.job.judge_checks import RESERVED_PARAMS
from evalrun.job.places import KeyPath
from evalrun.job.readers import Report, parse_cell, scan_rows
from evalrun.job.sample_ids import IdMaker, read_id
from evalrun.job.scalars import name_value
from evalrun.job.schema import validate
from evalrun.options import DatasetOptions
from evalrun.records import Sample
from evalrun.templates import RESERVED_NAMES, Expression, make_scope

MAX_DUPLICATES = 20
"""Ids given twice that are looked up, so that both places can be named; further ones are counted."""

_TEMPLATE_MARKS = ("{{", "{%", "{#")


def scan_samples(loaded: LoadedJob, *, limit: int | None = None, where: str | None = None) -> Iterator[Sample]:
    """Yield the samples of a job.

    Args:
        loaded: The job.
        limit: Only the first N that `where` lets through; None for all.
        where: Expression over the sample, beside the dataset's own.

    Raises:
        DatasetError: A file or row cannot be used; with file and line.
        PromptError: `where` does not compile.
    """
    return SampleSource(loaded, limit=limit, where=where).scan()


def _raise_problem(problem: Problem) -> None:
    """Stop at the first row that cannot be used."""
    raise DatasetError([problem])


_Row = tuple[dict[str, Any], str, bool]
"""A row before it is a sample: its values, its place, and whether it is written in the job (then its graders may hold
templates). A plain tuple, since one is made for each row of each pass."""


class SampleSource:
    """The samples of a job, to be scanned more than once.

    Args:
        loaded: The job.
        limit: Only the first N that `where` lets through; None for all.
        where: Expression over the sample, beside the dataset's own.

    Raises:
        DatasetError: A dataset path leads to no file.
        PromptError: An expression does not compile.
    """

    def __init__(self, loaded: LoadedJob, *, limit: int | None = None, where: str | None = None) -> None:
        """Find the files and compile the expressions."""
        self._loaded = loaded
        self._limit = limit
        self._where = Expression(where, where="--where") if where is not None else None
        self._options = _normalise_options(loaded)
        self._own_where = None
        self._id_column = self._category_column = self._params_column = None
        if self._options is not None:
            self._id_column = self._options.id
            self._category_column = self._options.category
            self._params_column = self._options.params_column
            if self._options.where is not None:
                self._own_where = Expression(self._options.where, where=loaded.where("dataset", "where"))
        names = _list_names(self._options)
        place = loaded.where("dataset", "path")
        self._files = list_dataset_files(names, loaded.folder, place) if names else []

    @property
    def files(self) -> Sequence[DatasetFile]:
        """The dataset's files, in the order in which they are read."""
        return self._files

    def scan(self, report: Report = _raise_problem, ids: IdMaker | None = None) -> Iterator[Sample]:
        """Yield the samples in dataset order.

        Args:
            report: Told about each row that cannot be used, which is then left out; default: raise at the first.
            ids: Gives the ids; default: a new one, which finds ids that are given twice.
        """
        duplicates: dict[str, str] = {}
        ids = ids or IdMaker()
        samples: Iterator[Sample] = itertools.chain(
            self._choose(self._make_samples(self._scan_files(report), ids, duplicates, report), report),
            self._make_samples(self._scan_inline(), ids, duplicates, report),
        )
        if self._where is not None:
            samples = self._filter(samples, self._where, report)
        yield from itertools.islice(samples, self._limit)
        if duplicates:
            self._report_duplicates(duplicates, report)

    def _scan_files(self, report: Report) -> Iterator[_Row]:
        columns = self._options.columns if self._options is not None else None
        for file in self._files:
            for line, values in scan_rows(file.path, shown=file.shown, columns=columns, report=report):
                yield values, f"{file.shown}:{line}", False

    def _scan_inline(self) -> Iterator[_Row]:
        for number, values in enumerate(self._loaded.job.samples):
            yield dict(values), self._loaded.where("samples", number), True

    def _make_samples(
        self, rows: Iterator[_Row], ids: IdMaker, duplicates: dict[str, str], report: Report
    ) -> Iterator[Sample]:
        for row in rows:
            try:
                sample, is_new = self._make_sample(row, ids)
            except DatasetError as error:
                for problem in error.problems:
                    report(problem)
                continue
            if not is_new and len(duplicates) < MAX_DUPLICATES:
                # Only a hash was seen before, so nothing is said until the first place is found.
                duplicates.setdefault(sample.sample_id, sample.where)
                if report is _raise_problem:
                    self._report_duplicates(duplicates, report)
                    duplicates.clear()
            yield sample

    def _make_sample(self, row: _Row, ids: IdMaker) -> tuple[Sample, bool]:
        values, where, is_inline = row
        if not RESERVED_NAMES.isdisjoint(values):
            name = min(RESERVED_NAMES & set(values))
            message = f"a column may not be named `{name}`, which templates see as something else"
            raise DatasetError(message, where=where, hint="rename the column")
        given_id = self._read_id(values, where)
        if given_id is None:
            sample_id, is_new = ids.make_id(values), True
        else:
            sample_id, is_new = given_id, ids.is_new(given_id)
        graders = values.get("graders")
        sample = Sample(
            sample_id=sample_id,
            row=values,
            category=self._read_category(values, where),
            where=where,
            graders=_read_graders(graders, where, is_inline=is_inline) if graders else (),
            params=self._read_params(values, self._params_column, where) if self._params_column is not None else None,
        )
        return sample, is_new

    def _read_id(self, values: Mapping[str, Any], where: str) -> str | None:
        column = self._id_column or "id"
        if column not in values:
            if self._id_column is not None:
                raise DatasetError(_name_missing("id", column, values), where=where)
            return None
        try:
            return read_id(values[column])
        except ValueError as error:
            raise DatasetError(f"column `{column}`: {error}", where=where) from error

    def _read_category(self, values: Mapping[str, Any], where: str) -> str | None:
        column = self._category_column
        if column is not None and column not in values:
            raise DatasetError(_name_missing("category", column, values), where=where)
        value = values.get(column or "category")
        return value if value is None or isinstance(value, str) else encode_json(value).decode()

    def _read_params(self, values: Mapping[str, Any], column: str, where: str) -> Mapping[str, Any] | None:
        params = values.get(column)
        if not params:
            return None
        params = _parse_cell(params, column, where)
        if not isinstance(params, dict):
            raise DatasetError(f"column `{column}` must be a mapping, got {name_value(params)}", where=where)
        refused = sorted(RESERVED_PARAMS & set(params))
        if refused:
            raise DatasetError(f"column `{column}` may not set `{refused[0]}`", where=where)
        return params

    def _choose(self, samples: Iterator[Sample], report: Report) -> Iterator[Sample]:
        """Apply the dataset's own `where`, then `limit`, then `sample`."""
        options = self._options
        if options is None:
            return samples
        if self._own_where is not None:
            samples = self._filter(samples, self._own_where, report)
        if options.limit is not None:
            samples = itertools.islice(samples, options.limit)
        if options.sample is not None:
            return iter(_draw(samples, options.sample, options.seed))
        return samples

    def _filter(self, samples: Iterator[Sample], condition: Expression, report: Report) -> Iterator[Sample]:
        vars_ = self._loaded.job.vars
        for sample in samples:
            scope = make_scope(sample.row, sample_id=sample.sample_id, repeat=0, vars_=vars_)
            try:
                is_chosen = condition.is_true(scope)
            except PromptError as error:
                problem = error.problems[0]
                message = f"{problem.message} ({condition.where})"
                report(Problem(message=message, where=sample.where, hint=problem.hint))
            else:
                if is_chosen:
                    yield sample

    def _report_duplicates(self, duplicates: Mapping[str, str], report: Report) -> None:
        """Look up where each id stood first; an id that only shares a hash is none."""
        places: dict[str, str] = {}
        for values, where, _ in itertools.chain(self._scan_files(_ignore), self._scan_inline()):
            try:
                sample_id = self._read_id(values, where)
            except DatasetError:
                continue
            if sample_id is not None and sample_id in duplicates and sample_id not in places:
                places[sample_id] = where
                if len(places) == len(duplicates):
                    break
        for sample_id, where in duplicates.items():
            first = places.get(sample_id, where)
            if first != where:
                message = f"the sample id {sample_id[:60]!r} is given twice; first at {first}"
                report(Problem(message=message, where=where, hint="ids must be unique over all files of the job"))


def _ignore(_problem: Problem) -> None:
    """Pass over a row that was reported before."""


def _normalise_options(loaded: LoadedJob) -> DatasetOptions | None:
    dataset = loaded.job.dataset
    return DatasetOptions(path=dataset) if isinstance(dataset, str | tuple) else dataset


def _list_names(options: DatasetOptions | None) -> tuple[str, ...]:
    if options is None:
        return ()
    return (options.path,) if isinstance(options.path, str) else options.path


def _name_missing(purpose: str, column: str, values: Mapping[str, Any]) -> str:
    return f"the row has no column `{column}`, named as its {purpose}; it has: {', '.join(list(values)[:20])}"


def _parse_cell(value: Any, column: str, where: str) -> Any:
    """Return what a cell holds; CSV and most Parquet files can hold lists and mappings only as JSON text."""
    if not isinstance(value, str):
        return value
    try:
        return parse_cell(value)
    except ValueError as error:
        raise DatasetError(f"column `{column}` is not valid JSON: {error}", where=where) from error


def _read_graders(value: Any, where: str, *, is_inline: bool) -> tuple[Mapping[str, Any], ...]:
    graders = _parse_cell(value, "graders", where)
    if not isinstance(graders, list):
        raise DatasetError(f"column `graders` must be a list, got {name_value(graders)}", where=where)
    problems: list[Problem] = []
    for index, grader in enumerate(graders):
        problems += _check_grader(grader, index, where, is_inline=is_inline)
    if problems:
        raise DatasetError(problems)
    return tuple(graders)


def _check_grader(grader: Any, index: int, where: str, *, is_inline: bool) -> list[Problem]:
    def place(_path: KeyPath) -> str:
        return where

    label = f"graders[{index}]"
    problem = check_grader_type(grader, label)
    if problem is not None:
        return [Problem(message=problem.message, where=where, hint=problem.hint)]
    if not is_inline:
        message = _find_code(grader)
        if message is not None:
            hint = "graders of a dataset file take literal values only; write this one in the job"
            return [Problem(message=f"`{label}` {message}", where=where, hint=hint)]
    record = GRADER_OPTIONS[grader["type"]]
    _, errors = validate(record, grader)
    return explain(errors, grader, grader, place, root=record)


def _find_code(grader: Mapping[str, Any]) -> str | None:
    """Return why a dataset file may not hold this grader; None when all of it is literal."""
    if grader.get("type") == "judge":
        return "asks a judge"
    if grader.get("type") == "python":
        return "runs code"
    if "file" in grader:
        return "names a file"
    if "when" in grader:
        return "holds an expression (`when`)"
    return "holds a template" if _has_template(grader) else None


def _has_template(value: Any) -> bool:
    if isinstance(value, str):
        return any(mark in value for mark in _TEMPLATE_MARKS)
    if isinstance(value, Mapping):
        return any(_has_template(key) or _has_template(item) for key, item in value.items())
    return isinstance(value, list) and any(map(_has_template, value))


def _draw(samples: Iterator[Sample], n: int, seed: int) -> list[Sample]:
    """Return n samples drawn at random in one pass, in dataset order; all of them when there are no more."""
    rng = random.Random(seed)  # noqa: S311 - a reproducible draw, no secret
    chosen: list[tuple[int, Sample]] = []
    for index, sample in enumerate(samples):
        if index < n:
            chosen.append((index, sample))
        elif (slot := rng.randrange(index + 1)) < n:
            chosen[slot] = (index, sample)
    return [sample for _, sample in sorted(chosen, key=lambda pair: pair[0])]
