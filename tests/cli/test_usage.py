"""`evalrun usage`: what runs took, on runs that were retried, edited, reused, resumed or damaged."""

import csv
import io
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import evalrun
from evalrun.analysis.account import KEYS
from evalrun.cli.main import main
from evalrun.errors import UsageError
from evalrun.store.folder import RunFolder
from tests.cli.test_reuse import list_run_folders, load_results, make_job, read_manifest, run_job, write_samples
from tests.fake_endpoint import FakeEndpoint, reply_error, reply_text

Capture = pytest.CaptureFixture[str]

QUESTIONS = {"a": "one?", "b": "two?", "c": "three?", "d": "four?"}
PRICE_OF_ONE = 0.015
"""What an answer of the fake endpoint costs by the job's price: 10 + 5 tokens at 1,000 USD per 1M."""


def ask_usage(folder: Path, *words: str, exit_code: int = 0) -> None:
    """Call `evalrun usage` on the runs of a folder."""
    assert main(["usage", *words, "-o", str(folder / "reports")]) == exit_code


def read_usage(folder: Path, capsys: Capture, *words: str) -> Any:
    """Return what `evalrun usage --json` prints."""
    capsys.readouterr()
    ask_usage(folder, *words, "--json")
    return json.loads(capsys.readouterr().out)


def rewrite(
    path: Path, change: Callable[[pl.DataFrame], pl.DataFrame], *, more_facts: Mapping[str, str] | None = None
) -> None:
    """Change a table and leave what it says of itself, but for some facts."""
    frame, facts = pl.read_parquet(path), pl.read_parquet_metadata(path)
    kept = {key: text for key, text in facts.items() if key.startswith("evalrun.")}
    change(frame).write_parquet(path, metadata=kept | dict(more_facts or {}))


