"""A grading that dies between two of its files: seen, mended on disk under the lock, and in memory without it."""

import json
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import evalrun
from evalrun.cli.main import main
from evalrun.store.folder import RunFolder
from evalrun.store.manifest import REGRADING_KEY
from tests.cli.processes import find_run_folder
from tests.cli.test_changed_job import JOB, run_job, start, write_samples
from tests.fake_endpoint import FakeEndpoint, reply_text

Capture = pytest.CaptureFixture[str]

N_RENAMES = 8
"""Files that a grading puts in place: run.json (begun), grades, results, four reports, run.json."""

GATE = "gate: {min_pass_rate: 0.5}\n"


class KilledError(BaseException):
    """Stands for the end of the process."""


@pytest.fixture(scope="module")
def graded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run that passes its gate, and a second job by whose graders it fails."""
    folder = tmp_path_factory.mktemp("graded")
    with FakeEndpoint(default=reply_text("yes")) as endpoint:
        write_samples(folder, {name: f"{name}?" for name in "abcd"})
        text = JOB.format(url=endpoint.base_url) + GATE
        (folder / "job.yaml").write_text(text, encoding="utf-8")
        (folder / "other.yaml").write_text(text.replace('value: "yes"', 'value: "no"'), encoding="utf-8")
        assert run_job(folder) == 0
    return folder


def copy(graded: Path, tmp_path: Path) -> Path:
    """Return a run folder of one's own."""
    shutil.copytree(graded, tmp_path, dirs_exist_ok=True)
    return find_run_folder(tmp_path)


