"""A job or dataset that changes between run and resume; a parameter that the endpoint refuses."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from evalrun.cli.main import main
from tests.cli.processes import find_run_folder
from tests.fake_endpoint import FakeEndpoint, FakeReply, reply_error, reply_text

JOB = """\
endpoints:
  gateway: {{base_url: "{url}", concurrency: 2, retry: {{max_attempts: 1}}}}
models:
  - {{name: m, params: {{temperature: 0}}}}
prompts:
  - {{name: p, user: "{{{{ question }}}}"}}
dataset: samples.jsonl
graders:
  - {{type: contains, value: "yes"}}
"""


def write_samples(folder: Path, questions: dict[str, str]) -> None:
    """Write the dataset: id → question."""
    lines = [json.dumps({"id": sample_id, "question": question}) for sample_id, question in questions.items()]
    (folder / "samples.jsonl").write_text("\n".join(lines), encoding="utf-8")


def run_job(folder: Path, *more: str) -> int:
    """Run the job of a folder."""
    return main(["run", str(folder / "job.yaml"), "-o", str(folder / "reports"), *more])


def start(folder: Path, endpoint: FakeEndpoint) -> None:
    """Run a job of four samples of which one gets a 503 and stays unfinished."""
    write_samples(folder, {"a": "one?", "b": "two?", "c": "three?", "d": "four?"})
    (folder / "job.yaml").write_text(JOB.format(url=endpoint.base_url), encoding="utf-8")
    endpoint.script_for("four?", reply_error(503))
    assert run_job(folder) == 3


def load_results(folder: Path) -> pl.DataFrame:
    """Return the only run's results."""
    return pl.read_parquet(find_run_folder(folder) / "results.parquet")


def read_stale(folder: Path) -> Any:
    """Return what the only run's run.json says of stale rows."""
    return json.loads((find_run_folder(folder) / "run.json").read_text(encoding="utf-8"))["stale"]


def test_resume_asks_the_unfinished_row_only(tmp_path: Path) -> None:
    """An error that can pass is asked again; answered rows are not."""
    with FakeEndpoint(default=reply_text("yes")) as endpoint:
        start(tmp_path, endpoint)
        assert run_job(tmp_path, "--resume") == 0
        assert len(endpoint.requests) == 5
    results = load_results(tmp_path)
    assert results["status"].to_list() == ["ok"] * 4
    assert results["attempts"].to_list() == [1, 1, 1, 2]


def test_reordered_dataset_sends_nothing_twice(tmp_path: Path) -> None:
    """Rows are known by what they ask, not by where they stand; the table follows the new order."""
    with FakeEndpoint(default=reply_text("yes")) as endpoint:
        start(tmp_path, endpoint)
        write_samples(tmp_path, {"d": "four?", "c": "three?", "a": "one?", "b": "two?"})
        assert run_job(tmp_path, "--resume") == 0
        assert len(endpoint.requests) == 5
    assert load_results(tmp_path)["sample_id"].to_list() == ["d", "c", "a", "b"]


def test_edited_row_is_asked_again_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An edited sample and a new one are asked; the others keep their answers."""
    with FakeEndpoint(default=reply_text("yes")) as endpoint:
        start(tmp_path, endpoint)
        write_samples(tmp_path, {"a": "one, edited?", "b": "two?", "c": "three?", "d": "four?", "e": "five?"})
        assert run_job(tmp_path, "--resume") == 0
        assert len(endpoint.requests) == 4 + 3
    assert "changed since the run began, asked again: 1" in capsys.readouterr().err
    assert load_results(tmp_path)["sample_id"].to_list() == ["a", "b", "c", "d", "e"]


def test_changed_job_shows_the_difference(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A changed parameter asks every row again, and the key that changed is named."""
    with FakeEndpoint(default=reply_text("yes")) as endpoint:
        start(tmp_path, endpoint)
        assert run_job(tmp_path, "--resume", "--set", "models[m].params.temperature=1") == 0
        assert len(endpoint.requests) == 4 + 4
    said = capsys.readouterr().err
    assert "the job has changed since the run began (models[m].params.temperature: 0 → 1); rows asked again: 4" in said


