"""Tests of `evalrun simulate`: as a process that other people's clients ask, and what it refuses."""

import json
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from email.message import Message
from pathlib import Path
from typing import Any

import pytest

from evalrun.cli.answer_file import load_answer_book
from evalrun.cli.main import main
from evalrun.cli.profile_options import change_profiles
from evalrun.errors import DatasetError
from evalrun.options import ProfileOptions, SimulatedLimits, SimulatorOptions
from evalrun.quirk_names import QUIRK_NAMES
from tests.cli.processes import start_evalrun, write_job

Capture = pytest.CaptureFixture[str]
ROWS: list[dict[str, Any]] = [
    {"id": "r1", "question": "What is 2+2?", "answer": "four", "german": "vier"},
    {"id": "r2", "question": "What is 3+3?", "answer": 6, "german": "sechs"},
    {"id": "r3", "question": "What is 3+3?", "answer": "again", "german": "nochmals"},
]
NO_FLAGS: Mapping[str, Any] = {
    "quirks": (), "seed": None, "accuracy": None, "latency_ms": None, "error_rate": None,
    "requests_per_minute": None, "tokens_per_minute": None, "concurrency": None, "quota_tokens": None,
    "headers": None, "retry_after": None,
}  # fmt: skip
PLAIN = SimulatorOptions(answer="{{ answer }}", profiles={"a": ProfileOptions(), "b": ProfileOptions(accuracy=0.1)})

GATEWAY_EXAMPLE = """
{
  "model": "gpt-5.1",
  "messages": [
    {"role": "system", "content": "You are a helpful assistant."},
    {"role": "user", "content": "Hello!"}
  ],
  "stream": false, "temperature": 1, "max_tokens": 1000, "max_completion_tokens": 1000, "top_p": 1,
  "frequency_penalty": 0, "presence_penalty": 0, "stop": {}, "n": 1, "seed": 12345, "user": "<string>",
  "tools": [{}], "tool_choice": {}, "response_format": {}, "logprobs": false, "top_logprobs": 5, "logit_bias": {},
  "parallel_tool_calls": true
}
"""


@contextmanager
def simulate(*arguments: str, cwd: Path, **options: Any) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Run `evalrun simulate ARGUMENTS` on a free port; yield its URL and the process, ended in the end."""
    process = start_evalrun("simulate", *arguments, "--port", "0", cwd=cwd, **options)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip(), process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=20)


def ask(url: str, question: str, *, headers: Mapping[str, str] | None = None) -> tuple[int, Message, Any]:
    """Return status, headers and body of one chat completion."""
    body = json.dumps({"model": "gpt-5.1", "messages": [{"role": "user", "content": question}]}).encode()
    request = urllib.request.Request(f"{url}/chat/completions", data=body, headers=dict(headers or {}))
    try:
        with urllib.request.urlopen(request, timeout=20) as reply:
            return reply.status, reply.headers, json.load(reply)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, json.load(error)


def write_rows(folder: Path, rows: list[dict[str, Any]] = ROWS) -> Path:
    """Write rows as JSONL and return the path."""
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_simulate_answers_other_clients_from_a_file(tmp_path: Path) -> None:
    """Without a job and without our headers a prompt gets the right answer of its row, and the end sums up."""
    rows = write_rows(tmp_path)
    flags = ("--answers", str(rows), "--match", "question", "--accuracy", "1")
    with simulate(*flags, cwd=tmp_path) as (url, process):
        texts = [
            ask(f"{url}{base}", question)[2]["choices"][0]["message"]["content"]
            for base, question in (("/chat", "Say: What is 2+2? Now."), ("/v1", "What is 3+3?"), ("/v1", "Hello"))
        ]
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 0
    assert texts[:2] == ["four", "6"]
    assert texts[2].startswith("Simulated reply")
    assert "right answers: 2 rows" in errors
    assert "left out: 1 row" in errors
    assert "served 3 requests, 0 refused, 1 matched no row of --answers" in errors


def test_simulate_takes_the_gateways_own_example(tmp_path: Path) -> None:
    """The curl example of the gateway's page works with the host changed and nothing else."""
    headers = {"Authorization": "Bearer <token>", "Content-Type": "application/json"}
    with simulate(cwd=tmp_path) as (url, _):
        request = urllib.request.Request(f"{url}/chat/chat/completions", GATEWAY_EXAMPLE.encode(), headers)
        with urllib.request.urlopen(request, timeout=20) as reply:
            completion = json.load(reply)
    assert (completion["object"], completion["model"]) == ("chat.completion", "gpt-5.1")
    assert completion["choices"][0]["message"]["content"].endswith("Hello!")


