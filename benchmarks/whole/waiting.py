"""A server that takes its time: rate against the ideal, overhead, CPU; 256 and 1,000 at once, and 512 event streams.

With N requests in flight and L seconds a reply, no client can do more than N / L: what is missing to that is its own.
The loop is the stretch from the first request to the last reply at the server.
"""

import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.canned import serve_canned
from benchmarks.processes import CommandFailedError
from benchmarks.whole.contenders import EVALRUN, WRK, Contender, call_evalrun, find_place
from benchmarks.whole.tables import print_table, show_ratio, show_spread
from benchmarks.whole.watching import Watched, empty_folder, watch_work
from benchmarks.whole.work import Work, write_dataset

N_STREAMS = 512
N_CHUNKS = 51
N_STREAM_ROUNDS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """How many requests wait for how long."""

    n_at_once: int
    delay_s: float
    n_rounds: int
    """How often each slot is used."""
    has_peers: bool = False

    @property
    def ideal_per_s(self) -> float:
        """What a client without any overhead does."""
        return self.n_at_once / self.delay_s


LOADS = (
    Load(n_at_once=256, delay_s=0.2, n_rounds=50, has_peers=True),
    Load(n_at_once=1_000, delay_s=0.2, n_rounds=50),
    Load(n_at_once=1_000, delay_s=1.0, n_rounds=10),
)


def measure_waiting(
    load: Load, contenders: Iterable[Contender], *, n_turns: int, peers: Path | None, is_pinned: bool
) -> dict[str, list[Watched | str]]:
    """Let contenders do the work in turn; a turn that failed is its reason."""
    some = [one for one in contenders if one.name == EVALRUN or (load.has_peers and _can_wait(one))]
    found: dict[str, list[Watched | str]] = {one.name: [] for one in some}
    core = 0 if is_pinned else None
    with (
        tempfile.TemporaryDirectory() as temporary,
        serve_canned(delay_s=load.delay_s, core=1 if is_pinned else None) as server,
    ):
        for number in range(n_turns):
            for one in some:
                n_prompts = load.n_at_once * load.n_rounds
                n_prompts = min(n_prompts, one.most_waited_for or n_prompts)
                work = Work(
                    folder=empty_folder(Path(temporary) / "turn"),
                    dataset=Path(temporary) / f"{n_prompts}.jsonl",
                    n_prompts=n_prompts,
                    base_url=server.base_url,
                    concurrency=load.n_at_once,
                )
                if not work.dataset.exists():
                    write_dataset(work.dataset, n_prompts)
                try:
                    place = find_place(one, peers)
                    command = one.make_command(work, place)
                    watched: Watched | str = watch_work(one, command, work, server, place=place, core=core)
                except CommandFailedError as error:
                    watched = str(error)
                found[one.name].append(watched)
                _tell(number, one.name, load, watched)
    return found


def print_waiting(load: Load, found: dict[str, list[Watched | str]], absent: Sequence[str]) -> None:
    """Print the table of one load."""
    rows = []
    for name, turns in found.items():
        good = [turn for turn in turns if isinstance(turn, Watched)]
        if not good:
            rows.append([name, f"failed: {turns[-1]}", *["–"] * 7])
            continue
        own = name == EVALRUN
        rows.append(
            [
                name if len(good) == len(turns) else f"{name} ({len(good)} of {len(turns)} turns)",
                f"{good[0].n_prompts:,}",
                show_spread([turn.per_s for turn in good]),
                show_spread([turn.per_s / load.ideal_per_s * 100 for turn in good], 1),
                show_spread([turn.counts.most_in_flight for turn in good]),
                show_spread([turn.find_overhead_ms("p50") for turn in good], 1) if own else "–",
                show_spread([turn.find_overhead_ms("p99") for turn in good], 1) if own else "–",
                show_spread([turn.cpu_in_loop_s / turn.in_loop_s * 100 for turn in good], 1),
                show_ratio([turn.cpu_in_loop_s / turn.n_prompts * 1000 for turn in good]),
            ]
        )
    if load.has_peers:
        rows += [[name, "not installed", *["–"] * 7] for name in absent if name != WRK]
    title = f"{load.n_at_once:,} at once, {load.delay_s * 1000:,.0f} ms: ideal {load.ideal_per_s:,.0f}/s"
    print_table(
        [
            *(title, "prompts", "requests/s in the loop", "% of ideal", "most in flight at the server"),
            *("p50 overhead ms", "p99 overhead ms", "CPU in the loop, % of a core", "CPU ms/request in the loop"),
        ],
        rows,
    )


def measure_streams(own: Contender, *, n_turns: int, is_pinned: bool) -> list[Watched]:
    """Let evalrun read streams, all slots in use, several rounds."""
    found = []
    n_prompts = N_STREAMS * N_STREAM_ROUNDS
    with (
        tempfile.TemporaryDirectory() as temporary,
        serve_canned(n_chunks=N_CHUNKS, core=1 if is_pinned else None) as server,
    ):
        dataset = Path(temporary) / "rows.jsonl"
        write_dataset(dataset, n_prompts)
        for number in range(n_turns):
            work = Work(
                folder=empty_folder(Path(temporary) / "turn"),
                dataset=dataset,
                n_prompts=n_prompts,
                base_url=server.base_url,
                concurrency=N_STREAMS,
            )
            command = call_evalrun(work, should_stream=True)
            core = 0 if is_pinned else None
            watched = watch_work(own, command, work, server, place=Path(), core=core)
            found.append(watched)
            print(f"turn {number + 1}, streams: {_find_us_per_chunk(watched):.1f} µs a chunk", file=sys.stderr)
    return found


def print_streams(found: Sequence[Watched]) -> None:
    """Print the table of the streams."""
    head = (
        f"{N_STREAMS} streams of {N_CHUNKS} chunks",
        "prompts",
        "CPU µs/chunk in the loop",
        "loop s",
        "most in flight",
    )
    row = (
        EVALRUN,
        f"{found[0].n_prompts:,}",
        show_spread([_find_us_per_chunk(turn) for turn in found], 1),
        show_spread([turn.in_loop_s for turn in found], 1),
        show_spread([turn.counts.most_in_flight for turn in found]),
    )
    print_table(head, [row])


def _find_us_per_chunk(watched: Watched) -> float:
    return watched.cpu_in_loop_s / (watched.n_prompts * N_CHUNKS) * 1e6


def _can_wait(contender: Contender) -> bool:
    """Return whether its loop can be told: wrk has no end of its own, and a probe would begin the loop too early."""
    return contender.name != WRK and not contender.n_probes


def _tell(number: int, name: str, load: Load, watched: Watched | str) -> None:
    what = watched if isinstance(watched, str) else f"{watched.per_s:,.0f}/s of {load.ideal_per_s:,.0f}/s"
    print(f"turn {number + 1}, {name}, {load.n_at_once:,} at once: {what}", file=sys.stderr, flush=True)
