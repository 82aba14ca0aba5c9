"""The plan: order and keys of its rows, what a check finds, what a run would take."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evalrun.errors import AuthorError, DatasetError, Problem, PromptError, UsageError
from evalrun.job.canonical import encode_canonical, make_digest
from evalrun.job.plan import Plan, Selection, make_row_id
from evalrun.records import Request, Sample, SimulatorHint
from tests.job.conftest import BODY, HEAD, SAMPLE, load, write_rows

GATEWAY = """\
endpoints:
  gateway:
    base_url: https://api.example.com/v1/
    headers: {X-Team: red}
    rename_params: {max_tokens: max_completion_tokens}
    drop_params: [seed]
models:
  - {name: small, model: gpt-small, params: {temperature: 0, max_tokens: 64, seed: 1}, price: {input: 1, output: 2}}
  - {name: large, params: {logprobs: true}, price: {input: 10, output: 20}}
prompts: [{name: p, user: "{{ q }}"}, {name: r, user: "{{ q }} {{ repeat }}"}]
repeats: 2
"""


def make_plan(text: str, **selection: Any) -> Plan:
    """Return the plan of a job."""
    return Plan(load(text), Selection(**selection))


def refuse_check(text: str, **options: Any) -> AuthorError:
    """Return the error of a plan's check."""
    with pytest.raises(AuthorError) as caught:
        make_plan(text).check(**options)
    return caught.value


def test_row_id_is_frozen() -> None:
    """A row's id never changes: results of years are joined by it."""
    expected = "64219e62b5ed853cee7e15f28db3ca33ef349dc8b1350cbe4ea4de6193ead664"
    assert make_row_id("s1", "terse", "gpt-5.1", 0) == expected


def test_row_id_tells_all_four_parts_apart() -> None:
    """No two rows share an id, however their names are cut."""
    rows = [("a", "b", "c", 0), ("a", "b", "c", 1), ("ab", "", "c", 0), ("a", "bc", "", 0), ('a","b', "c", "", 0)]
    assert len({make_row_id(*row) for row in rows}) == len(rows)


def test_plan_yields_rows_in_order_with_indexes() -> None:
    """Order is sample, prompt, model, repeat; a filter by model keeps the indexes of the whole plan."""
    plan = make_plan(GATEWAY + "samples: [{id: a, q: x}, {id: b, q: y}]\n")
    requests = list(plan.requests())
    assert [request.index for request in requests] == list(range(16))
    assert [(r.sample.sample_id, r.prompt, r.model, r.repeat) for r in requests[:6]] == [
        *[("a", "p", "small", 0), ("a", "p", "small", 1), ("a", "p", "large", 0), ("a", "p", "large", 1)],
        *[("a", "r", "small", 0), ("a", "r", "small", 1)],
    ]
    assert list(plan.requests(models={"large"})) == [request for request in requests if request.model == "large"]


def test_plan_renders_only_the_rows_wanted() -> None:
    """A resume gets the rows that it asks for, as they stand in the whole plan; a template is tried on no other."""
    plan = make_plan(GATEWAY + "samples: [{id: a, q: x}, {id: b, q: y}]\n")
    requests = list(plan.requests())
    for chosen in ({0}, {5, 6, 15}, set(range(8, 16)), set()):
        wanted = bytearray(index in chosen for index in range(16))
        assert list(plan.requests(wanted=wanted)) == [requests[index] for index in sorted(chosen)]
        large = [request for request in requests if request.index in chosen and request.model == "large"]
        assert list(plan.requests(models={"large"}, wanted=wanted)) == large
    broken = make_plan(GATEWAY + "samples: [{id: a}, {id: b, q: y}]\n")
    assert [request.index for request in broken.requests(wanted=bytearray(8) + bytearray([1] * 8))] == [*range(8, 16)]


def test_plan_row_ids_are_those_of_their_parts() -> None:
    """An id put together from prepared pieces is the one that `make_row_id` makes, whatever the names hold."""
    text = GATEWAY.replace("name: r", "name: 'r\u00e9 %d\"'").replace("name: large", "name: 'l/%s,'")
    plan = make_plan(text + "samples: [{id: 'a\"%b,é', q: x}, {q: 'no id'}]\n")
    for request in plan.requests():
        parts = (request.sample.sample_id, request.prompt, request.model, request.repeat)
        assert request.row_id == make_row_id(*parts)


