"""A file of answers read in full: every row, every id and every grader checked, then all of it in the order of a plan.

Files and where their columns stand enter; answers by sample, prompt, model and repeat leave, or every problem at once.
Texts are put aside on disk, so that about 60 bytes an answer and the ids of the samples are in memory.
"""

from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from evalrun.answer_columns import Answer, AnswerColumns, AnswerReader
from evalrun.answer_spool import Spool
from evalrun.errors import DatasetError, Problem
from evalrun.job.canonical import make_digest
from evalrun.job.config import LoadedJob
from evalrun.job.dataset import scan_samples
from evalrun.job.dataset_files import DatasetFile, list_dataset_files
from evalrun.job.document import suggest
from evalrun.job.readers import parse_cell, scan_rows
from evalrun.job.sample_ids import IdMaker
from evalrun.records import Sample
from evalrun.templates import RESERVED_NAMES

MAX_PROBLEMS = 20
"""Most problems that are listed at once; further ones are counted."""

CheckSample = Callable[[Sample], Sequence[Problem]]


class ImportedAnswer(NamedTuple):
    """One answer with its place in the plan."""

    sample: Sample
    """Without its row, which stands beside as text."""
    sample_text: str
    """The sample's row as JSON."""
    repeat: int
    """0-based."""
    model: str
    prompt: str
    input: Any
    """What was asked; None when the file does not tell."""
    record: Mapping[str, Any]
    """What `make_record` made of it."""


@dataclass(frozen=True, slots=True)
class _SampleFacts:
    """What is kept of a sample beside its text."""

    sample_id: str
    category: str | None
    number: int
    """In the spool."""
    digest: str
    where: str


class _Problems:
    """What is wrong with the file: each kind of problem once, with its first place and how often it came."""

    def __init__(self) -> None:
        self._found: dict[str, Problem] = {}
        self._n_more: dict[str, int] = {}
        self._n_unlisted = 0

    def add(self, problem: Problem) -> None:
        if problem.message in self._found:
            self._n_more[problem.message] += 1
        elif len(self._found) < MAX_PROBLEMS:
            self._found[problem.message] = problem
            self._n_more[problem.message] = 0
        else:
            self._n_unlisted += 1

    def raise_any(self) -> None:
        """Raise what was found.

        Raises:
            DatasetError: Something was.
        """
        if not self._found:
            return
        listed = []
        for message, problem in self._found.items():
            more = self._n_more[message]
            listed.append(replace(problem, message=f"{message} (and {more:,} more)") if more else problem)
        if self._n_unlisted:
            listed.append(Problem(message=f"and {self._n_unlisted:,} more problems"))
        raise DatasetError(listed)


