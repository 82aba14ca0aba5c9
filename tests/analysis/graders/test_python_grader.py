"""Graders written in Python: what they return, what they break, and that neither reaches us."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from evalrun.analysis.graders import python_worker
from evalrun.analysis.graders.grader_set import GraderSet
from evalrun.analysis.graders.python_grader import find_source_fault
from evalrun.analysis.graders.python_place import PythonPlace
from evalrun.errors import ConfigError
from evalrun.grader_options import PythonOptions
from evalrun.records import Grade, Sample

ROW: dict[str, Any] = {
    "row_id": "r", "request_key": "k", "status": "ok", "output": "eighteen", "sample": '{"answer": "18"}',
    "sample_id": "s1", "repeat": 2,
}  # fmt: skip


def build(folder: Path, code: str, **options: Any) -> GraderSet:
    """Return the graders of a job with one python grader."""
    (folder / "check.py").write_text(code, encoding="utf-8")
    grader = PythonOptions(type="python", file="check.py", **options)
    return GraderSet([grader], [], vars_={"tone": "dry"}, place=PythonPlace(folder=folder))


def grade(folder: Path, body: str, **options: Any) -> Grade:
    """Return the grade that a function of this body gives."""
    code = "import os, sys, time, math, signal\n\ndef grade(output, sample):\n    " + body.replace("\n", "\n    ")
    (found,) = build(folder, code, **options).grade_row(ROW).grades
    return found


@pytest.mark.parametrize(
    ("body", "score", "passed"),
    [
        ("return True", 1.0, True),
        ("return False", 0.0, False),
        ("return 0.25", 0.25, True),
        ("return 0", 0.0, False),
        ("return 1", 1.0, True),
        ("return -0.0", 0.0, False),
        ("return {'score': 0.5}", 0.5, True),
        ("return {'score': 0.5, 'passed': False}", 0.5, False),
        ("return {'passed': True}", 1.0, True),
        ("return {'passed': False, 'reason': 'no'}", 0.0, False),
        ("return output == 'eighteen'", 1.0, True),
        ("return sample['answer'] == '18' and sample['sample_id'] == 's1'", 1.0, True),
        ("return sample['repeat'] == 2 and sample['vars'] == {'tone': 'dry'}", 1.0, True),
        ("import numpy\nreturn numpy.float32(0.5)", 0.5, True),
        ("import numpy\nreturn numpy.bool_(True)", 1.0, True),
    ],
)
def test_verdict_is_what_the_function_returns(tmp_path: Path, body: str, score: float, passed: bool) -> None:
    """A bool, a score or a dict of these becomes the grade."""
    found = grade(tmp_path, body)
    assert (found.score, found.passed, found.error_code) == (score, passed, None)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("return None", "it returned NoneType; return a bool, a score from 0 to 1, or a dict"),
        ("return 'yes'", "it returned str; return a bool, a score from 0 to 1, or a dict"),
        ("return math.nan", "it returned nan; a score is from 0 to 1"),
        ("return math.inf", "it returned inf; a score is from 0 to 1"),
        ("return 7", "it returned 7; a score is from 0 to 1"),
        ("return -0.1", "it returned -0.1; a score is from 0 to 1"),
        ("return {}", "it returned neither `score` nor `passed`"),
        ("return {'pass': True}", "it returned the key 'pass'; known keys: score, passed, reason"),
        ("return {'score': math.nan}", "it returned nan as `score`, which is from 0 to 1"),
        ("return {'score': '1'}", "it returned '1' as `score`, which is from 0 to 1"),
        ("return {'passed': 1}", "it returned 1 as `passed`, which is True or False"),
        ("return {n: n for n in range(10 ** 5)}", "it returned the key 0; known keys: score, passed, reason"),
        ("raise ValueError('no\\x1b[31m number')", "ValueError: no\x1b[31m number (line 4)"),
        ("raise SystemExit(3)", "SystemExit: 3 (line 4)"),
        ("sys.exit('done')", "SystemExit: done (line 4)"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt (line 4)"),
        ("return sample['nothing']", "KeyError: 'nothing' (line 4)"),
        ("bytearray(1 << 40)", "it took more memory than it may"),
        ("os._exit(3)", "grade ended its process with exit code 3"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "grade ended its process by SIGKILL"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "grade ended its process by SIGSEGV"),
        ("os.closerange(3, 9)", None),
        ("for n in range(3, 9):\n    try: os.write(n, b'\\xff' * 8)\n    except OSError: pass", None),
    ],
)
def test_what_is_no_verdict_leaves_the_answer_ungraded(tmp_path: Path, body: str, reason: str | None) -> None:
    """Whatever goes wrong in the author's code, the grade is void, with a reason, and the answer is not wrong."""
    found = grade(tmp_path, body)
    assert (found.score, found.passed, found.error_code) == (None, None, "grader_error")
    assert found.reason == (reason or found.reason)


