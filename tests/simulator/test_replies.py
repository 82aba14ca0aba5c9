"""Tests of what a simulated model replies."""

import json
import math
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evalrun.options import ProfileOptions
from evalrun.simulator.codec import encode_json
from evalrun.simulator.replies import Hint, draw_is_error, make_chat_request, make_draft
from evalrun.simulator.script import Draft
from evalrun.simulator.validate import Dialect, check_body, drop_not_given
from tests.simulator.asking import make_body

PLAIN = ProfileOptions(accuracy=1)

GOLDEN = (
    b'{"id":"chatcmpl-sim485a035249d4c589616a5f22","object":"chat.completion","created":1760000007,"model":"careful",'
    b'"choices":[{"index":0,"message":{"role":"assistant","content":"The answer is 72.","refusal":null,'
    b'"annotations":[]},"logprobs":null,"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":11,"completion_tokens":5,"total_tokens":16,'
    b'"prompt_tokens_details":{"cached_tokens":0,"audio_tokens":0},'
    b'"completion_tokens_details":{"reasoning_tokens":0,"audio_tokens":0,'
    b'"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}},'
    b'"service_tier":"default","system_fingerprint":"fp_simulator_1"}'
)


def draft(body: dict[str, Any], hint: Hint | None = None, profile: ProfileOptions = PLAIN, seed: int = 7) -> Draft:
    """Return the draft of a reply."""
    return make_draft(make_chat_request(body, hint or Hint(), seed), profile)


def reply(body: dict[str, Any], hint: Hint | None = None, profile: ProfileOptions = PLAIN, seed: int = 7) -> bytes:
    """Return the bytes of a reply."""
    return encode_json(draft(body, hint, profile, seed).completion)


def say(body: dict[str, Any], hint: Hint | None = None, profile: ProfileOptions = PLAIN, seed: int = 7) -> str:
    """Return the text of choice 0."""
    text: str = json.loads(reply(body, hint, profile, seed))["choices"][0]["message"]["content"]
    return text


def test_reply_is_the_golden_one() -> None:
    """A frozen request has frozen bytes: a change of them asks for a new SIMULATOR_VERSION."""
    hint = Hint(answer="72", sample="s1", repeat=0)
    assert reply(make_body(temperature=0), hint, ProfileOptions(accuracy=0.5, style="sentence")) == GOLDEN


@pytest.mark.parametrize(
    ("change", "is_same"),
    [
        ({}, True),
        ({"stream": False}, True),
        ({"stream": True, "stream_options": {"include_usage": True}}, True),
        ({"seed": 8}, False),
        ({"temperature": 0.5}, False),
        ({"model": "hasty"}, False),
    ],
)
def test_reply_depends_on_the_body(change: dict[str, Any], is_same: bool) -> None:
    """Any parameter changes the draw, but for those that only say how the reply is sent."""
    assert (reply(make_body(**change)) == reply(make_body())) is is_same


def test_reply_depends_on_seed_sample_and_repeat() -> None:
    """Repeats differ, samples differ, seeds differ; nothing else does."""
    hints = [Hint(sample=sample, repeat=repeat) for sample in ("a", "b") for repeat in range(3)]
    replies = {reply(make_body(), hint, seed=seed) for hint in hints for seed in (1, 2)}
    again = {reply(make_body(), hint, seed=seed) for hint in reversed(hints) for seed in (2, 1)}
    assert (len(replies), again) == (12, replies)


@pytest.mark.parametrize("accuracy", [0.55, 0.7, 0.9])
def test_replies_are_right_as_often_as_set(accuracy: float) -> None:
    """Over 2,000 samples the rate of right replies lies within the 99.9 % interval of the accuracy."""
    profile, n = ProfileOptions(accuracy=accuracy), 2000
    n_right = sum(say(make_body(f"question {i}"), Hint(answer="72", sample=str(i)), profile) == "72" for i in range(n))
    assert abs(n_right / n - accuracy) <= 3.2905 * math.sqrt(accuracy * (1 - accuracy) / n)


