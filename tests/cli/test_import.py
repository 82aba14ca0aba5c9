"""`evalrun import outputs`: answers made elsewhere become a run like any other, or are refused with their lines."""

import csv
import gzip
import json
import os
from collections.abc import Sequence
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import polars as pl
import pytest

import evalrun
from evalrun.api import Run
from evalrun.job.bodies import make_row_id
from tests.cli.calls import call_evalrun

DATA = os.environ.get("EVALRUN_TEST_DATA")

JOB = """\
endpoints: {demo: {simulator: {answer: "{{ answer }}", profiles: {sim: {}}}}}
models:
  - {name: sim, price: {input: 2, output: 8, multipliers: {batch: 0.5}}}
  - {name: dear, model: sim, price: {input: 20, output: 80}}
prompts: [{name: terse, user: "{{ question }}"}]
dataset: samples.jsonl
graders: [{type: numeric, expected: "{{ answer }}", name: correct}]
"""
SAMPLES = [{"id": name, "question": f"{name}?", "answer": str(n), "category": "sums"} for n, name in enumerate("abc")]
ANSWERS = [
    {"id": "c", "model": "sim", "text": "It is 2", "p": 10, "c": 5},
    {"id": "a", "model": "sim", "text": "It is 0", "p": 10, "c": 5},
    {"id": "a", "model": "other", "text": "It is 1", "p": 10, "c": 5},
]
LONG = ("--id", "id", "--model", "model", "--output", "text")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a job, its samples and answers to them."""
    (tmp_path / "job.yaml").write_text(JOB, encoding="utf-8")
    write(tmp_path / "samples.jsonl", SAMPLES)
    write(tmp_path / "answers.jsonl", ANSWERS)
    return tmp_path


def write(path: Path, rows: Sequence[object]) -> None:
    """Write rows as JSONL."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def import_outputs(folder: Path, *arguments: str, file: str = "answers.jsonl") -> CompletedProcess[str]:
    """Call `evalrun import outputs`."""
    return call_evalrun("import", "outputs", file, *arguments, cwd=folder)


def load(folder: Path, name: str = "answers") -> Run:
    """Return the run that was made."""
    return evalrun.load(name, reports_dir=folder / "reports")


def read(folder: Path, *columns: str, name: str = "answers") -> list[tuple[Any, ...]]:
    """Return columns of the run's results."""
    return load(folder, name).results.select(columns).collect().rows()


def refuse(folder: Path, *arguments: str, file: str = "answers.jsonl") -> str:
    """Import what must be refused; return why. Nothing is left behind."""
    called = import_outputs(folder, *arguments, file=file)
    assert called.returncode == 2
    assert not list(folder.glob("reports/*/*"))
    return called.stderr


def test_long_form_is_graded_by_the_jobs_samples(folder: Path) -> None:
    """Answers meet the samples of the job by id, in the order of the job, under the name of its prompt."""
    assert import_outputs(folder, *LONG, "--job", "job.yaml").returncode == 0
    found = read(folder, "sample_id", "model", "prompt", "endpoint", "output", "passed", "category", "status")
    assert found == [
        ("a", "sim", "terse", "imported", "It is 0", True, "sums", "ok"),
        ("a", "other", "terse", "imported", "It is 1", False, "sums", "ok"),
        ("c", "sim", "terse", "imported", "It is 2", True, "sums", "ok"),
    ]


def test_row_is_the_one_that_a_run_of_the_job_would_have(folder: Path) -> None:
    """Pairs are joined by sample, prompt and model: an import and a run of the same job have the same row_ids."""
    import_outputs(folder, *LONG, "--job", "job.yaml")
    assert read(folder, "row_id", "sample")[0] == (
        make_row_id("a", "terse", "sim", 0),
        json.dumps(SAMPLES[0], separators=(",", ":")),
    )


