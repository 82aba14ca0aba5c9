"""`plan --explain` says in what a request differs from the older run's, and why a row is asked."""

import json
from pathlib import Path
from typing import Any

import pytest

from evalrun.cli.main import main
from tests.cli.test_reuse import list_run_folders, run_job, write_samples
from tests.fake_endpoint import FakeEndpoint, reply_error, reply_text

JOB = """\
endpoints:
  gateway:
    base_url: "${{BASE_URL}}"
    concurrency: 4
    retry: {{max_attempts: 1}}
    headers: {{X-Team: red}}
models:
  - {{name: org/m, model: wire-m, params: {{temperature: 0}}}}
prompts:
  - name: p
    messages:
      - {{role: system, content: "Answer yes or no and nothing else at all, whatever the question is. {rule}"}}
      - {{role: user, content: "{{{{ question }}}}"}}
dataset: samples.jsonl
graders:
  - {{type: contains, value: "yes"}}
"""


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Serve the answers; the job finds the server by a variable."""
    with FakeEndpoint(default=reply_text("yes")) as server:
        monkeypatch.setenv("BASE_URL", server.base_url)
        yield server


@pytest.fixture
def folder(tmp_path: Path, endpoint: FakeEndpoint) -> Path:
    """Return the folder of a job that has run once: b has no answer, c is gone since, d is new."""
    write_job(tmp_path)
    write_samples(tmp_path, {"a": "one?", "b": "two?", "c": "three?"})
    endpoint.script_for("two?", reply_error(402))
    assert run_job(tmp_path) == 3
    write_samples(tmp_path, {"a": "one?", "b": "two?", "d": "four?"})
    return tmp_path


def write_job(folder: Path, rule: str = "Be brief.", old: str = "", new: str = "") -> None:
    """Write the job, with one text replaced."""
    (folder / "job.yaml").write_text(JOB.format(rule=rule).replace(old, new), encoding="utf-8")


def explain(folder: Path, row: str, capsys: pytest.CaptureFixture[str], *more: str) -> list[dict[str, Any]]:
    """Return the explanations of a row."""
    capsys.readouterr()
    plan = ["plan", str(folder / "job.yaml"), "-o", str(folder / "reports"), "--explain", row, "--json", *more]
    assert main(plan) == 0
    rows: list[dict[str, Any]] = json.loads(capsys.readouterr().out)["rows"]
    return rows


@pytest.mark.parametrize(
    ("row", "verdict", "why"),
    [
        ("a", "reused", "asked the same: ok"),
        ("a/p/org/m/0", "reused", "--reuse takes it over"),
        ("b/p", "unanswered", "asked the same without an answer (quota)"),
        ("c", "gone", "no longer has it"),
        ("d", "never_asked", "the sample is new"),
    ],
)
def test_explain_tells_what_became_of_a_row(
    folder: Path, row: str, verdict: str, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Answered, unanswered, gone and new rows are told apart."""
    (explained,) = explain(folder, row, capsys)
    assert explained["verdict"] == verdict
    assert why in explained["why"]
    assert explained["run_id"] == list_run_folders(folder)[0].name
    assert explained["differences"] == []


@pytest.mark.parametrize(
    ("old", "new", "path", "before", "after"),
    [
        ("temperature: 0", "temperature: 0.5", "params.temperature", 0, 0.5),
        ("temperature: 0", "temperature: 0, seed: 7", "params.seed", None, 7),
        ("wire-m", "wire-n", "model", "wire-m", "wire-n"),
        ("X-Team: red", "X-Team: blue", "target.headers.X-Team", "red", "blue"),
        ("Be brief.", "Be long.", "messages[0].content", None, None),
        ('"{{ question }}"', '"Q: {{ question }}"', "messages[1].content", "one?", "Q: one?"),
    ],
)
def test_explain_names_the_part_that_differs(
    folder: Path, old: str, new: str, path: str, before: Any, after: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each part of a request is named by itself, with both values, and nothing else is."""
    write_job(folder, old=old, new=new)
    (explained,) = explain(folder, "a", capsys)
    assert explained["verdict"] == "differs"
    (difference,) = explained["differences"]
    assert difference["path"] == path
    if before is not None:
        assert difference["before"] == before
    if after is not None:
        assert difference["after"] == after


def test_explain_names_what_the_job_does_not_show(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """When the body is the same and the job too, the target must differ by a variable, and that is said."""
    monkeypatch.setenv("BASE_URL", "http://127.0.0.1:9/elsewhere")
    (explained,) = explain(folder, "a", capsys)
    assert (explained["verdict"], explained["differences"]) == ("differs", [])
    assert "same body to another target: a variable" in explained["why"]


def test_explain_shows_a_short_difference_in_words(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On the terminal long texts are cut to what surrounds their first difference."""
    write_job(folder, rule="Be long.")
    plan = ["plan", str(folder / "job.yaml"), "-o", str(folder / "reports"), "--explain", "a"]
    assert main(plan) == 0
    shown = capsys.readouterr().out
    assert 'messages[0].content: "…question is. Be brief." → "…question is. Be long."' in shown
    assert "a · p · org/m · repeat 0 · row " in shown


def test_explain_finds_a_row_by_its_id(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The start of a row_id means its row."""
    (by_name,) = explain(folder, "a", capsys)
    assert explain(folder, by_name["row_id"][:10], capsys) == [by_name]


def test_explain_of_a_killed_run_tells_what_its_job_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without tables the texts are unknown; the journal still knows the job, and what was answered."""
    (run,) = list_run_folders(folder)
    for path in run.glob("*.*"):
        path.unlink()
    assert explain(folder, "a", capsys)[0]["verdict"] == "reused"
    write_job(folder, old="temperature: 0", new="temperature: 1")
    (explained,) = explain(folder, "a", capsys)
    assert explained["differences"] == [{"path": "models[org/m].params.temperature", "before": 0, "after": 1}]
    assert "the run has not ended" in explained["why"]


def test_explain_without_an_older_run_says_so(
    tmp_path: Path, endpoint: FakeEndpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    """A job that never ran has asked nothing."""
    write_job(tmp_path)
    write_samples(tmp_path, {"a": "one?"})
    (explained,) = explain(tmp_path, "a", capsys)
    assert (explained["verdict"], explained["run_id"]) == ("never_asked", None)
    assert endpoint.requests == []


def test_explain_of_an_unknown_row_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A row that nobody has is exit 2, with the forms that a row may have."""
    assert main(["plan", str(folder / "job.yaml"), "-o", str(folder / "reports"), "--explain", "zzz"]) == 2
    assert "SAMPLE/PROMPT/MODEL/REPEAT" in capsys.readouterr().err
