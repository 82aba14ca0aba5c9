"""A disk without room: runs on a RAM disk that is full after so many bytes, at as many points as wanted.

For each point the disk is filled up to so much room, a run (or the resume of one that has tables already) is called,
room is made, and the run is resumed. The disk stays full until then, or is full once: the first refusal makes room.
Every request is counted at a simulator in a process of its own. The mount needs `unshare`, as root or with user
namespaces: `python -m tests.crash_states.full_disk --points 200`.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl
import pytest

from evalrun.records import Attempt, Outcome, Started, Status
from evalrun.store import folder as folder_module
from evalrun.store import journal as journal_module
from evalrun.store.folder import RunFolder
from evalrun.store.journal import Journal
from evalrun.store.journal_scan import scan_journal
from tests.cli.processes import ROOT, load_ledger, serve_simulator
from tests.crash_states.workloads import call, tell_story

N_ROWS = 50
TEXT_CHARS = 2000
BLOCK_BYTES = 4096
DISK_BYTES = 64 * 1024 * 1024

UNSHARE = ("unshare", "--mount") if os.geteuid() == 0 else ("unshare", "--mount", "--map-root-user")
"""Gives a process mounts of its own."""

_GO_ON = ("--resume", "--set", "budget.requests=null")

Counts = Counter[str]
"""Requests by sample."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One full disk."""

    free_bytes: int
    has_tables: bool
    """Whether half of the run was done, tables and all, before the disk filled up."""
    is_once: bool
    """Whether the first refusal makes room."""


@dataclass(slots=True)
class Tried:
    """What one point showed."""

    point: Point
    exit_code: int
    text: str
    n_acknowledged: int
    n_sent_again: int = 0
    """Requests that the resume sent of rows that the first call had sent: under way, or done but never acknowledged."""
    problems: list[str] = field(default_factory=list)