def die_at_rename(n_renames: int, monkeypatch: pytest.MonkeyPatch, call: Callable[[], int]) -> None:
    """Call what renames files, in a process that dies at its n-th rename."""
    done = iter(range(1, n_renames))
    replace = Path.replace

    def die_in_time(path: Path, target: Any) -> Path:
        if next(done, None) is None:
            raise KilledError
        return replace(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", die_in_time)
        assert call() == 5


def grade_until(run: Path, n_renames: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Grade a run by the other job, in a process that dies at its n-th rename."""
    words = ["grade", str(run), "--job", str(run.parents[2] / "other.yaml")]
    die_at_rename(n_renames, monkeypatch, lambda: main(words))


def describe(run: Path) -> tuple[Any, ...]:
    """Return what a reader sees of a run: verdict, counts of passed rows by three ways, exit code."""
    loaded = evalrun.load(run)
    results, grades = loaded.results.collect(), loaded.grades.collect()
    (arm,) = loaded.summary.arms
    return (
        loaded.verdict.outcome,
        loaded.exit_code,
        loaded.manifest["verdict"]["outcome"],
        arm.pass_rate.passed,
        results["passed"].sum(),
        results.filter(pl.col("score") == 1).height,
        grades["passed"].sum(),
        results.columns[:3],
    )


def read_files(run: Path) -> dict[str, Any]:
    """Return run.json, the reports and the rows of the tables; times of gradings left out."""
    manifest = json.loads((run / "run.json").read_text("utf-8"))
    manifest.pop("graded_at", None)
    reports = {
        name: (run / name).read_text("utf-8") for name in ("report.md", "junit.xml", "summary.json", "report.html")
    }
    tables = {name: pl.read_parquet(run / name).rows() for name in ("results.parquet", "grades.parquet")}
    return {"run.json": manifest, **reports, **tables}


PASSED = ("pass", 0, "pass", 4, 4, 4, 4, ["row_id", "request_key", "run_id"])
FAILED = ("fail", 1, "fail", 0, 0, 0, 0, ["row_id", "request_key", "run_id"])


def expect(n_renames: int) -> tuple[Any, ...]:
    """Return what readers have to see: grades are the truth, and they are the second file."""
    return PASSED if n_renames <= 2 else FAILED


@pytest.mark.parametrize("n_renames", range(1, N_RENAMES + 1))
def test_crashed_grading_is_mended_by_the_next_reader(
    graded: Path, tmp_path: Path, n_renames: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever file the process died before, the next reader brings all of them in line with the grades, on disk."""
    run, whole = copy(graded, tmp_path / "crashed"), copy(graded, tmp_path / "whole")
    if n_renames > 2:
        assert main(["grade", str(whole), "--job", str(whole.parents[2] / "other.yaml")]) == 1
    grade_until(run, n_renames, monkeypatch)
    assert describe(run) == expect(n_renames)
    assert read_files(run) == read_files(whole)
    assert REGRADING_KEY not in json.loads((run / "run.json").read_text("utf-8"))


@pytest.mark.parametrize("n_renames", [1, 2, 3, 4, 8])
def test_crashed_grading_is_mended_in_memory_while_another_process_holds_the_run(
    graded: Path, tmp_path: Path, n_renames: int, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """Without the lock readers see the same, and change nothing."""
    run = copy(graded, tmp_path / "crashed")
    grade_until(run, n_renames, monkeypatch)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != ".lock"}
    with RunFolder.open(run).lock():
        assert describe(run) == expect(n_renames)
        assert main(["show", str(run), "--format", "jsonl", "--limit", "0"]) == 0
        assert main(["report", str(run), "--to", str(tmp_path / "reports")]) == 0
    passed = [json.loads(line)["passed"] for line in capsys.readouterr().out.splitlines()[-8:-4]]
    assert passed == [expect(n_renames) is PASSED] * 4
    summary = json.loads((tmp_path / "reports" / "summary.json").read_text("utf-8"))
    assert summary["verdict"]["outcome"] == expect(n_renames)[0]
    after = {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != ".lock"}
    assert after == before


def test_crashed_grading_by_another_gate_alone_is_mended(
    graded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Grades that are the same under another gate have that gate's verdict."""
    run = copy(graded, tmp_path / "crashed")
    job = run.parents[2] / "strict.yaml"
    text = (run.parents[2] / "job.yaml").read_text("utf-8")
    job.write_text(text.replace("0.5}", "0.5, max_latency_p95_s: 0.000001}"), encoding="utf-8")
    die_at_rename(N_RENAMES, monkeypatch, lambda: main(["grade", str(run), "--job", str(job)]))
    with RunFolder.open(run).lock():
        in_memory = evalrun.load(run).verdict
    assert (in_memory.outcome, evalrun.load(run).verdict) == ("fail", in_memory)
    assert json.loads((run / "run.json").read_text("utf-8"))["verdict"]["outcome"] == "fail"


def test_grading_has_as_many_files_as_are_tried(graded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The points above are all there are: a grading that may rename one file more ends by itself."""
    run = copy(graded, tmp_path / "whole")
    with pytest.raises(AssertionError, match="assert 1 == 5"):
        grade_until(run, N_RENAMES + 1, monkeypatch)


def test_list_says_that_a_grading_did_not_end(
    graded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """A verdict that is not that of the tables is not shown as one, and `show` mends it."""
    run = copy(graded, tmp_path / "crashed")
    grade_until(run, 5, monkeypatch)
    words = ["list", "--json", "-o", str(run.parents[1])]
    assert main(words) == 0
    before = json.loads(capsys.readouterr().out)["runs"][0]["state"]
    assert main(["show", str(run), "--limit", "1"]) == 0
    capsys.readouterr()
    assert main(words) == 0
    after = json.loads(capsys.readouterr().out)["runs"][0]["state"]
    assert (before, after) == ("grading unfinished", "fail")


def test_interrupted_run_stays_interrupted_when_it_is_read(graded: Path, tmp_path: Path) -> None:
    """Reading a run whose files are in line takes run.json as it is, a signal's exit code included."""
    run = copy(graded, tmp_path / "whole")
    manifest = json.loads((run / "run.json").read_text("utf-8"))
    manifest["verdict"]["exit_code"] = 130
    (run / "run.json").write_text(json.dumps(manifest), encoding="utf-8")
    assert evalrun.load(run).exit_code == 130


def test_grades_of_other_answers_are_never_put_beside_them(graded: Path, tmp_path: Path, capsys: Capture) -> None:
    """Where a resume died between its tables, new grades are not merged with old answers of the same rows."""
    run = copy(graded, tmp_path / "crashed")
    metadata = {"evalrun.schema_version": "1", "evalrun.grades_digest": "x"}
    grades = pl.read_parquet(run / "grades.parquet").with_columns(request_key=pl.lit("f" * 64))
    grades.write_parquet(run / "grades.parquet", metadata=metadata)
    for held in (nullcontext(), RunFolder.open(run).lock()):
        with held:
            assert main(["show", str(run)]) == 5
            said = capsys.readouterr().err
            assert "holds other rows" in said
            assert "--resume" in said


@pytest.mark.parametrize("n_renames", [1, 2, 3, 8])
def test_resume_that_died_while_closing_is_finished_without_sending(
    tmp_path: Path, n_renames: int, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """Whichever table or report was the last, readers see a whole state or say what to do, and a resume finishes."""
    with FakeEndpoint(default=reply_text("yes")) as endpoint:
        start(tmp_path, endpoint)
        run = find_run_folder(tmp_path)
        die_at_rename(n_renames, monkeypatch, lambda: run_job(tmp_path, "--resume", str(run)))
        n_sent = len(endpoint.requests)
        shown = main(["show", str(run), "--format", "jsonl", "--limit", "0"])
        captured = capsys.readouterr()
        rows = [json.loads(line) for line in captured.out.splitlines() if line.startswith("{")]
        assert {(row["status"], row["passed"]) for row in rows} <= {("ok", True), ("error", None)}
        assert shown == 0 or "--resume" in captured.err
        assert run_job(tmp_path, "--resume", str(run)) == 0
        assert (len(endpoint.requests), n_sent) == (5, 5)
    assert evalrun.load(run).results.collect()["passed"].to_list() == [True] * 4
