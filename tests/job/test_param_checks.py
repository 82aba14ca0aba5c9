"""Parameters of models and rows: what is an error, what is a warning, and what is left alone."""

from pathlib import Path

import pytest

from evalrun.errors import DatasetError
from evalrun.job.plan import Plan
from tests.job.conftest import fail, load, write_rows

JOB = """\
endpoints:
  gateway:
    base_url: https://x.test/v1
    {endpoint}
models:
  - {{name: m, price: {{input: 1, output: 1}}, params: {{{params}}}}}
prompts: [{{name: p, user: hi}}]
samples: [{{id: a}}]
"""


def write_job(params: str = "", endpoint: str = "concurrency: 1") -> str:
    """Return a job whose only model has these parameters."""
    return JOB.format(params=params, endpoint=endpoint)


def warn(text: str) -> list[str]:
    """Return the warnings of a job, rendered."""
    return [warning.render() for warning in load(text).warnings]


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ("temperature: hot", "`models[0].params.temperature` must be a number, got text 'hot'"),
        ("n: 1.5", "`models[0].params.n` must be a whole number, got 1.5"),
        ("logprobs: 1", "`models[0].params.logprobs` must be true or false, got 1"),
        ("stop: {}", "`models[0].params.stop` must be text or a list of texts, got a mapping"),
        ("tools: {}", "`models[0].params.tools` must be a list of mappings, got a mapping"),
        ("stop: [a, 1]", "`models[0].params.stop[1]` must be text, got 1"),
        ("response_format: json", "`models[0].params.response_format` must be a mapping, got text 'json'"),
        ("reasoning_effort: 5", "`models[0].params.reasoning_effort` must be one of 'none', 'minimal'"),
    ],
)
def test_model_parameter_of_a_wrong_type_is_an_error_at_its_place(params: str, message: str) -> None:
    """A documented parameter of a wrong type is refused when the job is read, with file, line and column."""
    problems = fail(write_job(params))
    assert len(problems) == 1
    assert problems[0].startswith("job.yaml:6:")
    assert message in problems[0]


def test_number_in_quotes_is_told_how_to_write_it() -> None:
    """The commonest slip has its next step."""
    assert fail(write_job("temperature: '0'")) == [
        (
            "job.yaml:6:54: `models[0].params.temperature` must be a number, got text '0'\n"
            "    numbers are written as in JSON, without quotes: 1000, 0.5, 1e3"
        )
    ]


def test_wrong_parameters_are_found_beside_other_errors() -> None:
    """All errors of a file are told at once, even when the job is not valid as a whole."""
    problems = fail(write_job("n: x", "concurency: 1"))
    assert [problem.split(" ")[0] for problem in problems] == ["job.yaml:4:5:", "job.yaml:6:54:"]


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ("temperature: 3", "`models[0].params.temperature` is 3; documented is at most 2. It is sent as it is written"),
        (
            "stop: [a, b, c, d, e]",
            "`models[0].params.stop` is 5 items; documented is at most 4 items. It is sent as it is written",
        ),
        (
            "service_tier: on_demand",
            (
                "`models[0].params.service_tier` is text 'on_demand'; documented is 'auto', 'default', 'flex', "
                "'scale', 'priority', 'fast'. It is sent as it is written"
            ),
        ),
        (
            "tools: [{type: function}]",
            (
                "`models[0].params.tools[0].function` is not given, but documented as required; the parameter is "
                "sent as it is written"
            ),
        ),
        (
            "logit_bias: {word: 1}",
            (
                "`models[0].params.logit_bias` has the key 'word', which is not one that is documented; it is sent "
                "all the same"
            ),
        ),
        (
            "temprature: 0",
            (
                "`models[0].params.temprature` is no documented parameter; it is sent as it is written\n"
                "    did you mean `temperature`?"
            ),
        ),
    ],
)
def test_parameter_out_of_range_or_misspelled_is_a_warning(params: str, message: str) -> None:
    """Other servers may take what OpenAI does not document, so it is said and sent."""
    (warning,) = warn(write_job(params))
    assert warning.startswith("job.yaml:6:")
    assert warning.split(": ", 1)[1] == message


