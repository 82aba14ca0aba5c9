"""SIGKILL at random instants: `python -m tests.crash.kill --kills 1000 --seed 1 [--minutes 20] [--mutant NAME]`.

A run is killed, resumed and killed again, up to six times, and then left to end; after each kill the journal and the
server's ledger are checked, at the end the tables are compared with those of a run that nobody killed. Its grades are
then made anew by another job, and that is killed as well. Exit code 1 when anything broke the guarantee.
"""

import argparse
import random
import shutil
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from tests.crash.calls import Call, Nursery, open_nursery
from tests.crash.checks import Bookkeeper
from tests.crash.mutants import MUTANTS
from tests.crash.regrading import go_on_grading
from tests.crash.site import CONCURRENCY, Site, open_site
from tests.crash.witness import FINAL_NAMES, Story, find_run, list_broken_files

N_SAMPLES = 20
"""Two models each: 40 rows, less than half a second."""

MAX_KILLS_PER_RUN = 6
TEAR_RATIO = 0.7
"""Share of kills after which the journal gets the torn end that a power failure may leave; only of rows in flight."""
POLL_S = 0.0005
MAX_SHOWN = 20

AIMS = ("instant", "length", "name")
"""What a kill waits for: a moment, a length of the journal, or a file's name that appears."""


@dataclass(slots=True)
class Tally:
    """What came of all kills."""

    kills: int = 0
    runs: int = 0
    stages: Counter[str] = field(default_factory=Counter)
    """Kills by what lay on the disk when they struck."""
    acknowledged: int = 0
    in_flight: int = 0
    sent_again: int = 0
    torn: int = 0
    violations: list[str] = field(default_factory=list)

    def render(self) -> str:
        """Return the figures in words."""
        stages = ", ".join(f"{n} {name}" for name, n in sorted(self.stages.items()))
        lines = [
            f"{self.kills} kills over {self.runs} runs: {stages}",
            f"{self.torn} times the journal's end was torn besides",
            f"{self.acknowledged} results shown as done by calls that were killed or went on",
            f"{self.in_flight} requests in flight at the kills, {self.sent_again} of them seen by the server and lost",
            f"violations: {len(self.violations)}",
            *self.violations[:MAX_SHOWN],
        ]
        return "\n".join(lines)


class Killer:
    """Kills runs at one site.

    Args:
        site: Where.
        nursery: Who starts them.
        seed: Of where the kills are aimed at; where they strike is up to the machine.
        mutant: A defect in every run; None = evalrun as it is.
        aims: Of `AIMS`, those to choose from.
    """

    def __init__(
        self, site: Site, nursery: Nursery, *, seed: int, mutant: str | None = None, aims: Sequence[str] = AIMS
    ) -> None:
        self.tally = Tally()
        self._site = site
        self._nursery = nursery
        self._seed = seed
        self._mutant = mutant
        self._aims = aims
        self._output = site.folder / "call.txt"

    def kill(self, n_kills: int, *, minutes: float = 60.0, max_violations: int = MAX_SHOWN) -> Tally:
        """Kill so many calls, or until the time is over, or until more is wrong than anybody wants to know."""
        ends_s = time.monotonic() + 60 * minutes
        tally = self.tally
        while tally.kills < n_kills and time.monotonic() < ends_s and len(tally.violations) < max_violations:
            rng = random.Random(f"{self._seed}/{tally.runs}")
            reports = self._site.folder / f"run-{tally.runs}"
            try:
                found = self._live_through(reports, rng, n_kills - tally.kills)
            except (AssertionError, OSError, pl.exceptions.PolarsError) as error:
                found = [f"{type(error).__name__}: {error}"]
            tally.violations += [f"run {tally.runs} of seed {self._seed}: {text}" for text in found]
            tally.runs += 1
            shutil.rmtree(reports, ignore_errors=True)
            if found:
                self._settle_server(reports)
        return tally

    def _settle_server(self, reports: Path) -> None:
        """Ask every row to its end: the server counts the attempts of a run that was given up on to the next run."""
        call = self._nursery.start(
            "run", "power.yaml", "-o", str(reports), folder=self._site.folder, output=self._output
        )
        assert call.finish() == 0, call.read_output()
        shutil.rmtree(reports, ignore_errors=True)

    def _live_through(self, reports: Path, rng: random.Random, n_left: int) -> list[str]:
        """Kill one run a few times and let it end; return what broke the guarantee."""
        book = Bookkeeper(self._site, CONCURRENCY)
        job = rng.choice(("power.yaml", "process.yaml"))
        for _ in range(min(n_left, rng.randint(1, MAX_KILLS_PER_RUN))):
            run = find_run(reports)
            if run is not None and (run / "run.json").exists():
                break  # It was killed behind its last word: there is nothing left to resume.
            call = self._start_run(job, reports, is_resumed=run is not None)
            _await_aim(call, rng.choice(self._aims), rng, reports, self._site)
            call.kill()
            code = call.finish()
            run = find_run(reports)
            book.check_call(run, call.read_output())
            if code != -9:
                if code != 0:
                    book.violations.append(f"exit code {code}: {call.read_output()[-300:]}")
                break
            self._count_kill(_name_stage(run, book.story, len(self._site.keys)))
            if run is not None and rng.random() < TEAR_RATIO:
                self.tally.torn += _tear(run, book.story, rng)
            if book.violations:
                return book.violations
        self._finish_run(job, reports, book)
        if not book.violations and self.tally.runs % 2:
            book.violations += self._kill_grading(reports, rng)
        self.tally.acknowledged += book.n_acknowledged
        self.tally.in_flight += book.n_in_doubt
        self.tally.sent_again += book.n_sent_again
        return book.violations

    def _start_run(self, job: str, reports: Path, *, is_resumed: bool) -> Call:
        resume = ("--resume",) if is_resumed else ()
        return self._start("run", job, "-o", str(reports), "--progress", "plain", *resume)

    def _start(self, *arguments: str) -> Call:
        return self._nursery.start(*arguments, folder=self._site.folder, output=self._output, mutant=self._mutant)

    def _finish_run(self, job: str, reports: Path, book: Bookkeeper) -> None:
        run = find_run(reports)
        if run is None or not (run / "run.json").exists():
            call = self._start_run(job, reports, is_resumed=run is not None)
            code = call.finish()
            run = find_run(reports)
            book.check_call(run, call.read_output())
            if code != 0:
                book.violations.append(f"exit code {code}: {call.read_output()[-300:]}")
                return
        assert run is not None
        book.check_end(run)

    def _kill_grading(self, reports: Path, rng: random.Random) -> list[str]:
        """Kill the grading by another job; grades and results are then those of before, or the new ones."""
        run = find_run(reports)
        assert run is not None
        call = self._start("grade", str(run), "--job", "other.yaml")
        call.is_over(rng.uniform(0.0, 0.6 * self._site.took_s))
        call.kill()
        if call.finish() == -9:
            self._count_kill("grading")
        found = list_broken_files(run)
        return found + go_on_grading(self._site, self._nursery, run, self._output)

    def _count_kill(self, stage: str) -> None:
        self.tally.kills += 1
        self.tally.stages[stage] += 1


