"""Answers that an older run has paid for are taken, not bought: counted at the server."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import evalrun
from evalrun.cli.main import main
from evalrun.store.journal_format import Kind, encode_frame, parse_frame
from tests.fake_endpoint import (
    FakeEndpoint,
    FakeReply,
    SeenRequest,
    make_completion,
    reply_error,
    reply_json,
    reply_text,
)

JOB = """\
endpoints:
  gateway: {{base_url: "{url}", concurrency: 16, retry: {{max_attempts: 1}}}}
models:
  - {{name: m, params: {{temperature: 0}}, price: {{input: 1000, output: 1000}}}}
prompts:
  - {{name: p, user: "{{{{ question }}}}"}}
dataset: samples.jsonl
graders:
  - {{type: contains, value: "yes"}}
durability: process
"""

Samples = dict[str, str]

BROKEN = FakeReply(body=b"no JSON")
"""A failure that can pass, and that says nothing of the whole lane."""


def write_samples(folder: Path, questions: Samples) -> None:
    """Write the dataset: id → question."""
    lines = [json.dumps({"id": sample_id, "question": question}) for sample_id, question in questions.items()]
    (folder / "samples.jsonl").write_text("\n".join(lines), encoding="utf-8")


def make_job(folder: Path, endpoint: FakeEndpoint, questions: Samples, more: str = "") -> Path:
    """Write a job and its samples."""
    write_samples(folder, questions)
    path = folder / "job.yaml"
    path.write_text(JOB.format(url=endpoint.base_url) + more, encoding="utf-8")
    return path


def run_job(folder: Path, *more: str) -> int:
    """Run the job of a folder."""
    return main(["run", str(folder / "job.yaml"), "-o", str(folder / "reports"), *more])


def list_run_folders(folder: Path) -> list[Path]:
    """Return the run folders, oldest first."""
    return sorted(path.parent for path in folder.glob("reports/*/*/journal"))


def load_results(run: Path) -> pl.DataFrame:
    """Return a run's results."""
    return pl.read_parquet(run / "results.parquet")


def read_manifest(run: Path) -> Any:
    """Return a run's run.json."""
    return json.loads((run / "run.json").read_text(encoding="utf-8"))


QUESTIONS = {"a": "one?", "b": "two?", "c": "three?"}


