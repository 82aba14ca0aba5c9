"""What `plan` foresees beside what runs take, on the example jobs."""

import json
from pathlib import Path
from typing import Any

import pytest
from anyio.from_thread import start_blocking_portal

from evalrun.options import ProfileOptions, SimulatorOptions
from evalrun.simulator.server import serve
from tests.cli.calls import call_evalrun

CONFIGS = Path(__file__).parents[2] / "configs"
PRICES = "price={input: 1.25, output: 10}"


def read_json(*arguments: str, cwd: Path) -> dict[str, Any]:
    """Return what a command prints as JSON."""
    done = call_evalrun(*arguments, "--json", cwd=cwd)
    assert done.returncode in {0, 1}, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def run_and_read(job: str, *options: str, cwd: Path) -> dict[str, Any]:
    """Run a job; return its run.json."""
    summary = read_json("run", job, *options, "--no-gate", cwd=cwd)
    (folder,) = (cwd / "reports").glob(f"*/{summary['run']['run_id']}")
    manifest: dict[str, Any] = json.loads((folder / "run.json").read_bytes())
    return manifest


def check_brackets(plan: dict[str, Any], manifest: dict[str, Any]) -> None:
    """Assert that a run took what its plan foresaw: USD together, tokens of each model."""
    took = manifest["estimate"]["call"]["took"]
    assert plan["usd"]["low"] <= took["usd"] <= plan["usd"]["high"]
    assert took["usd"] == pytest.approx(manifest["totals"]["usd"], abs=1e-9)
    for model in plan["models"]:
        arms = [arm for arm in manifest["observed"]["arms"] if arm["model"] == model["model"]]
        for kind in ("prompt_tokens", "completion_tokens"):
            assert model[kind]["low"] <= sum(arm["rows"] * arm[kind] for arm in arms) + 1e-6
            assert sum(arm["rows"] * arm[kind] for arm in arms) - 1e-6 <= model[kind]["high"]


@pytest.mark.parametrize("name", ["quickstart", "prompt-comparison"])
def test_plan_brackets_what_a_simulated_example_takes(name: str, tmp_path: Path) -> None:
    """Before the first run and after it the cost lies between low and high, and after it within a tenth of expected."""
    job, options = str(CONFIGS / f"{name}.yaml"), ("--limit", "24")
    before = read_json("plan", job, *options, cwd=tmp_path)
    first = run_and_read(job, *options, cwd=tmp_path)
    after = read_json("plan", job, *options, cwd=tmp_path)
    check_brackets(before, first)
    check_brackets(after, run_and_read(job, *options, cwd=tmp_path))
    assert (before["learned_from"], after["learned_from"]) == (None, first["run_id"])
    assert after["usd"]["expected"] == pytest.approx(first["totals"]["usd"], rel=0.1)
    assert after["usd"]["high"] - after["usd"]["low"] < before["usd"]["high"] - before["usd"]["low"]


@pytest.mark.parametrize(
    ("name", "endpoint", "models"),
    [
        ("gateway", "gateway", {"gpt-5.1": "gpt-5.1", "gemini-3-flash": "gemini-3-flash", "claude-4.5": "claude-4.5"}),
        ("local", "local", {"local-model": "qwen3:4b"}),
    ],
)
def test_plan_brackets_what_an_example_takes_of_a_server(
    name: str, endpoint: str, models: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same of a server that the plan knows nothing of."""
    monkeypatch.setenv("MOUNTSEA_API_KEY", "no-secret")
    options = SimulatorOptions(answer="42", profiles={wire: ProfileOptions(latency_ms=1) for wire in models.values()})
    job = str(CONFIGS / f"{name}.yaml")
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(serve(options, grace_s=0)) as simulator,
    ):
        given = ["--set", f"endpoints.{endpoint}.base_url={simulator.url}/v1"]
        given += [word for model in models for word in ("--set", f"models[{model}].{PRICES}")]
        before = read_json("plan", job, *given, cwd=tmp_path)
        first = run_and_read(job, *given, cwd=tmp_path)
        after = read_json("plan", job, *given, cwd=tmp_path)
        check_brackets(before, first)
        check_brackets(after, run_and_read(job, *given, cwd=tmp_path))
    assert after["learned_from"] == first["run_id"]


def test_plan_tells_where_its_figures_come_from(tmp_path: Path) -> None:
    """The rule, then the run that taught it, and what a comparison could show: each in a line."""
    job, options = str(CONFIGS / "quickstart.yaml"), ("--limit", "6", "--model", "sim-hasty")
    first = call_evalrun("plan", job, *options, cwd=tmp_path).stdout
    assert "replies by rule: no earlier run of this job tells of them; nothing was sent" in first
    assert "power: 6 paired samples show a drop of 72.5 points with 80 % power, 20.0 % of them taken to differ" in first
    run = run_and_read(job, *options, cwd=tmp_path)
    second = call_evalrun("plan", job, *options, cwd=tmp_path).stdout
    assert f"and by what run {run['run_id']} took; nothing was sent" in second
    third = call_evalrun("plan", job, "--limit", "6", cwd=tmp_path).stdout
    assert f"by what run {run['run_id']} took; 4 of 6 arms are new, and estimated by rule" in third


def test_run_tells_what_was_estimated_beside_what_it_took(tmp_path: Path) -> None:
    """Terminal, report.md and summary.json tell the estimate of what the call asked and what that took."""
    job, options = str(CONFIGS / "quickstart.yaml"), ("--limit", "6", "--model", "sim-hasty", "--no-gate")
    done = call_evalrun("run", job, *options, cwd=tmp_path)
    (folder,) = (tmp_path / "reports" / "quickstart").iterdir()
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    call = summary["estimate"]["call"]
    assert call["n_rows"] == call["took"]["attempts"] == 12
    assert call["took"]["usd"] == pytest.approx(summary["run"]["totals"]["usd"])
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("estimated $"))
    assert ", took $" in line
    assert "estimated USD " in (folder / "report.md").read_text(encoding="utf-8")


def test_estimate_of_a_run_that_asks_nothing_is_not_told(tmp_path: Path) -> None:
    """A run that takes all of its rows over was expected to take nothing, and took nothing."""
    job, options = str(CONFIGS / "quickstart.yaml"), ("--limit", "6", "--model", "sim-hasty")
    first = run_and_read(job, *options, cwd=tmp_path)
    second = run_and_read(job, *options, "--reuse", first["run_id"], cwd=tmp_path)
    call = second["estimate"]["call"]
    assert (call["n_rows"], call["usd"]["high"], call["took"]["attempts"], call["took"]["usd"]) == (0, 0, 0, 0)
