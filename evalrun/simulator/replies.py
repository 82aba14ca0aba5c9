"""What a simulated model replies: a whole chat completion, made from hashes, the same bytes for the same input.

Enters: a valid request with what its headers tell, the profile and the seed. Leaves: the reply's bytes and its bill.
The answer header makes a reply right or wrong (`draws`, `answers`); without it the reply repeats the end of the prompt.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from evalrun.options import ProfileOptions
from evalrun.records import SIMULATOR_VERSION
from evalrun.simulator import answers, draws, tokens
from evalrun.simulator.codec import encode_canonical, encode_json

SYSTEM_FINGERPRINT: Final = f"fp_simulator_{SIMULATOR_VERSION}"
"""Says in every reply that no model made it."""

_FIRST_CREATED_AT: Final = 1_760_000_000
_MAX_ECHO_CHARS: Final = 200
_PROMPT_DETAILS: Final = {"cached_tokens": 0, "audio_tokens": 0}
_COMPLETION_DETAILS: Final = {
    "reasoning_tokens": 0,
    "audio_tokens": 0,
    "accepted_prediction_tokens": 0,
    "rejected_prediction_tokens": 0,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Hint:
    """What a client tells beside the body, in headers of the simulator's own."""

    answer: str | None = None
    """The right answer; None when not told."""
    sample: str = ""
    """The sample's id; "" when not told."""
    repeat: int = 0
    """0-based."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest:
    """A valid request and the digests that name it."""

    body: Mapping[str, Any]
    hint: Hint
    seed: int
    """The simulator's."""
    body_digest: bytes
    """Names the body without `stream` and `stream_options`."""
    digest: bytes
    """Names seed, body, sample and repeat: every draw starts here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A completion and its bill."""

    body: bytes
    """The chat completion, JSON in UTF-8."""
    prompt_tokens: int
    completion_tokens: int


def make_chat_request(body: Mapping[str, Any], hint: Hint, seed: int) -> ChatRequest:
    """Return a valid body with the digests that name it."""
    body_digest = draws.digest_body(encode_canonical(body))
    digest = draws.digest_request(seed, body_digest, hint.sample, hint.repeat)
    return ChatRequest(body=body, hint=hint, seed=seed, body_digest=body_digest, digest=digest)


def make_reply(request: ChatRequest, profile: ProfileOptions) -> Reply:
    """Return the chat completion of a request."""
    body = request.body
    prompt_tokens = tokens.count_prompt_tokens(body["messages"])
    choices: list[dict[str, Any]] = []
    completion_tokens = 0
    for index in range(body.get("n") or 1):
        text, n_tokens, finish_reason = _finish_text(_make_text(request, profile, index), body)
        completion_tokens += n_tokens
        message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None, "annotations": []}
        choices.append({"index": index, "message": message, "logprobs": None, "finish_reason": finish_reason})
    completion = {
        "id": f"chatcmpl-sim{request.digest[:12].hex()}",
        "object": "chat.completion",
        "created": _FIRST_CREATED_AT + request.seed % 1_000_000,
        "model": body["model"],
        "choices": choices,
        "usage": _make_usage(prompt_tokens, completion_tokens),
        "service_tier": "default",
        "system_fingerprint": SYSTEM_FINGERPRINT,
    }
    return Reply(body=encode_json(completion), prompt_tokens=prompt_tokens, completion_tokens=completion_tokens)


def draw_latency_s(request: ChatRequest, profile: ProfileOptions) -> float:
    """Return how long the reply takes, in seconds."""
    return draws.draw_latency_s(request.digest, median_ms=profile.latency_ms, spread=profile.latency_spread)


def draw_is_error(request: ChatRequest, profile: ProfileOptions, *, attempt: int) -> bool:
    """Tell whether an attempt (0-based) answers 503: true with probability `error_rate`, drawn for each attempt."""
    return profile.error_rate > 0 and draws.draw_uniform(request.digest, "error", attempt) < profile.error_rate


def _make_text(request: ChatRequest, profile: ProfileOptions, index: int) -> str:
    """Return the whole text of one choice, before anything cuts it."""
    answer = request.hint.answer
    if answer is None or not answer.strip():
        return _make_echo(request, index)
    # A client that names no sample still gets a difficulty: that of its body.
    sample = request.hint.sample or request.body_digest.hex()
    is_right = draws.draw_is_right(request.seed, sample, request.digest, accuracy=profile.accuracy, index=index)
    pick = partial(draws.draw_uniform, request.digest, index=index)
    make = answers.make_right_text if is_right else answers.make_wrong_text
    return make(answer, profile.style, pick)


def _make_echo(request: ChatRequest, index: int) -> str:
    """Return a text that depends on seed and body alone: a tag, and the end of the last message."""
    tag = f"{int(draws.draw_uniform(request.digest, 'echo', index) * 16**8):08x}"
    content = request.body["messages"][-1].get("content") or ""
    if not isinstance(content, str):
        content = " ".join(part["text"] for part in content if part["type"] == "text")
    return f"Simulated reply {tag} to: {content[-_MAX_ECHO_CHARS:]}"


def _finish_text(text: str, body: Mapping[str, Any]) -> tuple[str, int, str]:
    """Cut a text where `stop` or the token limit ends it; return it with its tokens and its finish reason."""
    stops: str | Sequence[str] = body.get("stop") or ()
    for stop in (stops,) if isinstance(stops, str) else stops:
        if stop:
            text = text.partition(stop)[0]
    # The seed gateway's own example sends both limits; the lower one holds.
    limits = [body[name] for name in ("max_tokens", "max_completion_tokens") if body.get(name) is not None]
    if not limits:
        return text, tokens.count_tokens(text), "stop"
    pieces = tokens.split_tokens(text)
    limit = min(limits)
    if len(pieces) <= limit:
        return text, len(pieces), "stop"
    return "".join(pieces[:limit]), limit, "length"


def _make_usage(prompt_tokens: int, completion_tokens: int) -> dict[str, Any]:
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "prompt_tokens_details": _PROMPT_DETAILS,
        "completion_tokens_details": _COMPLETION_DETAILS,
    }
