"""`evalrun show --lanes`: why a run was slow, in words and as JSON."""

import json
from pathlib import Path

import pytest

from evalrun.cli.main import main
from tests.cli.processes import find_run_folder

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run whose lane has waited for most of the time."""
    assert main(["init", str(tmp_path)]) == 0
    assert main(["run", str(tmp_path / "job.yaml"), "-o", str(tmp_path / "reports"), "--progress", "none"]) == 0
    folder = find_run_folder(tmp_path)
    manifest = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    manifest["n_calls"] = 2
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
    assert "these are the lanes of the last of 2 calls" in text


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
