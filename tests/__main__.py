"""Every check in one go: `python -m tests` (lint, format, types, tests with coverage). CI calls only this."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

WHOLLY_COVERED = (
    "evalrun/analysis/gate.py",
    "evalrun/analysis/stats.py",
    "evalrun/cost.py",
    "evalrun/dispatch/assembly.py",
    "evalrun/dispatch/lanes.py",
    "evalrun/dispatch/retry.py",
    "evalrun/dispatch/sse.py",
    "evalrun/dispatch/wire.py",
    "evalrun/templates.py",
)
"""Modules in which every branch is tested."""

IN_PARALLEL = ("-n", "auto", "--maxprocesses", "4", "--dist", "loadfile", "--no-loadscope-reorder")
"""A process for each core, a file at a time, so that its fixtures are made once. Files start in the order of their
names: by its count of tests, as xdist would have it, those with the longest tests would start last."""

STEPS = (
    ("lint", ("ruff", "check", ".")),
    ("format", ("ruff", "format", "--check", ".")),
    ("types", ("mypy",)),
    ("tests", ("coverage", "run", "-m", "pytest", *IN_PARALLEL)),
    ("coverage data", ("coverage", "combine", "--quiet")),
    ("coverage", ("coverage", "report", "--fail-under=92")),
    (
        "coverage of the parts that must not fail",
        ("coverage", "report", "--fail-under=100", f"--include={','.join(WHOLLY_COVERED)}"),
    ),
)


def main() -> int:
    """Run every step, even after a failure; return 0 when all passed."""
    failed = []
    for name, command in STEPS:
        sys.stdout.write(f"\n=== {name}: {' '.join(command)}\n")
        sys.stdout.flush()
        environment = {**os.environ, "COVERAGE_CORE": os.environ.get("COVERAGE_CORE", "ctrace")}
        if subprocess.run([sys.executable, "-m", *command], cwd=ROOT, env=environment, check=False).returncode:
            failed.append(name)
    if failed:
        sys.stdout.write(f"\nfailed: {', '.join(failed)}\n")
    sys.stdout.write(f"\n{len(STEPS) - len(failed)} passed, {len(failed)} failed\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