def _await_aim(call: Call, aim: str, rng: random.Random, reports: Path, site: Site) -> None:
    """Wait until the moment to kill."""
    if aim == "instant":
        call.is_over(rng.uniform(0.0, site.took_s))
        return
    n_bytes, glob = rng.randrange(site.n_bytes), rng.choice((".tmp-*", *FINAL_NAMES))

    def is_reached() -> bool:
        return _measure_journal(reports) >= n_bytes if aim == "length" else any(reports.glob(f"*/*/{glob}"))

    while not is_reached() and not call.is_over(POLL_S):
        pass
    call.is_over(rng.uniform(0.0, 0.01))


def _measure_journal(reports: Path) -> int:
    try:
        return sum(path.stat().st_size for path in reports.glob("*/*/journal/*.jsonl"))
    except FileNotFoundError:  # A name that was there a moment ago.
        return 0


def _name_stage(run: Path | None, story: Story, n_rows: int) -> str:
    if run is None or not story.records:
        return "before the first record"
    if len(story.finished) < n_rows:
        return "while asking"
    if (run / "results.parquet").exists():
        return "after the tables"
    return "before or in the tables"


def _tear(run: Path, story: Story, rng: random.Random) -> bool:
    """Append what a power failure may leave of a record that was never acknowledged; return whether it was possible."""
    done = [record.line for record in story.records if record.kind == "done"]
    open_rows = [row_id for row_id, n in story.in_doubt.items() if n and row_id not in story.finished]
    if not done or not open_rows:
        return False
    segment = max(run.glob("journal/[0-9]*.jsonl"))
    # An outcome of one row whose head came from another: only its checksum tells.
    mixed = _exchange_row(rng.choice(done), rng.choice(open_rows), story)
    torn = rng.choice((mixed, mixed, mixed, mixed[: rng.randrange(1, len(mixed))], bytes(len(mixed)), mixed[:-1]))
    with segment.open("ab") as stream:
        stream.write(torn)
    return True


def _exchange_row(line: bytes, row_id: str, story: Story) -> bytes:
    """Return an outcome's line under another row's name, with the checksum that it had."""
    bodies = [record.body for record in story.records]
    key = next(body["request_key"] for body in bodies if body.get("row_id") == row_id)
    old = next(body for record, body in zip(story.records, bodies, strict=True) if record.line == line)
    changed = line.replace(old["row_id"].encode(), row_id.encode())
    changed = changed.replace(old["request_key"].encode(), key.encode())
    assert zlib.crc32(changed) != zlib.crc32(line)
    return changed


@contextmanager
def open_killer(*, seed: int, mutant: str | None = None) -> Iterator[Killer]:
    """Open a site in a temporary folder, and a killer there."""
    with (
        tempfile.TemporaryDirectory(prefix="evalrun-kill-") as folder,
        open_nursery() as nursery,
        open_site(Path(folder), nursery, n_samples=N_SAMPLES) as site,
    ):
        yield Killer(site, nursery, seed=seed, mutant=mutant)


def main(arguments: Sequence[str] | None = None) -> int:
    """Kill as the command line says; 1 when the guarantee did not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=60.0, help="end after this time")
    parser.add_argument("--mutant", choices=sorted(MUTANTS), help="plant a defect, which must be found")
    asked = parser.parse_args(arguments)
    with open_killer(seed=asked.seed, mutant=asked.mutant) as killer:
        tally = killer.kill(asked.kills, minutes=asked.minutes)
    sys.stdout.write(tally.render() + "\n")
    return 1 if tally.violations else 0


if __name__ == "__main__":
    sys.exit(main())
