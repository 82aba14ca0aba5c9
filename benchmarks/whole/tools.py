"""The whole tool against its peers: start-up included, every feature on, 64 at once, nginx on the other side.

Contenders take turns (A B C, A B C, …), so that a machine whose speed drifts slows all of them alike, and a ratio is
made of two figures of the same turn. nginx counts the requests: a contender that sent fewer than it was given did
other work, and its turn fails.
"""

import re
import shutil
import sys
import tempfile
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.engines.servers import find_free_port, serve_nginx
from benchmarks.processes import CommandFailedError, Taken, run_command
from benchmarks.whole.contenders import EVALRUN, WRK, Contender, find_place, make_environ
from benchmarks.whole.tables import print_table, show_ratio, show_spread
from benchmarks.whole.work import Work, write_dataset

TIMEOUT_S = 1800.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What one contender did in one turn."""

    n_requests: int
    taken: Taken

    @property
    def per_s(self) -> float:
        """Requests per second of the whole process, its start and end included."""
        return self.n_requests / self.taken.wall_s

    @property
    def cpu_ms(self) -> float:
        """Milliseconds of CPU per request, likewise."""
        return self.taken.cpu_s / self.n_requests * 1000


@dataclass(slots=True)
class Series:
    """All turns of one contender."""

    contender: Contender
    n_prompts: int
    turns: list[Turn | None]
    """None: the contender failed in that turn."""
    failure: str = ""


def measure_tools(
    contenders: Sequence[Contender],
    *,
    n_prompts: int,
    n_turns: int,
    n_at_once: int,
    peers: Path | None,
    is_pinned: bool,
    most_for_peers: int | None,
) -> list[Series]:
    """Let every contender do the work in turn.

    Args:
        contenders: Who takes part.
        n_prompts: Prompts of a turn.
        n_turns: Turns of each.
        n_at_once: Requests in flight.
        peers: Where they are installed.
        is_pinned: Whether clients have core 0 and nginx has core 1; otherwise the kernel places them.
        most_for_peers: At most so many prompts for a contender that has a limit, instead of its own.
    """
    found = [
        Series(one, min(n_prompts, (most_for_peers or one.most_prompts) if one.most_prompts else n_prompts), [])
        for one in contenders
    ]
    with tempfile.TemporaryDirectory() as temporary:
        top = Path(temporary)
        (top / "nginx").mkdir()
        port, tls = find_free_port(), find_free_port()
        for n_rows in {series.n_prompts for series in found}:
            write_dataset(top / f"{n_rows}.jsonl", n_rows)
        with serve_nginx(top / "nginx", plain=port, tls=tls, core=1 if is_pinned else None):
            for number in range(n_turns):
                for series in found:
                    work = Work(
                        folder=top / "turn",
                        dataset=top / f"{series.n_prompts}.jsonl",
                        n_prompts=series.n_prompts,
                        base_url=f"http://127.0.0.1:{port}/v1",
                        concurrency=n_at_once,
                    )
                    _take_turn(series, work, peers, core=0 if is_pinned else None)
                    _tell(number, series)
    return found


def print_tools(found: Sequence[Series], absent: Sequence[str], title: str) -> None:
    """Print the table of one size of work."""
    (own,) = (series for series in found if series.contender.name == EVALRUN)
    rows = []
    for series in found:
        turns = [turn for turn in series.turns if turn is not None]
        name = series.contender.name
        if not turns:
            rows.append([name, f"{series.n_prompts:,}", f"failed: {series.failure}", "–", "–", "–", "–"])
            continue
        n_prompts = (
            f"{turns[0].n_requests:,} in {turns[0].taken.wall_s:.0f} s" if name == WRK else f"{series.n_prompts:,}"
        )
        rows.append(
            [
                name if not series.failure else f"{name} ({len(turns)} of {len(series.turns)} turns; {series.failure})",
                n_prompts,
                show_spread([turn.per_s for turn in turns]),
                show_ratio([turn.cpu_ms for turn in turns]),
                show_spread([turn.taken.peak_mb for turn in turns]),
                show_ratio([a.per_s / b.per_s for a, b in zip(own.turns, series.turns, strict=True) if a and b]),
                show_ratio([b.cpu_ms / a.cpu_ms for a, b in zip(own.turns, series.turns, strict=True) if a and b]),
            ]
        )
    rows += [[name, "not installed", "–", "–", "–", "–", "–"] for name in absent]
    head = (
        title,
        "prompts",
        "requests/s",
        "CPU ms/request",
        "peak RSS MB",
        "evalrun's rate ÷ its",
        "its CPU ÷ evalrun's",
    )
    print_table(head, rows)


def _take_turn(series: Series, work: Work, peers: Path | None, core: int | None) -> None:
    work.folder.mkdir()
    contender = series.contender
    try:
        place = find_place(contender, peers)
        command = contender.make_command(work, place)
        n_before = _count_requests(work)
        environ = make_environ(contender, work, place)
        taken = run_command(command, folder=work.folder, environ=environ, core=core, timeout_s=TIMEOUT_S)
        # Both counts hold the request that asks for the later one.
        n_requests = _count_requests(work) - n_before - 1
        if contender.name != WRK and n_requests != work.n_prompts + contender.n_probes:
            raise CommandFailedError(f"sent {n_requests:,} requests for {work.n_prompts:,} prompts")
        series.turns.append(Turn(n_requests=n_requests, taken=taken))
    except CommandFailedError as error:
        series.turns.append(None)
        series.failure = str(error)
    finally:
        shutil.rmtree(work.folder)


def _count_requests(work: Work) -> int:
    """Return how many requests nginx has taken, from its page of three numbers: accepts, handled, requests."""
    with urllib.request.urlopen(work.base_url.removesuffix("/v1") + "/counts", timeout=60) as reply:
        found = re.search(rb"\n *\d+ \d+ (\d+)", reply.read())
    assert found is not None
    return int(found[1])


def _tell(number: int, series: Series) -> None:
    turn = series.turns[-1]
    what = series.failure if turn is None else f"{turn.per_s:,.0f}/s, {turn.cpu_ms:.3f} ms of CPU a request"
    print(f"turn {number + 1}, {series.contender.name}, {series.n_prompts:,}: {what}", file=sys.stderr, flush=True)