def test_removed_row_is_kept_as_stale(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A row that the dataset lost stays in the journal, leaves the table, and is counted and listed in run.json."""
    with FakeEndpoint(default=reply_text("yes")) as endpoint:
        start(tmp_path, endpoint)
        write_samples(tmp_path, {"a": "one?", "d": "four?"})
        assert run_job(tmp_path, "--resume") == 0
        assert len(endpoint.requests) == 4 + 1
    said = capsys.readouterr()
    assert "kept in the journal and left out of the tables: 2 (of b, c)" in said.err
    assert "rows that the job no longer has, kept in the journal and left out of the tables: 2" in said.out
    report = (find_run_folder(tmp_path) / "report.md").read_text(encoding="utf-8")
    assert "2 rows that the job no longer has are kept in the journal and left out here." in report
    assert load_results(tmp_path)["sample_id"].to_list() == ["a", "d"]
    stale = read_stale(tmp_path)
    assert (stale["rows"], stale["statuses"]) == (2, {"ok": 2})
    assert [(row["sample_id"], row["prompt"], row["repeat"]) for row in stale["listed"]] == [
        ("b", "p", 0),
        ("c", "p", 0),
    ]


def test_stale_rows_keep_their_names_over_further_resumes(tmp_path: Path) -> None:
    """What an earlier call knew of a stale row is passed on, when its tables no longer hold it."""
    with FakeEndpoint(default=reply_text("yes")) as endpoint:
        start(tmp_path, endpoint)
        write_samples(tmp_path, {"new": "new?", "a": "one?", "d": "four?"})
        endpoint.script_for("four?", FakeReply(body=b"no JSON"))
        assert run_job(tmp_path, "--resume") == 3
        write_samples(tmp_path, {"d": "four?"})
        assert run_job(tmp_path, "--resume") == 0
    assert sorted(row["sample_id"] for row in read_stale(tmp_path)["listed"]) == ["a", "b", "c", "new"]


def test_row_that_comes_back_is_not_asked_again(tmp_path: Path) -> None:
    """A stale row that the dataset has again is a finished row again."""
    with FakeEndpoint(default=reply_text("yes")) as endpoint:
        start(tmp_path, endpoint)
        write_samples(tmp_path, {"new": "new?", "d": "four?"})
        endpoint.script_for("four?", FakeReply(body=b"no JSON"))
        assert run_job(tmp_path, "--resume") == 3
        assert read_stale(tmp_path)["rows"] == 3
        write_samples(tmp_path, {"a": "one?", "b": "two?", "c": "three?", "d": "four?", "new": "new?"})
        assert run_job(tmp_path, "--resume") == 0
        assert len(endpoint.requests) == 4 + 2 + 1
    assert read_stale(tmp_path) is None
    assert load_results(tmp_path)["attempts"].to_list() == [1, 1, 1, 3, 1]


def test_row_edited_back_has_its_first_answer_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What the run has answered is never paid for again: an edit that is taken back asks nothing."""
    with FakeEndpoint(default=reply_text("yes")) as endpoint:
        start(tmp_path, endpoint)
        write_samples(tmp_path, {"a": "edited?", "b": "two?", "c": "three?", "d": "four?"})
        endpoint.script_for("edited?", reply_text("the edited answer"))
        endpoint.script_for("four?", FakeReply(body=b"no JSON"))
        assert run_job(tmp_path, "--resume") == 3
        assert load_results(tmp_path)["output"].to_list()[0] == "the edited answer"
        write_samples(tmp_path, {"a": "one?", "b": "two?", "c": "three?", "d": "four?"})
        assert run_job(tmp_path, "--resume") == 0
        assert len(endpoint.requests) == 4 + 2 + 1
    assert "rows answered from this run's own journal, which had asked the same: 1" in capsys.readouterr().err
    results = load_results(tmp_path)
    assert results["output"].to_list() == ["yes"] * 4
    assert results["attempts"].to_list() == [2, 1, 1, 3]
    assert results["reused_from"].null_count() == 4
    assert pl.read_parquet(find_run_folder(tmp_path) / "attempts.parquet").height == 7


def test_refused_parameter_is_told_in_the_servers_words(tmp_path: Path) -> None:
    """A 400 is a row error after one request, and names the parameter that the server refuses."""
    refusal = reply_error(400, "not supported", code="unsupported_parameter", param="temperature")
    with FakeEndpoint(default=refusal) as endpoint:
        write_samples(tmp_path, {"a": "one?"})
        (tmp_path / "job.yaml").write_text(JOB.format(url=endpoint.base_url), encoding="utf-8")
        assert run_job(tmp_path) == 3
        assert len(endpoint.requests) == 1
    row = load_results(tmp_path).row(0, named=True)
    assert (row["status"], row["error_code"], row["http_status"]) == ("error", "bad_request", 400)
    assert "temperature" in row["error_message"]


def test_run_without_a_single_answer_passes_no_gate(tmp_path: Path) -> None:
    """A run of errors only is no verdict (exit 3), never a pass of 0 out of 0."""
    with FakeEndpoint(default=reply_error(400)) as endpoint:
        write_samples(tmp_path, {"a": "one?", "b": "two?"})
        (tmp_path / "job.yaml").write_text(JOB.format(url=endpoint.base_url) + "gate: {min_pass_rate: 0.0}\n", "utf-8")
        assert run_job(tmp_path) == 3
    results = load_results(tmp_path)
    assert results["status"].to_list() == ["error", "error"]
    assert (results["score"].null_count(), results["passed"].null_count(), results["output"].null_count()) == (2, 2, 2)


def test_resume_goes_on_with_what_the_first_call_narrowed(tmp_path: Path) -> None:
    """A resume without further words keeps the selection and changes of the first call: nothing else is asked."""
    with FakeEndpoint(default=reply_text("yes")) as endpoint:
        write_samples(tmp_path, {name: f"{name}?" for name in "abcdef"})
        (tmp_path / "job.yaml").write_text(JOB.format(url=endpoint.base_url), encoding="utf-8")
        endpoint.script_for("b?", reply_error(503))
        changed = ("--limit", "3", "--set", "models[m].params.temperature=1")
        # One after the other: an error before any answer would be taken for an outage, and asked again.
        assert run_job(tmp_path, *changed, "-j", "1") == 3
        assert run_job(tmp_path, "--resume") == 0
        assert len(endpoint.requests) == 3 + 1
    assert load_results(tmp_path)["sample_id"].to_list() == ["a", "b", "c"]


def test_resume_of_another_jobs_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run is resumed with its own job only."""
    with FakeEndpoint(default=reply_text("yes")) as endpoint:
        start(tmp_path, endpoint)
        other = tmp_path / "other.yaml"
        other.write_text((tmp_path / "job.yaml").read_text(encoding="utf-8"), encoding="utf-8")
        folder = str(find_run_folder(tmp_path))
        assert main(["run", str(other), "-o", str(tmp_path / "reports"), "--resume", folder]) == 2
        assert len(endpoint.requests) == 4
    assert "is of the job 'job', not of 'other'" in capsys.readouterr().err


def test_stopped_lane_is_named_whatever_the_models_are_called(tmp_path: Path) -> None:
    """Rows of a stopped lane say so, even when the model's name holds a comma."""
    with FakeEndpoint(default=reply_error(402)) as endpoint:
        write_samples(tmp_path, {name: f"{name}?" for name in "abcdef"})
        job = JOB.format(url=endpoint.base_url).replace("name: m,", 'name: "m, n",')
        (tmp_path / "job.yaml").write_text(job, encoding="utf-8")
        assert run_job(tmp_path) == 3
    assert set(load_results(tmp_path)["error_code"]) == {"quota", "lane_stopped"}


def test_resume_does_not_narrow_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Flags that would leave rows of the run out are refused; the same flags as at its start are not."""
    with FakeEndpoint(default=reply_text("yes")) as endpoint:
        start(tmp_path, endpoint)
        assert run_job(tmp_path, "--resume", "--limit", "2") == 2
        assert len(endpoint.requests) == 4
        assert "--limit would leave rows of it out" in capsys.readouterr().err
        assert run_job(tmp_path, "--resume") == 0


def test_resume_of_an_emptied_journal_pays_for_nothing_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """When the journal no longer holds what run.json says is done, a resume is refused."""
    with FakeEndpoint(default=reply_text("yes")) as endpoint:
        start(tmp_path, endpoint)
        for segment in (find_run_folder(tmp_path) / "journal").iterdir():
            segment.write_bytes(b"")
        assert run_job(tmp_path, "--resume") == 2
        assert len(endpoint.requests) == 4
    assert "would ask and pay for what is lost again" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "not JSON", "[]", '{"schema_version": "1"}'])
def test_damaged_manifest_does_not_stop_a_resume(tmp_path: Path, text: str) -> None:
    """The journal is the truth: a resume of a run whose run.json is damaged asks what is left, and writes it anew."""
    with FakeEndpoint(default=reply_text("yes")) as endpoint:
        start(tmp_path, endpoint)
        (find_run_folder(tmp_path) / "run.json").write_text(text, encoding="utf-8")
        assert run_job(tmp_path, "--resume") == 0
        assert len(endpoint.requests) == 5


def test_folder_of_any_name_holds_a_run(tmp_path: Path) -> None:
    """A run folder below a path with glob characters is written and read like any other."""
    folder = tmp_path / "out[1]*"
    folder.mkdir()
    with FakeEndpoint(default=reply_text("yes")) as endpoint:
        write_samples(folder, {"a": "one?"})
        (folder / "job.yaml").write_text(JOB.format(url=endpoint.base_url), encoding="utf-8")
        assert run_job(folder) == 0
    assert main(["report", str(next(folder.glob("reports/job/*")))]) == 0


@pytest.mark.parametrize("status", [200, 400, 401])
def test_key_that_the_server_echoes_is_nowhere_kept(
    tmp_path: Path, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A key in a reply, however JSON escapes its signs, is in no file of the run and not on the terminal."""
    key = "sk-canary-7Yq/zz+Qx"
    monkeypatch.setenv("CANARY", key)
    escaped = [key.replace("+", r"\u002B"), key.replace("/", r"\/"), "".join(f"\\u{ord(sign):04x}" for sign in key)]
    text = f"{key} {' '.join(escaped)}"
    if status == 200:
        body = (
            '{"choices": [{"index": 0, "message": {"role": "assistant", "content": "TEXT"}, "finish_reason": "stop"}]}'
        )
    else:
        body = '{"error": {"message": "TEXT", "code": null}}'
    reply = FakeReply(status=status, body=body.replace("TEXT", text).encode())
    with FakeEndpoint(default=reply) as endpoint:
        write_samples(tmp_path, {"a": "one?"})
        job = JOB.format(url=endpoint.base_url).replace("concurrency: 2,", "concurrency: 2, api_key_env: CANARY,")
        (tmp_path / "job.yaml").write_text(job, encoding="utf-8")
        run_job(tmp_path)
        assert endpoint.requests[0].headers["authorization"] == f"Bearer {key}"
    folder = find_run_folder(tmp_path)
    tables = [pl.read_parquet(path).write_json() for path in folder.glob("*.parquet")]
    texts = [path.read_bytes().decode(errors="replace") for path in folder.rglob("*") if path.is_file()]
    shown = capsys.readouterr()
    assert [text for text in [*tables, *texts, shown.out, shown.err] if key in text] == []


def test_journal_that_lost_its_end_is_not_paid_for_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A journal put back from an older copy that knows every row, but not as done, is refused; --repair goes on."""
    with FakeEndpoint(default=reply_text("yes")) as endpoint:
        write_samples(tmp_path, {"a": "one?", "b": "two?"})
        (tmp_path / "job.yaml").write_text(JOB.format(url=endpoint.base_url), encoding="utf-8")
        endpoint.script_for("two?", FakeReply(body=b"no JSON"))
        run_job(tmp_path)
        segment = next((tmp_path / "reports").glob("*/*/journal/000001.jsonl"))
        older = segment.read_bytes()
        run_job(tmp_path, "--resume")
        assert len(segment.read_bytes()) > len(older)
        n_sent = len(endpoint.requests)
        segment.write_bytes(older)
        folder = str(segment.parent.parent)
        capsys.readouterr()
        assert run_job(tmp_path, "--resume", folder) == 2
        assert len(endpoint.requests) == n_sent
        assert "records of its journal, which now has" in capsys.readouterr().err
        assert run_job(tmp_path, "--resume", folder, "--repair") == 0
        assert len(endpoint.requests) == n_sent + 1