@pytest.fixture(scope="module")
def edited(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run that was resumed after an edit: one answer superseded, one of a row that is gone."""
    folder = tmp_path_factory.mktemp("edited")
    with FakeEndpoint(default=reply_text("yes")) as endpoint:
        make_job(folder, endpoint, QUESTIONS)
        endpoint.script_for("four?", reply_error(503))
        # One after the other: a 503 before any answer would be an outage, which is waited for.
        assert run_job(folder, "-j", "1") == 3
        write_samples(folder, {"a": "one, edited?", "b": "two?", "d": "four?"})
        assert run_job(folder, "--resume") == 0
    return folder


def test_superseded_and_removed_answers_are_wasted(edited: Path, capsys: Capture) -> None:
    """What was paid for an older question, or a row that is gone, is billed and wasted; a refusal cost nothing."""
    found = read_usage(edited, capsys, "job", "--by", "")
    total = found["total"]
    assert (total["requests"], total["rows"], total["answered"]) == (6, 3, 3)
    usd = [total[name] for name in ("cost_usd", "billed_usd", "wasted_usd", "estimated_usd", "reused_usd")]
    assert usd == [3 * PRICE_OF_ONE, 5 * PRICE_OF_ONE, 2 * PRICE_OF_ONE, 0.0, 0.0]
    assert (total["wasted_prompt_tokens"], total["wasted_completion_tokens"]) == (20, 10)
    (run,) = found["runs"]
    assert run["agrees"] is True
    assert (run["rows_usd"], run["gone_usd"], run["gone_attempts"]) == (4 * PRICE_OF_ONE, PRICE_OF_ONE, 1)
    assert run["attempts_usd"] == run["summary_usd"] == 5 * PRICE_OF_ONE


def test_table_ends_with_the_sums_that_agree(edited: Path, capsys: Capture) -> None:
    """The last line names rows, attempts and summary, and what makes the difference."""
    ask_usage(edited, "job")
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == (
        "billed: rows $0.0600 + $0.0150 of 1 attempt for rows that the job no longer has = attempts $0.0750 "
        "= summary $0.0750"
    )


def test_row_that_the_job_no_longer_has_is_shown_as_one(edited: Path, capsys: Capture) -> None:
    """Its model is no longer known; the table says why, and has a total."""
    ask_usage(edited, "job", "--by", "model,status")
    names = [line.split("  ")[0] for line in capsys.readouterr().out.splitlines()]
    assert names[:6] == ["model", names[1], "m", "(left the job)", "total", ""]


def test_summary_and_reports_hold_the_same_sums(edited: Path) -> None:
    """run.json, summary.json, the arms and the reports' spending are those of the account."""
    (run,) = list_run_folders(edited)
    totals = read_manifest(run)["totals"]
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    assert summary["run"]["totals"] == totals
    assert (totals["billed_usd"], totals["wasted_usd"], totals["usd"]) == (0.075, 0.03, 0.045)
    assert [(arm["billed_usd"], arm["wasted_usd"]) for arm in summary["arms"]] == [(0.06, 0.015)]
    assert "spend **USD 0.0750** (USD 0.0300 wasted" in (run / "report.md").read_text(encoding="utf-8")


def test_edited_row_that_waits_for_a_budget_is_told(tmp_path: Path, capsys: Capture) -> None:
    """What its older question took stands at the row until it is asked again."""
    with FakeEndpoint(default=reply_text("yes")) as endpoint:
        make_job(tmp_path, endpoint, {"a": "one?", "b": "two?"})
        assert run_job(tmp_path) == 0
        write_samples(tmp_path, {"a": "one, edited?", "b": "two, edited?"})
        (run,) = list_run_folders(tmp_path)
        assert run_job(tmp_path, "--resume", str(run), "--set", "budget.requests=3") == 3
    capsys.readouterr()
    ask_usage(tmp_path, str(run))
    shown = capsys.readouterr().out
    assert "billed: rows $0.0450 = attempts $0.0450 = summary $0.0450" in shown
    rows = pl.read_parquet(run / "results.parquet", columns=["status", "attempts", "billed_usd"])
    assert rows.filter(status="pending").rows() == [("pending", 1, pytest.approx(0.015))]


def test_reused_run_is_billed_nothing(tmp_path: Path, capsys: Capture) -> None:
    """On the simulator: billed 0, cost that of the original row by row, no time; both runs together are billed once."""
    job = Path(__file__).parents[2] / "configs/quickstart.yaml"
    words = ["run", str(job), "-o", str(tmp_path / "reports"), "--limit", "8", "--no-gate", "--progress", "none"]
    assert main(words) == 0
    assert main([*words, "--reuse", "latest"]) == 0
    first, second = list_run_folders(tmp_path)
    old, new = load_results(first), load_results(second)
    assert new.select("row_id", "cost_usd").equals(old.select("row_id", "cost_usd"))
    assert set(new["billed_usd"]) == {0.0}
    assert new["latency_s"].null_count() == new.height == 48
    one, two = (read_usage(tmp_path, capsys, run.name, "--by", "")["total"] for run in (first, second))
    assert (two["requests"], two["reused"], two["billed_usd"], two["wasted_usd"]) == (0, 48, 0.0, 0.0)
    assert two["cost_usd"] == two["reused_usd"] == one["cost_usd"] == one["billed_usd"] > 0
    assert two["usd_per_1k"] == one["usd_per_1k"]
    both = read_usage(tmp_path, capsys, first.name, second.name, "--by", "run")
    assert [group["billed_usd"] for group in both["groups"]] == [one["billed_usd"], 0.0]
    assert both["simulated"] is True
    assert both["total"]["billed_usd"] == one["billed_usd"]
    ask_usage(tmp_path, second.name)
    shown = capsys.readouterr().out
    assert shown.startswith("SIMULATED")
    assert "reused: 48 rows, " in shown


def test_python_tells_the_same(edited: Path, capsys: Capture, tmp_path: Path) -> None:
    """`run.usage`, `--json` and `--parquet` are the same figures; the file says what it is."""
    (folder,) = list_run_folders(edited)
    run = evalrun.load(folder)
    frame = run.usage(by=["model", "day"])
    printed = read_usage(edited, capsys, "job", "--by", "model, day", "--parquet", str(tmp_path / "usage.parquet"))
    assert pl.read_parquet(tmp_path / "usage.parquet").equals(frame)
    assert [{**row, "day": str(row["day"])} for row in frame.to_dicts()] == printed["groups"]
    assert pl.read_parquet_metadata(tmp_path / "usage.parquet")["evalrun.is_simulated"] == "false"
    assert run.usage("model").columns == ["model", *run.usage().columns]
    assert (run.summary.billed_usd, run.summary.wasted_usd) == (0.075, 0.03)
    with pytest.raises(UsageError, match="prompts"):
        run.usage(by="prompts")


def test_hostile_names_stay_text(tmp_path: Path, capsys: Capture) -> None:
    """A category that is a formula, or steers a terminal, is neither in CSV nor in the table; the data keep it."""
    hostile = ["=cmd|' /C calc'!A1", "@SUM(1)", "\x1b]0;owned\x07", 'a,"b\nc', "-5"]
    with FakeEndpoint(default=reply_text("yes")) as endpoint:
        make_job(tmp_path, endpoint, {})
        samples = [{"id": str(n), "question": "?", "category": text} for n, text in enumerate(hostile)]
        (tmp_path / "samples.jsonl").write_text("\n".join(map(json.dumps, samples)), encoding="utf-8")
        assert run_job(tmp_path) == 0
    capsys.readouterr()
    ask_usage(tmp_path, "latest", "--by", "category", "--csv")
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    shown = {row["category"] for row in rows}
    assert shown == {"'=cmd|' /C calc'!A1", "'@SUM(1)", "\x1b]0;owned\x07", 'a,"b\nc', "-5"}
    assert [row["billed_usd"] for row in rows] == ["0.015"] * 5
    ask_usage(tmp_path, "latest", "--by", "category")
    assert "\x1b" not in capsys.readouterr().out
    assert {group["category"] for group in read_usage(tmp_path, capsys, "latest", "--by", "category")["groups"]} == set(
        hostile
    )


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["job", "--by", "modle"], "did you mean model?"),
        (["job", "--by", "model,xyz"], "There are: model, prompt, category, run, day, role, status"),
        (["jbo"], "did you mean job?"),
        (["job", "--json", "--csv"], "--json cannot go with --csv"),
        (["job", "--parquet", "/proc/usage.parquet"], "/proc"),
        ([], "Missing argument"),
    ],
)
def test_wrong_command_line_is_exit_2(edited: Path, words: list[str], told: str, capsys: Capture) -> None:
    """What cannot be meant is refused, with what was meant."""
    ask_usage(edited, *words, exit_code=2)
    assert told in capsys.readouterr().err