def test_nothing_is_told_that_the_file_does_not_tell(folder: Path) -> None:
    """Tokens, cost and latency that no column holds are null, and the run billed nothing."""
    import_outputs(folder, *LONG, "--job", "job.yaml")
    columns = ("prompt_tokens", "usage_source", "cost_usd", "cost_source", "billed_usd", "latency_s", "attempts")
    assert set(read(folder, *columns)) == {(None, "missing", None, "unknown", 0.0, None, 0)}
    assert load(folder).attempts.collect().height == 0


def test_prices_of_the_job_apply_to_given_tokens(folder: Path) -> None:
    """Counts become money by the job's price; a model without one has no known cost, said."""
    called = import_outputs(folder, *LONG, "--job", "job.yaml", "--prompt-tokens", "p", "--completion-tokens", "c")
    found = read(
        folder, "model", "prompt_tokens", "completion_tokens", "cost_usd", "cost_source", "usage_source", "usage"
    )
    assert found[:2] == [
        ("sim", 10, 5, 0.00006, "table", "reported", None),
        ("other", 10, 5, None, "unknown", "reported", None),
    ]
    assert "job.yaml has no price for other: what they cost is unknown" in called.stderr


def test_batch_takes_its_multiplier(folder: Path) -> None:
    """Half the price for what was asked in a batch; a price that does not know what a batch costs is an error."""
    tokens = ("--prompt-tokens", "p", "--completion-tokens", "c", "--batch")
    assert import_outputs(folder, *LONG, "--job", "job.yaml", *tokens).returncode == 0
    assert read(folder, "cost_usd")[0] == (0.00003,)
    write(folder / "dear.jsonl", [{**ANSWERS[0], "model": "dear"}])
    called = import_outputs(folder, *LONG, "--job", "job.yaml", *tokens, file="dear.jsonl")
    assert (called.returncode, "job.yaml:4:30: the price of dear does not say what a batch costs" in called.stderr) == (
        2,
        True,
    )


def test_cost_of_the_file_is_reported_cost(folder: Path) -> None:
    """A cost that the file names is taken as it is, and kept apart from what this run was billed."""
    write(
        folder / "answers.jsonl",
        [{**ANSWERS[0], "usd": "0.0125"}, {**ANSWERS[1], "usd": 0}, {**ANSWERS[2], "usd": None}],
    )
    import_outputs(folder, *LONG, "--job", "job.yaml", "--cost", "usd")
    assert read(folder, "cost_usd", "cost_source", "billed_usd") == [
        (0.0, "reported", 0.0),
        (None, "unknown", 0.0),
        (0.0125, "reported", 0.0),
    ]


def test_usage_object_is_read_like_that_of_a_reply(folder: Path) -> None:
    """A dialect's usage object is converted and kept, as from a server."""
    usage = {"input_tokens": 7, "cache_read_input_tokens": 3, "output_tokens": 5}
    write(folder / "answers.jsonl", [{**ANSWERS[1], "u": usage}])
    import_outputs(folder, *LONG, "--job", "job.yaml", "--usage", "u")
    assert read(folder, "prompt_tokens", "cached_tokens", "completion_tokens", "usage") == [
        (10, 3, 5, json.dumps(usage, separators=(",", ":")))
    ]


def test_wide_form_reads_paths_into_rows(folder: Path) -> None:
    """One row holds the answers of several models, each behind a path, with its own figures."""
    rows = [
        {
            "question": "1+1?",
            "gold": {"answer": "2"},
            "m1": {"out": [{"text": "2"}], "s": 1.5},
            "m2": {"out": [{"text": "3"}], "s": 2},
        }
    ]
    write(folder / "answers.jsonl", rows)
    outputs = ("--output", "one=m1.out[0].text", "--output", "two=m2.out[0].text")
    more = ("--latency", "m1.s", "--expected", "gold.answer", "--ignore", "m2")
    assert import_outputs(folder, *outputs, *more).returncode == 0
    ((row_id, sample),) = set(read(folder, "sample_id", "sample"))
    assert (len(row_id), json.loads(sample)) == (16, {"question": "1+1?", "gold": {"answer": "2"}, "expected": "2"})
    assert read(folder, "model", "output", "latency_s") == [("one", "2", 1.5), ("two", "3", 1.5)]