def test_plan_body_follows_the_endpoints_dialect() -> None:
    """Parameters are renamed and dropped; the id on the wire is the model's own."""
    plan = make_plan(GATEWAY + "samples: [{id: a, q: x}]\n")
    bodies = [request.body for request in plan.requests() if request.repeat == 1]
    assert bodies == [
        b'{"model":"gpt-small","messages":[{"role":"user","content":"x"}],"temperature":0,"max_completion_tokens":64}',
        b'{"model":"large","messages":[{"role":"user","content":"x"}],"logprobs":true}',
        b'{"model":"gpt-small","messages":[{"role":"user","content":"x 1"}],"temperature":0,"max_completion_tokens":64}',  # noqa: E501
        b'{"model":"large","messages":[{"role":"user","content":"x 1"}],"logprobs":true}',
    ]


def test_request_key_is_the_digest_of_what_is_asked_of_whom() -> None:
    """The key put together from pieces is the sha256 of the canonical JSON of {v, target, body, repeat}; case-blind."""
    for request in make_plan(GATEWAY + "samples: [{id: a, q: 'é \"x\"'}]\n").requests():
        target = {"base_url": "https://api.example.com/v1", "headers": {"x-team": "red"}}
        content = {"v": 1, "target": target, "body": orjson.loads(request.body), "repeat": request.repeat}
        assert request.request_key == make_digest(content)


def test_request_key_of_a_simulator_does_not_know_its_port() -> None:
    """A simulator's target is its behaviour and the rendered answer, never where it runs."""
    text = BODY + SAMPLE
    (embedded,) = make_plan(text).requests()
    (served,) = make_plan(text.replace("{answer:", '{url: "http://127.0.0.1:5", answer:')).requests()
    (seeded,) = make_plan(text.replace("{answer:", "{seed: 2, answer:")).requests()
    (other,) = make_plan(text.replace("'4'", "'5'")).requests()
    (faster,) = make_plan(text.replace("accuracy: 0.9", "accuracy: 0.9, latency_ms: 1")).requests()
    assert embedded.request_key == served.request_key
    assert len({request.request_key for request in (embedded, seeded, other, faster)}) == 4
    assert embedded.hint == SimulatorHint(answer="4", sample_id="s1", repeat=0)


