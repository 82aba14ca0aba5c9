"""Files of a job that change while its run is alive; and values of the environment that no file of a run may hold."""

import gzip
import json
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from evalrun.cli.main import main
from evalrun.dispatch.stops import explain_outage
from evalrun.dispatch.transport import make_target
from tests.cli.processes import find_run_folder
from tests.dispatch.rig import make_options
from tests.fake_endpoint import FakeEndpoint, FakeReply, SeenRequest, reply_error, reply_json, reply_text

N_ROWS = 12
CHANGED_AT = 5
"""The request at which a file changes."""

JOB = """\
endpoints:
  gateway: {{base_url: "{url}", concurrency: 2}}
models:
  - {{name: m}}
prompts:
  - {{name: p, user: "{{{{ q }}}}"}}
dataset: {dataset}
graders:
  - {{type: contains, value: "yes"}}
"""
IMAGE_JOB = """\
endpoints:
  gateway: {{base_url: "{url}", concurrency: 2}}
models:
  - {{name: m}}
prompts:
  - name: p
    messages:
      - role: user
        content:
          - {{type: image_file, image_file: "{{{{ picture }}}}"}}
          - {{type: text, text: "{{{{ q }}}}"}}
files_root: .
dataset: {dataset}
"""


def encode_rows(word: str) -> bytes:
    """Return the dataset's lines, each question with the word."""
    rows = [{"id": f"s{n}", "q": f"{word} {n}", "picture": "dot.png"} for n in range(N_ROWS)]
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


class Changing:
    """Answers every request, and changes something at the one of that number."""

    def __init__(self, change: Callable[[], Any]) -> None:
        self._change = change
        self._n_requests = 0

    def __call__(self, _request: SeenRequest) -> FakeReply:
        """Answer one request."""
        self._n_requests += 1
        if self._n_requests == CHANGED_AT:
            self._change()
        return reply_text("yes")


def write_job(folder: Path, *, url: str, dataset: str = "data.jsonl", job: str = JOB) -> None:
    """Write the job file."""
    (folder / "job.yaml").write_text(job.format(url=url, dataset=dataset), encoding="utf-8")


def run_job(folder: Path, *more: str) -> int:
    """Run the job of a folder."""
    return main(["run", str(folder / "job.yaml"), "-o", str(folder / "reports"), *more])


def replace_file(path: Path, content: bytes) -> None:
    """Put a file of another content in a path's place, as editors and `mv` do."""
    (path.parent / "new").write_bytes(content)
    (path.parent / "new").replace(path)


