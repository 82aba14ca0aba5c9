"""Tests of what a simulated model replies."""

import json
import math
from typing import Any

import pytest

from evalrun.options import ProfileOptions
from evalrun.simulator.replies import Hint, draw_is_error, make_chat_request, make_reply
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


def reply(body: dict[str, Any], hint: Hint | None = None, profile: ProfileOptions = PLAIN, seed: int = 7) -> bytes:
    """Return the bytes of a reply."""
    return make_reply(make_chat_request(body, hint or Hint(), seed), profile).body


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
