"""A process that may open few files: fewer requests at once, said so, and no crash."""

import json
import resource
from pathlib import Path
from typing import Any

import pytest

from tests.cli.processes import start_evalrun
from tests.fake_endpoint import FakeEndpoint, reply_text

LIMIT = 128


def run_with_few_files(tmp_path: Path, base_url: str, *, n_endpoints: int, **changes: Any) -> tuple[int, str]:
    """Run a job whose endpoints each want 500 connections; return exit code and stderr."""
    names = [f"e{number}" for number in range(n_endpoints)]
    endpoints = {name: {"base_url": base_url, "concurrency": 500} | changes for name in names}
    models = [{"name": f"m-{name}", "endpoint": name, "model": "m"} for name in names]
    samples = [{"id": f"s{number}", "question": f"What is {number}?"} for number in range(60)]
    job = {
        "endpoints": endpoints,
        "models": models,
        "samples": samples,
        "prompts": [{"name": "p", "user": "{{ question }}"}],
    }
    (tmp_path / "job.json").write_text(json.dumps(job), encoding="utf-8")

    def limit_files() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (LIMIT, LIMIT))

    process = start_evalrun("run", "job.json", "--progress", "plain", cwd=tmp_path, preexec_fn=limit_files)
    _, errors = process.communicate(timeout=100)
    return process.returncode, errors


@pytest.mark.parametrize("transport", [None, "httpx"])
def test_endpoints_share_what_files_a_process_may_open(tmp_path: Path, transport: str | None) -> None:
    """However many endpoints there are, their connections together fit, and each says what became of its limit."""
    with FakeEndpoint(default=reply_text(delay_s=0.1)) as endpoint:
        exit_code, errors = run_with_few_files(tmp_path, endpoint.base_url, n_endpoints=6, transport=transport)
        assert (exit_code, len(endpoint.requests)) == (0, 360), errors
        assert endpoint.max_in_flight <= LIMIT // 2
    assert errors.count("concurrency 8 instead of 500") == 6


def test_too_few_files_for_all_endpoints_are_found_before_sending(tmp_path: Path) -> None:
    """Where not even one connection for each endpoint fits, nothing is sent and the limit is named."""
    exit_code, errors = run_with_few_files(tmp_path, "http://127.0.0.1:1", n_endpoints=60)
    assert exit_code == 2
    assert "ulimit -n" in errors
