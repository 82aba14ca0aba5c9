"""One run folder, several processes: who writes is alone, who reads is never in the way."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import evalrun
from evalrun.cli.main import main
from evalrun.errors import FolderBusyError
from evalrun.store.folder import RunFolder
from tests.cli.processes import ROOT, find_run_folder, start_evalrun
from tests.cli.test_changed_job import JOB, run_job, start, write_samples
from tests.fake_endpoint import FakeEndpoint, reply_text
from tests.store.fake_records import make_folder

Capture = pytest.CaptureFixture[str]

N_LOCK_ROUNDS = 50

CONTENDER = """
import sys
from pathlib import Path
from evalrun.errors import FolderBusyError
from evalrun.store.folder import RunFolder

folder = RunFolder(Path(sys.argv[1]))
for _ in sys.stdin:  # "go"
    try:
        with folder.lock():
            print("got", flush=True)
            sys.stdin.readline()  # "release"
    except FolderBusyError:
        print("busy", flush=True)
        sys.stdin.readline()
"""


def read_states(run: Path) -> dict[Path, tuple[int, int]]:
    """Return time stamp and size of everything in a run folder."""
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in [run, *run.rglob("*")]}


SLOW = reply_text("yes", delay_s=0.5)
"""Slow enough for a second process to come by."""


def test_lock_is_given_once_to_processes_that_start_together(tmp_path: Path) -> None:
    """Of two processes that want the lock at the same moment exactly one gets it, fifty times out of fifty."""
    folder = make_folder(tmp_path)
    command = [sys.executable, "-c", CONTENDER, str(folder.path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": environment}
    with subprocess.Popen(command, **pipes) as first, subprocess.Popen(command, **pipes) as second:  # type: ignore[call-overload]
        rounds = []
        for _ in range(N_LOCK_ROUNDS):
            for process in (first, second):
                process.stdin.write("go\n")
                process.stdin.flush()
            rounds.append(sorted(process.stdout.readline().strip() for process in (first, second)))
            for process in (first, second):
                process.stdin.write("release\n")
                process.stdin.flush()
    assert rounds == [["busy", "got"]] * N_LOCK_ROUNDS


@pytest.mark.parametrize("command", ["run {job} -o {reports} --resume {run}", "grade {run}", "report {run}"])
def test_second_process_that_would_write_is_refused(tmp_path: Path, command: str, capsys: Capture) -> None:
    """While a run is held, resume, grade and report are exit 2, send nothing, change nothing and name the holder."""
    with FakeEndpoint(default=reply_text("yes")) as endpoint:
        start(tmp_path, endpoint)
        run = find_run_folder(tmp_path)
        with RunFolder.open(run).lock():
            before = read_states(run)
            words = command.format(job=tmp_path / "job.yaml", reports=tmp_path / "reports", run=run)
            capsys.readouterr()
            assert main(words.split()) == 2
            assert read_states(run) == before
        assert len(endpoint.requests) == 4
    assert f"in use by another evalrun (process {os.getpid()})" in capsys.readouterr().err


@pytest.mark.parametrize(
    "read",
    [
        lambda run: main(["show", str(run)]),
        lambda run: main(["show", str(run), "--raw", "--lanes"]),
        lambda run: main(["show", str(run), "--journal"]),
        lambda run: main(["list", "-o", str(run.parents[1])]),
        lambda run: main(["report", str(run), "--to", str(run.parents[2] / "elsewhere")]),
        lambda run: 0 if evalrun.load(run).results.collect().height == 4 else 1,
    ],
    ids=["show", "lanes", "journal", "list", "report", "load"],
)
def test_reading_a_held_run_works_and_changes_nothing(tmp_path: Path, read: Callable[[Path], int]) -> None:
    """Whoever reads needs no lock, and leaves no file and no time stamp behind."""
    with FakeEndpoint(default=reply_text("yes")) as endpoint:
        start(tmp_path, endpoint)
    run = find_run_folder(tmp_path)
    with RunFolder.open(run).lock():
        before = read_states(run)
        assert read(run) == 0
        assert read_states(run) == before


def test_run_that_is_alive_is_listed_and_its_journal_shown(tmp_path: Path, capsys: Capture) -> None:
    """Beside a run in its first call `list` and `show --journal` work; a second process is refused, sending nothing."""
    with FakeEndpoint(default=SLOW) as endpoint:
        start_slowly(tmp_path, endpoint)
        alive = start_evalrun("run", "job.yaml", cwd=tmp_path)
        while not list(tmp_path.glob("reports/*/*/journal/000001.jsonl")) or len(endpoint.requests) < 2:
            assert alive.poll() is None
            time.sleep(0.02)
        run = find_run_folder(tmp_path)
        assert main(["list", "--json", "-o", str(tmp_path / "reports")]) == 0
        states = [entry["state"] for entry in json.loads(capsys.readouterr().out)["runs"]]
        assert main(["show", str(run), "--journal", "--json"]) == 0
        kinds = {json.loads(line)["type"] for line in capsys.readouterr().out.splitlines()}
        refused = run_job(tmp_path, "--resume", str(run))
        assert (states, refused) == (["unfinished"], 2)
        assert kinds <= {"run", "started", "done", "torn"}
        assert {"run", "started"} <= kinds
        assert alive.communicate(timeout=60)[1]
        assert (alive.returncode, len(endpoint.requests)) == (0, 6)


def start_slowly(folder: Path, endpoint: FakeEndpoint) -> None:
    """Write a job of six samples for an endpoint, two of them at once."""
    write_samples(folder, {name: f"{name}?" for name in "abcdef"})
    (folder / "job.yaml").write_text(JOB.format(url=endpoint.base_url), encoding="utf-8")


def race_resumes(folder: Path, *, n_rounds: int) -> list[tuple[int, ...]]:
    """Let two processes resume one run at the same moment, and again for a run of its own; return their exit codes."""
    codes = []
    for number in range(n_rounds):
        place = folder / str(number)
        place.mkdir()
        with FakeEndpoint(default=reply_text("yes")) as endpoint:
            start(place, endpoint)
            endpoint.default = SLOW
            run = str(find_run_folder(place))
            racers = [start_evalrun("run", "job.yaml", "--resume", run, cwd=place) for _ in range(2)]
            try:
                for racer in racers:
                    racer.communicate(timeout=60)
            finally:
                for racer in racers:
                    racer.kill()
                    racer.communicate()
            codes.append(tuple(sorted(racer.returncode for racer in racers)))
            assert endpoint.count_prompts()["four?"] == 2  # The 503 of the run, and one of the two resumes.
    return codes


def test_two_resumes_that_start_together_never_both_send(tmp_path: Path) -> None:
    """The row that is left is asked once; one that comes late is refused, or finds nothing left to ask."""
    assert set(race_resumes(tmp_path, n_rounds=1)) <= {(0, 2), (0, 0)}


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_two_resumes_that_start_together_never_both_send_in_fifty_rounds(tmp_path: Path) -> None:
    """The same, fifty times."""
    assert set(race_resumes(tmp_path, n_rounds=50)) <= {(0, 2), (0, 0)}


def test_endpoint_is_not_asked_by_a_run_that_cannot_be_locked(tmp_path: Path) -> None:
    """A lock file that cannot be opened is exit 2 before anything is sent."""
    with FakeEndpoint(default=reply_text("yes")) as endpoint:
        start(tmp_path, endpoint)
        run = find_run_folder(tmp_path)
        (run / ".lock").unlink()
        (run / ".lock").mkdir()
        assert [run_job(tmp_path, "--resume", str(run)), main(["grade", str(run)]), main(["report", str(run)])] == [
            2
        ] * 3
        assert len(endpoint.requests) == 4


@pytest.mark.parametrize("more", [[], ["--lanes"]])
def test_run_in_its_first_call_is_said_to_be_running(tmp_path: Path, more: list[str], capsys: Capture) -> None:
    """Who looks too early is told which process is at work, and is not advised to resume beside it."""
    folder = make_folder(tmp_path)
    with folder.lock():
        assert main(["show", str(folder.path), *more]) == 2
    told = capsys.readouterr().err
    assert f"is still running (process {os.getpid()})" in told
    assert "--journal" in told
    assert "--resume" not in told


@pytest.mark.parametrize("more", [[], ["--lanes"]])
def test_run_that_is_gone_on_with_says_that_tables_are_older(tmp_path: Path, more: list[str], capsys: Capture) -> None:
    """What is shown beside a live resume is as it stood before; without one nothing is said."""
    with FakeEndpoint(default=reply_text("yes")) as endpoint:
        start(tmp_path, endpoint)
    run = find_run_folder(tmp_path)
    capsys.readouterr()
    with RunFolder.open(run).lock():
        assert main(["show", str(run), *more]) == 0
    assert f"process {os.getpid()} is at work in this run" in capsys.readouterr().err
    assert main(["show", str(run), *more]) == 0
    assert "at work" not in capsys.readouterr().err


def test_holder_is_found_without_taking_the_lock_from_anybody(tmp_path: Path) -> None:
    """Nobody, then this process, then nobody again; a lock that is held stays held."""
    folder = make_folder(tmp_path)
    assert folder.find_holder() is None
    with folder.lock():
        assert [folder.find_holder(), folder.find_holder()] == [str(os.getpid())] * 2
        with pytest.raises(FolderBusyError), folder.lock():
            raise AssertionError
    assert folder.find_holder() is None
