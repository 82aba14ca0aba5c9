"""Tokens that nobody told: what the texts of an exchange weigh, and what other answers of the model took.

Requests, completions and what came of a cut reply enter; usage leaves that says it is `estimated`, as reported where a
reply told it after all. Each lane has one estimator, which learns from its first answers. Invariant: what was told is
never replaced by an estimate, and where there is nothing to go by, nothing is estimated.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final, NamedTuple

from evalrun.dispatch.json_text import dump_json, load_json
from evalrun.dispatch.token_guess import MAX_BELIEVED_TOKENS, START_OUTPUT_TOKENS
from evalrun.dispatch.usage import parse_usage
from evalrun.records import Completion, Request, Usage, UsageSource
from evalrun.text_tokens import TokenEstimator

MAX_LEARNED: Final = 64
"""Answers from which the tokens of texts are learned; what comes later costs nothing."""
_BESIDE_MESSAGES: Final = ("tools", "functions", "response_format")
"""Members of a body that are part of the prompt as well."""
_SAID: Final = (("content",), ("refusal",), ("reasoning_content", "reasoning"), ("tool_calls",), ("function_call",))
"""Members of a message that are the model's words; names of the same one stand together."""


class Taken(NamedTuple):
    """What an attempt that failed may have taken."""

    usage: Usage
    service_tier: str | None
    """As answered; None when it was not said."""


class UsageEstimator:
    """Estimates the tokens of one lane's exchanges."""

    def __init__(self) -> None:
        self._tokens = TokenEstimator()
        self._outputs: dict[str, _Mean] = {}
        """Completion tokens of each choice, by the model's label: parameters make the same wire model talk more."""

    def note_answer(self, request: Request, usage: Usage) -> None:
        """Learn from a reply that told its tokens.

        Args:
            request: What was asked.
            usage: As reported, with both totals.
        """
        prompt_tokens, completion_tokens = usage.prompt_tokens or 0, usage.completion_tokens or 0
        if prompt_tokens + completion_tokens > MAX_BELIEVED_TOKENS or "usage_inconsistent" in usage.flags:
            return
        outputs = self._outputs.get(request.model)
        if outputs is None:
            outputs = self._outputs[request.model] = _Mean()
        outputs.n += request.n_choices
        outputs.total += completion_tokens
        if prompt_tokens and self._tokens.n_learned < MAX_LEARNED:
            self._tokens.learn(_read_messages(request), prompt_tokens)

    def complete(self, request: Request, completion: Completion) -> Completion:
        """Return a completion with estimates in the place of counts that it does not tell.

        One that said nothing, or names its cost, stays as it is: there is nothing to go by, or nothing to be found out.
        """
        usage, texts = completion.usage, list(_list_texts(completion))
        if not texts or usage.reported_cost_usd is not None:
            return completion
        return replace(completion, usage=self._fill(request, usage, texts))

    def estimate_failure(self, request: Request, said: bytes | None) -> Taken:
        """Return what a failed attempt may have taken.

        Its prompt; and what it was heard to say, else as much as the model says on average.

        Args:
            request: What was asked.
            said: What came of the reply, as JSON if it is any; None when nothing came.
        """
        reply = _read_reply(said)
        usage, tier = parse_usage(reply.get("usage")), reply.get("service_tier")
        if usage.prompt_tokens is None or usage.completion_tokens is None:
            usage = self._fill(request, usage, list(_list_said(reply.get("choices"))))
        return Taken(usage, tier if isinstance(tier, str) else None)

    def _fill(self, request: Request, usage: Usage, texts: list[str]) -> Usage:
        """Return usage with both totals, which keep to the sum where it is told; parts of an estimate are unknown."""
        prompt, completion, total = usage.prompt_tokens, usage.completion_tokens, usage.total_tokens
        if prompt is None:
            prompt = round(self._tokens.estimate_messages(_read_messages(request)))
            if total is not None:
                prompt = min(prompt, total) if completion is None else max(0, total - completion)
            usage = replace(usage, cached_tokens=None, cache_write_tokens=None, audio_input_tokens=None)
        if completion is None:
            has_sum = total is not None and total >= prompt
            completion = total - prompt if total is not None and has_sum else self._estimate_output(request, texts)
            usage = replace(usage, reasoning_tokens=None, audio_output_tokens=None)
        return replace(usage, prompt_tokens=prompt, completion_tokens=completion, source=UsageSource.ESTIMATED)

    def _estimate_output(self, request: Request, texts: list[str]) -> int:
        if texts:
            tokens = sum(self._tokens.estimate_text(text) for text in texts)
        else:
            outputs = self._outputs.get(request.model)
            mean = START_OUTPUT_TOKENS if outputs is None else outputs.total / outputs.n
            tokens = mean * request.n_choices
        limit = request.max_output_tokens
        return round(tokens if limit is None else min(tokens, limit * request.n_choices))


class _Mean:
    """A sum, and how many it is of."""

    __slots__ = ("n", "total")

    def __init__(self) -> None:
        self.n = 0
        self.total = 0


def _read_messages(request: Request) -> list[Mapping[str, Any]]:
    """Return the messages of a request, and what else is part of its prompt as further ones."""
    body = load_json(request.body).value
    beside = [{"content": dump_json(body[key])} for key in _BESIDE_MESSAGES if body.get(key)]
    return [*body.get("messages", ()), *beside]


def _read_reply(said: bytes | None) -> Mapping[str, Any]:
    """Return the object that came; nothing when it is none."""
    try:
        value = load_json(said or b"").value
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _list_texts(completion: Completion) -> Iterator[str]:
    """Yield all that a completion says, of each of its choices."""
    if completion.choices is not None:
        yield from _list_said(load_json(completion.choices.encode()).value)
        return
    for text in (completion.output, completion.reasoning, completion.refusal, completion.tool_calls):
        if text:
            yield text


def _list_said(choices: Any) -> Iterator[str]:
    """Yield what the choices of a reply say, whatever their shape."""
    for choice in choices if isinstance(choices, list) else ():
        message = choice.get("message") if isinstance(choice, dict) else None
        if not isinstance(message, dict):
            continue
        for names in _SAID:
            value = next((message[name] for name in names if message.get(name)), None)
            if isinstance(value, str):
                yield value
            elif value is not None:
                yield "".join(_list_parts(value)) or dump_json(value)


def _list_parts(value: Any) -> Iterator[str]:
    """Yield the texts of content parts."""
    for part in value if isinstance(value, list) else ():
        text = part.get("text") if isinstance(part, dict) else part
        if isinstance(text, str):
            yield text
