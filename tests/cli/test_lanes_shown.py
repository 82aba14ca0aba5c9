"""`evalrun show --lanes`: why a run was slow, in words and as JSON, over all its calls."""

import json
import time
from pathlib import Path

import pytest

from evalrun.cli.main import main
from tests.cli.calls import call_evalrun
from tests.cli.processes import find_run_folder, start_evalrun
from tests.fake_endpoint import FakeEndpoint, reply_error, reply_text

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run whose lane has waited for most of the time."""
    assert main(["init", str(tmp_path)]) == 0
    assert main(["run", str(tmp_path / "job.yaml"), "-o", str(tmp_path / "reports"), "--progress", "none"]) == 0
    folder = find_run_folder(tmp_path)
    manifest = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    manifest["lanes"][0] |= {
        "wall_s": 100.0,
        "waited_s": {"tokens_per_minute": 61.0},
        "history": [{"at_s": 1.0, "what": "tokens_per_minute", "value": 90_000.0}],
        "rate_limited": 3,
    }
    (folder / "run.json").write_text(json.dumps(manifest), encoding="utf-8")
    return folder


def test_lanes_are_told_in_words(run: Path, capsys: Capture) -> None:
    """Figures in a table, then what held each lane, and what would help."""
    capsys.readouterr()
    assert main(["show", str(run), "--lanes"]) == 0
    text = capsys.readouterr().out
    assert "SIMULATED" in text
    assert "61 % of the time waiting for tokens per minute (limit 90,000 from headers); 3 × 429" in text
    assert "advice: a smaller `max_completion_tokens`" in text
    assert "call 1" not in text


def test_lanes_are_told_as_json(run: Path, capsys: Capture) -> None:
    """A program gets what run.json holds of each lane, with the words."""
    capsys.readouterr()
    assert main(["show", str(run), "--lanes", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    lane = told["lanes"][0]
    assert (told["run_id"], told["simulated"]) == (run.name, True)
    assert lane["waited_share"] == {"tokens_per_minute": 0.61}
    assert lane["sentence"].startswith("61 % of the time waiting for tokens per minute")
    assert lane["waited_s"] == {"tokens_per_minute": 61.0}


def test_run_json_holds_each_lane_and_the_log_its_events(run: Path) -> None:
    """A run leaves its lanes' times and limits, and an event log that only its owner reads."""
    manifest = json.loads((run / "run.json").read_text(encoding="utf-8"))
    events = [json.loads(line) for line in (run / "events.jsonl").read_text(encoding="utf-8").splitlines()]
    assert all(lane["wall_s"] > 0 and lane["limits"] == {} for lane in manifest["lanes"])
    assert manifest["budget"] is None
    of_the_run = [event for event in events if event["lane"] is None]
    assert [event["what"] for event in of_the_run] == ["began", "ended"]
    assert of_the_run[0]["values"]["rows"] == of_the_run[1]["values"]["rows_done"] == sum(manifest["counts"].values())
    assert (run / "events.jsonl").stat().st_mode & 0o777 == 0o600


JOB = """\
endpoints: {{gate: {{base_url: "{url}", concurrency: 2}}}}
models: [{{name: model}}]
prompts: [{{name: plain, user: "{{{{ question }}}}"}}]
dataset: samples.jsonl
"""


def test_resumed_run_is_told_call_by_call(tmp_path: Path, capsys: Capture) -> None:
    """One call met the end of the credit, one was killed, the last one finished: told one by one, and added up."""
    rows = [{"id": f"s{n}", "question": f"q{n}?"} for n in range(6)]
    (tmp_path / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    with FakeEndpoint() as server:
        (tmp_path / "job.yaml").write_text(JOB.format(url=server.base_url), encoding="utf-8")
        server.script(reply_text(), reply_text())
        server.default = reply_error(402)
        first = call_evalrun("run", "job.yaml", cwd=tmp_path)
        n_seen = len(server.requests)
        server.default = reply_text(delay_s=30)
        killed = start_evalrun("run", "job.yaml", "--resume", cwd=tmp_path)
        while len(server.requests) == n_seen:
            time.sleep(0.02)
        killed.kill()
        killed.communicate(timeout=60)
        server.default = reply_text()
        last = call_evalrun("run", "job.yaml", "--resume", cwd=tmp_path)
    assert (first.returncode, last.returncode) == (3, 0), last.stderr
    folder = str(find_run_folder(tmp_path))
    assert main(["show", folder, "--lanes"]) == 0
    text = capsys.readouterr().out
    assert main(["show", folder, "--lanes", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert "model (gate): hardly ever held back: its time is that of the replies, at most 2 at once\n" in text
    assert "stopped by quota: HTTP 402: no; add credit" in text.partition("call 1 of 3")[2].partition("call 2 of 3")[0]
    assert (
        "it was killed, or died, before it could tell" in text.partition("call 2 of 3")[2].partition("call 3 of 3")[0]
    )
    assert "of 3 calls, 2 told what their lanes did: the figures are theirs\n" in text
    assert (told["n_calls"], told["n_calls_told"]) == (3, 2)
    assert [lane["asked"] for lane in (*told["lanes"], *told["whole_run"])] == [4, 6]
    assert [None if call["lanes"] is None else len(call["lanes"]) for call in told["calls"]] == [1, None, 1]


def test_call_that_its_budget_ended_says_so(tmp_path: Path, capsys: Capture) -> None:
    """Which limit ended a run is told by `--lanes` as well, once."""
    assert main(["init", str(tmp_path)]) == 0
    job = [str(tmp_path / "job.yaml"), "-o", str(tmp_path / "reports"), "--progress", "none"]
    assert main(["run", *job, "--set", "budget.requests=3"]) == 3
    capsys.readouterr()
    assert main(["show", str(find_run_folder(tmp_path)), "--lanes"]) == 0
    assert capsys.readouterr().out.count("ended by its budget: 3 of 3 requests spent") == 1


def test_waits_after_the_last_outcome_are_no_longer_than_the_time(run: Path, capsys: Capture) -> None:
    """A lane has waited for as long as it was there, not longer."""
    manifest = json.loads((run / "run.json").read_text(encoding="utf-8"))
    manifest["lanes"][0] |= {"wall_s": 20.0, "waited_s": {"outage": 30.0, "retry_after": 10.0}}
    (run / "run.json").write_text(json.dumps(manifest), encoding="utf-8")
    capsys.readouterr()
    assert main(["show", str(run), "--lanes", "--json"]) == 0
    (lane, *_) = json.loads(capsys.readouterr().out)["whole_run"]
    assert (lane["wall_s"], lane["waited_share"]) == (40.0, {"outage": 0.75, "retry_after": 0.25})


def test_lanes_of_a_run_that_has_not_ended_are_read_in_its_log(run: Path, capsys: Capture) -> None:
    """A live or killed run has no run.json: where its lanes' decisions stand is said, and how it goes on."""
    (run / "run.json").unlink()
    capsys.readouterr()
    assert main(["show", str(run), "--lanes"]) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert "has not ended, so run.json does not tell of its lanes yet" in told
    assert f"what its lanes decided so far: {run / 'events.jsonl'}; go on with it: evalrun run JOB --resume" in told
    (run / "events.jsonl").unlink()
    assert main(["show", str(run), "--lanes"]) == 2
    assert "decided so far" not in capsys.readouterr().err
