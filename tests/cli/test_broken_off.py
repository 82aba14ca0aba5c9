"""A run that broke off and was gone on with: what a reader is told of its money, its time and its rows."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from evalrun.cli.main import main
from tests.cli.processes import find_run_folder
from tests.cli.test_reuse import QUESTIONS, list_run_folders, make_job, read_manifest, run_job, write_samples
from tests.fake_endpoint import FakeEndpoint, reply_text

Capture = pytest.CaptureFixture[str]

BUDGET = "budget: {requests: 2}\n"


@pytest.fixture
def endpoint() -> Iterator[FakeEndpoint]:
    """Answer everything."""
    with FakeEndpoint(default=reply_text("yes")) as endpoint:
        yield endpoint


def break_off(folder: Path, endpoint: FakeEndpoint, *, n_lost: int) -> Path:
    """Leave a run as a kill does while the answers of its last requests are on their way; return its folder."""
    make_job(folder, endpoint, QUESTIONS)
    assert run_job(folder) == 0
    run = find_run_folder(folder)
    for path in run.glob("*.*"):
        path.unlink()
    segment = run / "journal" / "000001.jsonl"
    lines = segment.read_bytes().splitlines(keepends=True)
    done = [number for number, line in enumerate(lines) if b'"t":"done"' in line][-n_lost:]
    assert len(done) == n_lost
    segment.write_bytes(b"".join(line for number, line in enumerate(lines) if number not in done))
    return run


def test_requests_that_may_have_been_billed_unseen_are_told(
    tmp_path: Path, endpoint: FakeEndpoint, capsys: Capture
) -> None:
    """Terminal, summary.json, Markdown and HTML say how many requests were sent once more, and are no retries."""
    run = break_off(tmp_path, endpoint, n_lost=2)
    capsys.readouterr()
    assert run_job(tmp_path, "--resume") == 0
    assert read_manifest(run)["asked_again_after_doubt"] == 2
    assert "when the run broke off, and sent once more: 2 requests; what the first sending" in capsys.readouterr().out
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))["run"]
    assert (summary["n_calls"], summary["asked_again_after_doubt"], summary["in_doubt"]) == (2, 2, 0)
    for name in ("report.md", "report.html"):
        text = (run / name).read_text(encoding="utf-8")
        assert "5 attempts, 0 retries, 2 sent once more after a crash" in text, name
        assert "2 requests were in flight when the run broke off and were sent once more" in text, name
    assert "2 requests, their first cost unknown" in (run / "report.html").read_text(encoding="utf-8")


def test_time_of_a_killed_call_is_a_bound(tmp_path: Path, endpoint: FakeEndpoint, capsys: Capture) -> None:
    """The list shows the time of all calls; that of a killed one is unknown, and the sum at least as long."""
    break_off(tmp_path, endpoint, n_lost=1)
    assert run_job(tmp_path, "--resume") == 0
    capsys.readouterr()
    assert main(["list", "-o", str(tmp_path / "reports")]) == 0
    assert "≥ " in capsys.readouterr().out
    assert main(["list", "--json", "-o", str(tmp_path / "reports")]) == 0
    (entry,) = json.loads(capsys.readouterr().out)["runs"]
    assert (entry["total_wall_s"], entry["n_calls_of_unknown_time"]) == (entry["wall_s"], 1)


def test_time_of_all_calls_is_added_up(tmp_path: Path, endpoint: FakeEndpoint, capsys: Capture) -> None:
    """A run that ended twice took as long as both its calls."""
    make_job(tmp_path, endpoint, QUESTIONS, BUDGET)
    assert run_job(tmp_path) == 3
    first = read_manifest(find_run_folder(tmp_path))["wall_s"]
    assert run_job(tmp_path, "--resume", "--set", "budget.requests=9") == 0
    capsys.readouterr()
    assert main(["list", "--json", "-o", str(tmp_path / "reports")]) == 0
    (entry,) = json.loads(capsys.readouterr().out)["runs"]
    assert entry["total_wall_s"] == pytest.approx(first + entry["wall_s"])
    assert entry["n_calls_of_unknown_time"] == 0


def test_banner_tells_what_is_left_to_pay(tmp_path: Path, endpoint: FakeEndpoint, capsys: Capture) -> None:
    """Rows that are settled or taken over cost nothing more: the estimate is that of the others."""
    make_job(tmp_path, endpoint, QUESTIONS)
    assert run_job(tmp_path) == 0
    whole = capsys.readouterr().err
    assert "= 3 rows; in all about $" in whole
    write_samples(tmp_path, {**QUESTIONS, "d": "four?"})
    assert run_job(tmp_path, "--reuse", "latest") == 0
    told = capsys.readouterr().err
    assert "= 4 rows, 3 of them settled already; the other 1 about $" in told
    price = float(told.split("about $")[1].split(" ")[0])
    assert price == pytest.approx(float(whole.split("about $")[1].split(" ")[0]) / 3, rel=0.1)
    assert run_job(tmp_path, "--reuse", "latest") == 0
    assert "4 of them settled already; nothing is left to ask" in capsys.readouterr().err


def test_show_says_of_rows_why_they_have_no_answer(tmp_path: Path, endpoint: FakeEndpoint, capsys: Capture) -> None:
    """A row that was never sent is "not asked"; no line ends in a colon and nothing."""
    make_job(tmp_path, endpoint, QUESTIONS, BUDGET)
    assert run_job(tmp_path) == 3
    capsys.readouterr()
    assert main(["show", str(find_run_folder(tmp_path)), "--status", "pending"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "  budget: not asked" in lines
    assert not [line for line in lines if line != line.rstrip()]


def test_show_names_the_run_that_a_row_was_taken_from(tmp_path: Path, endpoint: FakeEndpoint, capsys: Capture) -> None:
    """In place of a time the plain view names the run that asked."""
    make_job(tmp_path, endpoint, QUESTIONS)
    assert run_job(tmp_path) == 0
    assert run_job(tmp_path, "--reuse", "latest") == 0
    first, second = list_run_folders(tmp_path)
    capsys.readouterr()
    assert main(["show", str(second)]) == 0
    assert capsys.readouterr().out.count(f"· ok · taken over from {first.name}") == 3


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--limit", "2"], "2 of 3 rows shown; --limit 0 shows all"),
        (["--limit", "3"], "3 rows shown"),
        (["--limit", "0"], "3 rows shown"),
        (["--limit", "1", "--sample", "[ab]"], "1 of 2 rows shown; --limit 0 shows all"),
        (["--limit", "1", "--failed"], "no row matches"),
    ],
)
def test_show_says_of_how_many(
    tmp_path: Path, endpoint: FakeEndpoint, more: list[str], told: str, capsys: Capture
) -> None:
    """What the limit left out is counted, filters applied; where it left out nothing, nothing is said of it."""
    make_job(tmp_path, endpoint, QUESTIONS)
    assert run_job(tmp_path) == 0
    capsys.readouterr()
    assert main(["show", str(find_run_folder(tmp_path)), *more]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == told


def test_terminal_says_no_verdict_once(tmp_path: Path, endpoint: FakeEndpoint, capsys: Capture) -> None:
    """The sign stands for the words, and the command that goes on is the last line, not JOB."""
    make_job(tmp_path, endpoint, QUESTIONS, BUDGET + "gate: {min_pass_rate: 0.9}\n")
    endpoint.default = reply_text("no")
    assert run_job(tmp_path) == 3
    out = capsys.readouterr().out
    assert out.lower().count("no verdict") == 1
    assert "run JOB" not in out
