"""Python graders in a job, from the command line: found before sending, kept out of data, and never in the way."""

import json
from pathlib import Path

import pytest

import evalrun
from tests.cli.calls import call_evalrun

JOB = """\
endpoints: {demo: {simulator: {answer: "{{ answer }}", profiles: {sim: {accuracy: 1}}}}}
models: [{name: sim}]
prompts: [{name: p, user: "{{ question }}"}]
dataset: samples.jsonl
"""
GRADERS = "graders: [{type: python, file: checks/check.py, function: is_right}]\n"
CODE = """\
import os

def is_right(output, sample):
    if sample["id"] == "1":
        os._exit(9)
    if sample["id"] == "2":
        raise ValueError("\\x1b[31mnot mine")
    return output == sample["answer"]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a job, four samples and a grader."""
    rows = [{"id": str(n), "question": f"{n}?", "answer": f"it is {n}"} for n in range(4)]
    (tmp_path / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (tmp_path / "job.yaml").write_text(JOB + GRADERS, encoding="utf-8")
    (tmp_path / "checks").mkdir()
    (tmp_path / "checks" / "check.py").write_text(CODE, encoding="utf-8")
    return tmp_path


def test_void_grades_leave_the_others_and_every_answer(folder: Path) -> None:
    """A grader that dies on one answer and raises on another grades the rest; no answer is lost or wrong for it."""
    called = call_evalrun("run", "job.yaml", "--no-gate", cwd=folder)
    assert (called.returncode, "\x1b" in called.stdout + called.stderr) == (0, False)
    run = evalrun.load("job", reports_dir=folder / "reports")
    assert run.results.select("output", "passed").collect().rows() == [
        ("it is 0", True), ("it is 1", None), ("it is 2", None), ("it is 3", True)
    ]  # fmt: skip
    assert run.grades.select("error_code").collect().to_series().to_list() == [
        None,
        "grader_error",
        "grader_error",
        None,
    ]
    assert run.summary.arms[0].n_ungraded == 2


def test_changed_code_grades_again_under_another_digest(folder: Path) -> None:
    """`evalrun grade` takes the file as it is now, and asks nothing."""
    call_evalrun("run", "job.yaml", "--no-gate", cwd=folder)
    before = evalrun.load("job", reports_dir=folder / "reports").grades.select("grader_digest").collect()
    (folder / "checks" / "check.py").write_text("def is_right(output, sample):\n    return 0.5", encoding="utf-8")
    assert call_evalrun("grade", "job", cwd=folder).returncode == 0
    run = evalrun.load("job", reports_dir=folder / "reports")
    after = run.grades.select("grader_digest", "score").collect()
    assert set(after["score"]) == {0.5}
    assert set(after["grader_digest"]).isdisjoint(before["grader_digest"])


@pytest.mark.parametrize(
    ("graders", "code", "told"),
    [
        (GRADERS.replace("check.py", "chek.py"), CODE, "did you mean `check.py`?"),
        (GRADERS, CODE.replace("sample):", "sample:"), "check.py:3: it does not compile"),
        (GRADERS, CODE.replace("is_right", "is_rihgt"), "no function `is_right` at its top level; it defines is_rihgt"),
        (GRADERS, "raise OSError('no model')\n" + CODE, "check.py cannot be loaded: OSError: no model (line 1)"),
        (GRADERS.replace("function", "funktion"), CODE, "did you mean `function`?"),
        ("graders: [{type: python}]\n", CODE, "`file` is missing"),
    ],
)
@pytest.mark.parametrize("command", ["validate", "run"])
def test_unusable_code_is_exit_2_before_anything_is_sent(
    folder: Path, command: str, graders: str, code: str, told: str
) -> None:
    """A file, function or key that is wrong is told with its place; no run folder is made."""
    (folder / "job.yaml").write_text(JOB + graders, encoding="utf-8")
    (folder / "checks" / "check.py").write_text(code, encoding="utf-8")
    called = call_evalrun(command, "job.yaml", cwd=folder)
    assert (called.returncode, told in called.stderr, called.stderr) == (2, True, called.stderr)
    assert not (folder / "reports").exists()


def test_dataset_file_names_no_code(folder: Path) -> None:
    """A python grader in a dataset file is exit 2, with its line."""
    row = {"id": "x", "question": "?", "answer": "!", "graders": [{"type": "python", "file": "checks/check.py"}]}
    (folder / "samples.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    called = call_evalrun("run", "job.yaml", cwd=folder)
    assert (called.returncode, "samples.jsonl:1: `graders[0]` runs code" in called.stderr) == (2, True)


def test_inline_sample_names_code_beside_the_job(folder: Path) -> None:
    """A sample that stands in the job may have a python grader of its own, and keeps it when it is graded again."""
    grader = "{type: python, file: checks/check.py, function: is_right}"
    sample = f"samples: [{{id: s, question: q, answer: a, graders: [{grader}]}}]\n"
    (folder / "job.yaml").write_text(JOB.replace("dataset: samples.jsonl\n", sample), encoding="utf-8")
    for command in ("run", "grade"):
        assert call_evalrun(command, "job.yaml" if command == "run" else "job", cwd=folder).returncode == 0
        assert evalrun.load("job", reports_dir=folder / "reports").summary.arms[0].pass_rate.passed == 1


def test_keys_that_the_job_names_are_kept_from_the_code(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables of `api_key_env` and `header_env` are not in the environment of a grader, whatever they are called."""
    code = (
        "import os\ndef is_right(output, sample):\n"
        "    return {name for name in os.environ if name.startswith('PLAIN_')} == {'PLAIN_C'}"
    )
    (folder / "checks" / "check.py").write_text(code, encoding="utf-8")
    other = 'x: {base_url: "https://api.example.com/v1", api_key_env: PLAIN_A, header_env: {X-Team: PLAIN_B}}'
    job = JOB.replace("endpoints: {demo", f"endpoints: {{{other}, demo").replace(
        "[{name: sim}]", "[{name: sim, endpoint: demo}]"
    )
    (folder / "job.yaml").write_text(job + GRADERS, encoding="utf-8")
    for name in ("PLAIN_A", "PLAIN_B", "PLAIN_C"):
        monkeypatch.setenv(name, "x")
    assert call_evalrun("run", "job.yaml", cwd=folder).returncode == 0
    assert evalrun.load("job", reports_dir=folder / "reports").summary.arms[0].pass_rate.passed == 4
