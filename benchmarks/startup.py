"""Start-up and quickstart against the bare interpreter: `python -m benchmarks.startup [RUNS]`.

The commands take turns (A B C, A B C, …), so that a machine whose speed drifts slows all of them alike.
"""

import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import evalrun

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


def main() -> None:
    """Time every command in turn and print a table."""
    n_runs = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    with tempfile.TemporaryDirectory() as folder:
        commands = make_commands(folder)
        seconds: dict[str, list[float]] = {name: [] for name in commands}
        for turn in range(n_runs + 1):
            for name, command in commands.items():
                taken = time_command(command)
                if turn:  # The first turn warms caches and is not counted.
                    seconds[name].append(taken)
    print(f"evalrun {evalrun.__version__}, Python {platform.python_version()}, {os.cpu_count()} cores, {n_runs} runs")
    bare = statistics.median(seconds["python -c pass"])
    for name, values in seconds.items():
        middle = statistics.median(values)
        print(
            f"{name:32s} {middle:6.3f} s  (min {min(values):.3f}, max {max(values):.3f})  {middle / bare:6.1f} × bare"
        )


if __name__ == "__main__":
    main()
