"""Each command on a small run: what it prints, what it leaves, how it exits."""

import csv
import io
import json
import os
import shlex
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import jsonschema
import polars as pl
import pytest

from evalrun.cli.main import main
from evalrun.cli.simulate_command import GATEWAY_MODELS
from evalrun.job.config import load_job
from evalrun.job.schema import build_job_schema
from evalrun.job.yaml_syntax import parse_yaml
from tests.cli.processes import ROOT, find_run_folder, run_evalrun, serve_simulator, write_job

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder made by `evalrun init`, with one run of its job."""
    folder = tmp_path_factory.mktemp("started")
    assert main(["init", str(folder)]) == 0
    assert main(["run", str(folder / "job.yaml"), "-o", str(folder / "reports"), "--progress", "none"]) == 0
    return folder


@pytest.fixture
def run(started: Path, tmp_path: Path) -> Path:
    """A run folder of one's own, with its job beside it; its reports folder is three levels up."""
    copy = tmp_path / "started"
    shutil.copytree(started, copy)
    return find_run_folder(copy)


def read_json(capsys: Capture) -> dict[str, object]:
    """Return the JSON object that was printed."""
    value = json.loads(capsys.readouterr().out)
    assert isinstance(value, dict)
    return value


def test_init_refuses_to_overwrite(started: Path, capsys: Capture) -> None:
    """A second init in the same folder writes nothing and says so."""
    before = {path.name: path.read_bytes() for path in started.iterdir() if path.is_file()}
    assert main(["init", str(started)]) == 2
    assert "is there already" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in started.iterdir() if path.is_file()} == before


def test_init_writes_the_schema_that_its_job_satisfies(started: Path) -> None:
    """The starter job is valid by the schema that lies beside it."""
    schema = json.loads((started / "job.schema.json").read_text(encoding="utf-8"))
    job = load_job(started / "job.yaml", environ={})
    jsonschema.Draft202012Validator(schema).validate(job.raw)


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_example_job_satisfies_the_schema(path: Path) -> None:
    """Every example job passes the JSON Schema, so that no editor underlines it."""
    job = load_job(path, environ={})
    jsonschema.Draft202012Validator(build_job_schema()).validate(job.raw)


@pytest.mark.parametrize("name", ["quickstart", "prompt-comparison", "gateway", "local"])
def test_example_job_is_valid_without_a_key(name: str, capsys: Capture) -> None:
    """`validate` and `plan` need neither key nor network."""
    assert main(["validate", str(ROOT / f"configs/{name}.yaml")]) == 0
    assert main(["plan", str(ROOT / f"configs/{name}.yaml")]) == 0
    assert "nothing was sent" in capsys.readouterr().out


def test_run_writes_every_file_for_its_owner_only(run: Path) -> None:
    """The folder holds the tables, reports and manifest of the contract, at 0700 and 0600."""
    names = {path.name for path in run.iterdir()}
    modes = {stat.S_IMODE(path.stat().st_mode) for path in run.rglob("*") if path.is_file() and path.name[0] != "."}
    tables = {"results.parquet", "attempts.parquet", "grades.parquet"}
    reports = {"run.json", "report.html", "report.md", "junit.xml", "summary.json"}
    assert names >= tables | reports | {"journal"}
    assert {stat.S_IMODE(run.stat().st_mode), *modes} == {0o700, 0o600}


def test_run_keeps_the_order_of_the_plan(run: Path) -> None:
    """Rows stand in the order sample, prompt, model, repeat, each once."""
    results = pl.read_parquet(run / "results.parquet")
    samples = [json.loads(line)["id"] for line in (run.parents[2] / "samples.jsonl").read_text().splitlines()]
    expected = [(sample, "short", model, 0) for sample in samples for model in ("sim-strong", "sim-weak")]
    assert results.select("sample_id", "prompt", "model", "repeat").rows() == expected


def test_run_says_simulated_wherever_a_result_is_shown(run: Path, capsys: Capture) -> None:
    """Terminal, HTML, Markdown, JSON and the list say that the answers are simulated."""
    assert main(["show", str(run)]) == 0
    assert main(["list", "-o", str(run.parents[1])]) == 0
    shown = capsys.readouterr().out
    texts = [(run / name).read_text(encoding="utf-8") for name in ("report.html", "report.md", "summary.json")]
    assert shown.startswith("SIMULATED")
    assert "(simulated)" in shown
    assert ["simulated" in text.lower() for text in texts] == [True] * 3