def test_run_that_is_named_twice_is_counted_once(edited: Path, capsys: Capture) -> None:
    """By whatever names it comes."""
    (run,) = list_run_folders(edited)
    ask_usage(edited, "job", str(run), "latest", "--json")
    printed = capsys.readouterr()
    assert json.loads(printed.out)["total"]["rows"] == 3
    assert printed.err.count("is counted once") == 2


@pytest.fixture
def damaged(edited: Path, tmp_path: Path) -> Path:
    """The run of `edited`, to be damaged."""
    (run,) = list_run_folders(edited)
    copy = tmp_path / "reports" / "job" / run.name
    copy.mkdir(parents=True)
    for path in run.iterdir():
        if path.is_file():
            (copy / path.name).write_bytes(path.read_bytes())
    return copy


def test_rows_that_contradict_their_attempts_are_said_loudly(damaged: Path, tmp_path: Path, capsys: Capture) -> None:
    """The figures are shown, and exit 5 says that they cannot all be true, and how to make them anew."""
    rewrite(damaged / "results.parquet", lambda frame: frame.with_columns(pl.lit(1.0).alias("billed_usd")))
    ask_usage(tmp_path, "latest", exit_code=5)
    printed = capsys.readouterr()
    assert "≠ attempts $0.0750" in printed.out
    assert "3 rows of" in printed.err
    assert "evalrun run JOB --resume" in printed.err


def test_summary_of_another_time_is_said_loudly(damaged: Path, tmp_path: Path, capsys: Capture) -> None:
    """A sum in run.json that the attempts do not bear out is exit 5 as well, in JSON too."""
    manifest = read_manifest(damaged)
    manifest["totals"]["billed_usd"] = 0.0749
    (damaged / "run.json").write_text(json.dumps(manifest), encoding="utf-8")
    ask_usage(tmp_path, "latest", "--json", exit_code=5)
    printed = capsys.readouterr()
    assert [run["agrees"] for run in json.loads(printed.out)["runs"]] == [False]
    assert "says that 0.0749 USD were billed, attempts.parquet 0.075" in printed.err


def test_run_of_an_older_evalrun_is_read(damaged: Path, tmp_path: Path, capsys: Capture) -> None:
    """Without a sum in run.json, and with attempts and rows of unknown cost: all of it is said, nothing refused."""
    manifest = read_manifest(damaged)
    for name in ("billed_usd", "wasted_usd", "estimated_usd", "billed_unknown_attempts"):
        del manifest["totals"][name]
    (damaged / "run.json").write_text(json.dumps(manifest), encoding="utf-8")
    unknown = pl.lit(None, pl.Float64)
    rewrite(damaged / "results.parquet", lambda frame: frame.with_columns(unknown.alias("billed_usd")))
    refused = pl.when(pl.col("error_code").is_null()).then("cost_usd").alias("cost_usd")
    rewrite(damaged / "attempts.parquet", lambda frame: frame.with_columns(refused))
    ask_usage(tmp_path, "latest")
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2] == (
        "billed: rows $0.0000 + $0.0150 of 1 attempt for rows that the job no longer has + $0.0600 of 3 rows known in "
        "part = attempts $0.0750; run.json holds no such sum in 1 run"
    )
    assert lines[-1] == "unknown, and in no sum: the cost of 1 attempt"


