"""What grows with the number of prompts: memory by stage, and the reports of a run that is over."""

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.canned import serve_canned
from benchmarks.processes import Taken, run_command
from benchmarks.whole.contenders import Contender, call_evalrun, make_environ
from benchmarks.whole.tables import print_table, show_ratio, show_spread
from benchmarks.whole.watching import TIMEOUT_S, Watched, empty_folder, find_run, watch_work
from benchmarks.whole.work import Work, write_dataset

MEMORY_SIZES = (1_000, 100_000, 1_000_000)
REPORT_ROWS = 100_000


@dataclass(slots=True)
class Afterwards:
    """What is done with a run that is over."""

    run: Watched
    commands: dict[str, list[Taken]]
    """Turns by command."""


def measure_memory(own: Contender, *, sizes: Sequence[int], n_at_once: int) -> list[Watched]:
    """Run each size once: memory hardly differs between turns, and the largest takes minutes."""
    found = []
    with tempfile.TemporaryDirectory() as temporary, serve_canned() as server:
        for n_prompts in sizes:
            work = _make_work(Path(temporary), server.base_url, n_prompts, n_at_once)
            watched = watch_work(own, call_evalrun(work), work, server, place=Path(), core=None)
            print(f"{n_prompts:,} prompts: {watched.taken.peak_mb:.0f} MB", file=sys.stderr, flush=True)
            found.append(watched)
    return found


def print_memory(found: Sequence[Watched]) -> None:
    """Print the table of the sizes."""
    rows = []
    for one in found:
        taken = one.taken
        end_s = taken.began_s + taken.wall_s
        rows.append(
            [
                f"{one.n_prompts:,} prompts",
                f"{taken.find_peak_mb(taken.began_s, one.first_at_s):.0f}",
                f"{taken.find_peak_mb(one.first_at_s, one.last_at_s):.0f}",
                f"{taken.find_peak_mb(one.last_at_s, end_s):.0f}",
                f"{taken.peak_mb:.0f}",
                f"{one.first_at_s - taken.began_s:.1f}",
                f"{one.in_loop_s:.1f}",
                f"{end_s - one.last_at_s:.1f}",
                f"{taken.cpu_s / one.n_prompts * 1000:.3f}",
            ]
        )
    head = ["peak RSS, MB", "checking", "asking", "closing", "in all"]
    print_table([*head, "first request after s", "asking s", "closing s", "CPU ms/request"], rows)


def measure_afterwards(own: Contender, *, n_rows: int, n_turns: int, n_at_once: int) -> Afterwards:
    """Make one run, then render its reports and grade it again, in turn."""
    with tempfile.TemporaryDirectory() as temporary, serve_canned() as server:
        work = _make_work(Path(temporary), server.base_url, n_rows, n_at_once)
        environ = make_environ(own, work, Path())
        run = watch_work(own, call_evalrun(work), work, server, place=Path(), core=None)
        commands: dict[str, list[Taken]] = {"report": [], "grade": []}
        for _ in range(n_turns):
            for name, turns in commands.items():
                command = [sys.executable, "-m", "evalrun", name, str(find_run(work.folder))]
                turns.append(run_command(command, folder=work.folder, environ=environ, timeout_s=TIMEOUT_S))
                print(f"{name}: {turns[-1].wall_s:.1f} s", file=sys.stderr, flush=True)
    return Afterwards(run, commands)


def print_afterwards(found: Afterwards) -> None:
    """Print the table of what is done with a run that is over."""
    rows = []
    for name, turns in found.commands.items():
        walls = [turn.wall_s for turn in turns]
        cpus = [turn.cpu_s for turn in turns]
        rows.append([f"evalrun {name}", show_ratio(walls), show_ratio(cpus), show_spread([t.peak_mb for t in turns])])
    run = found.run
    closing_s = run.taken.began_s + run.taken.wall_s - run.last_at_s
    rows.append(["from the run's last reply to its end, once", f"{closing_s:.1f}", "–", f"{run.taken.peak_mb:.0f}"])
    print_table([f"{run.n_prompts:,} rows", "s", "CPU s", "peak RSS MB"], rows)


def _make_work(folder: Path, base_url: str, n_prompts: int, n_at_once: int) -> Work:
    work = Work(
        folder=empty_folder(folder / "turn"),
        dataset=folder / "rows.jsonl",
        n_prompts=n_prompts,
        base_url=base_url,
        concurrency=n_at_once,
    )
    write_dataset(work.dataset, n_prompts)
    return work
