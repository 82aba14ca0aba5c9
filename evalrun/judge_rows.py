"""Which requests the judges of a job get: one for each answered row, judge and vote, made when it is wanted.

Rows of results, by name of their columns, enter; ordinary requests leave, with ids and keys of their own. What is asked
depends on the row and the job alone, so that a resume and a new grading find again what was answered.
"""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from evalrun.analysis.graders.build import digest_options
from evalrun.analysis.graders.grader_set import GraderSet, Judgement
from evalrun.analysis.graders.judge_grader import (
    get_scale,
    make_fence,
    make_judge_row_id,
    make_messages,
    make_response_format,
)
from evalrun.errors import AuthorError, ConfigError, Problem
from evalrun.grader_options import JudgeOptions
from evalrun.job.bodies import BodyEncoder, is_dropped
from evalrun.job.canonical import encode_canonical, encode_json
from evalrun.job.config import LoadedJob
from evalrun.job.estimate import read_cap_tokens
from evalrun.options import EndpointOptions, ModelOptions
from evalrun.records import Request, Sample, SimulatorHint
from evalrun.templates import Template, make_scope

Row = Mapping[str, Any]
"""A row of results: `JUDGED_BY` at least."""

JUDGED_BY = (
    "row_id", "request_key", "status", "output", "refusal", "tool_calls", "sample", "sample_id", "category", "repeat",
)  # fmt: skip
"""Columns of results that decide what a judge is asked."""

_NOT_A_JUDGES = frozenset({"n", "response_format", "tools", "tool_choice", "parallel_tool_calls"})
"""Parameters of a model that shape its answers to the samples, and are not sent when it judges."""


class JudgeRows:
    """The requests of a job's judges; false when the job has none.

    Args:
        loaded: The job.
        graders: Its graders.

    Raises:
        ConfigError: The parameters of a judge do not go together.
    """

    def __init__(self, loaded: LoadedJob, graders: GraderSet) -> None:
        self._graders = graders
        self._vars = loaded.job.vars
        models = {model.name: model for model in loaded.job.models}
        options = graders.list_judge_options()
        self._askers = {digest_options(each): _Asker(each, models[each.model], loaded) for each in options}
        named = {each.model for each in options}
        self.models: tuple[ModelOptions, ...] = tuple(model for model in loaded.job.models if model.name in named)
        """The models that judge, in the order of the job."""

    def __bool__(self) -> bool:
        return bool(self.models)

    @property
    def endpoints(self) -> list[str]:
        """Names of the endpoints that are sent to, each once."""
        return list(dict.fromkeys(str(model.endpoint) for model in self.models))

    def scan(
        self,
        rows: Iterable[Row],
        *,
        first_index: int,
        models: Collection[str] | None = None,
        wanted: bytearray | None = None,
    ) -> Iterator[tuple[Row, Request]]:
        """Yield every request about some rows, with the row that it is about.

        Args:
            rows: In plan order; those without an answer are passed over.
            first_index: Index of the first request; all are counted, wanted or not.
            models: Names of the judges wanted; None for all.
            wanted: By number of the request, counted from 0: 1 for each that is wanted; None for all.
        """
        number = 0
        for row in rows:
            for judgement in self._graders.list_judgements(row):
                start, number = number, number + judgement.options.votes
                if models is not None and judgement.options.model not in models:
                    continue
                if wanted is None or wanted.find(1, start, number) >= 0:
                    requests = self._askers[judgement.digest].make_requests(
                        judgement, row, first_index=first_index + start, vars_=self._vars
                    )
                    for offset, request in enumerate(requests):
                        if wanted is None or wanted[start + offset]:
                            yield row, request

    def list_row_ids(self, sample: Sample, row_id: str) -> list[str]:
        """Return the row_ids that requests about a row may have, whether it is answered or not."""
        if not self.models:
            return []
        judges = self._graders.list_judges(sample)
        return [make_judge_row_id(row_id, name, vote) for name, votes in judges for vote in range(votes)]

    def read_cap_tokens(self, judgement: Judgement) -> int | None:
        """Return the limit that a judge's parameters set on its reply; None when they set none."""
        return self._askers[judgement.digest].cap_tokens

    def check_sample(self, sample: Sample) -> list[Problem]:
        """Return what would keep a simulated judge from knowing the right answer to a sample."""
        problems: list[Problem] = []
        for asker in self._askers.values():
            try:
                asker.render_answer(make_scope(sample.row, sample_id=sample.sample_id, repeat=0, vars_=self._vars))
            except AuthorError as error:
                problems += error.problems
        return problems


