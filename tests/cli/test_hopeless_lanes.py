"""Lanes on which it is pointless to go on, counted at the server: stopped at once, others complete, nothing twice."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.processes import run_evalrun
from tests.fake_endpoint import FakeEndpoint, FakeReply, SeenRequest, reply_error, reply_text

N_SAMPLES, CONCURRENCY = 200, 8

JOB = """\
endpoints:
  gate: {{base_url: "{url}", concurrency: {concurrency}}}
models:
  - {{name: one, model: gpt-one}}
  - {{name: two, model: gpt-two}}
  - {{name: three, model: other-three}}
prompts:
  - {{name: plain, user: "{{{{ question }}}}"}}
dataset: samples.jsonl
"""


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, FakeEndpoint]]:
    """A folder with a job of three models on one endpoint, 200 rows each, and the server."""
    rows = [{"id": f"s{n}", "question": f"q{n}?"} for n in range(N_SAMPLES)]
    (tmp_path / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    with FakeEndpoint() as server:
        job = JOB.format(url=server.base_url, concurrency=CONCURRENCY)
        (tmp_path / "job.yaml").write_text(job, encoding="utf-8")
        yield tmp_path, server


def count_by_model(server: FakeEndpoint) -> Counter[str]:
    """Return how many requests the server saw of each model."""
    return Counter(str(seen.json["model"]) for seen in server.requests)


def count_answered(server: FakeEndpoint, refused: set[int]) -> Counter[tuple[str, str]]:
    """Return how often each row was answered: every request that is not among the refused ones."""
    return Counter((str(seen.json["model"]), seen.prompt) for n, seen in enumerate(server.requests) if n not in refused)


def run_and_mend(folder: Path, server: FakeEndpoint, refusal: FakeReply, models: set[str]) -> tuple[Any, Any, set[int]]:
    """Run while the server refuses some models, then resume without; return both and the refused requests."""
    refused: set[int] = set()
    is_mended = [False]

    def answer(seen: SeenRequest) -> FakeReply:
        if seen.json["model"] in models and not is_mended[0]:
            refused.add(server.requests.index(seen))
            return refusal
        return reply_text(delay_s=0.002)

    server.default = answer
    first = run_evalrun("run", "job.yaml", cwd=folder)
    is_mended[0] = True
    resumed = run_evalrun("run", "job.yaml", "--resume", cwd=folder)
    return first, resumed, refused


@pytest.mark.parametrize(
    ("refusal", "code", "words"),
    [
        (reply_error(403), "forbidden", "may not use this model"),
        (reply_error(404, code="model_not_found"), "model_not_found", "did you mean gpt-one"),
        (reply_error(402), "quota", "add credit"),
        (reply_error(429, code="insufficient_quota"), "quota", "add credit"),
        (reply_error(429, code="billing_hard_limit_reached"), "quota", "add credit"),
        (reply_error(403, code="insufficient_quota"), "quota", "add credit"),
        (reply_error(429, code="out_of_credits"), "quota", "add credit"),
        (reply_error(429, code="daily_quota_exceeded"), "quota", "add credit"),
    ],
)
def test_refused_model_stops_alone_and_is_mended(
    served: tuple[Path, FakeEndpoint], refusal: FakeReply, code: str, words: str
) -> None:
    """One lane sends no more than it had in flight, the others complete; resumed after the mend, nothing goes twice."""
    folder, server = served
    first, resumed, refused = run_and_mend(folder, server, refusal, {"gpt-two"})
    assert len(refused) <= CONCURRENCY + 1
    assert (first.returncode, resumed.returncode) == (3, 0)
    assert words in first.stdout + first.stderr
    assert code in first.stdout
    assert set(count_answered(server, refused).values()) == {1}
    assert len(count_answered(server, refused)) == 3 * N_SAMPLES
    assert count_by_model(server)["gpt-one"] == N_SAMPLES


def test_refused_key_stops_every_lane_and_is_mended(served: tuple[Path, FakeEndpoint]) -> None:
    """A 401 is heard by all three lanes of the endpoint: no more requests in all than were in flight."""
    folder, server = served
    models = {"gpt-one", "gpt-two", "other-three"}
    first, resumed, refused = run_and_mend(folder, server, reply_error(401), models)
    assert len(refused) <= CONCURRENCY + 1
    assert (first.returncode, resumed.returncode) == (3, 0)
    assert "the endpoint wants a key" in first.stdout + first.stderr
    assert set(count_answered(server, refused).values()) == {1}
    assert len(count_answered(server, refused)) == 3 * N_SAMPLES
