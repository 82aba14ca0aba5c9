"""What a bent reply really says, told from the good reply to the same request: the measure of what evalrun keeps.

A quirk that only damages or disguises a reply changes nothing that it says: for those the good reply is the truth.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from evalrun.records import Completion, Status, Usage, UsageSource

_TOTAL_OFF: Final = 7
"""What Q07 adds to a total."""


def find_truth(label: str, good: Completion, kept: Completion) -> Completion:
    """Return what evalrun has to keep of a reply, flags aside.

    Args:
        label: The quirk that befell it.
        good: What it kept of the good one.
        kept: What it kept of the bent one: read only for what the good one cannot tell.
    """
    told = _TOLD.get(label) or _TOLD.get(label.partition(":")[0])
    truth = told(good, kept) if told is not None else good
    return strip_flags(truth)


def strip_flags(completion: Completion) -> Completion:
    """Return a completion without its flags, and without the raw text of its usage."""
    return replace(completion, flags=(), usage=replace(completion.usage, flags=(), raw=None))


def _get(count: int | None) -> int:
    assert count is not None
    return count


def _estimate(good: Completion, kept: Completion) -> Completion:
    """Nothing is told of the tokens: what is kept says that it is an estimate, and is near what they were."""
    assert kept.usage.source is UsageSource.ESTIMATED
    for name in ("prompt_tokens", "completion_tokens"):
        assert 0.5 < _get(getattr(kept.usage, name)) / _get(getattr(good.usage, name)) < 2
    assert replace(kept.usage, prompt_tokens=None, completion_tokens=None, raw=None, flags=()) == Usage(
        source=UsageSource.ESTIMATED
    )
    return replace(good, usage=kept.usage)


def _estimate_prompt(good: Completion, kept: Completion) -> Completion:
    assert kept.usage.completion_tokens == good.usage.completion_tokens
    return _estimate(good, kept)


def _find_usage(good: Completion, kept: Completion) -> Completion:
    """The good stream, which was not asked for its usage, told none: this one's is what was billed, and adds up."""
    usage = kept.usage
    assert _get(usage.prompt_tokens) + _get(usage.completion_tokens) == usage.total_tokens
    return replace(good, usage=usage)


def _book_rest(good: Completion, _: Completion) -> Completion:
    usage = replace(
        good.usage,
        completion_tokens=_get(good.usage.completion_tokens) + _TOTAL_OFF,
        reasoning_tokens=_TOTAL_OFF,
        total_tokens=_get(good.usage.total_tokens) + _TOTAL_OFF,
    )
    return replace(good, usage=usage)


def _lower_total(good: Completion, _: Completion) -> Completion:
    return replace(good, usage=replace(good.usage, total_tokens=_get(good.usage.total_tokens) - 1))


def _lose_cached(good: Completion, _: Completion) -> Completion:
    return replace(good, usage=replace(good.usage, cached_tokens=None))


def _say_more(good: Completion, kept: Completion) -> Completion:
    """The limit is 5 tokens; 13 were said, most of them fillers behind what fits into it."""
    assert good.output is not None
    assert str(kept.output).startswith(good.output)
    assert str(kept.output).endswith(" more")
    assert _get(kept.usage.completion_tokens) > _get(good.usage.completion_tokens)
    return replace(good, status=Status.OK, output=kept.output, finish_reason="stop", usage=kept.usage)


def _call_twice(good: Completion, _: Completion) -> Completion:
    (call,) = json.loads(good.tool_calls or "")
    calls = [call, {**call, "id": f"{call['id']}b"}]
    return replace(good, tool_calls=json.dumps(calls, separators=(",", ":")))


def _drop_bytes(good: Completion, _: Completion) -> Completion:
    logprobs = json.loads(good.logprobs or "")
    for token in logprobs["content"]:
        token["bytes"] = None
        for other in token["top_logprobs"]:
            other["bytes"] = None
    return replace(good, logprobs=json.dumps(logprobs, separators=(",", ":"), ensure_ascii=False))


def _drop_first_logprob(good: Completion, kept: Completion) -> Completion:
    """Nobody asked for log probabilities: they are the quirk's own, and the first of them is no number."""
    content = json.loads(kept.logprobs or "")["content"]
    assert content[0]["logprob"] is None
    assert all(token["logprob"] == -0.5 for token in content[1:])
    assert "".join(token["token"] for token in content) == good.output
    return replace(good, logprobs=kept.logprobs)


def _add_choice(good: Completion, kept: Completion) -> Completion:
    first, second = (choice["message"]["content"] for choice in json.loads(kept.choices or ""))
    assert (first, second) == (good.output, "Something else altogether.")
    return replace(good, choices=kept.choices)


def _drop_text(good: Completion, _: Completion) -> Completion:
    return replace(good, status=Status.EMPTY, output="")


def _end(good: Completion, reason: str | None) -> Completion:
    return replace(good, finish_reason=reason)


_TOLD: Final[Mapping[str, Callable[[Completion, Completion], Completion]]] = {
    "Q01": _estimate,
    "Q02": _estimate,
    "Q03:partial": _estimate_prompt,
    "Q03": _estimate,
    "Q04": _find_usage,
    "Q07:more": _book_rest,
    "Q07:less": _lower_total,
    "Q08": _lose_cached,
    "Q12:null": _drop_text,
    "Q12:missing": _drop_text,
    "Q13:missing": lambda good, _: _end(good, None),
    "Q13:null": lambda good, _: _end(good, None),
    "Q13:unknown": lambda good, _: _end(good, "eos"),
    "Q19": _drop_first_logprob,
    "Q28": lambda good, _: replace(good, output=f"{good.output}\u2028\u2029\u0085"),
    "Q32:interleaved": _call_twice,
    "Q32:finish-stop": lambda good, _: _end(good, "stop"),
    "Q34": lambda good, _: replace(good, reasoning="First the question is read, then the answer is written."),
    "Q35": lambda good, _: replace(
        good, status=Status.REFUSED, output="", refusal="I'm sorry, but I can't help with that."
    ),
    "Q36": _drop_bytes,
    "Q52": lambda good, _: replace(good, response_model=f"{good.response_model}-2026-08-01"),
    "Q53": lambda good, _: replace(good, response_id="chatcmpl-same"),
    "Q57": _say_more,
    "Q58": _add_choice,
    "Q59": lambda good, _: replace(good, service_tier="flex"),
}
"""By form, or by quirk where all its forms say the same."""