def test_name_of_an_output_stands_in_other_paths(folder: Path) -> None:
    """`{name}` finds the figures of each model of the wide form."""
    write(folder / "answers.jsonl", [{"id": "a", "m1": {"t": "x", "s": 1}, "m2": {"t": "y", "s": 2}}])
    import_outputs(folder, "--output", "m1=m1.t", "--output", "m2=m2.t", "--latency", "{name}.s")
    assert read(folder, "model", "latency_s", "sample") == [("m1", 1.0, '{"id":"a"}'), ("m2", 2.0, '{"id":"a"}')]


@pytest.mark.parametrize("suffix", ["csv", "tsv", "parquet", "json", "jsonl.gz"])
def test_every_dataset_format_is_read(folder: Path, suffix: str) -> None:
    """The same answers give the same rows, whatever the file's format."""
    path = folder / f"other.{suffix}"
    if suffix in {"csv", "tsv"}:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(ANSWERS[0]), delimiter="," if suffix == "csv" else "\t")
            writer.writeheader()
            writer.writerows(ANSWERS)
    elif suffix == "parquet":
        pl.DataFrame(ANSWERS).write_parquet(path)
    elif suffix == "json":
        path.write_text(json.dumps(ANSWERS), encoding="utf-8")
    else:
        path.write_bytes(gzip.compress((folder / "answers.jsonl").read_bytes()))
    options = (*LONG, "--job", "job.yaml", "--prompt-tokens", "p", "--completion-tokens", "c")
    assert import_outputs(folder, *options, file=path.name).returncode == 0
    import_outputs(folder, *options)
    columns = ("row_id", "request_key", "output", "cost_usd", "passed", "prompt_tokens", "sample")
    assert read(folder, *columns, name="other") == read(folder, *columns)


def test_statuses_follow_finish_reason_and_output(folder: Path) -> None:
    """`length` is truncated, `content_filter` filtered and has no output, and no text at all is empty."""
    rows = [
        {"id": "1", "text": "cut", "f": "length"},
        {"id": "2", "text": "", "f": "stop"},
        {"id": "3", "text": None, "f": "content_filter"},
        {"id": "4", "text": {"a": 1}, "f": "stop"},
    ]
    write(folder / "answers.jsonl", rows)
    called = import_outputs(folder, "--id", "id", "--model-name", "m", "--output", "text", "--finish-reason", "f")
    assert called.returncode == 0
    assert read(folder, "status", "output", "finish_reason") == [
        ("truncated", "cut", "length"),
        ("empty", "", "stop"),
        ("filtered", None, "content_filter"),
        ("ok", '{"a":1}', "stop"),
    ]


def test_null_is_refused_until_it_is_said_what_it_is(folder: Path) -> None:
    """A null output is neither no answer nor an empty one: the author says which, and the run is finished."""
    write(folder / "answers.jsonl", [{"id": "a", "text": "x"}, {"id": "b", "text": None}])
    options = ("--id", "id", "--model-name", "m", "--output", "text")
    assert refuse(folder, *options).startswith("error: answers.jsonl:2: m has no output here: null, or no such column")
    assert import_outputs(folder, *options, "--null-as", "empty", "--name", "e").returncode == 0
    # One of two rows is an error, which is more than a gate takes for a verdict.
    assert import_outputs(folder, *options, "--null-as", "error", "--name", "f").returncode == 3
    assert read(folder, "status", "error_code", "output", name="e")[1] == ("empty", None, "")
    assert read(folder, "status", "error_code", "output", name="f")[1] == ("error", "body_invalid", None)
    listed = json.loads(call_evalrun("list", "--json", cwd=folder).stdout)["runs"]
    assert {run["state"] for run in listed} == {"done"}