JSON_SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
JSON_VALUES = st.recursive(
    JSON_SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
ROWS = st.dictionaries(st.sampled_from(["a", "b", "c", "é", "Z"]), JSON_VALUES, min_size=2, max_size=5)


def write_json(value: Any) -> str:
    """Return JSON text, of integers beyond 64 bits too."""
    return encode_canonical(value).decode()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(params=st.dictionaries(st.sampled_from(["a", "n", "p", "user"]), JSON_VALUES, min_size=2), data=st.data())
def test_request_key_does_not_depend_on_the_order_of_keys(params: dict[str, Any], data: st.DataObject) -> None:
    """Reordered columns and parameters are the same request; any change of the body is another."""
    write_rows("d.jsonl", [{"id": "s", "p": None}])
    shuffled = dict(data.draw(st.permutations(list(params.items()))))
    requests = [ask_with_params(params), ask_with_params(shuffled), ask_with_params({**params, "zz": 0})]
    assert requests[0].request_key == requests[1].request_key
    assert requests[0].request_key != requests[2].request_key
    assert requests[0].row_id == requests[2].row_id


def ask_with_params(params: Mapping[str, Any]) -> Request:
    """Return the request of a row that sets these parameters."""
    items = ",".join(f"{encode_canonical(key).decode()}:{write_json(value)}" for key, value in params.items())
    Path("d.jsonl").write_text('{"p":{' + items + '},"id":"s","q":"hi"}\n', encoding="utf-8")
    return next(make_plan(GATEWAY + "dataset: {path: d.jsonl, params_column: p}\n").requests())


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(row=ROWS, data=st.data())
def test_request_key_does_not_depend_on_the_order_of_columns(row: dict[str, Any], data: st.DataObject) -> None:
    """A row with its columns in another order asks the same; with another text it does not."""
    Path("job.yaml").unlink(missing_ok=True)
    text = GATEWAY.replace('"{{ q }}"', '"{{ q }}: {{ row }}"') + "dataset: d.jsonl\n"
    keys = []
    for columns in (row, dict(data.draw(st.permutations(list(row.items())))), {**row, "new": 1}):
        content = {"id": "s", "q": "hi", "row": "same" if "new" not in columns else "other", **columns}
        pairs = ",".join(f"{encode_canonical(key).decode()}:{write_json(value)}" for key, value in content.items())
        Path("d.jsonl").write_bytes(b"{" + pairs.encode("utf-8", "surrogatepass") + b"}\n")
        keys.append(next(make_plan(text).requests()).request_key)
    assert keys[0] == keys[1] != keys[2]


def test_plan_carries_what_is_not_unicode_or_64_bit() -> None:
    """Half a surrogate pair and a huge integer reach the body as they are."""
    Path("d.jsonl").write_bytes(b'{"id": "s", "q": "\\ud800", "p": {"seed2": 1234567890123456789012345}}\n')
    request = next(make_plan(GATEWAY + "dataset: {path: d.jsonl, params_column: p}\n").requests())
    assert b'"content":"\\ud800"' in request.body
    assert b'"seed2":1234567890123456789012345' in request.body


def test_plan_row_params_go_over_the_models() -> None:
    """A row's parameters replace the model's, in the endpoint's dialect."""
    write_rows("d.jsonl", [{"id": "s", "q": "x", "p": {"max_tokens": 9, "seed": 5}}])
    request = next(make_plan(GATEWAY + "dataset: {path: d.jsonl, params_column: p}\n").requests())
    expected = {"model": "gpt-small", "messages": [{"role": "user", "content": "x"}]}
    assert orjson.loads(request.body) == {**expected, "temperature": 0, "max_completion_tokens": 9}


def test_plan_is_lazy() -> None:
    """No sample is read before it is asked for, and a broken row stops nothing before it."""
    Path("d.jsonl").write_text('{"id": "a", "q": "x"}\nbroken\n')
    requests = make_plan(GATEWAY + "dataset: d.jsonl\n").requests()
    assert [next(requests).index for _ in range(8)] == list(range(8))
    with pytest.raises(DatasetError, match=r"d.jsonl:2: not valid JSON"):
        next(requests)


def test_plan_reads_no_more_of_a_pipe_than_it_needs() -> None:
    """The plan's first request is there while the dataset is still being written."""
    os.mkfifo("d.jsonl")
    descriptor = os.open("d.jsonl", os.O_RDWR)
    try:
        os.write(descriptor, b'{"id": "a", "q": "x"}\n')
        assert next(make_plan(GATEWAY + "dataset: d.jsonl\n").requests()).index == 0
    finally:
        os.close(descriptor)


def test_d7_missing_template_variable_is_found_in_every_row_before_sending() -> None:
    """One wrong template is one problem, with its place, the first row and how many more there are."""
    write_rows("d.jsonl", [{"id": str(n), "answer": "", "qestion": "x"} for n in range(1000)])
    error = refuse_check(BODY + "dataset: d.jsonl\n")
    assert isinstance(error, PromptError)
    assert str(error) == (
        "job.yaml:3:25: 'question' is undefined (sample '0', d.jsonl:1 and 999 more)\n"
        "    the sample has: answer, id, qestion, repeat, sample_id, vars"
    )


def test_d7_variable_missing_in_the_last_row_only_is_found() -> None:
    """The check tries every row, not a few."""
    write_rows(
        "d.jsonl", [{"id": str(n), "answer": "", "question": "x"} for n in range(500)] + [{"id": "z", "answer": ""}]
    )
    error = refuse_check(BODY + "dataset: d.jsonl\n")
    assert str(error).startswith("job.yaml:3:25: 'question' is undefined (sample 'z', d.jsonl:501)")


def test_check_finds_problems_of_all_kinds_at_once() -> None:
    """Broken rows, duplicate ids, templates and graders are reported together, equal ones once."""
    lines = [
        '{"id": "a", "answer": "", "question": ""}',
        "{",
        '{"id": "a", "answer": "", "question": ""}',
        '{"id": "b", "answer": ""}',
    ]
    Path("d.jsonl").write_text("\n".join(lines) + "\n")

    def check_sample(sample: Sample) -> list[Problem]:
        return [Problem(message="expected is empty", where=sample.where)]

    error = refuse_check(BODY + "dataset: d.jsonl\n", check_sample=check_sample)
    assert [problem.render().split("\n")[0] for problem in error.problems] == [
        "d.jsonl:1: expected is empty (this row and 2 more)",
        "d.jsonl:2: not valid JSON: Expecting property name enclosed in double quotes at column 2",
        "job.yaml:3:25: 'question' is undefined (sample 'b', d.jsonl:4)",
        "d.jsonl:3: the sample id 'a' is given twice; first at d.jsonl:1",
    ]


def test_check_lists_at_most_twenty_problems_and_counts_the_rest() -> None:
    """A thousand different problems are twenty lines and a number."""
    write_rows("d.jsonl", [{"id": f"a\n{n}"} for n in range(1000)])
    problems = refuse_check(BODY + "dataset: d.jsonl\n").problems
    assert len(problems) == 21
    assert problems[-1].message == "… and 980 more problems"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("d.jsonl", "", "job.yaml:4:1: 0 rows: d.jsonl holds no sample"),
        ("d.csv", "id,question\n", "job.yaml:4:1: 0 rows: d.csv holds no sample"),
        ("d.json", "[]", "job.yaml:4:1: 0 rows: d.json holds no sample"),
    ],
)
def test_d12_empty_dataset_is_refused(name: str, content: str, message: str) -> None:
    """No rows are no green gate."""
    Path(name).write_text(content)
    assert str(refuse_check(BODY + f"dataset: {name}\n")).startswith(message)