class AnswerFile:
    """The answers of a file, checked; a context manager that frees what was put aside.

    Args:
        path: A dataset file of any format that is read, a folder or a glob of them.
        columns: Where its columns stand.
        make_record: Makes of an answer what the tables are made from; raises DatasetError where it cannot.
        loaded: The job whose samples were answered, found by their ids; None = the rows hold their samples.
        check_sample: Returns what would keep a sample from being graded.

    Raises:
        DatasetError: With every problem of the file.
    """

    def __init__(
        self,
        path: Path,
        columns: AnswerColumns,
        *,
        make_record: Callable[[Answer], Mapping[str, Any]],
        loaded: LoadedJob | None,
        check_sample: CheckSample,
    ) -> None:
        self.files: Sequence[DatasetFile] = list_dataset_files((str(path),), Path(), "FILE")
        self.models: dict[str, int] = {}
        """Each model's number, in the order in which they came."""
        self._prompts: dict[str, int] = {}
        self._columns, self._make_record = columns, make_record
        self._problems = _Problems()
        self._samples: dict[str, int] = {}
        self._facts: list[_SampleFacts] = []
        self._rows, self._texts = Spool(), Spool()
        self._keys = [array("q") for _ in range(4)]  # Sample, prompt, model and repeat of each answer.
        self._places = [array("q") for _ in range(2)]  # Its file and line.
        try:
            self._read(check_sample if loaded is None else None)
            if loaded is not None:
                self._find_samples(loaded, check_sample)
            self._order = sorted(range(len(self._rows)), key=self._get_key)
            self._find_duplicates()
            if not self._order:
                self._problems.add(Problem(message="the file holds no row", where=self.files[0].shown))
            self._problems.raise_any()
        except BaseException:
            self.close()
            raise
        self.repeats = {number: index for index, number in enumerate(sorted(set(self._keys[3])))}
        """From a repeat as the file numbers it to its number from 0."""

    def __enter__(self) -> "AnswerFile":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def n_samples(self) -> int:
        """How many samples were answered."""
        return len(self._samples)

    def close(self) -> None:
        """Free what was put aside."""
        for spool in (self._rows, self._texts):
            spool.__exit__()

    def scan(self) -> Iterator[ImportedAnswer]:
        """Yield the answers in plan order: by sample, prompt, model and repeat."""
        prompts, models = list(self._prompts), list(self.models)
        last, text = -1, ""
        for row in self._order:
            number, prompt, model, repeat = self._get_key(row)
            facts = self._facts[number]
            if number != last:
                last, text = number, self._texts.get_text(facts.number)
            yield ImportedAnswer(
                Sample(sample_id=facts.sample_id, row={}, category=facts.category, where=facts.where),
                text,
                self.repeats[repeat],
                models[model],
                prompts[prompt],
                *self._rows.get(row),
            )

    def _get_key(self, row: int) -> tuple[int, int, int, int]:
        sample, prompt, model, repeat = self._keys
        return sample[row], prompt[row], model[row], repeat[row]

    def _read(self, check_sample: CheckSample | None) -> None:
        """Read every row; its sample as well, where `check_sample` is given."""
        reader, ids, first = AnswerReader(self._columns), IdMaker(), None
        for number, file in enumerate(self.files):
            for line, row in scan_rows(file.path, shown=file.shown, columns=None, report=self._problems.add):
                first = first or row
                where = f"{file.shown}:{line}"
                try:
                    sample = self._take_sample(reader, row, ids, where, check_sample)
                    for answer in reader.scan_answers(row):
                        self._take_answer(answer, sample)
                        self._places[0].append(number)
                        self._places[1].append(line)
                except DatasetError as error:
                    for problem in error.problems:
                        self._problems.add(replace(problem, where=where))
        for option, path in reader.list_unseen().items() if first is not None else ():
            message = f"no row has a `{path}`, named by {option}"
            self._problems.add(Problem(message=message, where=self.files[0].shown, hint=suggest(path, first or ())))

    def _take_answer(self, answer: Answer, sample: int) -> None:
        record = self._make_record(answer)
        key = (
            sample,
            self._prompts.setdefault(answer.prompt, len(self._prompts)),
            self.models.setdefault(answer.model, len(self.models)),
            answer.repeat,
        )
        for numbers, value in zip(self._keys, key, strict=True):
            numbers.append(value)
        self._rows.put([answer.input, record])

    def _take_sample(
        self, reader: AnswerReader, row: Mapping[str, Any], ids: IdMaker, where: str, check_sample: CheckSample | None
    ) -> int:
        """Return the number of a row's sample, a new one where its id is new."""
        sample_id = reader.read_id(row)
        if sample_id is None and not self._columns.is_wide:
            raise DatasetError(
                "the row has no id", hint="name the column that says which sample was asked: --id COLUMN"
            )
        content = reader.make_sample(row) if check_sample is not None or sample_id is None else {}
        if sample_id is None:
            sample_id = ids.make_id(content)
        digest = make_digest(content)
        number = self._samples.setdefault(sample_id, len(self._samples))
        if number < len(self._facts):
            if self._facts[number].digest != digest:
                raise DatasetError(self._tell_difference(number, content), hint="leave such columns out with --ignore")
            return number
        category = reader.read_category(row) if check_sample is not None else None
        text = self._texts.put(content) if check_sample is not None else 0
        self._facts.append(_SampleFacts(sample_id, category, text, digest, where))
        if check_sample is not None:
            self._check(content, self._facts[-1], check_sample)
        return number

    def _tell_difference(self, number: int, content: Mapping[str, Any]) -> str:
        facts = self._facts[number]
        first = self._texts.get(facts.number)
        names = [name for name in {**first, **content} if first.get(name) != content.get(name)]
        column = f"in column `{names[0]}` " if names else ""
        return f"the sample {facts.sample_id[:60]!r} differs {column}from what {facts.where} says of it"

    def _check(self, content: Mapping[str, Any], facts: _SampleFacts, check_sample: CheckSample) -> None:
        reserved = RESERVED_NAMES & set(content)
        if reserved:
            message = f"a column may not be named `{min(reserved)}`, which templates see as something else"
            raise DatasetError(message, hint=f"rename it, or leave it out: --ignore {min(reserved)}")
        graders = content.get("graders") or ()
        if isinstance(graders, str):
            try:
                graders = parse_cell(graders)
            except ValueError as error:
                raise DatasetError(f"column `graders` is not valid JSON: {error}") from error
        if not isinstance(graders, list | tuple):
            raise DatasetError("column `graders` must be a list")
        sample = Sample(
            sample_id=facts.sample_id, row=content, category=facts.category, where=facts.where, graders=tuple(graders)
        )
        for problem in check_sample(sample):
            self._problems.add(problem)

    def _find_samples(self, loaded: LoadedJob, check_sample: CheckSample) -> None:
        """Find the samples that were answered among those of a job, whose order becomes theirs."""
        rank: list[int | None] = [None] * len(self._facts)
        found: list[_SampleFacts] = []
        known: list[str] = []
        for sample in scan_samples(loaded):
            number = self._samples.get(sample.sample_id)
            if number is None:
                known.append(sample.sample_id) if len(known) < MAX_PROBLEMS else None
                continue
            rank[number] = len(found)
            text = self._texts.put(sample.row)
            found.append(_SampleFacts(sample.sample_id, sample.category, text, "", sample.where))
            for problem in check_sample(sample):
                self._problems.add(problem)
        hint = f"ids of the job: {', '.join(known[:5])}; or take the file's own rows as the samples: --samples file"
        for facts, place in zip(self._facts, rank, strict=True):
            if place is None:
                message = f"{loaded.path} has no sample {facts.sample_id[:60]!r}"
                self._problems.add(Problem(message=message, where=facts.where, hint=hint))
        self._problems.raise_any()
        self._facts = found
        self._keys[0] = array("q", (rank[number] or 0 for number in self._keys[0]))

    def _find_duplicates(self) -> None:
        """Report answers that stand for the same row of the plan."""
        last: tuple[int, int, int, int] | None = None
        first = 0
        for row in self._order:
            key = self._get_key(row)
            if key != last:
                last, first = key, row
                continue
            sample_id, model = self._facts[key[0]].sample_id, list(self.models)[key[2]]
            message = f"the sample {sample_id[:60]!r} is answered twice by {model}; first at {self._name_place(first)}"
            hint = "if it was asked more than once, name the column that numbers the askings: --repeat COLUMN"
            self._problems.add(Problem(message=message, where=self._name_place(row), hint=hint))

    def _name_place(self, row: int) -> str:
        file, line = (numbers[row] for numbers in self._places)
        return f"{self.files[file].shown}:{line}"