def test_run_prints_one_json_object(started: Path, tmp_path: Path, capsys: Capture) -> None:
    """With --json a run prints one object that names its verdict and exit code, and nothing else on stdout."""
    arguments = ["run", str(started / "job.yaml"), "-o", str(tmp_path), "--limit", "2", "--progress", "none", "--json"]
    assert main(arguments) == 0
    printed = read_json(capsys)
    assert (printed["exit_code"], printed["schema_version"]) == (0, "1")


def test_failing_gate_is_exit_1(started: Path, tmp_path: Path, capsys: Capture) -> None:
    """A pass rate below the gate's ends with exit 1 and names rule and arm."""
    arguments = ["run", str(started / "job.yaml"), "-o", str(tmp_path), "--set", "gate.min_pass_rate=1.0"]
    assert main(arguments) == 1
    assert "min_pass_rate" in capsys.readouterr().out


def test_no_gate_is_exit_0(started: Path, tmp_path: Path) -> None:
    """--no-gate leaves the verdict out."""
    arguments = ["run", str(started / "job.yaml"), "-o", str(tmp_path), "--set", "gate.min_pass_rate=1.0", "--no-gate"]
    assert main(arguments) == 0


def test_grade_applies_the_job_as_it_is_now(run: Path) -> None:
    """New graders on stored answers change grades and verdict; the answers stay."""
    job = run.parents[2] / "job.yaml"
    before = pl.read_parquet(run / "results.parquet")
    text = job.read_text(encoding="utf-8")
    job.write_text(text[: text.index("graders:")] + "graders: [{type: contains, value: certainly not}]\n", "utf-8")
    assert main(["grade", str(run), "--job", str(job)]) == 0
    after = pl.read_parquet(run / "results.parquet")
    assert after["passed"].to_list() == [False] * 32
    assert after["output"].to_list() == before["output"].to_list()


def test_report_is_the_same_when_rendered_again(run: Path) -> None:
    """Rendering again changes no byte of HTML, Markdown and summary."""
    names = ("report.html", "report.md", "summary.json", "junit.xml")
    before = [(run / name).read_bytes() for name in names]
    assert main(["report", str(run)]) == 0
    assert [(run / name).read_bytes() for name in names] == before


def break_off_between_the_tables(run: Path, *, damage: pl.Expr) -> None:
    """Leave grades that are newer than the results, as a crash between the two renames does."""
    grades = pl.read_parquet(run / "grades.parquet").with_columns(damage)
    grades.write_parquet(run / "grades.parquet", metadata={"evalrun.schema_version": "1", "evalrun.grades_digest": "x"})


def test_report_mends_results_that_are_older_than_the_grades(run: Path) -> None:
    """A crash between grades and results is mended on load: the grades are the truth."""
    break_off_between_the_tables(run, damage=pl.lit(value=False).alias("passed"))
    assert main(["report", str(run)]) == 0
    assert set(pl.read_parquet(run / "results.parquet")["passed"]) == {False}


def test_report_refuses_grades_of_other_rows(run: Path, capsys: Capture) -> None:
    """Grades that belong to other rows cannot be mended; the way out is named."""
    break_off_between_the_tables(run, damage=pl.lit("0" * 64).alias("row_id"))
    assert main(["report", str(run)]) == 5
    assert "evalrun grade" in capsys.readouterr().err


def test_validate_prints_the_problems_as_json(run: Path, capsys: Capture) -> None:
    """`validate --json` tells a program what is wrong, too."""
    job = run.parents[2] / "job.yaml"
    job.write_text(job.read_text(encoding="utf-8") + "nonsense: 1\n", encoding="utf-8")
    assert main(["validate", str(job), "--json"]) == 2
    printed = read_json(capsys)
    assert printed["valid"] is False
    assert "nonsense" in str(printed["problems"])


def test_command_of_a_later_version_is_said_to_be_one(capsys: Capture) -> None:
    """A planned command is not a typo."""
    assert main(["compare", "a", "b"]) == 2
    assert "not in this version yet" in capsys.readouterr().err


def test_show_puts_failing_rows_first(run: Path, capsys: Capture) -> None:
    """Failing rows come first, then the others; --failed leaves those out."""
    assert main(["show", str(run), "--format", "jsonl", "--limit", "0"]) == 0
    passed = [json.loads(line)["passed"] for line in capsys.readouterr().out.splitlines()]
    assert main(["show", str(run), "--format", "jsonl", "--limit", "0", "--failed"]) == 0
    failed = [json.loads(line)["passed"] for line in capsys.readouterr().out.splitlines()]
    assert passed == sorted(passed)
    assert (len(passed), set(failed)) == (32, {False})


