"""Prices through the command line: unknown ones refused when asked, the used ones kept with the run and shown."""

import json
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tests.cli.calls import call_evalrun

JOB = """\
endpoints:
  demo: {simulator: {answer: "4", profiles: {careful: {latency_ms: 1}, hasty: {latency_ms: 1, service_tier: flex}}}}
models: [{name: careful}, {name: fast, model: hasty}]
prompts: [{name: p, user: "{{ question }}"}]
samples: [{id: a, question: 2+2?}, {id: b, question: 1+3?}]
prices: prices.yaml
"""
PRICES = """\
- {model: careful, input: 1, output: 2, valid_from: 2999-01-01}
- {model: careful, input: 5, output: 10}
- {model: 'has*', input: 100, output: 200, multipliers: {flex: 0.5}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Hold a job and its price file."""
    (tmp_path / "job.yaml").write_text(JOB, "utf-8")
    (tmp_path / "prices.yaml").write_text(PRICES, "utf-8")
    return tmp_path


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return run.json of the only run."""
    (path,) = folder.glob("reports/*/*/run.json")
    manifest: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return manifest


def test_run_costs_what_the_price_file_says(folder: Path) -> None:
    """Rows are priced by the entry of their model that holds now, at the service tier of the reply."""
    assert call_evalrun("run", "job.yaml", "--require-cost", "--progress", "none", cwd=folder).returncode == 0
    (path,) = folder.glob("reports/*/*/results.parquet")
    rates = {"careful": (Decimal(5), Decimal(10)), "fast": (Decimal(50), Decimal(100))}
    for row in pl.read_parquet(path).iter_rows(named=True):
        rate_input, rate_output = rates[row["model"]]
        usd = (row["prompt_tokens"] * rate_input + row["completion_tokens"] * rate_output) / 1_000_000
        assert (row["cost_usd"], row["cost_source"]) == (pytest.approx(float(usd), abs=1e-12), "table")


def test_prices_used_are_kept_with_the_run_and_shown(folder: Path) -> None:
    """run.json holds each entry with its place, exact to the digit; the report shows them."""
    assert call_evalrun("run", "job.yaml", "--progress", "none", cwd=folder).returncode == 0
    prices = read_manifest(folder)["prices"]
    assert prices["careful"]["origin"] == "prices.yaml:1:3"
    assert [entry["input"] for entry in prices["careful"]["entries"]] == ["1", "5"]
    assert prices["fast"] == {
        "source": "table",
        "origin": "prices.yaml:3:3",
        "library": None,
        "entries": [
            {
                "model": "has*",
                "input": "100",
                "output": "200",
                "multipliers": {"flex": "0.5"},
                "currency": "USD",
            }
        ],
    }
    (report,) = folder.glob("reports/*/*/report.html")
    text = report.read_text("utf-8")
    assert "from 2999-01-01" in text
    assert "flex × 0.5" in text


@pytest.mark.parametrize("command", ["plan", "run"])
def test_require_cost_refuses_a_model_without_a_price(folder: Path, command: str) -> None:
    """Each model whose price is unknown, or still to come, is named with place and what to type; nothing is sent."""
    (folder / "prices.yaml").write_text(PRICES.splitlines()[0] + "\n", "utf-8")
    result = call_evalrun(command, "job.yaml", "--require-cost", cwd=folder)
    assert result.returncode == 2
    assert "job.yaml:3:10: no price is known of careful before 2999-01-01, and --require-cost" in result.stderr
    assert "job.yaml:3:27: no price is known of fast, and --require-cost asks for one" in result.stderr
    assert "--set 'models[fast].price={input: 1.25, output: 10}'" in result.stderr
    assert not (folder / "reports").exists()


def test_resume_asks_for_costs_as_the_first_call_did(folder: Path) -> None:
    """What `--require-cost` was said of a run holds for its resumes: a price that was lost meanwhile is exit 2."""
    assert call_evalrun("run", "job.yaml", "--require-cost", "--progress", "none", cwd=folder).returncode == 0
    (folder / "prices.yaml").write_text("- {model: careful, input: 1, output: 2}\n", "utf-8")
    (run,) = folder.glob("reports/*/*/")
    result = call_evalrun("run", "job.yaml", "--resume", run.name, "--progress", "none", cwd=folder)
    assert result.returncode == 2
    assert "no price is known of fast, and --require-cost asks for one" in result.stderr


def test_require_cost_looks_at_the_models_that_are_asked(folder: Path) -> None:
    """A model that the selection leaves out needs no price."""
    (folder / "prices.yaml").write_text("- {model: careful, input: 1, output: 2}\n", "utf-8")
    assert call_evalrun("plan", "job.yaml", "--require-cost", "--model", "careful", cwd=folder).returncode == 0
    assert call_evalrun("plan", "job.yaml", "--require-cost", cwd=folder).returncode == 2


def test_what_require_cost_advises_works(folder: Path) -> None:
    """The words to type, typed, are enough."""
    (folder / "prices.yaml").write_text("- {model: careful, input: 1, output: 2}\n", "utf-8")
    price = "models[fast].price={input: 1.25, output: 10}"
    assert call_evalrun("plan", "job.yaml", "--require-cost", "--set", price, cwd=folder).returncode == 0


def test_budget_in_usd_needs_a_price_that_holds_now(folder: Path) -> None:
    """A price that is still to come keeps no budget."""
    (folder / "prices.yaml").write_text(PRICES.replace(PRICES.splitlines()[1] + "\n", ""), "utf-8")
    result = call_evalrun("run", "job.yaml", "--budget-usd", "1", cwd=folder)
    assert result.returncode == 2
    assert "no price is known of careful" in result.stderr


def test_price_from_the_library_is_said_and_kept(folder: Path) -> None:
    """Where nobody names a price and the extra is installed, `plan` and `validate` tell whose price is taken."""
    pytest.importorskip("genai_prices", minversion="0.2.3")
    job = """\