def test_reply_has_every_field_of_a_chat_completion() -> None:
    """A client that reads the whole object finds it all, and is told that no model made it."""
    completion = json.loads(reply(make_body(n=2)))
    assert set(completion) == {
        "id", "object", "created", "model", "choices", "usage", "service_tier", "system_fingerprint",
    }  # fmt: skip
    assert completion["system_fingerprint"].startswith("fp_simulator")
    assert [choice["index"] for choice in completion["choices"]] == [0, 1]
    usage = completion["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


def test_choices_are_drawn_one_by_one() -> None:
    """With `n` some choices are right and some wrong, and each is billed."""
    profile = ProfileOptions(accuracy=0.5)
    completion = json.loads(reply(make_body(n=60), Hint(answer="72", sample="s1"), profile))
    texts = [choice["message"]["content"] for choice in completion["choices"]]
    assert 0 < texts.count("72") < 60
    assert completion["usage"]["completion_tokens"] == 60


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_token_limit_cuts_the_reply(name: str) -> None:
    """A reply over the limit ends there, with finish_reason `length`, and only what was said is billed."""
    hint = Hint(answer="one two three four five", sample="s1")
    completion = json.loads(reply({**make_body(), name: 3}, hint))
    choice = completion["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("one two three", "length")
    assert completion["usage"]["completion_tokens"] == 3


@pytest.mark.parametrize(
    ("stop", "limit", "text", "finish_reason"),
    [
        ("three", None, "one two ", "stop"),
        (["five", " two"], None, "one", "stop"),
        ("", None, "one two three four five", "stop"),
        ("five", 2, "one two", "length"),
        ("two", 4, "one ", "stop"),
        ("six", 5, "one two three four five", "stop"),
    ],
)
def test_stop_ends_the_reply(stop: str | list[str], limit: int | None, text: str, finish_reason: str) -> None:
    """The earliest of stop texts and token limit ends the reply; the stop text is not part of it."""
    body = make_body(stop=stop, max_tokens=limit)
    choice = json.loads(reply(body, Hint(answer="one two three four five", sample="s1")))["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == (text, finish_reason)


@pytest.mark.parametrize("answer", [None, "", " \n"])
def test_reply_without_an_answer_repeats_the_prompt(answer: str | None) -> None:
    """Clients that tell no answer get the end of their last message, tagged by seed and body."""
    first, other_seed = say(make_body("Hello"), Hint(answer=answer)), say(make_body("Hello"), seed=8)
    assert first.startswith("Simulated reply ")
    assert first.endswith(" to: Hello")
    assert first != other_seed


def test_reply_to_content_parts_repeats_their_text() -> None:
    """Parts without text are passed over."""
    parts = [{"type": "image_url", "image_url": {"url": "data:,"}}, {"type": "text", "text": "What is this?"}]
    body = {"model": "careful", "messages": [{"role": "user", "content": parts}]}
    assert say(body).endswith(" to: What is this?")


@pytest.mark.parametrize("answer", ["๓๒", "三十二", "مرحبا", "\ud800", "👩‍👩‍👧", "a\u2028b", "\x00"])
def test_right_reply_carries_every_script(answer: str) -> None:
    """What comes back is what was told, lone surrogates included."""
    assert say(make_body(answer), Hint(answer=answer, sample=answer)) == answer


def test_errors_are_drawn_for_each_attempt() -> None:
    """With error_rate 0.5 some first attempts fail, and asking again succeeds sooner or later."""
    profile = ProfileOptions(error_rate=0.5)
    requests = [make_chat_request(make_body(str(i)), Hint(), 1) for i in range(1000)]
    n_first = sum(draw_is_error(request, profile, attempt=0) for request in requests)
    assert abs(n_first - 500) <= 3.2905 * math.sqrt(250)
    assert not any(all(draw_is_error(request, profile, attempt=i) for i in range(40)) for request in requests)


def test_latency_and_style_do_not_turn_answers() -> None:
    """Whether a reply is right depends on accuracy, seed and request, not on how it is said."""
    profiles = [
        ProfileOptions(accuracy=0.5, latency_ms=1, style="plain"),
        ProfileOptions(accuracy=0.5, latency_ms=50, style="sentence"),
    ]
    hints = [Hint(answer="72", sample=str(i)) for i in range(100)]
    plain, wrapped = ([("72" in say(make_body(), hint, profile)) for hint in hints] for profile in profiles)
    assert plain == wrapped
    assert 0 < sum(plain) < 100


@pytest.mark.parametrize(
    ("told", "is_stream", "include_usage"),
    [
        ({}, False, False),
        ({"stream": None}, False, False),
        ({"stream": True}, True, False),
        ({"stream": True, "stream_options": None}, True, False),
        ({"stream": True, "stream_options": {}}, True, False),
        ({"stream": True, "stream_options": {"include_usage": True}}, True, True),
        ({"stream": False, "stream_options": {"include_usage": True}}, False, False),
    ],
)
def test_request_tells_how_its_reply_is_sent(told: dict[str, Any], is_stream: bool, include_usage: bool) -> None:
    """`stream` and `stream_options` are read once, here."""
    asked = make_chat_request(make_body(**told), Hint(), 7)
    assert (asked.is_stream, asked.include_usage) == (is_stream, include_usage)


@pytest.mark.parametrize("is_stream", [False, True])
def test_bill_is_that_of_the_usage(is_stream: bool) -> None:
    """What the ledger is told is what the client is told."""
    made = draft(make_body(stream=is_stream, n=3), Hint(answer="one two"))
    usage = made.completion["usage"]
    assert (made.prompt_tokens, made.completion_tokens) == (usage["prompt_tokens"], usage["completion_tokens"])


def test_whole_reply_waits_for_the_latency() -> None:
    """Without a stream all of it comes after the latency."""
    made = draft(make_body(), profile=ProfileOptions(latency_ms=400, latency_spread=0, first_token_ms=1))
    assert (made.delay_s, made.gap_s, made.chunks) == (0.4, 0, None)


@pytest.mark.parametrize(
    ("first_token_ms", "tokens_per_s", "delay_s", "gap_s"),
    [
        (None, None, 0.1, 0.075),
        (200, None, 0.2, 0.05),
        (900, None, 0.9, 0),
        (None, 50, 0.1, 0.02),
        (0, 1000, 0, 0.001),
    ],
)
def test_streamed_reply_spreads_the_latency(
    first_token_ms: float | None, tokens_per_s: float | None, delay_s: float, gap_s: float
) -> None:
    """The first token comes after a quarter of the latency or when the profile says; the rest at the speed set."""
    profile = ProfileOptions(
        accuracy=1, latency_ms=400, latency_spread=0, first_token_ms=first_token_ms, tokens_per_s=tokens_per_s
    )
    made = draft(make_body(stream=True), Hint(answer="one two three"), profile)
    assert len(made.chunks or ()) == 5
    assert [made.delay_s, made.gap_s] == pytest.approx([delay_s, gap_s])


def test_slow_replies_are_slow_to_begin() -> None:
    """First token and latency vary together, so that no reply ends before it begins."""
    profile = ProfileOptions(latency_ms=100, first_token_ms=50, latency_spread=1)
    made = [draft(make_body(stream=True), Hint(sample=str(i)), profile) for i in range(50)]
    assert len({one.delay_s for one in made}) == 50
    assert all(one.gap_s * (len(one.chunks or ()) - 1) == pytest.approx(one.delay_s) for one in made)


def test_answers_as_names_another_model() -> None:
    """The reply is said to come from the model that the profile names, in chunks as well."""
    made = draft(make_body(stream=True), profile=ProfileOptions(answers_as="careful-2026-01-01"))
    assert {told["model"] for told in (made.completion, *(made.chunks or ()))} == {"careful-2026-01-01"}


@pytest.mark.parametrize(
    ("wanted", "kept", "told"),
    [
        (None, None, "default"),
        ("auto", None, "default"),
        ("flex", None, "flex"),
        ("flex", "default", "default"),
        (None, "priority", "priority"),
    ],
)
def test_service_tier_is_told(wanted: str | None, kept: str | None, told: str) -> None:
    """The one asked for, unless the profile has one of its own."""
    made = draft(make_body(service_tier=wanted), profile=ProfileOptions(service_tier=kept))
    assert made.completion["service_tier"] == told


def test_cached_share_of_the_prompt_is_told() -> None:
    """Rounded down, within the prompt tokens."""
    usage = draft(make_body(), profile=ProfileOptions(cached_share=0.5)).completion["usage"]
    assert (usage["prompt_tokens"], usage["prompt_tokens_details"]["cached_tokens"]) == (11, 5)


def test_prompt_tokens_are_billed_as_one_thing_each() -> None:
    """Sounds are never of the cache; its shares are of the rest, read and written side by side."""
    sound = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}
    body = make_body(messages=[{"role": "user", "content": [{"type": "text", "text": "Listen to this"}, sound]}])
    made = draft(body, profile=ProfileOptions(cached_share=0.5, cache_write_share=0.5))
    counts = made.counts
    assert (counts.prompt, counts.audio_input, counts.cached, counts.cache_write) == (110, 100, 5, 5)
    assert made.completion["usage"]["prompt_tokens_details"] == {
        "cached_tokens": 5, "audio_tokens": 100, "cache_write_tokens": 5,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"cached_share": 0.6, "cache_write_share": 0.5}, "together at most 1"),
        ({"service_tiers": {"flex": 0.6, "priority": 0.5}}, "together at most 1"),
    ],
)
def test_shares_of_one_thing_are_at_most_all_of_it(settings: dict[str, Any], what: str) -> None:
    """A profile that hands out more than there is, is refused when it is read."""
    with pytest.raises(ValueError, match=what):
        ProfileOptions(**settings)


