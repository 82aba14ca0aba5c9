"""An error inside a 200 that will not pass: it is not bought again by every resume, only when that is asked for."""

import json
from pathlib import Path

from tests.cli.processes import find_run_folder
from tests.cli.test_changed_job import load_results, run_job, start
from tests.fake_endpoint import FakeEndpoint, reply_json, reply_text

PERMANENT = reply_json({"error": {"message": "no such tool", "code": 400}})
PASSING = reply_json({"error": {"message": "busy", "code": 502}})


def test_resume_leaves_a_permanent_error_in_a_200_alone(tmp_path: Path) -> None:
    """The row keeps its error and says that it is permanent; the run counts as finished; `all` asks it again."""
    with FakeEndpoint(default=reply_text("yes")) as endpoint:
        endpoint.script_for("two?", PERMANENT)
        start(tmp_path, endpoint)
        assert run_job(tmp_path, "--resume") == 3
        assert endpoint.count_prompts() == {"one?": 1, "two?": 1, "three?": 1, "four?": 2}
        results = load_results(tmp_path)
        assert results["error_code"].to_list() == [None, "error_in_200", None, None]
        assert results["flags"].to_list() == [None, '["permanent"]', None, None]
        assert run_job(tmp_path, "--resume") == 2  # Nothing unfinished is left.
        folder = find_run_folder(tmp_path)
        assert json.loads((folder / "run.json").read_text())["n_permanent_errors"] == 1
        assert run_job(tmp_path, "--resume", str(folder), "--retry-errors", "all") == 0
        assert endpoint.count_prompts()["two?"] == 2
    assert load_results(tmp_path)["status"].to_list() == ["ok"] * 4


def test_resume_asks_a_passing_error_in_a_200_again(tmp_path: Path) -> None:
    """The same code is asked again where the error's own code says that it can pass."""
    with FakeEndpoint(default=reply_text("yes")) as endpoint:
        endpoint.script_for("two?", PASSING)
        start(tmp_path, endpoint)
        assert load_results(tmp_path)["flags"].to_list() == [None] * 4
        assert run_job(tmp_path, "--resume") == 0
        assert endpoint.count_prompts()["two?"] == 2
