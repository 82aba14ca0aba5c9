"""What a simulated model replies: a whole chat completion, made from hashes, the same bytes for the same input.

Enters: a valid request with what its headers tell, the profile and the seed. Leaves: the reply as JSON values, its
pace and its bill. The answer header makes a reply right or wrong (`draws`, `answers`); without it the reply repeats the
end of the prompt. A stream, put together again, is the reply that would have come without it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from evalrun.options import ProfileOptions
from evalrun.records import SIMULATOR_VERSION
from evalrun.simulator import draws, tokens
from evalrun.simulator.audio import check_audio
from evalrun.simulator.choices import Voice, make_choice
from evalrun.simulator.codec import encode_canonical
from evalrun.simulator.refusal import Refusal
from evalrun.simulator.script import Draft
from evalrun.simulator.streaming import make_chunks
from evalrun.simulator.tool_calls import choose_tools
from evalrun.simulator.usage import Counts, make_usage
from evalrun.simulator.validate import Dialect

SYSTEM_FINGERPRINT: Final = f"fp_simulator_{SIMULATOR_VERSION}"
"""Says in every reply that no model made it."""

FIRST_CREATED_AT: Final = 1_760_000_000
"""`created` of the seed 0, in Unix seconds, an instant of 2025: a clock would make equal requests differ."""

_FIRST_TOKEN_SHARE: Final = 0.25
"""Of the latency, when the profile does not say when the first token comes."""


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
    is_stream: bool = False
    """Whether the reply is sent in chunks."""
    include_usage: bool = False
    """Whether a stream tells its usage at the end."""
    dialect: Dialect = "openai"
    """Whose parameters these are."""


def make_chat_request(body: Mapping[str, Any], hint: Hint, seed: int, *, dialect: Dialect = "openai") -> ChatRequest:
    """Return a body with the digests that name it, the same ones in both dialects.

    Args:
        body: Checked; of the gateway's dialect, without what means nothing (`validate.drop_not_given`).
        hint: What the headers tell.
        seed: The simulator's.
        dialect: Whose documentation the body follows.
    """
    body_digest = draws.digest_body(encode_canonical(body))
    is_stream = bool(body.get("stream"))
    return ChatRequest(
        body=body,
        hint=hint,
        seed=seed,
        body_digest=body_digest,
        digest=draws.digest_request(seed, body_digest, hint.sample, hint.repeat),
        is_stream=is_stream,
        include_usage=is_stream and bool((body.get("stream_options") or {}).get("include_usage")),
        dialect=dialect,
    )


def make_draft(asked: ChatRequest, profile: ProfileOptions) -> Draft:
    """Return what a simulated model replies to a request, and when.

    A draft with an error's `status` refuses what only a model can refuse: a schema that no value satisfies, a sound
    format that is not made. It bills nothing.
    """
    body = asked.body
    created = FIRST_CREATED_AT + asked.seed % 1_000_000
    counts = _count_prompt(body["messages"], profile)
    choices = _make_choices(asked, profile, created, counts)
    if isinstance(choices, Refusal):
        return Draft(completion=choices.to_error(), status=choices.status)
    completion = {
        "id": f"chatcmpl-sim{asked.digest[:12].hex()}",
        "object": "chat.completion",
        "created": created,
        "model": profile.answers_as or body["model"],
        "choices": choices,
        "usage": make_usage(profile.usage, counts),
        "service_tier": _find_service_tier(asked, profile),
        "system_fingerprint": SYSTEM_FINGERPRINT,
    }
    if completion["usage"] is None:
        del completion["usage"]
    draft = Draft(completion=completion, counts=counts)
    if asked.is_stream:
        draft.chunks = _cut_into_chunks(asked, profile, completion)
    _set_pace(draft, asked, profile)
    return draft


def draw_latency_s(request: ChatRequest, profile: ProfileOptions) -> float:
    """Return how long the reply takes, in seconds."""
    return draws.draw_latency_s(request.digest, median_ms=profile.latency_ms, spread=profile.latency_spread)


def draw_is_error(request: ChatRequest, profile: ProfileOptions, *, attempt: int) -> bool:
    """Tell whether an attempt (0-based) answers 503: true with probability `error_rate`, drawn for each attempt."""
    return profile.error_rate > 0 and draws.draw_uniform(request.digest, "error", attempt) < profile.error_rate


def _make_choices(
    asked: ChatRequest, profile: ProfileOptions, created: int, counts: Counts
) -> list[dict[str, Any]] | Refusal:
    """Return the choices, their tokens added to the counts; or why there are none."""
    body, hint = asked.body, asked.hint
    tools = check_audio(body) or choose_tools(body)
    if isinstance(tools, Refusal):
        return tools
    voice = Voice(
        body=body,
        profile=profile,
        answer=hint.answer if hint.answer is not None and hint.answer.strip() else None,
        seed=asked.seed,
        # A client that names no sample still gets a difficulty: that of its body.
        sample=hint.sample or asked.body_digest.hex(),
        digest=asked.digest,
    )
    choices = []
    for index in range(body.get("n") or 1):
        choice = make_choice(voice, index, tools=tools, created=created, counts=counts)
        if isinstance(choice, Refusal):
            return choice
        choices.append(choice)
    return choices


def _count_prompt(messages: Sequence[Mapping[str, Any]], profile: ProfileOptions) -> Counts:
    """Return the prompt's tokens, each billed as one thing: read from the cache, written to it, a sound, or plain."""
    counts = Counts(prompt=tokens.count_prompt_tokens(messages), audio_input=tokens.count_audio_tokens(messages))
    n_cacheable = counts.prompt - counts.audio_input
    counts.cached = int(n_cacheable * profile.cached_share)
    counts.cache_write = min(int(n_cacheable * profile.cache_write_share), n_cacheable - counts.cached)
    return counts


def _find_service_tier(asked: ChatRequest, profile: ProfileOptions) -> str:
    if profile.service_tiers:
        draw = draws.draw_uniform(asked.digest, "service tier")
        for tier, share in profile.service_tiers.items():
            if draw < share:
                return tier
            draw -= share
    wanted = asked.body.get("service_tier")
    return profile.service_tier or ("default" if wanted in (None, "auto") else str(wanted))


def _cut_into_chunks(asked: ChatRequest, profile: ProfileOptions, completion: Mapping[str, Any]) -> list[Any]:
    options = asked.body.get("stream_options") or {}
    return make_chunks(
        completion,
        # OpenRouter tells its usage whether it was asked to or not.
        include_usage=asked.include_usage or profile.usage == "openrouter",
        # OpenAI's default; the gateway's documentation knows of no such thing.
        has_obfuscation=asked.dialect == "openai" and options.get("include_obfuscation") is not False,
        is_continuous=profile.usage == "continuous",
    )


def _set_pace(draft: Draft, asked: ChatRequest, profile: ProfileOptions) -> None:
    """Say when what leaves."""
    latency_s = draw_latency_s(asked, profile)
    if draft.chunks is None:
        draft.delay_s = latency_s
        return
    if profile.first_token_ms is None:
        draft.delay_s = latency_s * _FIRST_TOKEN_SHARE
    else:
        # The same draw as the latency's: a reply that is slow to end is slow to begin.
        draft.delay_s = draws.draw_latency_s(
            asked.digest, median_ms=profile.first_token_ms, spread=profile.latency_spread
        )
    if profile.tokens_per_s is not None:
        draft.gap_s = 1 / profile.tokens_per_s
    else:
        draft.gap_s = max(0.0, latency_s - draft.delay_s) / (len(draft.chunks) - 1)
