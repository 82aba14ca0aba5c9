"""Budgets: a run ends where it was told to, says what it took, and adds up over its resumes."""

import json
import random
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from evalrun.cli.main import main
from evalrun.cli.results import make_resume_hint
from evalrun.closing import load_result
from evalrun.store.folder import RunFolder
from tests.cli.calls import call_evalrun, serve_simulator_here
from tests.cli.processes import (
    JOB,
    find_run_folder,
    load_ledger,
    serve_simulator,
    start_evalrun,
    write_job,
)

Capture = pytest.CaptureFixture[str]

N_SAMPLES, CONCURRENCY = 300, 4
PRICE = {"prompt": 1e-6, "completion": 2e-6}
"""USD per token, as the job says."""


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder with a job of 300 rows and the URL of its simulator."""
    job = write_job(tmp_path, url="http://127.0.0.1:1", n_samples=N_SAMPLES, concurrency=CONCURRENCY)
    with serve_simulator_here(job) as url:
        job.write_text(JOB.format(url=url, concurrency=CONCURRENCY, latency_ms=1), encoding="utf-8")
        yield tmp_path, url


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return run.json of the only run."""
    manifest: dict[str, Any] = json.loads((find_run_folder(folder) / "run.json").read_text(encoding="utf-8"))
    return manifest


def add_bill(url: str) -> float:
    """Return what the simulator's owner would charge for all it was asked, in USD."""
    totals = load_ledger(url)["totals"]
    return float(totals["prompt_tokens"] * PRICE["prompt"] + totals["completion_tokens"] * PRICE["completion"])


def add_tokens(url: str) -> int:
    """Return how many tokens the simulator has worked off."""
    totals = load_ledger(url)["totals"]
    return int(totals["prompt_tokens"] + totals["completion_tokens"])


