import json
from pathlib import Path

import pytest

from evalrun.errors import UsageError
from evalrun.store.folder import RunFolder
from evalrun.store.manifest import write_manifest
from evalrun.store.runs import find_run, find_unfinished, list_runs
from tests.store.fake_records import make_manifest


def _make_run(reports: Path, job_name: str, run_id: str, **counts: int) -> RunFolder:
    """Make a run; without counts it has no run.json."""
    folder = RunFolder.create(reports, job_name, run_id)
    if counts:
        write_manifest(folder, make_manifest(run_id=run_id, job_name=job_name, counts=counts))
    return folder


@pytest.fixture
def reports(tmp_path: Path) -> Path:
    """Two jobs with finished and unfinished runs, and things that are no runs."""
    reports = tmp_path / "reports"
    _make_run(reports, "maths", "20261120-100000-aaaaaa", ok=3)
    _make_run(reports, "maths", "20261121-100000-bbbbbb", ok=3)
    _make_run(reports, "maths", "20261122-100000-cccccc", ok=2, pending=1)
    _make_run(reports, "law", "20261121-110000-dddddd", ok=1)
    _make_run(reports, "law", "20261122-110000-eeeeee")
    (reports / "notes.txt").write_text("")
    (reports / "maths" / "empty").mkdir()
    (reports / "maths" / "link").symlink_to(reports / "maths" / "20261120-100000-aaaaaa")
    return reports


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("latest", "20261121-110000-dddddd"),
        ("maths", "20261121-100000-bbbbbb"),
        ("law", "20261121-110000-dddddd"),
        ("20261120", "20261120-100000-aaaaaa"),
        ("20261122-11", "20261122-110000-eeeeee"),
        ("20261122-100000-cccccc", "20261122-100000-cccccc"),
    ],
)
def test_find_run_knows_latest_jobs_and_prefixes(reports: Path, reference: str, expected: str) -> None:
    """A job and `latest` mean the newest finished run; a prefix means the one run that has it, finished or not."""
    assert find_run(reference, reports_dir=reports).run_id == expected


@pytest.mark.parametrize("name", ["", "/", "/run.json", "/results.parquet"])
def test_find_run_knows_folders_and_files_in_them(reports: Path, name: str) -> None:
    """A path to a run's folder or to a file in it is that run, wherever the reports are."""
    folder = reports / "law" / "20261121-110000-dddddd"
    (folder / "results.parquet").write_bytes(b"")
    assert find_run(f"{folder}{name}", reports_dir=Path("nowhere")) == RunFolder.open(folder)


def test_find_run_lists_the_runs_that_share_a_prefix(reports: Path) -> None:
    """An ambiguous prefix names its candidates."""
    with pytest.raises(UsageError, match=r"2 runs begin with 20261122: 20261122-110000-eeeeee, 20261122-100000-cccccc"):
        find_run("20261122", reports_dir=reports)


def test_find_run_says_which_runs_of_a_job_are_unfinished(reports: Path) -> None:
    """A job with unfinished runs only names them and how to go on."""
    _make_run(reports, "physics", "20261122-120000-ffffff", pending=1)
    with pytest.raises(UsageError, match=r"unfinished: 20261122-120000-ffffff\n.*--resume 20261122-120000-ffffff"):
        find_run("physics", reports_dir=reports)


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("math", "did you mean maths"),
        ("zzzzzz", "jobs here: law, maths; newest run: 20261122-110000-eeeeee"),
        ("", "jobs here"),
        ("x" * 5000, "jobs here"),
        ("a\x00b", "jobs here"),
    ],
)
def test_find_run_helps_when_nothing_fits(reports: Path, reference: str, words: str) -> None:
    """A wrong reference gets the nearest names, or what there is."""
    with pytest.raises(UsageError, match=words):
        find_run(reference, reports_dir=reports)


@pytest.mark.parametrize("reference", ["latest", "maths"])
def test_find_run_says_that_there_are_no_runs(tmp_path: Path, reference: str) -> None:
    """Without any run the next command is named."""
    with pytest.raises(UsageError, match="evalrun run JOB"):
        find_run(reference, reports_dir=tmp_path / "reports")


def test_find_run_refuses_a_file_that_lies_in_no_run(reports: Path) -> None:
    """A file outside of a run folder is not guessed at."""
    with pytest.raises(UsageError, match="is not in a run folder"):
        find_run(str(reports / "notes.txt"), reports_dir=reports)


def test_find_run_prefers_a_job_to_a_file_of_its_name(reports: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file in the working folder that is called like a job does not hide the job."""
    monkeypatch.chdir(reports.parent)
    Path("maths").write_text("")
    assert find_run("maths", reports_dir=reports).run_id == "20261121-100000-bbbbbb"


def test_find_unfinished_is_the_newest_of_the_job(reports: Path) -> None:
    """Runs without run.json and runs with pending rows count; other jobs do not."""
    found = [find_unfinished(name, reports) for name in ("maths", "law", "physics")]
    assert [folder and folder.run_id for folder in found] == ["20261122-100000-cccccc", "20261122-110000-eeeeee", None]


def test_find_unfinished_takes_an_error_that_can_pass(tmp_path: Path) -> None:
    """A run whose only flaw is a timeout can be resumed."""
    folder = _make_run(tmp_path, "job", "20261122-100000-aaaaaa", ok=1, error=1)
    manifest = json.loads(folder.manifest_path.read_text())
    write_manifest(folder, manifest | {"errors": {"timeout_total": 1}})
    assert find_unfinished("job", tmp_path) == folder


@pytest.mark.parametrize("content", ["{", "", "null", "[1]", '{"schema_version": "1"}', "\udcff"])
def test_list_runs_is_newest_first_and_shows_what_it_cannot_read(reports: Path, content: str) -> None:
    """Every run is listed, also one whose run.json is damaged, with the reason."""
    damaged = reports / "law" / "20261122-110000-eeeeee" / "run.json"
    damaged.write_bytes(content.encode("utf-8", "surrogateescape"))
    entries = list_runs(reports)
    assert [entry.folder.run_id[-1] for entry in entries] == ["e", "c", "d", "b", "a"]
    assert [entry.is_finished for entry in entries] == [False, False, True, True, True]
    assert "run.json is damaged" in str(entries[0].problem)
    assert list_runs(reports / "none") == []


def test_damaged_run_is_gone_on_with(tmp_path: Path) -> None:
    """A run whose run.json is damaged is not passed over by --resume: its journal makes it whole."""
    folder = _make_run(tmp_path, "job", "20261122-100000-aaaaaa", ok=3)
    folder.manifest_path.write_text("{")
    assert find_unfinished("job", tmp_path) == folder


def test_find_run_takes_names_that_no_disk_can_hold(reports: Path) -> None:
    """A reference that is too long for a file name is no path, and no crash."""
    with pytest.raises(UsageError, match="jobs here"):
        find_run("x/" * 3000, reports_dir=reports)
