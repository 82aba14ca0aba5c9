"""Lanes on which it is pointless to go on, counted at the server: stopped at once, others complete, nothing twice."""

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from subprocess import CompletedProcess
from zoneinfo import ZoneInfo

import pytest

from tests.cli.calls import call_evalrun
from tests.cli.processes import find_run_folder, run_evalrun
from tests.fake_endpoint import FakeEndpoint, FakeReply, SeenRequest, reply_error, reply_json, reply_text
from tests.lane_page import BILLING_CODES

N_SAMPLES, CONCURRENCY = 60, 8
REFUSAL_S = 0.05
"""So slow that everything which may be in flight is, before the first refusal is back."""

HEAD = """\
prompts:
  - {name: plain, user: "{{ question }}"}
dataset: samples.jsonl
endpoints:
"""

HOUR = reply_error(429, code="rate_limit_exceeded", headers={"retry-after": "3600"})

QUOTA = {f"429-{code}": (reply_error(429, code=code), "quota", "add credit") for code in BILLING_CODES}
REFUSALS = {
    **QUOTA,
    "403": (reply_error(403), "forbidden", "may not use this model: check the key in KEY"),
    "404": (reply_error(404, code="model_not_found"), "model_not_found", "check the model's `model:`"),
    "400-model": (reply_error(400, code="model_not_found"), "model_not_found", "check the model's `model:`"),
    "402": (reply_error(402), "quota", "add credit"),
    "403-quota": (reply_error(403, code="insufficient_quota"), "quota", "add credit"),
    "400-quota": (reply_error(400, code="billing_not_active"), "quota", "add credit"),
    "429-type": (
        reply_json({"error": {"message": "no", "type": "insufficient_quota"}}, status=429),
        "quota",
        "add credit",
    ),
    "hour": (HOUR, "rate_limited", "the server asks to wait 3600 s, until "),
    "hour-503": (reply_error(503, headers={"retry-after": "3600"}), "server_error", "the server asks to wait 3600 s"),
}
"""By model: the reply that refuses it, the code that stops its lane, and what the user is told."""


class Gate:
    """A server that refuses some models until it is mended, and counts what it refused."""

    def __init__(self, server: FakeEndpoint, refusals: dict[str, FakeReply]) -> None:
        self.server = server
        self.refusals = refusals
        self.key = "right"
        self.n_paid: int | None = None
        """So many answers the account pays for; the next request is refused."""
        self.answer_s = 0.002
        self.refused = Counter[str]()
        self.answered = Counter[tuple[str, str]]()
        server.default = self.answer

    def answer(self, seen: SeenRequest) -> FakeReply:
        """Refuse a wrong key, refuse the models that are to be refused, answer the rest."""
        model = str(seen.json["model"])
        refusal = self.refusals.get(model)
        if seen.headers.get("authorization") != f"Bearer {self.key}":
            refusal = reply_error(401, code="invalid_api_key")
        if refusal is not None:
            self.refused[model] += 1
            return replace(refusal, delay_s=REFUSAL_S)
        self.answered[model, seen.prompt] += 1
        if sum(self.answered.values()) == self.n_paid:
            self.refusals = dict.fromkeys(self.refusals or [model], REFUSALS["402"][0])
        return reply_text(delay_s=self.answer_s)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeEndpoint]:
    """A server; the right key is in the environment."""
    monkeypatch.setenv("KEY", "right")
    with FakeEndpoint() as endpoint:
        yield endpoint


