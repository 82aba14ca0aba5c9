"""Run folders that were moved, are not ours to write, or hold what evalrun did not write there."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import polars as pl
import pytest

import evalrun
from evalrun.cli.main import main
from tests.cli.processes import ROOT, find_run_folder
from tests.cli.test_changed_job import run_job, start
from tests.fake_endpoint import FakeEndpoint, reply_text

Capture = pytest.CaptureFixture[str]

READ_ONLY = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$@"'
NOBODY = 65534


@pytest.fixture
def endpoint() -> Iterator[FakeEndpoint]:
    """An endpoint that answers."""
    with FakeEndpoint(default=reply_text("yes")) as endpoint:
        yield endpoint


MANY_CALLS = """
import contextlib, io, json, sys
from evalrun.cli.main import main

ended = []
for words in json.loads(sys.argv[1]):
    output, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        code = main(words)
    ended.append([code, output.getvalue(), errors.getvalue()])
print(json.dumps(ended))
"""


class Ended(NamedTuple):
    """How one command line ended."""

    code: int
    output: str
    errors: str


def run_in(prefix: Sequence[str], *calls: Sequence[str], code: str = MANY_CALLS, cwd: Path = ROOT) -> list[Ended]:
    """Run several command lines of evalrun, one after the other, in one process that a prefix starts."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}
    words = [*prefix, sys.executable, "-c", code, json.dumps(calls)]
    done = subprocess.run(words, capture_output=True, text=True, cwd=cwd, env=environment, check=False)
    if done.returncode and "Traceback" not in done.stderr:
        pytest.skip(f"this system does not let root do that: {done.stderr}")
    assert done.returncode == 0, done.stderr
    return [Ended(*facts) for facts in json.loads(done.stdout)]


def make_read_only(folder: Path) -> list[str]:
    """Return what starts a process for which a folder is on a read-only file system."""
    if os.geteuid() or shutil.which("unshare") is None:
        pytest.skip("only root may mount")
    return ["unshare", "-m", "sh", "-c", READ_ONLY, str(folder)]


def make_powerless() -> list[str]:
    """Return what starts a process of root that may not pass over the permissions of others' files."""
    if os.geteuid() or shutil.which("setpriv") is None:
        pytest.skip("only root can give files to another user")
    return ["setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner,-chown"]


@pytest.mark.parametrize("how", ["moved", "copied", "renamed"])
def test_run_goes_on_wherever_its_folder_is(tmp_path: Path, endpoint: FakeEndpoint, how: str) -> None:
    """A folder that was moved, copied or renamed is resumed by its path; only what was left is sent."""
    start(tmp_path, endpoint)
    run = find_run_folder(tmp_path)
    target = {"moved": tmp_path / "disk" / run.name, "copied": tmp_path / "copy", "renamed": run.with_name("my run")}[
        how
    ]
    target.parent.mkdir(exist_ok=True)
    if how == "copied":
        shutil.copytree(run, target)
    else:
        run.rename(target)
    assert run_job(tmp_path, "--resume", str(target)) == 0
    assert len(endpoint.requests) == 5
    assert evalrun.load(target).results.collect()["status"].to_list() == ["ok"] * 4
    assert json.loads((target / "run.json").read_text("utf-8"))["run_id"] == target.name


def test_copy_and_original_are_two_runs(tmp_path: Path, endpoint: FakeEndpoint) -> None:
    """A lock and a journal are not shared with a copy: each can be gone on with by itself."""
    start(tmp_path, endpoint)
    run = find_run_folder(tmp_path)
    shutil.copytree(run, tmp_path / "copy")
    assert [run_job(tmp_path, "--resume", str(folder)) for folder in (tmp_path / "copy", run)] == [0, 0]
    assert len(endpoint.requests) == 4 + 2


def test_read_only_run_is_shown_reported_and_loaded(tmp_path: Path, endpoint: FakeEndpoint) -> None:
    """On a read-only file system everything that reads works; what would write is exit 2 with the way out."""
    start(tmp_path, endpoint)
    run, job, elsewhere = find_run_folder(tmp_path), str(tmp_path / "job.yaml"), tmp_path / "elsewhere"
    reports = run.parents[1]
    readers = [
        ["show", str(run)],
        ["show", run.name, "-o", str(reports)],
        ["show", str(run), "--journal"],
        ["list", "-o", str(reports)],
        ["report", str(run), "--to", str(elsewhere)],
    ]
    writers = [
        ["report", str(run)],
        ["grade", str(run), "--job", job],
        ["run", job, "--resume", str(run)],
        ["run", job, "-o", str(reports)],
    ]
    ended = run_in(make_read_only(reports), *readers, *writers)
    assert [(end.code, end.errors) for end in ended[: len(readers)]] == [(0, "")] * len(readers)
    assert (elsewhere / "report.md").read_bytes() == (run / "report.md").read_bytes()
    refused = [(end.code, "read-only" in end.errors.lower()) for end in ended[len(readers) :]]
    assert refused == [(2, True)] * len(writers)
    assert len(endpoint.requests) == 4


def test_read_only_run_whose_grading_died_is_read_as_mended(tmp_path: Path, endpoint: FakeEndpoint) -> None:
    """Where nothing can be written, results that are older than their grades are mended in what is shown."""
    start(tmp_path, endpoint)
    run = find_run_folder(tmp_path)
    grades = pl.read_parquet(run / "grades.parquet").with_columns(passed=pl.lit(value=False), score=pl.lit(0.0))
    grades.write_parquet(run / "grades.parquet", metadata={"evalrun.schema_version": "1", "evalrun.grades_digest": "x"})
    before = (run / "results.parquet").read_bytes()
    (shown,) = run_in(make_read_only(run), ["show", str(run), "--format", "jsonl"])
    rows = [json.loads(line) for line in shown.output.splitlines()]
    assert {(row["status"], row["passed"]) for row in rows} == {("ok", False), ("error", None)}
    assert (run / "results.parquet").read_bytes() == before


