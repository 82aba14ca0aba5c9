"""A fault at every system call that changes the run folder: `python -m tests.crash.syscalls [--phase run] …`.

SIGKILL, EIO and ENOSPC, once and for ever, at each such call of a 20-row run, of the resume of one that was killed half
way, and of a new grading. After each the guarantee is checked at the journal and the ledger; the run then goes on
undisturbed and must end with the tables of a run that nothing happened to. Needs strace and the right to trace.
"""

import argparse
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.crash.calls import Call, Nursery, open_nursery
from tests.crash.checks import Bookkeeper
from tests.crash.mutants import MUTANTS
from tests.crash.names import RUN_ID
from tests.crash.regrading import go_on_grading
from tests.crash.site import Site, open_site
from tests.crash.tracing import FAULTS, KILL, STRACE, Fault, Point, Tracer, list_points
from tests.crash.witness import find_run, list_broken_files, read_ledger

N_SAMPLES, CONCURRENCY = 10, 4
"""Two models each: 20 rows."""

PHASES = ("run", "resume", "grade")
HALF_OF_WRITES = 22
"""The write to the journal at which the run dies that is then resumed."""

DISPENSABLE = ("events.jsonl", ".tmp-")
"""Files that a run may lose and end well: the event log, and what it takes away at the end."""

MAX_SHOWN = 20
DEFECT_WORDS = ("Traceback", "failed unexpectedly")


@dataclass(slots=True)
class Tally:
    """What came of all trials."""

    points: Counter[str] = field(default_factory=Counter)
    """By phase."""
    hidden: Counter[str] = field(default_factory=Counter)
    """By phase: points that strace cannot tell from those of another thread."""
    trials: int = 0
    missed: int = 0
    """Trials whose point was never reached."""
    codes: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)

    def render(self) -> str:
        """Return the figures in words."""
        points = ", ".join(f"{n} of the {phase} (and {self.hidden[phase]} hidden)" for phase, n in self.points.items())
        codes = ", ".join(f"{n} × {code}" for code, n in sorted(self.codes.items()))
        lines = [
            f"points: {points}",
            f"trials: {self.trials}, of which {self.missed} never came to their point; exit codes: {codes}",
            f"violations: {len(self.violations)}",
            *self.violations[:MAX_SHOWN],
        ]
        return "\n".join(lines)