def test_show_csv_is_no_formula(run: Path, capsys: Capture) -> None:
    """A cell that a spreadsheet would run is defused; the canonical data stay."""
    job = run.parents[2] / "job.yaml"
    text = job.read_text(encoding="utf-8")
    grader = """graders: [{type: contains, value: "=cmd|' /C calc'!A0", name: "=1+1"}]\n"""
    job.write_text(text[: text.index("graders:")] + grader, encoding="utf-8")
    assert main(["grade", str(run), "--job", str(job)]) == 0
    capsys.readouterr()
    assert main(["show", str(run), "--format", "csv", "--limit", "0"]) == 0
    rows = list(csv.reader(io.StringIO(capsys.readouterr().out)))
    starts = {cell[0] for row in rows[1:] for cell in row if cell}
    assert not starts & set("=+@\t\r")


def test_show_raw_prints_the_servers_reply(run: Path, capsys: Capture) -> None:
    """--raw shows the reply as it came, from the journal."""
    assert main(["show", str(run), "--raw", "--limit", "1"]) == 0
    assert '"object":"chat.completion"' in capsys.readouterr().out


@pytest.mark.parametrize("reference", ["latest", "job", "20"])
def test_run_is_found_by_name(run: Path, reference: str, capsys: Capture) -> None:
    """A run is found as `latest`, by its job's name and by a prefix of its id."""
    assert main(["show", reference, "-o", str(run.parents[1]), "--limit", "1"]) == 0


def test_schema_takes_idle_keys_of_later_versions(started: Path, tmp_path: Path) -> None:
    """What `validate` takes because it does nothing, the schema takes; what it refuses, the schema refuses."""
    text = (started / "job.yaml").read_text(encoding="utf-8").replace("samples.jsonl", str(started / "samples.jsonl"))
    idle = "report: {baseline_model: null}\n"
    (tmp_path / "job.yaml").write_text(text + idle, encoding="utf-8")
    raw = load_job(tmp_path / "job.yaml", environ={}).raw
    validator = jsonschema.Draft202012Validator(build_job_schema())
    validator.validate(raw)
    assert not validator.is_valid({**raw, "report": {"baseline_model": "careful"}})


def test_unknown_run_lists_what_there_is(run: Path, capsys: Capture) -> None:
    """A reference that fits nothing is exit 2 and names the runs."""
    assert main(["show", "nonsense", "-o", str(run.parents[1])]) == 2
    assert run.name in capsys.readouterr().err


def test_unknown_model_lists_what_there_is(started: Path, capsys: Capture) -> None:
    """A glob that fits no model is exit 2 and names the models."""
    assert main(["plan", str(started / "job.yaml"), "--model", "gpt*"]) == 2
    assert "sim-strong" in capsys.readouterr().err


def test_plan_prints_json(started: Path, capsys: Capture) -> None:
    """`plan --json` has low, expected and high figures for each model."""
    assert main(["plan", str(started / "job.yaml"), "--json"]) == 0
    printed = read_json(capsys)
    models = printed["models"]
    assert isinstance(models, list)
    assert [set(model["usd"]) for model in models] == [{"low", "expected", "high"}] * 2


def test_schema_prints_the_schema(capsys: Capture) -> None:
    """`schema` prints a valid JSON Schema."""
    assert main(["schema"]) == 0
    jsonschema.Draft202012Validator.check_schema(read_json(capsys))


def test_locked_run_is_refused(run: Path) -> None:
    """A second process on one folder is exit 2."""
    from evalrun.store.folder import RunFolder

    with RunFolder.open(run).lock():
        refused = run_evalrun("report", str(run), cwd=run)
    assert refused.returncode == 2
    assert "evalrun" in refused.stderr


@pytest.mark.parametrize("command", ["run {job} --limit 3", "schema"])
@pytest.mark.parametrize("redirect", ["", "2>&1", "2>/dev/null"])
def test_closed_pipe_changes_neither_run_nor_exit_code(
    started: Path, tmp_path: Path, command: str, redirect: str
) -> None:
    """A reader that goes away (`| head -c 1`) stops no run and looks like no failed gate."""
    words = command.format(job=started / "job.yaml")
    line = f"{sys.executable} -m evalrun {words} {redirect} | head -c 1; exit ${{PIPESTATUS[0]}}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    piped = subprocess.run(
        ["bash", "-c", line], capture_output=True, text=True, cwd=tmp_path, env=environment, check=False
    )
    assert (piped.returncode, "Traceback" in piped.stderr) == (0, False)
    assert command == "schema" or (find_run_folder(tmp_path) / "run.json").exists()


