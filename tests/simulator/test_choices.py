"""Tests of what one choice says: JSON, reasoning, predictions, limits."""

import json
from typing import Any

import jsonschema
import pytest

from evalrun.options import ProfileOptions
from evalrun.simulator.replies import Hint, make_chat_request, make_draft
from evalrun.simulator.script import Draft
from tests.simulator.asking import make_body

TALLY: dict[str, Any] = {
    "type": "object",
    "properties": {"note": {"type": "string"}, "n": {"type": "integer"}},
    "required": ["note", "n"],
    "additionalProperties": False,
}


def ask(answer: str | None = None, *, profile: ProfileOptions | None = None, **params: Any) -> Draft:
    """Return the draft of a reply."""
    asked = make_chat_request(make_body("Hello", **params), Hint(answer=answer, sample="s1"), 7)
    return make_draft(asked, profile or ProfileOptions(accuracy=1))


def say(answer: str | None = None, **params: Any) -> Any:
    """Return the text of choice 0."""
    return ask(answer, **params).completion["choices"][0]["message"]["content"]


def wrap(schema: Any) -> dict[str, Any]:
    """Return a response_format of a schema."""
    return {"type": "json_schema", "json_schema": {"name": "tally", "strict": True, "schema": schema}}


def test_json_schema_is_satisfied_and_says_the_answer() -> None:
    """The text is JSON that satisfies the schema, the right answer in its place, with no words around it."""
    text = say("72", response_format=wrap(TALLY), profile=ProfileOptions(accuracy=1, style="reasoned"))
    jsonschema.Draft202012Validator(TALLY).validate(json.loads(text))
    assert json.loads(text)["n"] == 72


def test_wrong_replies_satisfy_the_schema_too() -> None:
    """Accuracy 0 gives another number, not another form."""
    value = json.loads(say("72", response_format=wrap(TALLY), profile=ProfileOptions(accuracy=0)))
    jsonschema.Draft202012Validator(TALLY).validate(value)
    assert value["n"] != 72


def test_json_schema_is_satisfied_without_an_answer() -> None:
    """A client that tells no answer gets a value all the same."""
    jsonschema.Draft202012Validator(TALLY).validate(json.loads(say(response_format=wrap(TALLY))))


def test_broken_json_is_the_beginning_of_what_would_have_come() -> None:
    """A share of the JSON replies ends in the middle with `stop`; texts that need not be JSON are left whole."""
    whole = say("72", response_format=wrap(TALLY))
    draft = ask("72", profile=ProfileOptions(accuracy=1, broken_json=1), response_format=wrap(TALLY))
    (choice,) = draft.completion["choices"]
    assert choice["finish_reason"] == "stop"
    assert choice["message"]["content"] == whole[: len(whole) // 2]
    assert say("72", profile=ProfileOptions(accuracy=1, broken_json=1)) == "72"


def test_json_schema_without_a_schema_is_any_object() -> None:
    """A format that names no schema gets an object, as json_object does."""
    told = {"type": "json_schema", "json_schema": {"name": "x"}}
    assert json.loads(say("72", response_format=told)) == {"answer": "72"}


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        ("72", {"answer": "72"}),
        ('{"a": 1}', {"a": 1}),
        ("[1, 2]", {"answer": [1, 2]}),
        ('{"answer": "x"}', {"answer": "x"}),
        ("{no JSON", {"answer": "{no JSON"}),
    ],
)
def test_json_object_says_the_answer(answer: str, value: Any) -> None:
    """JSON mode gives the answer when it is an object, else an object with the one key `answer`."""
    assert json.loads(say(answer, response_format={"type": "json_object"})) == value


def test_json_object_without_an_answer_repeats_the_prompt() -> None:
    """The echo is the value of `answer`."""
    assert json.loads(say(response_format={"type": "json_object"}))["answer"].endswith(" to: Hello")


def test_text_format_changes_nothing() -> None:
    """`response_format: {type: text}` is the default."""
    assert say("72", response_format={"type": "text"}) == "72"


def test_schema_that_nothing_satisfies_is_refused() -> None:
    """The draft is a 400 in OpenAI's form, bills nothing and is no stream."""
    draft = ask("72", stream=True, response_format=wrap({"type": "integer", "minimum": 2, "maximum": 1}))
    assert (draft.status, draft.is_stream, draft.prompt_tokens, draft.completion_tokens) == (400, False, 0, 0)
    assert draft.completion["error"]["param"] == "response_format"
    assert "'tally'" in draft.completion["error"]["message"]