def cut_file(path: Path, content: bytes) -> None:
    """Overwrite a file where it stands, with less of it."""
    path.write_bytes(content[: len(content) // 2])


def remove_file(path: Path, _content: bytes) -> None:
    """Take a file away."""
    path.rename(path.parent / "away")


CHANGES = {
    "replaced": (replace_file, "was replaced"),
    "overwritten in place": (Path.write_bytes, "has changed"),
    "cut in place": (cut_file, "has changed"),
    "renamed away": (remove_file, "is gone"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_dataset_that_changes_while_asked_ends_the_run_with_a_reason(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit 5 names file, folder and next step, writes no tables; with the file back no answered row is sent again."""
    change, words = CHANGES[name]
    data, before = tmp_path / "data.jsonl", encode_rows("first")
    data.write_bytes(before)
    with FakeEndpoint(default=Changing(lambda: change(data, encode_rows("other one")))) as endpoint:
        write_job(tmp_path, url=endpoint.base_url)
        assert run_job(tmp_path) == 5
        folder, said = find_run_folder(tmp_path), capsys.readouterr().err
        assert f"{data} {words} while the run was under way" in said
        assert f"kept in the journal of {folder}" in said
        assert f"--resume {folder}" in said
        assert [path.name for path in folder.glob("*.parquet")] == []
        assert not (folder / "run.json").exists()
        data.write_bytes(before)
        assert run_job(tmp_path, "--resume", str(folder)) == 0
        asked = endpoint.count_prompts()
    assert {prompt: n for prompt, n in asked.items() if prompt.startswith("first")} == {
        f"first {n}": 1 for n in range(N_ROWS)
    }
    assert pl.read_parquet(folder / "results.parquet")["status"].to_list() == ["ok"] * N_ROWS


def test_resume_with_the_changed_dataset_asks_the_rows_that_changed(tmp_path: Path) -> None:
    """Whoever means the change goes on with it: rows that it left as they were are not bought again."""
    data, before = tmp_path / "data.jsonl", encode_rows("first")
    after = before.replace(b"first 3", b"other 3")
    data.write_bytes(before)
    with FakeEndpoint(default=Changing(lambda: replace_file(data, after))) as endpoint:
        write_job(tmp_path, url=endpoint.base_url)
        assert run_job(tmp_path) == 5
        assert run_job(tmp_path, "--resume") == 0
        assert len(endpoint.requests) == N_ROWS + 1
        assert endpoint.prompts[-1] == "other 3"


def test_file_that_is_touched_but_not_changed_disturbs_nothing(tmp_path: Path) -> None:
    """Another time, or a copy of the same content, is no other dataset."""
    data, content = tmp_path / "data.jsonl", encode_rows("first")
    data.write_bytes(content)

    def touch() -> None:
        replace_file(data, content)
        os.utime(data, (1, 1))

    with FakeEndpoint(default=Changing(touch)) as endpoint:
        write_job(tmp_path, url=endpoint.base_url)
        assert run_job(tmp_path) == 0
        assert len(endpoint.requests) == N_ROWS


def test_one_of_several_files_that_changes_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of a folder of datasets, some of them compressed, the file that changed is named and no other."""
    (tmp_path / "data").mkdir()
    first, second = encode_rows("first"), encode_rows("second").replace(b'"s', b'"t')
    (tmp_path / "data" / "a.jsonl").write_bytes(first)
    packed = tmp_path / "data" / "b.jsonl.gz"
    packed.write_bytes(gzip.compress(second))
    with FakeEndpoint(default=Changing(lambda: replace_file(packed, gzip.compress(first)))) as endpoint:
        write_job(tmp_path, url=endpoint.base_url, dataset="data")
        assert run_job(tmp_path) == 5
    said = capsys.readouterr().err
    assert f"{packed} was replaced" in said
    assert "a.jsonl" not in said


@pytest.mark.parametrize("is_gone", [False, True])
def test_image_that_changes_while_asked_ends_the_run(
    is_gone: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A picture that rows send is watched as the dataset is."""
    (tmp_path / "data.jsonl").write_bytes(encode_rows("first"))
    picture, before = tmp_path / "dot.png", b"\x89PNG\r\n\x1a\nbefore"
    picture.write_bytes(before)

    def change() -> None:
        if is_gone:
            picture.unlink()
        else:
            replace_file(picture, b"\x89PNG\r\n\x1a\nafter")

    with FakeEndpoint(default=FakeReply()) as endpoint:
        endpoint.default = Changing(change)
        write_job(tmp_path, url=endpoint.base_url, job=IMAGE_JOB)
        assert run_job(tmp_path) == 5
        assert f"{picture} {'is gone' if is_gone else 'was replaced'}" in capsys.readouterr().err
        assert list(find_run_folder(tmp_path).glob("*.parquet")) == []
        picture.write_bytes(before)
        assert run_job(tmp_path, "--resume") == 0


# What stands in the environment stays there


def scan_files(folder: Path, needle: bytes) -> list[str]:
    """Return the files below a folder that hold some bytes."""
    return [path.name for path in folder.rglob("*") if path.is_file() and needle in path.read_bytes()]


def echo(status: int) -> Callable[[SeenRequest], FakeReply]:
    """Return a server that tells the path that was asked for."""

    def reply(request: SeenRequest) -> FakeReply:
        error = {"message": f"no route for POST {request.path}", "url": request.path}
        return reply_json({"error": error}, status=status, headers={"x-route": request.path})

    return reply


@pytest.mark.parametrize("address", ["http://127.0.0.1:{port}/${{CANARY}}/v1", "${{CANARY_URL}}/v1"])
@pytest.mark.parametrize(
    "reply",
    [reply_error(404), reply_error(302), echo(404), echo(400), echo(200)],
    ids=["404", "302", "echoed 404", "echoed 400", "echoed 200"],
)
def test_variable_within_a_base_url_is_written_nowhere(
    reply: Any, address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Relays take tokens in the path: no file of the run and no word on the terminal holds one."""
    canary = secrets.token_hex(12)
    (tmp_path / "data.jsonl").write_bytes(encode_rows("first"))
    with FakeEndpoint(default=reply) as endpoint:
        monkeypatch.setenv("CANARY", canary)
        monkeypatch.setenv("CANARY_URL", f"http://127.0.0.1:{endpoint.port}/{canary}")
        job = JOB.replace("concurrency: 2", "concurrency: 2, retry: {{max_attempts: 1}}")
        write_job(tmp_path, url=address.format(port=endpoint.port), job=job)
        assert run_job(tmp_path) == 3
        assert endpoint.requests[0].path == f"/{canary}/v1/chat/completions"
    said = capsys.readouterr()
    assert canary not in said.out + said.err
    assert scan_files(tmp_path, canary.encode()) == []


def test_stopped_lane_shows_the_address_as_the_job_writes_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever has to check `base_url` reads the words that stand there."""
    (tmp_path / "data.jsonl").write_bytes(encode_rows("first"))
    monkeypatch.setenv("CANARY", "v1")
    with FakeEndpoint(default=reply_error(404)) as endpoint:
        write_job(tmp_path, url=f"http://127.0.0.1:{endpoint.port}/${{CANARY}}")
        assert run_job(tmp_path) == 3
        address = f"(asked at http://127.0.0.1:{endpoint.port}/${{CANARY}}/chat/completions)"
    assert address in " ".join(capsys.readouterr().err.split())


def test_address_in_an_outage_is_the_written_one() -> None:
    """A lane that does not answer names its address without what a variable put there."""
    url = "https://relay.example/5ecret-token/v1"
    target = make_target(make_options(url), environ={}, written_url="https://relay.example/${TOKEN}/v1")
    for down_s in (None, 600.0):
        told = explain_outage("refused", target, n_sent=9, down_s=down_s)
        assert "https://relay.example/${TOKEN}/v1/chat/completions is up" in told
        assert "5ecret-token" not in told
