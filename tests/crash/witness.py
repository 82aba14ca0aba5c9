"""What a run folder and a server's ledger say, read without evalrun's own reader.

A harness that asked the code under test what the code under test has kept would believe it. The journal is read by its
documented form alone: a JSON object per line whose `crc` is the crc32 of the bytes of `b`.
"""

import json
import re
import zlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from tests.cli.processes import load_ledger

FINISHED = frozenset({"ok", "truncated", "filtered", "refused", "empty"})
"""Statuses whose request is never sent again."""

FINAL_NAMES = ("results.parquet", "grades.parquet", "attempts.parquet", "run.json", "summary.json", "report.html")
"""Files that appear whole or not at all."""

_LINE = re.compile(rb'\{"v":\d+,"t":"([a-z]+)","crc":"([0-9a-f]{8})","b":(.*)\}\n', re.DOTALL)

LedgerKey = tuple[str, str, int]
"""Sample, wire model, repeat: one row of a job with one prompt."""


class Record(NamedTuple):
    """A good record of a journal."""

    kind: str
    body: Mapping[str, Any]
    line: bytes


@dataclass(slots=True)
class Story:
    """What a journal tells of a run."""

    records: list[Record] = field(default_factory=list)
    started: Counter[str] = field(default_factory=Counter)
    """By row: sendings that were announced."""
    recorded: Counter[str] = field(default_factory=Counter)
    """By row: sendings whose reply or failure is kept."""
    finished: dict[str, bytes] = field(default_factory=dict)
    """By row: the line of an outcome that is never asked for again."""
    n_bytes: int = 0
    """Of all segments, damage included."""

    @property
    def in_doubt(self) -> Counter[str]:
        """By row: sendings that were announced, and of which nothing is known."""
        return self.started - self.recorded

    @property
    def n_calls(self) -> int:
        """How many calls of evalrun wrote into it."""
        return sum(record.kind == "run" for record in self.records)

    def count_done(self, n_calls_before: int) -> int:
        """Return how many outcomes the calls after the first so many have written, pending ones left out."""
        n_calls = n_done = 0
        for record in self.records:
            n_calls += record.kind == "run"
            if n_calls > n_calls_before and record.kind == "done":
                n_done += record.body["status"] != "pending"
        return n_done


def read_story(run: Path | None) -> Story:
    """Read the journal of a run folder; None, and a folder without one, tell nothing."""
    story = Story()
    for path in sorted(run.glob("journal/[0-9]*.jsonl")) if run is not None else ():
        content = path.read_bytes()
        story.n_bytes += len(content)
        for line in content.splitlines(keepends=True):
            match = _LINE.fullmatch(line)
            if match is not None and zlib.crc32(match[3]) == int(match[2], 16):
                _add(story, Record(match[1].decode(), json.loads(match[3]), line))
    return story


def _add(story: Story, record: Record) -> None:
    story.records.append(record)
    row_id = record.body.get("row_id", "")
    if record.kind == "started":
        story.started[row_id] += 1
    elif record.kind == "attempt":
        story.recorded[row_id] += 1
    elif record.kind == "done":
        story.recorded[row_id] += "last_attempt" in record.body
        if record.body["status"] in FINISHED:
            story.finished[row_id] = record.line


def read_ledger(url: str) -> Counter[LedgerKey]:
    """Return how many requests the server has seen, row by row."""
    detail = load_ledger(url)["detail"]
    return Counter({(key["sample"], key["model"], key["repeat"]): key["requests"] for key in detail})


def find_run(reports: Path) -> Path | None:
    """Return the run folder below a reports folder that can be gone on with; None before there is one."""
    runs = [path.parent for path in reports.glob("*/*/journal")]
    assert len(runs) <= 1, f"one run, and {len(runs)} folders: {runs}"
    return runs[0] if runs else None


def list_broken_files(run: Path | None) -> list[str]:
    """Return what is wrong with the files that have their final names."""
    problems = []
    for path in (run / name for name in FINAL_NAMES) if run is not None else ():
        try:
            if path.exists():
                _check_whole(path)
        except (ValueError, OSError, pl.exceptions.PolarsError) as error:
            problems.append(f"{path.name} is not whole: {error}")
    return problems


def _check_whole(path: Path) -> None:
    if path.suffix == ".parquet":
        pl.read_parquet(path, glob=False)
    elif path.suffix == ".json":
        json.loads(path.read_bytes())
    elif not path.read_bytes().rstrip().endswith(b"</html>"):
        msg = "its end is missing"
        raise ValueError(msg)