def write_unforeseeable_answers(folder: Path, n_samples: int) -> None:
    """Give a job samples whose answers have 1 to 500 words, mostly few: no estimate foresees them."""
    rng = random.Random(7)
    lengths = [min(500, round(rng.lognormvariate(3.5, 1.0)) + 1) for _ in range(n_samples)]
    rows = [{"id": f"s{n}", "question": f"q{n}?", "answer": "word " * length} for n, length in enumerate(lengths)]
    (folder / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def run_recorded(*arguments: str, cwd: Path) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
    """Run evalrun; return also what the recorder wrote: the bound of this call, and how many were in flight."""
    record = cwd / "spend.json"
    process = start_evalrun(str(record), *arguments, cwd=cwd, program=["-m", "tests.cli.spend_recorder"])
    output, errors = process.communicate(timeout=100)
    done = subprocess.CompletedProcess(process.args, process.returncode, output, errors)
    return done, json.loads(record.read_text(encoding="utf-8"))


def find_next(output: str) -> list[str]:
    """Return the words of the command that a run proposes."""
    (line,) = re.findall(r"^next: +evalrun (.*)$", output, re.MULTILINE)
    return shlex.split(line)


def test_requests_beyond_the_budget_are_never_sent(served: tuple[Path, str]) -> None:
    """The rest is pending with the code `budget`, exit 3; the command that is proposed finishes the run."""
    folder, url = served
    first = call_evalrun("run", "job.yaml", "--set", "budget.requests=100", cwd=folder)
    sent = load_ledger(url)["totals"]["requests"]
    results = pl.read_parquet(find_run_folder(folder) / "results.parquet")
    manifest = read_manifest(folder)
    resumed = call_evalrun(*find_next(first.stdout), cwd=folder)
    assert (first.returncode, sent) == (3, 100)
    assert dict(results.group_by("error_code").len().rows()) == {None: 100, "budget": 200}
    assert set(results.filter(pl.col("error_code") == "budget")["status"]) == {"pending"}
    assert "budget: 100 of 100 requests spent; raise `budget.requests`" in first.stdout
    assert "--set budget.requests=360" in first.stdout
    assert manifest["budget"]["requests"] == {"limit": 100, "spent": 100}
    assert resumed.returncode == 0, resumed.stdout
    assert load_ledger(url)["totals"]["requests"] == N_SAMPLES


def test_budget_in_usd_holds_over_a_resume(served: tuple[Path, str]) -> None:
    """What the server bills stays within the budget, in one call and in two; raised, the run is finished."""
    folder, url = served
    limit = 0.003
    first = call_evalrun("run", "job.yaml", "--budget-usd", str(limit), cwd=folder)
    billed = add_bill(url)
    again = call_evalrun("run", "job.yaml", "--resume", cwd=folder)
    billed_again, manifest = add_bill(url), read_manifest(folder)
    raised = call_evalrun("run", "job.yaml", "--resume", "--budget-usd", "1", cwd=folder)
    assert (first.returncode, again.returncode) == (3, 3)
    assert 0 < billed <= billed_again <= limit
    assert manifest["budget"]["usd"]["spent"] == pytest.approx(billed_again)
    assert raised.returncode == 0, raised.stdout
    assert read_manifest(folder)["budget"]["usd"]["spent"] == pytest.approx(add_bill(url))
    assert load_ledger(url)["totals"]["requests"] == N_SAMPLES


@pytest.mark.parametrize(
    ("concurrency", "n_samples", "usd", "tokens"),
    [
        pytest.param(1, 200, 0.01, 10_000, marks=pytest.mark.soak),
        (32, 400, 0.015, 20_000),
        pytest.param(64, 800, 0.03, 40_000, marks=pytest.mark.soak),
        pytest.param(512, 6_000, 0.3, 300_000, marks=pytest.mark.soak),
    ],
)
def test_bill_passes_a_budget_by_no_more_than_the_documented_bound(
    tmp_path: Path, concurrency: int, n_samples: int, usd: float, tokens: int
) -> None:
    """Replies of any length, USD first, then tokens over a resume: the ledger stays within limit and bound."""
    job = write_job(tmp_path, url="http://127.0.0.1:1", n_samples=1, concurrency=concurrency, latency_ms=20)
    write_unforeseeable_answers(tmp_path, n_samples)
    with serve_simulator(job) as url:
        job.write_text(JOB.format(url=url, concurrency=concurrency, latency_ms=20), encoding="utf-8")
        first, of_first = run_recorded("run", "job.yaml", "--budget-usd", str(usd), cwd=tmp_path)
        billed, books = add_bill(url), read_manifest(tmp_path)["budget"]
        again = ["--resume", "--budget-usd", "100", "--set", f"budget.tokens={tokens}"]
        second, of_second = run_recorded("run", "job.yaml", *again, cwd=tmp_path)
        worked, books_again = add_tokens(url), read_manifest(tmp_path)["budget"]
        sent = load_ledger(url)["totals"]["requests"]
    assert (first.returncode, second.returncode) == (3, 3), first.stderr + second.stderr
    assert ("USD" in books["ended_by"], "tokens" in books_again["ended_by"]) == (True, True)
    assert usd * 0.8 < billed <= usd + float(of_first["bound_usd"])
    assert tokens * 0.8 < worked <= tokens + of_second["bound_tokens"]
    assert books["usd"]["spent"] == pytest.approx(billed)
    assert books_again["tokens"]["spent"] == worked
    assert sent == of_first["n_sent"] + of_second["n_sent"] == books_again["requests"]["spent"]
    assert of_first["n_left"] == of_second["n_left"] == 0
    assert max(of_first["most_in_flight"], of_second["most_in_flight"]) <= concurrency


def test_wall_time_counts_anew_for_each_call(served: tuple[Path, str]) -> None:
    """When the time is up nothing new is sent; the same command goes on for as long again."""
    folder, url = served
    job = folder / "job.yaml"
    job.write_text(JOB.format(url=url, concurrency=1, latency_ms=1) + "budget: {wall_s: 0.2}\n", encoding="utf-8")
    first = call_evalrun("run", "job.yaml", cwd=folder)
    ended_by = read_manifest(folder)["budget"]["ended_by"]
    hint = find_next(first.stdout)
    assert first.returncode == 3
    assert "0.2 s of wall time used" in ended_by
    assert hint[:2] == ["run", "job.yaml"]
    assert "--set" not in hint
    resumed = call_evalrun(*hint, "--set", "budget.wall_s=80", cwd=folder)
    assert resumed.returncode == 0, resumed.stdout


def test_model_without_a_price_is_refused_before_anything_is_sent(served: tuple[Path, str]) -> None:
    """Under a budget in USD an unknown price is exit 2, and what to type is said; what is typed then works."""
    folder, url = served
    job = folder / "job.yaml"
    job.write_text(job.read_text(encoding="utf-8").replace(", price: {input: 1, output: 2}", ""), encoding="utf-8")
    refused = call_evalrun("run", "job.yaml", "--budget-usd", "1", cwd=folder)
    planned = call_evalrun("plan", "job.yaml", "--budget-usd", "1", cwd=folder)
    n_sent = load_ledger(url)["totals"]["requests"]
    allowed = call_evalrun("run", "job.yaml", "--budget-usd", "1", "--allow-unknown-cost", "--limit", "5", cwd=folder)
    example = re.findall(r"--set '([^']*)'", refused.stderr)
    priced = call_evalrun("run", "job.yaml", "--budget-usd", "1", "--limit", "5", "--set", *example, cwd=folder)
    assert (refused.returncode, n_sent) == (2, 0)
    assert "`budget.usd` cannot be kept, since no price is known of sim" in refused.stderr
    assert "`run` refuses this" in planned.stdout
    assert planned.returncode == 0
    assert allowed.returncode == 0, allowed.stderr
    assert priced.returncode == 0, priced.stderr


def test_leave_to_spend_unknown_sums_holds_for_the_resume(served: tuple[Path, str]) -> None:
    """A resume begins from what the first call allowed."""
    folder, _ = served
    job = folder / "job.yaml"
    job.write_text(job.read_text(encoding="utf-8").replace(", price: {input: 1, output: 2}", ""), encoding="utf-8")
    limits = ["--budget-usd", "1", "--allow-unknown-cost", "--set", "budget.requests=10"]
    first = call_evalrun("run", "job.yaml", *limits, cwd=folder)
    resumed = call_evalrun("run", "job.yaml", "--resume", "--set", "budget.requests=1000", cwd=folder)
    assert first.returncode == 3, first.stderr
    assert resumed.returncode == 0, resumed.stderr


def test_plan_says_which_limits_do_not_suffice(served: tuple[Path, str], capsys: Capture) -> None:
    """Whoever plans sees that the run will stop, and where."""
    job = str(served[0] / "job.yaml")
    limits = ["--budget-usd", "0.001", "--set", "budget.requests=299", "--set", "budget.tokens=1000000"]
    assert main(["plan", job, *limits]) == 0
    text = capsys.readouterr().out
    assert main(["plan", job, *limits, "--json"]) == 0
    planned = json.loads(capsys.readouterr().out)
    assert "and `budget.usd` ends it at USD 0.001: rows will be left over for --resume" in text
    assert "about 300 requests, and `budget.requests` ends it at 299 requests" in text
    assert "`budget.tokens`" not in text
    assert len(planned["budget_problems"]) == 2
    assert planned["budget"]["requests"] == 299


def test_proposed_limits_suffice_for_what_the_run_took_so_far(served: tuple[Path, str]) -> None:
    """Every limit that the rest would pass is raised in one command, not one after the other."""
    folder, _ = served
    limits = ["--set", "budget.requests=100", "--set", "budget.tokens=4000", "--budget-usd", "0.5"]
    call_evalrun("run", "job.yaml", *limits, cwd=folder)
    hint = make_resume_hint(Path("job.yaml"), load_result(RunFolder.open(find_run_folder(folder))))
    assert hint is not None
    assert re.search(r"--set budget.tokens=\d+ --set budget.requests=\d+$", hint)
    assert "--budget-usd" not in hint


@pytest.mark.parametrize(
    ("limits", "told"),
    [
        (["--budget-usd", "0.0001"], "--budget-usd"),
        (["--set", "budget.tokens=10"], "--set budget.tokens="),
        (["--set", "budget.requests=1"], "--set budget.requests="),
        (["--budget-usd", "0.001"], "--budget-usd"),
    ],
)
def test_proposed_limit_finishes_a_run_whose_budget_was_far_too_small(
    served: tuple[Path, str], limits: list[str], told: str
) -> None:
    """Not even one request fitted, or a few did: the command that is printed, typed once, asks all the others."""
    folder, url = served
    first = call_evalrun("run", "job.yaml", *limits, cwd=folder)
    resumed = call_evalrun(*find_next(first.stdout), cwd=folder)
    assert first.returncode == 3, first.stderr
    assert told in first.stdout
    assert resumed.returncode == 0, resumed.stdout
    assert load_ledger(url)["totals"]["requests"] == N_SAMPLES


def test_proposed_limit_covers_a_dear_model_of_which_little_was_seen(tmp_path: Path) -> None:
    """What a cheap model took says nothing about one that costs a hundred times as much, and is slow."""
    job = write_job(tmp_path, url="http://127.0.0.1:1", n_samples=100, concurrency=CONCURRENCY)
    dear = "  - {name: dear, model: slow, params: {max_tokens: 20}, price: {input: 100, output: 200}}\nprompts:"
    profiles = "slow: {accuracy: 0.8, latency_ms: 40}, steady:"
    text = job.read_text(encoding="utf-8").replace("prompts:", dear, 1).replace("steady:", profiles, 1)
    job.write_text(text, encoding="utf-8")
    with serve_simulator_here(job) as url:
        job.write_text(text.replace("http://127.0.0.1:1", url), encoding="utf-8")
        first = call_evalrun("run", "job.yaml", "--set", "budget.requests=100", "--budget-usd", "0.1", cwd=tmp_path)
        assert first.returncode == 3, first.stderr
        resumed = call_evalrun(*find_next(first.stdout), cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stdout