class _Asker:
    """Makes the requests of one judge grader.

    Args:
        options: The grader's.
        model: The model that it names.
        loaded: The job.
    """

    def __init__(self, options: JudgeOptions, model: ModelOptions, loaded: LoadedJob) -> None:
        endpoint = loaded.job.endpoints[str(model.endpoint)]
        self._options = options
        self._model = model
        self._is_structured = _is_structured(options, endpoint)
        own = {name: value for name, value in model.params.items() if name not in _NOT_A_JUDGES}
        structure = {"response_format": make_response_format(options)} if self._is_structured else {}
        try:
            self._encoder = BodyEncoder(replace(model, params={**own, **options.params, **structure}), endpoint)
        except ValueError as error:
            where = loaded.where("graders")
            raise ConfigError(f"the parameters of the judge {model.name!r}: {error}", where=where) from error
        self.cap_tokens = read_cap_tokens(self._encoder.params)
        """Limit of a reply; None when the parameters set none."""
        place = loaded.where("endpoints", str(model.endpoint), "simulator", "answer")
        simulator = endpoint.simulator
        self._answer = None if simulator is None else Template(simulator.answer_template, where=place)

    def render_answer(self, scope: Mapping[str, Any]) -> str | None:
        """Return the right answer to a sample; None for a judge that is no simulator."""
        return None if self._answer is None else self._answer.render(scope)

    def make_requests(
        self, judgement: Judgement, row: Row, *, first_index: int, vars_: Mapping[str, Any]
    ) -> Iterator[Request]:
        """Yield one request for each vote."""
        text = judgement.text
        messages = make_messages(judgement.options, judgement.task, text, make_fence(row["row_id"], judgement.name))
        encoded = encode_json(messages), encode_canonical(messages)
        right = self._find_right_verdict(row, text, vars_)
        sample = Sample(sample_id=row["sample_id"], row={}, category=row["category"], where="")
        for vote in range(judgement.options.votes):
            body, request_key = self._encoder.encode(*encoded, repeat=vote, answer=right, row_params=None)
            yield Request(
                index=first_index + vote,
                row_id=make_judge_row_id(row["row_id"], judgement.name, vote),
                request_key=request_key,
                sample=sample,
                prompt=judgement.name,
                model=self._model.name,
                endpoint=str(self._model.endpoint),
                repeat=vote,
                body=body,
                # The judged row, not its sample: whether a judge errs has nothing to do with how hard the question is.
                hint=None if right is None else SimulatorHint(answer=right, sample_id=row["row_id"], repeat=vote),
                n_choices=self._encoder.count_choices(None),
                max_output_tokens=self._encoder.read_output_limit(None),
            )

    def _find_right_verdict(self, row: Row, text: str, vars_: Mapping[str, Any]) -> str | None:
        """Return what a simulated judge says when it is right: the best label when the output holds the answer."""
        if self._answer is None:
            return None
        scope = make_scope(json.loads(row["sample"]), sample_id=row["sample_id"], repeat=row["repeat"], vars_=vars_)
        answer = self._answer.render(scope).strip()
        scale = get_scale(self._options)
        best, worst = max(scale, key=scale.__getitem__), min(scale, key=scale.__getitem__)
        label = best if answer and answer in text else worst
        if self._is_structured:
            return label
        return json.dumps({"choice": label} if self._options.choices is not None else {"score": scale[label]})


def _is_structured(options: JudgeOptions, endpoint: EndpointOptions) -> bool:
    if isinstance(options.structured, bool):
        return options.structured
    return not is_dropped("response_format", endpoint)