def test_repeats_are_numbered_from_zero(folder: Path) -> None:
    """Askings of the same row are told apart by a column, whatever it counts from."""
    write(folder / "answers.jsonl", [{"id": "a", "text": str(n), "epoch": n} for n in (3, 1, 2)])
    import_outputs(folder, "--id", "id", "--model-name", "m", "--output", "text", "--repeat", "epoch")
    assert read(folder, "repeat", "output") == [(0, "1"), (1, "2"), (2, "3")]
    assert len({row_id for (row_id,) in read(folder, "row_id")}) == 3


def test_problems_come_together_with_their_lines(folder: Path) -> None:
    """Every problem of the file is listed at once, equal ones once, and nothing is written."""
    rows = [
        {"id": "a", "model": "m", "text": "x", "p": 1, "usd": 1},
        {"id": "a", "model": "m", "text": "y", "p": 1, "usd": 1},
        {"id": "b", "model": "", "text": "x", "p": 1, "usd": 1},
        {"id": "c", "model": "m", "text": "x", "p": -1, "usd": 1},
        {"id": "d", "model": "m", "text": "x", "p": 1, "usd": "free"},
        {"id": None, "model": "m", "text": "x", "p": 1, "usd": 1},
        {"model": "m", "text": "x", "p": 1, "usd": 1},
        {"model": "m", "text": "x", "p": 1, "usd": 1},
    ]
    write(folder / "answers.jsonl", rows)
    told = refuse(folder, *LONG, "--prompt-tokens", "p", "--cost", "usd")
    expected = [
        "answers.jsonl:2: the sample 'a' is answered twice by m; first at answers.jsonl:1",
        "answers.jsonl:3: column `model` must name a model, got text ''",
        "answers.jsonl:4: --prompt-tokens must be a whole number of tokens, 0 or more, got -1",
        "answers.jsonl:5: --cost must be an amount of USD, 0 or more, got text 'free'",
        "answers.jsonl:6: column `id`: an id must be text or a number, got null",
        "answers.jsonl:7: the row has no `id`, named as its --id (and 1 more)",
    ]
    assert [line in told for line in expected] == [True] * len(expected)


def test_unknown_sample_is_told_with_its_line(folder: Path) -> None:
    """An answer to a sample that the job does not have is an error, with the way out."""
    write(folder / "answers.jsonl", [ANSWERS[0], {**ANSWERS[1], "id": "zz"}])
    told = refuse(folder, *LONG, "--job", "job.yaml")
    assert "answers.jsonl:2: job.yaml has no sample 'zz'" in told
    assert "--samples file" in told


def test_sample_that_differs_between_its_rows_is_refused(folder: Path) -> None:
    """Rows of one sample must agree on it: otherwise two models would be graded by different truths."""
    write(folder / "answers.jsonl", [{**ANSWERS[1], "note": 1}, {**ANSWERS[2], "note": 2}])
    told = refuse(folder, *LONG)
    assert "answers.jsonl:2: the sample 'a' differs in column `note` from what answers.jsonl:1 says of it" in told
    assert import_outputs(folder, *LONG, "--ignore", "note").returncode == 0


def test_column_that_no_row_has_is_a_slip(folder: Path) -> None:
    """An optional column that is nowhere is named with the nearest one, rather than read as unknown everywhere."""
    write(folder / "answers.jsonl", [{**row, "cost_usd": 1} for row in ANSWERS])
    told = refuse(folder, *LONG, "--cost", "cost_us")
    assert "no row has a `cost_us`, named by --cost" in told
    assert "did you mean `cost_usd`?" in told


def test_grader_that_does_not_fit_a_sample_is_found_first(folder: Path) -> None:
    """Templates of the job's graders are checked against every sample before anything is written."""
    told = refuse(folder, *LONG, "--job", "job.yaml", "--samples", "file")
    assert "'answer' is undefined" in told