def write_job(
    folder: Path,
    url: str,
    endpoints: Sequence[Sequence[str]],
    *,
    concurrency: int = CONCURRENCY,
    n_samples: int = N_SAMPLES,
) -> None:
    """Write a job with an endpoint for each group of models, all of them at one URL."""
    rows = [{"id": f"s{n}", "question": f"q{n}?"} for n in range(n_samples)]
    (folder / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    facts = f'base_url: "{url}", api_key_env: KEY, concurrency: {concurrency}'
    lines = [f"  e{n}: {{{facts}}}\n" for n in range(len(endpoints))]
    lines.append("models:\n")
    lines += [f'  - {{name: "{model}", endpoint: e{n}}}\n' for n, models in enumerate(endpoints) for model in models]
    (folder / "job.yaml").write_text(HEAD + "".join(lines), encoding="utf-8")


def run_and_mend(folder: Path, gate: Gate) -> tuple[CompletedProcess[str], CompletedProcess[str]]:
    """Run while the server refuses some models, then resume without."""
    first = call_evalrun("run", "job.yaml", cwd=folder)
    gate.refusals = {}
    return first, call_evalrun("run", "job.yaml", "--resume", cwd=folder)


def test_each_refusal_stops_its_lane_alone_and_is_mended(tmp_path: Path, server: FakeEndpoint) -> None:
    """No lane sends more than it had in flight, the others complete; resumed after the mend, nothing goes twice."""
    gate = Gate(server, {model: reply for model, (reply, _, _) in REFUSALS.items()})
    write_job(tmp_path, server.base_url, [["good"], *([model] for model in REFUSALS)])
    first, resumed = run_and_mend(tmp_path, gate)
    told = {
        model: line
        for line in first.stdout.splitlines()
        if " stopped: " in line
        for model in line.strip().split(" stopped: ")[0].split(", ")
    }
    assert (first.returncode, resumed.returncode) == (3, 0), resumed.stderr
    assert {model: n for model, n in gate.refused.items() if n > CONCURRENCY + 1} == {}
    assert set(gate.refused) == set(REFUSALS) == set(told)
    assert [model for model, (_, _, words) in REFUSALS.items() if words not in told[model]] == []
    assert set(gate.answered.values()) == {1}
    assert len(gate.answered) == (1 + len(REFUSALS)) * N_SAMPLES


def test_credit_that_ends_in_mid_run_costs_no_more_than_what_is_in_flight(tmp_path: Path, server: FakeEndpoint) -> None:
    """A lane at full speed sends nothing after the first refusal is back; topped up, the run is finished."""
    gate = Gate(server, {})
    gate.n_paid, gate.answer_s = 400, 0.05
    write_job(tmp_path, server.base_url, [["model"]], concurrency=64, n_samples=600)
    first, resumed = run_and_mend(tmp_path, gate)
    assert (first.returncode, resumed.returncode) == (3, 0), resumed.stderr
    assert CONCURRENCY < gate.refused["model"] <= 64 + 1
    assert set(gate.answered.values()) == {1}
    assert len(gate.answered) == 600


def test_codes_of_refusals_stand_in_the_summary(tmp_path: Path, server: FakeEndpoint) -> None:
    """A program learns which lane stopped, by what and why; rows that met the reply have its code."""
    chosen = {name: REFUSALS[name] for name in ("402", "404")}
    gate = Gate(server, {model: reply for model, (reply, _, _) in chosen.items()})
    write_job(tmp_path, server.base_url, [["402"], ["404"], ["good"]])
    run = call_evalrun("run", "job.yaml", "--json", "--progress", "none", cwd=tmp_path)
    summary = json.loads(run.stdout)
    assert (run.returncode, summary["exit_code"]) == (3, 3)
    assert {lane["model"]: lane["code"] for lane in summary["run"]["stopped"]} == {
        "402": "quota",
        "404": "model_not_found",
    }
    assert summary["errors"] == {
        "lane_stopped": 2 * N_SAMPLES - sum(gate.refused.values()),
        "quota": gate.refused["402"],
        "model_not_found": gate.refused["404"],
    }


def test_refused_models_of_one_endpoint_stop_alone(tmp_path: Path, server: FakeEndpoint) -> None:
    """Lanes that share an endpoint's slots go on with them when another one has stopped."""
    gate = Gate(server, {"403": REFUSALS["403"][0]})
    write_job(tmp_path, server.base_url, [["one", "403", "two"]])
    first, resumed = run_and_mend(tmp_path, gate)
    assert (first.returncode, resumed.returncode) == (3, 0)
    assert gate.refused["403"] <= CONCURRENCY + 1
    assert set(gate.answered.values()) == {1}
    assert len(gate.answered) == 3 * N_SAMPLES


def test_refused_key_stops_every_lane_and_is_mended(
    tmp_path: Path, server: FakeEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A 401 is heard by all three lanes of the endpoint: no more requests in all than were in flight."""
    gate = Gate(server, {})
    write_job(tmp_path, server.base_url, [["one", "two", "three"]])
    monkeypatch.setenv("KEY", "wrong")
    first = call_evalrun("run", "job.yaml", cwd=tmp_path)
    n_refused = sum(gate.refused.values())
    monkeypatch.setenv("KEY", "right")
    resumed = call_evalrun("run", "job.yaml", "--resume", cwd=tmp_path)
    (told,) = [line for line in first.stdout.splitlines() if " stopped: " in line]
    assert (first.returncode, resumed.returncode) == (3, 0)
    assert n_refused <= CONCURRENCY + 1
    assert "one, two, three stopped: HTTP 401" in told
    assert "check the key in KEY" in told
    assert "wrong" not in first.stdout + first.stderr
    assert set(gate.answered.values()) == {1}
    assert len(gate.answered) == 3 * N_SAMPLES


def test_stopped_lane_says_why_on_stderr_with_the_command_that_goes_on(tmp_path: Path, server: FakeEndpoint) -> None:
    """Who pipes the result elsewhere still reads cause, fix and the whole command."""
    Gate(server, {"402": REFUSALS["402"][0]})
    write_job(tmp_path, server.base_url, [["402"]])
    run = call_evalrun("run", "job.yaml", "--json", cwd=tmp_path)
    folder = find_run_folder(tmp_path).relative_to(tmp_path)
    why, command = (
        "HTTP 402: no; add credit or raise the limit at the provider",
        f"evalrun run job.yaml --resume {folder}",
    )
    assert f"402 stopped: {why}, then `{command}` goes on from here\n" in run.stderr


def test_pause_of_an_hour_is_told_with_its_end_in_local_time(
    tmp_path: Path, server: FakeEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits in silence for an hour: the run ends, and says when to go on, by the clock on the wall."""
    zone = ZoneInfo("America/New_York")
    monkeypatch.setenv("TZ", zone.key)
    Gate(server, {"hour": HOUR})
    write_job(tmp_path, server.base_url, [["hour"]])
    began = datetime.now(zone)
    run = run_evalrun("run", "job.yaml", cwd=tmp_path)
    (told,) = re.findall(r"asks to wait 3600 s, until (\S+ \S+) E[SD]T; then the command below", run.stdout)
    until = datetime.fromisoformat(told).replace(tzinfo=zone)
    assert run.returncode == 3
    assert began <= until - timedelta(seconds=3599) <= datetime.now(zone) + timedelta(seconds=1)