def test_output_that_the_terminal_cannot_encode_is_escaped(run: Path) -> None:
    """A terminal without UTF-8 gets escapes, not a crash."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "evalrun", "show", str(run), "--limit", "1"]
    shown = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert (shown.returncode, shown.stderr) == (0, "")


@pytest.mark.parametrize(
    ("graders", "problem"),
    [("[{type: contains, value: '{{ lable }}'}]", "'lable' is undefined"), ("[]", "has no graders")],
)
def test_grade_checks_before_it_replaces(run: Path, graders: str, problem: str, capsys: Capture) -> None:
    """Graders that do not fit the samples, or no graders at all, are exit 2 and leave the old grades."""
    job = run.parents[2] / "job.yaml"
    text = job.read_text(encoding="utf-8")
    job.write_text(text[: text.index("graders:")] + f"graders: {graders}\n", encoding="utf-8")
    before = (run / "grades.parquet").read_bytes()
    assert main(["grade", str(run), "--job", str(job)]) == 2
    assert problem in capsys.readouterr().err
    assert (run / "grades.parquet").read_bytes() == before


def test_show_refuses_a_filter_that_no_row_meets(run: Path, capsys: Capture) -> None:
    """A typo in a filter is exit 2 and lists what there is."""
    assert main(["show", str(run), "--model", "sim-week"]) == 2
    assert "sim-strong, sim-weak" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["show", "report", "grade"])
def test_run_that_has_not_ended_has_nothing_to_show(run: Path, command: str, capsys: Capture) -> None:
    """A killed run is exit 2 with the command that goes on."""
    (run / "run.json").unlink()
    assert main([command, str(run)]) == 2
    assert "--resume" in capsys.readouterr().err


def test_unknown_command_names_the_close_one(capsys: Capture) -> None:
    """A mistyped command comes with a suggestion."""
    assert main(["rnu"]) == 2
    assert "did you mean run?" in capsys.readouterr().err


def test_running_simulator_of_another_seed_is_refused(tmp_path: Path) -> None:
    """A job whose simulator would answer otherwise is exit 2 before anything is sent."""
    job = write_job(tmp_path, url="http://127.0.0.1:1", n_samples=3)
    with serve_simulator(job) as url:
        text = job.read_text(encoding="utf-8").replace("http://127.0.0.1:1", url)
        job.write_text(text.replace("answer_column: answer", "answer_column: answer\n      seed: 9"), encoding="utf-8")
        refused = run_evalrun("run", "job.yaml", cwd=tmp_path)
    assert refused.returncode == 2
    assert "seed 1, the job says 9" in refused.stderr
    assert not (tmp_path / "reports").exists()


def test_simulator_that_is_not_there_is_named(tmp_path: Path, capsys: Capture) -> None:
    """A job whose simulator does not run is exit 2 and says how to start it."""
    job = write_job(tmp_path, url="http://127.0.0.1:1", n_samples=3)
    assert main(["run", str(job), "-o", str(tmp_path / "reports")]) == 2
    assert "evalrun simulate" in capsys.readouterr().err


def test_simulate_without_a_job_serves_the_gateways_models() -> None:
    """The models of the seed's gateway are served by default."""
    page = parse_models_of_gateway_job()
    assert page <= set(GATEWAY_MODELS)


def parse_models_of_gateway_job() -> set[str]:
    """Return the wire ids of the example job for the gateway."""
    from evalrun.job.places import Places

    data = parse_yaml((ROOT / "configs/gateway.yaml").read_text(encoding="utf-8"), Places("gateway.yaml"))
    return {model.get("model", model["name"]) for model in data["models"]}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--nope"], "No such option"),
        (["nosuch"], "No such command"),
        (["run"], "Missing argument"),
        (["run", "job.yaml", "--limit", "x"], "not a valid integer"),
        (["run", "job.yaml", "--bugdet-usd", "3"], "--budget-usd"),
        (["show", "a", "b"], "unexpected extra argument"),
    ],
)
def test_misspelt_command_line_is_exit_2_with_its_usage(tmp_path: Path, words: list[str], told: str) -> None:
    """What the command line's parser refuses is told in a few lines, by a real process, and is never a failed gate."""
    (tmp_path / "job.yaml").write_text("", encoding="utf-8")
    done = run_evalrun(*words, cwd=tmp_path)
    assert done.returncode == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_plan_ends_with_the_command_that_does_what_was_planned(tmp_path: Path) -> None:
    """The run that `plan` offers is the one it priced: narrowed, changed and capped by the same options."""
    job = write_job(tmp_path, url="http://127.0.0.1:1", n_samples=3)
    given = ["--limit", "2", "--model", "s*", "--budget-usd", "0.5", "--set", "repeats=2", "-o", "new runs"]
    done = run_evalrun("plan", job.name, *given, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    told = done.stdout.splitlines()[-1].removeprefix("next: evalrun ")
    assert sorted(shlex.split(told)) == sorted(["run", job.name, *given])
