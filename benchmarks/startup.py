"""Start-up and quickstart against the bare interpreter: `python -m benchmarks.startup [TURNS]`.

The commands take turns (A B C, A B C, …), so that a machine whose speed drifts slows all of them alike.
"""

import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import evalrun
from benchmarks.whole.tables import print_table, show_spread

ROOT = Path(__file__).resolve().parent.parent


def make_commands(folder: str) -> dict[str, list[str]]:
    """Return what is timed, by name."""
    run = [sys.executable, "-m", "evalrun"]
    return {
        "python -c pass": [sys.executable, "-c", "pass"],
        "evalrun --version": [*run, "--version"],
        "evalrun --help": [*run, "--help"],
        "import everything a run needs": [sys.executable, "-c", "import evalrun.cli.run_command"],
        "quickstart": [*run, "run", str(ROOT / "configs/quickstart.yaml"), "-o", folder],
    }


def time_command(command: list[str]) -> float:
    """Return the wall seconds of one run."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    begin = time.perf_counter()
    subprocess.run(command, check=True, cwd=ROOT, env=environment, capture_output=True)
    return time.perf_counter() - begin


def print_startup(n_turns: int) -> None:
    """Time every command in turn and print a table of Markdown."""
    with tempfile.TemporaryDirectory() as folder:
        commands = make_commands(folder)
        seconds: dict[str, list[float]] = {name: [] for name in commands}
        for turn in range(n_turns + 1):
            for name, command in commands.items():
                taken = time_command(command)
                if turn:  # The first turn warms caches and is not counted.
                    seconds[name].append(taken)
    bare = seconds["python -c pass"]
    rows = []
    for name, values in seconds.items():
        ratios = [value / alone for value, alone in zip(values, bare, strict=True)]
        rows.append([name, show_spread(values, 3), show_spread(ratios, 1)])
    print_table(("start-up", "s", "× the bare interpreter"), rows)


def main() -> None:
    """Time every command in turn and print a table."""
    n_turns = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    print(
        f"evalrun {evalrun.__version__}, Python {platform.python_version()}, {os.cpu_count()} cores, {n_turns} turns\n"
    )
    print_startup(n_turns)


if __name__ == "__main__":
    main()
