"""The check before anything is sent: every template on every row, and what the rows would take.

Samples enter one by one; problems, counts and token sums stay. Memory does not grow with the dataset.
"""

from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from typing import Any

from evalrun.errors import AuthorError, DatasetError, Problem, PromptError
from evalrun.job.bodies import BodyEncoder
from evalrun.job.canonical import encode_canonical
from evalrun.job.estimate import ModelLoad, read_cap_tokens
from evalrun.job.messages import CompiledPrompt
from evalrun.job.param_checks import check_row_params, warn_row_params
from evalrun.job.rendering import Rendering
from evalrun.job.tally import ProblemTally
from evalrun.options import EndpointOptions
from evalrun.records import Sample
from evalrun.templates import Template
from evalrun.text_tokens import REPLY_TOKENS, estimate_message_tokens, estimate_tokens

_EXACT_TEXTS = 2_000
_EXACT_EVERY = 50


class Preflight:
    """What a check has seen so far.

    Args:
        prompts: The prompts of the plan.
        targets: Endpoint name and encoder of each model of the plan.
        endpoints: The job's endpoints by name.
        answers: Template of the right answer, by simulator endpoint.
        vars_: The job's variables.
        repeats: How often each row is asked.
        check_sample: Further checks of a sample; returns what is wrong.
    """

    def __init__(
        self,
        *,
        prompts: Sequence[CompiledPrompt],
        targets: Sequence[tuple[str, BodyEncoder]],
        endpoints: Mapping[str, EndpointOptions],
        answers: Mapping[str, Template],
        vars_: Mapping[str, Any],
        repeats: int,
        check_sample: Callable[[Sample], list[Problem]] | None,
    ) -> None:
        """Start with nothing seen."""
        self.tally = ProblemTally()
        self.warnings = ProblemTally()
        self.n_samples = 0
        self.categories: dict[str, int] = {}
        self.digest = sha256()
        self.loads = [{each.name: ModelLoad() for each in prompts} for _ in targets]
        """What each target is asked, by prompt."""
        # What is the same for every sample is counted once, and exactly.
        self._prompts = [(each, _count_fixed(each)) for each in prompts]
        self._targets = targets
        self._caps = [read_cap_tokens(encoder.params) for _, encoder in targets]
        self._endpoints = {name: endpoints[name] for name, _ in targets}
        self._answers = answers
        self._simulators = tuple(dict.fromkeys(endpoint for endpoint, _ in targets if endpoint in answers))
        self._vars = vars_
        self._repeats = repeats
        self._check_sample = check_sample
        # Answers are far shorter than prompts, so each kind has a ratio of its own.
        self._counter = _TokenCounter()
        self._answer_counter = _TokenCounter()

    def report(self, problem: Problem) -> None:
        """Note a row that is no sample."""
        self.tally.add(problem, place=problem.where)

    def check(self, sample: Sample) -> None:
        """Try everything on one sample."""
        self.n_samples += 1
        if sample.category is not None:
            self.categories[sample.category] = self.categories.get(sample.category, 0) + 1
        self.digest.update(encode_canonical([sample.sample_id, sample.row]))
        rendering = Rendering(sample, self._vars, self._answers)
        answer_tokens = self._try_answers(rendering)
        for prompt, fixed_tokens in self._prompts:
            self._try_prompt(prompt, fixed_tokens, rendering, answer_tokens)
        if sample.params:
            self._check_params(sample, sample.params)
        for problem in self._check_sample(sample) if self._check_sample is not None else ():
            self.tally.add(problem, sample_id=sample.sample_id, place=sample.where, is_prompt=True)

    def _check_params(self, sample: Sample, params: Mapping[str, Any]) -> None:
        for problem in check_row_params(params, sample.where):
            self.tally.add(problem, sample_id=sample.sample_id, place=sample.where)
        for warning in warn_row_params(params, self._endpoints, sample.where):
            self.warnings.add(warning, sample_id=sample.sample_id, place=sample.where)

    def _try_answers(self, rendering: Rendering) -> dict[str, float]:
        tokens: dict[str, float] = {}
        for endpoint in self._simulators:
            try:
                for repeat in range(self._repeats):
                    answer = rendering.render_answer(endpoint, repeat)
                    if repeat == 0:
                        tokens[endpoint] = self._answer_counter.count(answer or "")
            except PromptError as error:
                self._note(error, rendering.sample)
        return tokens

    def _try_prompt(
        self, prompt: CompiledPrompt, fixed_tokens: float, rendering: Rendering, answer_tokens: Mapping[str, float]
    ) -> None:
        sample, repeats = rendering.sample, self._repeats
        tokens = 0.0
        try:
            for repeat in range(repeats if prompt.uses_repeat else 1):
                messages = rendering.build_varying(prompt, repeat)
                tokens = fixed_tokens + estimate_message_tokens(messages, self._counter.count)
            for (endpoint, encoder), cap_tokens, loads in zip(self._targets, self._caps, self.loads, strict=True):
                cap = read_cap_tokens(encoder.merge_params(sample.params)) if sample.params else cap_tokens
                loads[prompt.name].add(repeats, tokens, cap, answer_tokens.get(endpoint, 0.0))
        except (PromptError, DatasetError) as error:
            self._note(error, sample)
        except ValueError as error:
            self._note(DatasetError(str(error)), sample)

    def _note(self, error: AuthorError, sample: Sample) -> None:
        for problem in error.problems:
            self.tally.add(
                problem,
                sample_id=sample.sample_id,
                place=sample.where,
                is_prompt=isinstance(error, PromptError),
            )


def _count_fixed(prompt: CompiledPrompt) -> float:
    """Return the tokens of the messages that are the same for every sample."""
    return estimate_message_tokens(prompt.fixed, estimate_tokens) - REPLY_TOKENS


class _TokenCounter:
    """Estimates the tokens of many texts: the first and then every fiftieth exactly, the others by their length."""

    __slots__ = ("_n_chars", "_n_texts", "_n_tokens")

    def __init__(self) -> None:
        self._n_texts = 0
        self._n_chars = 0
        self._n_tokens = 0

    def count(self, text: str) -> float:
        self._n_texts += 1
        if self._n_texts <= _EXACT_TEXTS or self._n_texts % _EXACT_EVERY == 0:
            tokens = estimate_tokens(text)
            self._n_chars += len(text)
            self._n_tokens += tokens
            return tokens
        return len(text) * self._n_tokens / max(self._n_chars, 1)
