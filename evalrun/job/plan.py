"""The plan: every row that a run asks, in one order, made when it is wanted.

A LoadedJob and a selection enter; Requests leave, lazily, in the order sample, prompt, model, repeat. The order and
every id depend on the job alone, so that a resumed run finds its rows again.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from hashlib import sha256
from typing import Any

from evalrun.errors import AuthorError, DatasetError, Problem, PromptError, UsageError
from evalrun.job.bodies import BodyEncoder
from evalrun.job.bodies import make_row_id as make_row_id
from evalrun.job.canonical import encode_canonical
from evalrun.job.config import LoadedJob
from evalrun.job.dataset import SampleSource
from evalrun.job.document import suggest_or_list
from evalrun.job.estimate import PlanTotals, combine_times, estimate_model, sum_usd
from evalrun.job.file_marks import FileMarks
from evalrun.job.literal_keys import hide_keys
from evalrun.job.messages import CompiledPrompt
from evalrun.job.preflight import Preflight
from evalrun.job.ranges import History
from evalrun.job.rendering import Rendering
from evalrun.job.row_maker import RowMaker
from evalrun.job.sample_ids import IdMaker
from evalrun.options import DatasetOptions, ModelOptions, PromptOptions
from evalrun.prices import NO_PRICES
from evalrun.records import Request, Sample
from evalrun.templates import Template

PROGRESS_EVERY = 500
"""Samples between two calls of `on_progress`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which part of a job to run."""

    limit: int | None = None
    """Only the first N samples that `where` lets through."""
    models: tuple[str, ...] = ()
    """Globs over model names; empty = all."""
    prompts: tuple[str, ...] = ()
    """Globs over prompt names; empty = all."""
    where: str | None = None
    """Expression over the sample."""


EVERYTHING = Selection()


class Plan:
    """Every row of a run.

    Args:
        loaded: The job.
        selection: Which part of it.

    Raises:
        UsageError: A glob matches nothing.
        PromptError: An expression does not compile.
        DatasetError: A dataset path leads to no file.
    """

    def __init__(self, loaded: LoadedJob, selection: Selection = EVERYTHING) -> None:
        """Choose models and prompts, compile templates; no sample is read."""
        job = loaded.job
        self.loaded = loaded
        self.models: tuple[ModelOptions, ...] = _choose(
            [model for model in job.models if model.role != "judge"], selection.models, "--model"
        )
        self.prompts: tuple[PromptOptions, ...] = _choose(job.prompts, selection.prompts, "--prompt")
        self.repeats = job.repeats
        self._source = SampleSource(loaded, limit=selection.limit, where=selection.where)
        self._marks = FileMarks()
        for file in self._source.files:
            self._marks.note(file.path, file.shown)
        self._dataset_digest: str | None = None
        self._has_where = selection.where is not None
        files_root = loaded.folder / job.files_root if job.files_root is not None else None
        self._prompts = [
            CompiledPrompt(prompt, ("prompts", job.prompts.index(prompt)), loaded.places.find, files_root, self._marks)
            for prompt in self.prompts
        ]
        self._encoders = [BodyEncoder(model, job.endpoints[str(model.endpoint)]) for model in self.models]
        self._answers = {
            name: Template(
                options.simulator.answer_template, where=loaded.where("endpoints", name, "simulator", "answer")
            )
            for name, options in job.endpoints.items()
            if options.simulator is not None
        }
        self._repeated_ids: frozenset[str] | None = None

    def requests(self, *, models: Collection[str] | None = None, wanted: bytearray | None = None) -> Iterator[Request]:
        """Yield the requests in plan order; a look at all of them ends by making sure that no file has changed.

        Args:
            models: Names of the models wanted; None for all. An index counts over the whole plan all the same.
            wanted: By index: 1 for each row that is wanted, and 0 for those that need not be rendered; None for all.

        Raises:
            DatasetError: A row cannot be used, or a file has changed; `check` finds the former before anything is sent.
            PromptError: A template does not fit a sample.
        """
        prompts = [(prompt, self._list_makers(prompt, models)) for prompt in self._prompts]
        vars_, rows_per_prompt, start = self.loaded.job.vars, len(self.models) * self.repeats, 0
        for sample in self._source.scan(ids=IdMaker(self._repeated_ids)):
            rendering = Rendering(sample, vars_, self._answers)
            sample_key = encode_canonical(sample.sample_id)
            for prompt, makers in prompts:
                if wanted is None or wanted.find(1, start, start + rows_per_prompt) >= 0:
                    yield from self._make_requests(rendering, prompt, makers, sample_key, start, wanted)
                start += rows_per_prompt
        if models is None:
            self.require_unchanged()

    def _list_makers(self, prompt: CompiledPrompt, models: Collection[str] | None) -> list[RowMaker]:
        return [
            RowMaker(prompt.name, model, encoder, offset=position * self.repeats)
            for position, (model, encoder) in enumerate(zip(self.models, self._encoders, strict=True))
            if models is None or model.name in models
        ]

    def find_changes(self) -> list[str]:
        """Return what became of the files that the plan reads, since `check` read them; nothing when rows are the same.

        A file that was only touched, or copied to its own place, is no change: what counts is what it holds.
        """
        if self._dataset_digest is None:
            return []
        changes = self._marks.find_changes()
        paths = {file.path for file in self._source.files}
        touched = [change.path for change in changes if change.path in paths]
        if touched and self._digest_dataset() == self._dataset_digest:
            for path in touched:
                self._marks.renew(path)
            changes = [change for change in changes if change.path not in paths]
        return [change.message for change in changes]

    def require_unchanged(self) -> None:
        """Make sure that the rows are still those that `check` saw.

        Raises:
            DatasetError: A file has changed since then.
        """
        changes = self.find_changes()
        if changes:
            raise DatasetError([Problem(message=f"{change} since it was checked") for change in changes])

    def _digest_dataset(self) -> str | None:
        """Return the digest of the samples as they are now, as `check` makes it; None when they cannot be read."""
        digest = sha256()
        try:
            for sample in self._source.scan():
                digest.update(encode_canonical([sample.sample_id, sample.row]))
        except AuthorError:
            return None
        return digest.hexdigest()

    def make_target(self, request: Request) -> bytes:
        """Return whom one of this plan's requests asks, as canonical JSON."""
        (encoder,) = (
            encoder for model, encoder in zip(self.models, self._encoders, strict=True) if model.name == request.model
        )
        return encoder.make_target(None if request.hint is None else request.hint.answer)

    def _make_requests(
        self,
        rendering: Rendering,
        prompt: CompiledPrompt,
        makers: Sequence[RowMaker],
        sample_key: bytes,
        start: int,
        wanted: bytearray | None,
    ) -> Iterator[Request]:
        """Yield the rows of one sample and one prompt; messages are made once for all rows that share them."""
        repeats = range(self.repeats if prompt.uses_repeat else 1)
        try:
            encoded = [rendering.encode_messages(prompt, repeat) for repeat in repeats]
            for maker in makers:
                for repeat in range(self.repeats):
                    if wanted is not None and not wanted[start + maker.offset + repeat]:
                        continue
                    messages = encoded[repeat if prompt.uses_repeat else 0]
                    answer = rendering.render_answer(maker.endpoint, repeat)
                    yield maker.make(rendering.sample, sample_key, start, repeat, messages, answer)
        except (PromptError, DatasetError) as error:
            sample, problem = rendering.sample, error.problems[0]
            message = f"{problem.message} (sample {sample.sample_id!r}, {sample.where})"
            raise type(error)(message, where=problem.where or sample.where, hint=problem.hint) from error

    def check(
        self,
        *,
        check_sample: Callable[[Sample], list[Problem]] | None = None,
        on_progress: Callable[[int], None] | None = None,
        history: History | None = None,
    ) -> PlanTotals:
        """Try every template on every row, and add up what the run would take; nothing is sent.

        Args:
            check_sample: Further checks of a sample (its graders'); returns what is wrong.
            on_progress: Told the number of samples seen, now and then and at the end.
            history: What an earlier run of the job saw; the estimate goes by it.

        Raises:
            DatasetError: A row cannot be used, or there are no rows. Equal problems of several rows are told once; at
                most 20 are listed, the rest counted.
            PromptError: Only templates are to be mended.
        """
        preflight = Preflight(
            prompts=self._prompts,
            targets=[
                (str(model.endpoint), encoder) for model, encoder in zip(self.models, self._encoders, strict=True)
            ],
            endpoints=self.loaded.job.endpoints,
            answers=self._answers,
            vars_=self.loaded.job.vars,
            repeats=self.repeats,
            check_sample=check_sample,
        )
        ids = IdMaker()
        try:
            for sample in self._source.scan(preflight.report, ids):
                preflight.check(sample)
                if on_progress is not None and preflight.n_samples % PROGRESS_EVERY == 0:
                    on_progress(preflight.n_samples)
        except AuthorError as error:
            for problem in error.problems:
                preflight.report(problem)
        if on_progress is not None:
            on_progress(preflight.n_samples)
        if preflight.tally:
            raise preflight.tally.make_error()
        if preflight.n_samples == 0:
            raise self._make_empty_error()
        self._repeated_ids = ids.repeated
        self._dataset_digest = preflight.digest.hexdigest()
        return self._total(preflight, history)

    def _total(self, preflight: Preflight, history: History | None) -> PlanTotals:
        endpoints, now = self.loaded.job.endpoints, datetime.now(UTC)
        models = tuple(
            estimate_model(
                model,
                endpoints[str(model.endpoint)],
                loads,
                prices=self.loaded.prices.get(model.name, NO_PRICES),
                at=now,
                history=history,
            )
            for model, loads in zip(self.models, preflight.loads, strict=True)
        )
        return PlanTotals(
            n_samples=preflight.n_samples,
            n_rows=preflight.n_samples * len(self.prompts) * len(self.models) * self.repeats,
            categories=preflight.categories,
            models=models,
            dataset_digest=preflight.digest.hexdigest(),
            usd=sum_usd(models),
            time_s=combine_times(models),
            warnings=tuple(map(hide_keys, preflight.warnings.list_problems())),
            learned_from=history.run_id if history is not None and any(each.prompts_seen for each in models) else None,
            prompt_estimates={
                model.name: {
                    prompt: load.prompt_tokens / load.n_requests for prompt, load in loads.items() if load.n_requests
                }
                for model, loads in zip(self.models, preflight.loads, strict=True)
            },
        )

    def _make_empty_error(self) -> DatasetError:
        key = "dataset" if self.loaded.job.dataset is not None else "samples"
        if self._has_where:
            return DatasetError("0 rows: no sample passes --where", where=self.loaded.where(key))
        if getattr(self.loaded.job.dataset, "where", None) is not None:
            return DatasetError("0 rows: no sample passes `where`", where=self.loaded.where("dataset", "where"))
        hint = "an empty dataset would pass any gate, so it is refused"
        dataset = self.loaded.job.dataset
        paths = dataset.path if isinstance(dataset, DatasetOptions) else dataset or "`samples`"
        names = paths if isinstance(paths, str) else ", ".join(paths)
        return DatasetError(f"0 rows: {names} holds no sample", where=self.loaded.where(key), hint=hint)


def _choose(items: Sequence[Any], globs: tuple[str, ...], flag: str) -> tuple[Any, ...]:
    names = [item.name for item in items]
    for glob in globs:
        if not any(fnmatchcase(name, glob) for name in names):
            hint = suggest_or_list(glob, names, label="the job has")
            raise UsageError(f"{flag} {glob} matches nothing in the job", hint=hint)
    return tuple(item for item in items if not globs or any(fnmatchcase(item.name, glob) for glob in globs))
