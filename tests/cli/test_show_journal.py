"""`evalrun show --journal`: every record, also of a run that is alive, killed or damaged."""

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from evalrun.cli.main import main
from evalrun.job.bodies import make_row_id
from evalrun.store.folder import RunFolder
from evalrun.store.journal_fields import RUN
from tests.cli.processes import find_run_folder
from tests.cli.test_changed_job import run_job, write_samples
from tests.cli.test_changed_job import start as start_four_samples
from tests.fake_endpoint import FakeEndpoint, reply_text

Capture = pytest.CaptureFixture[str]

GOLDEN = Path(__file__).parents[1] / "store" / "golden" / "journal-1"
RUN_ID = "20261122-120000-000001"
IN_DOUBT = make_row_id("s3", "plain", "gpt-5.1", 0)
"""The row of the golden journal that was in flight at the end."""


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    """The golden run: killed, with no tables and no run.json."""
    folder = tmp_path / "reports" / "capitals" / RUN_ID
    shutil.copytree(GOLDEN, folder / "journal")
    return folder


@pytest.fixture
def done(tmp_path: Path) -> Path:
    """A run of four samples, resumed once, with its tables."""
    with FakeEndpoint(default=reply_text("yes")) as endpoint:
        start_four_samples(tmp_path, endpoint)
        assert run_job(tmp_path, "--resume") == 0
    return find_run_folder(tmp_path)


def show(run: Path, *more: str) -> int:
    """Run `evalrun show RUN --journal`."""
    return main(["show", str(run), "--journal", *more])


def read_lines(capsys: Capture) -> list[dict[str, Any]]:
    """Return the JSON objects that were printed, one a line."""
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def damage(run: Path, line: int) -> None:
    """Flip a bit in one line of the first segment."""
    path = run / "journal" / "000001.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    lines[line - 1] = lines[line - 1].replace(b'"index"', b'"indey"')
    path.write_bytes(b"".join(lines))


def test_journal_of_a_killed_run_is_told_line_by_line(killed: Path, capsys: Capture) -> None:
    """Each record is a line with its place, and the end says what was in doubt; no table is needed."""
    assert show(killed) == 0
    lines = capsys.readouterr().out.splitlines()
    assert (
        lines[0] == "000001:1     run      a call of 8 rows begins: capitals, 2026-11-22T12:00:00+00:00, evalrun 0.1.0"
    )
    assert lines[4].split(" ", 1)[0] == "000001:5"
    assert lines[4].endswith("attempt 1: overloaded (503) try again · 10 ms")
    assert lines[5].endswith("· ok · 1 attempt · 250 ms · $0.000045")
    assert lines[16].endswith("· truncated · 2 attempts · 250 ms · cost unknown")
    assert lines[19].endswith("· ok · taken from 20261121-120000-000009 · $0.0000")
    assert lines[-1] == (
        "21 records: 2 run, 10 started, 1 attempt, 8 done; in doubt, started and nothing came after it: 1"
    )


def test_journal_of_a_live_run_is_not_in_doubt(killed: Path, capsys: Capture) -> None:
    """While a process holds the run, what has no outcome yet is in flight."""
    with RunFolder.open(killed).lock():
        assert show(killed) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith("; in flight now: 1")


def test_journal_is_one_json_object_per_record(killed: Path, capsys: Capture) -> None:
    """With --json each record stands whole, with the place where its bytes are."""
    assert show(killed, "--json") == 0
    shown = read_lines(capsys)
    assert Counter(line["type"] for line in shown) == {"run": 2, "started": 10, "attempt": 1, "done": 8}
    for line in shown:
        data = (killed / "journal" / line["segment"]).read_bytes()[line["offset"] :][: line["bytes"]]
        stored = json.loads(data)["b"]
        stored.pop("enc", None)
        assert (line["schema_version"], line["record"]) == ("1", stored)


def test_jsonl_is_the_same_as_json(killed: Path, capsys: Capture) -> None:
    """`--format jsonl` is another way of asking for lines."""
    assert show(killed, "--json") == 0
    expected = capsys.readouterr().out
    assert show(killed, "--format", "jsonl") == 0
    assert capsys.readouterr().out == expected


@pytest.mark.parametrize("reference", [IN_DOUBT, IN_DOUBT[:8], "s3/plain/gpt-5.1", "s3/plain/gpt-5.1/0"])
def test_journal_is_filtered_by_row(killed: Path, reference: str, capsys: Capture) -> None:
    """A row is named by the beginning of its id, or by the names that make it, also where no table tells names."""
    assert show(killed, "--json", "--row", reference) == 0
    shown = read_lines(capsys)
    assert [line["type"] for line in shown] == ["started", "done", "started"]
    assert {line["record"]["row_id"] for line in shown} == {IN_DOUBT}


def test_several_rows_are_shown_together(killed: Path, capsys: Capture) -> None:
    """--row may be given more than once."""
    assert show(killed, "--json", "--row", IN_DOUBT[:8], "--row", "s1/plain/gpt-5.1") == 0
    assert len({line["record"]["row_id"] for line in read_lines(capsys)}) == 2


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--row", "s3"], "--sample s3"),
        (["--row", "ffffffff"], "no record of such a row"),
        (["--sample", "s3"], "has no tables yet"),
        (["--raw"], "--raw cannot go with --journal"),
        (["--failed", "--lanes"], "--failed, --lanes cannot go with --journal"),
        (["--format", "csv"], "--format csv cannot go with --journal"),
    ],
)
def test_journal_refuses_what_it_cannot_show(killed: Path, more: list[str], words: str, capsys: Capture) -> None:
    """A row that is not there, a name that nobody knows, or an option that means nothing here is exit 2."""
    assert show(killed, *more) == 2
    assert words in capsys.readouterr().err