class Saboteur:
    """Lets system calls fail at one site.

    Args:
        site: Where.
        nursery: Who starts the calls.
        mutant: A defect in every call that meets a fault; None = evalrun as it is.
    """

    def __init__(self, site: Site, nursery: Nursery, *, mutant: str | None = None) -> None:
        self.tally = Tally()
        self._site = site
        self._nursery = nursery
        self._mutant = mutant
        self._reports = site.folder / "reports"
        self._output = site.folder / "call.txt"
        self._log = site.folder / "strace.txt"
        self._halves: dict[str, tuple[Path, Counter[tuple[str, str, int]]]] = {}

    def list_points(self, phase: str) -> list[Point]:
        """Return every point of a phase, in order."""
        self._set_stage(phase)
        code = Tracer(self._start(phase, is_traced=True), self._log).finish()
        assert code == 0, self._output.read_text(encoding="utf-8")
        points, n_hidden = list_points(self._log, self._reports)
        self.tally.points[phase], self.tally.hidden[phase] = len(points), n_hidden
        return points

    def try_point(self, phase: str, point: Point, fault: Fault) -> list[str]:
        """Let one system call fail; return what broke the guarantee."""
        book = self._set_stage(phase)
        call = self._start(phase, is_traced=True)
        tracer = Tracer(call, self._log, fault=fault, point=point)
        code = tracer.finish()
        tally = self.tally
        tally.trials += 1
        tally.codes["killed" if code == -9 else f"exit {code}"] += 1
        has_struck = tracer.has_struck()
        tally.missed += not has_struck
        found = self._judge(phase, point, fault, code, call.read_output(), book) if has_struck else []
        if not found:
            found = self._go_on(phase, book)
        found = [f"{fault.name} at {point.render()} in the {phase}: {text}" for text in found]
        tally.violations += found
        return found

    def _set_stage(self, phase: str) -> Bookkeeper:
        """Put the run folder into the state in which a phase begins."""
        shutil.rmtree(self._reports, ignore_errors=True)
        if phase == "run":
            return Bookkeeper(self._site, CONCURRENCY)
        if phase not in self._halves:
            self._make_half(phase)
        half, asked = self._halves[phase]
        shutil.copytree(half, self._reports)
        book = Bookkeeper(self._site, CONCURRENCY)
        book.adopt(find_run(self._reports), asked)
        return book

    def _make_half(self, phase: str) -> None:
        """Make the run that a phase goes on with: killed half way, or ended."""
        shutil.rmtree(self._reports, ignore_errors=True)
        before = read_ledger(self._site.url)
        if phase == "resume":
            journal = self._reports / "power" / RUN_ID / "journal" / "000001.jsonl"
            point = Point(str(journal), "write", HALF_OF_WRITES)
            call = self._start("run", is_traced=True)
            code = Tracer(call, self._log, fault=KILL, point=point).finish()
            assert code == -9, call.read_output()
            time.sleep(0.3)  # What was in flight reaches the ledger.
        else:
            call = self._start("run", is_traced=False)
            assert call.finish() == 0, call.read_output()
        kept = self._site.folder / f"half-{phase}"
        shutil.copytree(self._reports, kept)
        shutil.rmtree(self._reports)
        self._halves[phase] = kept, read_ledger(self._site.url) - before

    def _start(self, phase: str, *, is_traced: bool, is_sound: bool = False) -> Call:
        """Start the call of a phase; the names of its files are fixed when it is traced."""
        run = find_run(self._reports)
        if phase == "grade":
            arguments = ["grade", str(run), "--job", "other.yaml"]
        else:
            arguments = ["run", "power.yaml", "-o", str(self._reports), "--progress", "plain"]
            arguments += ["--resume"] if run is not None else []
        return self._nursery.start(
            *arguments,
            folder=self._site.folder,
            output=self._output,
            mutant=None if is_sound else self._mutant,
            names=phase if is_traced or (phase == "run" and not is_sound) else None,
            is_stopped=is_traced,
        )

    def _judge(self, phase: str, point: Point, fault: Fault, code: int, output: str, book: Bookkeeper) -> list[str]:
        """Return what is wrong right after a call that met a fault."""
        run = find_run(self._reports)
        found = list(_list_wrong_words(output))
        if phase == "grade":
            found += list_broken_files(run)
        else:
            book.check_call(run, output)
            found += book.violations
            book.violations = []
        if fault.is_kill:
            return found + ([] if code == -9 else [f"exit code {code} instead of death"])
        allowed = {5} if book.has_sent else {2}
        if phase == "grade" or (book.has_begun and not book.has_sent):
            allowed = {2, 5}  # Nothing is sent, and yet it is the disk that fails a run under way.
        if any(name in point.path for name in DISPENSABLE):
            allowed.add(0)
        if code not in allowed:
            found.append(f"exit code {code} instead of {' or '.join(map(str, sorted(allowed)))}: {output[-200:]}")
        return found

    def _go_on(self, phase: str, book: Bookkeeper) -> list[str]:
        """Let the run end undisturbed; return what is wrong then."""
        run, is_swept = find_run(self._reports), False
        if phase == "grade":
            assert run is not None
            return go_on_grading(self._site, self._nursery, run, self._output)
        if run is None or not (run / "run.json").exists():
            call = self._start("run", is_traced=False, is_sound=True)
            code, is_swept = call.finish(), True
            run = find_run(self._reports)
            book.check_call(run, call.read_output())
            if code != 0:
                return [f"the next call: exit code {code}: {call.read_output()[-300:]}"]
        assert run is not None
        book.check_end(run, is_swept=is_swept)
        return book.violations


def _list_wrong_words(output: str) -> Iterator[str]:
    for word in DEFECT_WORDS:
        if word in output:
            yield f"told the user of a defect: {output[-300:]}"


@contextmanager
def open_saboteur(*, mutant: str | None = None) -> Iterator[Saboteur]:
    """Open a site in a temporary folder, and a saboteur there."""
    with (
        tempfile.TemporaryDirectory(prefix="evalrun-syscalls-") as folder,
        open_nursery() as nursery,
        open_site(Path(folder).resolve(), nursery, n_samples=N_SAMPLES, concurrency=CONCURRENCY) as site,
    ):
        yield Saboteur(site, nursery, mutant=mutant)


def main(arguments: Sequence[str] | None = None) -> int:
    """Try every point, as the command line says; 1 when the guarantee did not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--phase", choices=PHASES, action="append", help="default: all")
    parser.add_argument("--fault", choices=[fault.name for fault in FAULTS], action="append", help="default: all")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="every N-th point only")
    parser.add_argument("--mutant", choices=sorted(MUTANTS), help="plant a defect, which must be found")
    asked = parser.parse_args(arguments)
    if STRACE is None:
        sys.stderr.write("strace is not installed, or may not trace here\n")
        return 2
    faults = [fault for fault in FAULTS if asked.fault is None or fault.name in asked.fault]
    with open_saboteur(mutant=asked.mutant) as saboteur:
        for phase in asked.phase or PHASES:
            points = saboteur.list_points(phase)[:: asked.every]
            for fault in faults:
                for point in points:
                    saboteur.try_point(phase, point, fault)
                sys.stderr.write(f"{phase}, {fault.name}: {len(points)} points\n")
    sys.stdout.write(saboteur.tally.render() + "\n")
    return 1 if saboteur.tally.violations else 0


if __name__ == "__main__":
    sys.exit(main())
