"""A folder of its own for each test, and short ways to write and load a job in it."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest

from evalrun.errors import AuthorError
from evalrun.job.config import LoadedJob, load_job

Load = Callable[..., LoadedJob]
Fail = Callable[..., list[str]]

HEAD = """\
endpoints: {demo: {simulator: {answer: "{{ answer }}", profiles: {careful: {accuracy: 0.9}}}}}
models: [{name: careful}]
"""
"""Two lines that every small job here begins with."""

BODY = HEAD + 'prompts: [{name: terse, user: "{{ question }}"}]\n'
SAMPLE = "samples: [{id: s1, question: 2+2?, answer: '4'}]\n"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty folder, so that messages show short paths."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_rows(path: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a JSONL file."""
    Path(path).write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))


def load(text: str, *, name: str = "job.yaml", environ: Mapping[str, str] | None = None, **options: Any) -> LoadedJob:
    """Write a job file and load it."""
    Path(name).write_text(text, encoding="utf-8")
    return load_job(Path(name), environ=environ or {}, **options)


def fail(text: str, **options: Any) -> list[str]:
    """Load a job that must be refused; return its problems, rendered."""
    with pytest.raises(AuthorError) as caught:
        load(text, **options)
    return [problem.render() for problem in caught.value.problems]