def test_journal_tells_names_once_there_are_tables(done: Path, capsys: Capture) -> None:
    """With tables each record carries its sample, prompt and model, and names filter."""
    assert show(done, "--json", "--sample", "d*") == 0
    shown = read_lines(capsys)
    assert [line["type"] for line in shown] == ["started", "done", "started", "done"]
    assert {(line["sample_id"], line["prompt"], line["model"], line["repeat"]) for line in shown} == {
        ("d", "p", "m", 0)
    }
    assert show(done, "--sample", "d") == 0
    assert " d · p · m · error: server_error HTTP 503: no" in capsys.readouterr().out


def test_journal_names_each_fact_of_a_call(done: Path, capsys: Capture) -> None:
    """The record of a call holds the keys that docs/journal.md names, in their order."""
    assert show(done, "--json", "--limit", "1") == 0
    (call,) = read_lines(capsys)
    assert list(call["record"]) == [field.name for field in RUN]


def test_limit_says_that_there_is_more(killed: Path, capsys: Capture) -> None:
    """A limit cuts the records off and says so; without one all are shown."""
    assert show(killed, "--limit", "3") == 0
    lines = capsys.readouterr().out.splitlines()
    assert (len(lines), lines[-1]) == (5, "3 records: 1 run, 2 started, 0 attempt, 0 done; --limit 0 shows all")
    assert show(killed, "--limit", "0") == 0
    assert len(capsys.readouterr().out.splitlines()) == 23


def test_full_shows_each_record_whole(killed: Path, capsys: Capture) -> None:
    """--full prints the record below its line, raw reply included."""
    assert show(killed, "--full", "--row", IN_DOUBT) == 0
    assert '"message\\":\\"try again' in capsys.readouterr().out


def test_torn_tail_is_shown_and_no_error(killed: Path, capsys: Capture) -> None:
    """Bytes behind the last record are told with their place; a run that is being written has them, too."""
    path = killed / "journal" / "000002.jsonl"
    size = path.stat().st_size
    with path.open("ab") as journal:
        journal.write(b'{"v":1,"t":"do')
    assert show(killed) == 0
    assert f"torn     14 bytes at byte {size:,} that prove nothing" in capsys.readouterr().out
    assert path.stat().st_size == size + 14


def test_damage_is_shown_between_good_records(killed: Path, capsys: Capture) -> None:
    """Every good record is shown around a damaged one, which is named; the exit code is that of a damaged disk."""
    damage(killed, 6)
    assert show(killed, "--json") == 5
    captured = capsys.readouterr()
    shown = [json.loads(line) for line in captured.out.splitlines()]
    assert [(line["segment"], line["line"]) for line in shown if line["type"] == "damaged"] == [("000001.jsonl", 6)]
    assert (len(shown), [line["record"] for line in shown if line["type"] == "damaged"]) == (21, [None])
    assert "--repair" in captured.err


def test_reading_changes_nothing(killed: Path) -> None:
    """Neither the view nor a refused one leaves a file, a lock or another time stamp behind."""
    damage(killed, 6)
    before = {path: path.stat().st_mtime_ns for path in [killed, *killed.rglob("*")]}
    show(killed)
    show(killed, "--json", "--row", "ffffffff")
    assert {path: path.stat().st_mtime_ns for path in [killed, *killed.rglob("*")]} == before


def test_journal_of_a_newer_version_is_refused_in_clear_words(killed: Path, capsys: Capture) -> None:
    """What a newer evalrun wrote is named as such, with what to do."""
    path = killed / "journal" / "000001.jsonl"
    path.write_bytes(path.read_bytes().replace(b'{"v":1,', b'{"v":2,'))
    assert show(killed) == 5
    assert "journal of version 2, this evalrun reads version 1" in capsys.readouterr().err


def test_newer_journal_is_not_resumed(tmp_path: Path, capsys: Capture) -> None:
    """A resume of a run that a newer evalrun wrote is exit 2, sends nothing and leaves every byte."""
    with FakeEndpoint(default=reply_text("yes")) as endpoint:
        start_four_samples(tmp_path, endpoint)
        path = find_run_folder(tmp_path) / "journal" / "000001.jsonl"
        newer = path.read_bytes().replace(b'{"v":1,', b'{"v":2,')
        path.write_bytes(newer)
        assert run_job(tmp_path, "--resume") == 2
        assert len(endpoint.requests) == 4
    assert path.read_bytes() == newer
    assert "update evalrun" in capsys.readouterr().err


def test_row_is_named_alike_beside_the_tables(done: Path, capsys: Capture) -> None:
    """`show --row` without --journal takes the same words."""
    assert main(["show", str(done), "--row", "d/p/m", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["sample_id"] for row in rows] == ["d"]
    assert main(["show", str(done), "--row", "x/p/m"]) == 2


def test_text_of_a_server_cannot_steer_the_terminal(tmp_path: Path, capsys: Capture) -> None:
    """An escape in a sample's id or in a reply is shown as one."""
    with FakeEndpoint(default=reply_text("\x1b]52;c;aGk=\x07")) as endpoint:
        start_four_samples(tmp_path, endpoint)
        write_samples(tmp_path, {"a\x1b[2J": "one?"})
        run_job(tmp_path)
    newest = max(tmp_path.glob("reports/job/*"))
    assert show(newest, "--full") == 0
    assert "\x1b" not in capsys.readouterr().out