def test_token_limit_cuts_json() -> None:
    """As real models do: the text ends in mid-object, with finish_reason `length`."""
    choice = ask("72", response_format=wrap(TALLY), max_tokens=3).completion["choices"][0]
    assert choice["finish_reason"] == "length"
    with pytest.raises(json.JSONDecodeError):
        json.loads(choice["message"]["content"])


REASONING = ProfileOptions(accuracy=1, reasoning_tokens=40)


def test_reasoning_is_sent_and_billed() -> None:
    """The reasoning text comes beside the content; its tokens are within completion_tokens."""
    draft = ask("72", profile=REASONING)
    message, usage = draft.completion["choices"][0]["message"], draft.completion["usage"]
    assert (message["content"], bool(message["reasoning_content"])) == ("72", True)
    assert (usage["completion_tokens"], usage["completion_tokens_details"]["reasoning_tokens"]) == (41, 40)
    assert draft.completion_tokens == 41


def test_no_reasoning_unless_the_profile_has_it() -> None:
    """Without reasoning_tokens, or with effort none, the message has no such key."""
    drafts = [ask("72"), ask("72", profile=REASONING, reasoning_effort="none")]
    assert [draft.completion["choices"][0]["message"].get("reasoning_content") for draft in drafts] == [None, None]
    assert [draft.completion_tokens for draft in drafts] == [1, 1]


def test_reasoning_text_is_bounded() -> None:
    """A million reasoning tokens are billed, but not sent."""
    draft = ask("72", profile=ProfileOptions(reasoning_tokens=1_000_000))
    assert draft.completion_tokens == 1_000_001
    assert len(draft.completion["choices"][0]["message"]["reasoning_content"]) < 2_000


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize(
    ("limit", "text", "n_reasoning", "finish_reason"),
    [(10, "", 10, "length"), (40, "", 40, "length"), (42, "one two", 40, "length"), (43, "one two three", 40, "stop")],
)
def test_reasoning_uses_up_the_limit(name: str, limit: int, text: str, n_reasoning: int, finish_reason: str) -> None:
    """What is thought cannot be said: a budget spent on reasoning leaves an empty text."""
    completion = ask("one two three", profile=REASONING, **{name: limit}).completion
    choice, usage = completion["choices"][0], completion["usage"]
    assert (choice["message"]["content"], choice["finish_reason"]) == (text, finish_reason)
    assert usage["completion_tokens_details"]["reasoning_tokens"] == n_reasoning
    assert usage["completion_tokens"] == limit


@pytest.mark.parametrize(
    ("predicted", "limit", "accepted", "rejected"),
    [
        ("one two three", None, 3, 0),
        ("one too three", None, 2, 1),
        ("zero", None, 0, 1),
        ("one two three four", None, 3, 1),
        ("one two two three", None, 3, 1),
        ("one a b c d", 5, 1, 2),
        ([{"type": "text", "text": "one two"}, {"type": "text", "text": " three"}], None, 3, 0),
    ],
)
def test_prediction_is_counted(predicted: Any, limit: int | None, accepted: int, rejected: int) -> None:
    """Predicted tokens that the reply says are accepted; the others are rejected, and billed within the limit."""
    prediction = {"type": "content", "content": predicted}
    usage = ask("one two three", prediction=prediction, max_completion_tokens=limit).completion["usage"]
    details = usage["completion_tokens_details"]
    assert (details["accepted_prediction_tokens"], details["rejected_prediction_tokens"]) == (accepted, rejected)
    assert usage["completion_tokens"] == 3 + rejected


def test_lower_of_two_limits_holds() -> None:
    """The gateway takes both limits at once."""
    assert say("one two three", max_tokens=2, max_completion_tokens=5) == "one two"


def test_logprobs_tell_each_token() -> None:
    """With logprobs the tokens told are those of the text; without, there is a null."""
    told = ask("one two", logprobs=True).completion["choices"][0]["logprobs"]
    assert ([token["token"] for token in told["content"]], told["refusal"]) == (["one", " two"], None)
    assert ask("one two").completion["choices"][0]["logprobs"] is None