def test_run_of_another_user_is_neither_written_nor_read(tmp_path: Path, endpoint: FakeEndpoint) -> None:
    """Another user's folder is exit 2 before anything is sent, and no crash for whoever lists or names it."""
    start(tmp_path, endpoint)
    run, job, reports = find_run_folder(tmp_path), str(tmp_path / "job.yaml"), str(tmp_path / "reports")
    powerless = make_powerless()
    for path in (tmp_path / "reports", run.parent):
        path.chmod(0o755)
    for path in (tmp_path / "reports", run.parent, run, *run.rglob("*")):
        os.chown(path, NOBODY, NOBODY)
    denied = [
        ["run", job, "-o", reports],
        ["run", job, "-o", reports, "--resume", str(run)],
        ["show", str(run)],
        ["grade", str(run / "run.json")],
        ["show", str(run), "--journal"],
    ]
    ended = run_in(powerless, *denied, ["show", "latest", "-o", reports], ["list", "-o", reports])
    assert [(end.code, "ermission denied" in end.errors) for end in ended[: len(denied)]] == [(2, True)] * len(denied)
    assert [end.code for end in ended[len(denied) :]] == [2, 0]
    assert len(endpoint.requests) == 4


LONG = "x" * 300
DEEP = "/".join(["y" * 200] * 25)


@pytest.mark.parametrize(
    "words",
    [
        ["run", "{job}", "-o", LONG],
        ["run", "{job}", "-o", DEEP],
        ["run", "{job}", "--resume", "-o", LONG],
        ["run", "{job}", "--resume", DEEP],
        ["run", "{job}", "--set", f"dataset={LONG}"],
        ["run", "{job}", "--env-file", LONG],
        ["run", LONG],
        ["validate", DEEP],
        ["plan", "{job}", "--set", f"files_root={DEEP}"],
        ["show", LONG],
        ["show", "latest", "-o", LONG],
        ["list", "-o", DEEP],
        ["grade", DEEP],
        ["report", "{run}", "--to", LONG],
        ["init", LONG],
    ],
    ids=lambda words: " ".join(word[:8] for word in words),
)  # fmt: skip
def test_path_that_is_too_long_is_found_before_sending(
    tmp_path: Path, endpoint: FakeEndpoint, words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """A name that no disk can hold is exit 2 with words, wherever it stands, and nothing is sent."""
    start(tmp_path, endpoint)
    monkeypatch.chdir(tmp_path)
    run = find_run_folder(tmp_path)
    capsys.readouterr()
    assert main([word.format(job="job.yaml", run=run) for word in words]) == 2
    assert "defect" not in capsys.readouterr().err
    assert len(endpoint.requests) == 4


def test_run_folder_without_room_for_its_own_names_is_refused(tmp_path: Path, endpoint: FakeEndpoint) -> None:
    """A reports folder that is just short enough, so that tables would no longer fit below it, is exit 2, too."""
    limit = os.pathconf("/", "PC_PATH_MAX")
    codes = set()
    for n_spare in (40, 70, 100, 130, 160):
        place = tmp_path
        while (room := limit - len(str(place)) - n_spare) > 0:
            place = place / ("z" * min(room, 200))
        start(tmp_path, endpoint) if not (tmp_path / "job.yaml").exists() else None
        codes.add(main(["run", str(tmp_path / "job.yaml"), "-o", str(place)]))
    assert codes == {2, 0}


EMFILE = """
import os, sys
import evalrun.cli.list_command as module
from evalrun.cli.main import main

def use_up_all_files(**_):
    while True:
        os.open("/dev/null", os.O_RDONLY)

module.command.callback = use_up_all_files
sys.exit(main(["list"]))
"""


def test_defect_is_told_also_when_no_file_can_be_opened(tmp_path: Path) -> None:
    """A process that ran out of files exits 5 and tells on the terminal what it would have written to one."""
    command = ["sh", "-c", 'ulimit -n 64 && exec "$@"', "sh", sys.executable, "-c", EMFILE]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
    assert done.returncode == 5
    assert "Too many open files" in done.stderr
    assert "Traceback (most recent call last)" in done.stderr
    assert "During handling" not in done.stderr


@pytest.mark.parametrize("content", ["{", "{}", '{"schema_version": "1", "counts": [1]}'])
def test_damaged_run_json_is_listed_and_mended_by_a_resume(
    tmp_path: Path, endpoint: FakeEndpoint, content: str, capsys: Capture
) -> None:
    """`list` shows the run as damaged and goes on; a resume sends what is left only and writes run.json anew."""
    start(tmp_path, endpoint)
    run = find_run_folder(tmp_path)
    (run / "run.json").write_text(content, encoding="utf-8")
    capsys.readouterr()
    reports = str(run.parents[1])
    assert main(["list", "-o", reports]) == 0
    listed = capsys.readouterr()
    assert (" damaged " in listed.out, "run.json is damaged" in listed.err) == (True, True)
    assert main(["list", "-o", reports, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["runs"][0]["state"] == "damaged"
    assert main(["show", str(run)]) == 5
    assert "--resume" in capsys.readouterr().err
    assert run_job(tmp_path, "--resume") == 0
    assert len(endpoint.requests) == 5
    assert evalrun.load(run).results.collect()["status"].to_list() == ["ok"] * 4