@pytest.mark.parametrize("body", ["while True: pass", "time.sleep(60)", "os.kill(os.getpid(), signal.SIGSTOP)"])
def test_endless_call_ends_as_a_timeout(tmp_path: Path, body: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that never ends is given up, whether it computes, sleeps or stands still."""
    monkeypatch.setattr(python_worker, "CALL_LIMIT_S", 0.3)
    found = grade(tmp_path, body)
    assert (found.error_code, found.reason) == ("grader_timeout", "grade took longer than 0.3 s")


def test_next_call_is_answered_after_a_process_was_lost(tmp_path: Path) -> None:
    """One bad answer costs its own grade, no other."""
    graders = build(
        tmp_path, "import os\ndef grade(output, sample):\n    return os._exit(1) if output == 'x' else True"
    )
    found = [graders.grade_row({**ROW, "output": output}).passed for output in ("a", "x", "b", "x", "x", "c")]
    assert found == [True, None, True, None, None, True]


def test_child_that_comes_back_is_not_heard(tmp_path: Path) -> None:
    """A function that forks answers once for each call."""
    code = "import os\nn = 0\ndef grade(output, sample):\n    global n\n    n += 1\n    os.fork()\n    return n / 10"
    graders = build(tmp_path, code)
    assert [graders.grade_row({**ROW, "output": str(n)}).score for n in range(5)] == [0.1, 0.2, 0.3, 0.4, 0.5]


def test_file_that_is_always_lost_is_not_called_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After so many losses in a row the other rows are void at once: a day of time limits helps nobody."""
    monkeypatch.setattr(python_worker, "MAX_LOSSES", 2)
    graders = build(tmp_path, "import os\ndef grade(output, sample):\n    os._exit(1)")
    reasons = [graders.grade_row({**ROW, "output": str(n)}).grades[0].reason for n in range(3)]
    assert reasons[2] == "check.py is not called again: it was lost 2 times in a row"


def test_what_it_prints_goes_nowhere(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Neither the terminal nor the pipe sees what the author's code prints, by whatever way."""
    body = (
        "print('\\x1b[2J loud')\nsys.stderr.write('loud')\nos.write(1, b'loud')\nos.write(2, b'loud')\n"
        "os.system('echo loud; echo loud >&2')\nreturn sys.stdin.read() == ''"
    )
    assert grade(tmp_path, body).passed is True
    assert capfd.readouterr() == ("", "")


def test_secrets_of_the_environment_are_kept_from_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables that the job names for keys, and those that sound like secrets, are not passed on; others are."""
    for name in ("MY_LOGIN", "OPENAI_API_KEY", "HF_TOKEN", "HARMLESS"):
        monkeypatch.setenv(name, "x")
    code = (
        "import os\nNAMES = ('MY_LOGIN', 'OPENAI_API_KEY', 'HF_TOKEN', 'HARMLESS')\ndef grade(output, sample):\n"
        "    return {'passed': True, 'reason': ' '.join(n for n in NAMES if n in os.environ)}"
    )
    (tmp_path / "check.py").write_text(code, encoding="utf-8")
    place = PythonPlace(folder=tmp_path, hidden={"MY_LOGIN"})
    graders = GraderSet([PythonOptions(type="python", file="check.py")], [], vars_={}, place=place)
    assert graders.grade_row(ROW).grades[0].reason == "HARMLESS"


def test_file_beside_it_can_be_imported(tmp_path: Path) -> None:
    """The folder of the file is where it imports from, and where it stands."""
    (tmp_path / "words.py").write_text("GOOD = {'eighteen'}", encoding="utf-8")
    (tmp_path / "list.txt").write_text("eighteen", encoding="utf-8")
    code = "from words import GOOD\ndef grade(output, sample):\n    return {open('list.txt').read()} == GOOD"
    assert build(tmp_path, code).grade_row(ROW).passed is True


def test_not_and_threshold_apply_to_its_score(tmp_path: Path) -> None:
    """The keys that every grader has work on this one as well."""
    assert grade(tmp_path, "return 0.4", threshold=0.5).passed is False
    assert grade(tmp_path, "return 0.6", threshold=0.5).passed is True
    assert grade(tmp_path, "return True", not_=True).passed is False


def test_digest_changes_with_the_code(tmp_path: Path) -> None:
    """Grades of different code are told apart, and the place of the file does not matter."""
    digests = []
    for name, code in (("a", "return True"), ("b", "return True"), ("c", "return False")):
        (tmp_path / name).mkdir()
        digests.append(grade(tmp_path / name, code).grader_digest)
    assert digests[0] == digests[1] != digests[2]


def test_what_runs_is_what_was_checked(tmp_path: Path) -> None:
    """A file that changes while a run is alive changes no grade: its digest would lie."""
    graders = build(
        tmp_path, "import os\ndef grade(output, sample):\n    return os._exit(1) if output == 'x' else True"
    )
    (tmp_path / "check.py").write_text("def grade(output, sample):\n    return False", encoding="utf-8")
    assert [graders.grade_row({**ROW, "output": output}).passed for output in ("a", "x", "b")] == [True, None, True]


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("def grade(output, sample:", "it does not compile"),
        ("def grad(output, sample): ...", "there is no function `grade` at its top level; it defines grad"),
        ("x = 1", "there is no function `grade` at its top level"),
        ("async def grade(output, sample): ...", "is an async function"),
        ("def grade(output): ...", "must take two parameters: (output, sample)"),
        ("def grade(a, b, c): ...", "must take two parameters"),
        ("def grade(a, b, *, c): ...", "must take two parameters"),
        ("def grade(): ...", "must take two parameters"),
        ("grade = 1", "is nothing that can be called"),
        ("def grade(a, b): ...\nraise RuntimeError('boom')", "check.py cannot be loaded: RuntimeError: boom (line 2)"),
        ("import nowhere_to_be_found\ndef grade(a, b): ...", "ModuleNotFoundError: No module named 'nowhere_to_be_f"),
        ("import os\nos._exit(4)\ndef grade(a, b): ...", "ended its process with exit code 4 while it was loaded"),
        ("x = '\0'\ndef grade(a, b): ...", "it does not compile"),
    ],
)
def test_file_that_cannot_work_is_found_before_anything_is_sent(tmp_path: Path, code: str, message: str) -> None:
    """A file without a usable function is an error of the job, with its place."""
    with pytest.raises(ConfigError, match=r".") as caught:
        build(tmp_path, code)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "code",
    [
        "def grade(output, sample, strict=True): ...",
        "def grade(*args): ...",
        "def grade(output, /, sample=None): ...",
        "from elsewhere import grade",
        "grade = lambda output, sample: True",
        "try:\n    from fast import grade\nexcept ImportError:\n    def grade(a, b): ...",
        "class grade:\n    def __init__(self, output, sample): ...",
    ],
)
def test_function_may_come_in_any_way_that_python_knows(code: str) -> None:
    """Whatever gives the name a value at the top level will do."""
    assert find_source_fault(code, "grade") is None


def test_missing_file_is_named_with_its_place(tmp_path: Path) -> None:
    """A file that is not there is an error at the key that names it."""
    with pytest.raises(ConfigError) as caught:
        GraderSet([PythonOptions(type="python", file="no.py")], [], vars_={}, place=PythonPlace(folder=tmp_path))
    assert str(caught.value).startswith("graders.0.file: cannot read no.py: No such file or directory")


def test_data_name_no_code(tmp_path: Path) -> None:
    """A grader that stands in data runs nothing, neither when it is checked nor in a table that came from elsewhere."""
    (tmp_path / "check.py").write_text("def grade(output, sample):\n    return True", encoding="utf-8")
    own = {"type": "python", "file": "check.py"}
    graders = GraderSet([], [], vars_={}, place=PythonPlace(folder=tmp_path))
    sample = Sample(sample_id="s", row={"graders": [own]}, category=None, where="x:1", graders=(own,))
    assert [problem.message for problem in graders.check_sample(sample)] == [
        "a python grader stands in a job only (sample 's', x:1)"
    ]
    (found,) = graders.grade_row({**ROW, "sample": '{"graders": [{"type": "python", "file": "check.py"}]}'}).grades
    assert (found.error_code, "stands in a job only" in found.reason) == ("grader_error", True)


def test_inline_sample_of_a_job_may_name_code(tmp_path: Path) -> None:
    """A sample that is written in the job is the job's author's word."""
    (tmp_path / "check.py").write_text("def grade(output, sample):\n    return True", encoding="utf-8")
    own = {"type": "python", "file": "check.py"}
    graders = GraderSet([], [], vars_={}, place=PythonPlace(folder=tmp_path), inline_samples=[{"graders": [own]}])
    assert graders.grade_row({**ROW, "sample": '{"graders": [{"type": "python", "file": "check.py"}]}'}).passed is True


def test_large_output_goes_through(tmp_path: Path) -> None:
    """Ten megabytes of output, more than any pipe holds, are graded."""
    graders = build(tmp_path, "def grade(output, sample):\n    return len(output) == 10_000_000")
    assert graders.grade_row({**ROW, "output": "é" * 10_000_000}).passed is True


def test_process_ends_with_its_owner(tmp_path: Path) -> None:
    """When evalrun is killed in the middle of a call, the process does not stay: the system ends it at its time."""
    source = (
        "import os\ndef grade(output, sample):\n    open('pid', 'w').write(str(os.getpid()))\n"
        "    os.kill(os.getppid(), 9)\n    while True: pass"
    )
    code = (
        "from pathlib import Path\nfrom evalrun.analysis.graders import python_worker\n"
        "python_worker.CALL_LIMIT_S, python_worker._ALARM_SLACK_S = 0.2, 0.3\n"
        f"python_worker.PythonWorker({source!r}, Path('x.py').absolute()).call('grade', '', {{}})"
    )
    ended = subprocess.run([sys.executable, "-c", code], check=False, cwd=tmp_path, timeout=60)
    assert ended.returncode == -9
    pid = int((tmp_path / "pid").read_text())
    for _ in range(600):  # A generous guard; half a second is what it takes.
        if not is_alive(pid):
            break
        time.sleep(0.05)
    assert not is_alive(pid)


def is_alive(pid: int) -> bool:
    """Tell whether a process is at work; one that nobody has buried yet is not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(")")[-1].split()[0] != "Z"
    except FileNotFoundError:
        return os.path.exists("/proc/self/stat") is False  # noqa: PTH110 - where there is no /proc, nothing is told