class Rig:
    """A small disk, a job, and a simulator that counts.

    Args:
        disk: The mounted disk, empty.
        jobs: A folder on another one.
        url: The simulator.
    """

    def __init__(self, disk: Path, jobs: Path, url: str) -> None:
        self._disk = disk
        self._ballast = disk / "ballast"
        self._half = jobs / "half"
        self._url = url
        self._words = ["run", str(write_job(jobs, url)), "-o", str(disk / "reports")]
        assert call(self._words).exit_code == 0
        self.used_bytes = sum(_measure_blocks(path) for path in disk.rglob("*"))
        """What a whole run takes, tables and reports and all."""
        self._scores = tell_story(self._find_run())["scores"]
        results = pl.read_parquet(self._find_run() / "results.parquet", columns=["row_id", "sample_id"])
        self._samples: dict[str, str] = dict(results.iter_rows())
        self._clear()
        assert call([*self._words, "--set", f"budget.requests={N_ROWS // 2}"]).exit_code == 3
        shutil.copytree(disk / "reports", self._half)

    def try_point(self, point: Point) -> Tried:
        """Run into the full disk, check what is there, make room, resume, check again."""
        self._clear()
        if point.has_tables:
            shutil.copytree(self._half, self._disk / "reports")
        old = {path.name: path.read_bytes() for path in self._disk.glob("reports/*/*/*") if path.is_file()}
        done = self._list_done()
        before = self._count_requests()
        with self._fill(point), _listen() as told:
            output = call([*self._words, *(_GO_ON if point.has_tables else [])])
        safe = done | {self._samples[row_id] for row_id in told()}
        sent = self._count_requests() - before
        tried = Tried(point, output.exit_code, output.text, len(safe))
        tried.problems += [
            *self._check_words(tried, n_sent=sent.total()),
            *(f"{sample} was acknowledged and is gone" for sample in sorted(safe - self._list_done())),
            *self._check_tables(old),
        ]
        self._resume(tried, safe, sent)
        return tried

    @contextlib.contextmanager
    def _fill(self, point: Point) -> Iterator[None]:
        """Leave so much room and no more; until the first refusal, or for ever."""
        stats = os.statvfs(self._disk)
        with self._ballast.open("wb") as ballast:
            os.posix_fallocate(ballast.fileno(), 0, max(stats.f_bavail * stats.f_frsize - point.free_bytes, 1))
        with pytest.MonkeyPatch.context() as patch:
            if point.is_once:
                for module in (folder_module, journal_module):
                    patch.setattr(module, "describe_room", self._make_room_after(module.describe_room))
            yield

    def _make_room_after(self, describe_room: Callable[..., str]) -> Callable[..., str]:
        def describe(*args: object, **kwargs: object) -> str:
            told = describe_room(*args, **kwargs)
            self._ballast.unlink(missing_ok=True)
            return told

        return describe

    def _resume(self, tried: Tried, safe: set[str], sent: Counts) -> None:
        """Make room and go on: what was acknowledged is not sent, and the run ends as if nothing had been."""
        self._ballast.unlink(missing_ok=True)
        before = self._count_requests()
        if tried.exit_code != 0:
            runs = list(self._disk.glob("reports/*/*/journal"))
            output = call([*self._words, *(_GO_ON if runs else [])])
            if output.exit_code != 0:
                tried.problems.append(f"the resume ended with {output.exit_code}: {output.text}")
                return
        sent_now = self._count_requests() - before
        tried.n_sent_again = sum(n for sample, n in sent_now.items() if sent[sample])
        tried.problems += [f"{sample} was acknowledged and sent again" for sample in sorted(safe & set(sent_now))]
        if tell_story(self._find_run())["scores"] != self._scores:
            tried.problems.append("the resumed run has another table than one that met no full disk")

    def _check_words(self, tried: Tried, *, n_sent: int) -> Iterator[str]:
        """Check exit code and message: 2 before anything was sent, 5 after; path, bytes, and what to do."""
        text = tried.text
        if tried.exit_code == 0:
            return
        if tried.exit_code not in {2, 5} or "failed unexpectedly" in text:
            yield f"exit code {tried.exit_code}: {text}"
        if tried.exit_code == 2 and n_sent:
            yield f"exit code 2, but {n_sent} requests were sent"
        for word in (str(self._disk), "bytes", "No space left on device", "resume"):
            if word not in text:
                yield f"the message does not say {word!r}: {text}"

    def _check_tables(self, old: dict[str, bytes]) -> Iterator[str]:
        """Check that each file is as it was, or whole and new, and that nothing unfinished lies about."""
        found = {path.name: path for path in self._disk.glob("reports/*/*/*") if path.is_file()}
        yield from (f"{name} is gone" for name in old if name not in found)
        yield from (f"{name} was left behind" for name in found if name.startswith(".tmp-"))
        for name, path in found.items():
            if not name.startswith(".") and old.get(name) != path.read_bytes() and not _is_whole(path):
                yield f"{name} is neither the old one nor a whole new one"

    def _list_done(self) -> set[str]:
        """Return the samples whose outcome the journal holds."""
        done: set[str] = set()
        for journal_dir in self._disk.glob("reports/*/*/journal"):
            with scan_journal(RunFolder(journal_dir.parent)) as index:
                for row_id, sample_id in self._samples.items():
                    outcome = index.read_outcome(row_id)
                    if outcome is not None and outcome.status == Status.OK:
                        done.add(sample_id)
        return done

    def _count_requests(self) -> Counts:
        counts: Counts = Counter()
        for key in load_ledger(self._url)["detail"]:
            counts[key["sample"]] += key["requests"]
        return counts

    def _find_run(self) -> Path:
        *_, run = sorted(path.parent for path in self._disk.glob("reports/*/*/journal"))
        return run

    def _clear(self) -> None:
        self._ballast.unlink(missing_ok=True)
        shutil.rmtree(self._disk / "reports", ignore_errors=True)


