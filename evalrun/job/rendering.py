"""One sample's texts: messages and right answers, each rendered and encoded once."""

from collections.abc import Mapping, Sequence
from typing import Any

from evalrun.job.messages import CompiledPrompt
from evalrun.records import Sample
from evalrun.templates import Template, make_scope


class Rendering:
    """What one sample's templates give; a text that does not name `repeat` is made once for all repeats.

    Args:
        sample: The sample.
        vars_: The job's variables.
        answers: Template of the right answer, by simulator endpoint.
    """

    __slots__ = ("_answers", "_scopes", "_templates", "_vars", "sample")

    def __init__(self, sample: Sample, vars_: Mapping[str, Any], answers: Mapping[str, Template]) -> None:
        self.sample = sample
        self._vars = vars_
        self._templates = answers
        self._scopes: dict[int, dict[str, Any]] = {}
        self._answers: dict[tuple[str, int], str] = {}

    def get_scope(self, repeat: int) -> dict[str, Any]:
        """Return what templates see in one repeat."""
        scope = self._scopes.get(repeat)
        if scope is None:
            sample = self.sample
            scope = make_scope(sample.row, sample_id=sample.sample_id, repeat=repeat, vars_=self._vars)
            self._scopes[repeat] = scope
        return scope

    def build_varying(self, prompt: CompiledPrompt, repeat: int) -> Sequence[Mapping[str, Any]]:
        """Return the messages of one repeat that differ between samples."""
        return prompt.build_varying(self.sample, self.get_scope(repeat))

    def encode_messages(self, prompt: CompiledPrompt, repeat: int) -> tuple[bytes, bytes]:
        """Return the messages as JSON, in the order written and canonical."""
        return prompt.encode(self.sample, self.get_scope(repeat))

    def render_answer(self, endpoint: str, repeat: int) -> str | None:
        """Return what a right reply says; None when the endpoint is no simulator."""
        template = self._templates.get(endpoint)
        if template is None:
            return None
        key = (endpoint, repeat if "repeat" in template.names else 0)
        answer = self._answers.get(key)
        if answer is None:
            answer = self._answers[key] = template.render(self.get_scope(key[1]))
        return answer