def test_edited_job_asks_exactly_the_new_requests(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of 1,000 rows 3 are edited, 2 added and all reordered: `--reuse latest` sends exactly 5 requests."""
    questions = {f"s{n}": f"question {n}?" for n in range(1000)}
    with FakeEndpoint(default=reply_text("yes")) as endpoint:
        make_job(tmp_path, endpoint, questions)
        assert run_job(tmp_path) == 0
        edited = questions | {f"s{n}": f"question {n}, edited?" for n in (7, 500, 999)}
        edited |= {"new1": "a new one?", "new2": "another?"}
        write_samples(tmp_path, dict(reversed(edited.items())))
        assert run_job(tmp_path, "--reuse", "latest") == 0
        asked = sorted(request.prompt for request in endpoint.requests[1000:])
    assert asked == sorted([edited[name] for name in ("s7", "s500", "s999", "new1", "new2")])
    first, second = list_run_folders(tmp_path)
    assert "rows taken over from older runs, not asked: 997" in capsys.readouterr().err
    results = load_results(second)
    assert results["sample_id"].to_list() == list(reversed(edited))
    assert results["status"].to_list() == ["ok"] * 1002
    assert results["reused_from"].drop_nulls().to_list() == [first.name] * 997


def test_reused_row_keeps_an_estimated_cost_and_no_estimated_bill(tmp_path: Path) -> None:
    """What was estimated stays marked so as a cost; the run that takes it is billed nothing, which is no estimate."""
    with FakeEndpoint(default=reply_json(make_completion("yes", usage=None))) as endpoint:
        make_job(tmp_path, endpoint, QUESTIONS)
        assert run_job(tmp_path) == 0
        assert run_job(tmp_path, "--reuse", "latest") == 0
        assert len(endpoint.requests) == 3
    first, second = map(load_results, list_run_folders(tmp_path))
    for results in (first, second):
        assert results["usage_source"].to_list() == ["estimated"] * 3
        assert results["usage"].null_count() == 3
    assert second["cost_usd"].to_list() == first["cost_usd"].to_list() == first["billed_usd"].to_list()
    assert second["billed_usd"].to_list() == [0.0] * 3
    assert first["flags"].to_list() == ['["billed_estimated"]'] * 3
    assert second["flags"].null_count() == 3


def test_reused_row_is_billed_nothing_and_keeps_its_cost(tmp_path: Path) -> None:
    """A reused row has its cost, its tokens and its answer; no attempt, no bill, no time."""
    with FakeEndpoint(default=reply_text("yes")) as endpoint:
        make_job(tmp_path, endpoint, QUESTIONS)
        assert run_job(tmp_path) == 0
        assert run_job(tmp_path, "--reuse", "latest") == 0
        assert len(endpoint.requests) == 3
    first, second = map(load_results, list_run_folders(tmp_path))
    kept = ["row_id", "request_key", "status", "output", "prompt_tokens", "usage", "cost_usd", "cost_source", "score"]
    assert second.select(kept).equals(first.select(kept))
    assert second["cost_usd"].to_list() == [0.015] * 3
    assert second["billed_usd"].to_list() == [0.0] * 3
    assert second["attempts"].to_list() == [0] * 3
    for name in ("latency_s", "first_token_s", "queue_s", "started_at", "finished_at"):
        assert second[name].null_count() == 3
    assert pl.read_parquet(list_run_folders(tmp_path)[1] / "attempts.parquet").height == 0


def test_totals_count_what_this_run_spent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Run.json and summary.json count reused rows beside the spending, not in it."""
    with FakeEndpoint(default=reply_text("yes")) as endpoint:
        make_job(tmp_path, endpoint, QUESTIONS)
        assert run_job(tmp_path) == 0
        write_samples(tmp_path, {**QUESTIONS, "d": "four?"})
        capsys.readouterr()
        assert run_job(tmp_path, "--reuse", "latest", "--json") == 0
    first, second = list_run_folders(tmp_path)
    summary = json.loads(capsys.readouterr().out)
    totals = {"requests": 1, "attempts": 1, "usd": 0.015, "prompt_tokens": 10, "completion_tokens": 5}
    totals |= {"rows": 4, "reused_rows": 3, "reused_usd": 0.045, "usd_unknown_rows": 0}
    totals |= {"billed_usd": 0.015, "wasted_usd": 0.0, "estimated_usd": 0.0, "billed_unknown_attempts": 0}
    assert read_manifest(second)["totals"] == totals
    assert summary["run"]["totals"] == totals
    assert read_manifest(second)["reused"]["runs"] == {first.name: 3}


def test_chain_of_reuses_names_the_run_that_asked(tmp_path: Path) -> None:
    """A row that is passed on twice still names the run that asked it, and its cost."""
    with FakeEndpoint(default=reply_text("yes")) as endpoint:
        make_job(tmp_path, endpoint, QUESTIONS)
        for more in ((), ("--reuse", "latest"), ("--reuse", "latest")):
            assert run_job(tmp_path, *more) == 0
        assert len(endpoint.requests) == 3
    first, _, third = list_run_folders(tmp_path)
    assert load_results(third)["reused_from"].to_list() == [first.name] * 3
    assert load_results(third)["cost_usd"].to_list() == [0.015] * 3


def test_stored_outcome_is_taken_once(tmp_path: Path) -> None:
    """Two rows that ask the same get two answers: one stored outcome serves one of them, however it is reached."""
    with FakeEndpoint(default=reply_text("yes")) as endpoint:
        make_job(tmp_path, endpoint, {"a": "same?"})
        assert run_job(tmp_path) == 0
        assert run_job(tmp_path, "--reuse", "latest") == 0
        write_samples(tmp_path, {"a": "same?", "b": "same?", "c": "same?"})
        first, second = list_run_folders(tmp_path)
        assert run_job(tmp_path, "--reuse", second.name, "--reuse", first.name) == 0
        assert len(endpoint.requests) == 1 + 2
    results = load_results(list_run_folders(tmp_path)[2])
    assert results["reused_from"].to_list() == [first.name, None, None]


def test_renamed_sample_finds_its_answer(tmp_path: Path) -> None:
    """Reuse goes by what is asked: another id, the same request, no new request."""
    with FakeEndpoint(default=reply_text("yes")) as endpoint:
        make_job(tmp_path, endpoint, QUESTIONS)
        assert run_job(tmp_path) == 0
        write_samples(tmp_path, {f"{name}-renamed": text for name, text in QUESTIONS.items()})
        assert run_job(tmp_path, "--reuse", "latest") == 0
        assert len(endpoint.requests) == 3


def test_each_repeat_takes_its_own_answer(tmp_path: Path) -> None:
    """Repeats are different requests: more repeats ask only for the new ones, and draws stay apart."""
    count = iter(range(100))
    with FakeEndpoint(default=lambda _: reply_text(f"yes {next(count)}")) as endpoint:
        make_job(tmp_path, endpoint, {"a": "one?"}, "repeats: 2\n")
        assert run_job(tmp_path) == 0
        assert run_job(tmp_path, "--reuse", "latest", "--repeats", "3") == 0
        assert len(endpoint.requests) == 3
    first, second = map(load_results, list_run_folders(tmp_path))
    assert second["output"].to_list()[:2] == first["output"].to_list()


def test_rows_without_an_answer_are_never_taken(tmp_path: Path) -> None:
    """Errors and pending rows of the older run are asked; every finished status is taken."""

    def answer(request: SeenRequest) -> Any:
        if "filtered" in request.prompt:
            return reply_json(make_completion(None, finish_reason="content_filter"))
        if "cut" in request.prompt:
            return reply_json(make_completion("yes", finish_reason="length"))
        return reply_text("" if "empty" in request.prompt else "yes")

    names = ("plain", "filtered", "cut", "empty", "bad", "down")
    with FakeEndpoint(default=answer) as endpoint:
        make_job(tmp_path, endpoint, {name: f"{name}?" for name in names})
        endpoint.script_for("bad?", reply_error(400))
        endpoint.script_for("down?", BROKEN)
        assert run_job(tmp_path) == 3
        (first,) = list_run_folders(tmp_path)
        assert run_job(tmp_path, "--reuse", first.name) == 0
        asked = sorted(request.prompt for request in endpoint.requests[6:])
    assert asked == ["bad?", "down?"]
    second = load_results(list_run_folders(tmp_path)[1])
    assert dict(zip(second["sample_id"], second["status"], strict=True)) == {
        "plain": "ok", "filtered": "filtered", "cut": "truncated", "empty": "empty", "bad": "ok", "down": "ok",
    }  # fmt: skip


def test_killed_run_with_a_torn_tail_is_reused(tmp_path: Path) -> None:
    """The journal is the truth: without tables, without run.json, with a torn last record and a foreign lock."""
    with FakeEndpoint(default=reply_text("yes")) as endpoint:
        make_job(tmp_path, endpoint, QUESTIONS)
        assert run_job(tmp_path) == 0
        (first,) = list_run_folders(tmp_path)
        for path in first.glob("*.*"):
            path.unlink()
        segment = first / "journal" / "000001.jsonl"
        torn = segment.read_bytes()[:-9]
        segment.write_bytes(torn)
        assert run_job(tmp_path, "--reuse", first.name) == 0
        assert len(endpoint.requests) == 3 + 1
        assert segment.read_bytes() == torn


def test_job_names_the_runs(tmp_path: Path) -> None:
    """`reuse` in a job takes `latest`, a path beside the job, or a list; `--reuse` comes first."""
    with FakeEndpoint(default=reply_text("yes")) as endpoint:
        make_job(tmp_path, endpoint, QUESTIONS)
        assert run_job(tmp_path) == 0
        (first,) = list_run_folders(tmp_path)
        for reuse in ("latest", f"reports/job/{first.name}", f"[reports/job/{first.name}, latest]"):
            make_job(tmp_path, endpoint, QUESTIONS, f"reuse: {reuse}\n")
            assert run_job(tmp_path) == 0
        assert len(endpoint.requests) == 3
        make_job(tmp_path, endpoint, QUESTIONS, "reuse: no-such-run\n")
        assert run_job(tmp_path, "--reuse", "latest") == 0
        assert len(endpoint.requests) == 3


@pytest.mark.parametrize(("key", "flags"), [("reuse: latest\n", ()), ("", ("--reuse", "latest"))])
def test_latest_without_a_finished_run_reuses_nothing_and_says_so(
    tmp_path: Path, key: str, flags: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """The first run of a job that takes over from the `latest` asks everything, and says why."""
    with FakeEndpoint(default=reply_text("yes")) as endpoint:
        make_job(tmp_path, endpoint, QUESTIONS, key)
        assert run_job(tmp_path, *flags) == 0
        assert len(endpoint.requests) == 3
    assert "job has no finished run yet, so nothing is reused" in capsys.readouterr().err


def test_unknown_run_is_refused_before_anything_is_sent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run that is not there is exit 2, and leaves no run folder."""
    with FakeEndpoint(default=reply_text("yes")) as endpoint:
        make_job(tmp_path, endpoint, QUESTIONS)
        assert run_job(tmp_path, "--reuse", "no-such-run") == 2
        assert endpoint.requests == []
    assert "there is no run 'no-such-run'" in capsys.readouterr().err
    assert list_run_folders(tmp_path) == []


def test_resume_goes_on_with_the_same_older_runs(tmp_path: Path) -> None:
    """A resume takes from the runs that its first call found, and nothing twice; `latest` does not become another."""
    with FakeEndpoint(default=reply_text("yes")) as endpoint:
        make_job(tmp_path, endpoint, {"a": "one?", "b": "two?", "x": "same?"})
        assert run_job(tmp_path) == 0
        write_samples(tmp_path, {"a": "one?", "b": "changed?", "d": "down?", "x": "same?"})
        endpoint.script_for("down?", BROKEN)
        assert run_job(tmp_path, "--reuse", "latest") == 3
        assert len(endpoint.requests) == 3 + 2
        # b is as it was again, and a second row asks what x asked: x's outcome is given away already.
        write_samples(tmp_path, {"a": "one?", "b": "two?", "d": "down?", "x": "same?", "y": "same?"})
        assert run_job(tmp_path, "--resume") == 0
        asked = sorted(request.prompt for request in endpoint.requests[5:])
    assert asked == ["down?", "same?"]
    first, second = list_run_folders(tmp_path)
    results = load_results(second)
    assert results["reused_from"].to_list() == [first.name, first.name, None, first.name, None]
    assert results["attempts"].to_list() == [0, 1, 2, 0, 1]
    billed = results["billed_usd"].to_list()
    assert billed[:2] + billed[3:] == [0.0, 0.015, 0.0, 0.015]
    # The reply that was broken off may have been billed: the sum holds what it may have cost, and says so.
    assert billed[2] > 0.015
    assert results["flags"].to_list()[2] == '["billed_estimated"]'
    attempts = pl.read_parquet(second / "attempts.parquet")
    assert attempts["cost_usd"].sum() == pytest.approx(sum(billed), abs=1e-12)


def test_take_over_that_was_cut_short_is_gone_on_with(tmp_path: Path) -> None:
    """A crash while outcomes are taken over loses none: the resume takes the rest, and asks nothing."""
    questions = {name: f"{name}?" for name in "abcdefgh"}
    with FakeEndpoint(default=reply_text("yes")) as endpoint:
        make_job(tmp_path, endpoint, questions)
        assert run_job(tmp_path) == 0
        assert run_job(tmp_path, "--reuse", "latest") == 0
        _, second = list_run_folders(tmp_path)
        for path in second.glob("*.*"):
            path.unlink()
        segment = second / "journal" / "000001.jsonl"
        lines = segment.read_bytes().splitlines(keepends=True)
        segment.write_bytes(b"".join(lines[:4]) + lines[4][:50])
        assert run_job(tmp_path, "--resume") == 0
        assert len(endpoint.requests) == len(questions)
    results = load_results(list_run_folders(tmp_path)[1])
    assert results["status"].to_list() == ["ok"] * 8
    assert results["attempts"].to_list() == [0] * 8


def test_lost_request_of_a_row_that_is_taken_over_stays_in_the_books(tmp_path: Path) -> None:
    """A request in flight when a call died counts, at an unknown price, also where its row is then not asked again."""
    budget = ["--set", "budget.requests=9"]
    with FakeEndpoint(default=reply_text("yes")) as endpoint:
        make_job(tmp_path, endpoint, QUESTIONS)
        assert run_job(tmp_path) == 0
        assert run_job(tmp_path, *budget) == 0
        first, second = list_run_folders(tmp_path)
        for path in second.glob("*.*"):
            path.unlink()
        segment = second / "journal" / "000001.jsonl"
        lines = segment.read_bytes().splitlines(keepends=True)
        (lost,) = [number for number, line in enumerate(lines) if b'"t":"done"' in line][-1:]
        segment.write_bytes(b"".join(lines[:lost]))
        for _ in range(2):  # Each call reads the journal anew.
            assert run_job(tmp_path, "--resume", str(second), "--reuse", str(first), *budget) == 0
        n_sent = len(endpoint.requests) - len(QUESTIONS)
    assert json.loads((second / "run.json").read_bytes())["budget"]["requests"]["spent"] == n_sent == len(QUESTIONS)
    results = load_results(second).filter(pl.col("reused_from").is_not_null())
    assert (results["attempts"].to_list(), results["billed_usd"].to_list()) == ([1], [None])
    attempts = pl.read_parquet(second / "attempts.parquet").filter(pl.col("error_code") == "interrupted")
    assert (attempts.height, attempts["maybe_billed"].all(), attempts["cost_usd"].null_count()) == (1, True, 1)


def test_resume_without_the_older_run_keeps_what_was_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """When the older run is deleted, what was taken from it stays, and a resume says that it is gone."""
    with FakeEndpoint(default=reply_text("yes")) as endpoint:
        make_job(tmp_path, endpoint, QUESTIONS)
        assert run_job(tmp_path) == 0
        write_samples(tmp_path, {**QUESTIONS, "down": "down?"})
        endpoint.script_for("down?", BROKEN)
        assert run_job(tmp_path, "--reuse", "latest") == 3
        shutil.rmtree(list_run_folders(tmp_path)[0])
        assert run_job(tmp_path, "--resume") == 0
        assert len(endpoint.requests) == 3 + 2
    assert "that outcomes were taken from is gone; what was taken stays" in capsys.readouterr().err


def test_run_cannot_reuse_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A resume that names its own run is exit 2."""
    with FakeEndpoint(default=reply_text("yes")) as endpoint:
        make_job(tmp_path, endpoint, QUESTIONS)
        endpoint.script_for("two?", BROKEN)
        assert run_job(tmp_path) == 3
        (first,) = list_run_folders(tmp_path)
        assert run_job(tmp_path, "--resume", "--reuse", first.name) == 2
        assert len(endpoint.requests) == 3
    assert "cannot reuse itself" in capsys.readouterr().err


def test_latest_of_a_resumed_run_is_another_run(tmp_path: Path) -> None:
    """A finished run that is gone on with does not take itself for the newest one."""
    with FakeEndpoint(default=reply_text("yes")) as endpoint:
        make_job(tmp_path, endpoint, QUESTIONS, "reuse: latest\n")
        assert run_job(tmp_path) == 0
        write_samples(tmp_path, {**QUESTIONS, "d": "four?"})
        assert run_job(tmp_path, "--resume", list_run_folders(tmp_path)[0].name) == 0
        assert len(endpoint.requests) == 3 + 1
    assert load_results(list_run_folders(tmp_path)[0])["reused_from"].null_count() == 4


def test_python_call_reuses(tmp_path: Path) -> None:
    """`evalrun.run(..., reuse="latest")` is the same as on the command line."""
    with FakeEndpoint(default=reply_text("yes")) as endpoint:
        job = make_job(tmp_path, endpoint, QUESTIONS)
        reports = tmp_path / "reports"
        first = evalrun.run(job, reports_dir=reports)
        second = evalrun.run(job, reports_dir=reports, reuse="latest")
        assert len(endpoint.requests) == 3
    assert second.results.collect()["reused_from"].to_list() == [first.run_id] * 3
    assert [arm.n_reused for arm in second.summary.arms] == [3]


def test_budget_is_not_charged_for_reused_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A budget that pays for one request suffices when the others are reused, and no shortage is foretold."""
    with FakeEndpoint(default=reply_text("yes")) as endpoint:
        make_job(tmp_path, endpoint, QUESTIONS)
        assert run_job(tmp_path) == 0
        write_samples(tmp_path, {**QUESTIONS, "d": "four?"})
        capsys.readouterr()
        assert run_job(tmp_path, "--reuse", "latest", "--set", "budget.requests=1") == 0
        assert len(endpoint.requests) == 4
    assert "expected to take" not in capsys.readouterr().err


def test_run_says_what_an_older_run_would_spare(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run that asks again what an older one has answered says so; one that does not, says nothing."""
    with FakeEndpoint(default=reply_text("yes")) as endpoint:
        make_job(tmp_path, endpoint, QUESTIONS)
        assert run_job(tmp_path) == 0
        assert "--reuse" not in capsys.readouterr().err
        (first,) = list_run_folders(tmp_path)
        write_samples(tmp_path, {**QUESTIONS, "d": "four?"})
        assert run_job(tmp_path) == 0
        assert len(endpoint.requests) == 3 + 4
        assert (
            f"{first.name} has answers to 3 of the 4 requests already: --reuse {first.name}" in capsys.readouterr().err
        )
        write_samples(tmp_path, {"z": "another dataset?"})
        assert run_job(tmp_path) == 0
        assert "--reuse" not in capsys.readouterr().err


def test_plan_says_what_would_be_reused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`plan` tells requests and USD that an older run spares, named or not, and leaves them out of what is to come."""
    with FakeEndpoint(default=reply_text("yes")) as endpoint:
        job = make_job(tmp_path, endpoint, QUESTIONS)
        plan = ["plan", str(job), "-o", str(tmp_path / "reports")]
        assert run_job(tmp_path) == 0
        write_samples(tmp_path, {**QUESTIONS, "d": "four?"})
        capsys.readouterr()
        assert main([*plan, "--json"]) == 0
        unasked = json.loads(capsys.readouterr().out)
        assert main([*plan, "--reuse", "latest", "--json"]) == 0
        asked = json.loads(capsys.readouterr().out)
        assert main([*plan, "--reuse", "latest"]) == 0
        assert "spares 3 of 4 requests" in capsys.readouterr().out
        assert len(endpoint.requests) == 3
    (first,) = list_run_folders(tmp_path)
    spared = {"runs": [first.name], "requests": 3, "models": {"m": 3}, "usd": 0.045, "usd_unknown_requests": 0}
    assert unasked["reuse"] == {"asked_for": False, **spared}
    assert asked["reuse"] == {"asked_for": True, **spared}
    assert [each["requests"] for each in (*unasked["models"], *asked["models"])] == [4, 1]


def test_reused_rows_stand_in_terminal_and_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The terminal, the Markdown and the HTML report say how many rows were taken over."""
    with FakeEndpoint(default=reply_text("yes")) as endpoint:
        make_job(tmp_path, endpoint, QUESTIONS)
        assert run_job(tmp_path) == 0
        write_samples(tmp_path, {**QUESTIONS, "d": "four?"})
        capsys.readouterr()
        assert run_job(tmp_path, "--reuse", "latest") == 0
    run = list_run_folders(tmp_path)[1]
    assert "3 of 4 rows taken over from older runs" in capsys.readouterr().out
    for name in ("report.md", "report.html"):
        assert "3 rows taken over from older runs" in (run / name).read_text(encoding="utf-8"), name


def test_answer_that_evalrun_does_not_write_is_asked_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A forged record of an older run poisons neither the run that was to take it over nor its resume."""
    with FakeEndpoint(default=reply_text("yes")) as endpoint:
        make_job(tmp_path, endpoint, QUESTIONS)
        assert run_job(tmp_path) == 0
        (first,) = list_run_folders(tmp_path)
        segment = first / "journal" / "000001.jsonl"
        lines = segment.read_bytes().splitlines(keepends=True)
        (number,) = [number for number, line in enumerate(lines) if b'"t":"done"' in line][-1:]
        frame = parse_frame(lines[number])
        assert frame is not None
        fields = json.loads(frame.body)
        fields["completion"]["output"] = ["yes"]
        lines[number] = encode_frame(Kind.DONE, fields)
        segment.write_bytes(b"".join(lines))
        assert run_job(tmp_path, "--reuse", str(first)) == 0
        assert f"1 record of {first.name} is not as evalrun writes them and was left out" in capsys.readouterr().err
        assert len(endpoint.requests) == len(QUESTIONS) + 1
        second = list_run_folders(tmp_path)[-1]
        assert run_job(tmp_path, "--resume", str(second)) == 0
        segment.unlink()
        os.mkfifo(segment)  # Nobody writes into it: it must not be waited for.
        assert run_job(tmp_path, "--reuse", str(first)) == 2
        assert f"cannot take outcomes over from the run {first.name}" in capsys.readouterr().err
        write_samples(tmp_path, QUESTIONS | {"new": "Is this new?"})
        assert run_job(tmp_path, "--resume", str(second)) == 0
        assert "what was taken stays" in capsys.readouterr().err
        assert len(endpoint.requests) == len(QUESTIONS) + 2
