"""Broken jobs and datasets: exit 2, a message that reads like help, and not one request."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from evalrun.cli.main import main
from tests.cli.processes import load_ledger, serve_simulator, write_job

GOOD_ROWS = '{"id": "a", "question": "1+1?", "answer": "2"}\n{"id": "b", "question": "2+2?", "answer": "4"}\n'

JOB = """\
endpoints:
  demo:
    concurrency: 4
    simulator: {url: "URL", answer_column: answer, profiles: {steady: {accuracy: 0.8, latency_ms: 1}}}
models:
  - {name: sim, model: steady}
prompts:
  - {name: plain, user: "{{ question }}"}
dataset: samples.jsonl
graders:
  - {type: contains, value: "{{ answer }}"}
"""


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A running simulator, which counts every request."""
    job = write_job(tmp_path_factory.mktemp("simulator"), url="http://127.0.0.1:1", n_samples=1)
    with serve_simulator(job) as address:
        yield address


def swap(before: str, after: str) -> str:
    """Return the good job with one text replaced."""
    assert before in JOB
    return JOB.replace(before, after)


BROKEN_JOBS = {
    "typo in a key": (swap("concurrency: 4", "concurency: 4"), "job.yaml:3:5", "did you mean `concurrency`"),
    "negative limit": (swap("concurrency: 4", "concurrency: -1"), "job.yaml:3:5", "at least 1"),
    "word for a number": (swap("concurrency: 4", "concurrency: many"), "job.yaml:3:5", "many"),
    "duplicate key": (JOB + "dataset: other.jsonl\n", "job.yaml:12", "dataset"),
    "no as a boolean": (JOB + "report: {include: no, formats: [html, pdf]}\n", "job.yaml:12", "pdf"),
    "custom tag": (swap('"{{ question }}"', '!!python/name:os.system ""'), "job.yaml:8", "tag"),
    "broken yaml": (swap("models:", "models: ["), "job.yaml", ""),
    "unknown endpoint": (swap("model: steady}", "model: steady, endpoint: dmo}"), "job.yaml:6", "demo"),
    "unknown profile": (swap("model: steady", "model: stedy"), "job.yaml:6", "steady"),
    "unknown grader": (swap("type: contains", "type: contians"), "job.yaml:11", "contains"),
    "judge without a model": (swap("type: contains", "type: judge"), "job.yaml:11", "`model` is missing"),
    "key in the clear": (swap("concurrency: 4", "headers: {Authorization: Bearer sk-abcdefghijklmnopqrstuvwxyz123456}"),
                         "job.yaml:3", "key"),
    "missing environment variable": (swap("samples.jsonl", "${EVALRUN_NO_SUCH_VARIABLE}.jsonl"), "job.yaml:9",
                                     "EVALRUN_NO_SUCH_VARIABLE"),
    "missing dataset": (swap("samples.jsonl", "sample.jsonl"), "job.yaml:9", "sample.jsonl"),
    "undefined template variable": (swap("{{ question }}", "{{ quesion }}"), "job.yaml:8", "quesion"),
    "template that does not compile": (swap("{{ question }}", "{{ question"), "job.yaml:8", "does not compile"),
    "grader with an undefined variable": (swap("{{ answer }}", "{{ anwser }}"), "job.yaml:11", "anwser"),
    "plain http to a remote host": (swap("concurrency: 4\n    simulator: {url: \"URL\", answer_column: answer, "
                                         "profiles: {steady: {accuracy: 0.8, latency_ms: 1}}}",
                                         "base_url: http://gateway.example.com/v1"), "job.yaml:3", "allow_http"),
    "budget of nothing": (JOB + "budget: {usd: 0}\n", "job.yaml:12", "greater than 0"),
    "gate of a later version": (JOB + "gate: {baseline: latest}\n", "job.yaml:12", "not in this version"),
    "two prompts of one name": (swap("dataset:", '  - {name: plain, user: "again"}\ndataset:'), "job.yaml", "plain"),
}  # fmt: skip