def test_unknown_parameters_pass_in_silence() -> None:
    """Parameters of other servers are their business."""
    params = "top_k: 5, min_p: '0.1', random_seed: 1, provider: {order: [a]}, thinking: {type: enabled}"
    assert warn(write_job(params)) == []


def test_dropped_parameter_is_said() -> None:
    """A parameter that is set and not sent is never lost in silence, whatever name it was dropped under."""
    endpoint = "rename_params: {max_tokens: max_completion_tokens}\n    drop_params: [seed, max_completion_tokens]"
    warnings = warn(write_job("seed: 1, max_tokens: 5, n: 1", endpoint))
    assert [warning.split(": ", 1)[1] for warning in warnings] == [
        "`models[0].params.seed` is not sent: the endpoint drops it (drop_params)\n    leave it out",
        "`models[0].params.max_tokens` is not sent: the endpoint drops it (drop_params)\n    leave it out",
    ]


@pytest.mark.parametrize("name", ["model", "messages", "stream"])
def test_drop_params_may_not_drop_what_the_request_is_made_of(name: str) -> None:
    """An option that could not work is refused."""
    (problem,) = fail(write_job("", f"drop_params: [seed, {name}]"))
    assert problem.startswith(f"job.yaml:4:25: `drop_params` may not drop `{name}`")


def test_stream_options_are_checked_like_a_parameter() -> None:
    """A wrong type in stream_options is an error at its place."""
    (problem,) = fail(write_job("", "stream_options: {include_usage: 1}"))
    assert problem.startswith("job.yaml:4:22: `endpoints.gateway.stream_options.include_usage` must be true or false")


ROWS = write_job("").replace("samples: [{id: a}]", "dataset: {path: d.jsonl, params_column: p}")


def test_row_parameter_of_a_wrong_type_is_an_error_before_sending() -> None:
    """A row's parameters are checked for every row, with the row's place; equal faults are told once."""
    write_rows("d.jsonl", [{"id": "a", "p": {"n": 1}}, *({"id": str(i), "p": {"n": "2"}} for i in range(3))])
    with pytest.raises(DatasetError) as caught:
        Plan(load(ROWS)).check()
    assert [problem.render().split("\n")[0] for problem in caught.value.problems] == [
        "d.jsonl:2: `params_column: n` must be a whole number, got text '2' (this row and 2 more)"
    ]


def test_row_parameters_out_of_range_misspelled_or_dropped_are_warnings() -> None:
    """What is no error in a row is counted and told with the plan."""
    write_rows("d.jsonl", [{"id": str(i), "p": {"n": 500, "tempereture": 1, "seed": 1}} for i in range(2)])
    totals = Plan(load(ROWS.replace("concurrency: 1", "drop_params: [seed]"))).check()
    assert [warning.render().split("\n")[0] for warning in totals.warnings] == [
        (
            "d.jsonl:1: `params_column: n` is 500; documented is at most 128. It is sent as it is written "
            "(this row and 1 more)"
        ),
        (
            "d.jsonl:1: `params_column: tempereture` is no documented parameter; it is sent as it is written "
            "(this row and 1 more)"
        ),
        (
            "d.jsonl:1: `params_column: seed` is not sent: the endpoint drops it (drop_params) (gateway) "
            "(this row and 1 more)"
        ),
    ]


def test_unknown_quirk_of_a_simulator_is_an_error_with_the_known_ones() -> None:
    """A quirk that is not there is refused when the job is read, at its place."""
    job = """\
endpoints:
  demo:
    simulator:
      answer: x
      profiles: {careful: {quirks: {Q09: 0.1, Q99: 0.5}}}
models: [{name: careful}]
prompts: [{name: p, user: hi}]
samples: [{id: a}]
"""
    (problem,) = fail(job)
    assert problem.startswith("job.yaml:5:47: there is no quirk 'Q99'")
    assert "Q09" in problem
    Path("job.yaml").unlink()
    assert fail(job.replace("Q99", "Q98")) != []