def test_d12_selection_without_rows_is_refused() -> None:
    """A `where` that lets nothing through is an error that says so."""
    plan = make_plan(BODY + SAMPLE, where="id == 'nobody'")
    with pytest.raises(DatasetError, match="0 rows: no sample passes --where"):
        plan.check()


def test_selection_chooses_by_glob_and_names_what_there_is() -> None:
    """Globs over names choose models and prompts; one that matches nothing is an error."""
    text = GATEWAY + "samples: [{id: a, q: x}, {id: b, q: y}]\n"
    plan = make_plan(text, models=("l*",), prompts=("p",), limit=1)
    assert [(request.model, request.prompt, request.index) for request in plan.requests()] == [
        ("large", "p", 0),
        ("large", "p", 1),
    ]
    with pytest.raises(UsageError, match=r"--model larg matches nothing in the job\n    did you mean `large`\?"):
        make_plan(text, models=("larg",))


def test_check_totals_tell_what_a_run_would_take() -> None:
    """Requests, tokens, USD and time are there for each model, low to high."""
    plan = make_plan(GATEWAY + "samples: [{id: a, q: one two three, category: x}, {id: b, q: four}]\n")
    seen: list[int] = []
    totals = plan.check(on_progress=seen.append)
    assert (totals.n_samples, totals.n_rows, totals.categories, seen) == (2, 16, {"x": 1}, [2])
    small, large = totals.models
    assert (small.requests, large.requests) == (8, 8)
    assert small.completion_tokens.high == 64 * 8
    assert large.completion_tokens.high is None
    assert small.usd.low is not None
    assert small.usd.expected is not None
    assert small.usd.high is not None
    assert 0 < small.usd.low < small.usd.expected < small.usd.high
    assert (totals.usd.high, totals.time_s.high) == (None, None)


def test_check_digest_is_of_the_samples_chosen() -> None:
    """The dataset's digest changes with its rows, not with the order of their keys."""
    digests = []
    for rows in (
        [{"id": "a", "question": "x", "answer": ""}],
        [{"question": "x", "answer": "", "id": "a"}],
        [{"id": "a", "question": "y", "answer": ""}],
    ):
        write_rows("d.jsonl", rows)
        digests.append(make_plan(BODY + "dataset: d.jsonl\n").check().dataset_digest)
    assert digests[0] == digests[1] != digests[2]


def test_rows_after_a_check_have_the_same_ids() -> None:
    """A later scan needs no memory of ids, and yet numbers equal rows alike."""
    write_rows("d.jsonl", [{"question": "x", "answer": ""}] * 3 + [{"question": "y", "answer": ""}])
    plan = make_plan(BODY + "dataset: d.jsonl\n")
    before = [request.row_id for request in plan.requests()]
    plan.check()
    assert [request.row_id for request in plan.requests()] == before
    assert len(set(before)) == 4


def test_gsm8k_is_planned_whole() -> None:
    """Real input: 1,319 samples, the expected number rendered by the template for each."""
    folder = os.environ.get("EVALRUN_TEST_DATA")
    if not folder:
        pytest.skip("EVALRUN_TEST_DATA is not set")
    head = HEAD.replace("{{ answer }}", "{{ answer.split('####')[1].strip() }}")
    text = head + 'prompts: [{name: p, user: "{{ question }}"}]\ndataset: "${EVALRUN_TEST_DATA}/gsm8k_test.jsonl"\n'
    plan = Plan(load(text, environ={"EVALRUN_TEST_DATA": folder}))
    assert plan.check().n_rows == 1319
    answers = [request.hint.answer for request in plan.requests() if request.hint is not None]
    assert len(answers) == 1319
    assert all(answer.replace(",", "").lstrip("-").isdigit() for answer in answers)


@pytest.mark.parametrize("language", ["th", "zh"])
def test_mgsm_is_read_without_a_header(language: str) -> None:
    """Real input: 250 Thai and Chinese problems of a headerless TSV."""
    folder = os.environ.get("EVALRUN_TEST_DATA")
    if not folder:
        pytest.skip("EVALRUN_TEST_DATA is not set")
    dataset = f'dataset: {{path: "${{EVALRUN_TEST_DATA}}/mgsm_{language}.tsv", columns: [question, answer]}}\n'
    plan = Plan(load(BODY + dataset, environ={"EVALRUN_TEST_DATA": folder}))
    assert plan.check().n_rows == 250