def test_requests_in_doubt_are_told(damaged: Path, tmp_path: Path, capsys: Capture) -> None:
    """What was in flight at a crash is in no table; the account says how many there were."""
    manifest = read_manifest(damaged) | {"in_doubt": 1, "asked_again_after_doubt": 2}
    (damaged / "run.json").write_text(json.dumps(manifest), encoding="utf-8")
    ask_usage(tmp_path, "latest")
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "unknown, and in no sum: what 3 requests in flight at a crash may have taken"


def test_run_that_another_process_holds_is_counted_as_it_stood(damaged: Path, tmp_path: Path, capsys: Capture) -> None:
    """Reading takes no lock; that the figures may be old is said."""
    with RunFolder(damaged).lock():
        ask_usage(tmp_path, "latest")
    assert "it is counted as of its last end" in capsys.readouterr().err


def test_columns_that_do_not_fit_are_left_out_and_said(damaged: Path, tmp_path: Path, capsys: Capture) -> None:
    """A name that fills the line costs columns, never digits; what is left out can be had."""
    named = pl.lit("m" * 150).alias("model")
    rewrite(damaged / "results.parquet", lambda frame: frame.with_columns(named))
    ask_usage(tmp_path, "latest")
    printed = capsys.readouterr()
    assert "USD/1k" not in printed.out
    assert "$0.0600" in printed.out
    assert "columns that do not fit are left out; --json and --csv have all" in printed.err


def test_judge_has_a_part_of_its_own(damaged: Path, tmp_path: Path, capsys: Capture) -> None:
    """Requests in judge.parquet are told apart, and are on both sides of the reconciliation."""
    asked = pl.read_parquet(damaged / "results.parquet").head(1)
    facts = {"evalrun.schema_version": "1"}
    renamed = asked.with_columns(pl.lit("j" * 64).alias("row_id"), pl.lit(0.015).alias("billed_usd"))
    renamed.write_parquet(damaged / "judge.parquet", metadata=facts)
    key = asked["request_key"].item()
    one = pl.col("request_key") == key
    judged = pl.lit("j" * 64).alias("row_id")
    rewrite(damaged / "attempts.parquet", lambda f: pl.concat([f, f.filter(one).head(1).with_columns(judged)]))
    known = {"evalrun.n_attempts": str(pl.read_parquet(damaged / "attempts.parquet").height)}
    rewrite(damaged / "results.parquet", lambda frame: frame, more_facts=known)
    manifest = read_manifest(damaged)
    manifest["totals"]["billed_usd"] += PRICE_OF_ONE
    (damaged / "run.json").write_text(json.dumps(manifest), encoding="utf-8")
    found = read_usage(tmp_path, capsys, "latest", "--by", "role")
    assert [(group["role"], group["requests"]) for group in found["groups"]] == [
        ("candidate", 4 + 1),
        ("judge", 1),
        (None, 1),
    ]


def test_run_whose_attempts_were_taken_away_has_no_account(damaged: Path, tmp_path: Path, capsys: Capture) -> None:
    """The command says which file is missing; the run can still be loaded, with sums that are unknown."""
    (damaged / "attempts.parquet").unlink()
    ask_usage(tmp_path, "latest", exit_code=5)
    assert "attempts.parquet is not there" in capsys.readouterr().err
    assert evalrun.load(damaged).summary.billed_usd is None


def test_recipes_of_the_page_run(edited: Path) -> None:
    """Every piece of Python in docs/accounting.md does what is said above it."""
    page = (Path(__file__).parents[2] / "docs/accounting.md").read_text(encoding="utf-8")
    code = "\n".join(re.findall(r"```python\n(.*?)```", page, re.DOTALL))
    known: dict[str, Any] = {"RUN": str(list_run_folders(edited)[0])}
    exec(code, known)
    assert sorted(known["by_error"].rows(), key=str) == [("server_error", 1, 0.0), (None, 5, 5 * PRICE_OF_ONE)]
    assert known["dearest"]["billed_usd"].to_list() == [2 * PRICE_OF_ONE, PRICE_OF_ONE, PRICE_OF_ONE]
    assert (known["in_question"].height, known["sides"].height) == (0, 0)
    assert known["usage"]["billed_usd"].sum() == 5 * PRICE_OF_ONE


def test_page_names_every_column(edited: Path) -> None:
    """A column that the page does not explain is none that anybody can check an invoice by."""
    page = (Path(__file__).parents[2] / "docs/accounting.md").read_text(encoding="utf-8")
    columns = evalrun.load(list_run_folders(edited)[0]).usage(by=KEYS).columns
    assert [name for name in columns if f"`{name}`" not in page and name not in page.split("any of ")[1][:60]] == []