def write_job(folder: Path, url: str) -> Path:
    """Write a job with long texts that no compression makes short: a file fills many blocks."""
    rng = random.Random(1)
    rows = [{"id": f"s{n}", "question": _draw_text(rng), "answer": _draw_text(rng)} for n in range(N_ROWS)]
    (folder / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    profile = {"accuracy": 1.0, "latency_ms": 2}
    job = {
        "name": "job",
        "endpoints": {
            "demo": {
                "concurrency": 4,
                "simulator": {"url": url, "answer_column": "answer", "profiles": {"steady": profile}},
            }
        },
        "models": [{"name": "sim", "endpoint": "demo", "model": "steady", "price": {"input": 1, "output": 2}}],
        "prompts": [{"name": "plain", "user": "{{ question }}"}],
        "dataset": "samples.jsonl",
        "graders": [{"type": "contains", "value": "{{ answer }}"}],
    }
    path = folder / "job.json"
    path.write_text(json.dumps(job), encoding="utf-8")
    return path


def list_points(used_bytes: int, n_points: int) -> list[Point]:
    """Return points from no room at all to nearly enough: fresh runs and resumes, full once and for ever, in turn."""
    # A resume writes half of the journal and puts its tables where older ones lay: a good half of the room.
    wanted_bytes = [used_bytes, used_bytes * 3 // 5]
    return [
        Point(
            free_bytes=wanted_bytes[number % 2] * number // n_points // BLOCK_BYTES * BLOCK_BYTES,
            has_tables=number % 2 == 1,
            is_once=number % 4 in {2, 3},
        )
        for number in range(n_points)
    ]


@contextlib.contextmanager
def _listen() -> Iterator[Callable[[], list[str]]]:
    """Yield a function that returns the rows whose outcomes were acknowledged since."""
    journals: list[Journal] = []
    rows: list[str] = []
    append = Journal.append

    def listen(journal: Journal, record: Started | Attempt | Outcome) -> None:
        append(journal, record)
        journals[:] = [journal]
        if isinstance(record, Outcome):
            rows.append(record.row_id)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Journal, "append", listen)
        yield lambda: rows[: journals[0].acknowledged] if journals else []


def _is_whole(path: Path) -> bool:
    if path.suffix == ".parquet":
        return pl.read_parquet(path).height >= N_ROWS
    if path.suffix == ".json":
        return bool(json.loads(path.read_bytes()))
    if path.suffix == ".html":
        return path.read_bytes().rstrip().endswith(b"</html>")
    return path.suffix in {".jsonl", ".md", ".xml"}


def _measure_blocks(path: Path) -> int:
    return -(-path.stat().st_size // BLOCK_BYTES) * BLOCK_BYTES


def _draw_text(rng: random.Random) -> str:
    return rng.randbytes(TEXT_CHARS // 2).hex()


@contextlib.contextmanager
def serve_counting() -> Iterator[str]:
    """Serve a simulator for `write_job` in a process of its own; yield its URL."""
    with tempfile.TemporaryDirectory() as folder, serve_simulator(write_job(Path(folder), "http://127.0.0.1:1")) as url:
        yield url


def main() -> int:
    """Try the points inside of a process with mounts of its own; print what each kind showed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, default=200)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not options.inside:
        command = [*UNSHARE, sys.executable, "-m", "tests.crash_states.full_disk", "--inside"]
        return subprocess.run([*command, "--points", str(options.points)], cwd=ROOT, check=False).returncode
    with tempfile.TemporaryDirectory() as folder, serve_counting() as url:
        disk, jobs = Path(folder, "disk"), Path(folder, "jobs")
        disk.mkdir()
        jobs.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(disk)], check=True)
        try:
            rig = Rig(disk, jobs, url)
            tried = [rig.try_point(point) for point in list_points(rig.used_bytes, options.points)]
        finally:
            subprocess.run(["umount", str(disk)], check=True)
    return print_tried(tried)


def print_tried(tried: Sequence[Tried]) -> int:
    """Print the figures; return 1 if anything was wrong."""
    codes = Counter(one.exit_code for one in tried)
    n_bad = sum(bool(one.problems) for one in tried)
    sys.stdout.write(
        f"{len(tried)} points; exit codes {dict(sorted(codes.items()))}; acknowledged rows "
        f"{sum(one.n_acknowledged for one in tried)}; sent again {sum(one.n_sent_again for one in tried)}, at most "
        f"{max(one.n_sent_again for one in tried)} at one point; points with problems: {n_bad}\n"
    )
    for one in tried:
        for problem in one.problems[:3]:
            sys.stdout.write(f"  {one.point}: {problem[:300]}\n")
    return int(n_bad > 0)


if __name__ == "__main__":
    sys.exit(main())