def test_simulate_checks_the_key_of_a_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With --api-key-env only requests with that key are answered."""
    monkeypatch.setenv("GATE_KEY", "s3cret")
    with simulate("--api-key-env", "GATE_KEY", cwd=tmp_path) as (url, _):
        statuses = [
            ask(f"{url}/v1", "Hello", headers=headers)[0] for headers in ({}, {"Authorization": "Bearer s3cret"})
        ]
    assert statuses == [401, 200]


def test_simulate_limits_and_bends_as_told(tmp_path: Path) -> None:
    """Flags hold for every model: one request a minute, with headers and Retry-After in ms, each with a quirk."""
    flags = (
        "--rpm",
        "1",
        "--rate-headers",
        "groq",
        "--retry-after",
        "ms",
        "--quirk",
        "model-alias",
        "--latency-ms",
        "0",
    )
    with simulate(*flags, cwd=tmp_path) as (url, _):
        first, second = ask(f"{url}/v1", "Hello"), ask(f"{url}/v1", "Hello")
    assert (first[0], second[0]) == (200, 429)
    assert first[1]["x-simulator-quirk"] == "Q52"
    assert first[2]["model"] != "gpt-5.1"
    assert first[1]["x-ratelimit-limit-requests"] == "1440"
    assert int(second[1]["retry-after-ms"]) > 0


@pytest.mark.parametrize(
    ("flag", "value", "changed"),
    [
        ("accuracy", 0.5, {"accuracy": 0.5}),
        ("latency_ms", 7.0, {"latency_ms": 7.0}),
        ("error_rate", 0.25, {"error_rate": 0.25}),
        ("requests_per_minute", 60.0, {"limits": SimulatedLimits(requests_per_minute=60)}),
        ("tokens_per_minute", 600.0, {"limits": SimulatedLimits(tokens_per_minute=600)}),
        ("concurrency", 3, {"limits": SimulatedLimits(concurrency=3)}),
        ("quota_tokens", 0, {"limits": SimulatedLimits(quota_tokens=0)}),
        ("headers", "azure", {"limits": SimulatedLimits(headers="azure")}),
        ("quirks", ("Q09", "cut=0.2"), {"quirks": {"Q09": 1.0, "cut": 0.2}}),
        ("quirks", ("Q09, cut=0.2",), {"quirks": {"Q09": 1.0, "cut": 0.2}}),
    ],
)
def test_flags_change_every_profile(flag: str, value: Any, changed: dict[str, Any]) -> None:
    """A flag is as if each profile said so; what it does not name stays."""
    options = change_profiles(PLAIN, {**NO_FLAGS, flag: value})
    assert options.profiles == {name: replace(profile, **changed) for name, profile in PLAIN.profiles.items()}
    assert change_profiles(PLAIN, {**NO_FLAGS, "seed": 9}) == replace(PLAIN, seed=9)


def test_form_of_retry_after_goes_with_a_limit() -> None:
    """The form of Retry-After is taken where a limit can send one."""
    changed = change_profiles(PLAIN, {**NO_FLAGS, "requests_per_minute": 60.0, "retry_after": "date"})
    limits = SimulatedLimits(requests_per_minute=60, retry_after="date")
    assert {profile.limits for profile in changed.profiles.values()} == {limits}


def test_flags_leave_a_jobs_other_quirks() -> None:
    """A quirk of the command line comes beside those of the profile, or changes its share."""
    profile = ProfileOptions(quirks={"Q09": 0.1, "Q14": 0.1})
    options = SimulatorOptions(answer="x", profiles={"a": profile})
    changed = change_profiles(options, {**NO_FLAGS, "quirks": ("Q09=0.5", "Q15")})
    assert changed.profiles["a"].quirks == {"Q09": 0.5, "Q14": 0.1, "Q15": 1.0}


def test_list_quirks_names_each(capsys: Capture) -> None:
    """Every quirk stands in the list with its id, its name, its variants and what it does."""
    assert main(["simulate", "--list-quirks"]) == 0
    listed = " ".join(capsys.readouterr().out.split())
    for quirk_id, quirk in QUIRK_NAMES.items():
        assert f"{quirk_id} {quirk.name}" in listed
        assert " ".join(quirk.sentence.split()) in listed
        assert all(f"{quirk_id}:{variant}" in listed for variant in quirk.variants)


def test_list_quirks_as_json(capsys: Capture) -> None:
    """Programs get the same list."""
    assert main(["simulate", "--list-quirks", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [quirk["id"] for quirk in shown["quirks"]] == list(QUIRK_NAMES)
    assert set(shown["quirks"][0]) == {"id", "name", "does", "replies", "variants", "number"}


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--quirk", "Q99"], "Q01 usage-absent"),
        (["--quirk", "usage-abcent"], "did you mean usage-absent"),
        (["--quirk", "Q09=2"], "from 0 to 1"),
        (["--quirk", "Q09="], "from 0 to 1"),
        (["--quirk", "Q09=nan"], "from 0 to 1"),
        (["--match", "question"], "--answers"),
        (["--answers", "rows.jsonl"], "--match COLUMN"),
        (["--answers", "nowhere.jsonl", "--match", "question"], "nowhere.jsonl"),
        (["--api-key-env", "EVALRUN_NO_SUCH_VARIABLE"], "EVALRUN_NO_SUCH_VARIABLE"),
        (["--endpoint", "demo"], "JOB"),
        (["--json"], "--list-quirks"),
        (["--rpm", "0"], "--rpm"),
        (["--rate-headers", "acme"], "openai"),
        (["--rate-headers", "openai"], "--rpm"),
        (["--retry-after", "date"], "--concurrency"),
    ],
)
def test_simulate_refuses_what_it_cannot_do(arguments: list[str], problem: str, capsys: Capture) -> None:
    """A flag that is unknown, alone or out of range is exit 2 and says what would do."""
    assert main(["simulate", *arguments]) == 2
    assert problem in capsys.readouterr().err


def test_simulate_refuses_an_unknown_quirk_of_a_job(tmp_path: Path, capsys: Capture) -> None:
    """A profile with a quirk that there is not is exit 2 before anything is served."""
    job = write_job(tmp_path, url="http://127.0.0.1:1", n_samples=1)
    text = job.read_text(encoding="utf-8").replace("latency_ms: 1}", "latency_ms: 1, quirks: {Q99: 0.1}}")
    job.write_text(text, encoding="utf-8")
    assert main(["simulate", str(job)]) == 2
    assert "Q99" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("rows", "match", "answer_column", "problem"),
    [
        (ROWS, "questoin", "answer", "there is no column `questoin`"),
        (ROWS, "question", "reply", "there is no column `reply`"),
        ([{"question": "a", "answer": None}], "question", "answer", "no row has both"),
        ([{"id": [1], "question": "a", "answer": "b"}], "question", "answer", "column `id`"),
        ([], "question", "answer", "no row has both"),
    ],
)
def test_answer_file_that_cannot_be_used_is_named(
    rows: list[dict[str, Any]], match: str, answer_column: str, problem: str, tmp_path: Path
) -> None:
    """Missing columns come with file, line and those there are; a file with nothing to find is refused."""
    path = write_rows(tmp_path, rows)
    with pytest.raises(DatasetError, match=problem):
        load_answer_book(str(path), match=match, answer_column=answer_column)


def test_answer_file_may_name_the_column(tmp_path: Path) -> None:
    """The right answer may stand in any column; rows without an id get one from their content."""
    rows = [{key: value for key, value in row.items() if key != "id"} for row in ROWS]
    book = load_answer_book(str(write_rows(tmp_path, rows)), match="question", answer_column="german")
    known = book.find([{"role": "user", "content": "What is 2+2?"}])
    assert known is not None
    assert known.answer == "vier"
    assert len(known.sample) == 16