endpoints: {gateway: {base_url: https://api.openai.com/v1, api_key_env: NO_SUCH_KEY}}
models:
  - {name: mine, model: gpt-5.1}
  - {name: newest, model: gpt-5.1-2026-01-01}
  - {name: dated, model: gpt-5-nano-2025-08-07}
prompts: [{name: p, user: hi}]
samples: [{id: a}]
"""
    (folder / "job.yaml").write_text(job, "utf-8")
    for command in ("plan", "validate"):
        result = call_evalrun(command, "job.yaml", cwd=folder)
        assert result.returncode == 0
        assert "price of mine from genai-prices" in result.stderr
        assert "(openai/gpt-5.1)" in result.stderr
        assert "price of dated: genai-prices" in result.stderr
        assert "would take 'gpt-5-nano-2025-08-07' for 'gpt-5-nano'" in result.stderr
        assert "no price for newest, dated: what they cost will be unknown" in result.stderr
    result = call_evalrun("plan", "job.yaml", "--require-cost", cwd=folder)
    assert result.returncode == 2
    assert "no price is known of newest" in result.stderr


def test_without_the_library_nothing_is_said_of_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the extra is not installed a model without a price is unknown, as ever."""
    monkeypatch.setitem(sys.modules, "genai_prices.data_snapshot", None)
    job = JOB[JOB.index("prompts") :].replace("prices: prices.yaml\n", "")
    head = "endpoints: {gateway: {base_url: https://api.openai.com/v1}}\nmodels: [{name: gpt-5.1}]\n"
    (folder / "job.yaml").write_text(head + job, "utf-8")
    result = call_evalrun("plan", "job.yaml", cwd=folder)
    assert "no price for gpt-5.1: what they cost will be unknown" in result.stderr
    assert "price of" not in result.stderr


def test_simulator_never_asks_the_library(folder: Path) -> None:
    """A simulated model has no price but what the job says, even under a name that the library knows."""
    job = JOB.replace("careful", "gpt-5.1").replace("prices: prices.yaml\n", "")
    (folder / "job.yaml").write_text(job, "utf-8")
    result = call_evalrun("plan", "job.yaml", "--json", cwd=folder)
    assert json.loads(result.stdout)["usd"]["expected"] is None
    assert "price of" not in result.stderr