BROKEN_DATASETS = {
    "broken json": (GOOD_ROWS + '{"id": "c", "question": \n', "samples.jsonl:3", "JSON"),
    "duplicate id": (GOOD_ROWS + '{"id": "a", "question": "3", "answer": "3"}\n', "samples.jsonl:3", "a"),
    "empty id": (GOOD_ROWS + '{"id": "", "question": "3", "answer": "3"}\n', "samples.jsonl:3", "id"),
    "duplicate json key": (GOOD_ROWS + '{"id": "c", "id": "d", "answer": "3"}\n', "samples.jsonl:3", "id"),
    "missing column": (GOOD_ROWS + '{"id": "c", "question": "3"}\n', "samples.jsonl:3", "answer"),
    "not utf-8": (GOOD_ROWS.encode("utf-16").decode("latin-1"), "samples.jsonl", "UTF-16"),
    "no rows": ("", "samples.jsonl", "0 rows"),
    "nan": (GOOD_ROWS + '{"id": "c", "question": "3", "answer": NaN}\n', "samples.jsonl:3", "NaN"),
}  # fmt: skip


def run_broken(folder: Path, *, url: str, job: str = JOB, rows: str = GOOD_ROWS) -> int:
    """Run a job in a folder of its own; return the exit code."""
    (folder / "samples.jsonl").write_text(rows, encoding="latin-1" if rows.startswith("ÿþ") else "utf-8")
    (folder / "job.yaml").write_text(job.replace("URL", url), encoding="utf-8")
    return main(["run", str(folder / "job.yaml"), "-o", str(folder / "reports")])


def assert_refused(exit_code: int, url: str, message: str, *, where: str, what: str) -> None:
    """Assert exit 2, not one request at the simulator, and a message with its place and its matter."""
    assert (exit_code, load_ledger(url)["totals"]["requests"]) == (2, 0)
    assert where in message
    assert what in message


@pytest.mark.parametrize("name", BROKEN_JOBS)
def test_broken_job_is_refused_before_any_request(
    name: str, tmp_path: Path, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A broken job ends with exit 2, names file and line, says what is wrong, and sends nothing."""
    job, where, what = BROKEN_JOBS[name]
    exit_code = run_broken(tmp_path, url=url, job=job)
    assert_refused(exit_code, url, capsys.readouterr().err, where=where, what=what)


@pytest.mark.parametrize("name", BROKEN_DATASETS)
def test_broken_dataset_is_refused_before_any_request(
    name: str, tmp_path: Path, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A broken dataset ends with exit 2, names file and line, says what is wrong, and sends nothing."""
    rows, where, what = BROKEN_DATASETS[name]
    exit_code = run_broken(tmp_path, url=url, rows=rows)
    assert_refused(exit_code, url, capsys.readouterr().err, where=where, what=what)


def test_all_errors_are_reported_at_once(tmp_path: Path, url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Several mistakes of one file are all listed, each with its line."""
    job = JOB.replace("concurrency: 4", "concurency: 4").replace("name: plain", "nme: plain") + "repeats: 0\n"
    exit_code = run_broken(tmp_path, url=url, job=job)
    message = capsys.readouterr().err
    assert exit_code == 2
    assert [line in message for line in ("job.yaml:3:", "job.yaml:8:", "job.yaml:12:")] == [True] * 3


def test_good_job_runs(tmp_path: Path, url: str) -> None:
    """The job that the broken ones are made from is itself in order."""
    assert json.loads(GOOD_ROWS.splitlines()[0])["id"] == "a"
    assert main(["validate", str(_write_good(tmp_path, url))]) == 0


def _write_good(folder: Path, url: str) -> Path:
    (folder / "samples.jsonl").write_text(GOOD_ROWS, encoding="utf-8")
    job = folder / "job.yaml"
    job.write_text(JOB.replace("URL", url), encoding="utf-8")
    return job
