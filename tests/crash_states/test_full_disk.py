"""Wherever room ends, nothing acknowledged is missing, older tables are whole, and a resume goes on."""

import re
import shutil
import subprocess
import sys

import pytest

from tests.cli.processes import ROOT
from tests.crash_states.full_disk import UNSHARE


def can_mount() -> bool:
    """Tell whether this user may give a process a RAM disk of its own."""
    if shutil.which(UNSHARE[0]) is None:
        return False
    command = [*UNSHARE, "mount", "-t", "tmpfs", "none", "/mnt"]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


def run_points(n_points: int) -> str:
    """Try points in a process with mounts of its own; return what it prints, and fail where it found a problem."""
    command = [sys.executable, "-m", "tests.crash_states.full_disk", "--points", str(n_points)]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout


needs_mount = pytest.mark.skipif(not can_mount(), reason="this user may not mount a RAM disk")


@needs_mount
def test_full_disk_loses_nothing_acknowledged() -> None:
    """At points all over a run and a resume, journal and tables, once and for ever."""
    assert re.match(r"6 points; .*points with problems: 0$", run_points(6).splitlines()[0])


@needs_mount
@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_full_disk_loses_nothing_acknowledged_at_two_hundred_points() -> None:
    """The same at length."""
    assert re.match(r"200 points; .*points with problems: 0$", run_points(200).splitlines()[0])