def test_samples_of_the_file_may_bring_graders(folder: Path) -> None:
    """Without a job a row's own graders apply; they are data, so they hold no template and no code."""
    own = [{"type": "contains", "value": "x"}]
    write(
        folder / "answers.jsonl", [{"id": "a", "text": "x", "graders": own}, {"id": "b", "text": "y", "graders": own}]
    )
    options = ("--id", "id", "--model-name", "m", "--output", "text")
    assert import_outputs(folder, *options).returncode == 0
    assert read(folder, "passed") == [(True,), (False,)]
    for bad in ({"type": "contains", "value": "{{ id }}"}, {"type": "python", "file": "x.py"}):
        write(folder / "bad.jsonl", [{"id": "a", "text": "x", "graders": [bad]}])
        called = import_outputs(folder, *options, file="bad.jsonl")
        assert called.returncode == 2


def test_gate_of_the_job_gives_the_exit_code(folder: Path) -> None:
    """An import is gated like a run."""
    (folder / "job.yaml").write_text(JOB + "gate: {min_pass_rate: 0.9}\n", encoding="utf-8")
    called = import_outputs(folder, *LONG, "--job", "job.yaml", "--json")
    assert (called.returncode, json.loads(called.stdout)["exit_code"]) == (1, 1)
    assert import_outputs(folder, *LONG, "--job", "job.yaml", "--no-gate").returncode == 0


def test_imported_run_is_graded_shown_and_reported_like_any_other(folder: Path) -> None:
    """`grade`, `show`, `report` and `list` know it, and the report says where the answers came from."""
    import_outputs(folder, *LONG, "--input", "text")
    job = (folder / "job.yaml").read_text(encoding="utf-8")
    (folder / "job.yaml").write_text(job.replace("{{ answer }}", "{{ 1 }}"), encoding="utf-8")
    assert call_evalrun("grade", "answers", cwd=folder).returncode == 2
    assert call_evalrun("grade", "answers", "--job", "job.yaml", cwd=folder).returncode == 0
    assert [passed for (passed,) in read(folder, "passed")].count(True) == 1
    for command in (
        ("show", "answers"),
        ("show", "answers", "--lanes"),
        ("show", "answers", "--journal"),
        ("report", "answers"),
    ):
        assert call_evalrun(*command, cwd=folder).returncode == 0
    assert "imported from answers.jsonl" in (load(folder).path / "report.md").read_text(encoding="utf-8").replace(
        "`", ""
    )


def test_imported_answers_are_never_taken_for_paid_ones(folder: Path) -> None:
    """What was asked for them is unknown: no reuse, no resume, and `latest` is not one of them."""
    import_outputs(folder, *LONG, "--job", "job.yaml", "--name", "job")
    for option in ("--reuse", "--resume"):
        called = call_evalrun("run", "job.yaml", option, "job", cwd=folder)
        assert (called.returncode, "was imported" in called.stderr) == (2, True)
    called = call_evalrun("run", "job.yaml", "--reuse", "latest", cwd=folder)
    assert (called.returncode, "has no finished run yet" in called.stderr) == (0, True)