def test_shares_of_a_tenth_may_be_ten() -> None:
    """What is all of it but for rounding is no more than all of it."""
    assert len(ProfileOptions(service_tiers={str(n): 0.1 for n in range(10)}).service_tiers) == 10


def test_service_tiers_befall_their_share_of_the_requests() -> None:
    """Each request has its tier, the same each time; the rest keeps what it would have had."""
    profile = ProfileOptions(service_tiers={"flex": 0.3, "priority": 0.2}, service_tier="scale")

    def list_tiers() -> list[str]:
        return [draft(make_body(), Hint(sample=str(n)), profile).completion["service_tier"] for n in range(400)]

    tiers = list_tiers()
    assert tiers == list_tiers()
    counts = [tiers.count(tier) for tier in ("flex", "priority", "scale")]
    assert counts == pytest.approx([120, 80, 200], abs=30)
    assert sum(counts) == 400


def test_dialect_without_usage_bills_all_the_same() -> None:
    """The reply has no usage, not a null; the ledger has the tokens."""
    made = draft(make_body(), Hint(answer="one two"), ProfileOptions(accuracy=1, usage="none"))
    assert ("usage" in made.completion, made.completion_tokens) == (False, 2)


TOOL = st.fixed_dictionaries(
    {"type": st.just("function"), "function": st.fixed_dictionaries(
        {"name": st.sampled_from(["f", "g"])},
        optional={"parameters": st.none() | st.just({}) | st.just({"type": "object"}) | st.just({"type": 5})},
    )}
) | st.fixed_dictionaries(
    {"type": st.just("custom"), "custom": st.fixed_dictionaries(
        {"name": st.just("h")},
        optional={"format": st.none() | st.just({"type": "text"}) | st.just(
            {"type": "grammar", "grammar": {"syntax": "regex", "definition": "["}}
        )},
    )}
)  # fmt: skip
NAMED = [{"type": kind, kind: {"name": name}} for kind, name in (("function", "f"), ("custom", "h"))]
ALLOWED = [{"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": NAMED}} for mode in ("auto", "required")]
FORMATS = [
    {},
    {"type": "text"},
    {"type": "json_object"},
    {"type": "json_schema", "json_schema": {"name": "x", "schema": None}},
    {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "null"}}},
]
LAST_MESSAGES = [
    {"role": "user", "content": [{"type": "file", "file": {}}, {"type": "text", "text": "x"}]},
    {"role": "assistant", "content": None, "refusal": "no"},
    {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
    {"role": "function", "name": "f", "content": None},
    {"role": "developer", "content": "x", "name": None},
]
BODY = st.fixed_dictionaries(
    {"model": st.just("careful"), "messages": st.sampled_from(LAST_MESSAGES).map(lambda message: [message])},
    optional={
        "n": st.none() | st.integers(1, 2),
        "tools": st.none() | st.just([{}]) | st.lists(TOOL, min_size=1, max_size=3),
        "tool_choice": st.sampled_from([None, "auto", "none", "required", {}, *NAMED, *ALLOWED]),
        "parallel_tool_calls": st.sampled_from([None, True, False]),
        "functions": st.none() | st.just([{"name": "f", "parameters": None}]),
        "function_call": st.sampled_from([None, "auto", "none", {"name": "f"}]),
        "response_format": st.none() | st.sampled_from(FORMATS),
        "modalities": st.sampled_from([None, ["text"], ["text", "audio"]]),
        "audio": st.none() | st.sampled_from(["wav", "pcm16", "mp3"]).map(lambda kind: {"voice": "x", "format": kind}),
        "prediction": st.none() | st.just({"type": "content", "content": [{"type": "text", "text": "x"}]}),
        "logprobs": st.sampled_from([None, True, False]),
        "top_logprobs": st.sampled_from([None, 0, 20]),
        "stop": st.sampled_from([None, {}, "", ["", "x"]]),
        "max_tokens": st.none() | st.integers(1, 9),
        "max_completion_tokens": st.none() | st.integers(1, 9),
        "service_tier": st.sampled_from([None, "auto", "flex"]),
        "reasoning_effort": st.sampled_from([None, "none"]),
        "stream": st.sampled_from([None, True, False]),
        "stream_options": st.sampled_from([None, {}, {"include_obfuscation": None}]),
    },
)


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(body=BODY, answer=st.sampled_from([None, "", "72", '{"a": 1}']), dialect=st.sampled_from(["openai", "gateway"]))
def test_every_body_that_is_let_in_gets_a_reply(body: dict[str, Any], answer: str | None, dialect: Dialect) -> None:
    """Nulls, empty objects, odd last messages: what the checks pass is answered or refused, never a crash."""
    if check_body(body, dialect) is not None:
        return
    given_ = drop_not_given(body) if dialect == "gateway" else body
    made = make_draft(make_chat_request(given_, Hint(answer=answer), 7, dialect=dialect), ProfileOptions())
    assert made.status in (200, 400)
    assert made.is_stream is (made.status == 200 and body.get("stream") is True)
    limits = [body[name] for name in ("max_tokens", "max_completion_tokens") if body.get(name)]
    assert not limits or made.completion_tokens <= min(limits) * (body.get("n") or 1)
