"""Request bodies: what streaming adds, what is no part of a key, and how many choices are asked for."""

from typing import Any

import orjson
import pytest

from evalrun.job.plan import Plan
from evalrun.records import Request
from tests.job.conftest import load, write_rows

JOB = """\
endpoints:
  gateway:
    base_url: https://x.test/v1
    {endpoint}
models: [{{name: m, params: {{{params}}}}}]
prompts: [{{name: p, user: hi}}]
dataset: {{path: d.jsonl, params_column: p}}
"""


def plan_request(endpoint: str = "concurrency: 1", params: str = "", row: dict[str, Any] | None = None) -> Request:
    """Return the only request of a job."""
    write_rows("d.jsonl", [{"id": "a", "p": row}])
    (request,) = Plan(load(JOB.format(endpoint=endpoint, params=params))).requests()
    return request


def test_body_of_a_streamed_request_asks_for_usage() -> None:
    """`stream: true` is sent with stream_options, after the parameters."""
    request = plan_request("stream: true", "temperature: 0")
    assert request.body == (
        b'{"model":"m","messages":[{"role":"user","content":"hi"}],"temperature":0,'
        b'"stream":true,"stream_options":{"include_usage":true}}'
    )


@pytest.mark.parametrize(
    ("endpoint", "expected"),
    [
        ("stream: false", {}),
        ("stream: true\n    drop_params: [stream_options]", {"stream": True}),
        ("stream: true\n    stream_options: {}", {"stream": True, "stream_options": {}}),
        (
            "stream: true\n    stream_options: {include_usage: false, x: [1]}",
            {"stream": True, "stream_options": {"include_usage": False, "x": [1]}},
        ),
    ],
)
def test_stream_options_are_sent_as_written_or_dropped(endpoint: str, expected: dict[str, Any]) -> None:
    """What the endpoint says about streaming is what is sent, with a row's own parameters too."""
    for row in (None, {"n": 2}):
        body = orjson.loads(plan_request(endpoint, row=row).body)
        assert {key: value for key, value in body.items() if key.startswith("stream")} == expected


def test_request_key_does_not_know_how_the_reply_travels() -> None:
    """Streamed or not, the same is asked: outcomes can be taken over, and a resume may switch."""
    endpoints = ["concurrency: 1", "stream: true", "stream: true\n    drop_params: [stream_options]"]
    for row in (None, {"n": 2}):
        assert len({plan_request(endpoint, "seed: 1", row).request_key for endpoint in endpoints}) == 1


@pytest.mark.parametrize(
    ("endpoint", "params", "row", "expected"),
    [
        ("concurrency: 1", "", None, 1),
        ("concurrency: 1", "n: 3", None, 3),
        ("concurrency: 1", "n: 3", {"n": 2}, 2),
        ("concurrency: 1", "n: 3", {"seed": 2}, 3),
        ("concurrency: 1", "n: 3", {"n": None}, 1),
        ("concurrency: 1", "n: null", None, 1),
        ("rename_params: {n: candidate_count}", "n: 3", None, 3),
        ("drop_params: [n]", "n: 3", None, 1),
        ("rename_params: {n: best_of}\n    drop_params: [best_of]", "n: 3", {"n": 2}, 1),
    ],
)
def test_request_knows_how_many_choices_it_asks_for(
    endpoint: str, params: str, row: dict[str, Any] | None, expected: int
) -> None:
    """`n_choices` is `n` of the row or the model, as far as it is sent."""
    assert plan_request(endpoint, params, row).n_choices == expected


def test_parameter_renamed_to_itself_is_sent_once() -> None:
    """`{x: x}` is no conflict of two parameters."""
    body = orjson.loads(plan_request("rename_params: {seed: seed}", "seed: 4").body)
    assert body["seed"] == 4


@pytest.mark.parametrize(
    ("endpoint", "params", "row", "expected"),
    [
        ("concurrency: 1", "", None, None),
        ("concurrency: 1", "max_tokens: 9", None, 9),
        ("concurrency: 1", "max_tokens: 9, max_completion_tokens: 7", None, 7),
        ("concurrency: 1", "max_tokens: 9", {"max_tokens": 5}, 5),
        ("concurrency: 1", "max_tokens: 9", {"seed": 5}, 9),
        ("concurrency: 1", "max_tokens: 9", {"max_completion_tokens": 90}, 9),
        ("drop_params: [max_tokens]", "max_tokens: 9", None, None),
        ("drop_params: [max_tokens]", "max_tokens: 9, max_completion_tokens: 70", None, 70),
        ("rename_params: {max_tokens: max_completion_tokens}", "max_tokens: 9", None, 9),
        ("rename_params: {max_tokens: length}", "max_tokens: 9", None, 9),
        ("concurrency: 1", "", {"max_tokens": None}, None),
    ],
)
def test_output_limit_is_the_least_that_is_sent(
    endpoint: str, params: str, row: dict[str, Any] | None, expected: int | None
) -> None:
    """A request tells how long each of its choices may get, by whatever name the endpoint hears it."""
    assert plan_request(endpoint, params, row).max_output_tokens == expected