def test_hostile_cells_stay_data(folder: Path) -> None:
    """Escapes, templates, formulas, lone surrogates and endless names in a file do nothing but stand there."""
    evil = "\x1b[31m{{ 7 * 7 }}</script>=cmd()\ud800"
    row = {"id": "=1+1", "model": "{{ m }}", "text": evil, "x": evil}
    (folder / "answers.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    called = import_outputs(folder, *LONG)
    assert (called.returncode, "\x1b" in called.stdout + called.stderr) == (0, False)
    assert read(folder, "sample_id", "model", "output", "flags") == [
        ("=1+1", "{{ m }}", evil.replace("\ud800", "\\ud800"), '["text_cleaned"]')
    ]
    write(folder / "answers.jsonl", [{**row, "model": "a\nb"}])
    assert "a name with a control character" in import_outputs(folder, *LONG).stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--id", "id", "--output", "text"), "say which model answered"),
        (("--output", "a=x", "--output", "y"), "--output 'y' names no column"),
        (("--output", "x", "--output", "y", "--model-name", "m"), "several outputs need names"),
        (("--output", "a=x", "--model-name", "m"), "--output NAME=COLUMN names the models"),
        (("--output", "a=x", "--output", "a=y"), "--output a=… is given twice"),
        (("--output", "text", "--model-name", "m"), "say which column tells the samples apart"),
        ((*LONG, "--batch"), "--batch needs a job"),
        ((*LONG, "--samples", "job"), "--samples job needs a job"),
        ((*LONG, "--prompt", "a", "--prompt-name", "b"), "both say which prompt"),
        ((*LONG, "--usage", "u", "--prompt-tokens", "p"), "--usage holds the tokens already"),
        ((*LONG, "--cost", "a..b"), "--cost 'a..b' is no column"),
        ((*LONG, "--name", "../up"), "cannot name a folder"),
        ((*LONG, "--job", "nowhere.yaml"), "nowhere.yaml"),
    ],
)
def test_command_line_that_cannot_be_meant_is_refused(folder: Path, arguments: Sequence[str], told: str) -> None:
    """Options that do not go together are an error before the file is read."""
    assert told in refuse(folder, *arguments)


@pytest.mark.parametrize("content", ["", "\n", "[1]\n", "not json\n"])
def test_file_without_rows_makes_no_run(folder: Path, content: str) -> None:
    """An empty or broken file is an error, and leaves no folder."""
    (folder / "answers.jsonl").write_text(content, encoding="utf-8")
    assert "answers.jsonl" in refuse(folder, *LONG)


def test_missing_file_is_named(folder: Path) -> None:
    """A file that is not there is an error with the nearest name."""
    assert "answers.jsonl" in refuse(folder, *LONG, file="answer.jsonl")


def test_imports_of_a_run_and_of_its_own_table_agree(folder: Path) -> None:
    """A run's own results.parquet, imported again, has the same outputs, verdicts and tokens."""
    assert call_evalrun("run", "job.yaml", "--progress", "none", cwd=folder).returncode == 0
    (table,) = folder.glob("reports/job/*/results.parquet")
    called = import_outputs(
        folder, "--id", "sample_id", "--model", "model", "--output", "output", "--prompt", "prompt", "--usage", "usage",
        "--job", "job.yaml", "--name", "again", file=str(table),
    )  # fmt: skip
    assert called.returncode == 0
    columns = ("row_id", "output", "passed", "prompt_tokens", "completion_tokens", "cost_usd", "sample", "category")
    assert read(folder, *columns, name="again") == read(folder, *columns, name="job")


@pytest.mark.skipif(DATA is None, reason="EVALRUN_TEST_DATA is not set")
def test_published_outputs_are_graded_as_published(folder: Path) -> None:
    """GSM8K: 1,319 outputs of each of four models, imported and graded by `numeric`, as `is_correct` says."""
    (folder / "gsm8k.yaml").write_text(JOB.replace("{{ answer }}", "{{ ground_truth }}"), encoding="utf-8")
    names = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")
    outputs = [word for name in names for word in ("--output", f"{name}={name}.solution")]
    path = Path(str(DATA)) / "gsm8k_example_model_solutions.jsonl"
    options = ("--job", "gsm8k.yaml", "--samples", "file", "--name", "gsm8k", "--no-gate")
    assert import_outputs(folder, *outputs, *options, file=str(path)).returncode == 0
    published = {
        (row["question"], name): row[name]["is_correct"]
        for row in map(json.loads, path.read_text(encoding="utf-8").splitlines())
        for name in names
    }
    found = read(folder, "sample", "model", "passed", name="gsm8k")
    assert len(found) == 4 * 1319
    assert [row for row in found if published[json.loads(row[0])["question"], row[1]] != row[2]] == []
