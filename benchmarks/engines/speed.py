"""Requests per second, CPU and p99 of the candidates: `python -m benchmarks.engines.speed [--turns N] [CANDIDATE…]`.

Client on core 0, servers on core 1, candidates in turn, medians over the turns. Compare within one run only.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks.canned import serve_canned
from benchmarks.engines.clients import CANDIDATES
from benchmarks.engines.servers import pin, serve_nginx

PLAIN, TLS = 18180, 18143
ROOT = Path(__file__).resolve().parent.parent.parent
LOADS = [(scheme, n) for scheme in ("http", "https") for n in (64, 256, 1000)]
N_STREAMS = 512
N_CHUNKS = 51


def run_one(name: str, url: str, ca: Path, n_in_flight: int, seconds: float, *more: str) -> dict[str, float] | None:
    """Measure once; None when the candidate could not."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.engines.one",
        name,
        url,
        str(ca),
        str(n_in_flight),
        str(seconds),
        *more,
    ]
    try:
        done = subprocess.run(pin(command, 0), cwd=ROOT, capture_output=True, timeout=120, check=True, text=True)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        reason = (error.stderr or "").strip().splitlines() if isinstance(error.stderr, str) else []
        print(f"{name} failed at {url}, {n_in_flight} in flight: {reason[-1] if reason else error}", file=sys.stderr)
        return None
    return json.loads(done.stdout.splitlines()[-1])


def show(found: list[dict[str, float] | None], key: str, digits: int) -> str:
    """Return median (min–max) of one figure."""
    values = [one[key] for one in found if one is not None]
    if not values:
        return "–"
    return f"{statistics.median(values):,.{digits}f} ({min(values):,.{digits}f}–{max(values):,.{digits}f})"


def main() -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("candidates", nargs="*")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--only-streams", action="store_true", help="leave out the plain requests")
    given = parser.parse_args()
    names = given.candidates or list(CANDIDATES)
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores, {given.turns} turns; {_list_versions()}\n")
    with tempfile.TemporaryDirectory() as folder, serve_nginx(Path(folder), plain=PLAIN, tls=TLS) as ca:
        for scheme, n_in_flight in [] if given.only_streams else LOADS:
            url = f"{scheme}://127.0.0.1:{PLAIN if scheme == 'http' else TLS}/v1/chat/completions"
            found: dict[str, list[dict[str, float] | None]] = {name: [] for name in names}
            for _ in range(given.turns):
                for name in names:
                    found[name].append(run_one(name, url, ca, n_in_flight, given.seconds))
            print(f"| {scheme}, {n_in_flight} in flight | requests/s | CPU ms/request | p99 ms | RSS MB |")
            print("|---|--:|--:|--:|--:|")
            for name in names:
                cells = (("per_s", 0), ("cpu_ms", 3), ("p99_ms", 0), ("rss_mb", 0))
                print(f"| {name} | " + " | ".join(show(found[name], *cell) for cell in cells) + " |")
            print(flush=True)
        _measure_streams(names, given.turns, ca)


def _measure_streams(names: list[str], n_turns: int, ca: Path) -> None:
    found: dict[str, list[dict[str, float] | None]] = {name: [] for name in names}
    with serve_canned(n_chunks=N_CHUNKS, core=1) as server:
        url = f"{server.base_url}/chat/completions"
        for _ in range(n_turns):
            for name in names:
                found[name].append(run_one(name, url, ca, N_STREAMS, 0, "--stream", str(N_CHUNKS)))
    print(f"| {N_STREAMS} streams of {N_CHUNKS} chunks | CPU µs/chunk | wall s |")
    print("|---|--:|--:|")
    for name in names:
        print(f"| {name} | {show(found[name], 'cpu_us_per_chunk', 1)} | {show(found[name], 'wall_s', 2)} |")


def _list_versions() -> str:
    found = []
    for package in ("pyreqwest", "wreq", "httpx2", "httpx", "httptools", "openai", "uvloop"):
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            found.append(f"{package} not installed")
    return ", ".join(found)


if __name__ == "__main__":
    main()
